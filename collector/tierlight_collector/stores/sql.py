"""The SQLite store: facts, decisions and the forwarding queue in one file, written by one thread."""

# Long because it is the whole Store protocol, a few lines a method; the work is in the modules beside it.

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, TypeVar
from zoneinfo import ZoneInfo

from ..decisions import AuditEntry
from ..errors import StoreBusy, StoreError
from ..normalise import PLAIN_RULES, RouteRules
from ..records import (
    HOUR_NS,
    Appended,
    Batch,
    CallEvidence,
    CallPage,
    CallRecord,
    CallRow,
    ContentRecord,
    CostChange,
    Cursor,
    Dim,
    Filters,
    PastCost,
    Reread,
    Rollup,
    RouteInfo,
    ScoreEvidence,
    ScoreRecord,
    SpanRecord,
    StoreHealth,
    TimeRange,
)
from . import migrations, reading, renormalising, repricing, stretches, sums
from .backup import back_up
from .decisions import Decisions
from .files import DirectoryLock, ReaderPool, connect_reader, connect_writer
from .horizons import Retention
from .intern import SERIES_FIELDS, Dictionary
from .outbox import OutboxTables
from .protocol import Order
from .recount import roll_up
from .retention import CHUNK, compact, expire, forget_contents, shrink
from .selfcheck import Checked, self_check
from .space import SpaceGuard
from .writer import Chore, Writer

T = TypeVar("T")

_EVERYTHING: Final = Filters()
DEFAULT_RETENTION: Final = Retention()
APPEND_TIMEOUT_S: Final = 120.0
_BEFORE_ALL: Final = datetime.min.replace(tzinfo=UTC)


class SqliteStore(Decisions, OutboxTables):
    """A Store in one SQLite file. Thread-safe; one per process and file."""

    def __init__(
        self,
        path: Path,
        *,
        read_only: bool = False,
        durability: Literal["normal", "full"] = "normal",
        app_version: str = "",
        now_ns: Callable[[], int] = time.time_ns,
        retention: Retention = DEFAULT_RETENTION,
        rules: RouteRules = PLAIN_RULES,
    ) -> None:
        self._rules = rules
        self._retention = retention
        self.path = path.absolute()
        self._clock = now_ns
        self._writer: Writer | None = None
        self._lock: DirectoryLock | None = None
        if read_only:
            self._open_to_read()
        else:
            self._open_to_write(durability, app_version)
        self._readers = ReaderPool(self.path)
        self._dictionary = Dictionary()
        self._sums_memory = sums.SumsMemory()

    def _open_to_read(self) -> None:
        if not self.path.exists():
            raise StoreError(
                f"there is no store at {self.path} yet: start tierlight up, or name another --store"
            )
        connection = connect_reader(self.path)
        try:
            version = migrations.check(connection, self.path)
        finally:
            connection.close()
        if version < len(migrations.STEPS):
            raise StoreError(
                f"{self.path} has schema {version}, this tierlight needs {len(migrations.STEPS)}:"
                " start tierlight up once, it upgrades the file and keeps a copy"
            )

    def _open_to_write(self, durability: str, app_version: str) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = DirectoryLock(self.path.parent)
        try:
            connection = connect_writer(self.path, durability=durability)
            try:
                migrations.migrate(connection, self.path, now_ns=self._clock(), app_version=app_version)
            except BaseException:
                connection.close()
                raise
        except BaseException:
            self._lock.release()
            raise
        self._writer = Writer(connection, now_ns=self._clock, rules=self._rules)
        self._writer.add_chore(Chore("rollups", 10.0, roll_up(self._writer)))
        self._writer.add_chore(Chore("retention", 60.0, expire(self._writer, self._policy)))
        self._writer.add_chore(Chore("compaction", 30.0, compact(self._writer), due=time.monotonic() + 30))
        hourly = self_check(self._writer, random.Random())
        self._writer.add_chore(Chore("self-check", 3600.0, hourly, due=time.monotonic() + 3600))
        self._writer.add_chore(
            Chore("disk space", 5.0, SpaceGuard(self._writer, self.path).run, due=time.monotonic() + 5)
        )
        self._writer.start()

    # ---- what the halves need ---------------------------------------------------------------------------

    def _read(self) -> AbstractContextManager[sqlite3.Connection]:
        return self._readers.snapshot()

    def _writing(self) -> Writer:
        if self._writer is None:
            raise StoreError(f"{self.path} is open for reading only: do this in the process that writes it")
        return self._writer

    def _write(self, job: Callable[[sqlite3.Connection], T]) -> T:
        return self._writing().ask(job).result(APPEND_TIMEOUT_S)

    def _runs(self, trace_id: bytes) -> str | None:
        """Where the trace may be. A store that is open for reading only cannot know, and asks all runs."""
        return self._writer.appender.runs.as_json(trace_id) if self._writer is not None else None

    def _now_ns(self) -> int:
        return self._clock()

    # ---- in ---------------------------------------------------------------------------------------------

    def submit(self, batch: Batch) -> Future[Appended]:
        """Queue the batch; the future resolves after COMMIT. Raises StoreBusy at once when the queue is full."""
        return self._writing().submit(batch)

    def append(self, batch: Batch) -> Appended:
        """Store the batch; durable on return. The same batch again adds nothing."""
        try:
            return self.submit(batch).result(APPEND_TIMEOUT_S)
        except TimeoutError as error:
            raise StoreBusy("the store did not commit in time: send it again", retry_after_s=5) from error

    def add_scores(self, scores: Sequence[ScoreRecord]) -> int:
        """Store scores that came by the API; gives the number accepted."""
        return self.append(Batch(scores=tuple(scores), arrived_ns=self._clock())).accepted

    # ---- sums -------------------------------------------------------------------------------------------

    def rollups(
        self, when: TimeRange, group_by: tuple[Dim, ...] = (), where: Filters = _EVERYTHING
    ) -> list[Rollup]:
        """One rollup per combination of the group-by dimensions that occurs, exact at every moment."""
        return [rollup for _, rollup in self._sums([(when.start_ns, when.end_ns, None)], group_by, where)]

    def series(
        self,
        when: TimeRange,
        step: Literal["hour", "day"],
        tz: str = "UTC",
        group_by: tuple[Dim, ...] = (),
        where: Filters = _EVERYTHING,
    ) -> list[tuple[datetime, Rollup]]:
        """Rollups per hour or per local day of the zone `tz` (23 and 25 hour days are right), oldest first."""
        return self._sums(self._cuts(when, step, tz), group_by, where)

    def costs(
        self,
        when: TimeRange,
        step: Literal["hour", "day"],
        tz: str = "UTC",
        group_by: tuple[Dim, ...] = (),
        where: Filters = _EVERYTHING,
    ) -> list[tuple[datetime, tuple[str, ...], int]]:
        """The `cost_nusd` of `series` with its key, in a fraction of the time."""
        cuts = self._cuts(when, step, tz)
        starts = [start_ns for start_ns, *_ in cuts]
        with self._parts(cuts, group_by, where, is_narrow=True) as (_, parts, keys):
            found = [
                (cuts[cut][2], key, cost)
                for cut, key, cost in stretches.numbers(parts, starts, keys, "cost_nusd")
            ]
        return sorted(found)

    def _cuts(
        self, when: TimeRange, step: Literal["hour", "day"], tz: str
    ) -> list[tuple[int, int, datetime]]:
        with self._read() as connection:
            oldest, newest = sums.extent(connection)
        if oldest is None or newest is None:
            return []
        start_ns, end_ns = max(when.start_ns, oldest), min(when.end_ns, newest + HOUR_NS)
        return list(_local_cuts(start_ns, end_ns, step, ZoneInfo(tz)))

    def _sums(
        self, cuts: Sequence[tuple[int, int, Any]], group_by: tuple[Dim, ...], where: Filters
    ) -> list[tuple[Any, Rollup]]:
        with self._parts(cuts, group_by, where) as (connection, parts, keys):
            found = [
                (cuts[cut][2], rollup)
                for cut, rollup in stretches.answer(
                    parts,
                    [start_ns for start_ns, *_ in cuts],
                    keys,
                    self._sums_memory.words,
                    self._dictionary.signals(connection),
                )
            ]
        return sorted(found, key=lambda each: (each[0] or _BEFORE_ALL, each[1].key))

    @contextmanager
    def _parts(
        self,
        cuts: Sequence[tuple[int, int, Any]],
        group_by: tuple[Dim, ...],
        where: Filters,
        *,
        is_narrow: bool = False,
    ) -> Iterator[tuple[sqlite3.Connection, list[stretches.Stretch], dict[int, tuple[str, ...]]]]:
        """What the sums of the cuts are made of, and the key of every series that is meant, in one snapshot."""
        at = [SERIES_FIELDS.index(dim) for dim in group_by]
        before = self._readers.version()
        with self._read() as connection:
            chosen = reading.series_of(connection, self._dictionary, where)
            # The snapshot is taken by now: it has this version if nobody committed while it was.
            version = before if self._readers.version() == before else None
            keys = {series_id: tuple(values[i] for i in at) for series_id, values in chosen.items()}
            parts = sums.parts_of(
                connection, self._dictionary, self._sums_memory, version, cuts, keys, is_narrow=is_narrow
            )
            yield connection, parts, keys

    # ---- out --------------------------------------------------------------------------------------------

    def calls(
        self,
        where: Filters = _EVERYTHING,
        *,
        after: Cursor | None = None,
        limit: int = 50,
        order: Order = "time",
        descending: bool = True,
    ) -> CallPage:
        """One page by key, never by offset; unknown values of the sort column come last."""
        with self._read() as connection:
            return reading.page_of_calls(connection, self._dictionary, where, after, limit, order, descending)

    def call(self, trace_id: bytes, span_id: bytes, project: str = "default") -> CallRow | None:
        with self._read() as connection:
            return reading.one_call(
                connection, self._dictionary, trace_id, span_id, project, self._runs(trace_id)
            )

    def trace(self, trace_id: bytes, limit: int = 500, project: str = "default") -> list[SpanRecord]:
        """The received spans of a trace by start time, LLM or not."""
        with self._read() as connection:
            return reading.trace(connection, trace_id, project, limit, self._runs(trace_id))

    def contents(self, trace_id: bytes, span_id: bytes, project: str = "default") -> list[ContentRecord]:
        with self._read() as connection:
            return reading.contents(connection, trace_id, span_id, project, self._runs(trace_id))

    def routes(self, project: str = "default") -> list[RouteInfo]:
        """Every route of production calls that was ever seen, the busiest first."""
        ever = [(0, 2**63 - 1, None)]
        with self._parts(ever, ("route",), Filters(project=project)) as (connection, parts, keys):
            counts = {key[0]: n for _, key, n in stretches.numbers(parts, [0], keys, "calls")}
            ends = reading.route_ends(connection, self._dictionary, project)
        found = [
            RouteInfo(route, first_ns, last_ns, counts.get(route, 0), tier)
            for route, (first_ns, last_ns, tier) in ends.items()
            if counts.get(route)
        ]
        return sorted(found, key=lambda info: (-info.calls, info.route))

    def call_evidence(self, after: int, limit: int) -> list[CallEvidence]:
        """Calls with arrival number > `after`, in arrival order; all purposes, superseded ones left out."""
        with self._read() as connection:
            return reading.call_evidence(connection, self._dictionary, after, limit)

    def score_evidence(self, after: int, limit: int) -> list[ScoreEvidence]:
        """Scores with arrival number > `after` in the order in which they met their calls."""
        with self._read() as connection:
            return reading.score_evidence(connection, self._dictionary, after, limit)

    # ---- priced again -----------------------------------------------------------------------------------

    def reprice(self, changes: Sequence[CostChange]) -> int:
        """Write the new costs in one transaction, keep the old ones as history; gives the number of calls changed."""
        dirty = self._writing().appender.dirty
        return self._write(lambda connection: repricing.reprice(connection, dirty, changes, self._clock()))

    def cost_history(self, trace_id: bytes, span_id: bytes, project: str = "default") -> list[PastCost]:
        """What the call was taken to cost before it was priced again, oldest first."""
        with self._read() as connection:
            return repricing.history(connection, trace_id, span_id, project, self._runs(trace_id))

    # ---- keeping house ----------------------------------------------------------------------------------

    def roll_up(self) -> None:
        """Recount every hour that is due now, instead of within the next seconds."""
        writer = self._writing()
        run = roll_up(writer)

        def job(connection: sqlite3.Connection) -> None:
            while run(connection, self._clock()):
                pass

        writer.ask(job, in_transaction=False).result(APPEND_TIMEOUT_S)

    def keep(self, retention: Retention) -> None:
        """Keep things so long from now on; what is older goes within the next minute."""
        self._retention = retention

    def _policy(self) -> Retention:
        return self._retention

    def retain(self) -> None:
        """Delete what is older than the retention and join small blocks now, instead of within the next minute."""
        writer = self._writing()
        chores = (roll_up(writer), expire(writer, self._policy), compact(writer))

        def job(connection: sqlite3.Connection) -> None:
            for chore in chores:
                while chore(connection, self._clock()):
                    pass

        writer.ask(job, in_transaction=False).result(APPEND_TIMEOUT_S)

    def self_check(self, seed: int | None = None) -> Checked:
        """Compare some rollups with what they sum up now, instead of within the hour; what is wrong is counted anew."""
        found: list[Checked] = []
        run = self_check(self._writing(), random.Random(seed), found.append)
        self._writing().ask(lambda connection: run(connection, self._clock()), in_transaction=False).result(
            APPEND_TIMEOUT_S
        )
        return found[0]

    def purge(
        self,
        *,
        span: tuple[bytes, bytes] | None = None,
        user: str = "",
        route: str = "",
        before_ns: int = 0,
        who: str = "",
        project: str = "default",
    ) -> int:
        """Delete the captured texts of the calls that fit all that is given; gives how many calls had some.

        Calls, scores and sums stay. Afterwards nothing of the texts is left in the file or its WAL.
        """
        if not (span or user or route or before_ns):
            raise StoreError("say what to purge: a span, a user, a route or a time")
        writer = self._writing()
        purged = after = 0
        while True:
            with self._read() as connection:
                seqs = reading.seqs_to_purge(
                    connection, self._dictionary, after, CHUNK, span, user, route, before_ns, project
                )
            if not seqs:
                break
            purged += writer.ask(partial(forget_contents, seqs=seqs)).result(APPEND_TIMEOUT_S)
            after = seqs[-1]
        given = {
            "span": span and "/".join(part.hex() for part in span),
            "user": user and "one user",
            "route": route,
        }
        subject = ", ".join(f"{name} {value}" for name, value in given.items() if value)
        self.record_audit(
            AuditEntry(self._clock(), who, "purge texts", subject or f"before {before_ns}", f"{purged} calls")
        )

        def checkpoint(connection: sqlite3.Connection) -> None:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            shrink(connection)

        writer.ask(checkpoint, in_transaction=False).result(APPEND_TIMEOUT_S)
        return purged

    def raw_spans(self, after: int, limit: int) -> list[tuple[int, SpanRecord]]:
        """Raw spans with arrival number > `after`, in arrival order, as far as they are kept; for export."""
        with self._read() as connection:
            return reading.raw_spans(connection, after, limit)

    def renormalise(
        self,
        price: Callable[[CallRecord], CallRecord],
        *,
        after: int = 0,
        limit: int = 500,
        since_ns: int = 0,
        routes: Sequence[str] = (),
    ) -> Reread:
        """Read the next stored spans with arrival number > `after` by today's rules, in one transaction."""
        writer = self._writing()
        step = partial(
            renormalising.renormalise,
            price=price,
            after=after,
            limit=limit,
            since_ns=since_ns,
            routes=routes,
            now_ns=self._clock(),
            floor_hour=writer.appender.dirty.floor_hour,
            rules=self._rules,
            runs=writer.appender.runs,
        )

        def job(_connection: sqlite3.Connection) -> Reread:
            reread = writer.in_transaction(step)
            writer.appender.forget()  # it has ids, marks and scopes to learn of
            return reread

        return writer.ask(job, in_transaction=False).result(APPEND_TIMEOUT_S)

    def health(self) -> StoreHealth:
        with self._read() as connection:
            counters = dict(connection.execute("SELECT name, n FROM counters").fetchall())
            calls = connection.execute("SELECT count(*) FROM calls").fetchone()[0]
            version = migrations.version_of(connection)
        counters.pop("next_seq", None)
        times = self._writer.commit_ms() if self._writer else []
        wal = self.path.with_name(self.path.name + "-wal")
        return StoreHealth(
            state=self._writer.state if self._writer else "ok",
            schema_version=version,
            calls=calls,
            db_bytes=self.path.stat().st_size,
            wal_bytes=wal.stat().st_size if wal.exists() else 0,
            queue_bytes=self._writer.queued_bytes if self._writer else 0,
            commit_p50_ms=times[len(times) // 2] if times else None,
            commit_p99_ms=times[min(len(times) - 1, len(times) * 99 // 100)] if times else None,
            counters=counters,
            last_error=self._writer.last_error if self._writer else "",
        )

    def schema_version(self) -> int:
        with self._read() as connection:
            return migrations.version_of(connection)

    def backup(self, target: Path) -> None:
        """Write a consistent copy to a new file, without stopping ingest."""
        back_up(self.path, target)

    def close(self) -> None:
        """Commit what is queued, checkpoint, release the directory. May be called again."""
        if self._writer is not None:
            self._writer.close()
        self._readers.close()
        if self._lock is not None:
            self._lock.release()


def _local_cuts(
    start_ns: int, end_ns: int, step: Literal["hour", "day"], zone: ZoneInfo
) -> Iterator[tuple[int, int, datetime]]:
    """Hours of UTC or days of the zone that touch [start_ns, end_ns), cut at its ends, with their first moment."""
    if step == "hour":
        at = start_ns
        while at < end_ns:
            end = min((at // HOUR_NS + 1) * HOUR_NS, end_ns)
            yield at, end, datetime.fromtimestamp(at // HOUR_NS * 3600, UTC).astimezone(zone)
            at = end
        return
    at = start_ns
    while at < end_ns:
        local = datetime.fromtimestamp(at // 1_000_000_000, zone)
        midnight = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
        following = (midnight.replace(tzinfo=None) + timedelta(days=1)).replace(tzinfo=zone)
        end = min(int(following.timestamp()) * 1_000_000_000, end_ns)
        yield at, end, midnight
        at = end
