"""Collects what an experiment showed: calls and scores of two models on one route become evidence.

A shadow pair is the same request answered by both models (same call id); an A/B split is one answer per call
with a logged propensity. Fed in arrival order; a `Comparison` is decoded, fed and encoded again by one thread.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tierlight_collector.records import CallEvidence, ScoreEvidence

from .evidence import ArmMeans, PairEvidence

# Pairs whose money is kept: beyond it the interval of the saving no longer gets usefully narrower.
MOST_SAVINGS = 5_000
# Half pairs that may wait for their other half; the oldest go first.
MOST_PENDING = 2_000
# Calls of the control from which the latency bound (its 90th percentile) is taken and then kept.
LATENCY_REFERENCE = 50

Side = Literal["candidate", "control"]


@dataclass(slots=True)
class Comparison:
    """The evidence of one candidate against one control on one route.

    `signals` holds "quality:<score name>", the same "@<segment>", "errors" (1 = no error) and "latency" (1 = within the control's 90th
    percentile). `savings` are control minus candidate in nano-dollars, per pair or, in a split, per call.
    """

    route: str
    kind: Literal["ab", "shadow"]
    experiment: str
    control: str
    candidate: str
    bound: float = 1.0
    signals: dict[str, PairEvidence] = field(default_factory=dict)
    means: dict[str, ArmMeans] = field(default_factory=dict)
    savings: list[int] = field(default_factory=list)
    cost_means: dict[str, tuple[int, float]] = field(default_factory=dict)
    latency_bound_ms: float | None = None
    latency_sample: list[float] = field(default_factory=list)
    calls: dict[str, int] = field(default_factory=lambda: {"candidate": 0, "control": 0})
    candidate_spend_nusd: int = 0
    unpaired: int = 0
    mixed_propensity: int = 0  # calls left out because the split was changed without a new version
    first_ns: int = 0
    last_ns: int = 0
    share: float | None = None
    pending: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def days(self) -> float:
        """Time covered, in days."""
        return (self.last_ns - self.first_ns) / 86_400e9 if self.first_ns else 0.0

    def quality(self, score: str) -> PairEvidence:
        """The evidence on one evaluator; empty when it has scored nothing."""
        return self.signals.get(f"quality:{score}", PairEvidence(self.bound))

    def observe_call(self, call: CallEvidence) -> None:
        """Count one finished call of either side."""
        side = self._side(call)
        if side is None:
            return
        self.calls[side] += 1
        self.first_ns = min(self.first_ns or call.start_ns, call.start_ns)
        self.last_ns = max(self.last_ns, call.start_ns)
        if side == "candidate" and call.cost_nusd is not None:
            self.candidate_spend_nusd += call.cost_nusd
        if side == "control" and call.latency_ms is not None and self.latency_bound_ms is None:
            self.latency_sample.append(call.latency_ms)
            if len(self.latency_sample) == LATENCY_REFERENCE:
                self.latency_bound_ms = sorted(self.latency_sample)[int(0.9 * LATENCY_REFERENCE) - 1]
                self.latency_sample = []
        self._outcome(call, side, "errors", 0.0 if call.error_class else 1.0)
        if self.latency_bound_ms is not None and call.latency_ms is not None:
            self._outcome(call, side, "latency", 1.0 if call.latency_ms <= self.latency_bound_ms else 0.0)
        if call.cost_nusd is not None:
            self._cost(call, side, call.cost_nusd)

    def observe_score(self, score: ScoreEvidence) -> None:
        """Count one score of either side; values outside 0..1 are clipped."""
        side = self._side(score.call)
        if side is not None:
            value = min(1.0, max(0.0, score.value))
            self._outcome(score.call, side, f"quality:{score.name}", value)
            if score.call.segment:
                self._outcome(score.call, side, f"quality:{score.name}@{score.call.segment}", value)

    def _side(self, call: CallEvidence) -> Side | None:
        if call.route != self.route:
            return None
        if self.kind == "ab":
            if call.experiment != self.experiment or not call.act_prob or not 0 < call.act_prob < 1:
                return None
            return "control" if call.arm == "control" else "candidate"
        if not call.call_id:
            return None
        if call.purpose == "shadow" and self.candidate in (call.model, call.request_model):
            return "candidate"
        if call.purpose == "production" and self.control in (call.model, call.request_model):
            return "control"
        return None

    def _outcome(self, call: CallEvidence, side: Side, signal: str, value: float) -> None:
        if self.kind == "ab":
            propensity = _candidate_propensity(call, side)
            bound = 1 / min(propensity, 1 - propensity)
            if not self.signals:
                self.bound = bound
            elif bound > self.bound * (1 + 1e-9):
                self.mixed_propensity += 1  # a larger |D| than the test allows for: not evidence
                return
            means = self.means.get(signal, ArmMeans())
            difference = means.difference(side == "candidate", value, propensity)
            self.means[signal] = means.add(side == "candidate", value)
            self._add(signal, min(self.bound, max(-self.bound, difference)))  # rounding only
            return
        other = self._meet(call.call_id, side, signal, value)
        if other is not None:
            self._add(signal, value - other if side == "candidate" else other - value)

    def _cost(self, call: CallEvidence, side: Side, cost: int) -> None:
        if len(self.savings) >= MOST_SAVINGS:
            return
        if self.kind == "ab":
            propensity = _candidate_propensity(call, side)
            n, total = self.cost_means.get(side, (0, 0.0))
            other_n, other_total = self.cost_means.get(_other(side), (0, 0.0))
            if n and other_n:  # a difference needs an earlier mean of both arms
                own, other = total / n, other_total / other_n
                weight = propensity if side == "candidate" else 1 - propensity
                saved = other - own - (cost - own) / weight
                self.savings.append(round(saved if side == "candidate" else -saved))
            self.cost_means[side] = (n + 1, total + cost)
            return
        other_cost = self._meet(call.call_id, side, "cost", cost)
        if other_cost is not None:
            self.savings.append(int(other_cost - cost if side == "candidate" else cost - other_cost))

    def _meet(self, call_id: str, side: Side, signal: str, value: float) -> float | None:
        """The other half's value if it is there; else this half waits."""
        waiting = self.pending.setdefault(call_id, {})
        held = waiting.pop(signal, None)
        if held is not None and held[0] != side:
            if not waiting:
                del self.pending[call_id]
            return float(held[1])
        waiting[signal] = [side, value]
        while len(self.pending) > MOST_PENDING:
            oldest = next(iter(self.pending))
            dropped = self.pending.pop(oldest)
            self.unpaired += any(half[0] == "candidate" for half in dropped.values())
        return None

    def _add(self, signal: str, difference: float) -> None:
        self.signals[signal] = self.signals.get(signal, PairEvidence(self.bound)).add([difference])

    def encode(self) -> bytes:
        """A plain form that `decode` turns back without loss."""
        plain = {name: getattr(self, name) for name in self.__slots__}
        plain["signals"] = {name: pairs.to_json() for name, pairs in self.signals.items()}
        plain["means"] = {name: [list(m.candidate), list(m.control)] for name, m in self.means.items()}
        return json.dumps(plain, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, state: bytes) -> Comparison:
        """The comparison that `encode` wrote."""
        plain: dict[str, Any] = json.loads(state)
        plain["signals"] = {name: PairEvidence.from_json(pairs) for name, pairs in plain["signals"].items()}
        plain["means"] = {
            name: ArmMeans((int(a[0]), float(a[1])), (int(b[0]), float(b[1])))
            for name, (a, b) in plain["means"].items()
        }
        plain["cost_means"] = {
            side: (int(n), float(total)) for side, (n, total) in plain["cost_means"].items()
        }
        return cls(**plain)


def comparison_of(call: CallEvidence, controls: Mapping[str, str]) -> tuple[str, str, str] | None:
    """(kind, experiment, candidate) of the comparison a call belongs to as candidate; None for ordinary calls.

    `controls` names the production model of each route, without which a shadow has nothing to be compared to.
    """
    if not call.model:
        return None  # a call that failed before any model was known
    if call.purpose == "shadow" and call.call_id and call.route in controls:
        return "shadow", call.experiment, call.model
    if call.experiment and call.arm not in ("", "control") and call.act_prob and 0 < call.act_prob < 1:
        return "ab", call.experiment, call.model
    return None


def _candidate_propensity(call: CallEvidence, side: Side) -> float:
    logged = call.act_prob or 0.0
    return logged if side == "candidate" else 1 - logged


def _other(side: Side) -> Side:
    return "control" if side == "candidate" else "candidate"
