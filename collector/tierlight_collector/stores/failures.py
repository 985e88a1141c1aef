"""What log events say of calls that failed, kept beside the calls: it may come before the span, after it, or twice.

An exception event only fills what the call's own span leaves open; a span that tells its error is believed.
"""

from __future__ import annotations

import sqlite3
from dataclasses import replace

from ..records import CallFailure, CallRecord


class Failures:
    """The told failures, on the writer's connection. After a rollback call `forget`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._are_some = False

    def forget(self) -> None:
        self._are_some = (
            self._connection.execute("SELECT 1 FROM call_failures LIMIT 1").fetchone() is not None
        )

    def note(self, project_id: int, failure: CallFailure, now_ns: int) -> bool:
        """Keep it; false when the same span has told one before."""
        done = self._connection.execute(
            "INSERT OR IGNORE INTO call_failures"
            " (trace_id, span_id, project_id, error_type, error_class, http_status, told_ns)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                failure.trace_id,
                failure.span_id,
                project_id,
                failure.error_type,
                failure.error_class,
                failure.http_status,
                now_ns,
            ),
        )
        self._are_some = True
        return done.rowcount > 0

    def mended(self, project_id: int, call: CallRecord) -> CallRecord:
        """The call with the failure that was told of it, if its span leaves that open; else the call itself."""
        if not self._are_some or call.error_type:
            return call
        row = self._connection.execute(
            "SELECT error_type, error_class, http_status FROM call_failures"
            " WHERE trace_id = ? AND span_id = ? AND project_id = ?",
            (call.trace_id, call.span_id, project_id),
        ).fetchone()
        if row is None:
            return call
        error_type, error_class, http_status = row
        return replace(
            call,
            error_type=error_type,
            error_class=error_class,
            http_status=call.http_status if call.http_status is not None else http_status,
            outcome="cancelled" if error_class == "cancelled" else "error",
        )


def expire(before_ns: int, limit: int, connection: sqlite3.Connection) -> int:
    """Forget what was told before a time; the calls keep what they took of it."""
    return connection.execute(
        "DELETE FROM call_failures WHERE (trace_id, span_id, project_id) IN"
        " (SELECT trace_id, span_id, project_id FROM call_failures WHERE told_ns < ? LIMIT ?)",
        (before_ns, limit),
    ).rowcount
