"""`tierlight up` and `tierlight demo`: the server, and the server with something to see."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from tierlight.errors import ConfigurationError
from tierlight_collector.errors import CollectorError
from tierlight_collector.stores import Retention

from ..configfile import read_configuration
from ..serve import ServeSettings, serve
from .options import (
    ForwardContentOption,
    ForwardHeaderOption,
    PricesOption,
    StoreOption,
    default_list,
    fail,
    forward_targets,
)

KEPT = Retention()
HostOption = Annotated[
    str, typer.Option(help="Address of all three ports; anything but loopback is refused.")
]
PortOption = Annotated[int, typer.Option(help="Dashboard and API.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.command()(up)
    app.command()(demo)


def up(
    store: StoreOption,
    host: HostOption = "127.0.0.1",
    http_port: Annotated[int, typer.Option(help="OTLP over HTTP.")] = 4318,
    grpc_port: Annotated[int, typer.Option(help="OTLP over gRPC.")] = 4317,
    port: PortOption = 4319,
    prices: PricesOption = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="A TOML file: who is told of alerts, what is masked, how routes are named, what is sent on."
        ),
    ] = None,
    forward: Annotated[
        list[str] | None,
        typer.Option(help="Send every accepted span on to this OTLP endpoint; may be repeated."),
    ] = None,
    forward_header: ForwardHeaderOption = None,
    forward_content: ForwardContentOption = False,
    content: Annotated[
        bool,
        typer.Option("--content", help="Store prompts and answers that senders captured; off by default."),
    ] = False,
    keep_content_days: Annotated[
        int | None,
        typer.Option(help=f"How long prompts and answers are kept; {KEPT.contents_days}.", min=1, max=36_500),
    ] = None,
    keep_span_days: Annotated[
        int | None,
        typer.Option(
            help=f"How long received spans are kept, to read them again; {KEPT.spans_days}.",
            min=1,
            max=36_500,
        ),
    ] = None,
    keep_call_days: Annotated[
        int | None,
        typer.Option(
            help=f"How long calls and scores are kept; {KEPT.calls_days}; sums stay for good.",
            min=1,
            max=36_500,
        ),
    ] = None,
    insecure_no_auth: Annotated[
        bool,
        typer.Option(
            "--insecure-no-auth", help="Listen beyond loopback without a login; every page says so."
        ),
    ] = False,
) -> None:
    """Collect OTLP, judge it, and serve the dashboard; one process, one file."""
    try:
        said = read_configuration(config)
        days = (keep_content_days, keep_span_days, keep_call_days)
        kept = {name: n for name, n in zip(asdict(KEPT), days, strict=True) if n is not None}
        settings = ServeSettings(
            store=store,
            host=host,
            http_port=http_port,
            grpc_port=grpc_port,
            port=port,
            prices=prices,
            list_prices=default_list(),
            content=content,
            targets=(*said.targets, *forward_targets(forward, forward_header, forward_content)),
            insecure=insecure_no_auth,
            notifications=said.notifications,
            redaction=said.redaction,
            rules=said.rules,
            retention=Retention(**kept),
            fixed_days=tuple(kept),
            config=config,
        )
        asyncio.run(serve(settings))
    except (CollectorError, ConfigurationError) as error:
        raise fail(error) from error
    except OSError as error:
        raise fail(f"cannot start: {error.strerror or error} (another server on this port?)") from error


def demo(
    port: PortOption = 4319,
    http_port: Annotated[int, typer.Option(help="OTLP over HTTP.")] = 4318,
    tickets: Annotated[int, typer.Option(help="Support tickets a day.", min=20, max=5_000)] = 500,
    seed: Annotated[int, typer.Option(help="The same seed plays the same week.")] = 7,
    once: Annotated[
        bool, typer.Option("--once", help="Stop when the data is in, and print what was found.")
    ] = False,
) -> None:
    """Play a week of a customer-support app through the real SDK into a temporary store, and show it."""
    from ..demo import play

    try:
        play(port=port, http_port=http_port, tickets_per_day=tickets, seed=seed, once=once)
    except (CollectorError, ConfigurationError) as error:
        raise fail(error) from error
    except OSError as error:
        raise fail(f"cannot start: {error.strerror or error} (another server on this port?)") from error
