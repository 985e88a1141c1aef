"""Options that several commands share, and how they open the store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from tierlight_collector.errors import CollectorError
from tierlight_collector.forward import ForwardTarget
from tierlight_collector.normalise import PLAIN_RULES, RouteRules
from tierlight_collector.stores import KEEP_ALL, open_store
from tierlight_collector.stores.protocol import Store

from .output import Format


def data_folder() -> Path:
    """Where files are kept that no option names."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "tierlight"


def default_store() -> str:
    """$TIERLIGHT_STORE, or one file in the user's data folder."""
    return os.environ.get("TIERLIGHT_STORE") or f"sqlite:///{data_folder() / 'tierlight.db'}"


def default_list() -> Path:
    """Where fetched list prices are kept."""
    return data_folder() / "prices.json"


StoreOption = Annotated[
    str, typer.Option("--store", help="sqlite:///FILE; also $TIERLIGHT_STORE.", default_factory=default_store)
]
PricesOption = Annotated[
    Path | None, typer.Option("--prices", help="Own prices (TOML), asked before the list prices.")
]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="The server's configuration (TOML): masks, names of routes.")
]
FormatOption = Annotated[Format, typer.Option("--format", help="How to print.")]
ForwardHeaderOption = Annotated[
    list[str] | None,
    typer.Option(help="Header for the forwarding, as name=value, name=env:VARIABLE or name=file:PATH."),
]
ForwardContentOption = Annotated[
    bool, typer.Option("--forward-content", help="Forward captured texts too; off by default.")
]


def forward_targets(
    endpoints: list[str] | None, headers: list[str] | None, content: bool
) -> tuple[ForwardTarget, ...]:
    """The targets that `--forward` and `--forward-header` name: `target-1`, `target-2` and so on."""
    pairs = {}
    for header in headers or ():
        name, equals, value = header.partition("=")
        if not equals or not name:
            raise fail("expected --forward-header name=value")
        pairs[name.strip().lower()] = value
    return tuple(
        ForwardTarget(f"target-{number}", endpoint, headers=pairs, content=content)
        for number, endpoint in enumerate(endpoints or (), 1)
    )


@contextmanager
def reading(url: str) -> Iterator[Store]:
    """The store of `url` for reading, also while a server writes to it; an error ends the command with 2."""
    try:
        store = open_store(url, read_only=True)
    except (CollectorError, ValueError) as error:
        raise fail(error) from error
    try:
        yield store
    finally:
        store.close()


@contextmanager
def writing(url: str, rules: RouteRules = PLAIN_RULES) -> Iterator[Store]:
    """The store of `url` for writing; refused while another process holds it. Deletes nothing for its age."""
    try:
        store = open_store(url, retention=KEEP_ALL, rules=rules)
    except (CollectorError, ValueError) as error:
        raise fail(error) from error
    try:
        yield store
    finally:
        store.close()


def fail(what: str | Exception, code: int = 2) -> typer.Exit:
    """Print what went wrong to standard error; `raise` what this gives."""
    if isinstance(what, OSError) and what.filename and what.strerror:
        what = f"{what.filename}: {what.strerror}"
    typer.echo(f"tierlight: {what}", err=True)
    return typer.Exit(code)
