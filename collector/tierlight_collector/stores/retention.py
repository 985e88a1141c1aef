"""What is forgotten, when, and on request: in small transactions, so that ingest never waits long."""

# ruff: noqa: S608 - only names of our own tables are put into statements; values are bound

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import Final

from ..records import HOUR_NS
from . import blocks, failures
from .horizons import Horizons, Retention
from .runs import RUN_BITS
from .sums import DAY_NS
from .writer import Writer

CHUNK: Final = 2_000  # rows of one transaction: 43 ms at the median, where 60,000 took 3 s
SLICE_S: Final = 0.05
BLOCK_TABLES: Final = ("content_blocks", "span_blocks")
_MERGED_BYTES: Final = 256 * 1024


def expire(writer: Writer, policy: Callable[[], Retention]) -> Callable[[sqlite3.Connection, int], bool]:
    """A chore: move the horizons on and delete what lies behind them, a slice at a time."""

    def run(connection: sqlite3.Connection, now_ns: int) -> bool:
        horizons = Horizons.at(now_ns, policy())
        appender = writer.appender
        # Calls go when the last word about their hours is in the rollups: those are never recounted again.
        waits = any((hour + 1) * HOUR_NS <= horizons.calls_ns for hour in appender.dirty.marked())
        if waits:
            horizons = Horizons(horizons.contents_ns, horizons.spans_ns, appender.horizons.calls_ns)
        appender.horizons = horizons
        appender.dirty.floor_hour = horizons.calls_ns // HOUR_NS
        stop = time.perf_counter() + SLICE_S
        deleted = 0
        for step in (
            partial(_expire_blocks, "content_blocks", horizons.contents_ns),
            partial(_expire_explanations, horizons.contents_ns),
            partial(_expire_blocks, "span_blocks", horizons.spans_ns),
            partial(_expire_spans, horizons.spans_ns),
            partial(_expire_calls, horizons.calls_ns),
            _expire_runs,
            partial(_expire_held, now_ns),
            partial(failures.expire, horizons.spans_ns, CHUNK),
        ):
            while gone := writer.in_transaction(step):
                deleted += gone
                if time.perf_counter() >= stop:
                    return True
        if deleted:
            shrink(connection)
        return False

    return run


def shrink(connection: sqlite3.Connection, pages: int = 500) -> None:
    """Give free pages back to the disk. `execute` would free a single page: it steps the statement once."""
    connection.executescript(f"PRAGMA incremental_vacuum({pages:d})")


def _expire_blocks(table: str, horizon_ns: int, connection: sqlite3.Connection) -> int:
    gone = connection.execute(
        f"DELETE FROM {table} WHERE first_seq IN"
        f" (SELECT first_seq FROM {table} WHERE newest_ns < ? ORDER BY first_seq LIMIT 20)",
        (horizon_ns,),
    ).rowcount
    if gone:
        return gone
    row = connection.execute(
        f"SELECT first_seq, last_seq FROM {table} WHERE oldest_ns < ? ORDER BY first_seq LIMIT 1",
        (horizon_ns,),
    ).fetchone()
    if row is None:
        return 0
    old = connection.execute(
        "SELECT seq FROM calls WHERE seq BETWEEN ?1 AND ?2 AND start_ns < ?3"
        " UNION ALL SELECT seq FROM spans WHERE seq BETWEEN ?1 AND ?2 AND start_ns < ?3",
        (*row, horizon_ns),
    ).fetchall()
    drop_items(connection, table, {seq for (seq,) in old})
    connection.execute(
        f"UPDATE {table} SET oldest_ns = ? WHERE first_seq = ? AND oldest_ns < ?",
        (horizon_ns, row[0], horizon_ns),
    )
    return 1


def drop_items(connection: sqlite3.Connection, table: str, seqs: Collection[int]) -> int:
    """Write the blocks of these arrival numbers anew without them; gives how many items went."""
    dropped = 0
    wanted = sorted(seqs)
    while wanted:
        row = connection.execute(
            f"SELECT first_seq, last_seq, body FROM {table} WHERE first_seq <= ? ORDER BY first_seq DESC LIMIT 1",
            (wanted[0],),
        ).fetchone()
        if row is None or row[1] < wanted[0]:
            wanted.pop(0)
            continue
        first, last, body = row
        inside = {seq for seq in wanted if seq <= last}
        wanted = [seq for seq in wanted if seq > last]
        items = blocks.unpack(body)
        kept = [item for item in items if item[0] not in inside]
        dropped += len(items) - len(kept)
        if not kept:
            connection.execute(f"DELETE FROM {table} WHERE first_seq = ?", (first,))
        elif len(kept) < len(items):
            connection.execute(
                f"UPDATE {table} SET spans = ?, body = ? WHERE first_seq = ?",
                (len(kept), blocks.pack(kept), first),
            )
    return dropped


def _expire_explanations(horizon_ns: int, connection: sqlite3.Connection) -> int:
    return connection.execute(
        "UPDATE scores SET explanation = '' WHERE seq IN"
        " (SELECT seq FROM scores WHERE explanation <> '' AND time_ns < ? LIMIT ?)",
        (horizon_ns, CHUNK),
    ).rowcount


def _expire_spans(horizon_ns: int, connection: sqlite3.Connection) -> int:
    return connection.execute(
        "DELETE FROM spans WHERE seq IN (SELECT seq FROM spans WHERE start_ns < ? ORDER BY start_ns LIMIT ?)",
        (horizon_ns, CHUNK),
    ).rowcount


def _expire_calls(horizon_ns: int, connection: sqlite3.Connection) -> int:
    seqs = connection.execute(
        "SELECT seq FROM calls WHERE start_ns < ? ORDER BY start_ns LIMIT ?", (horizon_ns, CHUNK)
    ).fetchall()
    connection.executemany("DELETE FROM scores WHERE call_seq = ?", seqs)
    connection.executemany("DELETE FROM cost_history WHERE call_seq = ?", seqs)
    connection.executemany("DELETE FROM joins WHERE call_seq = ?", seqs)
    connection.executemany("DELETE FROM calls WHERE seq = ?", seqs)
    return len(seqs)


def _expire_runs(connection: sqlite3.Connection) -> int:
    """Runs before the first span that is kept hold none."""
    return connection.execute(
        f"DELETE FROM arrival_runs WHERE run < (SELECT min(seq) >> {RUN_BITS} FROM"
        " (SELECT min(seq) AS seq FROM calls UNION ALL SELECT min(seq) FROM spans))"
    ).rowcount


def _expire_held(now_ns: int, connection: sqlite3.Connection) -> int:
    gone = connection.execute(
        "DELETE FROM held_scores WHERE id IN (SELECT id FROM held_scores WHERE held_ns < ? LIMIT ?)",
        (now_ns - 30 * DAY_NS, CHUNK),
    ).rowcount
    if gone:
        connection.execute(
            "INSERT INTO counters (name, n) VALUES ('scores_unmatched', ?1)"
            " ON CONFLICT (name) DO UPDATE SET n = counters.n + ?1",
            (gone,),
        )
    return gone


def forget_contents(connection: sqlite3.Connection, seqs: Iterable[int]) -> int:
    """Delete the captured texts of these spans, and what scores explain of them; gives how many had any."""
    chosen = set(seqs)
    connection.executemany(
        "UPDATE scores SET explanation = '' WHERE call_seq = ? AND explanation <> ''",
        [(seq,) for seq in chosen],
    )
    return drop_items(connection, "content_blocks", chosen)


def compact(writer: Writer) -> Callable[[sqlite3.Connection, int], bool]:
    """A chore: join the small blocks of quiet times into blocks of hundreds of spans, which take a third of the room."""
    reached = dict.fromkeys(BLOCK_TABLES, 0)

    def run(connection: sqlite3.Connection, _now_ns: int) -> bool:
        stop = time.perf_counter() + SLICE_S
        for table in BLOCK_TABLES:
            while writer.in_transaction(partial(_join_next, table, reached)):
                if time.perf_counter() >= stop:
                    return True
        return False

    return run


def _join_next(table: str, reached: dict[str, int], connection: sqlite3.Connection) -> bool:
    """Join the next run of small blocks; False when only the unfinished newest run is left."""
    run: list[int] = []
    spans = nbytes = 0
    is_full = False
    for first_seq, count, size in connection.execute(
        f"SELECT first_seq, spans, length(body) FROM {table} WHERE first_seq >= ? ORDER BY first_seq LIMIT ?",
        (reached[table], blocks.MAX_ITEMS),
    ):
        if run and (spans + count > blocks.MAX_ITEMS or nbytes + size > _MERGED_BYTES):
            is_full = True
            break
        run.append(first_seq)
        spans += count
        nbytes += size
    if not is_full and spans < blocks.MAX_ITEMS // 2:
        return False
    if len(run) > 1:
        marks = ", ".join("?" * len(run))
        rows = connection.execute(
            f"SELECT last_seq, spans, oldest_ns, newest_ns, body FROM {table} WHERE first_seq IN ({marks})"
            " ORDER BY first_seq",
            run,
        ).fetchall()
        items = [item for row in rows for item in blocks.unpack(row[4])]
        connection.execute(f"DELETE FROM {table} WHERE first_seq IN ({marks})", run)
        connection.execute(
            f"INSERT INTO {table} (first_seq, last_seq, spans, oldest_ns, newest_ns, body) VALUES (?, ?, ?, ?, ?, ?)",
            (
                run[0],
                rows[-1][0],
                spans,
                min(row[2] for row in rows),
                max(row[3] for row in rows),
                blocks.pack(items),
            ),
        )
    if not run:
        return False
    reached[table] = run[-1] + 1
    return True
