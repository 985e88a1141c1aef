"""One request's bytes become durable rows, or nothing: inflate, decode, normalise, price, submit, wait for COMMIT.

Both servers (HTTP and gRPC) end here. The work on the bytes runs in two threads, never on the event loop; the answer
waits for the commit; nothing of a request is kept in memory after it. A request that fails at any step before the
commit has changed nothing.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from isal import isal_zlib
from isal.igzip_lib import IsalError

from .answers import Signal
from .costing import Costing
from .decode import Decoded, MediaType, count_metrics, decode_logs, decode_traces
from .errors import BadRequest, InvalidRecord, StoreBusy, StoreError, TooLarge, UnsupportedMedia
from .limits import MIB, IngestLimits
from .normalise import PLAIN_RULES, RouteRules, failure_of_log, normalise, normalise_log
from .payload import Payload, seal
from .records import Appended, Batch, CallFailure, NormalisedSpan, ScoreRecord, SpanRecord
from .redaction import Redaction
from .stores.protocol import CallSink

logger = logging.getLogger("tierlight.collector")

METRICS_NOTE: Final = "tierlight does not store metrics: calls, tokens and costs come from the spans"
MAX_HOPS: Final = 4
_WINDOW_BITS: Final = {"gzip": 31, "deflate": 15}
_INFLATE_STEP: Final = 4 * MIB
_LARGE_BODY: Final = 8 * MIB


class Counters:
    """Counts by name since the start, safe to add to from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}

    def add(self, name: str, n: int = 1) -> None:
        if n:
            with self._lock:
                self._counts[name] = self._counts.get(name, 0) + n

    def snapshot(self) -> Mapping[str, int]:
        with self._lock:
            return dict(self._counts)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one accepted request; `message` is for the sender and "" when there is nothing to say."""

    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0
    message: str = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request, or a part of one, that was not taken: when, which, with what answer, and why; holds no data."""

    at_ns: int
    signal: Signal
    answer: str
    reason: str


@dataclass(frozen=True, slots=True)
class _Prepared:
    batch: Batch
    rejected: int = 0
    message: str = ""


def inflate(body: bytes, encoding: str, limit: int) -> bytes:
    """The body as it was before `encoding` ("", identity, gzip, deflate), read as a stream and cut off at `limit`.

    Raises:
        UnsupportedMedia: another encoding, or several.
        TooLarge: more than `limit` bytes come out; at most `limit` of them were ever held.
        BadRequest: the stream is damaged, ends early or goes on after its end.
    """
    name = encoding.strip().lower()
    if name in ("", "identity"):
        if len(body) > limit:
            raise TooLarge(f"the body has {len(body)} bytes, the limit is {limit}")
        return body
    window_bits = _WINDOW_BITS.get(name)
    if window_bits is None:
        raise UnsupportedMedia("expected content encoding gzip, deflate or identity")
    pieces: list[bytes] = []
    room = limit
    rest = body
    try:
        while True:
            stream = isal_zlib.decompressobj(window_bits)
            while not stream.eof:
                piece = stream.decompress(rest, min(_INFLATE_STEP, room + 1))
                room -= len(piece)
                if room < 0:
                    raise TooLarge(f"the body has more than {limit} bytes once decompressed")
                rest = stream.unconsumed_tail
                if piece:
                    pieces.append(piece)
                elif not rest and not stream.eof:
                    raise BadRequest(f"the {name} body ends early")
            rest = stream.unused_data
            if not rest:
                break
            if name != "gzip":
                raise BadRequest(f"the {name} body goes on after its end")
    except IsalError as error:  # type: ignore[misc]  # its stub declares an instance
        raise BadRequest(f"the body is not {name}, as its content encoding says") from error
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class Admission:
    """How much is being worked on: requests and bytes between the first byte read and the answer.

    Used on the event loop alone, so plain numbers will do. `retry_after_s` tells a refused sender when what is in
    flight will be gone at the measured rate.
    """

    def __init__(self, limits: IngestLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self.requests = 0
        self.bytes = 0
        self._drained = 0.0  # decaying sum of bytes and of seconds, for the rate
        self._seconds = 0.0
        self._since = clock()

    @contextmanager
    def request(self) -> Iterator[Lease]:
        """Hold a place for one request; what its lease grew to is given back at the end.

        Raises:
            StoreBusy: all places are taken.
        """
        if self.requests >= self._limits.concurrent_requests:
            raise StoreBusy("too many requests at once", retry_after_s=1.0)
        if not self.requests:
            self._since = self._clock()
        self.requests += 1
        lease = Lease(self)
        try:
            yield lease
        finally:
            self.requests -= 1
            self.bytes -= lease.bytes
            self._note_drained(lease.bytes)

    def grow(self, n: int) -> None:
        if self.bytes + n > self._limits.in_flight_bytes:
            raise StoreBusy("too many bytes in flight", retry_after_s=self.retry_after_s())
        self.bytes += n

    def retry_after_s(self) -> float:
        rate = self._drained / self._seconds if self._seconds else 0.0
        return min(60.0, max(1.0, self.bytes / rate)) if rate else 1.0

    def _note_drained(self, n: int) -> None:
        now = self._clock()
        self._drained = self._drained * 0.98 + n
        self._seconds = self._seconds * 0.98 + max(0.0, now - self._since)
        self._since = now


class Lease:
    """The bytes one request holds of the admission."""

    __slots__ = ("_admission", "bytes")

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.bytes = 0

    def grow(self, n: int) -> None:
        """Hold `n` more bytes.

        Raises:
            StoreBusy: together with all others that is over the limit.
        """
        self._admission.grow(n)
        self.bytes += n


class Ingest:
    """What both servers share: the way from a request's bytes to committed rows.

    `costing` fills in the cost of every call before it is stored. `content` keeps the prompts and answers that
    senders chose to send; else they are dropped here. `redaction` masks what is stored, `rules` name the routes. `payload` makes what is sent
    on to other backends (`payload.without_content`, or with); None = nothing is. `instance_id` is
    this collector's name in the chain of collectors that a forwarded request came through.
    """

    def __init__(
        self,
        store: CallSink,
        *,
        limits: IngestLimits | None = None,
        costing: Costing | None = None,
        content: bool = False,
        redaction: Redaction | None = None,
        rules: RouteRules = PLAIN_RULES,
        payload: Payload | None = None,
        instance_id: str = "",
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.limits = limits or IngestLimits()
        self.counters = Counters()
        self.admission = Admission(self.limits)
        self._store = store
        self._costing = costing
        self._content = content
        self._redaction = redaction or Redaction()
        self._rules = rules
        self._payload = payload
        self.instance_id = instance_id
        self._clock_ns = clock_ns
        self._pool = ThreadPoolExecutor(max_workers=2, thread_name_prefix="tierlight-decode")
        self._one_large_body = threading.Lock()
        self._random = random.Random()
        self.last_refusal: Refusal | None = None

    def note_refusal(self, signal: Signal, answer: str, reason: str) -> None:
        """Remember the newest refusal, for those who wonder why nothing arrives."""
        self.last_refusal = Refusal(self._clock_ns(), signal, answer, reason[:300])

    async def export(
        self,
        signal: Signal,
        body: bytes,
        media_type: MediaType,
        encoding: str = "",
        *,
        hops: tuple[str, ...] = (),
    ) -> Outcome:
        """Store one request; returns after the commit.

        Raises:
            BadRequest: (or UnsupportedMedia, TooLarge) nothing was stored, and sending it again cannot help.
            StoreError: nothing was stored; the same request may be sent again.
        """
        loop = asyncio.get_running_loop()
        prepared, committed = await loop.run_in_executor(
            self._pool, self._prepare_and_submit, signal, body, media_type, encoding, hops
        )
        appended = await _outcome_of(committed) if committed is not None else Appended(0, 0)
        if prepared.rejected:
            self.note_refusal(signal, f"{prepared.rejected} of its records", prepared.message)
        self.counters.add("accepted", appended.accepted)
        self.counters.add("duplicates", appended.duplicates)
        return Outcome(appended.accepted, appended.duplicates, prepared.rejected, prepared.message)

    def spread(self, seconds: float) -> float:
        """The same time and up to a fifth more, so that refused senders do not return together."""
        return seconds * (1 + 0.2 * self._random.random())

    def close(self) -> None:
        """Finish what is being decoded, then stop the threads."""
        self._pool.shutdown(wait=True)

    def _prepare_and_submit(
        self, signal: Signal, body: bytes, media_type: MediaType, encoding: str, hops: tuple[str, ...]
    ) -> tuple[_Prepared, Future[Appended] | None]:
        raw = inflate(body, encoding, self.limits.body_bytes)
        self.counters.add("bytes", len(raw))
        if len(raw) > _LARGE_BODY:  # decoded, it takes several times its size: one at a time
            with self._one_large_body:
                prepared = self._prepare(signal, raw, media_type, hops)
        else:
            prepared = self._prepare(signal, raw, media_type, hops)
        batch = prepared.batch
        if not batch.spans and not batch.scores and not batch.failures:
            return prepared, None
        return prepared, self._store.submit(batch)

    def _prepare(self, signal: Signal, raw: bytes, media_type: MediaType, hops: tuple[str, ...]) -> _Prepared:
        arrived_ns = self._clock_ns()
        if signal == "metrics":
            metrics = count_metrics(raw, media_type)
            self.counters.add("metrics_not_stored", metrics)
            return _Prepared(Batch(), message=METRICS_NOTE if metrics else "")
        spans: list[NormalisedSpan] = []
        scores: list[ScoreRecord] = []
        failures: list[CallFailure] = []
        if signal == "traces":
            decoded = decode_traces(raw, media_type, limits=self.limits, arrived_ns=arrived_ns)
            records, masked = self._redaction.spans(decoded.spans, content=self._content)
            spans, failed = self._normalise(records, arrived_ns)
        else:
            decoded = decode_logs(raw, media_type, limits=self.limits)
            failed = []
            logs, masked = self._redaction.logs(decoded.logs, content=self._content)
            found = [normalise_log(log, content=self._content) for log in logs]
            scores.extend(score for score in found if score is not None)
            failures.extend(each for each in map(failure_of_log, logs) if each is not None)
            self.counters.add("logs_not_stored", len(found) - len(scores) - len(failures))
        self.counters.add("redacted", masked)
        rejected = decoded.rejected + failed
        self._count(decoded, rejected)
        to_forward = b""
        if self._payload is not None and (spans or scores or failures) and self._may_forward(hops):
            sent_on = self._payload(signal, raw, media_type)
            to_forward = seal(hops, sent_on) if sent_on else b""
        batch = Batch(
            spans=tuple(spans),
            scores=tuple(scores),
            failures=tuple(failures),
            nbytes=len(raw),
            arrived_ns=arrived_ns,
            forward=to_forward,
            forward_signal="logs" if signal == "logs" else "traces",
        )
        return _Prepared(batch, len(rejected), self._say(rejected))

    def _normalise(self, spans: list[SpanRecord], arrived_ns: int) -> tuple[list[NormalisedSpan], list[str]]:
        fill = self._costing.fill if self._costing is not None else None
        content, rules = self._content, self._rules
        done: list[NormalisedSpan] = []
        failed: list[str] = []
        for span in spans:
            try:
                normalised = normalise(span, arrived_ns, content=content, rules=rules)
                if fill is not None and normalised.call is not None:
                    fill(normalised.call)
            except InvalidRecord as error:
                failed.append(str(error))
            except Exception:  # one span that trips a reader must not cost its neighbours
                logger.exception("a span could not be read by a fault of ours")
                failed.append("internal error while reading the span")
            else:
                done.append(normalised)
        return done, failed

    def _may_forward(self, hops: tuple[str, ...]) -> bool:
        """Not in a circle, and not through too many collectors."""
        return len(hops) < MAX_HOPS and self.instance_id not in hops

    def _count(self, decoded: Decoded, rejected: list[str]) -> None:
        for what, n in decoded.altered.items():
            self.counters.add(f"altered_{what}", n)
        self.counters.add("rejected", len(rejected))

    def _say(self, rejected: list[str]) -> str:
        """The first three different reasons, cut at the limit."""
        reasons = "; ".join(list(dict.fromkeys(rejected))[:3])
        return reasons.encode()[: self.limits.error_message_bytes].decode("utf-8", "ignore")


async def _outcome_of(committed: Future[Appended]) -> Appended:
    try:
        return await asyncio.wrap_future(committed)
    except StoreError:
        raise
    except Exception as error:  # whatever the store's driver raises, the sender may try again
        raise StoreError("the batch could not be committed") from error
