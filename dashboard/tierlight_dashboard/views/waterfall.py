"""The waterfall of a trace: its spans from the top down, as many as a page can show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from tierlight_collector.records import CallRow, SpanRecord

from . import fmt

MOST_ROWS = 400  # of the waterfall; what lies deeper is folded
DEEPEST = 40


@dataclass(frozen=True, slots=True)
class Node:
    """One span of the waterfall; `kind` is told by colour and by word."""

    span: SpanRecord
    kind: str
    words: str
    start: float  # 0..1 of the trace
    length: float
    cost_nusd: int | None
    is_call: bool
    children: tuple[Node, ...]
    folded: int  # spans below it that are not among them


class Waterfall:
    """The spans of one trace; `opened` is the id in hex of the span whose branch is wanted, "" for the whole.

    Args:
        calls: The calls among the spans, by span.
    """

    def __init__(self, spans: Sequence[SpanRecord], calls: Mapping[bytes, CallRow], opened: str) -> None:
        self.spans, self.calls, self._wanted = spans, calls, opened

    @cached_property
    def tree(self) -> tuple[Node, ...]:
        """The spans from the top down, as many as a page can show; of what lies deeper the numbers."""
        if not self.spans:
            return ()
        start = min(s.start_ns for s in self.spans)
        length = max(max(e.end_ns, e.start_ns) for e in self.spans) - start or 1
        below, roots = self._below
        order: list[SpanRecord] = []
        depth: dict[bytes, int] = {}
        level = [self._opened] if self._opened is not None else roots
        while level:  # level by level: the top of every branch is seen before the depth of one
            fresh = [s for s in level if s.span_id not in depth]
            depth |= {s.span_id: depth.get(s.parent_span_id, -1) + 1 for s in fresh}
            order += fresh
            level = [child for s in fresh for child in below.get(s.span_id, ())]
        kept = {s.span_id for s in order[:MOST_ROWS] if depth[s.span_id] <= DEEPEST}
        size = {s.span_id: 1 for s in order}
        for s in reversed(order):
            if depth[s.span_id] and s.parent_span_id in size:
                size[s.parent_span_id] += size[s.span_id]
        placed: set[bytes] = set()

        def node(s: SpanRecord) -> Node:
            placed.add(s.span_id)
            row = self.calls.get(s.span_id)
            kind, words = _kind(s, row)
            under = [c for c in below.get(s.span_id, ()) if depth.get(c.span_id) == depth[s.span_id] + 1]
            return Node(
                s,
                kind,
                words,
                (s.start_ns - start) / length,
                max(0, s.end_ns - s.start_ns) / length,
                None if row is None else row.call.cost_nusd,
                row is not None,
                tuple(node(c) for c in under if c.span_id in kept and c.span_id not in placed),
                sum(size[c.span_id] for c in under if c.span_id not in kept),
            )

        return tuple(node(s) for s in order if s.span_id in kept and depth[s.span_id] == 0)

    @cached_property
    def _below(self) -> tuple[dict[bytes, list[SpanRecord]], list[SpanRecord]]:
        """(children by parent, spans without a parent that is here); where all have one, the earliest is taken."""
        ids = {s.span_id for s in self.spans}
        below: dict[bytes, list[SpanRecord]] = {}
        roots = []
        for s in self.spans:
            if s.parent_span_id in ids and s.parent_span_id != s.span_id:
                below.setdefault(s.parent_span_id, []).append(s)
            else:
                roots.append(s)
        return below, roots or list(self.spans[:1])

    @cached_property
    def _opened(self) -> SpanRecord | None:
        """The span whose branch the address asks for."""
        return next((s for s in self.spans if s.span_id.hex() == self._wanted), None)

    @property
    def is_branch(self) -> bool:
        return self._opened is not None

    @property
    def rest(self) -> int:
        """Spans at the top that are not shown."""
        shown = sum(1 + n.folded for n in _flat(self.tree))
        return 0 if self.is_branch else max(0, len(self.spans) - shown)


def _kind(span: SpanRecord, row: CallRow | None) -> tuple[str, str]:
    if row is None:
        is_route = span.attributes.get("tierlight.span.role") == "route"
        return ("route", "route") if is_route else ("other", fmt.visible(span.scope, 30) or "span")
    call = row.call
    model = fmt.visible(call.model, 40) or "unknown model"
    number = f"try {call.attempt_index + 1}"
    if call.purpose == "judge":
        return "judge", f"judge · {model}"
    if call.error_type:
        return "error", f"{number} · {model} · failed: {fmt.visible(call.error_type, 60)}"
    if call.outcome == "rejected":
        names = span.attributes.get("tierlight.validator.names")
        by = (
            ", ".join(str(n) for n in names)
            if isinstance(names, Sequence) and not isinstance(names, str | bytes)
            else ""
        )
        return "rejected", f"{number} · {model} · rejected{f' by {fmt.visible(by, 60)}' if by else ''}"
    if call.attempt_reason == "fallback":
        return "fallback", f"{number} · {model} · fallback"
    words = f"{number} · {model}" if call.attempt_index or not call.attempt_final else model
    return "attempt", words + (
        f" · {call.attempt_reason}" if call.attempt_reason not in ("first", "") else ""
    )


def _flat(nodes: Sequence[Node]) -> list[Node]:
    return [n for node in nodes for n in (node, *_flat(node.children))]
