"""First source: the user's own prices, `prices.toml`.

[[price]]
provider = "openai"            # or "azure.ai.openai", "google", "my-gateway", "*"
model = "gpt-5-mini"           # "*" at the end matches what begins so; "*" alone matches all
valid_from = 2026-01-01        # optional; from this day on (UTC)
valid_until = 2026-07-01       # optional; up to the day before
context = "batch"              # optional; batch, flex, priority, fast. Absent: every call
currency = "EUR"               # optional, then with the rate of that contract:
usd_rate = 1.09                # one EUR is so many USD
input = 0.25                   # per million tokens; also cached_input, cache_write, cache_write_1h,
output = 2.00                  # reasoning, audio_input, audio_output, image_input, image_output
per_query = 0.002              # also per_request, per_web_search
discount_percent = 12          # off the prices of this row, or off the list price if it has none

[[price]]
provider = "ollama"
model = "*"
per_hour = 0.80                # of the machine; or: free = true
parallel = 4                   # calls that share it, 1 if absent

[[retire]]
provider = "openai"
model = "gpt-4o-mini-2024-07-18"
date = 2027-01-14
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal

from ..errors import ConfigurationError
from .genai import CONTEXTS, PROVIDER_IDS
from .litellm import undated
from .rates import Layer, Rate, UnitPrices, per_million, per_one

_BY_MILLION = {
    "input": "input",
    "cached_input": "cached",
    "cache_write": "cache_write",
    "cache_write_1h": "cache_write_1h",
    "output": "output",
    "reasoning": "reasoning",
    "audio_input": "audio_input",
    "audio_output": "audio_output",
    "image_input": "image_input",
    "image_output": "image_output",
}
_BY_ONE = {"per_query": "query", "per_request": "request", "per_web_search": "web_search"}
_AMOUNTS = {*_BY_MILLION, *_BY_ONE, "per_hour"}
_KEYS = _AMOUNTS | {
    "provider",
    "model",
    "valid_from",
    "valid_until",
    "context",
    "currency",
    "usd_rate",
    "discount_percent",
    "parallel",
    "free",
    "note",
}
_RETIRE_KEYS = {"provider", "model", "date", "note"}
_HOUR_NS = 3_600_000_000_000
_END_NS = 2**63


@dataclass(frozen=True, slots=True)
class UserRow:
    """One `[[price]]`: where it holds, and its rate, or the factor on the list price when it has no amounts."""

    provider: str
    model: str
    start: date | None
    start_ns: int
    end_ns: int
    context: str | None
    rate: Rate | None
    factor: Decimal

    def rank(self, provider: str, model: str, context: str) -> tuple[int, ...] | None:
        """How closely the row names that call, more is closer; None when it does not."""
        if self.context not in (None, context):
            return None
        if self.provider == provider:
            by_provider = 2
        elif self.provider == PROVIDER_IDS.get(provider):
            by_provider = 1
        elif self.provider == "*":
            by_provider = 0
        else:
            return None
        if self.model == model:
            by_model = 1000
        elif self.model == undated(model):
            by_model = 999
        elif self.model.endswith("*") and model.startswith(self.model[:-1]):
            by_model = len(self.model)
        else:
            return None
        return by_model, by_provider, int(self.context is not None), self.start_ns


@dataclass(frozen=True, slots=True)
class UserPrices:
    """All rows of one file, with its version word `user:<12 hex digits of its SHA-256>`."""

    version: str
    rows: tuple[UserRow, ...]
    retirements: Mapping[tuple[str, str], date]

    def rows_for(self, provider: str, model: str, context: str) -> list[UserRow]:
        """The rows that name that call, closest first; their days are not yet looked at."""
        ranked = [
            (rank, index, row)
            for index, row in enumerate(self.rows)
            if (rank := row.rank(provider, model.lower(), context)) is not None
        ]
        return [row for _, _, row in sorted(ranked, key=lambda entry: entry[:2], reverse=True)]

    def layer(self, provider: str, model: str, context: str, listed: Layer) -> Layer | None:
        """The user's price of a model by time; discounts are taken off what `listed` gives."""
        rows = self.rows_for(provider, model, context)
        if not rows:
            return None
        discounted: dict[tuple[int, Decimal], Rate] = {}

        def at(at_ns: int) -> Rate | None:
            for row in rows:
                if not row.start_ns <= at_ns < row.end_ns:
                    continue
                if row.rate is not None:
                    return row.rate
                list_rate = listed(at_ns)
                if list_rate is None:
                    continue
                key = (id(list_rate), row.factor)
                if key not in discounted:
                    discounted[key] = list_rate.scaled(row.factor, f"{self.version}+{list_rate.version}")
                return discounted[key]
            return None

        return at


def parse(toml: bytes) -> UserPrices:
    """Read a price file.

    Raises:
        ConfigurationError: not TOML, an unknown key, or a value that can't be; the message names the row.
    """
    try:
        document = tomllib.loads(toml.decode(), parse_float=Decimal)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"the price file is not TOML: {error}") from error
    unknown = document.keys() - {"price", "retire"}
    if unknown:
        raise ConfigurationError(
            f"the price file has [[price]] and [[retire]] only, not {', '.join(sorted(unknown))}"
        )
    version = f"user:{hashlib.sha256(toml).hexdigest()[:12]}"
    rows = tuple(_row(row, where, version) for where, row in _tables(document, "price", _KEYS))
    retirements = {
        (str(row["provider"]).lower(), str(row["model"]).lower()): _day(row, "date", where, required=True)
        for where, row in _tables(document, "retire", _RETIRE_KEYS)
    }
    return UserPrices(version, rows, {key: day for key, day in retirements.items() if day is not None})


def _tables(
    document: Mapping[str, object], name: str, keys: set[str]
) -> Iterator[tuple[str, Mapping[str, object]]]:
    tables = document.get(name, [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ConfigurationError(f"{name} must be written [[{name}]], once for each row")
    for index, table in enumerate(tables, start=1):
        where = f"[[{name}]] {index} ({table.get('provider', '?')}/{table.get('model', '?')})"
        unknown = table.keys() - keys
        if unknown:
            raise ConfigurationError(
                f"{where}: unknown key {sorted(unknown)[0]!r}; known are {', '.join(sorted(keys))}"
            )
        for key in ("provider", "model"):
            if not isinstance(table.get(key), str) or not table[key]:
                raise ConfigurationError(f"{where}: {key} must be a name, got {table.get(key)!r}")
        yield where, table


def _row(row: Mapping[str, object], where: str, version: str) -> UserRow:
    context = row.get("context")
    if context is not None and (context not in CONTEXTS or context == ""):
        raise ConfigurationError(
            f"{where}: context must be one of {', '.join(filter(None, CONTEXTS))}, got {context!r}"
        )
    start, end = _day(row, "valid_from", where), _day(row, "valid_until", where)
    if start and end and end <= start:
        raise ConfigurationError(f"{where}: valid_until {end} must be after valid_from {start}")
    factor = 1 - _number(row, "discount_percent", where, Decimal(0)) / 100
    if not 0 <= factor <= 1:
        raise ConfigurationError(f"{where}: discount_percent must be 0 to 100, got {row['discount_percent']}")
    model = str(row["model"]).lower()
    is_free = row.get("free", False)
    if not isinstance(is_free, bool):
        raise ConfigurationError(f"{where}: free must be true or false, got {is_free!r}")
    amounts = _AMOUNTS & row.keys()
    if is_free and amounts:
        raise ConfigurationError(f"{where}: free = true and {sorted(amounts)[0]} exclude each other")
    rate = None
    if is_free:
        rate = Rate((UnitPrices(),), "user", version, model, is_free=True)
    elif amounts:
        unit = _unit_prices(row, where)
        rate = Rate((unit,), "user", version, model).scaled(factor, version)
    elif "discount_percent" not in row:
        raise ConfigurationError(
            f"{where}: no price; give input and output, per_hour, discount_percent or free = true"
        )
    return UserRow(
        provider=str(row["provider"]).lower(),
        model=model,
        start=start,
        start_ns=_ns(start) if start else 0,
        end_ns=_ns(end) if end else _END_NS,
        context=str(context) if context is not None else None,
        rate=rate,
        factor=factor,
    )


def _unit_prices(row: Mapping[str, object], where: str) -> UnitPrices:
    currency = row.get("currency", "USD")
    if currency != "USD" and "usd_rate" not in row:
        raise ConfigurationError(
            f"{where}: currency {currency} needs usd_rate, how many USD one {currency} is"
        )
    to_usd = _number(row, "usd_rate", where, Decimal(1))
    if to_usd <= 0:
        raise ConfigurationError(f"{where}: usd_rate must be above 0, got {to_usd}")
    units = {
        unit: per_million(_number(row, key, where) * to_usd)
        for key, unit in _BY_MILLION.items()
        if key in row
    }
    units |= {unit: per_one(_number(row, key, where) * to_usd) for key, unit in _BY_ONE.items() if key in row}
    if "per_hour" in row:
        parallel = _number(row, "parallel", where, Decimal(1))
        if parallel <= 0:
            raise ConfigurationError(f"{where}: parallel must be above 0, got {parallel}")
        units["nanosecond"] = per_one(_number(row, "per_hour", where) * to_usd / parallel / _HOUR_NS)
    return UnitPrices(**units)


def _number(row: Mapping[str, object], key: str, where: str, default: Decimal | None = None) -> Decimal:
    value = row.get(key, default)
    if (
        isinstance(value, bool)
        or not isinstance(value, int | Decimal)
        or not Decimal(value).is_finite()
        or value < 0
    ):
        raise ConfigurationError(f"{where}: {key} must be a number of 0 or more, got {value!r}")
    return Decimal(value)


def _day(row: Mapping[str, object], key: str, where: str, *, required: bool = False) -> date | None:
    value = row.get(key)
    if value is None and not required:
        return None
    if not isinstance(value, date) or isinstance(value, datetime):
        raise ConfigurationError(
            f"{where}: {key} must be a day such as 2026-01-31 without quotes, got {value!r}"
        )
    return value


def _ns(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1_000_000_000
