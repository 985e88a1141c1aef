"""Turns what arrived since the last tick into recommendations: feeds the comparisons, asks for the verdicts.

Part of the watch's tick: it reads the same batches of evidence, and its states and recommendations are stored in
the same transaction, so that a kill between two ticks changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from tierlight.pricing import Cost, PriceBook, Usage
from tierlight.tiers import Direction, candidates, tier_of
from tierlight_collector.decisions import Alert, Recommendation
from tierlight_collector.records import (
    CallEvidence,
    Filters,
    Rollup,
    ScoreEvidence,
    ScoreSums,
    TimeRange,
)
from tierlight_collector.stores.protocol import Store

from .analysis.comparison import Comparison, comparison_of
from .analysis.gate import AdviceSettings
from .analysis.preferences import Preferences, preferences
from .analysis.recommend import Candidate, ModelUse, RouteFacts, recommend
from .analysis.verdict import quality_of

PREFIX = "comparison/"
PERIOD_NS = 28 * 86_400_000_000_000
MOST_CANDIDATES = 4


@dataclass(frozen=True, slots=True)
class Advice:
    """What one tick concluded: the comparisons that changed, and the verdicts of all routes with calls."""

    states: Mapping[str, bytes]
    recommendations: tuple[Recommendation, ...]


class Advisor:
    """Keeps the comparisons between ticks; one per watch, used by its thread alone."""

    def __init__(self, book: PriceBook, stored: Mapping[str, bytes]) -> None:
        self._book = book
        self._comparisons = {
            key: Comparison.decode(state) for key, state in stored.items() if key.startswith(PREFIX)
        }
        self._controls: dict[str, str] = {}

    def advise(
        self, store: Store, calls: Sequence[CallEvidence], scores: Sequence[ScoreEvidence], now_ns: int
    ) -> Advice:
        """Feed this tick's evidence (in arrival order) and judge every route anew."""
        settings = preferences(store.settings())
        facts = route_facts(store, self._book, settings, now_ns)
        self._controls = {fact.route: fact.main.model for fact in facts}
        changed = self._feed(calls, scores)
        verdicts = tuple(
            verdict
            for fact in facts
            for verdict in recommend(
                fact, tuple(self._comparisons.values()), advice_settings(settings, fact.route), now_ns
            )
        )
        return Advice(
            {key: self._comparisons[key].encode() for key in changed}, _keep_decided(store, verdicts)
        )

    def _feed(self, calls: Iterable[CallEvidence], scores: Iterable[ScoreEvidence]) -> set[str]:
        changed: set[str] = set()
        calls = list(calls)
        for call in calls:
            found = comparison_of(call, self._controls)
            if found is None:
                continue
            kind, experiment, candidate = found
            key = f"{PREFIX}{call.route}/{kind}/{experiment}/{candidate}"
            if key not in self._comparisons:
                self._comparisons[key] = Comparison(
                    call.route,
                    "shadow" if kind == "shadow" else "ab",
                    experiment,
                    self._controls.get(call.route, ""),
                    candidate,
                    share=call.act_prob if kind == "ab" else None,
                )
        by_route: dict[str, list[tuple[str, Comparison]]] = {}
        for key, comparison in self._comparisons.items():
            by_route.setdefault(comparison.route, []).append((key, comparison))
        for call in calls:
            for key, comparison in by_route.get(call.route, ()):
                comparison.observe_call(call)
                changed.add(key)
        for score in scores:
            for key, comparison in by_route.get(score.call.route, ()):
                comparison.observe_score(score)
                changed.add(key)
        return changed


def advice_settings(preferences: Preferences, route: str) -> AdviceSettings:
    """The margins and floors that people set for a route."""
    return AdviceSettings(
        quality_margin=preferences.margin_of(route), quality_floor=preferences.floor_of(route)
    )


def route_facts(store: Store, book: PriceBook, settings: Preferences, now_ns: int) -> list[RouteFacts]:
    """What the last 28 days say of every route that has calls."""
    when = TimeRange(now_ns - PERIOD_NS, now_ns + 1)
    first = {info.route: info.first_ns for info in store.routes()}
    uses: dict[str, list[Rollup]] = {}
    for rollup in store.rollups(when, ("route", "provider", "model", "tier"), Filters()):
        uses.setdefault(rollup.key[0], []).append(rollup)
    alerts: dict[str, Alert] = {
        alert.route: alert
        for alert in store.alerts(states=("open", "recovering"))
        if alert.kind == "quality" and alert.severity != "info"
    }
    facts = []
    for route, rollups in uses.items():
        score = quality_of(_sum(rollups), settings.gate_scores.get(route, ""))
        models = tuple(
            sorted(
                (_model_use(rollup, score.score if score else None) for rollup in rollups),
                key=lambda use: -(use.cost_per_call or 0.0),
            )
        )
        main = max(models, key=lambda use: (use.calls, use.model))
        alert = alerts.get(route)
        days = (now_ns - max(first.get(route, now_ns), when.start_ns)) / 86_400e9
        facts.append(
            RouteFacts(
                route=route,
                days=max(days, 1 / 24),
                uses=models,
                score=score.score if score else None,
                open_quality_alert=alert is not None,
                alert_cause=_cause(alert) if alert is not None else "",
                down=_candidates(main, "down", book, now_ns),
                up=_candidates(main, "up", book, now_ns),
            )
        )
    return facts


def _model_use(rollup: Rollup, score: str | None) -> ModelUse:
    quality: ScoreSums | None = None
    for (name, _source), sums in rollup.scores.items():
        if name == score:
            quality = sums if quality is None else quality + sums
    _, provider, model, tier = rollup.key
    return ModelUse(
        provider,
        model,
        tier,
        rollup.calls,
        rollup.errors,
        rollup.cost_nusd,
        rollup.unpriced,
        rollup.input_tokens,
        rollup.output_tokens,
        quality,
    )


def _sum(rollups: Sequence[Rollup]) -> Rollup:
    scores: dict[tuple[str, str], ScoreSums] = {}
    for rollup in rollups:
        for key, sums in rollup.scores.items():
            scores[key] = scores[key] + sums if key in scores else sums
    return Rollup(calls=sum(rollup.calls for rollup in rollups), scores=scores)


def _candidates(main: ModelUse, direction: Direction, book: PriceBook, now_ns: int) -> tuple[Candidate, ...]:
    """Models one tier away with what the route's mean call would cost on them; the cheapest few."""
    at = datetime.fromtimestamp(now_ns / 1e9, UTC)
    calls = max(1, main.calls)
    tokens_in, tokens_out = round(main.input_tokens / calls), round(main.output_tokens / calls)
    found = []
    for row in candidates(main.provider, main.model, direction, book, at)[:MOST_CANDIDATES]:
        whole = book.price(
            Usage(input_tokens=tokens_in, output_tokens=tokens_out), row.provider, row.model, at
        )
        read = book.price(Usage(input_tokens=tokens_in, output_tokens=0), row.provider, row.model, at)
        if isinstance(whole, Cost) and isinstance(read, Cost):
            tier = tier_of(row.provider, row.model) or ""
            written = float(whole.nusd - read.nusd)
            found.append(Candidate(row.provider, row.model, tier, float(read.nusd), written))
    return tuple(found)


def _cause(alert: Alert) -> str:
    """What the alert's attribution points at, in a few words; "" when it settles nothing."""
    return next((str(term["cause"]) for term in alert.attribution if term.get("kind") == "cause"), "")


def _keep_decided(store: Store, verdicts: Sequence[Recommendation]) -> tuple[Recommendation, ...]:
    """A person's decision outlives the next tick: dismissed and shipped rows keep their state."""
    decided = {
        (row.route, row.candidate_model): row
        for row in store.recommendations()
        if row.state in ("dismissed", "shipped", "kept", "rolled_back")
    }
    kept = []
    for verdict in verdicts:
        row = decided.get((verdict.route, verdict.candidate_model))
        kept.append(
            verdict
            if row is None
            else replace(
                verdict, state=row.state, dismissed_reason=row.dismissed_reason, created_ns=row.created_ns
            )
        )
    return tuple(kept)
