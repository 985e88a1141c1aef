"""`tierlight policy check | diff | approve | undo`: a policy before it is in use, and taken back."""

from __future__ import annotations

import getpass
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

from tierlight.errors import PolicyError
from tierlight.routing.check import check_prices, difference, warnings
from tierlight_collector.decisions import PolicyRevision
from tierlight_collector.errors import CollectorError, StoreLocked
from tierlight_collector.stores import KEEP_ALL, open_store
from tierlight_collector.stores.protocol import Store
from tierlight_dashboard import policybook
from tierlight_dashboard.policyapi import PATH

from .delivery import SERVER, TIMEOUT_S, ServerOption
from .loading import book_of, policy_of, served_policy
from .options import PricesOption, StoreOption, fail, reading
from .output import Format, emit

FileArgument = Annotated[Path, typer.Argument(help="The policy, a TOML file.")]


def _me() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in some containers
        return "cli"


ByOption = Annotated[str, typer.Option("--by", help="Who decides it.", default_factory=_me)]

policy_app = typer.Typer(
    help="Routing policies: check, compare, approve and undo them.", no_args_is_help=True
)


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
    by: ByOption,
    note: Annotated[str, typer.Option("--note", help="Why.")] = "",
    prices: PricesOption = None,
    server: ServerOption = SERVER,
) -> None:
    """Store a policy as the one that collectors serve to routers. It must fit what a served policy may say.

    While a server holds the store, the server is asked to do it.
    """
    toml = file.read_bytes() if file.is_file() else b""
    policy = served_policy(toml, str(file))
    try:
        check_prices(policy, book_of(prices), datetime.now(UTC))
    except PolicyError as error:
        raise fail(error) from error
    text = toml.decode()
    revision, version, _ = _decided(
        store,
        server,
        lambda opened: policybook.approve(opened, text, by, note, time.time_ns()),
        lambda: httpx.post(
            _address(server),
            params={"by": by, "note": note},
            content=toml,
            headers=_headers(),
            timeout=TIMEOUT_S,
        ),
    )
    typer.echo(f"revision {revision} is approved: version {version}")


@policy_app.command()
def undo(
    store: StoreOption,
    by: ByOption,
    revision: Annotated[
        int | None, typer.Argument(help="What to take back; without it the newest revision.", min=1)
    ] = None,
    server: ServerOption = SERVER,
) -> None:
    """Take back what one revision changed, by writing another; later changes elsewhere in the policy stay.

    Experiments that the policy then no longer holds are stopped, those that it holds again go on.
    """
    params = {"by": by} | ({} if revision is None else {"revision": str(revision)})
    added, version, done = _decided(
        store,
        server,
        lambda opened: policybook.undo(opened, revision, by, time.time_ns()),
        lambda: httpx.post(_address(server) + "/undo", params=params, headers=_headers(), timeout=TIMEOUT_S),
    )
    typer.echo(f"revision {added} is approved: {done}, version {version}")


def _decided(
    store: str,
    server: str,
    write: Callable[[Store], PolicyRevision],
    ask: Callable[[], httpx.Response],
) -> tuple[int, str, str]:
    """Number, version and note of the revision, written in the store or by the server that holds it."""
    try:
        opened = open_store(store, retention=KEEP_ALL)
    except StoreLocked:
        return _asked(server, ask)
    except (CollectorError, ValueError) as error:
        raise fail(error) from error
    try:
        added = write(opened)
    except (CollectorError, PolicyError) as error:
        raise fail(error) from error
    finally:
        opened.close()
    return added.revision, added.version, added.note


def _asked(server: str, ask: Callable[[], httpx.Response]) -> tuple[int, str, str]:
    try:
        answer = ask()
        document = answer.json()
        if answer.is_success:
            return int(document["revision"]), str(document["version"]), str(document["note"])
        problem = f"{server}: {document.get('error') or document}"
    except (httpx.HTTPError, ValueError, KeyError, AttributeError) as error:
        problem = (
            f"another process holds the store, and no tierlight server answers at {server} ({type(error).__name__}): "
            "name its dashboard by --server, or stop that process"
        )
        raise fail(problem) from error
    raise fail(problem)


def _address(server: str) -> str:
    return server.rstrip("/") + PATH


def _headers() -> dict[str, str]:
    token = os.environ.get("TIERLIGHT_TOKEN", "")
    return {"Authorization": f"Bearer {token}"} if token else {}
