"""The guard around both HTTP apps: who is let in, what is answered to the others, which headers every answer has."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest

from tierlight_collector.errors import InsecureBind
from tierlight_collector.guard import (
    Guard,
    Message,
    Receive,
    Scope,
    Send,
    allowed_hosts,
    check_bind,
    is_loopback,
)

PORT = 4319
OURS = b"localhost:4319"


async def page(scope: Scope, receive: Receive, send: Send) -> None:
    """An app that would allow everything to everybody."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        return
    headers = [
        (b"content-type", b"text/html"),
        (b"access-control-allow-origin", b"*"),
        (b"cache-control", b"max-age=600"),
        (b"content-security-policy", b"default-src *"),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"passed"})


guarded = Guard(
    page, port=PORT, names=["box.local"], ingest_paths=["/v1/traces"], cacheable_prefix="/static/"
)


def ask(
    method: str = "GET",
    path: str = "/",
    headers: Iterable[tuple[bytes, bytes]] = ((b"host", OURS),),
    kind: str = "http",
) -> tuple[int, dict[bytes, bytes], bytes]:
    """Status, headers and body of the guarded app; a websocket gives 101 or 403."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Scope = {"type": kind, "path": path, "headers": list(headers), "http_version": "1.1"}
    if kind == "http":
        scope["method"] = method
    asyncio.run(guarded(scope, receive, send))
    if kind == "websocket":
        return (101 if sent[0]["type"] == "websocket.accept" else 403), {}, b""
    return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"]


def with_host(value: bytes, *more: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    return [(b"host", value), *more]


@pytest.mark.parametrize(
    "host", [b"localhost:4319", b"LocalHost:4319", b"127.0.0.1:4319", b"[::1]:4319", b"box.local:4319"]
)
def test_our_own_names_pass(host: bytes) -> None:
    assert ask(headers=with_host(host))[0] == 200


@pytest.mark.parametrize(
    "host",
    [
        b"evil.com",
        b"evil.com:4319",
        b"127.0.0.1.evil.com:4319",
        b"localhost.:4319",
        b"localhost",
        b"localhost:4318",
        b"localhost:43190",
        b"127.0.0.1@evil.com",
        b"xlocalhost:4319",
        b"0.0.0.0:4319",
    ],
)
def test_another_host_is_misdirected(host: bytes) -> None:
    assert ask(headers=with_host(host))[0] == 421


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"host", b"")],
        with_host(OURS, (b"host", OURS)),
        with_host(b"localhost:4319\x00"),
        with_host(b"localhost :4319"),
        with_host(b"loc\xc3\xa4lhost:4319"),
    ],
    ids=["absent", "empty", "twice", "NUL", "space", "not ASCII"],
)
def test_a_malformed_host_is_a_bad_request(headers: list[tuple[bytes, bytes]]) -> None:
    assert ask(headers=headers)[0] == 400


@pytest.mark.parametrize(
    "origin",
    [
        b"http://evil.com",
        b"null",
        b"",
        b"http://localhost:4318",
        b"https://localhost:4319",
        b"http://127.0.0.1:4319",
        b"http://localhost:4319.evil.com",
    ],
)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "GET"])
def test_a_foreign_origin_is_refused_for_every_method(method: str, origin: bytes) -> None:
    assert ask(method, headers=with_host(OURS, (b"origin", origin)))[0] == 403


def test_our_own_origin_may_post_but_not_to_the_ingest_paths() -> None:
    headers = with_host(OURS, (b"origin", b"http://localhost:4319"), (b"content-type", b"application/json"))
    assert ask("POST", "/form", headers)[0] == 200
    assert ask("POST", "/v1/traces", headers)[0] == 403


@pytest.mark.parametrize("site", [b"cross-site", b"same-site", b"anything"])
def test_another_site_may_follow_a_link_and_nothing_else(site: bytes) -> None:
    fetched = with_host(OURS, (b"sec-fetch-site", site), (b"sec-fetch-dest", b"empty"))
    framed = with_host(OURS, (b"sec-fetch-site", site), (b"sec-fetch-dest", b"iframe"))
    link = with_host(OURS, (b"sec-fetch-site", site), (b"sec-fetch-dest", b"document"))
    assert ask("GET", headers=fetched)[0] == 403
    assert ask("GET", headers=framed)[0] == 403
    assert ask("POST", headers=link)[0] == 403
    assert ask("GET", headers=link)[0] == 200


@pytest.mark.parametrize("site", [b"same-origin", b"none"])
def test_our_own_pages_may_post(site: bytes) -> None:
    assert ask("POST", headers=with_host(OURS, (b"sec-fetch-site", site)))[0] == 200


@pytest.mark.parametrize("path", ["/", "/v1/traces", "/nowhere"])
def test_a_preflight_is_never_granted(path: str) -> None:
    status, headers, _ = ask("OPTIONS", path, with_host(OURS, (b"access-control-request-method", b"POST")))
    assert status == 405
    assert not [name for name in headers if name.startswith(b"access-control")]


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        (b"application/x-protobuf", 200),
        (b"Application/JSON ;charset=UTF-8", 200),
        (b"text/plain", 415),
        (b"application/x-www-form-urlencoded", 415),
        (b"multipart/form-data; boundary=x", 415),
        (b"application/jsonp", 415),
        (None, 415),
    ],
)
def test_ingest_takes_no_content_type_a_form_can_send(content_type: bytes | None, status: int) -> None:
    more = [(b"content-type", content_type)] if content_type is not None else []
    answer, headers, body = ask("POST", "/v1/traces", with_host(OURS, *more))
    assert answer == status
    if status == 415:
        assert headers[b"content-type"] == b"application/json"
        assert body.startswith(b'{"code":3,')


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (with_host(OURS), 101),
        (with_host(OURS, (b"origin", b"http://localhost:4319")), 101),
        (with_host(OURS, (b"origin", b"http://evil.com")), 403),
        (with_host(b"evil.com"), 403),
    ],
)
def test_a_websocket_stands_behind_the_same_guard(headers: list[tuple[bytes, bytes]], status: int) -> None:
    assert ask(headers=headers, kind="websocket")[0] == status


@pytest.mark.parametrize("host", [OURS, b"evil.com", b""])
def test_every_answer_has_the_security_headers_and_no_cors(host: bytes) -> None:
    _, headers, _ = ask(headers=with_host(host))
    assert headers[b"content-security-policy"].startswith(b"default-src 'none'; script-src 'self'")
    assert headers[b"x-content-type-options"] == b"nosniff"
    assert headers[b"referrer-policy"] == b"same-origin"
    assert headers[b"cross-origin-opener-policy"] == b"same-origin"
    assert headers[b"cross-origin-resource-policy"] == b"same-origin"
    assert headers[b"cache-control"] == b"no-store"
    assert b"access-control-allow-origin" not in headers


def test_only_files_named_by_their_hash_may_be_cached() -> None:
    assert ask(path="/static/app.0a1b.css")[1][b"cache-control"] == b"max-age=600"
    assert ask(path="/statics")[1][b"cache-control"] == b"no-store"


def test_the_port_may_be_left_out_only_where_it_is_the_default() -> None:
    assert b"localhost" in allowed_hosts(80)
    assert b"localhost" not in allowed_hosts(4319)
    assert b"localhost" not in allowed_hosts(80, scheme="https")


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("", False),
        ("192.168.1.5", False),
        ("localhost.evil.com", False),
    ],
)
def test_only_loopback_may_be_bound_without_a_token(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
    if loopback:
        check_bind(host)
    else:
        with pytest.raises(InsecureBind, match=r"127\.0\.0\.1"):
            check_bind(host)
    check_bind(host, tokens=["a token"])
    check_bind(host, insecure=True)
