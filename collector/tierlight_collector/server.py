"""An HTTP listener that a slow or oversized sender cannot wear out: uvicorn, with bounds uvicorn does not set.

uvicorn's httptools protocol waits for ever for a header block and keeps all of it, and reads only the path of an
absolute-form target, so that its host would go unchecked. Bodies are bounded by the apps, which know their limits.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from .guard import ASGIApp
from .limits import IngestLimits

if TYPE_CHECKING:
    from asyncio import Transport

GRACE_S = 10


class _Refused(Exception):
    """Ends the parsing of a request whose status is already decided."""


class BoundedProtocol(HttpToolsProtocol):
    """One connection: a header block of bounded size and time, an origin-form target, then as uvicorn does."""

    def __init__(self, *args: Any, limits: IngestLimits, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._limits = limits
        self._refusal = (400, "Invalid HTTP request received.")
        self._in_headers = True  # an idle new connection is a header that does not come
        self._header_bytes = 0
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._deadline = self.loop.call_later(self._limits.stall_s, self._header_overdue)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_clock()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._in_headers:
            self._header_bytes += len(data)
        super().data_received(data)
        if (
            self._in_headers
            and self._header_bytes > self._limits.header_bytes
            and not self.transport.is_closing()
        ):
            self._refusal = (431, "Header block too large.")
            self.send_400_response("")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if not self._in_headers:  # a further request on the same connection
            self._in_headers = True
            self._header_bytes = 0
            self._deadline = self.loop.call_later(self._limits.stall_s, self._header_overdue)

    def on_headers_complete(self) -> None:
        self._in_headers = False
        self._stop_clock()
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > self._limits.header_bytes:
            self._refusal = (431, "Header block too large.")
            raise _Refused
        if not self.url.startswith(b"/"):
            self._refusal = (400, "Expected a path as request target.")
            raise _Refused
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what the parser or a bound refused; uvicorn calls this for every parser error."""
        if self.transport.is_closing():
            return
        status, reason = self._refusal
        self.transport.write(
            STATUS_LINE[status]
            + b"content-type: text/plain; charset=utf-8\r\n"
            + b"content-length: %d\r\nconnection: close\r\n\r\n" % len(reason)
            + reason.encode("ascii")
        )
        self.transport.close()

    def _header_overdue(self) -> None:
        if self.transport.is_closing():
            return
        if self._header_bytes:
            self._refusal = (408, "Header block took too long.")
            self.send_400_response("")
        else:
            self.transport.close()

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: one process runs several servers and stops them in its own order."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listen(host: str, port: int) -> socket.socket:
    """A listening socket on `host`, which must have passed `guard.check_bind`; port 0 takes a free one.

    Raises:
        OSError: the port is taken or the address is not of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted sockets inherit it on Linux. Without it an answer's body waits 40 ms for the client's delayed ACK.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind((host.strip("[]"), port))
        listener.listen(1024)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


@contextlib.asynccontextmanager
async def serve_http(
    app: ASGIApp, listener: socket.socket, limits: IngestLimits | None = None
) -> AsyncIterator[None]:
    """Serve `app` on `listener` inside the block; leaving it stops accepting, finishes what is in flight, closes."""
    config = uvicorn.Config(
        app,
        http=partial(BoundedProtocol, limits=limits or IngestLimits()),  # type: ignore[arg-type]
        lifespan="auto",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=GRACE_S,
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve([listener]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.005)
    try:
        if serving.done():
            await serving
            raise RuntimeError("the HTTP server stopped while it started")
        yield
    finally:
        server.should_exit = True
        await serving
        listener.close()
