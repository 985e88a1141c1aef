"""`tierlight policy check | diff | approve`: a policy before it is in use."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from tierlight.errors import PolicyError
from tierlight.routing.check import check_prices, difference, warnings

from .loading import book_of, policy_of, served_policy
from .options import PricesOption, StoreOption, fail, reading, writing
from .output import Format, emit

FileArgument = Annotated[Path, typer.Argument(help="The policy, a TOML file.")]

policy_app = typer.Typer(help="Routing policies: check, compare and approve them.", no_args_is_help=True)


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
    book, now = book_of(prices), datetime.now(UTC)
    policy = policy_of(file, book)
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
        old = served_policy(newest.toml.encode(), "the approved policy")
    else:
        old = policy_of(Path(before))
    new = policy_of(after)
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
    policy = served_policy(toml, str(file))
    try:
        check_prices(policy, book_of(prices), datetime.now(UTC))
    except PolicyError as error:
        raise fail(str(error)) from error
    with writing(store) as opened:
        revision = opened.add_policy(toml.decode(), policy.version, by, note)
    typer.echo(f"revision {revision.revision} is approved: version {policy.version}")
