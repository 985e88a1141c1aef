"""A table for what log events tell of failed calls."""

from __future__ import annotations

import sqlite3


def migrate(connection: sqlite3.Connection) -> None:
    connection.execute(
        "CREATE TABLE call_failures (trace_id BLOB NOT NULL, span_id BLOB NOT NULL, project_id INTEGER NOT NULL,"
        " error_type VARCHAR NOT NULL, error_class VARCHAR NOT NULL, http_status INTEGER,"
        " told_ns INTEGER NOT NULL, PRIMARY KEY (trace_id, span_id, project_id)) WITHOUT ROWID"
    )
    connection.execute("CREATE INDEX ix_call_failures_told ON call_failures (told_ns)")
