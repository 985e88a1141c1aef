"""The app that the command line runs, put together from its groups of commands."""

from __future__ import annotations

import typer

from tierlight import __version__

from . import data, delivery, facts, invoices, judge, prices, routing, run, transfer

app = typer.Typer(
    name="tierlight",
    help="A light per route: what each kind of LLM call costs, whether its quality holds, which tier it needs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and stop."
    ),
) -> None:
    """Options of every command."""


for group in (run, facts, judge, prices, invoices, data, transfer, delivery, routing):
    group.register(app)
