"""The HTTP API under /api/v1: calls, routes, rollups, alerts, recommendations as JSON; scores in; Prometheus text.

The dashboard mounts `api_router(store)` on its own port, behind the same guard. Every list is paged by a cursor that
is bound to its query; a parameter nobody reads is an error, not a surprise. Errors are `{"error": "..."}`.
"""

from __future__ import annotations

import base64
import hashlib
import html
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, Self, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import orjson
from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response
from fastapi._compat import ModelField
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from starlette.concurrency import run_in_threadpool

from tierlight._version import __version__

from .decisions import AlertState
from .errors import StoreBusy, StoreError
from .limits import KIB
from .metrics import GROUP_BY, prometheus_text
from .records import Cursor, Dim, Filters, Purpose, Rollup, ScoreKind, ScoreRecord, TimeRange
from .shapes import (
    Json,
    alert_json,
    call_detail_json,
    call_json,
    iso_time,
    recommendation_json,
    rollup_json,
    route_json,
)
from .stores.protocol import Order, Store

DAY_NS: Final = 86_400_000_000_000
MAX_RANGE_DAYS: Final = 400
MAX_LIMIT: Final = 1_000
MAX_SCORES: Final = 1_000
MAX_SCORE_BODY: Final = 1_024 * KIB

_T = TypeVar("_T")
Word = Annotated[str, Query(max_length=256)]
Words = Annotated[list[Annotated[str, Field(max_length=256)]], Query(max_length=100)]
Moment = Annotated[datetime | None, Query(description="ISO 8601; without a zone it is UTC")]


class BadQuery(HTTPException):
    """A parameter or body that means nothing here; the message says what was expected."""

    def __init__(self, message: str) -> None:
        super().__init__(400, message)


class ApiRoute(APIRoute):
    """A route whose errors are JSON, whose validation errors are 400, and that refuses parameters it does not know."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        handle = super().get_route_handler()
        params = list(_query_params(self.dependant))
        known = {field.alias for field in params}
        repeatable = {field.alias for field in params if "list" in str(field.field_info.annotation)}

        async def handle_strictly(request: Request) -> Response:
            try:
                for name in request.query_params:
                    if name not in known:
                        raise BadQuery(
                            f"unknown parameter {name[:40]!r}; known are {', '.join(sorted(known)) or 'none'}"
                        )
                    values = request.query_params.getlist(name)
                    if len(values) > 1 and name not in repeatable:
                        raise BadQuery(f"parameter {name!r} was given {len(values)} times, expected once")
                    if any("\x00" in value for value in values):
                        raise BadQuery(f"parameter {name!r} holds a NUL character")
                response: Response = await handle(request)
            except RequestValidationError as error:
                return _failed(400, _first_problem(error.errors()))
            except StoreBusy as error:
                busy = _failed(503, str(error))
                busy.headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s)))
                return busy
            except StoreError as error:
                return _failed(503, str(error))
            except HTTPException as error:
                return _failed(error.status_code, str(error.detail))
            return response

        return handle_strictly


def _query_params(dependant: Dependant) -> Iterator[ModelField]:
    """The parameters that a route declares, also by what it depends on."""
    yield from dependant.query_params
    for inner in dependant.dependencies:
        yield from _query_params(inner)


class ScoreIn(BaseModel):
    """One score of one call. Say which call by one of: call_id; trace_id and span_id; response_id; join_key and join_value."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    name: str = Field(
        min_length=1, max_length=128, description="what was judged, such as exact_match or csat"
    )
    value: float | None = Field(default=None, ge=0, le=1, description="0 is bad, 1 is good")
    label: str = Field(default="", max_length=256)
    call_id: str = Field(default="", max_length=256)
    trace_id: str = Field(default="", pattern="^([0-9a-fA-F]{32})?$")
    span_id: str = Field(default="", pattern="^([0-9a-fA-F]{16})?$")
    response_id: str = Field(default="", max_length=256)
    join_key: str = Field(default="", max_length=128)
    join_value: str = Field(default="", max_length=256)
    source: str = Field(
        default="api", max_length=128, description="who judged, such as judge:gpt-5 or feedback"
    )
    kind: ScoreKind = "feedback"
    explanation: str = Field(default="", max_length=4_000)
    evaluator_version: str = Field(default="", max_length=128)
    weight: float = Field(default=1.0, gt=0, le=1)

    @model_validator(mode="after")
    def _names_one_call(self) -> Self:
        if self.value is None and not self.label:
            raise ValueError("expected a value from 0 to 1 or a label")
        if bool(self.trace_id) != bool(self.span_id) or bool(self.join_key) != bool(self.join_value):
            raise ValueError("trace_id goes with span_id, join_key with join_value")
        if not (self.call_id or self.trace_id or self.response_id or self.join_key):
            raise ValueError(
                "expected call_id, trace_id and span_id, response_id, or join_key and join_value"
            )
        return self

    def record(self, now_ns: int) -> ScoreRecord:
        return ScoreRecord(
            name=self.name,
            value=self.value if self.value is not None else LABEL_VALUES.get(self.label.strip().lower()),
            source=self.source,
            kind=self.kind,
            time_ns=now_ns,
            call_id=self.call_id,
            trace_id=bytes.fromhex(self.trace_id),
            span_id=bytes.fromhex(self.span_id),
            response_id=self.response_id,
            join_key=self.join_key,
            join_value=self.join_value,
            label=self.label,
            explanation=self.explanation,
            evaluator_version=self.evaluator_version,
            weight=self.weight,
        )


LABEL_VALUES: Final[Mapping[str, float]] = {
    **dict.fromkeys(("pass", "passed", "true", "yes", "good", "correct", "positive", "thumbs_up"), 1.0),
    **dict.fromkeys(("fail", "failed", "false", "no", "bad", "incorrect", "negative", "thumbs_down"), 0.0),
}
_SCORES_IN: Final = TypeAdapter(list[ScoreIn])


def api_router(
    store: Store,
    *,
    counters: Callable[[], Mapping[str, int]] = dict,
    limits: Mapping[str, Any] | None = None,
    clock_ns: Callable[[], int] = time.time_ns,
) -> APIRouter:
    """The routes of the API, to be included by an app; `counters` and `limits` are those of the ingest."""
    router = APIRouter(route_class=ApiRoute)

    @router.get("/api/v1/calls", tags=["calls"])
    def list_calls(
        filters: Annotated[Filters, Depends(_call_filters)],
        order: Order = "time",
        descending: bool = True,
        limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 50,
        cursor: Word = "",
    ) -> JSONResponse:
        """Calls, newest first; superseded doubles are left out. `next` is the cursor of the next page, null at the end."""
        query = repr((filters, order, descending))
        page = store.calls(
            filters, after=_read_cursor(cursor, query), limit=limit, order=order, descending=descending
        )
        return _json(
            {"calls": [call_json(row) for row in page.rows], "next": _write_cursor(page.next, query)}
        )

    @router.get("/api/v1/calls/{trace_id}/{span_id}", tags=["calls"])
    def one_call(trace_id: str, span_id: str) -> JSONResponse:
        """One call with its scores and how it was attempted and read; never its content."""
        row = store.call(_hex_id(trace_id, 16), _hex_id(span_id, 8))
        if row is None:
            raise HTTPException(404, "no call with these ids is stored")
        return _json(call_detail_json(row))

    @router.get("/api/v1/routes", tags=["routes"])
    def list_routes(
        since: Annotated[Moment, Query(alias="from")] = None,
        until: Annotated[Moment, Query(alias="to")] = None,
        limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 200,
        cursor: Word = "",
    ) -> JSONResponse:
        """Every route that was seen, by name, with its sums over the range (the last 7 days if not said)."""
        when = _range(since, until, clock_ns())
        sums = {rollup.key[0]: rollup for rollup in store.rollups(when, ("route",), Filters())}
        infos = sorted(store.routes(), key=lambda info: info.route)
        page, following = _page(infos, cursor, limit, query="routes")
        return _json(
            {
                **_said(when),
                "routes": [route_json(info, sums.get(info.route, Rollup())) for info in page],
                "next": following,
            }
        )

    @router.get("/api/v1/rollups", tags=["rollups"])
    def list_rollups(
        filters: Annotated[Filters, Depends(_filters)],
        since: Annotated[Moment, Query(alias="from")] = None,
        until: Annotated[Moment, Query(alias="to")] = None,
        group_by: Annotated[list[Dim], Query(max_length=8)] = [],  # noqa: B006 - FastAPI copies it
        step: Literal["", "hour", "day"] = "",
        tz: Annotated[str, Query(max_length=64)] = "UTC",
        limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 1_000,
        cursor: Word = "",
    ) -> JSONResponse:
        """Counts, sums, percentiles and mean scores per combination of `group_by`, also per hour or local day."""
        when = _range(since, until, clock_ns())
        if len(set(group_by)) != len(group_by):
            raise BadQuery("group_by names a dimension twice")
        dims = tuple(group_by)
        if step:
            _known_zone(tz)
            rows = [
                {"at": at.isoformat(), **rollup_json(rollup, dims)}
                for at, rollup in store.series(when, step, tz, dims, filters)
            ]
        else:
            rows = [
                rollup_json(rollup, dims)
                for rollup in sorted(store.rollups(when, dims, filters), key=lambda rollup: rollup.key)
            ]
        query = repr((filters, since, until, dims, step, tz))
        page, following = _page(rows, cursor, limit, query=query)
        return _json({**_said(when), "rollups": page, "next": following})

    @router.get("/api/v1/alerts", tags=["alerts"])
    def list_alerts(
        route: Word | None = None,
        state: Annotated[list[AlertState], Query(max_length=3)] = [],  # noqa: B006 - FastAPI copies it
        limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 200,
        cursor: Word = "",
    ) -> JSONResponse:
        """Alerts, newest first: what changed, since when, by how much, and how sure that is."""
        alerts = sorted(
            store.alerts(route=route, states=tuple(state), limit=10_000), key=lambda alert: -alert.id
        )
        page, following = _page(alerts, cursor, limit, query=repr((route, state)))
        return _json({"alerts": [alert_json(alert) for alert in page], "next": following})

    @router.get("/api/v1/recommendations", tags=["recommendations"])
    def list_recommendations(
        route: Word | None = None,
        limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 200,
        cursor: Word = "",
    ) -> JSONResponse:
        """What to do with each route, with the reason and the evidence beside it."""
        found = sorted(store.recommendations(route=route), key=lambda one: one.id)
        page, following = _page(found, cursor, limit, query=repr(("recommendations", route)))
        return _json({"recommendations": [recommendation_json(one) for one in page], "next": following})

    @router.post(
        "/api/v1/scores",
        tags=["scores"],
        status_code=200,
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {
                        "schema": {
                            "oneOf": [ScoreIn.model_json_schema(), {"type": "array", "maxItems": MAX_SCORES}]
                        }
                    }
                },
            }
        },
    )
    async def add_scores(request: Request) -> JSONResponse:
        """Store one score or a list of them; a score of the same call, name and source replaces the older one.

        A score may come before its call and waits for it.
        """
        body = await _bounded_json(request)
        try:
            scores = _SCORES_IN.validate_python(body if isinstance(body, list) else [body])
        except ValidationError as error:
            raise BadQuery(_first_problem(error.errors())) from error
        if len(scores) > MAX_SCORES:
            raise BadQuery(f"expected at most {MAX_SCORES} scores, got {len(scores)}")
        now_ns = clock_ns()
        accepted = await run_in_threadpool(store.add_scores, [score.record(now_ns) for score in scores])
        return _json({"accepted": accepted})

    @router.get("/metrics", tags=["operation"])
    def metrics() -> PlainTextResponse:
        """Prometheus text: calls, tokens, cost, quality, open alerts by route; queue, drops and lag of the ingest."""
        text = prometheus_text(
            store.rollups(TimeRange(0, clock_ns() + DAY_NS), GROUP_BY, Filters()),
            store.routes(),
            store.alerts(states=("open", "recovering"), limit=10_000),
            store.health(),
            counters(),
        )
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    @router.get("/health", tags=["operation"])
    def health() -> JSONResponse:
        """State and counters of store and ingest; 503 while the store takes no writes."""
        state = store.health()
        document = {
            "state": state.state,
            "schema_version": state.schema_version,
            "calls": state.calls,
            "db_bytes": state.db_bytes,
            "wal_bytes": state.wal_bytes,
            "queue_bytes": state.queue_bytes,
            "commit_p50_ms": state.commit_p50_ms,
            "commit_p99_ms": state.commit_p99_ms,
            "last_error": state.last_error or None,
            "counters": {**state.counters, **counters()},
            "limits": dict(limits or {}),
        }
        return _json(document, status=200 if state.state == "ok" else 503)

    @router.get("/api/v1/openapi.json", tags=["operation"], include_in_schema=False)
    def openapi_document() -> JSONResponse:
        return _json(_openapi(router))

    @router.get("/api", tags=["operation"], include_in_schema=False)
    def openapi_page() -> HTMLResponse:
        return HTMLResponse(_openapi_html(_openapi(router)))

    return router


# ---- queries ---------------------------------------------------------------------------------------------


def _filters(
    env: Words = [],  # noqa: B006 - FastAPI copies it, here and below
    route: Words = [],  # noqa: B006
    provider: Words = [],  # noqa: B006
    model: Words = [],  # noqa: B006
    tier: Words = [],  # noqa: B006
    arm: Words = [],  # noqa: B006
    purpose: Annotated[list[Purpose], Query(max_length=5)] = ["production"],  # noqa: B006
) -> Filters:
    return Filters(
        env=tuple(env),
        route=tuple(route),
        provider=tuple(provider),
        model=tuple(model),
        tier=tuple(tier),
        arm=tuple(arm),
        purpose=tuple(purpose),
    )


def _call_filters(
    base: Annotated[Filters, Depends(_filters)],
    error: bool | None = None,
    unpriced: bool | None = None,
    q: Annotated[
        str, Query(max_length=256, description="exact trace, span, call, response, session or user id")
    ] = "",
    since: Annotated[Moment, Query(alias="from")] = None,
    until: Annotated[Moment, Query(alias="to")] = None,
) -> Filters:
    start_ns, end_ns = _ns(since) if since else 0, _ns(until) if until else 0
    if start_ns and end_ns and start_ns >= end_ns:
        raise BadQuery("expected from to be earlier than to")
    return Filters(
        env=base.env,
        route=base.route,
        provider=base.provider,
        model=base.model,
        tier=base.tier,
        arm=base.arm,
        purpose=base.purpose,
        error=error,
        unpriced=unpriced,
        text=q,
        start_ns=start_ns,
        end_ns=end_ns,
    )


def _ns(moment: datetime) -> int:
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    since_epoch = aware - datetime(1970, 1, 1, tzinfo=UTC)
    return (
        since_epoch.days * 86_400 + since_epoch.seconds
    ) * 1_000_000_000 + since_epoch.microseconds * 1_000


def _range(since: datetime | None, until: datetime | None, now_ns: int) -> TimeRange:
    end_ns = _ns(until) if until else now_ns
    start_ns = _ns(since) if since else end_ns - 7 * DAY_NS
    if not 0 <= start_ns < end_ns:
        raise BadQuery("expected from to be earlier than to, and neither before 1970")
    if end_ns - start_ns > MAX_RANGE_DAYS * DAY_NS:
        raise BadQuery(f"expected a range of at most {MAX_RANGE_DAYS} days")
    return TimeRange(start_ns, end_ns)


def _said(when: TimeRange) -> Json:
    return {"from": iso_time(when.start_ns), "to": iso_time(when.end_ns)}


def _known_zone(name: str) -> None:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise BadQuery("expected tz to be the name of a time zone, such as Europe/Berlin") from error


def _hex_id(text: str, length: int) -> bytes:
    if len(text) != 2 * length or not text.isascii() or not text.isalnum():
        raise HTTPException(404, "no such call")
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise HTTPException(404, "no such call") from error


# ---- cursors ---------------------------------------------------------------------------------------------


def _seal(place: str, query: str) -> str:
    return hashlib.sha256(f"{place}\n{query}".encode()).hexdigest()[:12]


def _write_cursor(cursor: Cursor | None, query: str) -> str | None:
    if cursor is None:
        return None
    place = f"{cursor.value}.{cursor.seq}"
    return base64.urlsafe_b64encode(f"{place}.{_seal(place, query)}".encode()).decode().rstrip("=")


def _read_cursor(text: str, query: str) -> Cursor | None:
    """Where the page before ended, None for the first page; a cursor of another query means nothing here."""
    if not text:
        return None
    try:
        place, _, seal = (
            base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode("ascii").rpartition(".")
        )
        value, _, seq = place.partition(".")
        cursor = Cursor(int(value), int(seq))
    except ValueError as error:
        raise BadQuery("cursor is not one that this API gave") from error
    if seal != _seal(place, query) or _write_cursor(cursor, query) != text:
        raise BadQuery("cursor belongs to another query")
    return cursor


def _page(rows: Sequence[_T], cursor: str, limit: int, *, query: str) -> tuple[Sequence[_T], str | None]:
    """A slice of a list that is short enough to be made whole."""
    after = _read_cursor(cursor, query)
    start = after.seq if after else 0
    end = start + limit
    return rows[start:end], _write_cursor(Cursor(0, end), query) if end < len(rows) else None


# ---- bodies and answers ----------------------------------------------------------------------------------


async def _bounded_json(request: Request) -> Any:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "expected content type application/json")
    pieces: list[bytes] = []
    size = 0
    async for piece in request.stream():
        size += len(piece)
        if size > MAX_SCORE_BODY:
            raise HTTPException(413, f"expected at most {MAX_SCORE_BODY} bytes")
        pieces.append(piece)
    try:
        return orjson.loads(b"".join(pieces))
    except orjson.JSONDecodeError as error:
        raise BadQuery("the body is not JSON") from error


def _json(document: Any, status: int = 200) -> JSONResponse:
    return JSONResponse(document, status_code=status)


def _failed(status: int, message: str) -> JSONResponse:
    return JSONResponse({"error": message}, status_code=status)


def _first_problem(errors: Sequence[Any]) -> str:
    """Which field and what was expected; never what came, which may be anybody's text."""
    first = errors[0]
    where = ".".join(str(part) for part in first["loc"] if part not in ("query", "body", "path"))
    return f"{where}: {first['msg']}" if where else str(first["msg"])


def _openapi(router: APIRouter) -> Json:
    return get_openapi(title="tierlight", version=__version__, routes=router.routes)


def _openapi_html(document: Json) -> str:
    """The reference as one plain page: no script, no style, nothing from another host."""
    rows: list[str] = []
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            rows.append(f"<h2><code>{method.upper()} {html.escape(path)}</code></h2>")
            rows.append(f"<p>{html.escape(operation.get('description', ''))}</p>")
            parameters = operation.get("parameters", [])
            if parameters:
                rows.append(
                    "<table><thead><tr><th>parameter</th><th>in</th><th>schema</th></tr></thead><tbody>"
                )
                for parameter in parameters:
                    schema = orjson.dumps(parameter["schema"]).decode()
                    name, place = html.escape(parameter["name"]), html.escape(parameter["in"])
                    rows.append(
                        f"<tr><td><code>{name}</code></td><td>{place}</td><td><code>{html.escape(schema)}</code></td></tr>"
                    )
                rows.append("</tbody></table>")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>tierlight API</title>'
        '<meta name="viewport" content="width=device-width"></head><body><main><h1>tierlight API</h1>'
        '<p>The same as an <a href="/api/v1/openapi.json">OpenAPI document</a>.</p>'
        + "".join(rows)
        + "</main></body></html>"
    )
