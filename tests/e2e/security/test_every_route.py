"""Attacks of a web page on loopback, over every route and method of both apps.

The routes are read from the apps' own tables, so a new route is attacked without a change here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import pytest
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, Mount, Route

from tierlight_collector.app import INGEST_PATHS, ROUTES, create_ingest_app
from tierlight_collector.guard import ASGIApp, Guard, Message, Scope
from tierlight_collector.ingest import Ingest
from tierlight_collector.stores import Store, open_store
from tierlight_dashboard.app import create_app, create_inner
from tierlight_dashboard.views.site import DashboardSettings

UNSAFE = ("POST", "PUT", "PATCH", "DELETE")
NOWHERE = ("GET", "/no/such/page")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    store = open_store(f"sqlite:///{tmp_path_factory.mktemp('security') / 'calls.db'}")
    yield store
    store.close()


class Target:
    """One app behind its guard, and every (method, path) it serves."""

    def __init__(self, app: ASGIApp, port: int, routes: list[tuple[str, str]]) -> None:
        self.app = app
        self.port = port
        self.routes = [*routes, NOWHERE]
        self.paths = sorted({path for _, path in self.routes})


@pytest.fixture(scope="module", params=["ingest", "dashboard"])
def target(request: pytest.FixtureRequest, store: Store) -> Iterator[Target]:
    if request.param == "ingest":
        ingest = Ingest(store)
        yield Target(create_ingest_app(ingest, store, port=4318), 4318, list(ROUTES))
        ingest.close()
    else:
        settings = DashboardSettings(port=4319)
        yield Target(create_app(store, settings), 4319, list(served(create_inner(store, settings).routes)))


def served(routes: list[BaseRoute], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Method and path of every route, with a plausible word in place of each parameter."""
    for route in routes:
        if isinstance(route, Route | APIRoute):
            path = route.path
            while "{" in path:
                start, end = path.index("{"), path.index("}")
                path = f"{path[:start]}1{path[end + 1 :]}"
            for method in route.methods or ():
                yield method, prefix + path
        elif isinstance(route, Mount):
            yield from served(list(route.routes), prefix + route.path)
        else:
            included = getattr(route, "original_router", None)
            assert included is not None, f"a kind of route this test can't read: {route!r}"
            yield from served(included.routes, prefix)


class Answer:
    """The beginning of an answer: a stream of events would have no end."""

    def __init__(self, message: Message) -> None:
        self.status_code: int = message["status"]
        self.headers = {name.decode().lower(): value.decode("latin-1") for name, value in message["headers"]}


Answers = dict[tuple[str, str], Answer]


def ask_all(target: Target, requests: list[tuple[str, str]], headers: list[tuple[str, str]]) -> Answers:
    """The answer to each request, all with these headers (the Host included)."""

    async def run() -> Answers:
        return {(method, path): await ask(target.app, method, path, headers) for method, path in requests}

    return asyncio.run(run())


async def ask(app: ASGIApp, method: str, path: str, headers: list[tuple[str, str]]) -> Answer:
    begun: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
    bodies = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Message:
        if bodies:
            return bodies.pop()
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start" and not begun.done():
            begun.set_result(message)

    scope: Scope = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "client": ("127.0.0.1", 50_000),
        "server": ("127.0.0.1", 4319),
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers],
    }
    serving = asyncio.ensure_future(app(scope, receive, send))
    both: list[asyncio.Future[Any]] = [serving, begun]
    await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED, timeout=10)
    serving.cancel()
    with contextlib.suppress(asyncio.CancelledError, Exception):
        await serving
    return Answer(begun.result())


def statuses(answers: Answers) -> set[int]:
    return {answer.status_code for answer in answers.values()}


def every(target: Target, methods: tuple[str, ...]) -> list[tuple[str, str]]:
    return [(method, path) for path in target.paths for method in methods]


def test_the_tables_hold_the_routes_that_are_attacked(target: Target) -> None:
    if target.port == 4318:
        assert set(INGEST_PATHS) < set(target.paths)
    else:
        assert {"/", "/api/v1/calls", "/api/v1/scores", "/metrics", "/health"} <= set(target.paths)
    assert isinstance(target.app, Guard)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("evil.com", 421),
        ("evil.com:{port}", 421),
        ("127.0.0.1.evil.com:{port}", 421),
        ("localhost.:{port}", 421),
        ("localhost:9", 421),
        ("127.0.0.1@evil.com", 421),
        ("", 400),
        ("localhost:{port} ", 400),
        ("localhost\x00:{port}", 400),
    ],
)
def test_a_rebound_name_reaches_no_route(target: Target, host: str, status: int) -> None:
    headers = [("host", host.format(port=target.port))]
    methods = ("GET", "HEAD", *UNSAFE, "OPTIONS")
    assert statuses(ask_all(target, every(target, methods), headers)) == {status}


def test_no_host_and_two_hosts_reach_no_route(target: Target) -> None:
    ours = ("host", f"localhost:{target.port}")
    assert statuses(ask_all(target, every(target, ("GET", "POST")), [])) == {400}
    assert statuses(ask_all(target, every(target, ("GET", "POST")), [ours, ours])) == {400}


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.com",
        "null",
        "http://localhost:9",
        "http://127.0.0.1.evil.com",
        "https://localhost:{port}",
        "",
    ],
)
def test_a_page_of_another_origin_changes_nothing(target: Target, origin: str) -> None:
    headers = [
        ("host", f"localhost:{target.port}"),
        ("origin", origin.format(port=target.port)),
        ("content-type", "application/json"),
    ]
    assert statuses(ask_all(target, every(target, UNSAFE), headers)) == {403}


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_request_that_a_browser_marks_as_foreign_changes_nothing(target: Target, site: str) -> None:
    headers = [
        ("host", f"localhost:{target.port}"),
        ("sec-fetch-site", site),
        ("sec-fetch-dest", "document"),
        ("content-type", "application/json"),
    ]
    assert statuses(ask_all(target, every(target, UNSAFE), headers)) == {403}


def test_a_foreign_page_can_embed_or_fetch_nothing(target: Target) -> None:
    for destination in ("empty", "iframe", "image", "script", "style"):
        headers = [
            ("host", f"localhost:{target.port}"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-dest", destination),
        ]
        assert statuses(ask_all(target, every(target, ("GET",)), headers)) == {403}


def test_no_preflight_is_granted_and_no_answer_allows_another_origin(target: Target) -> None:
    ours = [("host", f"localhost:{target.port}")]
    preflight = [*ours, ("access-control-request-method", "POST")]
    answers = ask_all(target, every(target, ("OPTIONS",)), preflight)
    assert statuses(answers) == {405}
    answers |= ask_all(target, every(target, ("GET",)), ours)
    for where, answer in answers.items():
        assert not [name for name in answer.headers if name.startswith("access-control")], where


def test_every_answer_carries_the_security_headers(target: Target) -> None:
    ours = [("host", f"localhost:{target.port}")]
    for where, answer in ask_all(target, every(target, ("GET",)), ours).items():
        assert answer.status_code < 500, where
        assert answer.headers["content-security-policy"].startswith("default-src 'none'"), where
        assert answer.headers["x-content-type-options"] == "nosniff", where
        assert answer.headers["cache-control"] == "no-store" or where[1].startswith("/static/"), where


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]
)
def test_what_a_form_can_send_is_no_telemetry_and_no_score(target: Target, kind: str) -> None:
    headers = [("host", f"localhost:{target.port}"), ("content-type", kind)]
    paths = list(INGEST_PATHS) if target.port == 4318 else ["/api/v1/scores"]
    assert statuses(ask_all(target, [("POST", path) for path in paths], headers)) == {415}


def test_a_form_without_the_secret_of_its_session_changes_nothing(store: Store, target: Target) -> None:
    if target.port == 4318:
        pytest.skip("the ingest app has no forms")
    forms = [
        (method, path) for method, path in target.routes if method in UNSAFE and not path.startswith("/api/")
    ]
    headers = [
        ("host", "localhost:4319"),
        ("origin", "http://localhost:4319"),
        ("content-type", "application/x-www-form-urlencoded"),
    ]
    before = store.audit()
    for where, answer in ask_all(target, forms, headers).items():
        assert answer.status_code in (303, 403), (where, answer.status_code)
        if answer.status_code == 303:
            assert where[1].startswith("/login"), where
    assert store.audit() == before


@pytest.mark.parametrize(
    "path",
    [
        "/static/../../etc/passwd",
        "/static/%2e%2e/%2e%2e/etc/passwd",
        "/static/..%5c..%5cetc",
        "/static/%00",
        "//etc/passwd",
        "/static//etc/passwd",
    ],
)
def test_no_path_leaves_the_static_folder(target: Target, path: str) -> None:
    ours = [("host", f"localhost:{target.port}")]
    assert statuses(ask_all(target, [("GET", path)], ours)) <= {404, 405}


def test_a_websocket_of_another_origin_is_refused(target: Target) -> None:
    async def connect(headers: list[tuple[bytes, bytes]], path: str) -> str:
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "websocket.connect"}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "websocket",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": headers,
        }
        await target.app(scope, receive, send)
        return str(sent[0]["type"])

    foreign = [(b"host", f"localhost:{target.port}".encode()), (b"origin", b"http://evil.com")]
    for path in target.paths:
        assert asyncio.run(connect(foreign, path)) == "websocket.close"
