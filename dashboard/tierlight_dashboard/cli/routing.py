"""`tierlight policy`, `tierlight learn`, `tierlight replay`: routing before it ships."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tierlight.routing.embed import embedder as embedder_of
from tierlight.routing.training import Aim, since_changes, train

from .evidence import RouteEvidence, changed_of, evidence_of, names_of
from .facts import SinceOption, since_ns
from .loading import explained, policy_of, route_of
from .options import StoreOption, fail, reading
from .policies import policy_app
from .replaying import replay


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.add_typer(policy_app, name="policy")
    app.command()(learn)
    app.command()(replay)


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
    loaded = policy_of(policy)
    declared = route_of(loaded, route)
    wanted = signal or declared.signal
    if not wanted:
        raise fail(f"route {route!r}: say --signal, the one score to learn from")
    names = names_of(loaded, declared)
    with reading(store) as opened, explained():
        maker = embedder_of(declared.embedder)
        changed = changed_of(opened, names, route)
        found = evidence_of(opened, names, route, wanted, since_ns(since), maker)
        current = since_changes(found.calls, changed)
        router = train(
            route,
            current,
            declared.candidates,
            default=declared.default,
            signal=wanted,
            now_ns=max((call.time_ns for call in found.calls), default=0),
            embedder=declared.embedder,
            dimensions=maker.dimensions,
            aim=Aim.of(declared),
        )
    out.write_text(router.to_json())
    typer.echo(_evidence_line(found, wanted))
    if len(current) < len(found.calls):
        typer.echo(
            f"{len(found.calls) - len(current)} calls are left out: an open alert says that the quality of "
            f"{', '.join(sorted(changed))} changed since"
        )
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
