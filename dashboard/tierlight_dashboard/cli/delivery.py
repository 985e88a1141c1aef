"""`tierlight forward status | pause | resume | skip | drain` and `tierlight spool import`: what waits to be sent."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import httpx
import typer

from tierlight._encode import partial_success
from tierlight._spool import Claim, Spool, request_size
from tierlight.errors import ConfigurationError
from tierlight_collector.control import PATH, Action
from tierlight_collector.errors import CollectorError, StoreLocked
from tierlight_collector.forward import Forwarder, ForwardTarget, read_secret, skipped
from tierlight_collector.serve import instance_of
from tierlight_collector.stores import KEEP_ALL, open_store
from tierlight_collector.stores.protocol import Store

from ..configfile import read_configuration
from .options import (
    ConfigOption,
    FormatOption,
    ForwardContentOption,
    ForwardHeaderOption,
    StoreOption,
    data_folder,
    fail,
    forward_targets,
    reading,
)
from .output import Format, emit

TARGET_COLUMNS = (
    "name",
    "state",
    "waiting_requests",
    "waiting_spans",
    "waiting_bytes",
    "sent",
    "dropped",
    "last_error",
)
_NEVER = (400, 413, 415, 422)  # the collector will not take it whenever it is sent
TIMEOUT_S = 30.0
LOOK_S = 0.2
SERVER = "http://127.0.0.1:4319"

TargetArgument = Annotated[str, typer.Argument(help="Name of the target, as `status` shows it.")]
ServerOption = Annotated[
    str, typer.Option("--server", help="Dashboard of the running server, asked while it holds the store.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    forwarding = typer.Typer(help="Targets that spans are sent on to.", no_args_is_help=True)
    for command in (status, pause, resume, skip, drain):
        forwarding.command()(command)
    app.add_typer(forwarding, name="forward")
    spooling = typer.Typer(help="What an application could not send.", no_args_is_help=True)
    spooling.command("import")(import_)
    app.add_typer(spooling, name="spool")


# ---- forwarding -----------------------------------------------------------------------------------------


def status(store: StoreOption, format: FormatOption = Format.table) -> None:
    """Where each target stands and what waits for it, also while a server runs."""
    with reading(store) as opened:
        rows = []
        for target in opened.outbox_targets():
            waiting = opened.outbox_waiting(target.next_seq)
            rows.append(
                {
                    "name": target.name,
                    "state": target.state,
                    "waiting_requests": waiting.requests,
                    "waiting_spans": waiting.spans,
                    "waiting_bytes": waiting.nbytes,
                    "sent": target.sent,
                    "dropped": target.dropped,
                    "attempts": target.attempts,
                    "last_error": target.last_error or None,
                }
            )
    emit(rows, TARGET_COLUMNS, format, empty="No targets: start `tierlight up --forward URL`.")


def pause(target: TargetArgument, store: StoreOption, server: ServerOption = SERVER) -> None:
    """Send nothing to a target until `resume`; what arrives waits."""
    _steer(store, server, target, "pause")
    typer.echo(f"{target} is paused")


def resume(target: TargetArgument, store: StoreOption, server: ServerOption = SERVER) -> None:
    """Try a paused or blocked target again."""
    _steer(store, server, target, "resume")
    typer.echo(f"{target} is tried again")


def skip(
    target: TargetArgument,
    store: StoreOption,
    server: ServerOption = SERVER,
    all: Annotated[bool, typer.Option("--all", help="Everything that waits, not only the oldest.")] = False,
) -> None:
    """Give up what waits for a target: the oldest request, which it may choke on, or all."""
    typer.echo(f"{_steer(store, server, target, 'skip-all' if all else 'skip'):,} spans skipped")


def drain(
    store: StoreOption,
    server: ServerOption = SERVER,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to try for.")] = 60.0,
    forward: Annotated[
        list[str] | None,
        typer.Option(
            help="Without a running server: the endpoints, in the order in which `up` was told them."
        ),
    ] = None,
    forward_header: ForwardHeaderOption = None,
    forward_content: ForwardContentOption = False,
    config: ConfigOption = None,
) -> None:
    """Deliver what waits for the targets, before the machine or the store goes away; exit 1 when some is left.

    A running server is asked to try every target again, paused and blocked ones too. Without one this command
    sends by itself, to the endpoints it is told: addresses and secrets are never stored.
    """
    try:
        opened = open_store(store, retention=KEEP_ALL)
    except StoreLocked:
        left = _drain_by_server(store, server, timeout)
    except (CollectorError, ValueError) as error:
        raise fail(error) from error
    else:
        try:
            targets = (
                *read_configuration(config).targets,
                *forward_targets(forward, forward_header, forward_content),
            )
            left = _drain_here(opened, targets, timeout)
        except (CollectorError, ConfigurationError) as error:
            raise fail(error) from error
        finally:
            opened.close()
    if left:
        raise fail(f"{left:,} spans still wait: see `tierlight forward status`", code=1)
    typer.echo("nothing waits any more")


def _drain_by_server(store: str, server: str, timeout_s: float) -> int:
    with reading(store) as opened:
        for target in opened.outbox_targets():
            _ask(server, target.name, "resume")
        deadline = time.monotonic() + timeout_s
        while (left := _left(opened, lambda _: True)) and time.monotonic() < deadline:
            time.sleep(LOOK_S)
    return left


def _drain_here(opened: Store, targets: Sequence[ForwardTarget], timeout_s: float) -> int:
    names = {target.name for target in targets}
    left = _left(opened, lambda name: name not in names)
    if left:
        known = ", ".join(each.name for each in opened.outbox_targets())
        raise fail(
            f"{left:,} spans wait for {known} and no server runs: name every endpoint by --forward or --config, as for `up`"
        )
    if not targets:
        return 0

    async def run() -> int:
        return await Forwarder(opened, targets, instance_id=instance_of(opened)).drain(timeout_s)

    return asyncio.run(run())


def _left(opened: Store, counts: Callable[[str], bool]) -> int:
    return sum(
        opened.outbox_waiting(target.next_seq).spans
        for target in opened.outbox_targets()
        if counts(target.name)
    )


def _steer(store: str, server: str, name: str, action: Action) -> int:
    """Do it in the store, or ask the server that holds it; gives the number of spans given up."""
    try:
        opened = open_store(store, retention=KEEP_ALL)
    except StoreLocked:
        return _ask(server, name, action)
    except (CollectorError, ValueError) as error:
        raise fail(error) from error
    try:
        targets = {target.name: target for target in opened.outbox_targets()}
        if name not in targets:
            raise fail(f"no target of that name: {', '.join(targets) or 'there are none'}")
        found = targets[name]
        if action == "pause":
            opened.save_outbox_target(replace(found, state="paused"))
        elif action == "resume":
            opened.save_outbox_target(replace(found, state="ok", attempts=0, last_error=""))
        else:
            next_seq, spans = skipped(opened, found, everything=action == "skip-all")
            opened.save_outbox_target(
                replace(found, next_seq=next_seq, dropped=found.dropped + spans, attempts=0)
            )
            return spans
        return 0
    except CollectorError as error:
        raise fail(error) from error
    finally:
        opened.close()


def _ask(server: str, name: str, action: Action) -> int:
    try:
        answer = httpx.post(f"{server.rstrip('/')}{PATH}/{quote(name, safe='')}/{action}", timeout=TIMEOUT_S)
        document = answer.json()
        if answer.is_success:
            return int(document["skipped"])
        problem = str(document.get("error") or document)
    except (httpx.HTTPError, ValueError, KeyError, AttributeError) as error:
        problem = f"the store is in use, and no server answers at {server} ({type(error).__name__}): name it by --server"
        raise fail(problem) from error
    raise fail(problem)


# ---- the SDK's spool ------------------------------------------------------------------------------------


def import_(
    folder: Annotated[
        Path | None,
        typer.Argument(
            help="The spool; without it $TIERLIGHT_SPOOL, else where this user's applications keep it."
        ),
    ] = None,
    endpoint: Annotated[
        str,
        typer.Option(help="Base URL of the collector; also $OTEL_EXPORTER_OTLP_ENDPOINT."),
    ] = "",
    header: Annotated[
        list[str] | None,
        typer.Option(help="Header to send, as name=value, name=env:VARIABLE or name=file:PATH."),
    ] = None,
) -> None:
    """Send what applications could not, and kept; a file is deleted when the collector has all of it.

    Files that a living process writes or sends are left to it. Sending twice is harmless.
    """
    place = folder or spool_folder()
    if not place.is_dir():
        raise fail(f"there is no spool at {place}")
    url = (endpoint or os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or "http://127.0.0.1:4318").rstrip("/")
    lost: dict[str, int] = {}
    try:
        spool = Spool(place, lambda reason, count: lost.update({reason: lost.get(reason, 0) + count}))
        headers = dict(_header(each) for each in header or ())
    except (OSError, CollectorError) as error:
        raise fail(error) from error
    files = delivered = refused = 0
    problem = ""
    with httpx.Client(timeout=TIMEOUT_S, headers=headers, follow_redirects=False) as client:
        while not problem and (claim := spool.claim()) is not None:
            sent, rejected, problem = _send(client, url, claim)
            delivered, refused = delivered + sent, refused + rejected
            files += not problem
    typer.echo(f"{files:,} files, {delivered:,} spans and scores delivered, {refused:,} refused")
    for reason, count in lost.items():
        typer.echo(f"{count:,} dropped: {reason}", err=True)
    if problem:
        raise fail(f"{problem}: the rest stays in {place}", code=1)


def spool_folder() -> Path:
    """Where the SDK keeps what it cannot send, unless `configure()` says otherwise."""
    said = os.environ.get("TIERLIGHT_SPOOL", "").strip()
    if said and said.lower() not in ("0", "1", "true", "false", "yes", "no", "on", "off"):
        return Path(said)
    data = os.environ.get("TIERLIGHT_DATA_DIR", "").strip()
    return (Path(data) if data else data_folder()) / "spool"


def _send(client: httpx.Client, url: str, claim: Claim) -> tuple[int, int, str]:
    """Delivered, refused, and what stopped it ("" when the file is done with)."""
    delivered = refused = 0
    problem = ""
    while not problem and (body := claim.next()) is not None:
        try:
            answer = client.post(
                f"{url}/v1/{claim.signal}", content=body, headers={"content-type": "application/x-protobuf"}
            )
        except httpx.HTTPError as error:
            problem = f"{url} cannot be reached ({type(error).__name__})"
            break
        size = request_size(body)
        if answer.is_success:
            rejected = _rejected(answer.content)
            delivered, refused = delivered + size - rejected, refused + rejected
        elif answer.status_code in _NEVER:
            refused += size
        else:
            problem = f"{url} answered {answer.status_code}"
            break
        claim.passed(body)
    if problem:
        claim.release()
    else:
        claim.delete()
    return delivered, refused, problem


def _rejected(answer: bytes) -> int:
    try:
        return partial_success(answer)[0]
    except (ValueError, IndexError):
        return 0  # it was taken; what else it says is not OTLP


def _header(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise fail("expected --header name=value")
    return name.strip().lower(), read_secret(value)
