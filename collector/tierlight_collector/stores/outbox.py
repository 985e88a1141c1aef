"""The durable queue of forwarding, as SQL; it is filled in the transaction that stores the calls."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeVar

from .protocol import OutboxBatch, OutboxTarget, OutboxWaiting

T = TypeVar("T")


class OutboxTables:
    """The Outbox half of a store."""

    def _read(self) -> AbstractContextManager[sqlite3.Connection]:
        raise NotImplementedError

    def _write(self, job: Callable[[sqlite3.Connection], T]) -> T:
        raise NotImplementedError

    def outbox_batches(self, after: int, max_bytes: int) -> list[OutboxBatch]:
        """Waiting batches with `seq >= after`, oldest first, at most `max_bytes` of payload (but at least one)."""
        found: list[OutboxBatch] = []
        nbytes = 0
        with self._read() as connection:
            for seq, signal, payload, spans, created_ns in connection.execute(
                "SELECT seq, signal, payload, spans, created_ns FROM outbox WHERE seq >= ? ORDER BY seq",
                (after,),
            ):
                nbytes += len(payload)
                if found and nbytes > max_bytes:
                    break
                found.append(OutboxBatch(seq, signal, payload, spans, created_ns))
        return found

    def outbox_waiting(self, after: int) -> OutboxWaiting:
        """How much waits with `seq >= after`, of whatever signal."""
        with self._read() as connection:
            row = connection.execute(
                "SELECT count(*), ifnull(sum(spans), 0), ifnull(sum(nbytes), 0), ifnull(max(seq), 0)"
                " FROM outbox WHERE seq >= ?",
                (after,),
            ).fetchone()
        return OutboxWaiting(*row)

    def outbox_targets(self) -> list[OutboxTarget]:
        with self._read() as connection:
            return [
                OutboxTarget(*row)
                for row in connection.execute(
                    "SELECT name, next_seq, state, attempts, last_error, sent, dropped FROM outbox_targets"
                    " ORDER BY name"
                )
            ]

    def save_outbox_target(self, target: OutboxTarget) -> None:
        """Store where a target stands; batches that every target has passed are deleted."""

        def job(connection: sqlite3.Connection) -> None:
            connection.execute(
                "REPLACE INTO outbox_targets (name, next_seq, state, attempts, last_error, sent, dropped)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    target.name,
                    target.next_seq,
                    target.state,
                    target.attempts,
                    target.last_error,
                    target.sent,
                    target.dropped,
                ),
            )
            _delete_passed(connection)

        self._write(job)

    def remove_outbox_target(self, name: str) -> None:
        def job(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM outbox_targets WHERE name = ?", (name,))
            _delete_passed(connection)

        self._write(job)

    def trim_outbox(self, max_bytes: int, before_ns: int) -> int:
        """Drop the oldest batches over `max_bytes` or older than `before_ns`; gives the number of spans dropped."""

        def job(connection: sqlite3.Connection) -> int:
            last = connection.execute(
                "SELECT max(seq) FROM outbox WHERE created_ns < ?", (before_ns,)
            ).fetchone()[0]
            kept = 0
            for seq, nbytes in connection.execute("SELECT seq, nbytes FROM outbox ORDER BY seq DESC"):
                kept += nbytes
                if kept > max_bytes:
                    last = max(seq, last or 0)
                    break
            if last is None:
                return 0
            dropped: int = connection.execute(
                "SELECT ifnull(sum(spans), 0) FROM outbox WHERE seq <= ?", (last,)
            ).fetchone()[0]
            connection.execute("DELETE FROM outbox WHERE seq <= ?", (last,))
            return dropped

        return self._write(job)


def _delete_passed(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM outbox WHERE seq < (SELECT min(next_seq) FROM outbox_targets)")
