"""Whether a route's tier should move, with the evidence for it; never a guess.

A proposal says what a test could save; only paired or randomised evidence through every gate makes it `ready`.
"Not enough data", "no quality signal" and "fix the prompt first" are verdicts, not failures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tierlight_collector.decisions import Action, Recommendation, RecommendationState
from tierlight_collector.records import ScoreSums

from .comparison import Comparison
from .gate import AdviceSettings, evidence_card, gate
from .intervals import quality_interval
from .savings import Saving, saving_per_call, time_to_decision
from .wording import days, money, percent, points

# A cheaper model may be wordier, a dearer one terser: the range an estimate from list prices is shown with.
OUTPUT_RATIO_LOW, OUTPUT_RATIO_HIGH = 0.7, 1.6
# Variance of a paired difference when nothing is known yet: .90 against .90 with agreement .6 of the rest.
TYPICAL_VARIANCE = 0.072


@dataclass(frozen=True, slots=True)
class ModelUse:
    """What one model did on the route in the last 28 days."""

    provider: str
    model: str
    tier: str
    calls: int
    errors: int
    cost_nusd: int
    unpriced: int
    input_tokens: int
    output_tokens: int
    quality: ScoreSums | None = None

    @property
    def cost_per_call(self) -> float | None:
        """Mean nano-dollars of a priced call; None when no call has a price."""
        priced = self.calls - self.unpriced
        return self.cost_nusd / priced if priced > 0 else None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that could be tried; its cost per call at this route's tokens in nano-dollars, None = unpriced."""

    provider: str
    model: str
    tier: str
    input_nusd_per_call: float | None
    output_nusd_per_call: float | None

    def cost(self, output_ratio: float = 1.0) -> float | None:
        """Estimated cost of a call when it answers with `output_ratio` times the tokens seen today."""
        if self.input_nusd_per_call is None or self.output_nusd_per_call is None:
            return None
        return self.input_nusd_per_call + output_ratio * self.output_nusd_per_call


@dataclass(frozen=True, slots=True)
class RouteFacts:
    """All that a verdict on one route rests on, dearest model first in `uses`."""

    route: str
    days: float
    uses: tuple[ModelUse, ...]
    score: str | None  # the evaluator that gates, None = no quality signal
    open_quality_alert: bool = False
    alert_cause: str = ""  # what the alert's attribution points at, "" = not settled
    down: tuple[Candidate, ...] = ()
    up: tuple[Candidate, ...] = ()

    @property
    def main(self) -> ModelUse:
        """The model that answers most calls."""
        return max(self.uses, key=lambda use: (use.calls, use.model))

    @property
    def calls(self) -> int:
        return sum(use.calls for use in self.uses)

    @property
    def calls_per_month(self) -> float:
        """Calls in 28 days at the rate seen."""
        return self.calls * 28 / max(1.0, min(28.0, self.days))


def recommend(
    facts: RouteFacts, comparisons: Sequence[Comparison], settings: AdviceSettings, now_ns: int
) -> tuple[Recommendation, ...]:
    """The verdicts on one route: one per running comparison, or else the one proposal or reason not to move."""
    if not facts.uses or facts.calls == 0:
        return ()
    running = [c for c in comparisons if c.route == facts.route and facts.score and c.calls["candidate"]]
    # Several candidates share the error rate: the chance that any bad one ships stays alpha.
    shared = replace(settings, alpha=settings.alpha / max(1, len(running)))
    judged = tuple(_on_comparison(facts, comparison, shared, now_ns) for comparison in running)
    return judged or (_without_comparison(facts, settings, now_ns),)


def _without_comparison(facts: RouteFacts, settings: AdviceSettings, now_ns: int) -> Recommendation:
    main = facts.main
    if facts.score is None:
        return _verdict(
            facts,
            "no_quality_signal",
            now_ns,
            f"No quality signal on {facts.route}: cost and latency are watched, no tier is judged.",
            "Add validate=, judge= or tierlight.score() to its calls.",
        )
    quality = quality_interval(main.quality) if main.quality else None
    if quality is None or quality.n < settings.min_scored:
        n = quality.n if quality else 0
        rate = n / max(facts.days, 1e-9)
        wait = (settings.min_scored - n) / rate if rate else None
        return _verdict(
            facts,
            "not_enough_data",
            now_ns,
            f"Learning {facts.route}: {n} of {settings.min_scored} scored calls.",
            f"About {days(wait)} at today's volume." if wait else "No call of it was scored yet.",
            pairs=n,
            pairs_needed=settings.min_scored,
            days_needed=wait,
        )
    standing = (
        f"{percent(quality.mean)} ({percent(quality.low)} to {percent(quality.high)}, n = {quality.n:,})"
    )
    if facts.open_quality_alert and not facts.alert_cause.startswith("provider"):
        cause = facts.alert_cause or "cause not settled"
        return _verdict(
            facts,
            "fix_prompt",
            now_ns,
            f"Hold {facts.route}: a quality alert is open ({cause}). Find its cause before the tier moves.",
            f"Quality of {main.model} is {standing}. A tier change now would hide what happened.",
        )
    below_floor = settings.quality_floor is not None and quality.high < settings.quality_floor
    if below_floor or facts.open_quality_alert:
        return _propose_upgrade(facts, standing, settings, now_ns)
    inverted = _inverted(facts, settings)
    if inverted is not None:
        better, sentence = inverted
        estimate = _month(facts, (main.cost_per_call or 0.0) - (better.cost_per_call or 0.0))
        return _verdict(
            facts,
            "downgrade",
            now_ns,
            sentence,
            f"Seen on different calls of this route, so worth a test, not proof. {main.model}: {standing}.",
            candidate=(better.model, better.tier),
            rung="observational",
            saving=(None, estimate, None),
        )
    return _propose_downgrade(facts, standing, quality.mean, settings, now_ns)


def _propose_downgrade(
    facts: RouteFacts, standing: str, quality: float, settings: AdviceSettings, now_ns: int
) -> Recommendation:
    main = facts.main
    cost = main.cost_per_call
    best: tuple[float, Candidate, float, float] | None = None
    for candidate in facts.down:
        likely, dear, cheap = (
            candidate.cost(),
            candidate.cost(OUTPUT_RATIO_HIGH),
            candidate.cost(OUTPUT_RATIO_LOW),
        )
        if cost is None or likely is None or dear is None or cheap is None:
            continue
        saving = _month(facts, cost - likely)
        if best is None or saving > best[0]:
            best = (saving, candidate, _month(facts, cost - dear), _month(facts, cost - cheap))
    if cost is None:
        reason = f"No call of {main.model} has a price, so no saving can be computed: set its price first."
        return _verdict(facts, "keep", now_ns, f"Keep {facts.route} on {main.model}.", reason)
    if best is None or best[0] < settings.worth_nusd:
        reason = (
            "No priced model one tier down is known."
            if best is None
            else f"The best candidate, {best[1].model}, would change about {money(best[0])} a month: not worth a test."
        )
        sentence = f"Keep {facts.route} on {main.model}: quality {standing}."
        return _verdict(facts, "keep", now_ns, sentence, reason)
    saving, candidate, low, high = best
    margin = settings.margin(quality)
    decision = time_to_decision(TYPICAL_VARIANCE, margin, 0.0)
    per_day = facts.calls / max(facts.days, 1e-9) * settings.shadow_share
    wait = decision.n50 / per_day if decision and per_day else None
    needed = decision.n50 if decision else None
    if wait is None:
        test = "The test cannot be decided at this margin."
    else:
        test = (
            f"A shadow test on {percent(settings.shadow_share)} of calls needs about {needed:,} pairs, "
            f"{days(wait)}, at a margin of {points(-margin)}."
        )
        if wait > 30:
            test += " That is long: a wider margin or a larger share would shorten it."
    return _verdict(
        facts,
        "downgrade",
        now_ns,
        f"Worth a test on {facts.route}: {main.model} → {candidate.model} could save "
        f"{money(low)} to {money(high)} a month if quality holds.",
        f"An estimate from list prices at today's tokens; nothing is known of its quality here. {test} "
        f"Today's quality is {standing}.",
        candidate=(candidate.model, candidate.tier),
        saving=(low, saving, high),
        margin=margin,
        pairs_needed=needed,
        days_needed=max(wait, settings.min_days) if wait is not None else None,
    )


def _propose_upgrade(
    facts: RouteFacts, standing: str, settings: AdviceSettings, now_ns: int
) -> Recommendation:
    main = facts.main
    why = (
        f"Quality of {main.model} is {standing}, below the floor of {percent(settings.quality_floor)}."
        if settings.quality_floor is not None
        else f"Quality of {main.model} fell and the provider changed the model. It is {standing} in all."
    )
    candidate = next((c for c in facts.up if c.cost() is not None), None)
    if candidate is None:
        sentence = f"Hold {facts.route}: {why}"
        return _verdict(
            facts, "fix_prompt", now_ns, sentence, "No priced model one tier up is known; check the prompt."
        )
    likely, now = candidate.cost(), main.cost_per_call
    extra = None if likely is None or now is None else _month(facts, likely - now)
    cost = "at a cost not yet known" if extra is None else f"for about {money(extra)} more a month"
    return _verdict(
        facts,
        "upgrade",
        now_ns,
        f"Worth a test on {facts.route}: {main.model} → {candidate.model}, {cost}.",
        f"{why} Check the prompt first; the same model may do with a better one.",
        candidate=(candidate.model, candidate.tier),
        saving=(None, None if extra is None else -extra, None),
    )


def _inverted(facts: RouteFacts, settings: AdviceSettings) -> tuple[ModelUse, str] | None:
    """A dearer main model that is worse than another model seen on the same route, with intervals apart."""
    main = facts.main
    mine = quality_interval(main.quality) if main.quality else None
    for use in facts.uses:
        theirs = quality_interval(use.quality) if use.quality else None
        if use.model == main.model or mine is None or theirs is None or theirs.n < settings.min_scored:
            continue
        own, other = main.cost_per_call, use.cost_per_call
        if own is not None and other is not None and other < own and theirs.low > mine.high:
            return use, (
                f"Tiers are upside down on {facts.route}: {use.model} costs {money(own - other)} less a call "
                f"than {main.model} and scored better ({percent(theirs.mean)} against {percent(mine.mean)})."
            )
    return None


def _on_comparison(
    facts: RouteFacts, comparison: Comparison, settings: AdviceSettings, now_ns: int
) -> Recommendation:
    score = facts.score or ""
    control = next((use for use in facts.uses if use.model == comparison.control), facts.main)
    tried = next((use for use in facts.uses if use.model == comparison.candidate), None)
    tiers = {c.model: c.tier for c in (*facts.down, *facts.up)}
    tier = tried.tier if tried else tiers.get(comparison.candidate, "")
    upgrade = comparison.candidate in {candidate.model for candidate in facts.up}
    base = quality_interval(control.quality) if control.quality else None
    margin = 0.02 if upgrade else settings.margin(base.mean if base else 0.9)
    verdict = gate(comparison, score, margin, settings, upgrade=upgrade)
    quality = comparison.quality(score)
    saving = saving_per_call(comparison.savings, settings.alpha)
    monthly = _monthly(saving, facts)
    low, high = quality.lower(settings.alpha), quality.upper(settings.alpha)
    effect = f"{points(quality.mean or 0.0)} ({points(low, '')} to {points(high, '')}, {quality.n:,} pairs)"
    move = f"{comparison.control} → {comparison.candidate} on {facts.route}"
    worse = f"{round(margin * 1000)} more bad answers per 1,000"
    state: RecommendationState = "collecting"
    action: Action = "upgrade" if upgrade else "downgrade"
    if verdict.harmed:
        action, sentence = "keep", f"Not OK: {move}. Quality {effect}. Keep {comparison.control}."
        reason = f"The candidate is worse by more than the margin of {points(-margin)}."
    elif verdict.futile:
        action, sentence = "keep", f"Stop: {move} will not pass. Quality {effect}."
        reason = f"Even the upper end is beyond the margin of {points(-margin)}."
    elif verdict.ready:
        state = "ready"
        gain = (
            ""
            if saving is None
            else f" Saves at least {money(monthly[0] or 0)} a month ({money(monthly[1] or 0)} seen)."
        )
        sentence = f"Ship: {move}.{gain} Quality {effect}, margin {points(-margin)}."
        reason = f"Every gate passed. The margin allows {worse}."
    else:
        open_checks = "; ".join(f"{c.name}: {c.text}" for c in verdict.checks if not c.passed)
        variance = (
            quality.variance
            if quality.n >= 30
            else TYPICAL_VARIANCE * (1 if comparison.kind == "shadow" else 4)
        )
        decision = time_to_decision(
            variance or 0.0, margin, 0.0 if upgrade else min(0.0, quality.mean or 0.0)
        )
        more = max(settings.min_pairs, decision.n50 if decision else settings.min_pairs) - quality.n
        sentence = f"Needs about {max(1, more):,} more calls: {move}. Quality so far {effect}."
        reason = f"Open: {open_checks}."
    return Recommendation(
        id=0,
        route=facts.route,
        action=action,
        state=state,
        current_model=comparison.control,
        current_tier=control.tier,
        candidate_model=comparison.candidate,
        candidate_tier=tier,
        sentence=sentence,
        reason=reason,
        rung=comparison.kind,
        saving_low_nusd=monthly[0],
        saving_nusd=monthly[1],
        saving_high_nusd=monthly[2],
        quality_low=low,
        quality_diff=quality.mean,
        quality_high=high,
        margin=margin,
        pairs=quality.n,
        pairs_needed=settings.min_pairs,
        days_needed=max(0.0, settings.min_days - comparison.days),
        would_change=f"A lower end below {points(-margin)}, or an open alert on this route.",
        card=evidence_card(comparison, score, margin, settings, upgrade=upgrade),
        created_ns=now_ns,
        updated_ns=now_ns,
    )


def _monthly(saving: Saving | None, facts: RouteFacts) -> tuple[int | None, int | None, int | None]:
    if saving is None:
        return None, None, None
    low, mean, high = saving.per_month(round(facts.calls_per_month))
    return round(low), round(mean), round(high)


def _month(facts: RouteFacts, per_call: float) -> float:
    return per_call * facts.calls_per_month


def _verdict(
    facts: RouteFacts,
    action: Action,
    now_ns: int,
    sentence: str,
    reason: str,
    *,
    candidate: tuple[str, str] = ("", ""),
    rung: Literal["none", "observational"] = "none",
    saving: tuple[float | None, float | None, float | None] = (None, None, None),
    margin: float | None = None,
    pairs: int = 0,
    pairs_needed: int | None = None,
    days_needed: float | None = None,
) -> Recommendation:
    low, likely, high = (None if part is None else round(part) for part in saving)
    return Recommendation(
        id=0,
        route=facts.route,
        action=action,
        state="proposed",
        current_model=facts.main.model,
        current_tier=facts.main.tier,
        candidate_model=candidate[0],
        candidate_tier=candidate[1],
        sentence=sentence,
        reason=reason,
        rung=rung,
        saving_low_nusd=low,
        saving_nusd=likely,
        saving_high_nusd=high,
        margin=margin,
        pairs=pairs,
        pairs_needed=pairs_needed,
        days_needed=days_needed,
        created_ns=now_ns,
        updated_ns=now_ns,
    )
