"""One call with its trace: what was tried, what it cost, what was said.

Captured text is shown on request alone: the page says how much there is, and the form that asks for it leaves an entry
in the audit log.
"""

from __future__ import annotations

import json
import re
from functools import cached_property
from urllib.parse import quote, urlsplit

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import Response

from tierlight.pricing import PriceRow
from tierlight_collector.decisions import AuditEntry
from tierlight_collector.records import CallRow, Cursor, Filters, SpanRecord

from . import fmt
from .calls import milliseconds
from .messages import MOST_TEXT, Message, plain, read_messages
from .site import WHO, Site
from .urlstate import State
from .waterfall import Waterfall

MOST_SPANS = 5_000


class CallPage:
    """The parts of the page."""

    def __init__(
        self, site: Site, state: State, trace_id: bytes, span_id: bytes | None, is_revealed: bool = False
    ) -> None:
        self.site, self.state, self.trace_id, self.is_revealed = site, state, trace_id, is_revealed
        self.spans = site.store.trace(trace_id, MOST_SPANS)
        self.span_id = span_id if span_id is not None else self._first_call()
        self.row: CallRow | None = None if self.span_id is None else site.store.call(trace_id, self.span_id)

    @cached_property
    def calls(self) -> dict[bytes, CallRow]:
        """The calls of the trace that count, by span."""
        found: dict[bytes, CallRow] = {}
        after: Cursor | None = None
        where = Filters(text=self.trace_id.hex(), purpose=())
        while True:
            page = self.site.store.calls(where, after=after, limit=500, descending=False)
            found |= {row.call.span_id: row for row in page.rows if row.call.trace_id == self.trace_id}
            after = page.next
            if after is None or len(found) >= MOST_SPANS:
                return found

    def _first_call(self) -> bytes | None:
        return next((span.span_id for span in self.spans if span.span_id in self.calls), None)

    @property
    def found(self) -> bool:
        return bool(self.spans) or self.row is not None

    @cached_property
    def span(self) -> SpanRecord | None:
        return next((s for s in self.spans if s.span_id == self.span_id), None)

    # ---- waterfall ---------------------------------------------------------------------------------------

    @cached_property
    def waterfall(self) -> Waterfall:
        return Waterfall(self.spans, self.calls, self.state.get("open"))

    @property
    def is_cut(self) -> bool:
        return len(self.spans) >= MOST_SPANS

    @property
    def parent_missing(self) -> bool:
        ids = {s.span_id for s in self.spans}
        return any(s.parent_span_id.strip(b"\0") and s.parent_span_id not in ids for s in self.spans)

    @cached_property
    def total_cost(self) -> int | None:
        costs = [row.call.cost_nusd for row in self.calls.values() if row.call.cost_nusd is not None]
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
    def sizes(self) -> list[str]:
        """How much each role said, without a word of it."""
        return [
            f"{message.role}: {fmt.plural(len(message.whole), 'character')}"
            + (f", {fmt.plural(len(message.tools), 'tool call')}" if message.tools else "")
            + (f", {fmt.plural(message.masks, 'masked part')}" if message.masks else "")
            for message in self.messages[:30]
        ]

    @cached_property
    def whole_text(self) -> str:
        """All that was captured, as a text file."""
        parts = []
        for message in self.messages:
            tools = "".join(f"\n\n{name}\n{body}" for name, body in message.tools)
            parts.append(f"{message.role}\n\n{message.whole}{tools}")
        return "\n\n----\n\n".join(parts) + "\n"

    @cached_property
    def attributes(self) -> list[tuple[str, str]]:
        if self.span is None:
            return []
        wanted = self.state.get("q").casefold()
        pairs = [
            (fmt.visible(k), fmt.readable(plain(v))[:MOST_TEXT])
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

    def opened(request: Request, trace: str, span: str | None, is_revealed: bool = False) -> CallPage:
        ids = read_id(trace, 16), None if span is None else read_id(span, 8)
        page = CallPage(site, site.state(request), *ids, is_revealed)
        if not page.found or (span is not None and page.row is None and page.span is None):
            raise HTTPException(
                404, "This call is not stored: it was never received, or its retention has passed."
            )
        return page

    def show(request: Request, page: CallPage) -> Response:
        trace = page.trace_id.hex()
        span = "" if page.span_id is None else page.span_id.hex()
        own = {
            "home": f"/calls/{trace}/{span}"
            if request.url.path.startswith("/calls/")
            else f"/traces/{trace}",
            "reveal": f"/calls/{trace}/{span}/reveal",
            "download": f"/calls/{trace}/{span}/text",
        }
        title = page.row.call.route if page.row is not None else f"trace {trace[:8]}"
        return site.render(
            request, "call.html", state=page.state, page="calls", title=title, blocks=("detail",),
            replace_url=not page.is_revealed, model={"p": page, "ms": milliseconds, "most": MOST_TEXT, **own},
        )  # fmt: skip

    def note(page: CallPage, action: str) -> None:
        """Reading captured text leaves a trace of its own; the entry never holds the text."""
        span = "" if page.span_id is None else page.span_id.hex()
        site.store.record_audit(AuditEntry(site.now_ns, WHO, action, f"{page.trace_id.hex()}/{span}"))

    @pages.get("/calls/{trace}/{span}")
    def call(request: Request, trace: str, span: str) -> Response:
        return show(request, opened(request, trace, span))

    @pages.get("/traces/{trace}")
    def trace(request: Request, trace: str) -> Response:
        return show(request, opened(request, trace, None))

    @pages.post("/calls/{trace}/{span}/reveal")
    async def reveal(request: Request, trace: str, span: str) -> Response:
        await site.form(request)

        def shown() -> Response:
            page = opened(request, trace, span, is_revealed=True)
            if page.messages:
                note(page, "read content")
            return show(request, page)

        return await site.aside(shown)

    @pages.post("/calls/{trace}/{span}/text")
    async def download(request: Request, trace: str, span: str) -> Response:
        await site.form(request)

        def whole() -> Response:
            page = opened(request, trace, span)
            if not page.messages:
                raise HTTPException(404, "No text of this call is stored.")
            note(page, "download content")
            headers = {"Content-Disposition": f'attachment; filename="call-{trace[:8]}-{span[:8]}.txt"'}
            return Response(page.whole_text, media_type="text/plain; charset=utf-8", headers=headers)

        return await site.aside(whole)

    return pages
