"""One thread, one connection, one transaction at a time: everything that is written goes through here.

A request is answered when its transaction has committed, so what was acknowledged survives a kill. Requests that
arrive while another transaction runs wait in a queue and are committed together: under load the cost of a
transaction is shared by hundreds of spans, and a lone client never waits for company. A request that cannot be
stored fails alone: when a group of several fails, each is tried again by itself.

SQLite allows one writer in any case. Making it one thread turns "database is locked" into a queue, lets the
writer keep what it knows of the database in memory (interned ids, marks, the next number), and keeps checkpoints
on the only connection that may do them.
"""

from __future__ import annotations

import logging
import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeVar

from ..errors import InvalidRecord, StoreBusy, StoreDamaged, StoreError
from ..normalise import PLAIN_RULES, RouteRules
from ..records import Appended, Batch
from .append import Appender

log = logging.getLogger(__name__)

MAX_QUEUED_BYTES: Final = 64 * 1024 * 1024
MAX_GROUP_BYTES: Final = 4 * 1024 * 1024
MAX_GROUP_SPANS: Final = 1_000
_BYTES_PER_SPAN: Final = 1_000  # what a span is taken for when the batch does not say its size

T = TypeVar("T")
Job = Callable[[sqlite3.Connection], T]
State = Literal["ok", "low", "full", "damaged"]


@dataclass(slots=True)
class Chore:
    """Something the writer does between groups: `run` works for a moment and says whether more is left to do."""

    name: str
    every_s: float
    run: Callable[[sqlite3.Connection, int], bool]
    due: float = 0.0


@dataclass(slots=True)
class _Submitted:
    batch: Batch
    nbytes: int
    future: Future[Appended] = field(default_factory=Future)


@dataclass(slots=True)
class _Asked:
    job: Job[Any]
    in_transaction: bool
    future: Future[Any] = field(default_factory=Future)


class Writer:
    """The queue and the thread behind it."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        *,
        now_ns: Callable[[], int] = time.time_ns,
        chores: Sequence[Chore] = (),
        rules: RouteRules = PLAIN_RULES,
    ) -> None:
        self.connection = connection
        self.appender = Appender(connection, rules)
        self.state: State = "ok"
        self.last_error = ""
        self.now_ns = now_ns
        self.newest_arrival_ns = 0
        self.retry_after_s = 60.0
        self._chores = list(chores)
        self._queue: queue.SimpleQueue[_Submitted | _Asked | None] = queue.SimpleQueue()
        self._queued_bytes = 0
        self._counts = threading.Lock()
        self._closed = False
        self._commit_ms: deque[float] = deque(maxlen=1_000)
        self._thread = threading.Thread(target=self._run, name="tierlight-writer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def add_chore(self, chore: Chore) -> None:
        self._chores.append(chore)

    @property
    def queued_bytes(self) -> int:
        return self._queued_bytes

    def commit_ms(self) -> list[float]:
        """How long the last transactions took, sorted."""
        return sorted(self._commit_ms.copy())

    def submit(self, batch: Batch) -> Future[Appended]:
        """Queue a request. Raises StoreBusy at once when it cannot be taken."""
        nbytes = batch.nbytes or _BYTES_PER_SPAN * (len(batch.spans) + len(batch.scores))
        if self.state != "ok":
            raise StoreBusy(self._refusal(), retry_after_s=self.retry_after_s)
        item = _Submitted(batch, nbytes)
        with self._counts:
            if self._closed:
                raise StoreBusy("the store is closing: send the request again", retry_after_s=5)
            if self._queued_bytes and self._queued_bytes + nbytes > MAX_QUEUED_BYTES:
                raise StoreBusy(
                    f"{self._queued_bytes} bytes wait to be written, {MAX_QUEUED_BYTES} are allowed:"
                    " send the request again",
                    retry_after_s=1,
                )
            self._queued_bytes += nbytes
            self._queue.put(item)
        return item.future

    def _refusal(self) -> str:
        what = {
            "low": "the disk is nearly full",
            "full": "the disk is full",
            "damaged": "the database file is damaged",
        }
        return f"{what.get(self.state, self.state)}: nothing is stored until there is room" + (
            f" ({self.last_error})" if self.last_error else ""
        )

    def ask(self, job: Job[T], *, in_transaction: bool = True) -> Future[T]:
        """Run a job on the writing connection, by default in a transaction of its own."""
        item = _Asked(job, in_transaction)
        with self._counts:
            if self._closed:
                raise StoreError("the store is closed")
            self._queue.put(item)
        return item.future

    def close(self) -> None:
        """Commit what is queued, checkpoint, close the connection."""
        with self._counts:
            if self._closed:
                return
            self._closed = True
            self._queue.put(None)
        self._thread.join()

    # ---- on the thread ----------------------------------------------------------------------------------

    def _run(self) -> None:
        carried: _Submitted | _Asked | None = None
        open_ = True
        while open_ or carried is not None:
            item = carried
            carried = None
            if item is None:
                try:
                    item = self._queue.get(timeout=self._until_due())
                except queue.Empty:
                    self._do_chores()
                    continue
                if item is None:
                    open_ = False
                    continue
            if isinstance(item, _Asked):
                self._answer(item)
            else:
                group, carried, ended = self._gather(item)
                open_ = open_ and not ended
                self._commit(group)
            self._do_chores()
        try:
            self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as error:
            log.warning("no checkpoint at close: %s", error)
        self.connection.close()

    def _gather(self, first: _Submitted) -> tuple[list[_Submitted], _Submitted | _Asked | None, bool]:
        """What already waits joins the group, up to a limit; also the item that ended it, and whether to stop."""
        group, nbytes, spans = [first], first.nbytes, len(first.batch.spans)
        while nbytes < MAX_GROUP_BYTES and spans < MAX_GROUP_SPANS:
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                break
            if item is None:
                return group, None, True
            if isinstance(item, _Asked):
                return group, item, False
            group.append(item)
            nbytes += item.nbytes
            spans += len(item.batch.spans)
        return group, None, False

    def _commit(self, group: Sequence[_Submitted]) -> None:
        try:
            results = self._store([item.batch for item in group])
        except Exception as error:  # noqa: BLE001 - whatever it is, its request must be answered
            if len(group) > 1 and not self._is_out_of_room(error):
                for item in group:
                    self._commit([item])
                return
            for item in group:
                self._settle(item, error=self._explained(error))
            return
        for item, result in zip(group, results, strict=True):
            self._settle(item, result=result)

    def _settle(
        self, item: _Submitted, result: Appended | None = None, error: Exception | None = None
    ) -> None:
        with self._counts:
            self._queued_bytes -= item.nbytes
        if not item.future.set_running_or_notify_cancel():
            return
        if error is not None:
            item.future.set_exception(error)
        elif result is not None:
            item.future.set_result(result)

    def _store(self, batches: Sequence[Batch]) -> list[Appended]:
        started = time.perf_counter()
        now_ns = self.now_ns()
        connection = self.connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            results = self.appender.store(batches, now_ns)
            connection.execute("COMMIT")
        except BaseException:
            self.roll_back()
            raise
        self._commit_ms.append((time.perf_counter() - started) * 1e3)
        self.newest_arrival_ns = max(self.newest_arrival_ns, now_ns)
        return results

    def roll_back(self) -> None:
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")
        self.appender.forget()

    def _is_out_of_room(self, error: Exception) -> bool:
        return getattr(error, "sqlite_errorname", "") in ("SQLITE_FULL", "SQLITE_IOERR_WRITE")

    def _explained(self, error: Exception) -> Exception:
        """What the sender is told; the store's own state changes with it."""
        name = getattr(error, "sqlite_errorname", "")
        if self._is_out_of_room(error):
            self.state, self.last_error = "full", str(error)
            log.error("the disk is full: ingest answers 503 until there is room")
            return StoreBusy(self._refusal(), retry_after_s=self.retry_after_s)
        if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            self.state, self.last_error = "damaged", str(error)
            log.error("the database is damaged, nothing is written any more: %s", error)
            return StoreDamaged(self._refusal())
        if isinstance(error, StoreError | InvalidRecord):
            return error
        if isinstance(error, OverflowError | TypeError | ValueError):
            log.warning("a request can not be stored: %s", error)
            return InvalidRecord(f"a value of this request can not be stored: {error}")
        self.last_error = str(error)
        log.exception("a request was not stored")
        failure = StoreBusy(f"not stored: {error}", retry_after_s=5)
        failure.__cause__ = error
        return failure

    def _answer(self, item: _Asked) -> None:
        if not item.future.set_running_or_notify_cancel():
            return
        try:
            result = self.in_transaction(item.job) if item.in_transaction else item.job(self.connection)
        except Exception as error:  # noqa: BLE001 - handed to the one who asked
            item.future.set_exception(error)
        else:
            item.future.set_result(result)

    def in_transaction(self, job: Job[T]) -> T:
        """Run a job in a transaction of its own. On the writer's thread only."""
        try:
            self.connection.execute("BEGIN IMMEDIATE")
            result = job(self.connection)
            self.connection.execute("COMMIT")
        except BaseException:
            self.roll_back()
            raise
        return result

    def _until_due(self) -> float | None:
        if not self._chores:
            return None
        return max(0.0, min(chore.due for chore in self._chores) - time.monotonic())

    def _do_chores(self) -> None:
        for chore in self._chores:
            if chore.due > time.monotonic():
                continue
            try:
                more = chore.run(self.connection, self.now_ns())
            except Exception as error:
                self.roll_back()
                self.last_error = f"{chore.name}: {error}"
                log.exception("%s failed and is tried again", chore.name)
                more = False
            # Work that is left over is taken up as soon as no request waits, so that ingest goes first.
            chore.due = time.monotonic() + (0.01 if more else chore.every_s)
