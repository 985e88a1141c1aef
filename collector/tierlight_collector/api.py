"""The HTTP API under /api/v1: calls, routes, rollups, alerts, recommendations as JSON; scores in; Prometheus text.

The dashboard mounts `api_router(store)` on its own port, behind the same guard. Every list is paged by a cursor that
is bound to its query; a parameter nobody reads is an error, not a surprise. Errors are `{"error": "..."}`.
"""

# Long because each address, its parameters and its answer stand together: the page of the API is made from them.
from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Final, Literal, Self

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

from tierlight._redact import redact
from tierlight._version import __version__

from .decisions import AlertState
from .errors import StoreBusy, StoreError
from .limits import KIB
from .metrics import GROUP_BY, prometheus_text
from .queries import (
    DAY_NS,
    BadQuery,
    Moment,
    Word,
    call_filters_of,
    check_zone,
    filters_of,
    id_of,
    page_of,
    range_json,
    range_of,
    read_cursor,
    write_cursor,
)
from .records import Dim, Filters, Rollup, ScoreKind, ScoreRecord, TimeRange
from .reference import reference_html
from .shapes import (
    Json,
    alert_json,
    call_detail_json,
    call_json,
    recommendation_json,
    rollup_json,
    route_json,
)
from .stores.protocol import Order, Store

MAX_LIMIT: Final = 1_000
MAX_SCORES: Final = 1_000
MAX_SCORE_BODY: Final = 1_024 * KIB


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
            explanation=redact(self.explanation),
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
        filters: Annotated[Filters, Depends(call_filters_of)],
        order: Order = "time",
        descending: bool = True,
        limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 50,
        cursor: Word = "",
    ) -> JSONResponse:
        """Calls, newest first; superseded doubles are left out. `next` is the cursor of the next page, null at the end."""
        query = repr((filters, order, descending))
        page = store.calls(
            filters, after=read_cursor(cursor, query), limit=limit, order=order, descending=descending
        )
        return _json({"calls": [call_json(row) for row in page.rows], "next": write_cursor(page.next, query)})

    @router.get("/api/v1/calls/{trace_id}/{span_id}", tags=["calls"])
    def one_call(trace_id: str, span_id: str) -> JSONResponse:
        """One call with its scores and how it was attempted and read; never its content."""
        row = store.call(id_of(trace_id, 16), id_of(span_id, 8))
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
        when = range_of(since, until, clock_ns())
        sums = {rollup.key[0]: rollup for rollup in store.rollups(when, ("route",), Filters())}
        infos = sorted(store.routes(), key=lambda info: info.route)
        page, following = page_of(infos, cursor, limit, query="routes")
        return _json(
            {
                **range_json(when),
                "routes": [route_json(info, sums.get(info.route, Rollup())) for info in page],
                "next": following,
            }
        )

    @router.get("/api/v1/rollups", tags=["rollups"])
    def list_rollups(
        filters: Annotated[Filters, Depends(filters_of)],
        since: Annotated[Moment, Query(alias="from")] = None,
        until: Annotated[Moment, Query(alias="to")] = None,
        group_by: Annotated[list[Dim], Query(max_length=8)] = [],  # noqa: B006 - FastAPI copies it
        step: Literal["", "hour", "day"] = "",
        tz: Annotated[str, Query(max_length=64)] = "UTC",
        limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 1_000,
        cursor: Word = "",
    ) -> JSONResponse:
        """Counts, sums, percentiles and mean scores per combination of `group_by`, also per hour or local day."""
        when = range_of(since, until, clock_ns())
        if len(set(group_by)) != len(group_by):
            raise BadQuery("group_by names a dimension twice")
        dims = tuple(group_by)
        if step:
            check_zone(tz)
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
        page, following = page_of(rows, cursor, limit, query=query)
        return _json({**range_json(when), "rollups": page, "next": following})

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
        page, following = page_of(alerts, cursor, limit, query=repr((route, state)))
        return _json({"alerts": [alert_json(alert) for alert in page], "next": following})

    @router.get("/api/v1/recommendations", tags=["recommendations"])
    def list_recommendations(
        route: Word | None = None,
        limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 200,
        cursor: Word = "",
    ) -> JSONResponse:
        """What to do with each route, with the reason and the evidence beside it."""
        found = sorted(store.recommendations(route=route), key=lambda one: one.id)
        page, following = page_of(found, cursor, limit, query=repr(("recommendations", route)))
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

    @router.get("/api/v1/policy", tags=["policy"], response_class=Response)
    def approved_policy(request: Request) -> Response:
        """The newest approved routing policy as TOML, with its version as ETag; 304 when the caller has it, 404 without one."""
        newest = next(iter(store.policies(limit=1)), None)
        if newest is None:
            raise HTTPException(404, "no routing policy has been approved yet")
        etag = f'"{newest.version}"'
        headers = {"etag": etag, "x-tierlight-policy-revision": str(newest.revision)}
        if etag in [
            one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")
        ]:
            return Response(status_code=304, headers=headers)
        return Response(newest.toml, media_type="application/toml", headers=headers)

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
        return HTMLResponse(reference_html(_openapi(router)))

    return router


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
