"""OTLP/HTTP: the ASGI app on port 4318. Plain ASGI: measured, FastAPI costs 0.2 ms more a request.

Every answer's body is in the encoding of the request: an export response after the commit, or a google.rpc.Status.
Only 429, 502, 503 and 504 are retried by clients, so a failure of the store is always 503, and 4xx is said only of
what can never be right.

References: OTLP specification, "OTLP/HTTP" (https://opentelemetry.io/docs/specs/otlp/#otlphttp).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Final

from .answers import (
    INTERNAL,
    INVALID_ARGUMENT,
    RESOURCE_EXHAUSTED,
    UNAVAILABLE,
    UNIMPLEMENTED,
    Signal,
    export_body,
    status_body,
)
from .decode import MediaType
from .errors import BadRequest, CollectorError, StoreBusy, TooLarge, UnsupportedMedia
from .guard import ASGIApp, Guard, Message, Receive, Scope, Send
from .ingest import Ingest, Lease
from .limits import MIB
from .stores.protocol import FactStore

logger = logging.getLogger("tierlight.collector")

INGEST_PATHS: Final[dict[str, Signal]] = {
    "/v1/traces": "traces",
    "/v1/logs": "logs",
    "/v1/metrics": "metrics",
}
ROUTES: Final = (*(("POST", path) for path in INGEST_PATHS), ("GET", "/healthz"), ("GET", "/readyz"))
HOP_HEADER: Final = b"x-tierlight-hop"

_MEDIA_TYPES: Final[dict[bytes, MediaType]] = {
    b"application/x-protobuf": "protobuf",
    b"application/json": "json",
}
_ENCODINGS: Final = (b"accept-encoding", b"gzip, deflate, identity")
_CLOSE: Final = (b"connection", b"close")
_LINGER_S: Final = 2.0
_LINGER_BYTES: Final = 256 * MIB


class _Stalled(CollectorError):
    """The sender stopped in the middle of the body."""


class _Gone(CollectorError):
    """The sender closed the connection in the middle of the body."""


class _Request:
    """The headers that matter, looked up once."""

    __slots__ = ("content_length", "encoding", "hops", "media_type")

    def __init__(self, scope: Scope) -> None:
        self.media_type: MediaType | None = None
        self.encoding = ""
        self.content_length: int | None = None
        self.hops: tuple[str, ...] = ()
        for name, value in scope["headers"]:
            if name == b"content-type":
                self.media_type = _MEDIA_TYPES.get(value.partition(b";")[0].strip().lower())
            elif name == b"content-encoding":
                coding = value.decode("latin-1")
                self.encoding = f"{self.encoding}, {coding}" if self.encoding else coding
            elif name == b"content-length" and value.isdigit():
                self.content_length = int(value)
            elif name == HOP_HEADER:
                self.hops += tuple(hop.strip() for hop in value.decode("latin-1").split(","))


class OtlpApp:
    """The bare app; `create_ingest_app` puts the guard around it."""

    def __init__(self, ingest: Ingest, *, is_ready: Callable[[], bool]) -> None:
        self.ingest = ingest
        self._is_ready = is_ready

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path, method = scope["path"], scope["method"]
            signal = INGEST_PATHS.get(path)
            if signal is not None:
                if method == "POST":
                    await self._export(signal, scope, receive, send)
                else:
                    await _refuse(send, 405, UNIMPLEMENTED, "expected POST", headers=((b"allow", b"POST"),))
            elif path in ("/healthz", "/readyz"):
                await self._probe(path, method, send)
            else:
                await _refuse(send, 404, UNIMPLEMENTED, "expected one of " + ", ".join(INGEST_PATHS))
        elif scope["type"] == "lifespan":
            await _follow_lifespan(receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _export(self, signal: Signal, scope: Scope, receive: Receive, send: Send) -> None:
        request = _Request(scope)
        as_json = request.media_type != "protobuf"
        has_body_left = True
        try:
            if request.media_type is None:
                raise UnsupportedMedia("expected content type application/x-protobuf or application/json")
            with self.ingest.admission.request() as lease:
                body = await self._read_body(request, receive, lease)
                has_body_left = False
                outcome = await self.ingest.export(
                    signal,
                    body,
                    request.media_type,
                    request.encoding,
                    hops=request.hops,
                )
        except _Gone:
            self._count(signal, "gone")
            return
        except _Stalled as error:
            self._count(signal, "408")
            await _refuse(send, 408, UNAVAILABLE, str(error), as_json=as_json, headers=(_CLOSE,))
            return
        except StoreBusy as error:
            self._count(signal, "503")
            after = self.ingest.spread(error.retry_after_s)
            status, code, message = 503, UNAVAILABLE, str(error)
            headers: tuple[tuple[bytes, bytes], ...] = ((b"retry-after", b"%d" % max(1, round(after))),)
        except TooLarge as error:
            self._count(signal, "413")
            status, code, message, headers = 413, RESOURCE_EXHAUSTED, str(error), ()
        except UnsupportedMedia as error:
            self._count(signal, "415")
            status, code, message, headers = 415, INVALID_ARGUMENT, str(error), (_ENCODINGS,)
        except BadRequest as error:
            self._count(signal, "400")
            status, code, message, headers = 400, INVALID_ARGUMENT, str(error), ()
        except CollectorError as error:
            self._count(signal, "503")
            logger.error("a request could not be stored: %s", error)
            status, code, message, headers = 503, UNAVAILABLE, str(error), ((b"retry-after", b"5"),)
        except Exception:
            self._count(signal, "500")
            logger.exception("a request failed by a fault of ours")
            status, code, message, headers = 500, INTERNAL, "internal error, see the collector's log", ()
        else:
            self._count(signal, "200")
            answer = export_body(signal, outcome.rejected, outcome.message, as_json=as_json)
            media_type = b"application/json" if as_json else b"application/x-protobuf"
            await _answer(send, 200, answer, media_type)
            return
        self.ingest.note_refusal(signal, str(status), message)
        if has_body_left:
            await _refuse_unread(receive, send, status, code, message, as_json=as_json, headers=headers)
        else:
            await _refuse(send, status, code, message, as_json=as_json, headers=headers)

    async def _read_body(self, request: _Request, receive: Receive, lease: Lease) -> bytes:
        limits = self.ingest.limits
        is_plain = request.encoding.strip().lower() in ("", "identity")
        limit = limits.body_bytes if is_plain else limits.compressed_bytes
        declared = request.content_length
        if declared is not None:
            if declared > limit:
                raise TooLarge(f"the body has {declared} bytes, the limit is {limit}")
            lease.grow(declared)
        pieces: list[bytes] = []
        size = 0
        loop = asyncio.get_running_loop()
        latest = loop.time() + limits.request_s
        try:
            async with asyncio.timeout(limits.stall_s) as patience:
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _Gone
                    piece = message.get("body", b"")
                    if piece:
                        size += len(piece)
                        if size > limit:
                            raise TooLarge(f"the body has more than {limit} bytes")
                        if declared is None:
                            lease.grow(len(piece))
                        pieces.append(piece)
                    if not message.get("more_body", False):
                        break
                    patience.reschedule(min(latest, loop.time() + limits.stall_s))
        except TimeoutError as error:
            raise _Stalled("the body took too long to arrive") from error
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def _probe(self, path: str, method: str, send: Send) -> None:
        if method not in ("GET", "HEAD"):
            await _refuse(send, 405, UNIMPLEMENTED, "expected GET", headers=((b"allow", b"GET, HEAD"),))
            return
        is_up = path == "/healthz" or await asyncio.to_thread(self._is_ready)
        word = b"ok\n" if is_up else b"not ready\n"
        await _answer(
            send, 200 if is_up else 503, word, b"text/plain; charset=utf-8", is_head=method == "HEAD"
        )

    def _count(self, signal: Signal, answer: str) -> None:
        self.ingest.counters.add(f"http_{signal}_{answer}")


def create_ingest_app(
    ingest: Ingest, store: FactStore, *, port: int = 4318, names: Iterable[str] = ()
) -> ASGIApp:
    """The OTLP/HTTP app behind the guard; `port` and `names` are what clients may put into `Host`."""

    def is_ready() -> bool:
        return store.health().state == "ok"

    def note(path: str, status: int, reason: str) -> None:
        ingest.note_refusal(INGEST_PATHS[path], str(status), reason)

    app = OtlpApp(ingest, is_ready=is_ready)
    return Guard(app, port=port, names=names, ingest_paths=INGEST_PATHS, on_refusal=note)


async def _answer(
    send: Send,
    status: int,
    body: bytes,
    content_type: bytes,
    *,
    headers: tuple[tuple[bytes, bytes], ...] = (),
    is_head: bool = False,
    is_final: bool = True,
) -> None:
    start: Message = {
        "type": "http.response.start",
        "status": status,
        "headers": [(b"content-type", content_type), (b"content-length", b"%d" % len(body)), *headers],
    }
    await send(start)
    await send({"type": "http.response.body", "body": b"" if is_head else body, "more_body": not is_final})


async def _refuse(
    send: Send,
    status: int,
    code: int,
    message: str,
    *,
    as_json: bool = True,
    headers: tuple[tuple[bytes, bytes], ...] = (),
    is_final: bool = True,
) -> None:
    content_type = b"application/json" if as_json else b"application/x-protobuf"
    body = status_body(code, message, as_json=as_json)
    await _answer(send, status, body, content_type, headers=headers, is_final=is_final)


async def _refuse_unread(
    receive: Receive,
    send: Send,
    status: int,
    code: int,
    message: str,
    *,
    as_json: bool,
    headers: tuple[tuple[bytes, bytes], ...],
) -> None:
    """Answer before the body is read, then discard what still comes, for a moment.

    A close with unread bytes resets the connection, and a client that writes its whole body first would see the
    reset instead of the answer (RFC 9112, 9.6).
    """
    await _refuse(send, status, code, message, as_json=as_json, headers=(*headers, _CLOSE), is_final=False)
    discarded = 0
    try:
        async with asyncio.timeout(_LINGER_S):
            while discarded < _LINGER_BYTES:
                arrived = await receive()
                discarded += len(arrived.get("body", b""))
                if arrived["type"] == "http.disconnect" or not arrived.get("more_body", False):
                    break
    except TimeoutError:
        pass  # the sender had its moment
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _follow_lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return
