"""`tierlight export | import | renormalise | purge`: calls out, calls in, calls read again, texts forgotten."""

from __future__ import annotations

import contextlib
import getpass
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from tierlight.errors import ConfigurationError
from tierlight_collector import renormalise as rereading
from tierlight_collector.costing import Costing
from tierlight_collector.errors import CollectorError
from tierlight_collector.export import export as write_out
from tierlight_collector.importing import import_file
from tierlight_collector.prices import open_book
from tierlight_collector.stores.files import path_of_url

from ..configfile import Configuration, read_configuration
from .facts import RouteOption, SinceOption, since_ns
from .options import (
    ConfigOption,
    FormatOption,
    PricesOption,
    StoreOption,
    default_list,
    fail,
    reading,
    writing,
)
from .output import Format, emit


class ExportFormat(StrEnum):
    """What `tierlight export --format` takes."""

    otlp_json = "otlp-json"
    jsonl = "jsonl"
    csv = "csv"
    parquet = "parquet"


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.command()(export)
    app.command("import")(import_)
    app.command()(renormalise)
    app.command()(purge)


def export(
    store: StoreOption,
    format: Annotated[
        ExportFormat,
        typer.Option(help="otlp-json: every received span; the others: calls. parquet needs pyarrow."),
    ] = ExportFormat.jsonl,
    since: SinceOption = "",
    route: RouteOption = None,
    out: Annotated[
        Path | None, typer.Option(help="A new file; without it to standard output.", dir_okay=False)
    ] = None,
) -> None:
    """Write calls or spans to a file, without prompts and answers, also while a server runs."""
    if out is not None and out.exists():
        raise fail(f"{out} exists: name a new file")
    try:
        with reading(store) as opened, _written(out) as file:
            count = write_out(
                opened,
                file,
                format.value,
                since_ns=since_ns(since),
                routes=tuple(route or ()),
            )
    except BrokenPipeError:
        raise typer.Exit(0) from None  # the reader has seen enough
    except (CollectorError, OSError) as error:
        raise fail(error) from error
    if out is not None:
        what = "spans" if format is ExportFormat.otlp_json else "calls"
        typer.echo(f"{out}: {count:,} {what}, {out.stat().st_size:,} bytes")


@contextlib.contextmanager
def _written(out: Path | None) -> Iterator[IO[bytes]]:
    """Standard output, or a file that appears under its name when it is whole."""
    if out is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    partial = out.with_name(f".{out.name}.partial")
    try:
        with partial.open("wb") as file:
            partial.chmod(0o600)
            yield file
        partial.rename(out)
    finally:
        partial.unlink(missing_ok=True)


def import_(
    file: Annotated[
        Path, typer.Argument(help="OTLP (JSON lines, protobuf), an export of tierlight, LiteLLM or Langfuse.")
    ],
    store: StoreOption,
    prices: PricesOption = None,
    config: ConfigOption = None,
) -> None:
    """Store what a file tells of, as if it had been sent; what is there already changes nothing.

    The file may be gzipped and may be imported again. Stop the server first: one process writes a store.
    """
    costing = _costing(prices)
    said = _configuration(config)
    with writing(store, said.rules) as opened:
        try:
            done = import_file(
                opened,
                file,
                costing,
                progress=_progress("read"),
                redaction=said.redaction,
                rules=said.rules,
            )
        except (CollectorError, OSError) as error:
            raise fail(error) from error
    typer.echo(
        f"{done.spans:,} spans ({done.calls:,} calls) and {done.scores:,} scores read: {done.accepted:,} stored,"
        f" {done.duplicates:,} were there already, {done.rejected:,} refused"
    )
    for reason, count in done.reasons.most_common():
        typer.echo(f"  {count:,} × {reason}", err=True)
    if done.rejected and not done.spans and not done.scores:
        raise typer.Exit(1)


def renormalise(
    store: StoreOption,
    format: FormatOption = Format.table,
    since: SinceOption = "",
    route: RouteOption = None,
    prices: PricesOption = None,
    config: ConfigOption = None,
    write: Annotated[
        bool, typer.Option("--apply/--dry-run", help="Write what is read differently; a dry run only looks.")
    ] = False,
) -> None:
    """Read the stored spans again by this version's rules and correct the calls that are read differently.

    Also after the names of routes were changed in the configuration file.

    Without --apply nothing changes: it works on a copy, which needs as much room as the store. Costs stay as they
    were, unless a call's model or usage is read differently; then its old cost is kept as history.
    """
    costing = _costing(prices)
    rules = _configuration(config).rules
    choice: dict[str, Any] = {"since_ns": since_ns(since), "routes": tuple(route or ())}
    try:
        if write:
            with writing(store, rules) as opened:
                report = rereading.apply(opened, costing, progress=_progress("read"), **choice)
        else:
            report = rereading.look(path_of_url(store), costing, rules=rules, **choice)
    except (CollectorError, ValueError, OSError) as error:
        raise fail(error) from error
    rows = [{"column": name, "calls": count} for name, count in report.columns.most_common()]
    emit(rows, ("column", "calls"), format, empty="Every call is read as before.")
    if format is Format.table:
        typer.echo(
            f"{report.changed:,} of {report.calls:,} calls {'changed' if write else 'would change'}"
            f" ({report.spans:,} spans read, {report.gone:,} no longer kept)"
        )


def purge(
    store: StoreOption,
    span: Annotated[str, typer.Option(help="Of this call, as TRACE_ID/SPAN_ID in hex.")] = "",
    user: Annotated[str, typer.Option(help="Of this user's calls.")] = "",
    route: Annotated[str, typer.Option(help="Of this route's calls.")] = "",
    before: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Of calls before this day, UTC.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete the captured prompts and answers of the calls that fit all options; calls, scores and sums stay.

    Nothing of the texts is left in the file; the audit keeps who did it, when and why. Stop the server first.
    """
    chosen: Mapping[str, Any] = {
        "span": _span(span) if span else None,
        "user": user,
        "route": route,
        "before_ns": 0 if before is None else int(before.replace(tzinfo=UTC).timestamp()) * 1_000_000_000,
    }
    if not any(chosen.values()):
        raise fail("say what to purge: --span, --user, --route or --before")
    if not yes:
        typer.confirm("Delete these texts for good?", abort=True)
    with writing(store) as opened:
        try:
            purged = opened.purge(**chosen, who=_who())
        except CollectorError as error:
            raise fail(error) from error
    typer.echo(f"the texts of {purged:,} calls are gone")


def _span(text: str) -> tuple[bytes, bytes]:
    trace, _, span = text.partition("/")
    try:
        ids = bytes.fromhex(trace), bytes.fromhex(span)
    except ValueError:
        ids = b"", b""
    if (len(ids[0]), len(ids[1])) != (16, 8):
        raise fail("expected --span as 32 hex digits, a slash and 16 hex digits")
    return ids


def _who() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container without a user of that number
        return "command line"


def _configuration(config: Path | None) -> Configuration:
    try:
        return read_configuration(config)
    except (ConfigurationError, CollectorError) as error:
        raise fail(error) from error


def _costing(prices: Path | None) -> Costing:
    try:
        return Costing(open_book(prices, default_list()))
    except (ConfigurationError, OSError) as error:
        raise fail(error) from error


def _progress(verb: str) -> Any:
    """Says now and then how far it is, to a person who watches."""

    def say(count: int) -> None:
        if count % 50_000 < 500 and sys.stderr.isatty():
            typer.echo(f"{count:,} {verb} ...", err=True)

    return say
