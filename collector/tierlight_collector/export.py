"""What the store holds, written out as a stream: raw spans as OTLP, calls as JSON lines, CSV or Parquet.

Nothing here holds captured text. OTLP lines and JSON lines can be imported again; see `importing`.
"""

from __future__ import annotations

import base64
import csv
import io
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from importlib import import_module
from itertools import groupby
from typing import IO, Any, Final, Literal, get_type_hints

import orjson

from tierlight import semconv as s

from .errors import CollectorError
from .records import Attributes, AttributeValue, CallRecord, CallRow, Filters, ScoreRecord, SpanRecord
from .shapes import call_json
from .stores.protocol import FactStore

ExportFormat = Literal["otlp-json", "jsonl", "csv", "parquet"]
PAGE: Final = 500
_REMEMBERED: Final = (
    100_000  # traces that were written: one that comes up again after so many is written twice
)
_COLUMNS: Final = tuple(spec.name for spec in fields(CallRecord))
_SHOWN: Final = ("started_at", "cost_usd", "latency_ms", "ttft_ms")  # beside the exact columns, for people
_HINTS: Final = get_type_hints(CallRecord)
_WIDEST: Final = 2**63


class ParquetMissing(CollectorError):
    """Parquet needs a package that is not installed; the message says which."""


def export(
    store: FactStore,
    out: IO[bytes],
    format: ExportFormat,
    *,
    since_ns: int = 0,
    routes: Sequence[str] = (),
    progress: Callable[[int], None] | None = None,
) -> int:
    """Write what began at or after `since_ns` (of these routes, where any are named); gives the number written.

    `otlp-json` writes every received span, with its trace's others where routes are named, one request a line, then the
    scores; the other formats write the calls that count, all purposes, oldest first.

    Raises:
        ParquetMissing: the format needs pyarrow.
    """
    written = 0

    def count(n: int) -> None:
        nonlocal written
        written += n
        if progress is not None:
            progress(written)

    if format == "otlp-json":
        for spans in _span_pages(store, since_ns, routes):
            out.write(orjson.dumps({"resourceSpans": _resource_spans(spans)}) + b"\n")
            count(len(spans))
        for rows in call_pages(store, since_ns, routes):
            if logs := _resource_logs(score for row in rows for score in row.scores):
                out.write(orjson.dumps({"resourceLogs": logs}) + b"\n")
        return written
    pages = call_pages(store, since_ns, routes)
    write = {"jsonl": _write_jsonl, "csv": _write_csv, "parquet": _write_parquet}[format]
    write(out, pages, count)
    return written


def call_pages(store: FactStore, since_ns: int, routes: Sequence[str]) -> Iterator[tuple[CallRow, ...]]:
    """The calls that count, oldest first."""
    where = Filters(purpose=(), route=tuple(routes), start_ns=since_ns)
    after = None
    while True:
        page = store.calls(where, after=after, limit=PAGE, descending=False)
        yield page.rows
        if page.next is None:
            return
        after = page.next


def row_json(row: CallRow) -> dict[str, Any]:
    """A call with every column: the public keys, and beside them the exact ones it is stored by."""
    call = row.call
    columns = {name: _plain(getattr(call, name)) for name in _COLUMNS}
    scores = [_score(score) for score in row.scores]
    return {**call_json(row), **columns, **({"scores": scores} if scores else {})}


def _plain(value: object) -> Any:
    if isinstance(value, bytes):
        return value.hex() or None
    if isinstance(value, tuple):
        return list(value)
    return None if value == "" else value


def _score(score: ScoreRecord) -> dict[str, Any]:
    names = ("name", "value", "source", "kind", "time_ns", "label", "evaluator_version", "weight")
    return {name: _plain(getattr(score, name)) for name in names}


# ---- calls ----------------------------------------------------------------------------------------------


def _write_jsonl(out: IO[bytes], pages: Iterable[Sequence[CallRow]], count: Callable[[int], None]) -> None:
    for rows in pages:
        out.write(b"".join(orjson.dumps(row_json(row)) + b"\n" for row in rows))
        count(len(rows))


def _write_csv(out: IO[bytes], pages: Iterable[Sequence[CallRow]], count: Callable[[int], None]) -> None:
    names = (*_SHOWN, *_COLUMNS)
    text = io.TextIOWrapper(out, encoding="utf-8", newline="", write_through=True)
    try:
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(names)
        for rows in pages:
            for row in rows:
                shaped = row_json(row)
                writer.writerow([_cell(shaped[name]) for name in names])
            count(len(rows))
    finally:
        text.detach()  # the file is the caller's to close


def _cell(value: Any) -> Any:
    """Unknown is empty; text that a spreadsheet would take for a formula gets a leading apostrophe."""
    if value is None:
        return ""
    if isinstance(value, list):
        return " ".join(value)
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return "'" + value
    return value


def _write_parquet(out: IO[bytes], pages: Iterable[Sequence[CallRow]], count: Callable[[int], None]) -> None:
    try:
        pa: Any = import_module("pyarrow")
        pq: Any = import_module("pyarrow.parquet")
    except ImportError as error:
        raise ParquetMissing(
            "parquet needs pyarrow: pip install pyarrow, or export jsonl or csv instead"
        ) from error
    kinds = {
        int: pa.int64(),
        float: pa.float64(),
        bool: pa.bool_(),
    }

    def kind_of(name: str) -> Any:
        hint = _HINTS[name]
        parts = getattr(hint, "__args__", (hint,))
        return next((kinds[part] for part in parts if part in kinds), pa.string())

    columns = [(name, pa.list_(pa.string()) if name == "flags" else kind_of(name)) for name in _COLUMNS]
    schema = pa.schema([("cost_usd", pa.float64()), *columns])
    with pq.ParquetWriter(out, schema, compression="zstd") as writer:
        for rows in pages:
            if rows:
                shaped = [row_json(row) for row in rows]
                writer.write_table(pa.Table.from_pylist(shaped, schema=schema))
            count(len(rows))


# ---- spans as OTLP --------------------------------------------------------------------------------------


def _span_pages(store: FactStore, since_ns: int, routes: Sequence[str]) -> Iterator[list[SpanRecord]]:
    if routes:
        yield from _trace_pages(store, since_ns, routes)
        return
    after = 0
    while found := store.raw_spans(after, PAGE):
        after = found[-1][0]
        spans = [span for _, span in found if span.start_ns >= since_ns]
        if spans:
            yield spans


def _trace_pages(store: FactStore, since_ns: int, routes: Sequence[str]) -> Iterator[list[SpanRecord]]:
    """Whole traces of the calls under these routes: a call's route may stand on its parent."""
    seen: OrderedDict[bytes, None] = OrderedDict()
    for rows in call_pages(store, since_ns, routes):
        for row in rows:
            trace_id = row.call.trace_id
            if trace_id in seen:
                continue
            seen[trace_id] = None
            if len(seen) > _REMEMBERED:
                seen.popitem(last=False)
            spans = store.trace(trace_id, 2_000, row.call.project)
            if spans:
                yield spans


def _resource_spans(spans: Iterable[SpanRecord]) -> list[dict[str, Any]]:
    """Neighbours of one resource and scope share their group."""
    groups: list[dict[str, Any]] = []
    for resource, of_resource in groupby(spans, lambda span: span.resource):
        scopes = [
            {
                "scope": {"name": scope, "version": version},
                "spans": [_span(span) for span in of_scope],
            }
            for (scope, version), of_scope in groupby(
                of_resource, lambda span: (span.scope, span.scope_version)
            )
        ]
        groups.append({"resource": {"attributes": _attributes(resource.attributes)}, "scopeSpans": scopes})
    return groups


def _span(span: SpanRecord) -> dict[str, Any]:
    shaped: dict[str, Any] = {
        "traceId": span.trace_id.hex(),
        "spanId": span.span_id.hex(),
        "name": span.name,
        "kind": span.kind,
        "startTimeUnixNano": str(span.start_ns),
        "endTimeUnixNano": str(span.end_ns),
        "attributes": _attributes(span.attributes),
        "status": {"code": span.status_code, "message": span.status_message},
    }
    if span.parent_span_id:
        shaped["parentSpanId"] = span.parent_span_id.hex()
    if span.events:
        shaped["events"] = [
            {
                "name": event.name,
                "timeUnixNano": str(event.time_ns),
                "attributes": _attributes(event.attributes),
            }
            for event in span.events
        ]
    return shaped


def _attributes(attributes: Attributes) -> list[dict[str, Any]]:
    return [{"key": key, "value": _value(value)} for key, value in attributes.items()]


def _value(value: AttributeValue) -> dict[str, Any]:
    if value is None:
        return {}
    if isinstance(value, str):
        return {"stringValue": value}
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)} if -_WIDEST <= value < _WIDEST else {"stringValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, bytes):
        return {"bytesValue": base64.b64encode(value).decode("ascii")}
    if isinstance(value, Mapping):
        return {"kvlistValue": {"values": _attributes(value)}}
    return {"arrayValue": {"values": [_value(each) for each in value]}}


def _resource_logs(scores: Iterable[ScoreRecord]) -> list[dict[str, Any]]:
    records = [
        {
            "timeUnixNano": str(score.time_ns),
            "eventName": s.EVENT_EVALUATION_RESULT,
            "traceId": score.trace_id.hex(),
            "spanId": score.span_id.hex(),
            "attributes": _attributes(
                {
                    s.GEN_AI_EVALUATION_NAME: score.name,
                    s.TIERLIGHT_SCORE_KIND: score.kind,
                    s.TIERLIGHT_SCORE_SOURCE: score.source,
                    s.TIERLIGHT_SCORE_WEIGHT: score.weight,
                    **({s.GEN_AI_EVALUATION_SCORE_LABEL: score.label} if score.label else {}),
                    **(
                        {s.TIERLIGHT_SCORE_JUDGE_VERSION: score.evaluator_version}
                        if score.evaluator_version
                        else {}
                    ),
                    # An evaluation that failed or abstained has no value, and says so.
                    **(
                        {s.GEN_AI_EVALUATION_SCORE_VALUE: score.value}
                        if score.value is not None
                        else {s.ERROR_TYPE: "abstained"}
                    ),
                }
            ),
        }
        for score in scores
    ]
    return (
        [{"resource": {}, "scopeLogs": [{"scope": {"name": s.SCOPE}, "logRecords": records}]}]
        if records
        else []
    )
