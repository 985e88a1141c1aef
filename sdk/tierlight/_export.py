"""The export pipeline: a queue bounded in records and bytes, one thread, and a truthful account of what became of each.

`offer` takes one lock and appends; nothing else happens on the calling thread. The thread starts with the
first record, cuts batches, has them encoded, sends them, and keeps on disk what cannot be sent. Whatever is
lost is counted by reason and told on the next span that goes out.
"""

from __future__ import annotations

import dataclasses
import logging
import random
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tierlight import semconv
from tierlight._backlog import Backlog
from tierlight._encode import items_of, reframed
from tierlight._finish import Finisher, drop_contents
from tierlight._guard import report
from tierlight._lifecycle import watch, watch_child_of_multiprocessing
from tierlight._record import ExportSettings, FinishedCall, FinishedScore, Record
from tierlight._spool import Spool, request_size
from tierlight._transport import Answer, Signal, Transport, open_transport

log = logging.getLogger("tierlight")

_RESCUE_S = 0.3  # of the exit budget, for writing to the spool when the thread hangs
_STEPS_S = (1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 60.0)  # from the third failure in a row on the circuit is open
_MAX_WAIT_S = 300.0
_abandoned: list[
    Transport
] = []  # of the parent, in forked children: closing them there would disturb the parent


@dataclass(slots=True)
class Circuit:
    """When to try next. Pure: time and chance come in.

    Args:
        chance: a number in 0..1 that spreads the first tries of many processes (full jitter).
    """

    failures: int = 0
    until: float = 0.0
    is_told: bool = False

    def failed(self, now: float, chance: float, *, asked_s: float | None, is_denied: bool) -> None:
        """Count a failure; `asked_s` is the collector's own Retry-After and wins."""
        self.failures += 1
        wait = _STEPS_S[min(self.failures, len(_STEPS_S)) - 1]
        self.is_told = asked_s is not None
        if asked_s is not None:
            wait = min(asked_s, _MAX_WAIT_S)
        elif is_denied:
            self.failures = max(self.failures, len(_STEPS_S))
            wait = _STEPS_S[-1]
        elif self.failures < 3:
            wait = max(0.1, wait * chance)
        self.until = now + wait

    def succeeded(self) -> None:
        """Close it."""
        self.failures, self.until, self.is_told = 0, 0.0, False

    @property
    def is_open(self) -> bool:
        """Whether even a flush should not try before the time."""
        return self.failures >= 3 or self.is_told


@dataclass(slots=True)
class _Payload:
    signal: Signal
    body: bytes
    items: int
    told: Mapping[str, int] = field(default_factory=dict)  # losses that its first span reports


class Pipeline:
    """Takes finished records and delivers them; implements `Sink`.

    Args:
        transport: instead of the one that the settings name, for tests.
    """

    def __init__(self, settings: ExportSettings, transport: Transport | None = None) -> None:
        self._settings = settings
        self._given_transport = transport
        self._batch_records = settings.max_batch_records
        self._batch_bytes = settings.max_batch_bytes
        self._queue_records = settings.max_queue_records
        self._queue_bytes = settings.max_queue_bytes
        self._is_closing = False
        self._reset()
        watch(self)

    def _reset(self) -> None:
        # Re-entrant, since a signal handler may flush while its own thread is inside `offer`.
        self._lock = threading.Condition(threading.RLock())
        self._queue: deque[Record] = deque()
        self._content_bytes = 0
        self._offered = 0
        self._counts: Counter[str] = Counter()
        self._losses: Counter[str] = Counter()
        self._untold: Counter[str] = Counter()  # lost, and no span has told yet
        self._thread: threading.Thread | None = None
        self._is_stopped = False
        self._cut_at: float | None = None
        self._flushes_asked = 0
        self._flushes_done = 0
        self._losses_at_flush = 0
        self._send_until: float | None = None
        self._taken: list[deque[Record]] = []
        self._in_hand: list[_Payload] = []
        self._circuit = Circuit()
        self._may_probe = False
        self._is_unreachable = False
        self._refusals_logged: set[str] = set()
        self._transport = self._given_transport
        self._backlog: Backlog | None = None

    # ---- any thread --------------------------------------------------------------------------------------

    def offer(self, record: Record) -> None:
        """Take a record: one lock, one append. A full queue loses its oldest record, too many texts lose themselves."""
        texts = record.content_bytes if record.__class__ is FinishedCall else 0
        with self._lock:
            self._offered += 1
            if self._is_closing:
                self._rescue([record], [])
                return
            if texts:
                if self._content_bytes + texts > self._queue_bytes:
                    drop_contents(record, "queue_full")
                else:
                    self._content_bytes += texts
            queue = self._queue
            if len(queue) >= self._queue_records:
                self._drop_oldest()
            queue.append(record)
            waiting = len(queue)
            if waiting == 1 or waiting == self._batch_records or self._content_bytes >= self._batch_bytes:
                if self._thread is None:
                    self._start()
                self._lock.notify_all()

    def flush(self, timeout_s: float) -> bool:
        """Try to deliver all that was offered so far.

        Returns:
            Whether it was delivered: nothing is left in the queue or the spool, and nothing was lost since the
            last flush. False comes early when the collector cannot be reached. Records kept on disk count
            as not delivered.
        """
        deadline = time.monotonic() + timeout_s
        with self._lock:
            if not self._is_closing and (self._queue or self._thread is not None):
                if self._thread is None:
                    self._start()
                self._flushes_asked += 1
                asked = self._flushes_asked
                self._lock.notify_all()
                while self._flushes_done < asked and not self._is_stopped:
                    left = deadline - time.monotonic()
                    if left <= 0:
                        return False
                    self._lock.wait(left)
            return self._all_delivered()

    def shutdown(self, timeout_s: float | None = None) -> bool:
        """Deliver what can be delivered in half of the time, put the rest on disk, stop the thread.

        Args:
            timeout_s: longest wait, `exit_timeout_s` of the settings by default.

        Returns:
            As `flush`.
        """
        budget = self._settings.exit_timeout_s if timeout_s is None else timeout_s
        now = time.monotonic()
        with self._lock:
            if not self._is_closing:
                self._is_closing = True
                self._send_until = now + budget / 2
                if self._queue and self._thread is None:
                    self._start()
                self._lock.notify_all()
            deadline = now + max(0.0, budget - _RESCUE_S)
            while self._thread is not None and not self._is_stopped:
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._lock.wait(left)
            if not self._is_stopped:
                self._is_stopped = (
                    True  # the thread hangs in the network: what it holds goes to disk from here
                )
                self._rescue(
                    [*(record for batch in self._taken for record in batch), *self._queue],
                    list(self._in_hand),
                )
                self._queue.clear()
            return self._all_delivered()

    def stats(self) -> dict[str, int]:
        """Counters since the start of the process: offered, delivered, queued, spooled (waiting in the spool),
        recovered (left by other processes and delivered), requests, failures, and dropped with its reasons."""
        with self._lock:
            backlog = self._backlog
            return {
                "offered": self._offered,
                "delivered": self._counts["delivered"],
                "queued": len(self._queue),
                "spooled": (backlog.waiting if backlog is not None else 0) + self._counts["rescued"],
                "recovered": self._counts["recovered"],
                "requests": self._counts["requests"],
                "failures": self._counts["failures"],
                "dropped": sum(self._losses.values()),
                **{f"dropped.{reason}": count for reason, count in sorted(self._losses.items())},
            }

    def start_afresh(self) -> None:
        """In a forked child: the queue, the thread, the connection and the spool files are the parent's."""
        if self._transport is not None and self._given_transport is None:
            _abandoned.append(self._transport)
        if self._backlog is not None:
            self._backlog.forget()
        self._settings = _with_own_instance(self._settings)
        self._reset()

    # ---- under the lock ----------------------------------------------------------------------------------

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="tierlight-export", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the interpreter is shutting down; `shutdown` rescues the queue
            return
        self._thread = thread

    def _drop_oldest(self) -> None:
        oldest = self._queue.popleft()
        if isinstance(oldest, FinishedCall):
            self._content_bytes -= oldest.content_bytes
        self._lost("queue_full", 1)

    def _lost(self, reason: str, items: int) -> None:
        with self._lock:
            self._losses[reason] += items
            self._untold[reason] += items

    def _all_delivered(self) -> bool:
        losses = sum(self._losses.values())
        is_clean = losses == self._losses_at_flush
        self._losses_at_flush = losses
        waiting = self._backlog.waiting if self._backlog is not None else 0
        return is_clean and not self._queue and not waiting and not self._counts["rescued"]

    def _rescue(self, records: list[Record], payloads: list[_Payload]) -> None:
        """Put records on disk from whatever thread this is, without the network, prices or the thread's own spool."""
        finisher = Finisher(dataclasses.replace(self._settings, price=False))
        try:
            folder = self._settings.spool_dir
            spool = Spool(Path(folder), self._lost) if folder else None
            for payload in [*payloads, *self._payloads(finisher, deque(records), dict(self._untold))]:
                if spool is None:
                    self._lost("shutdown", payload.items)
                else:
                    spool.append(payload.signal, payload.body)
                    self._counts["rescued"] += payload.items
                    self._untold -= Counter(payload.told)
            if spool is not None:
                spool.close()
        except OSError:
            self._lost("shutdown", len(records) + sum(payload.items for payload in payloads))

    # ---- the export thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        watch_child_of_multiprocessing()
        _suppress_instrumentation()
        finisher = Finisher(self._settings)
        try:
            folder = Path(self._settings.spool_dir) if self._settings.spool_dir else None
            self._backlog = Backlog(folder, self._settings.max_queue_bytes, self._lost)
            if self._transport is None:
                self._transport = open_transport(self._settings)
            while self._turn(finisher):
                pass
        except BaseException as error:  # noqa: BLE001  the last resort: the user's process lives on without us
            report("export", error)
        finally:
            self._stop()

    def _turn(self, finisher: Finisher) -> bool:
        """Wait for something to do and do it; False when it was the last time."""
        with self._lock:
            self._wait_until_due()
            asked, is_last = self._flushes_asked, self._is_closing
            is_flush = asked > self._flushes_done
            self._may_probe = is_flush and not self._circuit.is_open  # a flush gets one try before the time
            self._taken = self._take(everything=is_flush or is_last)
        if self._taken and not is_last:
            finisher.load_prices()
        while self._taken:
            with self._lock:
                untold = dict(self._untold)
            self._in_hand = list(self._payloads(finisher, self._taken[0], untold))
            del self._taken[0]
            while self._in_hand:
                self._deliver(self._in_hand[0])
                del self._in_hand[0]
        self._send_backlog()
        with self._lock:
            if asked > self._flushes_done:
                self._flushes_done = asked
                self._lock.notify_all()
            return not is_last

    def _wait_until_due(self) -> None:
        while not (self._is_closing or self._flushes_asked > self._flushes_done):
            waiting = len(self._queue)
            if waiting >= self._batch_records or self._content_bytes >= self._batch_bytes:
                return
            now = time.monotonic()
            wake: float | None = None
            if waiting:
                if self._cut_at is None:
                    self._cut_at = now + self._settings.schedule_delay_s
                wake = self._cut_at
            if self._backlog is not None and self._backlog.may_have_more:
                wake = self._circuit.until if wake is None else min(wake, self._circuit.until)
            if wake is not None and wake <= now:
                return
            self._lock.wait(None if wake is None else wake - now)

    def _take(self, *, everything: bool) -> list[deque[Record]]:
        """Move one batch, or all of the queue in batches, out of the queue."""
        batches: list[deque[Record]] = []
        self._cut_at = None
        while self._queue and (everything or not batches):
            batch: deque[Record] = deque()
            texts = 0
            while self._queue and len(batch) < self._batch_records and texts < self._batch_bytes:
                record = self._queue.popleft()
                if isinstance(record, FinishedCall):
                    texts += record.content_bytes
                batch.append(record)
            self._content_bytes -= texts
            batches.append(batch)
        return batches

    def _payloads(
        self, finisher: Finisher, records: deque[Record], told: Mapping[str, int]
    ) -> Iterator[_Payload]:
        """Encode the records and group them into requests of at most `max_batch_bytes`."""
        limit = self._batch_bytes
        spans: list[bytes] = []
        scores: list[bytes] = []
        size = 0
        while records:
            record = records[0]
            is_score = isinstance(record, FinishedScore)
            encoded = finisher.encoded(record, {} if is_score or spans else told, limit)
            records.popleft()
            if isinstance(encoded, str):
                self._lost(encoded, 1)
                continue
            if is_score:
                scores.append(encoded)
                continue
            if spans and size + len(encoded) > limit:
                yield _Payload("traces", finisher.request(spans), len(spans), told)
                spans, size, told = [], 0, {}
            spans.append(encoded)
            size += len(encoded)
        if spans:
            yield _Payload("traces", finisher.request(spans), len(spans), told)
        if scores:
            yield _Payload("logs", finisher.request(scores), len(scores))

    # ---- sending (export thread) -------------------------------------------------------------------------

    def _deliver(self, payload: _Payload) -> None:
        """Send a fresh request, or keep it for later."""
        delivered: int | None = None
        if self._may_send():
            delivered = self._send(payload.signal, payload.body, payload.items)
        if delivered is None:
            self._keep(payload.signal, payload.body, payload.items)
        else:
            self._counts["delivered"] += delivered
        with self._lock:  # the losses that it tells of are on their way
            self._untold -= Counter(payload.told)

    def _send_backlog(self) -> None:
        """Send what was kept, oldest first, until it is all gone, a try fails or fresh records are due."""
        backlog = self._backlog
        assert backlog is not None
        while backlog.may_have_more and self._may_send():
            kept = backlog.next()
            if kept is None:
                return
            signal, body = kept
            items = request_size(body)
            delivered = self._send(signal, body, items)
            if delivered is None:
                return
            self._counts["delivered" if backlog.passed(items) else "recovered"] += delivered
            if len(self._queue) >= self._batch_records and not self._is_closing:
                return

    def _keep(self, signal: Signal, body: bytes, items: int) -> None:
        assert self._backlog is not None
        self._backlog.keep(signal, body, items)

    def _may_send(self) -> bool:
        now = time.monotonic()
        if self._send_until is not None and (now >= self._send_until or self._circuit.failures):
            return False  # at the end of the process one failure is enough
        return self._may_probe or now >= self._circuit.until

    def _send(self, signal: Signal, body: bytes, items: int) -> int | None:
        """One request and what follows from its answer.

        Returns:
            How many of the items were delivered; None when all must be kept and tried later.
        """
        timeout_s = self._settings.timeout_s
        if self._send_until is not None:
            timeout_s = min(timeout_s, max(0.05, self._send_until - time.monotonic()))
        assert self._transport is not None
        self._counts["requests"] += 1
        answer = self._transport.send(signal, body, timeout_s)
        if answer.kind in {"retry", "denied"}:
            self._failed(answer)
            return None
        self._circuit.succeeded()
        if self._is_unreachable:
            self._is_unreachable = False
            log.info("tierlight delivers to %s again.", _without_credentials(self._settings.endpoint))
        if answer.kind == "too_large":
            return self._send_in_halves(signal, body, items, answer)
        rejected = items if answer.kind == "refused" else min(answer.rejected, items)
        if rejected:
            self._refused(answer.message, "refused", rejected)
        return items - rejected

    def _send_in_halves(self, signal: Signal, body: bytes, items: int, answer: Answer) -> int:
        """What the collector finds too large, in two pieces; a single span that it will not take is lost."""
        parts = [bytes(item) for item in items_of(body)]
        if len(parts) < 2:
            self._refused(answer.message, "too_large", items)
            return 0
        delivered = 0
        for half in (parts[: len(parts) // 2], parts[len(parts) // 2 :]):
            piece = reframed(body, half)
            sent = self._send(signal, piece, len(half))
            if sent is None:
                self._keep(signal, piece, len(half))
            delivered += sent or 0
        return delivered

    def _failed(self, answer: Answer) -> None:
        self._counts["failures"] += 1
        self._may_probe = False
        self._circuit.failed(
            time.monotonic(), random.random(), asked_s=answer.retry_after_s, is_denied=answer.kind == "denied"
        )
        if not self._is_unreachable:
            self._is_unreachable = True
            assert self._backlog is not None
            log.warning(
                "tierlight cannot deliver to %s (%s). Calls are not affected; spans are kept %s and sent later.",
                _without_credentials(self._settings.endpoint),
                answer.message,
                self._backlog.place,
            )

    def _refused(self, message: str, reason: str, items: int) -> None:
        self._lost(reason, items)
        if message not in self._refusals_logged and len(self._refusals_logged) < 20:
            self._refusals_logged.add(message)
            log.warning(
                "The collector does not take %d spans or scores: %s", items, message or "no reason given"
            )

    def _stop(self) -> None:
        try:
            if self._backlog is not None and (left := self._backlog.close()):
                self._lost("shutdown", left)
                log.warning("%d spans could not be delivered and there is no spool to keep them.", left)
            if self._transport is not None:
                self._transport.close()
        except Exception as error:  # noqa: BLE001  the process must end whatever happens here
            report("close the export", error)
        with self._lock:
            self._is_stopped = True
            self._lock.notify_all()


def _suppress_instrumentation() -> None:
    """Let no instrumentation of HTTP or gRPC trace what this thread sends."""
    from opentelemetry.context import (
        _SUPPRESS_HTTP_INSTRUMENTATION_KEY,
        _SUPPRESS_INSTRUMENTATION_KEY,
        attach,
        set_value,
    )

    attach(
        set_value(_SUPPRESS_HTTP_INSTRUMENTATION_KEY, True, set_value(_SUPPRESS_INSTRUMENTATION_KEY, True))
    )


def _with_own_instance(settings: ExportSettings) -> ExportSettings:
    """A forked child is an instance of its own, unless the operator gave the id."""
    resource = dict(settings.resource or {})
    try:
        uuid.UUID(str(resource.get(semconv.SERVICE_INSTANCE_ID)))
    except ValueError:
        return settings
    resource[semconv.SERVICE_INSTANCE_ID] = str(uuid.uuid4())
    return dataclasses.replace(settings, resource=resource)


def _without_credentials(address: str) -> str:
    scheme, mark, rest = address.partition("://")
    return f"{scheme}{mark}{rest.rpartition('@')[2]}"
