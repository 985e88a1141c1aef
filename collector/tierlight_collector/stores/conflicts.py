"""Spans that came again under ids that are taken, and say something else: the first one stays, the others are counted.

A resend is equal to the last byte, so a difference means two senders with one id source, or a sender that changes a
span after sending it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from ..records import NormalisedSpan, SpanRecord
from . import blocks, reading

Key = tuple[bytes, bytes, int]  # trace, span, project

_FIND: Final = (
    "SELECT start_ns, parent_span_id FROM calls WHERE seq = ?1"
    " UNION ALL SELECT start_ns, parent_span_id FROM spans WHERE seq = ?1"
)


def conflicting(
    connection: sqlite3.Connection,
    again: Iterable[tuple[Key, int, NormalisedSpan]],
    fresh: Mapping[Key, SpanRecord],
) -> int:
    """How many of the spans differ from what came first under their ids: in the store, or among the `fresh` ones.

    The number beside a span is the arrival number of the first one. Spans whose first version is kept no longer cannot be
    told apart and are not counted.
    """
    differing = 0
    stored: list[tuple[int, SpanRecord]] = []
    for key, seq, each in again:
        span = each.span
        began_ns = each.call.start_ns if each.call is not None else span.start_ns
        first = fresh.get(key)
        if first is not None:
            differing += _plain(first) != _plain(span)
            continue
        start_ns, parent = connection.execute(_FIND, (seq,)).fetchone()
        if (start_ns, parent or b"") != (began_ns, span.parent_span_id):
            differing += 1
        else:
            stored.append((seq, span))
    if stored:
        items = reading.items_of(connection, "span_blocks", [seq for seq, _ in stored])
        differing += sum(seq in items and items[seq][1:] != _plain(span)[3:] for seq, span in stored)
    return differing


def _plain(span: SpanRecord) -> Sequence[Any]:
    """What a span says, in the words of a block."""
    return [span.start_ns, span.parent_span_id, *blocks.plain(blocks.span_item(0, span))]
