"""New costs for stored calls, with the old ones kept."""

# ruff: noqa: S608 - only conditions on our own columns are put into statements; values are bound

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from ..costing import PRICE_ESTIMATED
from ..records import HOUR_NS, CallRecord, CostChange, PastCost
from . import tables
from .dirty import DirtyHours
from .intern import Dictionary, Interner

_IN_TRACE: Final = tables.has_id("trace_id", "?1", runs=tables.given_runs("?4"))
_NO_CALL: Final = CallRecord(
    trace_id=b"",
    span_id=b"",
    parent_span_id=b"",
    name="",
    start_ns=0,
    arrived_ns=0,
    duration_ns=None,
    ttft_ns=None,
    operation="chat",
    provider="",
    request_model="",
    response_model="",
    route="",
    route_source="",
    tier="",
)


def reprice(
    connection: sqlite3.Connection, dirty: DirtyHours, changes: Sequence[CostChange], now_ns: int
) -> int:
    """Write the changes in the open transaction; the hours they touch are recounted."""
    # Own ones: what they remember must not outlive a rollback of this transaction.
    interner, dictionary = Interner(connection), Dictionary()
    dirty.now_ns = now_ns
    changed = 0
    for change in changes:
        row = connection.execute(
            "SELECT origin_id, start_ns, cost_nusd FROM calls WHERE seq = ?", (change.seq,)
        ).fetchone()
        if row is None:
            continue
        origin_id, start_ns, old_nusd = row
        origin = dictionary.origin(connection, origin_id)
        flags = tuple(flag for flag in origin["flags"] if flag != PRICE_ESTIMATED)
        new_origin_id = interner.origin(
            replace(
                _NO_CALL,
                **{
                    **origin,
                    "cost_source": change.cost_source,
                    "price_version": change.price_version,
                    "unpriced_reason": change.unpriced_reason,
                    "flags": (*flags, PRICE_ESTIMATED) if change.is_estimated else flags,
                },
            )
        )
        connection.execute(
            "UPDATE calls SET origin_id = ?, cost_nusd = ?, cost_input_nusd = ?, cost_cached_nusd = ?,"
            " cost_cache_write_nusd = ?, cost_output_nusd = ? WHERE seq = ?",
            (
                new_origin_id,
                change.cost_nusd,
                change.cost_input_nusd,
                change.cost_cached_nusd,
                change.cost_cache_write_nusd,
                change.cost_output_nusd,
                change.seq,
            ),
        )
        connection.execute(
            tables.insert(tables.CostHistory),
            (
                None,
                change.seq,
                now_ns,
                old_nusd,
                origin["cost_source"],
                origin["price_version"],
                origin["unpriced_reason"],
            ),
        )
        dirty.mark(start_ns // HOUR_NS)
        changed += 1
    return changed


def history(
    connection: sqlite3.Connection, trace_id: bytes, span_id: bytes, project: str, runs: str | None
) -> list[PastCost]:
    """The past costs of a call, oldest first."""
    return [
        PastCost(*row)
        for row in connection.execute(
            "SELECT h.changed_ns, h.cost_nusd, h.cost_source, h.price_version, h.unpriced_reason"
            f" FROM calls c JOIN cost_history h ON h.call_seq = c.seq WHERE {_IN_TRACE}"
            " AND c.span_id = ?2 AND c.project_id = (SELECT id FROM projects WHERE name = ?3) ORDER BY h.id",
            (trace_id, span_id, project, runs),
        )
    ]
