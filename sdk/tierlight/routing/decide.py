"""Which target a request goes to, with what was rejected and with which probability. Pure: no clock, no IO.

`decide` goes through eligibility, the arm of an experiment, exploration, and then the route's strategy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from ..errors import NoTarget
from .complexity import complexity, parse_router_word, tier_for
from .declared import WORDS, Experiment, Route, Target
from .policy import Policy
from .split import arm_of

RULES_VERSION: Final = "rules-1"


@dataclass(frozen=True, slots=True)
class RouteRequest:
    """What is known of a request before it is sent.

    Args:
        route: the route it belongs to.
        text: all text of the prompt; read by complexity, embedding and learned routes.
        operation: chat, embeddings or rerank.
        input_tokens: known length; None takes a quarter of the characters.
        modalities: `image`, `audio` where the messages hold any.
        segment: a slice of the route, the task of the learned router.
        unit_ids: ids by unit (`call`, `conversation`, `user`) for sticky splits.
        forced: the target that the caller named, "" = none.
        router_word: what the router model answered; None = it was not asked, "" = it did not answer in time.
    """

    route: str
    text: str = ""
    operation: str = "chat"
    input_tokens: int | None = None
    modalities: frozenset[str] = frozenset()
    segment: str = ""
    unit_ids: Mapping[str, str] = field(default_factory=dict)
    forced: str = ""
    router_word: str | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """One target that was considered. `excluded` says why it can't be chosen; `probability` is how likely it was."""

    target: str
    tier: str
    score: float | None = None
    excluded: str = ""
    probability: float = 0.0


@dataclass(frozen=True, slots=True)
class Decision:
    """Where a request goes. `act_prob` is that of `assigned`, which differs from `chosen` where it was not to be had."""

    route: str
    strategy: str
    chosen: str
    assigned: str
    candidates: tuple[Candidate, ...]
    reason: str
    act_prob: float = 1.0
    threshold: float | None = None
    explored: bool = False
    experiment: str = ""
    arm: str = ""
    policy_version: str = ""
    router_version: str = RULES_VERSION

    @property
    def is_delivered(self) -> bool:
        """Whether the assigned target is the one that is asked first."""
        return self.chosen == self.assigned


class BreakerView(Protocol):
    """What may be asked, at the moment of deciding. Targets are meant by their names."""

    def is_available(self, target: str) -> bool:
        """Whether the target's breaker lets a request through."""

    def free_at(self, target: str) -> float:
        """When it will, at the earliest."""

    def is_present(self, target: str) -> bool:
        """Whether a device is there; True for anything that is not on-device."""


class Draws(Protocol):
    """Where chance comes from; a `random.Random`."""

    def random(self) -> float:
        """A number from 0 up to but not including 1."""


class AlwaysUp:
    """A view in which everything is available."""

    def is_available(self, target: str) -> bool:
        """It is."""
        return True

    def free_at(self, target: str) -> float:
        """At once."""
        return 0.0

    def is_present(self, target: str) -> bool:
        """It is."""
        return True


@dataclass(frozen=True, slots=True)
class Choice:
    """What a chooser says: a target ("" = none can be told), why, and a score per candidate where it has some."""

    target: str
    reason: str
    scores: Mapping[str, float] = field(default_factory=dict)
    threshold: float | None = None
    version: str = RULES_VERSION


class Chooser(Protocol):
    """Decides a learned or an embedding route among the eligible candidates."""

    def choose(self, text: str, segment: str, candidates: Sequence[str]) -> Choice:
        """The candidate to ask; `candidates` is never empty."""


def decide(
    policy: Policy,
    request: RouteRequest,
    state: BreakerView,
    rng: Draws,
    choosers: Mapping[str, Chooser] | None = None,
) -> Decision:
    """Decide one request.

    Args:
        state: what the breakers say at this moment.
        rng: where exploration draws from.
        choosers: the learned or example-based chooser of each route that has one.

    Raises:
        NoTarget: the policy knows neither the route nor a default target, or the named target.
    """
    if request.forced:
        return _forced(policy, request)
    route = policy.routes.get(request.route)
    if route is None:
        return _unrouted(policy, request, state)
    names, reason = _considered(policy, route, request)
    candidates = [_candidate(policy.targets[name], request, state, names) for name in names]
    eligible = [one.target for one in candidates if not one.excluded]
    experiment = policy.experiment_of.get(route.name)
    if experiment is not None and not reason:
        return _assigned(policy, request, state, route, experiment, candidates)
    choice = _greedy(route, request, eligible or list(names), choosers or {}, reason)
    if choice.target not in names:
        choice = replace(choice, target=route.default)
    share = 0.0
    if (
        len(eligible) > 1
        and route.strategy != "cascade"
        and (not route.is_interactive or route.explores_interactive)
    ):
        share = route.explore
    candidates = [
        replace(
            one,
            score=choice.scores.get(one.target),
            probability=(1 - share) * (one.target == choice.target)
            + (share / len(eligible) if one.target in eligible else 0.0),
        )
        for one in candidates
    ]
    assigned, explored, why = choice.target, False, choice.reason
    if share and rng.random() < share:
        assigned, explored, why = eligible[int(rng.random() * len(eligible))], True, "explore"
    chosen, why = _served(policy, request, state, assigned, why)
    return Decision(
        route=route.name,
        strategy=route.strategy,
        chosen=chosen,
        assigned=assigned,
        candidates=tuple(candidates),
        reason=why,
        act_prob=next(one.probability for one in candidates if one.target == assigned),
        threshold=choice.threshold,
        explored=explored,
        policy_version=policy.version,
        router_version=choice.version,
    )


# ---- eligibility ----------------------------------------------------------------------------------------


def _considered(policy: Policy, route: Route, request: RouteRequest) -> tuple[tuple[str, ...], str]:
    """The targets to think about, and `specialty` where the kind of work overrules the route."""
    needed = _needed(request)
    if not needed or any(needed in policy.targets[name].capabilities for name in route.candidates):
        return route.candidates, ""
    able = tuple(name for name, target in policy.targets.items() if needed in target.capabilities)
    return (able, "specialty") if able else (route.candidates, "")


def _needed(request: RouteRequest) -> str:
    if request.operation in ("embeddings", "rerank"):
        return request.operation
    return "vision" if "image" in request.modalities else "voice" if "audio" in request.modalities else ""


def _candidate(target: Target, request: RouteRequest, state: BreakerView, beside: Sequence[str]) -> Candidate:
    return Candidate(target.name, target.tier, excluded=_excluded(target, request, state, beside))


def _excluded(target: Target, request: RouteRequest, state: BreakerView, beside: Sequence[str] = ()) -> str:
    if not target.is_enabled:
        return "disabled"
    needed = _needed(request)
    if needed in ("embeddings", "rerank") and needed not in target.capabilities:
        return "capability"
    tokens = request.input_tokens if request.input_tokens is not None else len(request.text) // 4
    if target.max_input_tokens is not None and tokens > target.max_input_tokens:
        return "input_too_long"
    if not state.is_present(target.name):
        return "device_unavailable"
    return "" if state.is_available(target.name) else "breaker_open"


def _served(
    policy: Policy, request: RouteRequest, state: BreakerView, assigned: str, reason: str
) -> tuple[str, str]:
    """The target that is asked first for an assigned one, and why."""
    why = _excluded(policy.targets[assigned], request, state)
    if not why:
        return assigned, reason
    chain = policy.chain(assigned)
    for name in chain:
        if not _excluded(policy.targets[name], request, state):
            return name, why if why in ("breaker_open", "device_unavailable", "input_too_long") else "default"
    # Nothing is free: a closed door may open, so the one that opens first is asked rather than none.
    resting = [
        name
        for name in (assigned, *chain)
        if _excluded(policy.targets[name], request, state) == "breaker_open"
    ]
    if resting:
        return min(resting, key=state.free_at), "breaker_open"
    return assigned, reason


# ---- experiments ----------------------------------------------------------------------------------------


def _assigned(
    policy: Policy,
    request: RouteRequest,
    state: BreakerView,
    route: Route,
    experiment: Experiment,
    candidates: list[Candidate],
) -> Decision:
    unit = request.unit_ids.get(experiment.unit) or request.unit_ids.get("call", "")
    name = arm_of(experiment, unit)
    target = next(arm.target for arm in experiment.arms if arm.name == name)
    weights: dict[str, float] = {}
    for arm in experiment.arms:
        weights[arm.target] = weights.get(arm.target, 0.0) + arm.weight
    known = {one.target for one in candidates}
    for other in weights:
        if other not in known:
            candidates.append(_candidate(policy.targets[other], request, state, ()))
    chosen, reason = _served(policy, request, state, target, "experiment")
    return Decision(
        route=route.name,
        strategy="experiment",
        chosen=chosen,
        assigned=target,
        candidates=tuple(replace(one, probability=weights.get(one.target, 0.0)) for one in candidates),
        reason=reason,
        act_prob=weights[target],
        experiment=experiment.name,
        arm=name,
        policy_version=policy.version,
    )


# ---- strategies -----------------------------------------------------------------------------------------


def _greedy(
    route: Route,
    request: RouteRequest,
    eligible: list[str],
    choosers: Mapping[str, Chooser],
    overruled: str,
) -> Choice:
    if overruled:
        return Choice(eligible[0], overruled)
    match route.strategy:
        case "complexity":
            score = complexity(request.text)
            target = _by_tier(route, tier_for(score, route.bounds))
            bound = route.bounds[0] if score < route.bounds[0] else route.bounds[1]
            return Choice(target, "complexity", dict.fromkeys(route.candidates, score), bound)
        case "router_model":
            if not request.router_word:
                return Choice(route.default, "router_timeout")
            word = parse_router_word(request.router_word)
            tiers = dict(zip(WORDS, ("small", "mid", "flagship"), strict=True))
            target = _by_tier(route, tiers[word or "moderate"])
            return Choice(target, "router_model" if word else "router_unparsed")
        case "cascade":
            return Choice(eligible[0], "cascade_first")
        case "specialty":
            return Choice(eligible[0], "specialty")
        case "embedding" | "learned":
            chooser = choosers.get(route.name)
            return (
                chooser.choose(request.text, request.segment, eligible)
                if chooser
                else Choice(route.default, "router_error")
            )
        case _:
            return Choice(route.default, "task")


def _by_tier(route: Route, tier: str) -> str:
    """The target of a tier; where the route has none, the next stronger one, else the strongest."""
    ladder = ("small", "mid", "flagship")
    for step in ladder[ladder.index(tier) :]:
        if step in route.by_tier:
            return route.by_tier[step]
    return route.candidates[-1]


def _forced(policy: Policy, request: RouteRequest) -> Decision:
    target = policy.targets.get(request.forced)
    if target is None:
        raise NoTarget(f"the policy has no target {request.forced!r}; known are {', '.join(policy.targets)}")
    return Decision(
        route=request.route,
        strategy="forced",
        chosen=target.name,
        assigned=target.name,
        candidates=(Candidate(target.name, target.tier, probability=1.0),),
        reason="forced",
        policy_version=policy.version,
    )


def _unrouted(policy: Policy, request: RouteRequest, state: BreakerView) -> Decision:
    name = policy.defaults.target
    if not name:
        raise NoTarget(
            f"the policy has no route {request.route!r} and no default target; "
            f"known routes are {', '.join(policy.routes) or 'none'}"
        )
    chosen, reason = _served(policy, request, state, name, "default")
    return Decision(
        route=request.route,
        strategy="task",
        chosen=chosen,
        assigned=name,
        candidates=(replace(_candidate(policy.targets[name], request, state, ()), probability=1.0),),
        reason=reason,
        policy_version=policy.version,
    )


def safe_decision(policy: Policy, request: RouteRequest) -> Decision:
    """The route's default target, for when deciding itself failed.

    Raises:
        NoTarget: the policy knows neither the route nor a default target.
    """
    route = policy.routes.get(request.route)
    name = route.default if route is not None else policy.defaults.target
    if not name:
        raise NoTarget(f"the policy has no route {request.route!r} and no default target")
    target = policy.targets[name]
    return Decision(
        route=request.route,
        strategy=route.strategy if route is not None else "task",
        chosen=name,
        assigned=name,
        candidates=(Candidate(name, target.tier, probability=1.0),),
        reason="router_error",
        policy_version=policy.version,
    )
