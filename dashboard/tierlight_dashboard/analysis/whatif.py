"""What the last days would have cost: everything on the flagship, as it was, as proposed; nothing is stored.

Re-costing keeps the tokens that were seen. Another model may be wordier or terser, so a price-list figure is
marked "estimated"; only a measured comparison on the same requests is "measured"; a pair without a price is
"unknown" and never counts as a saving.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from tierlight.pricing import Cost, PriceBook, Usage
from tierlight_collector.decisions import Recommendation
from tierlight_collector.records import Rollup

from .recommend import OUTPUT_RATIO_HIGH, OUTPUT_RATIO_LOW

Basis = Literal["measured", "estimated", "unknown"]


@dataclass(frozen=True, slots=True)
class RouteUse:
    """What one model did on one route in the period: token sums cover the calls whose tokens are known."""

    route: str
    provider: str
    model: str
    tier: str
    calls: int
    tokens_unknown: int
    unpriced: int
    cost_nusd: int
    input_tokens: int
    cached_input_tokens: int
    cache_write_input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Choice:
    """The model proposed for a route; `saving_per_call` (its lower end) in nano-dollars and `pairs` when it was measured.

    With `accepted` the model is asked first and that share of its answers is used; today's models answer the rest.
    """

    provider: str
    model: str
    saving_per_call: float | None = None
    pairs: int = 0
    saving_high_per_call: float | None = None
    accepted: float = 1.0


# (provider, model, the use whose tokens are priced) -> nano-dollars for all of its known tokens, None = no price
Pricer = Callable[[str, str, RouteUse], int | None]


@dataclass(frozen=True, slots=True)
class Cell:
    """One cost with what it rests on; None = not to be known. `low` and `high` bound it where it was worked out."""

    cost_nusd: int | None
    basis: Basis
    note: str = ""
    low_nusd: int | None = None
    high_nusd: int | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """One route in the three worlds."""

    route: str
    calls: int
    flagship: Cell
    today: Cell
    proposed: Cell
    proposed_model: str


@dataclass(frozen=True, slots=True)
class WhatIf:
    """All routes, and the sums over the routes where both sides are known."""

    lines: tuple[Line, ...]
    flagship_model: str

    @property
    def today_nusd(self) -> int:
        return sum(line.today.cost_nusd or 0 for line in self.lines)

    @property
    def flagship_nusd(self) -> int:
        """Flagship cost of the routes where it is known; compare with `today_of_flagship_nusd`, not with all."""
        return sum(line.flagship.cost_nusd or 0 for line in self.lines if line.flagship.cost_nusd is not None)

    @property
    def today_of_flagship_nusd(self) -> int:
        """Today's cost of just the routes whose flagship cost is known."""
        return sum(line.today.cost_nusd or 0 for line in self.lines if line.flagship.cost_nusd is not None)

    @property
    def proposed_nusd(self) -> int:
        """Proposed cost; a route that is unknown there stays at today's cost."""
        return sum(
            (line.today.cost_nusd or 0) if line.proposed.cost_nusd is None else line.proposed.cost_nusd
            for line in self.lines
        )

    @property
    def saving_range(self) -> tuple[int, int]:
        """Least and most that the proposal saves: ends add up, as if all routes erred to the same side."""
        low = high = 0
        for line in self.lines:
            today, proposed = line.today.cost_nusd, line.proposed
            if not line.proposed_model or today is None or proposed.cost_nusd is None:
                continue
            low += today - (proposed.cost_nusd if proposed.high_nusd is None else proposed.high_nusd)
            high += today - (proposed.cost_nusd if proposed.low_nusd is None else proposed.low_nusd)
        return low, high

    def saving_on(self, basis: Basis) -> int:
        """Nano-dollars of the proposed saving that rest on this basis."""
        return sum(
            line.today.cost_nusd - line.proposed.cost_nusd
            for line in self.lines
            if line.proposed.basis == basis
            and line.today.cost_nusd is not None
            and line.proposed.cost_nusd is not None
        )

    @property
    def unknown_routes(self) -> tuple[str, ...]:
        """Routes whose proposal cannot be priced."""
        return tuple(
            line.route for line in self.lines if line.proposed_model and line.proposed.basis == "unknown"
        )


def uses_of(rollups: Sequence[Rollup]) -> list[RouteUse]:
    """The uses in rollups by (route, provider, model, tier)."""
    return [
        RouteUse(
            row.key[0], row.key[1], row.key[2], row.key[3], row.calls, row.tokens_unknown, row.unpriced, row.cost_nusd,
            row.input_tokens, row.cached_input_tokens, row.cache_write_input_tokens, row.output_tokens,
        )
        for row in rollups
    ]  # fmt: skip


def pricer(book: PriceBook, at: datetime | int) -> Pricer:
    """Prices a use as its mean call times its calls: a step for long prompts is met only where calls meet it."""

    def price(provider: str, model: str, use: RouteUse) -> int | None:
        known = use.calls - use.tokens_unknown
        if known <= 0:
            return None
        usage = Usage(
            input_tokens=round(use.input_tokens / known),
            cached_input_tokens=round(use.cached_input_tokens / known),
            cache_write_input_tokens=round(use.cache_write_input_tokens / known),
            output_tokens=round(use.output_tokens / known),
        )
        cost = book.price(usage, provider, model, at)
        return cost.nusd * known if isinstance(cost, Cost) else None

    return price


def baseline(rollups: Sequence[Rollup], chosen: str = "") -> tuple[str, str] | None:
    """(provider, model) that all is held against: `chosen` as provider:model or model, else the dearest flagship.

    None when no flagship was ever used and none was chosen.
    """
    if chosen:
        provider, _, model = chosen.partition(":")
        return (provider, model) if model else (_provider_of(rollups, chosen), chosen)
    flagships = [
        row
        for row in rollups
        if row.key[3] in ("flagship", "reasoning") and row.calls > row.unpriced and row.output_tokens
    ]
    if not flagships:
        return None
    dearest = max(
        flagships, key=lambda row: (row.cost_nusd / (row.input_tokens + row.output_tokens), row.key)
    )
    return dearest.key[1], dearest.key[2]


def proposals(
    advice: Sequence[Recommendation], rollups: Sequence[Rollup], states: tuple[str, ...]
) -> dict[str, Choice]:
    """The recommended model of each route; only a comparison on the route's own calls counts as measured."""
    return {
        row.route: proposal(row, rollups) for row in advice if row.candidate_model and row.state in states
    }


def proposal(advice: Recommendation, rollups: Sequence[Rollup]) -> Choice:
    provider = _provider_of(rollups, advice.candidate_model)
    if advice.rung in ("shadow", "ab") and advice.card is not None:
        per_call = advice.card["figures"]["saving_low_nusd"]
        if per_call is not None:
            low, high = advice.saving_low_nusd, advice.saving_high_nusd
            most = per_call * high / low if low and high and low > 0 else None
            return Choice(provider, advice.candidate_model, per_call, advice.pairs, most)
    return Choice(provider, advice.candidate_model)


def _provider_of(rollups: Sequence[Rollup], model: str) -> str:
    return next((row.key[1] for row in rollups if row.key[2] == model), "")


def what_if(
    uses: Sequence[RouteUse],
    flagship: tuple[str, str],
    choices: Mapping[str, Choice],
    price: Pricer,
) -> WhatIf:
    """The period in three worlds, dearest route first.

    `flagship` is (provider, model) of the baseline; embeddings and other specialised work has no flagship and
    stays what it is in every world. `choices` names the proposed model per route; other routes stay as they are.
    """
    routes: dict[str, list[RouteUse]] = {}
    for use in uses:
        routes.setdefault(use.route, []).append(use)
    lines = [_line(route, rows, flagship, choices.get(route), price) for route, rows in routes.items()]
    lines.sort(key=lambda line: (-(line.today.cost_nusd or 0), line.route))
    return WhatIf(tuple(lines), flagship[1])


def price_change(
    uses: Sequence[RouteUse],
    provider: str,
    model: str,
    input_factor: float,
    output_factor: float,
    price: Pricer,
) -> tuple[tuple[str, int, int], ...]:
    """Per route (route, cost now, cost then) in nano-dollars if a model's prices were multiplied by the factors.

    Only routes that used the model and whose cost is known. Behaviour is assumed unchanged.
    """
    changed: dict[str, tuple[int, int]] = {}
    for use in uses:
        if (use.provider, use.model) != (provider, model):
            continue
        only_input = price(provider, model, replace(use, output_tokens=0))
        whole = price(provider, model, use)
        if only_input is None or whole is None:
            continue
        now, then = changed.get(use.route, (0, 0))
        new = round(only_input * input_factor + (whole - only_input) * output_factor)
        changed[use.route] = (now + whole, then + new)
    return tuple(
        sorted(((route, *costs) for route, costs in changed.items()), key=lambda row: -abs(row[2] - row[1]))
    )


def _line(
    route: str, rows: Sequence[RouteUse], flagship: tuple[str, str], choice: Choice | None, price: Pricer
) -> Line:
    calls = sum(row.calls for row in rows)
    unpriced = sum(row.unpriced for row in rows)
    cost = sum(row.cost_nusd for row in rows)
    today = Cell(
        None if unpriced == calls else cost,
        "unknown" if unpriced == calls else "measured",
        f"{unpriced:,} calls have no price" if unpriced else "",
    )
    if all(row.tier == "specialised" for row in rows):
        baseline = Cell(today.cost_nusd, today.basis, "specialised work stays what it is")
    else:
        baseline = _recost(rows, *flagship, price)
    proposed, model = today, ""
    if choice is not None:
        model = choice.model
        if choice.saving_per_call is not None and today.cost_nusd is not None and choice.accepted >= 1:
            saved = round(choice.saving_per_call * (calls - unpriced))
            most = round((choice.saving_high_per_call or choice.saving_per_call) * (calls - unpriced))
            left = max(0, cost - saved)
            proposed = Cell(left, "measured", f"n = {choice.pairs:,} pairs", max(0, cost - most), left)
        else:
            proposed = _proposed(rows, choice, today, price)
    return Line(route, calls, baseline, today, proposed, model)


def _proposed(rows: Sequence[RouteUse], choice: Choice, today: Cell, price: Pricer) -> Cell:
    """An estimate with the range that a wordier or terser model spans; refused first tries are paid for twice."""
    likely, terse, wordy = (
        _recost(rows, choice.provider, choice.model, price, ratio)
        for ratio in (1.0, OUTPUT_RATIO_LOW, OUTPUT_RATIO_HIGH)
    )
    if likely.cost_nusd is None or today.cost_nusd is None:
        return likely if likely.cost_nusd is None else Cell(None, "unknown", today.note)
    again = round((1 - choice.accepted) * today.cost_nusd)
    note = likely.note
    if choice.accepted < 1:
        note += f", {choice.accepted * 100:.0f} % accepted, the rest asked again as today"
    low, high = ((each.cost_nusd or 0) + again for each in (terse, wordy))
    return Cell(likely.cost_nusd + again, likely.basis, note, low, high)


def _recost(
    rows: Sequence[RouteUse], provider: str, model: str, price: Pricer, output_ratio: float = 1.0
) -> Cell:
    total = 0
    for row in rows:
        if row.calls == row.tokens_unknown:
            return Cell(None, "unknown", "no call has known tokens")
        part = price(provider, model, replace(row, output_tokens=round(row.output_tokens * output_ratio)))
        if part is None:
            return Cell(None, "unknown", f"{model} has no price")
        # calls with unknown tokens are taken to be like the others
        total += round(part * row.calls / (row.calls - row.tokens_unknown))
    return Cell(total, "estimated", "same tokens at list price")
