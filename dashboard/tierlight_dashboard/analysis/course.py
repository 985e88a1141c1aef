"""What becomes of an approved experiment: taken back by harm, kept when it held, and what the policy then says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from tierlight.routing.policy import Policy
from tierlight.routing.revise import begun, ended, moved
from tierlight_collector.decisions import Alert, Experiment

from .comparison import Comparison
from .evidence import PairEvidence
from .gate import AdviceSettings
from .wording import money, points

# Share of the calls that stays with the control after shipping, so that harm can still be seen.
HOLD_OUT: Final = 0.05
WATCHED_NS: Final = 14 * 86_400_000_000_000
# Evidence of harm that ends it. After shipping the bar is lower: to take back is cheap, to go on is not.
HARM_WHILE_COLLECTING: Final = 20.0
HARM_AFTER_SHIPPING: Final = 10.0


@dataclass(frozen=True, slots=True)
class Turn:
    """An experiment that ends by itself, and the figures for which it does."""

    experiment: Experiment
    note: str

    @property
    def sentence(self) -> str:
        """The verdict, for people who did not ask."""
        one = self.experiment
        verdict = {
            "kept": f"{one.candidate} is kept on {one.route} in place of {one.control}",
            "rolled_back": f"{one.candidate} was taken back from {one.route}, {one.control} answers again",
        }.get(one.state, f"The test of {one.candidate} on {one.route} was stopped, {one.control} goes on")
        return f"{verdict}: {self.note.rstrip('.')}."


def hold_out_name(experiment: Experiment) -> str:
    """The name of the split after shipping: another share is another experiment, so its evidence stays apart."""
    return f"{experiment.id}-hold-out"


def turn(
    experiment: Experiment,
    comparisons: Sequence[Comparison],
    alerts: Sequence[Alert],
    *,
    score: str,
    margin: float,
    settings: AdviceSettings,
    now_ns: int,
    upgrade: bool = False,
    most_spent_nusd: int | None = None,
) -> Turn | None:
    """How a running or shipped experiment ends now, None while it goes on.

    Args:
        alerts: the open ones; those of grade page on quality or errors that opened on its route after shipping count.
        score: the evaluator that gates; "" judges by errors alone.
        margin: the loss of quality that was allowed when it was judged, 0..1; of an upgrade the gain that is asked.
        upgrade: the candidate is to be better. For a downgrade harm says all that futility could.
        most_spent_nusd: what a shadow test may cost in all, nano-dollars; None = as much as it takes.
    """
    shipped_ns = experiment.shipped_ns if experiment.state == "shipped" else None
    bar = HARM_WHILE_COLLECTING if shipped_ns is None else HARM_AFTER_SHIPPING
    for comparison in comparisons:
        if not _belongs(comparison, experiment):
            continue
        tests = [("errors", comparison.signals.get("errors"), settings.error_margin)]
        if score:
            tests.insert(0, (score, comparison.quality(score), margin))
        for name, pairs, allowed in tests:
            if pairs is not None and pairs.harm(allowed) >= bar:
                return _over(experiment, "rolled_back", _harm(name, pairs, allowed, bar), now_ns)
    if shipped_ns is None:
        for comparison in comparisons:
            stop = _stop(comparison, score, margin, settings, upgrade, most_spent_nusd)
            if stop and _belongs(comparison, experiment):
                return _over(experiment, "stopped", stop, now_ns)
        return None
    for alert in alerts:
        if (
            alert.route == experiment.route
            and alert.severity == "page"
            and alert.kind in ("quality", "errors")
            and alert.opened_ns >= shipped_ns
        ):
            return _over(experiment, "rolled_back", f"alert after shipping: {alert.sentence}", now_ns)
    if now_ns - shipped_ns >= WATCHED_NS:
        held = next((c for c in comparisons if c.experiment == hold_out_name(experiment)), None)
        if held is None or not score:
            seen = "no hold-out was compared"
        else:
            pairs = held.quality(score)
            seen = f"{score}: K of harm {pairs.harm(margin):.3g} of {bar:g} on {pairs.n:,} calls"
        return _over(experiment, "kept", f"14 days without harm; {seen}", now_ns)
    return None


def revised(toml: str, experiment: Experiment) -> str:
    """The policy as an experiment in this state needs it; the rest of the text stays as it is.

    Raises:
        PolicyError: the policy cannot say it.
    """
    plain = ended(ended(toml, experiment.id), hold_out_name(experiment))
    control, candidate = experiment.control, experiment.candidate
    if experiment.state == "running":
        return begun(
            plain,
            experiment.id,
            experiment.route,
            kind=experiment.kind,
            control=control,
            candidate=candidate,
            share=experiment.share,
        )
    if experiment.state == "shipped":
        return begun(
            plain,
            hold_out_name(experiment),
            experiment.route,
            kind="ab",
            control=control,
            candidate=candidate,
            share=1 - HOLD_OUT,
        )
    if experiment.state == "kept":
        return moved(plain, experiment.route, control=control, candidate=candidate)
    return plain


def followed(experiment: Experiment, before: Policy | None, after: Policy, now_ns: int) -> Experiment:
    """The experiment as a person's change of the policy leaves it: what the policy no longer says is stopped.

    An experiment of which neither policy says anything stays as it is: its calls are routed elsewhere.
    """
    was, now = None if before is None else _said_of(before, experiment), _said_of(after, experiment)
    if was == now:
        return experiment
    if now == "shipped":
        return replace(experiment, state="shipped", shipped_ns=now_ns, ended_ns=None)
    if now == "running":
        return replace(experiment, state="running", shipped_ns=None, ended_ns=None)
    return (
        replace(experiment, state="stopped", ended_ns=now_ns) if experiment.state in _ACTIVE else experiment
    )


_ACTIVE: Final = ("running", "shipped")


def _said_of(policy: Policy, experiment: Experiment) -> Literal["running", "shipped"] | None:
    if hold_out_name(experiment) in policy.experiments:
        return "shipped"
    names = policy.shadows if experiment.kind == "shadow" else policy.experiments
    return "running" if experiment.id in names else None


def _belongs(comparison: Comparison, experiment: Experiment) -> bool:
    if (comparison.route, comparison.candidate) != (experiment.route, experiment.candidate):
        return False
    if comparison.experiment == hold_out_name(experiment):
        return experiment.state == "shipped"
    # A shadow need not carry a name: it is found by its route and model.
    return comparison.kind == experiment.kind and (
        comparison.experiment == experiment.id or (comparison.kind == "shadow" and not comparison.experiment)
    )


def _stop(
    comparison: Comparison,
    score: str,
    margin: float,
    settings: AdviceSettings,
    upgrade: bool,
    most_spent_nusd: int | None,
) -> str:
    """Why going on is not worth it, "" while it is."""
    quality = comparison.quality(score)
    highest = quality.upper(settings.alpha) if upgrade and quality.n >= settings.min_pairs else None
    if highest is not None and highest < margin:
        return (
            f"futile: after {quality.n:,} comparisons {score} is at most {points(highest)} better, "
            f"and {points(margin)} was asked"
        )
    spent = comparison.candidate_spend_nusd
    if most_spent_nusd is not None and comparison.kind == "shadow" and spent >= most_spent_nusd:
        return (
            f"spent: its shadow calls cost {money(spent)} of {money(most_spent_nusd)} without a verdict "
            f"({quality.n:,} pairs)"
        )
    return ""


def _harm(name: str, pairs: PairEvidence, margin: float, bar: float) -> str:
    return (
        f"{name}: K of harm {pairs.harm(margin):.3g} reached {bar:g} at n = {pairs.n:,}, "
        f"mean difference {100 * (pairs.mean or 0.0):+.1f} pt against a margin of {-100 * margin:.1f} pt"
    )


def _over(
    experiment: Experiment, state: Literal["rolled_back", "kept", "stopped"], note: str, now_ns: int
) -> Turn:
    return Turn(replace(experiment, state=state, ended_ns=now_ns), note)
