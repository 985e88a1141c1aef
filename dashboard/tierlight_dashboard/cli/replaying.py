"""`tierlight replay`: what a routing would have been worth, before it ships."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from tierlight.routing.embed import embedder as embedder_of
from tierlight_dashboard.analysis.offpolicy import exit_code
from tierlight_dashboard.analysis.replay import GAP_KEPT, Outcomes, PairReplay, replay_pair
from tierlight_dashboard.analysis.replaymany import ManyReplay, replay_many

from .evalsets import load_sets
from .facts import SinceOption
from .loading import explained
from .options import StoreOption, fail
from .replaychart import picture
from .storedreplay import CURRENT, PROPOSED, StoredReplay, replay_stored, stored_json, stored_text

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
        Path | None,
        typer.Option("--policy", help="The proposed policy, for --route; without it the served one alone."),
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

    With --route it puts the policy that is served beside the proposed one, on the route's own calls. Exit code 0 when
    --min-saving and --margin hold, 1 when not, 2 when the data can't say; escalated pairs alone never give 0.
    """
    many: list[ManyReplay] = []
    stored: StoredReplay | None = None
    loss = 0.02 if margin is None else margin
    with explained():
        if data is not None:
            pairs, many = _replay_sets(data, pair, embedder, seed, loss)
        elif route:
            stored = replay_stored(store, route, policy, signal, since, embedder, seed=seed, margin=loss)
            pairs = stored.pairs
        else:
            raise fail("say --data FOLDER, or --route NAME")
    if json_:
        document = {
            "pairs": [_pair_json(one) for one in pairs],
            "many": [asdict(one) for one in many],
            "policy": None if stored is None else stored_json(stored),
        }
        typer.echo(json.dumps(document, indent=1))
    else:
        for one in pairs:
            typer.echo(_pair_text(one))
        for everything in many:
            typer.echo(_many_text(everything))
        if stored is not None:
            typer.echo(stored_text(stored))
    if svg is not None and pairs:
        svg.write_text(picture(pairs[0]))
    raise typer.Exit(
        _code(pairs, margin, min_saving) if stored is None else _stored_code(stored, margin, min_saving)
    )


def _replay_sets(
    data: Path, pair: str, embedder: str, seed: int, margin: float
) -> tuple[list[PairReplay], list[ManyReplay]]:
    maker = embedder_of(embedder)
    pairs, many = [], []
    for outcomes in load_sets(data):
        rows = maker.matrix(outcomes.texts)
        weak, strong = _chosen_pair(outcomes, pair)
        pairs.append(replay_pair(outcomes, rows, weak, strong, seed=seed, margin=margin))
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


def _stored_code(stored: StoredReplay, margin: float | None, min_saving: float | None) -> int:
    """By the change from the served to the proposed policy; one policy alone is only valued."""
    if stored.change is not None or margin is not None or min_saving is not None:
        return exit_code(stored.change, margin, min_saving)
    asked = [one for label, one in stored.values.items() if label in (CURRENT, PROPOSED)]
    return 0 if asked and all(one.value is not None for one in asked) else 2


def _code(pairs: list[PairReplay], margin: float | None, min_saving: float | None) -> int:
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
