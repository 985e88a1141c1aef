"""The export pipeline: a queue bounded in records and bytes, one thread, and a truthful account of what became of each.

`offer` takes one lock and appends; nothing else happens on the calling thread. The thread starts with the
first record, cuts batches, has them encoded, sends them, and keeps on disk what cannot be sent. Whatever is
lost is counted by reason and told on the next span that goes out.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tierlight import semconv
from tierlight._encode import Signal
from tierlight._finish import Finisher, drop_contents
from tierlight._guard import report
from tierlight._lifecycle import imports, watch, watch_worker
from tierlight._record import ExportSettings, FinishedCall, FinishedScore, Record
from tierlight._spool import Spool

if TYPE_CHECKING:
    from tierlight._delivery import Delivery
    from tierlight._transport import Transport

log = logging.getLogger("tierlight")

_RESCUE_AT = 0.85  # of the exit budget: a thread that hangs even then is left, what it holds goes to disk
_abandoned: list[
    Transport
] = []  # of the parent, in forked children: closing them there would disturb the parent


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
        self._mutex = threading.RLock()  # `offer` takes it directly: the condition adds two Python calls
        self._lock = threading.Condition(self._mutex)
        self._queue: deque[Record] = deque()
        self._content_bytes = 0
        self._offered = 0
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
        self._rescued = 0
        self._delivery: Delivery | None = None  # the export thread's

    # ---- any thread --------------------------------------------------------------------------------------

    def offer(self, record: Record) -> None:
        """Take a record: one lock, one append. A full queue loses its oldest record, too many texts lose themselves."""
        texts = record.content_bytes if record.__class__ is FinishedCall else 0
        with self._mutex:
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
        if threading.current_thread() is self._thread:
            return False  # a redactor of the user's: what it waits for would wait for it
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
                if self._delivery is not None:
                    self._delivery.send_until = self._send_until
                if self._queue and self._thread is None:
                    self._start()
                self._lock.notify_all()
            deadline = now + budget * _RESCUE_AT
            while self._thread is not None and not self._is_stopped:
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._lock.wait(left)
            if not self._is_stopped or self._queue:
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
            delivery = self._delivery
            counts = delivery.counts if delivery is not None else Counter[str]()
            return {
                "offered": self._offered,
                "delivered": counts["delivered"],
                "queued": len(self._queue),
                "spooled": (delivery.backlog.waiting if delivery is not None else 0) + self._rescued,
                "recovered": counts["recovered"],
                "requests": counts["requests"],
                "failures": counts["failures"],
                "dropped": sum(self._losses.values()),
                **{f"dropped.{reason}": count for reason, count in sorted(self._losses.items())},
            }

    def start_afresh(self) -> None:
        """In a forked child: the queue, the thread, the connection and the spool files are the parent's."""
        if self._delivery is not None:
            self._delivery.backlog.forget()
            _abandoned.append(self._delivery.transport)
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
        waiting = self._delivery.backlog.waiting if self._delivery is not None else 0
        return is_clean and not self._queue and not waiting and not self._rescued

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
                    self._rescued += payload.items
                    self._untold -= Counter(payload.told)
            if spool is not None:
                spool.close()
        except OSError:
            self._lost("shutdown", len(records) + sum(payload.items for payload in payloads))

    # ---- the export thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        watch_worker()
        try:
            finisher = Finisher(self._settings)
            with imports:
                # With http.client and ssl: not on the calling thread.
                from tierlight._delivery import Delivery, suppress_instrumentation

                suppress_instrumentation()
                delivery = self._delivery = Delivery(self._settings, self._given_transport, self._lost)
            while self._turn(finisher, delivery):
                pass
        except BaseException as error:  # noqa: BLE001  the last resort: the user's process lives on without us
            report("export", error)
        finally:
            self._stop()

    def _turn(self, finisher: Finisher, delivery: Delivery) -> bool:
        """Wait for something to do and do it; False when it was the last time."""
        with self._lock:
            is_due = self._wait_until_due(delivery)
            asked, is_last = self._flushes_asked, self._is_closing
            is_flush = asked > self._flushes_done
            delivery.may_probe = is_flush and not delivery.circuit.is_open
            delivery.send_until = self._send_until
            self._taken = self._take(everything=is_flush or is_last) if is_due else []
        if self._taken and not is_last:
            finisher.load_prices()
        while self._taken:
            with self._lock:
                untold = dict(self._untold)
            self._in_hand = list(self._payloads(finisher, self._taken[0], untold))
            del self._taken[0]
            while self._in_hand:
                self._deliver(self._in_hand[0], delivery)
                del self._in_hand[0]
        delivery.send_backlog(lambda: len(self._queue) >= self._batch_records and not self._is_closing)
        with self._lock:
            if asked > self._flushes_done:
                self._flushes_done = asked
                self._lock.notify_all()
            return not is_last

    def _wait_until_due(self, delivery: Delivery) -> bool:
        """Wait for a batch, a flush, the end, or the time to send the backlog; False when it is only the last."""
        while not (self._is_closing or self._flushes_asked > self._flushes_done):
            waiting = len(self._queue)
            if waiting >= self._batch_records or self._content_bytes >= self._batch_bytes:
                return True
            now = time.monotonic()
            if waiting and self._cut_at is None:
                self._cut_at = now + self._settings.schedule_delay_s
            if self._cut_at is not None and now >= self._cut_at:
                return True
            resend_at = delivery.resend_at
            if resend_at is not None and now >= resend_at:
                return False
            wake = min((moment for moment in (self._cut_at, resend_at) if moment is not None), default=None)
            self._lock.wait(None if wake is None else wake - now)
        return True

    def _take(self, *, everything: bool) -> list[deque[Record]]:
        """Move one batch, or all of the queue in batches, out of the queue."""
        batches: list[deque[Record]] = []
        self._cut_at = None
        # Each request gives up the GIL several times and waits 5 ms for it under a busy program: a burst goes
        # out in few large requests, or the queue would overflow (20,000 calls in 0.3 s, measured 2026-11).
        most = max(self._batch_records, len(self._queue) // 2)
        while self._queue and (everything or not batches):
            batch: deque[Record] = deque()
            texts = 0
            while self._queue and len(batch) < most and texts < self._batch_bytes:
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

    def _deliver(self, payload: _Payload, delivery: Delivery) -> None:
        """Send a fresh request, or keep it for later."""
        delivered = delivery.deliver(payload.signal, payload.body, payload.items)
        with self._lock:
            if self._is_stopped:
                return  # it took too long: `shutdown` has put this on disk meanwhile
            if delivered is None:
                delivery.backlog.keep(payload.signal, payload.body, payload.items)
            else:
                delivery.counts["delivered"] += delivered
            if delivered != 0:  # the losses that it tells of are on their way
                self._untold -= Counter(payload.told)

    def _stop(self) -> None:
        try:
            if self._delivery is not None and (left := self._delivery.close()):
                self._lost("shutdown", left)
                log.warning("%d spans could not be delivered and there is no spool to keep them.", left)
        except Exception as error:  # noqa: BLE001  the process must end whatever happens here
            report("close the export", error)
        with self._lock:
            self._is_stopped = True
            self._lock.notify_all()


def _with_own_instance(settings: ExportSettings) -> ExportSettings:
    """A forked child is an instance of its own, unless the operator gave the id."""
    resource = dict(settings.resource or {})
    try:
        uuid.UUID(str(resource.get(semconv.SERVICE_INSTANCE_ID)))
    except ValueError:
        return settings
    resource[semconv.SERVICE_INSTANCE_ID] = str(uuid.uuid4())
    return dataclasses.replace(settings, resource=resource)
