"""One call with its trace: what was tried, what it cost, what was said."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import quote, urlsplit

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import Response

from tierlight.pricing import PriceRow
from tierlight_collector.decisions import AuditEntry
from tierlight_collector.records import CallRow, Cursor, SpanRecord

from . import fmt
from .calls import milliseconds
from .site import WHO, Site
from .urlstate import State

MOST_SPANS = 500
MOST_TEXT = 20_000
KINDS = {
    "route": "route",
    "attempt": "call",
    "rejected": "rejected",
    "error": "failed",
    "fallback": "fallback",
    "judge": "judge",
    "other": "other",
}


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


@dataclass(frozen=True, slots=True)
class Message:
    """What one role said; tool calls apart, folded."""

    role: str
    text: str
    tools: tuple[tuple[str, str], ...]
    is_cut: bool


class CallPage:
    """The parts of the page."""

    def __init__(self, site: Site, state: State, trace_id: bytes, span_id: bytes | None) -> None:
        self.site, self.state, self.trace_id = site, state, trace_id
        self.spans = site.store.trace(trace_id, MOST_SPANS)
        self.span_id = span_id if span_id is not None else self._first_call()
        self.row: CallRow | None = None if self.span_id is None else site.store.call(trace_id, self.span_id)

    def _first_call(self) -> bytes | None:
        for span in self.spans:
            if self.site.store.call(self.trace_id, span.span_id) is not None:
                return span.span_id
        return None

    @property
    def found(self) -> bool:
        return bool(self.spans) or self.row is not None

    @cached_property
    def span(self) -> SpanRecord | None:
        return next((s for s in self.spans if s.span_id == self.span_id), None)

    # ---- waterfall ---------------------------------------------------------------------------------------

    @cached_property
    def tree(self) -> tuple[Node, ...]:
        if not self.spans:
            return ()
        start = min(s.start_ns for s in self.spans)
        length = max(max(s.end_ns, s.start_ns) for s in self.spans) - start or 1
        calls = {s.span_id: self.site.store.call(self.trace_id, s.span_id) for s in self.spans[:60]}
        ids = {s.span_id for s in self.spans}
        below: dict[bytes, list[SpanRecord]] = {}
        for s in self.spans:
            parent = s.parent_span_id if s.parent_span_id in ids and s.parent_span_id != s.span_id else b""
            below.setdefault(parent, []).append(s)
        placed: set[bytes] = set()

        def node(s: SpanRecord, depth: int) -> Node:
            placed.add(s.span_id)
            row = calls.get(s.span_id)
            kind, words = _kind(s, row)
            children = [c for c in below.get(s.span_id, ()) if c.span_id not in placed] if depth < 40 else []
            return Node(
                s,
                kind,
                words,
                (s.start_ns - start) / length,
                max(0, s.end_ns - s.start_ns) / length,
                None if row is None else row.call.cost_nusd,
                row is not None,
                tuple(node(c, depth + 1) for c in children if c.span_id not in placed),
            )

        return tuple(node(s, 0) for s in below.get(b"", ()))

    @property
    def is_cut(self) -> bool:
        return len(self.spans) >= MOST_SPANS

    @property
    def parent_missing(self) -> bool:
        ids = {s.span_id for s in self.spans}
        return any(s.parent_span_id.strip(b"\0") and s.parent_span_id not in ids for s in self.spans)

    @cached_property
    def total_cost(self) -> int | None:
        costs = [n.cost_nusd for n in _flat(self.tree) if n.cost_nusd is not None]
        return sum(costs) if costs else None

    # ---- tabs --------------------------------------------------------------------------------------------

    @cached_property
    def messages(self) -> list[Message]:
        if self.span_id is None:
            return []
        order = {"system": 0, "prompt": 1, "completion": 2, "tools": 3}
        found: list[Message] = []
        for content in sorted(
            self.site.store.contents(self.trace_id, self.span_id), key=lambda c: order[c.kind]
        ):
            role = {"completion": "assistant", "prompt": "user"}.get(content.kind, content.kind)
            found += read_messages(content.body, role, content.truncated)
        return found

    @cached_property
    def attributes(self) -> list[tuple[str, str]]:
        if self.span is None:
            return []
        wanted = self.state.get("q").casefold()
        pairs = [
            (fmt.visible(k), fmt.readable(_plain(v))[:MOST_TEXT])
            for k, v in sorted(self.span.attributes.items())
        ]
        return [(k, v) for k, v in pairs if wanted in k.casefold() or wanted in v.casefold()]

    @cached_property
    def price(self) -> PriceRow | None:
        if self.row is None:
            return None
        call = self.row.call
        return self.site.book.quote(call.provider, call.model, call.start_ns)

    @cached_property
    def cost_lines(self) -> list[tuple[str, int | None, str, int | None]]:
        """(what, tokens, dollars per million, nano-dollars) of the call."""
        if self.row is None:
            return []
        c, p = self.row.call, self.price

        def unit(name: str) -> str:
            value = None if p is None else getattr(p, name)
            return fmt.UNKNOWN if value is None else f"${value.normalize():f}"

        cached, written = c.cached_input_tokens or 0, c.cache_write_input_tokens or 0
        fresh = None if c.input_tokens is None else max(0, c.input_tokens - cached - written)
        return [
            ("input, not cached", fresh, unit("input_usd"), c.cost_input_nusd),
            ("input, from cache", c.cached_input_tokens, unit("cached_usd"), c.cost_cached_nusd),
            (
                "input, written to cache",
                c.cache_write_input_tokens,
                unit("cache_write_usd"),
                c.cost_cache_write_nusd,
            ),
            ("output", c.output_tokens, unit("output_usd"), c.cost_output_nusd),
        ]

    @cached_property
    def raw(self) -> str:
        """The received span as JSON, without captured texts."""
        if self.span is None:
            return ""
        s = self.span
        plain = {
            "trace_id": s.trace_id.hex(), "span_id": s.span_id.hex(), "parent_span_id": s.parent_span_id.hex(), "name": s.name, "kind": s.kind,
            "start": fmt.iso(s.start_ns), "end": fmt.iso(s.end_ns), "status_code": s.status_code, "status_message": s.status_message,
            "scope": s.scope, "attributes": s.attributes, "resource": s.resource.attributes,
        }  # fmt: skip
        return fmt.readable(json.dumps(plain, indent=2, default=repr, ensure_ascii=False))[:MOST_TEXT]

    def neighbour(self, direction: str) -> str:
        """The next older or newer call of the same route."""
        if self.row is None:
            return ""
        call = self.row.call
        page = self.site.store.calls(
            self.state.where(route=(call.route,), purpose=(call.purpose,), env=()),
            after=Cursor(call.start_ns, self.row.seq),
            limit=1,
            descending=direction == "older",
        )
        if not page.rows:
            return ""
        there = page.rows[0].call
        return self.state.carried(
            f"/calls/{there.trace_id.hex()}/{there.span_id.hex()}", tab=self.state.values.get("tab")
        )

    @property
    def backend_url(self) -> str:
        """The trace in another backend, from the template in the settings; only ever http(s)."""
        template = self.site.preferences().trace_url
        if "{trace_id}" not in template or urlsplit(template).scheme not in ("http", "https"):
            return ""
        return template.replace("{trace_id}", quote(self.trace_id.hex()))


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


def _plain(value: object) -> str:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, str):
        return value
    return json.dumps(value, default=repr, ensure_ascii=False)


def read_messages(body: str, role: str, truncated: bool) -> list[Message]:
    """Messages from a captured body: the conventions' JSON, a plain list of role and content, or plain text."""
    try:
        parsed = json.loads(body)
    except ValueError:
        parsed = body
    if isinstance(parsed, Mapping) and isinstance(parsed.get("messages"), list):
        parsed = parsed["messages"]
    if isinstance(parsed, list) and parsed and all(isinstance(m, Mapping) for m in parsed):
        if all("type" in m and "role" not in m for m in parsed):  # bare parts
            return [_message(role, parsed, truncated)]
        return [
            _message(str(m.get("role", role)), m.get("parts", m.get("content", "")), truncated)
            for m in parsed
        ]
    return [_message(role, parsed, truncated)]


def _message(role: str, content: object, truncated: bool) -> Message:
    texts: list[str] = []
    tools: list[tuple[str, str]] = []
    for part in content if isinstance(content, list) else [content]:
        if isinstance(part, Mapping):
            kind = str(part.get("type", ""))
            if kind.startswith("tool"):
                name = str(part.get("name") or part.get("id") or kind)
                body = part.get(
                    "arguments", part.get("response", part.get("result", part.get("content", "")))
                )
                tools.append((fmt.visible(f"{kind}: {name}", 80), fmt.readable(_plain(body))[:MOST_TEXT]))
                continue
            text = part.get("content", part.get("text"))
            texts.append(text if isinstance(text, str) else _plain(part))
        else:
            texts.append(_plain(part))
    text = fmt.readable("\n".join(texts))
    return Message(fmt.visible(role, 40), text[:MOST_TEXT], tuple(tools), truncated or len(text) > MOST_TEXT)


def read_id(text: str, length: int) -> bytes:
    """A trace or span id from a URL.

    Raises:
        HTTPException: 404, it is no id.
    """
    if not re.fullmatch(f"[0-9a-f]{{{2 * length}}}", text):
        raise HTTPException(404, "This is not an id of a call or a trace.")
    return bytes.fromhex(text)


def router(site: Site) -> APIRouter:
    pages = APIRouter()

    def show(request: Request, trace: str, span: str | None) -> Response:
        state = site.state(request)
        page = CallPage(site, state, read_id(trace, 16), None if span is None else read_id(span, 8))
        if not page.found or (span is not None and page.row is None and page.span is None):
            raise HTTPException(
                404, "This call is not stored: it was never received, or its retention has passed."
            )
        if state.get("tab") == "messages" and page.messages:
            # Reading captured text leaves a trace of its own; the entry never holds the text.
            site.store.record_audit(AuditEntry(site.now_ns, WHO, "read content", f"{trace}/{span or ''}"))
        title = page.row.call.route if page.row is not None else f"trace {trace[:8]}"
        return site.render(
            request, "call.html", state=state, page="calls", title=title, blocks=("detail",),
            model={"p": page, "ms": milliseconds, "kinds": KINDS},
        )  # fmt: skip

    @pages.get("/calls/{trace}/{span}")
    def call(request: Request, trace: str, span: str) -> Response:
        return show(request, trace, span)

    @pages.get("/traces/{trace}")
    def trace(request: Request, trace: str) -> Response:
        return show(request, trace, None)

    return pages
