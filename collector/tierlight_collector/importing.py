"""A file of somebody's telemetry, stored as if it had been sent: decoded, normalised, priced, appended.

The file is read as a stream and stored a few hundred spans at a time. A span that is there already changes nothing, so
a file can be imported again, also after it was interrupted.
"""

from __future__ import annotations

import gzip
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, Final

import orjson

from .costing import Costing
from .decode import MediaType, decode_logs, decode_traces
from .errors import BadRequest, InvalidRecord
from .foreign import read_line
from .limits import IngestLimits
from .normalise import PLAIN_RULES, RouteRules, normalise, normalise_log
from .records import HOUR_NS, Batch, NormalisedSpan, ScoreRecord, SpanRecord
from .redaction import Redaction
from .stores.protocol import CallSink

BATCH: Final = 500
MAX_REASONS: Final = 20
_LIMITS: Final = replace(IngestLimits(), spans=1_000_000)
_JSON_STARTS: Final = (b"{", b"[", b" ", b"\t", b"\r", b"\xef\xbb\xbf")
_BOM: Final = b"\xef\xbb\xbf"
Progress = Callable[[int], None]
_Item = SpanRecord | ScoreRecord | str  # a text says why something was refused


@dataclass(slots=True)
class Imported:
    """What an import came to; `reasons` counts what was refused by why, as far as they are few."""

    spans: int = 0
    calls: int = 0
    scores: int = 0
    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0
    reasons: Counter[str] = field(default_factory=Counter)


def import_file(
    store: CallSink,
    path: Path,
    costing: Costing,
    *,
    clock_ns: Callable[[], int] = time.time_ns,
    horizon_days: int = _LIMITS.horizon_days,
    progress: Progress | None = None,
    redaction: Redaction | None = None,
    rules: RouteRules = PLAIN_RULES,
) -> Imported:
    """Store what the file holds. It may be gzipped, and its content says what it is:

    JSON lines (or one JSON document) of OTLP requests, of calls as `tierlight export` writes them, of LiteLLM's
    logs, of Langfuse's observations and scores; or protobuf, one OTLP request or many with their lengths.

    Args:
        horizon_days: older spans are refused; the number of days for which calls are kept.
        progress: Called after each batch with the number of spans and scores read.
        redaction: masks what is stored; without one, the patterns of the SDK do.
        rules: how the project names its routes; those that the store was opened with.

    Raises:
        OSError: the file can't be read.
        BadRequest: it is none of these.
        StoreError: the store can't take it; what came before is stored.
    """
    done = Imported()
    redaction = redaction or Redaction()
    spans: list[NormalisedSpan] = []
    scores: list[ScoreRecord] = []
    arrived_ns = clock_ns()
    oldest_ns = arrived_ns - horizon_days * 24 * HOUR_NS

    def flush() -> None:
        if spans or scores:
            appended = store.append(Batch(tuple(spans), tuple(scores), arrived_ns=arrived_ns))
            done.accepted += appended.accepted
            done.duplicates += appended.duplicates
            spans.clear()
            scores.clear()
            if progress is not None:
                progress(done.spans + done.scores)

    def refuse(reason: str) -> None:
        done.rejected += 1
        if reason in done.reasons or len(done.reasons) < MAX_REASONS:
            done.reasons[reason] += 1

    with _opened(path) as file:
        for item in _items(file):
            if isinstance(item, str):
                refuse(item)
            elif isinstance(item, ScoreRecord):
                scores.append(replace(item, explanation=redaction.text(item.explanation)))
                done.scores += 1
            elif item.start_ns < oldest_ns:
                refuse(f"began more than {horizon_days} days ago: the server would forget it at once")
            else:
                (item,), _ = redaction.spans([item], content=False)
                read = normalise(item, arrived_ns, rules=rules)
                if read.call is not None:
                    costing.fill(read.call)
                    done.calls += 1
                spans.append(read)
                done.spans += 1
            if len(spans) + len(scores) >= BATCH:
                flush()
    flush()
    return done


def _opened(path: Path) -> IO[bytes]:
    with path.open("rb") as raw:
        is_gzip = raw.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if is_gzip else path.open("rb")  # type: ignore[return-value]


def _items(file: IO[bytes]) -> Iterator[_Item]:
    head = file.read(4)
    file.seek(0)
    if not head:
        return
    if head.startswith(_JSON_STARTS):
        yield from _json_items(file)
    else:
        for message in _messages(file, is_framed=head[0] == 0):
            if message is None:
                yield "the file ends within a message"
            else:
                yield from _otlp(message, "protobuf")


# ---- JSON -----------------------------------------------------------------------------------------------


def _json_items(file: IO[bytes]) -> Iterator[_Item]:
    """Line by line; a first line that is no JSON by itself begins one document over many lines."""
    is_first = True
    while line := file.readline(_LIMITS.body_bytes + 1):
        if len(line) > _LIMITS.body_bytes:
            raise BadRequest(f"a line has more than {_LIMITS.body_bytes} bytes")
        text = line.removeprefix(_BOM).strip()
        if not text:
            continue
        try:
            loaded = orjson.loads(text)
        except orjson.JSONDecodeError:
            if is_first:
                yield from _document(line + file.read(_LIMITS.body_bytes + 1))
                return
            yield "a line that is no JSON"
            continue
        is_first = False
        for each in _lines_of(loaded):
            yield from _line(each, text)


def _document(text: bytes) -> Iterator[_Item]:
    if len(text) > _LIMITS.body_bytes:
        raise BadRequest(
            f"a JSON document has more than {_LIMITS.body_bytes} bytes: write it as one object a line"
        )
    try:
        loaded = orjson.loads(text.removeprefix(_BOM))
    except orjson.JSONDecodeError as error:
        raise BadRequest("expected JSON lines or OTLP protobuf, got neither") from error
    for each in _lines_of(loaded):
        yield from _line(each, b"")


def _lines_of(loaded: Any) -> Iterable[Any]:
    """The objects of a list, or of a page of an API (`{"data": [...]}`); else the object itself."""
    if isinstance(loaded, list):
        return loaded
    if isinstance(loaded, dict) and isinstance(loaded.get("data"), list):
        data: list[Any] = loaded["data"]
        return data
    return (loaded,)


def _line(line: Any, text: bytes) -> Iterator[_Item]:
    if not isinstance(line, dict):
        yield "a line that is no JSON object"
        return
    if "resourceSpans" in line or "resourceLogs" in line:
        yield from _otlp(text or orjson.dumps(line), "json")
        return
    try:
        read = read_line(line)
    except InvalidRecord as error:
        yield str(error)
    except (TypeError, ValueError, OverflowError):
        yield "a line with a value of an unexpected kind"
    else:
        yield from read.spans
        yield from read.scores


# ---- OTLP -----------------------------------------------------------------------------------------------


def _otlp(body: bytes, media_type: MediaType) -> Iterator[_Item]:
    """Spans and evaluation results; protobuf does not say which of the two a message is, its ids do."""
    try:
        decoded = decode_traces(body, media_type, limits=_LIMITS)
    except BadRequest as error:
        yield str(error)
        return
    found: list[_Item] = list(decoded.spans)
    if media_type == "json" or not decoded.spans:
        try:
            logs = decode_logs(body, media_type, limits=_LIMITS).logs
        except BadRequest:
            logs = []
        scores = [score for score in map(normalise_log, logs) if score is not None]
        found += scores
        if scores and media_type == "protobuf":  # its records were no spans without ids
            yield from found
            return
    yield from found
    yield from decoded.rejected


def _messages(file: IO[bytes], *, is_framed: bool) -> Iterator[bytes | None]:
    """One message, or many that each follow their length in 4 bytes (the OTel Collector's file exporter).

    None for a last one that is cut off.
    """
    limit = _LIMITS.body_bytes
    if not is_framed:
        message = file.read(limit + 1)
        if len(message) > limit:
            raise BadRequest(f"one OTLP message of more than {limit} bytes: export in smaller ones")
        yield message
        return
    while head := file.read(4):
        size = int.from_bytes(head)
        if size > limit:
            raise BadRequest(f"a message of {size} bytes, the limit is {limit}: this is no OTLP file")
        message = file.read(size)
        if len(head) < 4 or len(message) < size:
            yield None
            return
        yield message
