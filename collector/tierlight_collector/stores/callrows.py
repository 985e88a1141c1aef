"""A call as a row of `calls`, and back."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Any, Final

from ..records import CallRecord
from ..rollup import bin_of_ns
from . import tables
from .intern import Dictionary, Interner

COLUMNS: Final = tables.columns(tables.Call)
SELECT_FROM: Final = f"SELECT {', '.join('c.' + name for name in COLUMNS)} FROM"
SELECT: Final = f"{SELECT_FROM} calls c"
_AT: Final = {name: index for index, name in enumerate(COLUMNS)}

SEQ: Final = _AT["seq"]
KIND_ID: Final = _AT["kind_id"]
HINT_ID: Final = _AT["hint_id"]
SUPERSEDED_BY: Final = _AT["superseded_by"]
TAKEN: Final = _AT["taken"]

_NUMBERS: Final = (
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "cache_write_input_tokens",
    "cache_write_1h_input_tokens",
    "reasoning_tokens",
    "attempt_index",
    "act_prob",
    "keep_prob",
    "cost_nusd",
    "cost_input_nusd",
    "cost_cached_nusd",
    "cost_cache_write_nusd",
    "cost_output_nusd",
    "wire_cost_nusd",
)
_numbers_of = attrgetter(*_NUMBERS)
_TEXTS: Final = ("response_id", "call_id", "session_id", "user_id")
_plain_fields = tuple(
    (name, _AT[name])
    for name in (
        "trace_id",
        "span_id",
        "parent_span_id",
        "start_ns",
        "arrived_ns",
        "duration_ns",
        "ttft_ns",
        *_NUMBERS,
    )
)
_text_fields = tuple((name, _AT[name]) for name in _TEXTS)


def row_of_call(
    seq: int,
    project_id: int,
    call: CallRecord,
    hint_id: int,
    interner: Interner,
    superseded_by: int | None = None,
    taken: str | None = None,
) -> tuple[Any, ...]:
    duration_ns, ttft_ns = call.duration_ns, call.ttft_ns
    return (
        seq,
        project_id,
        call.trace_id,
        call.span_id,
        call.parent_span_id,
        interner.kind(call),
        interner.origin(call),
        hint_id,
        call.start_ns,
        call.arrived_ns,
        duration_ns,
        ttft_ns,
        None if duration_ns is None else bin_of_ns(duration_ns),
        None if ttft_ns is None else bin_of_ns(ttft_ns),
        *_numbers_of(call),
        call.response_id or None,
        call.call_id or None,
        call.session_id or None,
        call.user_id or None,
        superseded_by,
        taken,
    )


def call_of_row(connection: sqlite3.Connection, row: Sequence[Any], dictionary: Dictionary) -> CallRecord:
    """The call as it counts: routes settled, and gaps filled from its duplicates."""
    kinds = dictionary.known_kinds
    kind = kinds.get(row[KIND_ID]) or dictionary.kinds(connection)[row[KIND_ID]]
    values: dict[str, Any] = {
        **kind.values,
        **dictionary.origin(connection, row[_AT["origin_id"]]),
    }
    for name, at in _plain_fields:
        values[name] = row[at]
    for name, at in _text_fields:
        values[name] = row[at] or ""
    return CallRecord(**values)


def with_verdict(call: CallRecord, route: str, route_source: str, flags: tuple[str, ...]) -> CallRecord:
    """The call under its settled route; the same object when that changes nothing."""
    own = tuple(flag for flag in call.flags if flag != "dup_suspect")
    if (call.route, call.route_source, call.flags) == (route, route_source, own + flags):
        return call
    return replace(call, route=route, route_source=route_source, flags=own + flags)
