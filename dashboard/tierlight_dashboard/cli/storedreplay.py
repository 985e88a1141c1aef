"""`tierlight replay --route`: the served policy beside a proposed one on a route's own stored calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tierlight.routing.decide import AlwaysUp, Chooser, RouteRequest, decide
from tierlight.routing.declared import Route
from tierlight.routing.embed import Embedder
from tierlight.routing.embed import embedder as embedder_of
from tierlight.routing.learn import ScoredCall, dense_rows, expected_many
from tierlight.routing.policy import Policy
from tierlight.routing.source import PolicySource
from tierlight.routing.training import Aim, train
from tierlight_dashboard.analysis.offpolicy import (
    BY_LOGS,
    MIN_EFFECTIVE,
    Contributions,
    PolicyChange,
    PolicyValue,
    difference,
    is_logged,
    logged_contributions,
    paired_contributions,
    policy_value,
    saving,
    sentences,
)
from tierlight_dashboard.analysis.replay import (
    FOLDS,
    Floats,
    Ints,
    PairReplay,
    random_folds,
    replay_pair,
)
from tierlight_dashboard.analysis.validators import LEAST_KNOWN, ValidatorQuality

from .evidence import Names, RouteEvidence, evidence_of, names_of, validators_of
from .facts import since_ns
from .loading import policy_of, served_policy
from .options import fail, reading
from .pairs import Pairs, cost_of

CURRENT, PROPOSED = "current policy", "proposed policy"
_ELSEWHERE = "it asks targets that no such call went to"
_OFFLINE = {
    "cascade": "a cascade's answer depends on its checks: its value is that of its own scored calls and verify pairs",
    "router_model": "it asks a model about each prompt, which a replay does not",
}


@dataclass(frozen=True)
class StoredReplay:
    """What stored calls say: pairs replayed, the value of each policy, and the change from current to proposed."""

    pairs: list[PairReplay]
    n: int
    logged_share: float
    values: dict[str, PolicyValue]
    costs: dict[str, float | None]
    change: PolicyChange | None
    notes: tuple[str, ...]
    signal: str = ""
    validators: tuple[ValidatorQuality, ...] = ()


@dataclass(frozen=True)
class _Stated:
    """A policy with the name that is printed, and where its files are looked for."""

    label: str
    policy: Policy
    route: Route
    file: Path | None


@dataclass(frozen=True)
class _Decided:
    """Which candidate a policy asks for each call (-1 = one that no call went to), or why that is not known."""

    wanted: Ints | None
    why: str = ""


def replay_stored(
    store: str,
    route: str,
    file: Path | None,
    signal: str,
    since: str,
    embedder: str,
    *,
    seed: int,
    margin: float,
) -> StoredReplay:
    """Read a route's scored calls and value the served policy, the proposed one and each candidate alone on them."""
    with reading(store) as opened:
        newest = next(iter(opened.policies(limit=1)), None)
        stated = []
        if newest is not None:
            served = served_policy(newest.toml.encode(), "the approved policy")
            if route in served.routes:
                stated.append(_Stated(CURRENT, served, served.routes[route], None))
        if file is not None:
            loaded = policy_of(file)
            if route not in loaded.routes:
                raise fail(
                    f"the policy has no route {route!r}; known are {', '.join(loaded.routes) or 'none'}"
                )
            stated.append(_Stated(PROPOSED, loaded, loaded.routes[route], file))
        if not stated:
            raise fail(f"no approved policy routes {route!r}: say --policy")
        wanted = signal or next((one.route.signal for one in reversed(stated) if one.route.signal), "")
        if not wanted:
            raise fail(f"route {route!r}: say --signal, the score that counts")
        names = _names(stated)
        maker = embedder_of(embedder)
        since_at = since_ns(since)
        found = evidence_of(opened, names, route, wanted, since_at, maker)
        checked = validators_of(opened, stated[0].route, wanted, since_at)
    replayed = _replayed(found, stated, _cheapest_first(names, found), maker, seed, margin)
    return replace(replayed, signal=wanted, validators=tuple(checked))


def _cheapest_first(names: Names, found: RouteEvidence) -> Names:
    """The candidates by what their calls cost; as the policies name them where one's cost is unknown."""
    costs = {
        name: float(np.mean([cost_of(call) for call in found.calls if call.target == name] or [np.nan]))
        for name in names.values()
    }
    if not np.isfinite(list(costs.values())).all():
        return names
    return dict(sorted(names.items(), key=lambda one: costs[one[1]]))


def _names(stated: Sequence[_Stated]) -> Names:
    """The candidates of both policies, cheapest first of the proposed one; one name a model."""
    names: dict[tuple[str, str], str] = {}
    for one in reversed(stated):
        for key, name in names_of(one.policy, one.route).items():
            taken = name in names.values() and key not in names
            names.setdefault(key, f"{name} ({key[1]})" if taken else name)
    return names


def _replayed(
    found: RouteEvidence,
    stated: Sequence[_Stated],
    names: Names,
    maker: Embedder,
    seed: int,
    margin: float,
) -> StoredReplay:
    arms = list(names.values())
    if not found.calls:
        return StoredReplay([], 0, 0.0, {}, {}, None, ("no scored calls of the route's candidates",))
    decided = {one.label: _decided(found, one, names, maker, seed) for one in stated}
    everyone = np.zeros(len(found.calls), dtype=int)
    decided |= {f"always {name}": _Decided(everyone + place) for place, name in enumerate(arms)}
    pairs = Pairs.of(found, arms, seed)
    replays = []
    if pairs is not None:
        outcomes = pairs.outcomes(found, stated[-1].route.name)
        rows = _rows([found.calls[n] for n in pairs.text])[pairs.drawn]
        replays.append(replay_pair(outcomes, rows, arms[0], arms[-1], seed=seed, margin=margin))
    logged = np.array([np.nan if call.act_prob is None else call.act_prob for call in found.calls])
    if pairs is not None:
        logged[[n for n, call in enumerate(found.calls) if call.call_id in pairs.ids]] = np.nan
    trusted = pairs if pairs is not None and pairs.effective >= MIN_EFFECTIVE else None
    if trusted is not None:
        value = _by_pairs(trusted, found)
        requests = {call.call_id or str(n) for n, call in enumerate(found.calls)}
        share = len(trusted.ids) / len(requests)
    else:
        value = _by_logs(found, arms, logged)
        share = float(is_logged(logged).mean())
    values: dict[str, PolicyValue] = {}
    costs: dict[str, float | None] = {}
    parts: dict[str, tuple[Contributions, Contributions | None]] = {}
    for label, one in decided.items():
        made = None if one.wanted is None else value(one.wanted)
        quality, cost = made or (None, None)
        costs[label] = None
        if quality is None:
            why = one.why or (_ELSEWHERE if made is None else "not identifiable: deterministic routing")
            values[label] = PolicyValue(None, None, 0.0, share, why)
            continue
        parts[label] = (quality, cost)
        values[label] = policy_value(quality, share)
        if values[label].value is not None and cost is not None:
            costs[label] = cost.mean
    change = None
    if CURRENT in parts and PROPOSED in parts:
        (new, new_cost), (old, old_cost) = parts[PROPOSED], parts[CURRENT]
        change = PolicyChange(
            quality=difference(new, old),
            saving=None if new_cost is None or old_cost is None else saving(new_cost, old_cost),
            evidence=BY_LOGS if trusted is None else trusted.evidence,
            may_ship=trusted is None or not trusted.is_escalated_only,
            effective=min(new.effective, old.effective),
        )
    notes = [] if change is None else list(sentences(change, share))
    if pairs is not None and pairs.is_escalated_only and change is None:
        notes.append("the pairs are escalated calls only, the hard ones: they may propose, never ship")
    return StoredReplay(replays, len(found.calls), share, values, costs, change, tuple(notes))


# ---- what each policy would ask --------------------------------------------------------------------------


def _decided(found: RouteEvidence, stated: _Stated, names: Names, maker: Embedder, seed: int) -> _Decided:
    """The policy's own choice for each call, without its experiments and its exploration."""
    route = stated.route
    if route.strategy in _OFFLINE:
        return _Decided(None, _OFFLINE[route.strategy])
    if route.strategy in ("complexity", "embedding") and not all(found.texts):
        return _Decided(
            None, f"strategy {route.strategy} reads the prompt, and some calls were stored without"
        )
    if route.strategy == "learned":
        chosen = _out_of_fold(found, stated, names, maker)
    else:
        plain = replace(
            stated.policy,
            experiments={},
            routes={**stated.policy.routes, route.name: replace(route, explore=0.0)},
        )
        chooser: Chooser | None = None
        if route.strategy == "embedding" and stated.file is not None:
            chooser = PolicySource(str(stated.file)).chooser(route)
        choosers = {route.name: chooser} if chooser is not None else {}
        draws = np.random.default_rng(seed)
        chosen = [
            decide(
                plain, RouteRequest(route.name, text, segment=call.segment), AlwaysUp(), draws, choosers
            ).chosen
            for call, text in zip(found.calls, found.texts, strict=True)
        ]
    targets = stated.policy.targets
    place = {name: n for n, name in enumerate(names.values())}
    wanted = [place.get(names.get((targets[name].provider, targets[name].model), ""), -1) for name in chosen]
    if -1 in wanted:
        return _Decided(None, _ELSEWHERE)
    return _Decided(np.array(wanted))


def _out_of_fold(found: RouteEvidence, stated: _Stated, names: Names, maker: Embedder) -> list[str]:
    """What a learned route would choose, each call by a router that was trained on other requests only.

    Trained here by the route's settings: an artefact's own calls would flatter it.
    """
    route = stated.route
    back = {names[key]: name for key, name in names_of(stated.policy, route).items()}
    calls = [replace(call, target=back.get(call.target, call.target)) for call in found.calls]
    requests: dict[str, int] = {}
    each = np.array(
        [requests.setdefault(call.call_id or f"\0{n}", len(requests)) for n, call in enumerate(calls)]
    )
    fold = random_folds(len(requests))[each]
    chosen = [route.default] * len(calls)
    for number in range(FOLDS):
        router = train(
            route.name,
            [call for call, its in zip(calls, fold, strict=True) if its != number],
            route.candidates,
            default=route.default,
            signal=route.signal,
            now_ns=max(call.time_ns for call in calls),
            embedder=maker.id,
            dimensions=maker.dimensions,
            aim=Aim.of(route),
        )
        for n in np.flatnonzero(fold == number):
            one = calls[n]
            vector, shape = (one.vector, one.shape) if router.mode == "full" else ({}, ())
            chosen[n] = router.choose_by(vector, shape, one.segment, route.candidates).target
    return chosen


# ---- what the calls say ------------------------------------------------------------------------------------

# Quality and cost of a policy by its choices, each None where the calls can't say; None altogether where a choice is no arm of them.
_Value = Callable[[Ints], tuple[Contributions | None, Contributions | None] | None]


def _by_pairs(pairs: Pairs, found: RouteEvidence) -> _Value:
    scores, costs = pairs.table(found, lambda call: call.score), pairs.table(found, cost_of)

    def value(wanted: Ints) -> tuple[Contributions | None, Contributions | None] | None:
        mine = pairs.sides(wanted)
        if mine is None:
            return None
        quality = paired_contributions(scores, pairs.weights, mine)
        cost = paired_contributions(costs, pairs.weights, mine) if np.isfinite(costs).all() else None
        return quality, cost

    return value


def _by_logs(found: RouteEvidence, arms: Sequence[str], logged: Floats) -> _Value:
    chosen = np.array([arms.index(call.target) for call in found.calls])
    scores = np.array([call.score for call in found.calls])
    costs = np.array([cost_of(call) for call in found.calls])
    expected = _expected(found, arms, scores)
    dear = _expected(found, arms, costs) if np.isfinite(costs).all() else None

    def value(wanted: Ints) -> tuple[Contributions | None, Contributions | None] | None:
        quality = logged_contributions(chosen, scores, logged, expected, wanted)
        cost = None if dear is None else logged_contributions(chosen, costs, logged, dear, wanted)
        return quality, cost

    return value


def _rows(calls: Sequence[ScoredCall]) -> np.ndarray[Any, np.dtype[np.float32]]:
    return dense_rows(
        [call.vector for call in calls], 1 + max((max(c.vector, default=0) for c in calls), default=0)
    )


def _expected(found: RouteEvidence, names: Sequence[str], outcomes: Floats) -> Floats:
    """Out-of-fold expectation of each call's outcome on each candidate, by task and neighbours."""
    calls = found.calls
    rows = _rows(calls)
    segments = np.array([call.segment for call in calls], dtype=object)
    values, fold = outcomes[:, None], random_folds(len(calls))
    expected = np.full((len(calls), len(names)), float(outcomes.mean()))
    for side, name in enumerate(names):
        seen = np.array([call.target == name for call in calls])
        for number in np.unique(fold):
            test, train_on = fold == number, (fold != number) & seen
            if train_on.any():
                weights = np.ones(int(train_on.sum()))
                expected[test, side] = expected_many(
                    rows[train_on], segments[train_on], values[train_on], weights, rows[test], segments[test]
                )[:, 0]
    return expected


# ---- as text and JSON --------------------------------------------------------------------------------------


def stored_json(replayed: StoredReplay) -> dict[str, Any]:
    """The values as plain JSON; unknown is null."""
    return {
        "n": replayed.n,
        "identifiable_share": replayed.logged_share,
        "values": {
            label: {**asdict(one), "cost_usd": replayed.costs[label]}
            for label, one in replayed.values.items()
        },
        "change": None if replayed.change is None else asdict(replayed.change),
        "notes": list(replayed.notes),
        "validators": [
            {**asdict(one), "precision": one.precision, "recall": one.recall} for one in replayed.validators
        ],
    }


def stored_text(replayed: StoredReplay) -> str:
    """The values as a table, then what they come to."""
    lines = [f"stored calls: n {replayed.n}, of which {replayed.logged_share:.0%} allow a comparison"]
    if replayed.values:
        lines.append(f"  {'':28}{'quality':>9}{'se':>8}{'cost/call':>12}{'effective n':>13}")
    for label, one in replayed.values.items():
        cost = replayed.costs[label]
        if one.value is None or one.standard_error is None:
            lines.append(f"  {label:28} {one.why}")
        else:
            money = "–" if cost is None else f"{cost:.6f}"
            lines.append(
                f"  {label:28}{one.value:>9.3f}{one.standard_error:>8.3f}{money:>12}{one.effective:>13.0f}"
            )
    lines += [f"  -> {note}" for note in replayed.notes]
    return "\n".join([*lines, *(_validator_line(one, replayed.signal) for one in replayed.validators)])


def _validator_line(one: ValidatorQuality, signal: str) -> str:
    said = f"  validator {one.name}: fails {one.failed:,} of {one.failed + one.passed:,} answers"
    if one.precision is None:
        return (
            f"{said}; precision and recall need {LEAST_KNOWN} failed and {LEAST_KNOWN} passed answers with {signal}, "
            f"there are {one.failed_known} and {one.passed_known}"
        )
    recall = "undefined, no bad answer" if one.recall is None else f"{one.recall:.0%}"
    return (
        f"{said}; of those it fails {one.precision:.0%} are bad (precision, n {one.failed_known}), "
        f"of the bad ones it fails {recall} (recall)"
    )
