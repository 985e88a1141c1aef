"""`tierlight backup | restore | conformance | doctor`: care for the store and the collector."""

from __future__ import annotations

import os
import platform
import sqlite3
from pathlib import Path
from typing import Annotated

import typer

from tierlight import __version__
from tierlight_collector.conformance import run_conformance
from tierlight_collector.errors import CollectorError
from tierlight_collector.stores.backup import back_up
from tierlight_collector.stores.backup import restore as put_back
from tierlight_collector.stores.files import path_of_url

from .options import FormatOption, StoreOption, fail
from .output import Format, emit

# Below it SQLite may damage a file that two connections checkpoint at once; one writer avoids that, others may not.
SAFE_SQLITE = (3, 51, 3)
SECRETS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "OTEL_EXPORTER_OTLP_HEADERS")


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    for command in (backup, restore, conformance, doctor):
        app.command()(command)


def backup(target: Annotated[Path, typer.Argument(help="A new file.")], store: StoreOption) -> None:
    """Write a consistent copy of the store, also while a server runs."""
    try:
        back_up(path_of_url(store), target)
    except (CollectorError, ValueError, OSError) as error:
        raise fail(error) from error
    typer.echo(f"{target}: {target.stat().st_size:,} bytes")


def restore(copy: Annotated[Path, typer.Argument(help="A backup.")], store: StoreOption) -> None:
    """Put a backup in the place of the store; the old file is kept beside it. Stop the server first."""
    try:
        moved = put_back(copy, path_of_url(store))
    except (CollectorError, ValueError, OSError) as error:
        raise fail(error) from error
    typer.echo("restored" + (f"; the old file is {moved}" if moved else ""))


def conformance(
    url: Annotated[
        str, typer.Argument(help="Base URL of an OTLP/HTTP endpoint, such as http://127.0.0.1:4318.")
    ],
    format: FormatOption = Format.table,
) -> None:
    """Ask an OTLP/HTTP endpoint every question of the specification; exit 1 when an answer is wrong."""
    results = run_conformance(url)
    rows = [
        {
            "case": result.case,
            "passed": result.passed,
            "status": result.status,
            "problem": result.note or None,
        }
        for result in results
    ]
    emit(rows, ("case", "passed", "status", "problem"), format, empty="no cases")
    raise typer.Exit(0 if all(result.passed for result in results) else 1)


def doctor(store: StoreOption) -> None:
    """Say what this installation stands on, and what about it is doubtful. Never prints a secret."""
    path = path_of_url(store)
    version = tuple(int(part) for part in sqlite3.sqlite_version.split("."))
    typer.echo(f"tierlight  {__version__}, Python {platform.python_version()}")
    old = "" if version >= SAFE_SQLITE else "  (below 3.51.3: let no other program write this file)"
    typer.echo(f"sqlite     {sqlite3.sqlite_version}{old}")
    typer.echo(f"store      {path}: {f'{path.stat().st_size:,} bytes' if path.exists() else 'not there yet'}")
    for name in SECRETS:
        typer.echo(f"{name:28} {'set' if os.environ.get(name) else 'not set'}")
