"""Amounts in the currency of the reader, by dated rates that the user keeps in `fx.toml`. Nothing is fetched.

[[rate]]
date = 2026-11-02
from = "USD"
to = "EUR"
rate = 0.92          # one of `from` is so many of `to`
source = "ECB"
"""

from __future__ import annotations

import tomllib
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import ROUND_HALF_EVEN, Decimal

from tierlight.errors import ConfigurationError

_KEYS = {"date", "from", "to", "rate", "source"}


@dataclass(frozen=True, slots=True)
class FxRate:
    """One US dollar in another currency, as of a day."""

    day: date
    currency: str
    rate: Decimal
    source: str = ""


@dataclass(frozen=True, slots=True)
class Shown:
    """An amount as it is shown. `rate` is what it was converted at; None = it is the US dollars of the ledger."""

    amount: Decimal
    currency: str
    rate: FxRate | None


class FxTable:
    """Dated rates; a day is converted at the latest rate on or before it, never at a later one."""

    def __init__(self, rates: tuple[FxRate, ...] = ()) -> None:
        self._by_currency: dict[str, list[FxRate]] = {}
        for rate in sorted(rates, key=lambda rate: rate.day):
            self._by_currency.setdefault(rate.currency, []).append(rate)

    @classmethod
    def from_toml(cls, toml: bytes) -> FxTable:
        """Read `fx.toml`.

        Raises:
            ConfigurationError: a row that can't be right; the message names it.
        """
        try:
            document = tomllib.loads(toml.decode(), parse_float=Decimal)
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"the rate file is not TOML: {error}") from error
        rows = document.get("rate", [])
        if document.keys() - {"rate"} or not isinstance(rows, list):
            raise ConfigurationError("the rate file has [[rate]] only, once for each row")
        return cls(tuple(_rate(row, f"[[rate]] {index}") for index, row in enumerate(rows, start=1)))

    @property
    def currencies(self) -> tuple[str, ...]:
        """What amounts can be shown in, besides USD."""
        return tuple(sorted(self._by_currency))

    def rate(self, currency: str, day: date) -> FxRate | None:
        """The latest rate on or before that day, None if there is none."""
        rates = self._by_currency.get(currency, [])
        found = bisect_right(rates, day, key=lambda rate: rate.day)
        return rates[found - 1] if found else None

    def show(self, nusd: int, currency: str, day: date) -> Shown:
        """An amount of the ledger in that currency at the day's rate; in USD where there is no rate.

        >>> table = FxTable((FxRate(date(2026, 11, 2), "EUR", Decimal("0.92")),))
        >>> table.show(2_000_000_000, "EUR", date(2026, 11, 20)).amount
        Decimal('1.840000000')
        """
        rate = self.rate(currency, day)
        usd = Decimal(nusd).scaleb(-9)
        if rate is None:
            return Shown(usd, "USD", None)
        return Shown((usd * rate.rate).quantize(Decimal("1e-9"), ROUND_HALF_EVEN), currency, rate)

    def total(self, by_day: Mapping[date, int], currency: str) -> Shown:
        """A sum over days, each at its own day's rate; in USD as a whole if one day has no rate.

        `rate` is the newest that was used.
        """
        parts = [self.show(nusd, currency, day) for day, nusd in sorted(by_day.items())]
        if not parts or any(part.rate is None for part in parts):
            return Shown(Decimal(sum(by_day.values())).scaleb(-9), "USD", None)
        return Shown(sum((part.amount for part in parts), Decimal(0)), currency, parts[-1].rate)


def _rate(row: object, where: str) -> FxRate:
    if not isinstance(row, dict):
        raise ConfigurationError(f"{where}: must be a table")
    unknown = row.keys() - _KEYS
    if unknown:
        raise ConfigurationError(
            f"{where}: unknown key {min(unknown)!r}; known are {', '.join(sorted(_KEYS))}"
        )
    day, base, target, rate = (row.get(key) for key in ("date", "from", "to", "rate"))
    if not isinstance(day, date) or isinstance(day, datetime):
        raise ConfigurationError(
            f"{where}: date must be a day such as 2026-01-31 without quotes, got {day!r}"
        )
    if (
        isinstance(rate, bool)
        or not isinstance(rate, int | Decimal)
        or not Decimal(rate).is_finite()
        or rate <= 0
    ):
        raise ConfigurationError(f"{where}: rate must be a number above 0, got {rate!r}")
    for name, value in (("from", base), ("to", target)):
        if not isinstance(value, str) or len(value) != 3 or not value.isupper():
            raise ConfigurationError(f"{where}: {name} must be three letters such as EUR, got {value!r}")
    if (base == "USD") == (target == "USD"):
        raise ConfigurationError(f"{where}: one of from and to must be USD, the currency of the ledger")
    source = str(row.get("source", ""))
    if base == "USD":
        return FxRate(day, str(target), Decimal(rate), source)
    return FxRate(day, str(base), 1 / Decimal(rate), source)
