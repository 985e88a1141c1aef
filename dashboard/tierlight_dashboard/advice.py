"""Turns what arrived since the last tick into recommendations: feeds the comparisons, asks for the verdicts.

Part of the watch's tick: it reads the same batches of evidence, and the states of its comparisons are stored in the
same transaction. The verdicts are a function of what is stored, made at the end of a tick.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from tierlight.errors import PolicyError
from tierlight.pricing import Cost, PriceBook, Usage
from tierlight.routing.policy import Policy
from tierlight.tiers import Direction, candidates, tier_of
from tierlight_collector.decisions import (
    Alert,
    AuditEntry,
    Experiment,
    PolicyRevision,
    Recommendation,
    RecommendationState,
    WatchCommit,
)
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
from .analysis.course import Turn, hold_out_name, revised, turn
from .analysis.gate import AdviceSettings
from .analysis.preferences import Preferences, goes_by_tier, preferences
from .analysis.recommend import Candidate, ModelUse, RouteFacts, recommend
from .analysis.verdict import quality_of

PREFIX = "comparison/"
PERIOD_NS = 28 * 86_400_000_000_000
MOST_CANDIDATES = 4
WHO = "tierlight"


class Advisor:
    """Keeps the comparisons between ticks; one per watch, used by its thread alone."""

    def __init__(self, book: PriceBook, stored: Mapping[str, bytes]) -> None:
        self._book = book
        self._comparisons = {
            key: Comparison.decode(state) for key, state in stored.items() if key.startswith(PREFIX)
        }
        self._controls: dict[str, str] = {}

    def use(self, book: PriceBook) -> None:
        """Count by another book from now on."""
        self._book = book

    def feed(
        self, store: Store, calls: Sequence[CallEvidence], scores: Sequence[ScoreEvidence], now_ns: int
    ) -> Mapping[str, bytes]:
        """Feed a batch of evidence (in arrival order); gives the comparisons that changed."""
        if any(call.purpose == "shadow" and call.route not in self._controls for call in calls):
            settings = decided(store)
            facts = route_facts(store, self._book, settings, now_ns)
            self._controls = {fact.route: fact.main.model for fact in facts}
        changed = self._feed(calls, scores, store.experiments())
        return {key: self._comparisons[key].encode() for key in changed}

    def advise(self, store: Store, now_ns: int) -> tuple[Recommendation, ...]:
        """Judge every route anew by what is stored; once a tick, because it sums 28 days."""
        settings = decided(store)
        facts = route_facts(store, self._book, settings, now_ns)
        self._controls = {fact.route: fact.main.model for fact in facts}
        experiments = store.experiments()
        after_shipping = {hold_out_name(one) for one in experiments}
        judged = tuple(c for c in self._comparisons.values() if c.experiment not in after_shipping)
        verdicts = tuple(
            verdict
            for fact in facts
            for verdict in recommend(fact, judged, advice_settings(settings, fact.route), now_ns)
        )
        return _keep_decided(store, verdicts, experiments, now_ns)

    def settle(self, store: Store, now_ns: int) -> tuple[Turn, WatchCommit] | None:
        """What ends by itself now, with its experiment, recommendation and policy in one commit; None mostly.

        Asked when all evidence of a tick is stored, so that it is a function of what is stored: after a kill the
        next tick comes to the same.
        """
        active = [one for one in store.experiments() if one.state in ("running", "shipped")]
        if not active:
            return None
        settings, alerts = (
            decided(store),
            store.alerts(states=("open", "recovering"), limit=1000),
        )
        for experiment in active:
            advice = store.recommendations(route=experiment.route)
            row = next((r for r in advice if r.candidate_model == experiment.candidate), None)
            margins = advice_settings(settings, experiment.route)
            given = (row.card or {}).get("given", {}) if row is not None else {}
            over = turn(
                experiment,
                tuple(self._comparisons.values()),
                alerts,
                score=given.get("score", ""),
                margin=given.get("margin", margins.margin(0.9)),
                settings=margins,
                now_ns=now_ns,
                upgrade=bool(given.get("upgrade")),
                most_spent_nusd=settings.shadow_budget_nusd,
            )
            if over is not None:
                return over, _commit_of(store, over, row, advice, now_ns)
        return None

    def _feed(
        self,
        calls: Iterable[CallEvidence],
        scores: Iterable[ScoreEvidence],
        experiments: Sequence[Experiment],
    ) -> set[str]:
        changed: set[str] = set()
        known = {name: one for one in experiments for name in (one.id, hold_out_name(one))}
        calls = list(calls)
        for call in calls:
            found = comparison_of(call, self._controls)
            if found is None:
                continue
            kind, experiment, candidate = found
            control = self._controls.get(call.route, "")
            approved = known.get(experiment) or next((e for e in experiments if _is_shadow_of(call, e)), None)
            if approved is not None and approved.route == call.route:
                # As it was approved: an answer may name a dated version of the model that was asked.
                candidate, control = approved.candidate, approved.control
            key = f"{PREFIX}{call.route}/{kind}/{experiment}/{candidate}"
            if key not in self._comparisons:
                self._comparisons[key] = Comparison(
                    call.route,
                    "shadow" if kind == "shadow" else "ab",
                    experiment,
                    control,
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


def _is_shadow_of(call: CallEvidence, experiment: Experiment) -> bool:
    """Whether an unnamed shadow call belongs to this test: by its route and either name of its model."""
    return (
        (call.purpose, call.route) == ("shadow", experiment.route)
        and (experiment.kind, experiment.state) == ("shadow", "running")
        and experiment.candidate in (call.model, call.request_model)
    )


def decided(store: Store) -> Preferences:
    """What people set, with the tiers of the routes where something is set by tier."""
    settings = store.settings()
    tiers = {info.route: info.declared_tier for info in store.routes()} if goes_by_tier(settings) else {}
    return preferences(settings, tiers)


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


def _keep_decided(
    store: Store, verdicts: Sequence[Recommendation], experiments: Sequence[Experiment], now_ns: int
) -> tuple[Recommendation, ...]:
    """What was decided outlives the next tick; a proposal that is being tried is collecting.

    Where a move was made, the evidence stays as it was when it was made. One row per route and candidate.
    """
    stored = {(row.route, row.candidate_model): row for row in store.recommendations()}
    tried = {(one.route, one.candidate) for one in experiments if one.state == "running"}
    kept: dict[tuple[str, str], Recommendation] = {}
    for verdict in verdicts:
        key = (verdict.route, verdict.candidate_model)
        row = stored.get(key)
        if row is not None and row.state in ("shipped", "kept", "rolled_back"):
            kept[key] = row
        elif row is not None and row.state == "dismissed" and now_ns < (row.dismissed_until_ns or now_ns + 1):
            kept[key] = replace(
                verdict,
                state=row.state,
                dismissed_reason=row.dismissed_reason,
                dismissed_until_ns=row.dismissed_until_ns,
                created_ns=row.created_ns,
            )
        elif verdict.state == "proposed" and key in tried:
            kept[key] = replace(verdict, state="collecting")
        else:
            kept[key] = verdict
    return tuple(kept.values())


def _commit_of(
    store: Store, over: Turn, row: Recommendation | None, advice: Sequence[Recommendation], now_ns: int
) -> WatchCommit:
    done = replace(over.experiment, card=row.card if row is not None else over.experiment.card)
    audit = [AuditEntry(now_ns, WHO, done.state.replace("_", " "), done.id, over.note)]
    ends: dict[str, RecommendationState] = {"kept": "kept", "stopped": "proposed"}
    state = ends.get(done.state, "rolled_back")
    others = [r for r in advice if row is None or r.id != row.id]
    moved = [] if row is None else [replace(row, state=state, reason=over.note, updated_ns=now_ns)]
    policies: list[PolicyRevision] = []
    newest = next(iter(store.policies(limit=1)), None)
    if newest is not None:
        try:
            toml = revised(newest.toml, done)
        except PolicyError as error:
            audit.append(AuditEntry(now_ns, WHO, "leave policy", done.id, str(error)))
        else:
            if toml != newest.toml:
                version = Policy.from_toml(toml, is_served=True).version
                note = f"{done.state.replace('_', ' ')} experiment {done.id}: {over.note}"
                policies.append(PolicyRevision(newest.revision + 1, version, toml, WHO, now_ns, note))
                audit.append(AuditEntry(now_ns, WHO, "approve policy", version, note))
    return WatchCommit(
        {},
        {},
        recommendations=(*moved, *others) if moved else (),
        experiments=(done,),
        policies=tuple(policies),
        audit=tuple(audit),
    )
