"""Unit prices as whole numbers, and what a usage costs by them.

A price of x USD per million tokens is held as the integer x * 10**18, that is in units of 10**-24 USD per
token. Published prices have at most 18 decimals, so nothing is lost and a price is integer multiplications
with one rounding at the end.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

Reason = Literal[
    "unknown_model",
    "unknown_provider",
    "no_usage",
    "partial_usage",
    "invalid_usage",
    "no_unit_price",
    "price_error",
]

_PER_MILLION = 10**18
_PER_ONE = 10**24
NUSD = 10**15  # units in one nano-dollar


def per_million(usd: Decimal) -> int:
    """A price in USD per million as the integer price of one."""
    return int((usd * _PER_MILLION).to_integral_value())


def per_one(usd: Decimal) -> int:
    """A price in USD for one (request, query, search) as an integer."""
    return int((usd * _PER_ONE).to_integral_value())


def usd_per_million(price: int | None) -> Decimal | None:
    """The price of one token back in USD per million, without trailing zeros."""
    if price is None:
        return None
    usd = (Decimal(price) / _PER_MILLION).normalize()
    return usd if usd.as_tuple().exponent <= 0 else usd.quantize(Decimal(1))  # type: ignore[operator]


@dataclass(frozen=True, slots=True)
class Usage:
    """What one call used. `None` is unknown; parts are contained in their totals.

    `input_tokens` counts everything read, cached parts and cache writes included; `cache_write_input_tokens`
    includes what was written for one hour; `output_tokens` includes reasoning. `queries` counts the searches
    of a rerank call, `duration_ns` is for models paid by the hour.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_input_tokens: int | None = None
    cache_write_input_tokens: int | None = None
    cache_write_1h_input_tokens: int | None = None
    reasoning_tokens: int | None = None
    audio_input_tokens: int | None = None
    audio_output_tokens: int | None = None
    image_input_tokens: int | None = None
    image_output_tokens: int | None = None
    queries: int | None = None
    web_searches: int | None = None
    duration_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Cost:
    """What one call cost, in whole nano-dollars. The five parts add up to `nusd` exactly.

    `estimated` marks a price that may not have been the one of that day (a source without history) or a
    count that was assumed (one query of a rerank call).
    """

    nusd: int
    input_nusd: int
    cached_nusd: int
    cache_write_nusd: int
    output_nusd: int
    other_nusd: int
    source: str  # user | price_book
    price_version: str
    priced_model: str
    estimated: bool = False
    currency: str = "USD"

    @property
    def usd(self) -> Decimal:
        """The cost in dollars.

        >>> Cost(384_00, 180_00, 0, 0, 204_00, 0, "price_book", "gp:0.2.3", "gpt-4o-mini").usd
        Decimal('0.000038400')
        """
        return Decimal(self.nusd).scaleb(-9)


@dataclass(frozen=True, slots=True)
class Unpriced:
    """Why a call has no cost. `floor_nusd` is what its known part costs at least, when that can be said."""

    reason: Reason
    floor_nusd: int | None = None


@dataclass(frozen=True, slots=True)
class UnitPrices:
    """Prices of one unit each. `None` is: not priced apart, so the tokens are paid as their total is."""

    input: int | None = None
    cached: int | None = None
    cache_write: int | None = None
    cache_write_1h: int | None = None
    output: int | None = None
    reasoning: int | None = None
    audio_input: int | None = None
    audio_output: int | None = None
    image_input: int | None = None
    image_output: int | None = None
    query: int | None = None
    web_search: int | None = None
    request: int | None = None
    nanosecond: int | None = None

    @property
    def is_empty(self) -> bool:
        """True when no unit that tierlight counts has a price."""
        return (
            self.input is None
            and self.output is None
            and self.query is None
            and self.request is None
            and self.nanosecond is None
        )


@dataclass(frozen=True, slots=True)
class Rate:
    """The unit prices that hold for a model at some moment, by length of the prompt.

    `brackets[i]` holds for prompts longer than `starts[i - 1]` tokens; the whole prompt is paid at it.
    """

    brackets: tuple[UnitPrices, ...]
    source: str
    version: str
    model: str
    starts: tuple[int, ...] = ()
    estimated: bool = False
    is_free: bool = False

    def prices_for(self, input_tokens: int | None) -> UnitPrices:
        """The unit prices for a prompt of that length (unknown = the shortest)."""
        if not self.starts:
            return self.brackets[0]
        return self.brackets[bisect_left(self.starts, input_tokens or 0)]

    def cost(self, usage: Usage) -> Cost | Unpriced:
        """What that usage costs, or why it can't be said."""
        if self.is_free:
            return self._rounded(0, 0, 0, 0, 0)
        unit = self.brackets[0] if not self.starts else self.prices_for(usage.input_tokens)

        total_in, total_out = usage.input_tokens, usage.output_tokens
        cached = usage.cached_input_tokens or 0
        written = usage.cache_write_input_tokens or 0
        written_1h = usage.cache_write_1h_input_tokens or 0
        reasoning = usage.reasoning_tokens or 0
        text_in = (total_in or 0) - cached - written
        text_out = (total_out or 0) - reasoning
        if (
            text_in < 0
            or text_out < 0
            or written_1h > written
            or min(cached, written, written_1h, reasoning) < 0
        ):
            if total_in is None or (total_out is None and text_out < 0):
                return Unpriced("partial_usage")
            return Unpriced("invalid_usage")

        other, is_priced = 0, False
        estimated = self.estimated
        if unit.request is not None:
            other, is_priced = unit.request, True
        if unit.query is not None:
            estimated = estimated or usage.queries is None
            other += unit.query * (1 if usage.queries is None else usage.queries)
            is_priced = True
        if unit.nanosecond is not None:
            if usage.duration_ns is None:
                return Unpriced("no_usage")
            other += unit.nanosecond * usage.duration_ns
            is_priced = True
        if usage.web_searches and unit.web_search is not None:
            other += unit.web_search * usage.web_searches

        if unit.input is None and unit.output is None:
            if not is_priced:
                return Unpriced("no_unit_price")
            return self._rounded(0, 0, 0, 0, other, estimated)
        if total_in is None and total_out is None:
            return Unpriced("no_usage")
        if (total_in and unit.input is None) or (total_out and unit.output is None):
            return Unpriced("no_unit_price")

        in_price, out_price = unit.input or 0, unit.output or 0
        plain = modal_in = modal_out = 0
        if usage.audio_input_tokens or usage.image_input_tokens:
            plain, modal_in = _modal(
                text_in,
                ((usage.audio_input_tokens, unit.audio_input), (usage.image_input_tokens, unit.image_input)),
            )
        else:
            plain = text_in
        plain_out = text_out if unit.reasoning is not None else text_out + reasoning
        if usage.audio_output_tokens or usage.image_output_tokens:
            plain_out, modal_out = _modal(
                plain_out,
                (
                    (usage.audio_output_tokens, unit.audio_output),
                    (usage.image_output_tokens, unit.image_output),
                ),
            )
        if plain < 0 or plain_out < 0:
            return Unpriced("invalid_usage")

        write_price = in_price if unit.cache_write is None else unit.cache_write
        write_1h_price = write_price if unit.cache_write_1h is None else unit.cache_write_1h
        result = self._rounded(
            plain * in_price + modal_in,
            cached * (in_price if unit.cached is None else unit.cached),
            (written - written_1h) * write_price + written_1h * write_1h_price,
            plain_out * out_price + modal_out + (0 if unit.reasoning is None else reasoning * unit.reasoning),
            other,
            estimated,
        )
        if total_in is None or (total_out is None and unit.output is not None):
            return Unpriced("partial_usage", result.nusd)
        return result

    def _rounded(
        self, plain: int, cached: int, written: int, output: int, other: int, estimated: bool = False
    ) -> Cost:
        # Rounding the running total, half to even, makes the parts add up to the rounded total.
        sum_1 = _nusd(plain)
        sum_2 = _nusd(plain := plain + cached) if cached else sum_1
        sum_3 = _nusd(plain := plain + written) if written else sum_2
        sum_4 = _nusd(plain := plain + output) if output else sum_3
        total = _nusd(plain + other) if other else sum_4
        return Cost(
            total,
            sum_1,
            sum_2 - sum_1,
            sum_3 - sum_2,
            sum_4 - sum_3,
            total - sum_4,
            self.source,
            self.version,
            self.model,
            estimated,
        )

    def scaled(self, factor: Decimal, version: str) -> Rate:
        """The same rate times a factor, as of a contract's discount; its source is then the user."""
        return Rate(
            tuple(_scaled(unit, factor) for unit in self.brackets),
            "user",
            version,
            self.model,
            self.starts,
            self.estimated,
            self.is_free,
        )


Layer = Callable[[int], Rate | None]
"""Gives the rate that holds at a moment (ns since 1970 UTC), or None if this source has none for it."""


def _nusd(amount: int) -> int:
    quotient, rest = divmod(amount, NUSD)
    if rest + rest > NUSD or (rest + rest == NUSD and quotient & 1):
        return quotient + 1
    return quotient


def _modal(tokens: int, parts: tuple[tuple[int | None, int | None], ...]) -> tuple[int, int]:
    """Tokens left at the plain price, and what the audio and image parts priced apart cost.

    Providers don't say how much of the audio was cached; what doesn't fit beside the cached part is in it.
    """
    amount = 0
    for count, price in parts:
        if count and price is not None:
            uncached = min(count, tokens)
            tokens -= uncached
            amount += uncached * price
    return tokens, amount


def _scaled(unit: UnitPrices, factor: Decimal) -> UnitPrices:
    def times(price: int | None) -> int | None:
        return None if price is None else int((price * factor).to_integral_value())

    return UnitPrices(*(times(getattr(unit, name)) for name in UnitPrices.__slots__))
