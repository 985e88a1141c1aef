"""One guard around every HTTP app, outermost and before routing: who may talk to a server on loopback.

Loopback is not a trust boundary: every web page a developer opens can send requests to 127.0.0.1. A page cannot
forge `Host`, `Origin` or `Sec-Fetch-*`, so these decide, on every path, also one that does not exist:

- `Host` must be one of our names with our port. Else a page under evil.com, whose name is made to resolve to
  127.0.0.1 (DNS rebinding), would be "same origin" with us.
- `Origin`, where present, must be our own; ingest paths take none at all: an exporter is not a page.
- `Sec-Fetch-Site`, where present, must be `same-origin` or `none`, but for a link that is followed (a GET of a
  document). `same-site` will not do: any other port of localhost is the same site.
- No answer ever carries a CORS header, and a preflight gets 405.

References: Fetch Metadata (https://www.w3.org/TR/fetch-metadata/), RFC 9110 7.2 (Host) and 15.5.20 (421).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Collection, Iterable, MutableMapping
from typing import Any, Final

from .errors import InsecureBind

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "font-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_SECURITY_HEADERS: Final = (
    (b"content-security-policy", CONTENT_SECURITY_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    # Not "no-referrer": with it browsers send `Origin: null` with our own forms, which rule 2 refuses.
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_NO_STORE: Final = (b"cache-control", b"no-store")
_OURS_ALONE: Final = frozenset(name for name, _ in _SECURITY_HEADERS)
_SAFE_METHODS: Final = frozenset({"GET", "HEAD"})
_OWN_SITES: Final = frozenset({b"same-origin", b"none"})
INGEST_MEDIA_TYPES: Final = frozenset({b"application/x-protobuf", b"application/json"})
_RPC_CODES: Final = {400: 3, 403: 7, 405: 12, 415: 3, 421: 3}


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server bound to `host` (a name other than localhost: no)."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_bind(host: str, *, tokens: Collection[object] = (), insecure: bool = False) -> None:
    """Refuse an address that others can reach while no token protects it.

    Applies alike to the dashboard, OTLP/HTTP and OTLP/gRPC. `insecure` is the explicit override.

    Raises:
        InsecureBind: the server must not start; the message says the way out.
    """
    if is_loopback(host) or tokens or insecure:
        return
    raise InsecureBind(
        f"refusing to listen on {host!r}: other machines could read prompts and costs without a login. "
        "Listen on 127.0.0.1 (the default) and put a reverse proxy with a login in front."
    )


def allowed_hosts(port: int, names: Iterable[str] = (), *, scheme: str = "http") -> frozenset[bytes]:
    """The `Host` values that mean us: localhost, 127.0.0.1, [::1] and `names`, each with `port`.

    The port may be absent from the header only where it is the scheme's default (80, 443).

    >>> sorted(allowed_hosts(4319, ["Box.local"]))
    [b'127.0.0.1:4319', b'[::1]:4319', b'box.local:4319', b'localhost:4319']
    """
    hosts = {"localhost", "127.0.0.1", "[::1]"}
    for name in names:
        hosts.add(f"[{name}]" if ":" in name and not name.startswith("[") else name)
    allowed = {f"{host.lower()}:{port}" for host in hosts}
    if port == {"http": 80, "https": 443}.get(scheme):
        allowed |= {host.lower() for host in hosts}
    return frozenset(value.encode("latin-1") for value in allowed)


class Guard:
    """The app behind the guard, itself an ASGI app.

    `port` is the one that clients see; `names` are further host names it is reached by (the bound one, those of a
    proxy). `ingest_paths` are the OTLP paths; `on_refusal` hears the path, status and reason of each request to them
    that may not pass. Answers under `cacheable_prefix` (file names that hold a hash) keep
    their own Cache-Control; all others are never stored.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        port: int,
        names: Iterable[str] = (),
        scheme: str = "http",
        ingest_paths: Collection[str] = (),
        cacheable_prefix: str = "",
        on_refusal: Callable[[str, int, str], None] | None = None,
    ) -> None:
        self.app = app
        self._hosts = allowed_hosts(port, names, scheme=scheme)
        self._scheme = scheme.encode() + b"://"
        self._ingest_paths = frozenset(ingest_paths)
        self._cacheable_prefix = cacheable_prefix
        self._on_refusal = on_refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "http":
            refusal = self._refusal(scope)
            guarded = self._with_security_headers(scope["path"], send)
            if refusal is None:
                await self.app(scope, receive, guarded)
            else:
                await self._refuse(scope, guarded, *refusal)
        elif kind == "websocket":
            if self._refusal(scope) is None:
                await self.app(scope, receive, send)
            else:
                await send({"type": "websocket.close", "code": 1008, "reason": ""})  # before accept: HTTP 403
        else:
            await self.app(scope, receive, send)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Status and reason, or None for a request that may pass."""
        host = origin = site = destination = media_type = None
        hosts = origins = 0
        for name, value in scope["headers"]:
            if name == b"host":
                hosts += 1
                host = value
            elif name == b"origin":
                origins += 1
                origin = value
            elif name == b"sec-fetch-site":
                site = value
            elif name == b"sec-fetch-dest":
                destination = value
            elif name == b"content-type":
                media_type = value
        if hosts != 1 or not host or any(byte <= 0x20 or byte >= 0x7F for byte in host):
            return 400, "expected exactly one well-formed Host header"
        host = host.lower()
        if host not in self._hosts:
            return 421, "this server does not answer for that host name and port"

        is_ingest = scope["path"] in self._ingest_paths
        if origins and (is_ingest or origins > 1 or origin != self._scheme + host):
            return 403, "requests from web pages of another origin are refused"
        method = scope.get("method", "GET")
        is_followed_link = method in _SAFE_METHODS and destination == b"document"
        if site is not None and site not in _OWN_SITES and not is_followed_link:
            return 403, "requests from other sites are refused"
        if method == "OPTIONS":
            return 405, "no method of this server needs a preflight"
        if is_ingest and method == "POST":
            essence = (media_type or b"").partition(b";")[0].strip().lower()
            if essence not in INGEST_MEDIA_TYPES:
                return 415, "expected content type application/x-protobuf or application/json"
        return None

    async def _refuse(self, scope: Scope, send: Send, status: int, reason: str) -> None:
        is_ingest = scope["path"] in self._ingest_paths
        if is_ingest:
            if self._on_refusal is not None:
                self._on_refusal(scope["path"], status, reason)
            body = f'{{"code":{_RPC_CODES[status]},"message":"{reason}"}}'.encode()
        else:
            body = reason.encode() + b"\n"
        headers = [
            (b"content-type", b"application/json" if is_ingest else b"text/plain; charset=utf-8"),
            (b"content-length", str(len(body)).encode()),
        ]
        if status == 405:
            headers.append((b"allow", b"POST" if is_ingest else b"GET, HEAD, POST"))
        if scope.get("http_version", "1.1") in ("1.0", "1.1"):
            headers.append((b"connection", b"close"))  # the body was not read
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    def _with_security_headers(self, path: str, send: Send) -> Send:
        is_cacheable = bool(self._cacheable_prefix) and path.startswith(self._cacheable_prefix)

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                keeps_cache_control = is_cacheable and message["status"] < 400
                headers = [
                    (name, value)
                    for name, value in message.get("headers", ())
                    if name.lower() not in _OURS_ALONE
                    and not name.lower().startswith(b"access-control-")
                    and (keeps_cache_control or name.lower() != b"cache-control")
                ]
                headers.extend(_SECURITY_HEADERS)
                if not keeps_cache_control:
                    headers.append(_NO_STORE)
                message = {**message, "headers": headers}
            await send(message)

        return send_guarded
