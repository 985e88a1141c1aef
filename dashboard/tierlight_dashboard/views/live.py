"""The live tail: calls as they arrive, over server-sent events; without script a list to reload."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from jinja2 import Template

from tierlight_collector.records import CallEvidence, CallRow

from .shell import Formats
from .site import Site
from .urlstate import State

FIRST_ROWS: Final = 30
AT_ONCE: Final = 20
LOOK_EVERY_S: Final = 0.5
STREAM_S: Final = 600.0  # then the browser connects anew: a stream must not outlive every restart
BEHIND: Final = 200


def matches(call: CallEvidence, state: State) -> bool:
    """Whether a call passes the filters in the address."""
    routes = state.filters.get("route", ())
    return (not routes or call.route in routes) and (state.get("status") != "error" or bool(call.error_class))


def rows_of_page(site: Site, state: State) -> list[CallRow]:
    """The newest calls at the moment of loading."""
    where = state.where(purpose=(), error=True if state.get("status") == "error" else None)
    return list(site.store.calls(where, limit=FIRST_ROWS).rows)


def event(ident: int, html: str) -> str:
    """One server-sent event; a line break in the text starts a new data line."""
    data = "".join(f"data: {line}\n" for line in html.splitlines() if line.strip())
    return f"id: {ident}\n{data}\n"


def router(site: Site) -> APIRouter:
    pages = APIRouter()

    @pages.get("/live")
    def live(request: Request) -> Response:
        state = site.state(request)
        rows = rows_of_page(site, state)
        model: dict[str, Any] = {
            "rows": rows,
            "after": max((row.seq for row in rows), default=0),
            "routes": sorted(r.route for r in site.routes())[:500],
        }
        return site.render(request, "live.html", state=state, page="live", title="Live", model=model)

    @pages.get("/live/stream")
    def stream(request: Request, after: int = 0) -> Response:
        state = site.state(request, apart=("after",))
        seen = request.headers.get("Last-Event-ID", "")
        start = int(seen) if seen.isascii() and seen.isdigit() and len(seen) < 18 else max(0, after)
        headers = {"X-Accel-Buffering": "no"}
        return StreamingResponse(
            _events(request, state, start), media_type="text/event-stream", headers=headers
        )

    async def _events(request: Request, state: State, after: int) -> AsyncIterator[str]:
        template = site.env.get_template("_live_rows.html")
        formats = site.formats(state)
        yield "retry: 1000\n\n"
        waited = 0.0
        while waited < STREAM_S and not await request.is_disconnected():
            found = await asyncio.to_thread(site.store.call_evidence, after, BEHIND)
            if found:
                after = found[-1].seq
                text = _rows(template, formats, state, [c for c in found if matches(c, state)])
                if text:
                    yield event(after, text)
                # A reader that is far behind is told so and not buried: the next look takes what came since.
                waited += 0.05 if len(found) == BEHIND else LOOK_EVERY_S
                await asyncio.sleep(0.05 if len(found) == BEHIND else LOOK_EVERY_S)
                continue
            if int(waited) % 15 == 0 and waited - int(waited) < LOOK_EVERY_S:
                yield ": still here\n\n"
            waited += LOOK_EVERY_S
            await asyncio.sleep(LOOK_EVERY_S)

    def _rows(template: Template, formats: Formats, state: State, calls: list[CallEvidence]) -> str:
        shown = calls[-AT_ONCE:][::-1]
        if not shown:
            return ""
        return template.render(calls=shown, skipped=len(calls) - len(shown), f=formats, state=state)

    return pages
