"""Cost at frozen prices, and the moment a price changed: a new price table never looks like behaviour.

The unit prices of a model are taken from the parts of its first priced calls and kept; later calls under another
price table are costed with them. So a price change shows once, exactly, as a price change.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime

from tierlight_collector.decisions import Alert
from tierlight_collector.records import CallEvidence

from .wording import money

PARTS = ("input", "cached", "cache write", "output")
LEAST_NUSD = 1000  # below it, rounding to whole nano-dollars blurs a unit price
LONG_INPUT = 100_000  # longer inputs may have a price of their own within one table
LEAST_CHANGE = 0.01


@dataclass(frozen=True, slots=True)
class PriceChange:
    """Unit prices in nano-dollars per token of one part of a model's cost, before and after."""

    model: str
    part: str
    before: float
    after: float
    version: str


@dataclass(slots=True)
class FrozenPrices:
    """By model: the price table its prices were frozen from, its frozen unit prices, and the newest ones."""

    versions: dict[str, str] = field(default_factory=dict)
    frozen: dict[str, dict[str, float]] = field(default_factory=dict)
    newest: dict[str, dict[str, float]] = field(default_factory=dict)
    newest_versions: dict[str, str] = field(default_factory=dict)

    def copy(self) -> FrozenPrices:
        return FrozenPrices(
            dict(self.versions),
            {model: dict(units) for model, units in self.frozen.items()},
            {model: dict(units) for model, units in self.newest.items()},
            dict(self.newest_versions),
        )

    def see(self, call: CallEvidence) -> PriceChange | None:
        """Take note of the call's prices; the first call under a new table with another price gives the change."""
        if not call.price_version or call.cost_nusd is None or (call.input_tokens or 0) > LONG_INPUT:
            return None
        model, units = model_of(call), unit_prices(call)
        if self.versions.setdefault(model, call.price_version) == call.price_version:
            for part, unit in units.items():
                self.frozen.setdefault(model, {}).setdefault(part, unit)
        newest = self.newest.setdefault(model, {})
        change = None
        if self.newest_versions.setdefault(model, call.price_version) != call.price_version:
            for part, unit in units.items():
                before = newest.get(part)
                if change is None and before and abs(unit / before - 1) > LEAST_CHANGE:
                    change = PriceChange(model, part, before, unit, call.price_version)
            self.newest_versions[model] = call.price_version
            newest.clear()
        for part, unit in units.items():
            newest.setdefault(part, unit)
        return change

    def cost(self, call: CallEvidence) -> float | None:
        """The call's cost in nano-dollars at the frozen prices; as stored where its table is the frozen one."""
        if call.cost_nusd is None:
            return None
        model = model_of(call)
        if not call.price_version or self.versions.get(model, call.price_version) == call.price_version:
            return float(call.cost_nusd)
        units, total = self.frozen.get(model, {}), 0.0
        for part, tokens, cost in parts_of(call):
            if cost:
                total += tokens * units[part] if part in units else cost
        return total

    def encode(self) -> bytes:
        return json.dumps([self.versions, self.frozen, self.newest, self.newest_versions]).encode()

    @classmethod
    def decode(cls, state: bytes) -> FrozenPrices:
        return cls(*json.loads(state)) if state else cls()


def model_of(call: CallEvidence) -> str:
    return f"{call.provider}/{call.model}"


def parts_of(call: CallEvidence) -> tuple[tuple[str, int, int | None], ...]:
    """(part, tokens, cost in nano-dollars) of the call's cost."""
    cached, written = call.cached_input_tokens or 0, call.cache_write_input_tokens or 0
    return (
        ("input", (call.input_tokens or 0) - cached - written, call.cost_input_nusd),
        ("cached", cached, call.cost_cached_nusd),
        ("cache write", written, call.cost_cache_write_nusd),
        ("output", call.output_tokens or 0, call.cost_output_nusd),
    )


def unit_prices(call: CallEvidence) -> dict[str, float]:
    """Nano-dollars per token of each part that is large enough to tell."""
    return {
        part: cost / tokens
        for part, tokens, cost in parts_of(call)
        if cost is not None and cost >= LEAST_NUSD and tokens > 0
    }


def price_alert(change: PriceChange, call: CallEvidence) -> Alert:
    """The mark of a price change: exact, so it has no evidence, and over as soon as it is told."""
    before, after = change.before * 1e6, change.after * 1e6
    when = datetime.fromtimestamp(call.start_ns // 1_000_000_000, UTC).strftime("%-d %b %H:%M UTC")
    return Alert(
        id=0,
        kind="price",
        signal="price",
        scope="model",
        route="",
        model=change.model,
        severity="info",
        state="resolved",
        opened_ns=call.start_ns,
        resolved_ns=call.start_ns,
        change_ns=call.start_ns,
        change_from_ns=call.start_ns,
        change_to_ns=call.start_ns,
        before=before / 1e9,
        after=after / 1e9,
        effect_low=(after - before) / 1e9,
        effect_high=(after - before) / 1e9,
        unit="usd",
        calls_since_change=1,
        log_evidence=0.0,
        log_threshold=0.0,
        sentence=f"Price of {change.model} changed: {money(after)} per million {change.part} tokens,"
        f" was {money(before)}, from {when} (table {change.version}). Past calls keep their cost.",
        attribution=({"kind": "cause", "cause": "price", "text": "A new price table is in force."},),
        test_key=f"price {change.model} {change.version}",
    )
