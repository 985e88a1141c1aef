"""`tierlight replay`: what a routing would have been worth, before it ships."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from tierlight.routing.decide import AlwaysUp, RouteRequest, decide
from tierlight.routing.embed import embedder as embedder_of
from tierlight.routing.learn import expected_many
from tierlight.routing.policy import Policy, Route
from tierlight_dashboard.analysis.offpolicy import doubly_robust
from tierlight_dashboard.analysis.replay import (
    GAP_KEPT,
    Outcomes,
    PairReplay,
    random_folds,
    replay_pair,
)
from tierlight_dashboard.analysis.replaymany import ManyReplay, replay_many

from .evalsets import load_sets
from .evidence import RouteEvidence, evidence_of
from .facts import SinceOption, since_ns
from .loading import explained, policy_of, route_of
from .options import StoreOption, fail, reading
from .replaychart import picture

EmbedderOption = Annotated[str, typer.Option("--embedder", help="hash1, static1 or minilm1.")]


def replay(
    store: StoreOption,
    data: Annotated[
        Path | None, typer.Option("--data", help="A folder or file of prompts that several models answered.")
    ] = None,
    pair: Annotated[
        str, typer.Option("--pair", help="weak,strong; by default the worst and the best model.")
    ] = "",
    route: Annotated[str, typer.Option("--route", help="Stored calls of this route instead of --data.")] = "",
    policy: Annotated[
        Path | None, typer.Option("--policy", help="The proposed policy, for stored calls.")
    ] = None,
    signal: Annotated[str, typer.Option("--signal", help="The score that counts.")] = "",
    since: SinceOption = "30d",
    embedder: EmbedderOption = "hash1",
    seed: Annotated[int, typer.Option(help="Of ties and resamples.")] = 0,
    margin: Annotated[float | None, typer.Option(help="Exit 1 if more quality than this is lost.")] = None,
    min_saving: Annotated[
        float | None, typer.Option(help="Exit 1 if less than this share is saved at 95 % of the gap.")
    ] = None,
    svg: Annotated[
        Path | None, typer.Option("--svg", help="Write quality against cost as a picture.")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """What a routing would have been worth: against always-strong, always-weak, random and the oracle.

    Exit code 0 when --min-saving and --margin hold, 1 when not, 2 when the data can't say.
    """
    with explained():
        if data is not None:
            pairs, many = _replay_sets(data, pair, embedder, seed, margin)
            value = None
        elif route and policy is not None:
            pairs, many, value = _replay_store(store, route, policy, signal, since, embedder, seed, margin)
        else:
            raise fail("say --data, or --route and --policy")
    if json_:
        document = {
            "pairs": [_pair_json(one) for one in pairs],
            "many": [asdict(one) for one in many],
            "policy": value,
        }
        typer.echo(json.dumps(document, indent=1))
    else:
        for one in pairs:
            typer.echo(_pair_text(one))
        for everything in many:
            typer.echo(_many_text(everything))
        if value is not None:
            typer.echo(_value_text(value))
    if svg is not None and pairs:
        svg.write_text(picture(pairs[0]))
    raise typer.Exit(_code(pairs, value, margin, min_saving))


def _replay_sets(
    data: Path, pair: str, embedder: str, seed: int, margin: float | None
) -> tuple[list[PairReplay], list[ManyReplay]]:
    maker = embedder_of(embedder)
    pairs, many = [], []
    for outcomes in load_sets(data):
        rows = maker.matrix(outcomes.texts)
        weak, strong = _chosen_pair(outcomes, pair)
        pairs.append(
            replay_pair(outcomes, rows, weak, strong, seed=seed, margin=0.02 if margin is None else margin)
        )
        if len(outcomes.models) > 2 and np.isfinite(outcomes.cost).all():
            many.append(replay_many(outcomes, rows))
    return pairs, many


def _chosen_pair(outcomes: Outcomes, pair: str) -> tuple[str, str]:
    if pair:
        weak, _, strong = pair.partition(",")
        for name in (weak, strong):
            if name not in outcomes.models:
                raise fail(f"{outcomes.name} has no model {name!r}; known are {', '.join(outcomes.models)}")
        return weak, strong
    ranked = [outcomes.models[n] for n in outcomes.quality.mean(axis=0).argsort()]
    if len(ranked) < 2:
        raise fail(f"{outcomes.name}: one model alone leaves nothing to route")
    return ranked[0], ranked[-1]


def _replay_store(
    store: str,
    route: str,
    file: Path,
    signal: str,
    since: str,
    embedder: str,
    seed: int,
    margin: float | None,
) -> tuple[list[PairReplay], list[ManyReplay], dict[str, Any]]:
    loaded = policy_of(file)
    declared = route_of(loaded, route)
    wanted = signal or declared.signal
    if not wanted:
        raise fail(f"route {route!r}: say --signal, the score that counts")
    maker = embedder_of(embedder)
    with reading(store) as opened:
        found = evidence_of(opened, loaded, declared, wanted, since_ns(since), maker)
    outcomes = _paired(found, declared)
    pairs = []
    if outcomes is not None:
        rows = maker.matrix(outcomes.texts)
        weak, strong = declared.candidates[0], declared.candidates[-1]
        pairs.append(
            replay_pair(outcomes, rows, weak, strong, seed=seed, margin=0.02 if margin is None else margin)
        )
    return pairs, [], _policy_value(found, loaded, declared, seed)


def _paired(found: RouteEvidence, route: Route) -> Outcomes | None:
    """Requests that both ends of the route answered (shadows, escalations), None below two."""
    weak, strong = route.candidates[0], route.candidates[-1]
    by_request: dict[str, dict[str, int]] = {}
    for n, call in enumerate(found.calls):
        if call.call_id:
            by_request.setdefault(call.call_id, {})[call.target] = n
    both = [one for one in by_request.values() if weak in one and strong in one]
    if weak == strong or len(both) < 2:
        return None

    def table(value: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
        return np.array(
            [[value(found.calls[one[name]]) for name in (weak, strong)] for one in both], dtype=float
        )

    return Outcomes(
        name=route.name,
        models=(weak, strong),
        texts=tuple(found.texts[one[strong]] for one in both),
        segments=tuple(found.calls[one[strong]].segment for one in both),
        quality=table(lambda call: call.score),
        cost=table(lambda call: np.nan if call.cost_usd is None else call.cost_usd),
        fold=random_folds(len(both)),
    )


def _policy_value(found: RouteEvidence, policy: Policy, route: Route, seed: int) -> dict[str, Any]:
    """The quality that the proposed policy, and each candidate alone, would have had on the stored calls."""
    calls, names = found.calls, list(route.candidates)
    if not calls:
        return {"n": 0, "why": "no scored calls of the route's candidates"}
    draws = np.random.default_rng(seed)
    asked = [
        decide(policy, RouteRequest(route.name, text, segment=call.segment), AlwaysUp(), draws).chosen
        for call, text in zip(calls, found.texts, strict=True)
    ]
    chosen = np.array([names.index(call.target) for call in calls])
    scores = np.array([call.score for call in calls])
    probability = np.array([np.nan if call.act_prob is None else call.act_prob for call in calls])
    expected = _expected(found, names)
    values = {}
    wanted_by = {"proposed policy": asked} | {f"always {name}": [name] * len(calls) for name in names}
    for label, targets in wanted_by.items():
        wanted = np.array([names.index(one) if one in names else -1 for one in targets])
        if (wanted < 0).any():
            values[label] = {"value": None, "why": "it asks targets that no stored call went to"}
            continue
        values[label] = asdict(doubly_robust(chosen, scores, probability, expected, wanted))
    return {"n": len(calls), "values": values}


def _expected(found: RouteEvidence, names: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Out-of-fold expected score of each call on each candidate, by task and neighbours."""
    calls = found.calls
    dimensions = 1 + max((max(call.vector, default=0) for call in calls), default=0)
    rows = np.zeros((len(calls), dimensions), dtype=np.float32)
    for row, call in zip(rows, calls, strict=True):
        row[list(call.vector)] = list(call.vector.values())
    segments = np.array([call.segment for call in calls], dtype=object)
    scores, fold = np.array([[call.score] for call in calls]), random_folds(len(calls))
    expected = np.full((len(calls), len(names)), 0.5)
    for side, name in enumerate(names):
        seen = np.array([call.target == name for call in calls])
        for number in np.unique(fold):
            test, train_on = fold == number, (fold != number) & seen
            if train_on.any():
                weights = np.ones(int(train_on.sum()))
                expected[test, side] = expected_many(
                    rows[train_on], segments[train_on], scores[train_on], weights, rows[test], segments[test]
                )[:, 0]
    return expected


def _code(
    pairs: list[PairReplay], value: dict[str, Any] | None, margin: float | None, min_saving: float | None
) -> int:
    if value is not None and not pairs:
        proposed = value.get("values", {}).get("proposed policy", {})
        strong = [one for label, one in value.get("values", {}).items() if label.startswith("always ")]
        if proposed.get("value") is None:
            return 2
        best = [one["value"] for one in strong if one.get("value") is not None]
        return 1 if margin is not None and best and proposed["value"] < max(best) - margin else 0
    if any(pair.random_apgr is None for pair in pairs) and min_saving is not None:
        return 2
    for pair in pairs:
        row = pair.row("learned")
        if min_saving is not None and (row.saving is None or row.saving < min_saving):
            return 1
        if margin is not None and (1 - GAP_KEPT) * (pair.strong_quality - pair.weak_quality) > margin:
            return 1
    return 0


def _pair_json(pair: PairReplay) -> dict[str, Any]:
    document = asdict(pair)
    document.pop("curves")
    return document


def _number(value: float | None, form: str = ".3f") -> str:
    return "–" if value is None else format(value, form)


def _pair_text(pair: PairReplay) -> str:
    lines = [
        f"{pair.name}: {pair.weak} or {pair.strong}, n {pair.n}",
        f"  always weak    quality {pair.weak_quality:.3f}  cost {_number(pair.weak_cost, '.6f')}",
        f"  always strong  quality {pair.strong_quality:.3f}  cost {_number(pair.strong_cost, '.6f')}",
        f"  random         APGR {_number(pair.random_apgr)} (sd {_number(pair.random_sd)})",
        f"  {'router':22}{'APGR':>8}{'95 %':>18}{'CPT50':>8}{'CPT80':>8}{'saved':>8}{'95 %':>18}",
    ]
    for row in pair.rows:
        lines.append(
            f"  {row.router:22}{_number(row.apgr):>8}{_range(row.apgr_low, row.apgr_high, '.3f'):>18}"
            f"{_number(row.cpt50, '.1%'):>8}{_number(row.cpt80, '.1%'):>8}{_number(row.saving, '.1%'):>8}"
            f"{_range(row.saving_low, row.saving_high, '.1%'):>18}"
        )
    return "\n".join(
        [
            *lines,
            *(f"  -> {verdict}" for verdict in pair.verdicts),
            "  (out of fold; trained on the same set)",
        ]
    )


def _range(low: float | None, high: float | None, form: str) -> str:
    return "–" if low is None or high is None else f"{low:{form}} to {high:{form}}"


def _many_text(many: ManyReplay) -> str:
    lines = [
        f"{many.name}, all models: n {many.n}, best single {many.best_single} {many.best_single_quality:.4f}, "
        f"zero-router AIQ {many.zero_router_aiq:.4f}"
    ]
    for name, area in many.aiq.items():
        share = many.cost_at_best_single[name]
        lines.append(
            f"  {name:22} AIQ {area:.3f}  best quality {many.best_quality[name]:.3f}  "
            f"best single's quality {'never reached' if share is None else f'at {share:.1%} of its cost'}"
        )
    return "\n".join(lines)


def _value_text(value: dict[str, Any]) -> str:
    if "values" not in value:
        return f"stored calls: {value['why']}"
    lines = [f"stored calls with a known probability: n {value['n']}"]
    for label, one in value["values"].items():
        if one.get("value") is None:
            lines.append(f"  {label:22} {one.get('why', '')}")
        else:
            lines.append(
                f"  {label:22} {one['value']:.3f} (se {one['standard_error']:.3f}, effective n {one['effective']:.0f})"
            )
    return "\n".join(lines)
