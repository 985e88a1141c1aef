"""Indexes on ids begin with the run of arrival numbers, so that a new entry costs the same at every size.

The tables are written anew: their unique constraint on (trace, span, project) was such an index. The filters of the
runs are made at the first start, see `runs`.
"""

# ruff: noqa: S608 - only names of our own tables are put into statements

from __future__ import annotations

import sqlite3

_RUNS = (
    "CREATE TABLE arrival_runs (run INTEGER NOT NULL, oldest_ns INTEGER NOT NULL, newest_ns INTEGER NOT NULL,"
    " traces BLOB, PRIMARY KEY (run))"
)
_INDEXES = {
    "calls": (
        "CREATE INDEX ix_calls_anonymous ON calls (start_ns) WHERE response_id IS NULL",
        "CREATE INDEX ix_calls_call ON calls (substr(call_id, 1, 18)) WHERE call_id IS NOT NULL",
        "CREATE INDEX ix_calls_kind_start ON calls (kind_id, start_ns)",
        "CREATE INDEX ix_calls_response ON calls ((seq >> 13), substr(response_id, -8)) WHERE response_id IS NOT NULL",
        "CREATE INDEX ix_calls_session ON calls ((seq >> 13), substr(session_id, -8)) WHERE session_id IS NOT NULL",
        "CREATE INDEX ix_calls_start ON calls (start_ns)",
        "CREATE INDEX ix_calls_trace ON calls ((seq >> 13), substr(trace_id, -8))",
        "CREATE INDEX ix_calls_user ON calls ((seq >> 13), substr(user_id, -8)) WHERE user_id IS NOT NULL",
    ),
    "spans": (
        "CREATE INDEX ix_spans_start ON spans (start_ns)",
        "CREATE INDEX ix_spans_trace ON spans ((seq >> 13), substr(trace_id, -8))",
    ),
}


def migrate(connection: sqlite3.Connection) -> None:
    for table, indexes in _INDEXES.items():
        (made_by,) = connection.execute(
            "SELECT sql FROM sqlite_master WHERE type = 'table' AND name = ?", (table,)
        ).fetchone()
        connection.execute(f"ALTER TABLE {table} RENAME TO before_runs")
        connection.execute(made_by.replace(", UNIQUE (trace_id, span_id, project_id)", ""))
        connection.execute(f"INSERT INTO {table} SELECT * FROM before_runs ORDER BY seq")
        connection.execute("DROP TABLE before_runs")
        for index in indexes:
            connection.execute(index)
    connection.execute(_RUNS)
    connection.execute("CREATE INDEX ix_arrival_runs_time ON arrival_runs (newest_ns, oldest_ns)")
    connection.execute(
        "INSERT INTO arrival_runs (run, oldest_ns, newest_ns) SELECT seq >> 13, min(start_ns), max(start_ns) FROM"
        " (SELECT seq, start_ns FROM calls UNION ALL SELECT seq, start_ns FROM spans) GROUP BY seq >> 13"
    )
