"""The dashboard as an ASGI app: pages and JSON API of one store, behind the guard."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from urllib.parse import urlencode

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware

from tierlight_collector.api import api_router
from tierlight_collector.control import forward_router
from tierlight_collector.errors import CollectorError
from tierlight_collector.guard import ASGIApp, Guard
from tierlight_collector.stores.protocol import Store

from .policyapi import policy_router
from .views import (
    alertrules,
    alerts,
    call,
    calls,
    docs,
    experiments,
    live,
    models,
    overview,
    report,
    revisions,
    route,
    routes,
    search,
    settingspage,
    simulate,
    welcome,
)
from .views.site import DashboardSettings, Site

log = logging.getLogger("tierlight.dashboard")
MAX_FORM_BYTES = 1 << 20
ROUTERS = tuple(
    page.router
    for page in (
        overview, routes, route, calls, call, alerts, alertrules, experiments, revisions, simulate, models, live, welcome, settingspage, docs, search, report,
    )
)  # fmt: skip


def create_app(store: Store, settings: DashboardSettings | None = None) -> ASGIApp:
    """The dashboard over `store`, ready for uvicorn; everything it answers has passed the guard."""
    settings = settings or DashboardSettings()
    return Guard(
        create_inner(store, settings), port=settings.port, names=settings.names, cacheable_prefix="/static/"
    )


def create_inner(store: Store, settings: DashboardSettings) -> FastAPI:
    """The app inside the guard, for those who add routes of their own."""
    # FastAPI traces itself by default: the server must not record its own pages as traffic.
    app = FastAPI(
        title="tierlight",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False},
        max_body_size=MAX_FORM_BYTES,
    )
    site = Site(store, settings)
    app.state.site = site
    app.add_middleware(GZipMiddleware, minimum_size=800, compresslevel=5)
    for router in ROUTERS:
        app.include_router(router(site))
    app.include_router(
        api_router(
            store, counters=settings.ingest_counters, limits=settings.ingest_limits, clock_ns=settings.clock
        )
    )
    app.include_router(policy_router(store, settings.clock))
    app.include_router(forward_router(settings.forwarder))
    _serve_static(app, site)
    _answer_errors(app, site)

    @app.middleware("http")
    async def choose_theme(request: Request, proceed: Callable[[Request], Awaitable[Response]]) -> Response:
        theme = request.query_params.get("theme")
        if theme is None or request.method != "GET":
            return await proceed(request)
        rest = [(k, v) for k, v in request.query_params.multi_items() if k != "theme"]
        response = Response(
            status_code=303, headers={"Location": request.url.path + (f"?{urlencode(rest)}" if rest else "")}
        )
        if theme in ("light", "dark"):
            response.set_cookie(
                "tierlight_theme", theme, max_age=400 * 86400, samesite="strict", httponly=True
            )
        else:
            response.delete_cookie("tierlight_theme")
        return response

    return app


def _serve_static(app: FastAPI, site: Site) -> None:
    by_hashed = {f.hashed: f for f in site.static.values()}

    @app.get("/static/{name}")
    def static(name: str, request: Request) -> Response:
        found = by_hashed.get(name)
        if found is None:
            raise HTTPException(404)
        headers = {"Cache-Control": "public, max-age=31536000, immutable", "Vary": "Accept-Encoding"}
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            headers["Content-Encoding"] = "gzip"
            return Response(found.gzipped, media_type=found.media_type, headers=headers)
        return Response(found.body, media_type=found.media_type, headers=headers)


def _answer_errors(app: FastAPI, site: Site) -> None:
    """Errors as pages that say what to do next; under /api as JSON."""

    def page(request: Request, status: int, what: str, incident: str = "") -> Response:
        headers = {"X-Incident": incident} if incident else {}
        if request.url.path.startswith("/api/"):
            return JSONResponse({"error": what, "incident": incident or None}, status, headers)
        try:
            response = site.render(
                request,
                "error.html",
                state=site.state(request),
                page="",
                title=HTTPStatus(status).phrase,
                status=status,
                model={"status": status, "what": what, "incident": incident},
            )
        except Exception:  # noqa: BLE001 - the frame asks the store too, and it may be what failed
            tail = f" (id {incident})" if incident else ""
            return PlainTextResponse(f"{what}{tail}\n", status, headers)
        response.headers.update(headers)
        return response

    @app.exception_handler(HTTPException)
    def expected(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        phrase = HTTPStatus(error.status_code).phrase
        what = error.detail if error.detail and error.detail != phrase else ""
        if error.status_code == 404 and not what:
            what = "There is no such page."
        return page(request, error.status_code, what or phrase)

    @app.exception_handler(RequestValidationError)
    def unreadable(request: Request, error: Exception) -> Response:
        return page(request, 422, "This address or form holds a value that cannot be read.")

    @app.exception_handler(CollectorError)
    def store_failed(request: Request, error: Exception) -> Response:
        incident = secrets.token_hex(4)
        log.error("store failed, incident %s: %s", incident, error)
        return page(
            request,
            503,
            "The store could not answer. It may be busy or locked: reload in a moment.",
            incident,
        )

    @app.exception_handler(Exception)
    def failed(request: Request, error: Exception) -> Response:
        incident = secrets.token_hex(4)
        log.error("page failed, incident %s", incident, exc_info=error)
        return page(request, 500, "This page failed. The fault is logged under the id below.", incident)
