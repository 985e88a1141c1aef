"""`tierlight policy check | diff | approve`, `tierlight learn`, `tierlight replay`: routing before it ships."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from tierlight.errors import ConfigurationError, PolicyError
from tierlight.pricing import PriceBook
from tierlight.routing.check import check_prices, difference, warnings
from tierlight.routing.decide import AlwaysUp, RouteRequest, decide
from tierlight.routing.embed import embedder as embedder_of
from tierlight.routing.learn import expected_many
from tierlight.routing.policy import Policy, Route
from tierlight.routing.source import load_policy
from tierlight.routing.training import Aim, train
from tierlight_dashboard.analysis.replay import (
    GAP_KEPT,
    ManyReplay,
    Outcomes,
    PairReplay,
    doubly_robust,
    random_folds,
    replay_many,
    replay_pair,
)

from .evalsets import load_sets
from .evidence import RouteEvidence, evidence_of
from .facts import SinceOption, since_ns
from .options import PricesOption, StoreOption, fail, reading, writing
from .output import Format, emit
from .replaychart import picture

EmbedderOption = Annotated[str, typer.Option("--embedder", help="hash1, static1 or minilm1.")]
FileArgument = Annotated[Path, typer.Argument(help="The policy, a TOML file.")]

policy_app = typer.Typer(help="Routing policies: check, compare and approve them.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.add_typer(policy_app, name="policy")
    app.command()(learn)
    app.command()(replay)


# ---- policies -------------------------------------------------------------------------------------------


@policy_app.command()
def check(
    file: FileArgument,
    strict: Annotated[bool, typer.Option("--strict", help="A warning is a failure: exit code 1.")] = False,
    prices: PricesOption = None,
    store: Annotated[
        str, typer.Option("--store", help="Judge signals and open advice by this store, too.")
    ] = "",
) -> None:
    """Whether a policy may be loaded, and what is doubtful about it. Exit code 2 when it must not be loaded."""
    book, now = _book(prices), datetime.now(UTC)
    policy = _policy(file, book)
    known: dict[str, Any] = {}
    if store:
        month_ago_ns = time.time_ns() - 30 * 86_400_000_000_000
        with reading(store) as opened:
            signals: dict[str, set[str]] = {}
            after = 0
            while page := opened.score_evidence(after, 1000):
                for score in page:
                    if score.call.start_ns >= month_ago_ns:
                        signals.setdefault(score.call.route, set()).add(score.name)
                after = page[-1].seq
            advised = [
                one.route for one in opened.recommendations() if one.state in ("proposed", "collecting")
            ]
        known = {"scored_signals": signals, "advised_routes": advised}
    found = warnings(policy, book=book, at=now, **known)
    for one in found:
        typer.echo(str(one))
    typer.echo(
        f"{file}: version {policy.version}, {len(policy.routes)} routes, {len(policy.targets)} targets, {len(found)} warnings"
    )
    if found and strict:
        raise typer.Exit(1)


@policy_app.command()
def diff(
    before: Annotated[str, typer.Argument(help="A file, or `approved` for the newest one of the store.")],
    after: FileArgument,
    store: StoreOption,
) -> None:
    """What a new policy changes. A route that goes to a lower tier is marked: it asks for evidence first."""
    if before == "approved":
        with reading(store) as opened:
            newest = next(iter(opened.policies(limit=1)), None)
        if newest is None:
            raise fail("the store has no approved policy yet")
        old = _parsed(newest.toml.encode(), "the approved policy")
    else:
        old = _policy(Path(before))
    new = _policy(after)
    changes = difference(old, new)
    rows = [
        {"key": one.key, "before": one.before, "after": one.after, "tier": "lower" if one.lowers_tier else ""}
        for one in changes
    ]
    emit(
        rows,
        ("key", "before", "after", "tier"),
        Format.table,
        empty=f"The same policy: version {old.version}.",
    )
    if any(one.lowers_tier for one in changes):
        typer.echo("A lower tier starts as an experiment or a shadow, and ships when its evidence says so.")


@policy_app.command()
def approve(
    file: FileArgument,
    store: StoreOption,
    by: Annotated[str, typer.Option("--by", help="Who approves it.")],
    note: Annotated[str, typer.Option("--note", help="Why.")] = "",
    prices: PricesOption = None,
) -> None:
    """Store a policy as the one that collectors serve to routers. It must fit what a served policy may say."""
    toml = file.read_bytes() if file.is_file() else b""
    policy = _parsed(toml, str(file))
    try:
        check_prices(policy, _book(prices), datetime.now(UTC))
    except PolicyError as error:
        raise fail(str(error)) from error
    with writing(store) as opened:
        revision = opened.add_policy(toml.decode(), policy.version, by, note)
    typer.echo(f"revision {revision.revision} is approved: version {policy.version}")


def _policy(file: Path, book: PriceBook | None = None) -> Policy:
    try:
        return load_policy(file, prices=book)
    except PolicyError as error:
        raise fail(str(error)) from error


def _parsed(toml: bytes, name: str) -> Policy:
    try:
        return Policy.from_toml(toml, is_served=True)
    except PolicyError as error:
        raise fail(f"{name}: {error}") from error


def _book(prices: Path | None) -> PriceBook:
    try:
        return PriceBook.from_toml(prices.read_bytes()) if prices is not None else PriceBook.default()
    except (ConfigurationError, OSError) as error:
        raise fail(str(error)) from error


# ---- learning -------------------------------------------------------------------------------------------


def learn(
    store: StoreOption,
    route: Annotated[str, typer.Option("--route", help="The route to learn.")],
    policy: Annotated[Path, typer.Option("--policy", help="The policy that names its candidates.")],
    out: Annotated[Path, typer.Option("--out", help="Where to write the learned router.")],
    signal: Annotated[
        str, typer.Option("--signal", help="The one score to learn from; the policy's by default.")
    ] = "",
    since: SinceOption = "90d",
) -> None:
    """Learn a route's choice from its own scored calls; the same calls give the same version."""
    loaded = _policy(policy)
    declared = _route(loaded, route)
    wanted = signal or declared.signal
    if not wanted:
        raise fail(f"route {route!r}: say --signal, the one score to learn from")
    with reading(store) as opened, _explained():
        maker = embedder_of(declared.embedder)
        found = evidence_of(opened, loaded, declared, wanted, since_ns(since), maker)
        router = train(
            route,
            found.calls,
            declared.candidates,
            default=declared.default,
            signal=wanted,
            now_ns=max((call.time_ns for call in found.calls), default=0),
            embedder=declared.embedder,
            dimensions=maker.dimensions,
            aim=Aim(declared.target_pgr, declared.strong_share),
        )
    out.write_text(router.to_json())
    typer.echo(_evidence_line(found, wanted))
    typer.echo(
        f"{out}: {router.version}, {router.comparable} comparable calls, mode {router.mode}: {router.reason or 'by expected score and cost'}"
    )
    if router.mode == "default":
        typer.echo(f"the route stays on {router.default} until there is more to learn from")


def _evidence_line(found: RouteEvidence, signal: str) -> str:
    parts = [f"{len(found.calls)} calls with the score {signal!r}"]
    if found.without_text:
        parts.append(f"{found.without_text} without text or hashed words (they count for their task only)")
    if found.unknown_targets:
        parts.append(f"{found.unknown_targets} of models that are no candidates (left out)")
    return ", ".join(parts)


def _route(policy: Policy, name: str) -> Route:
    if name not in policy.routes:
        raise fail(f"the policy has no route {name!r}; known are {', '.join(policy.routes) or 'none'}")
    return policy.routes[name]


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except ConfigurationError as error:
        raise fail(str(error)) from error


# ---- replay ---------------------------------------------------------------------------------------------


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
    with _explained():
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
    loaded = _policy(file)
    declared = _route(loaded, route)
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
