"""The prices of the models in use, and newer list prices on request. Nothing is fetched unless a person asks."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Final, Literal

import httpx

from tierlight.pricing import PriceBook, PriceRow

from .errors import CollectorError
from .records import Filters, TimeRange
from .stores.protocol import RollupSource

LIST_URL: Final = (
    "https://raw.githubusercontent.com/pydantic/genai-prices/refs/heads/main/prices/new_data/v2/data.json"
)
MAX_LIST_BYTES: Final = 32 * 1024 * 1024
STALE_DAYS: Final = 30
DISAGREEMENT: Final = Decimal("0.01")  # two lists further apart than this are shown side by side

RetirementLevel = Literal["", "notice", "warning", "alert"]


class PricesUnavailable(CollectorError):
    """Newer list prices could not be fetched; the ones in use stay."""


@dataclass(frozen=True, slots=True)
class PriceInUse:
    """One model that was called, with its price today. `quote` is None where no source has one."""

    provider: str
    model: str
    tier: str
    calls: int
    unpriced: int
    input_tokens: int
    output_tokens: int
    cost_nusd: int
    quote: PriceRow | None
    other_list: Decimal | None  # by what share the second list differs, None = by 1 % at the most or unknown
    retires: date | None
    retires_in_days: int | None
    retirement: RetirementLevel


def prices_in_use(
    store: RollupSource, book: PriceBook, when: TimeRange, where: Filters = Filters()
) -> list[PriceInUse]:
    """The models called in that time, those with unpriced calls first, then by cost; prices are of its end."""
    at = datetime.fromtimestamp(when.end_ns // 1_000_000_000, UTC)
    found = []
    for rollup in store.rollups(when, ("provider", "model", "tier"), where):
        provider, model, tier = rollup.key
        gap = book.disagreement(provider, model, at)
        retires = book.retirement(provider, model)
        days = (retires - at.date()).days if retires else None
        found.append(
            PriceInUse(
                provider=provider,
                model=model,
                tier=tier,
                calls=rollup.calls,
                unpriced=rollup.unpriced,
                input_tokens=rollup.input_tokens,
                output_tokens=rollup.output_tokens,
                cost_nusd=rollup.cost_nusd,
                quote=book.quote(provider, model, at),
                other_list=gap if gap is not None and abs(gap) > DISAGREEMENT else None,
                retires=retires,
                retires_in_days=days,
                retirement=retirement_level(days),
            )
        )
    return sorted(found, key=lambda use: (-use.unpriced, -use.cost_nusd, use.provider, use.model))


def retirement_level(days: int | None) -> RetirementLevel:
    """How urgent a retirement in so many days is: within 90, 30 and 7.

    >>> retirement_level(90), retirement_level(30), retirement_level(-2), retirement_level(None)
    ('notice', 'warning', 'alert', '')
    """
    if days is None or days > 90:
        return ""
    return "notice" if days > 30 else "warning" if days > 7 else "alert"


def age_days(book: PriceBook, today: date) -> int:
    """How old the bundled price table is; from `STALE_DAYS` on it should be said aloud."""
    return max(0, (today - book.as_of).days)


# ---- prices that people set on the page ------------------------------------------------------------------


OWN_PRICES: Final = "prices.own"  # the store's setting that holds them


@dataclass(frozen=True, slots=True)
class OwnPrice:
    """A price of the user's, in USD per million tokens; "" is unknown, or for the day: since ever."""

    provider: str
    model: str
    input: str
    output: str
    cached_input: str = ""
    valid_from: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        return self.provider, self.model, self.valid_from


def own_prices(settings: Mapping[str, str]) -> list[OwnPrice]:
    """The prices in a store's settings, as they were set."""
    return [OwnPrice(**row) for row in json.loads(settings.get(OWN_PRICES) or "[]")]


def as_setting(rows: Iterable[OwnPrice]) -> str:
    """What `own_prices` reads."""
    return json.dumps([asdict(row) for row in rows], ensure_ascii=False)


def as_toml(rows: Iterable[OwnPrice]) -> bytes:
    """The rows in the form of a `prices.toml`.

    >>> print(as_toml([OwnPrice("openai", "mine", "0.25", "2", valid_from="2026-01-01")]).decode())
    [[price]]
    provider = "openai"
    model = "mine"
    input = 0.25
    output = 2
    valid_from = 2026-01-01
    <BLANKLINE>
    """
    parts = []
    for row in rows:
        # JSON's strings are TOML's, but for DEL
        names = {
            key: json.dumps(getattr(row, key), ensure_ascii=False).replace("\x7f", "\\u007f")
            for key in ("provider", "model")
        }
        numbers = {key: getattr(row, key) for key in ("input", "cached_input", "output", "valid_from")}
        lines = [f"{key} = {value}" for key, value in {**names, **numbers}.items() if value]
        parts.append("\n".join(["[[price]]", *lines, ""]))
    return "\n".join(parts).encode()


# ---- files ----------------------------------------------------------------------------------------------


def open_book(
    user: Path | None = None, listed: Path | None = None, own: Iterable[OwnPrice] = ()
) -> PriceBook:
    """The price book of a server: the user's file, his prices set on the page, and fetched list prices, where they exist.

    Where file and page name the same model and day, the file is believed.

    Raises:
        ConfigurationError: a file can't be used; the message says why.
        OSError: the user's file was named but can't be read.
    """
    listed_bytes = listed.read_bytes() if listed is not None and listed.exists() else None
    user_bytes = user.read_bytes() if user is not None else None
    if set_there := as_toml(own):
        user_bytes = set_there + b"\n" + (user_bytes or b"")
    if user_bytes is None and listed_bytes is None:
        return PriceBook.default()
    return PriceBook.from_sources(user=user_bytes, listed=listed_bytes)


def fetch_list(client: httpx.Client, url: str = LIST_URL) -> bytes:
    """The list prices that the genai-prices project publishes today, checked to be readable.

    Raises:
        PricesUnavailable: not https, no answer, or too large.
        ConfigurationError: what came is no price list.
    """
    if not url.startswith("https://"):
        raise PricesUnavailable(f"list prices are fetched by https only, got {url[:80]!r}")
    body = bytearray()
    try:
        with client.stream("GET", url) as response:
            response.raise_for_status()
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > MAX_LIST_BYTES:
                    raise PricesUnavailable(
                        f"{url} sent more than {MAX_LIST_BYTES:,} bytes: not a price list"
                    )
    except httpx.HTTPError as error:
        raise PricesUnavailable(
            f"{url} gave no price list ({type(error).__name__}): prices stay as they are"
        ) from error
    payload = bytes(body)
    PriceBook.from_sources(listed=payload)
    return payload


def save_list(payload: bytes, path: Path) -> None:
    """Put fetched list prices where `open_book` finds them; a crash leaves the old ones whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write(payload)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
