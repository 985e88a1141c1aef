"""An OTLP/HTTP collector that misbehaves on request and remembers what it was sent.

It runs on threads of the test's own process, so that child processes can be pointed at it.
"""

from __future__ import annotations

import gzip
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span

Mode = Literal[
    "ok",
    "hang",
    "trickle",
    "slow2",
    "503",
    "503 retry-after seconds",
    "503 retry-after date",
    "429",
    "400",
    "401",
    "413",
    "partial",
    "html 200",
    "wrong content type",
    "reset mid-response",
]


@dataclass
class FakeCollector:
    """What came in, and how the next requests are answered.

    Args:
        mode: how requests are answered; change it at any time.
        largest: `413` holds for bodies above so many bytes.
    """

    mode: Mode = "ok"
    largest: int = 0
    url: str = ""
    requests: list[tuple[str, dict[str, str], int]] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    logs: list[LogRecord] = field(default_factory=list)
    resources: list[dict[str, Any]] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    @property
    def span_ids(self) -> Counter[bytes]:
        """How often each span arrived in a request that was answered 200."""
        return Counter(span.span_id for span in self.spans)

    def wait_for_spans(self, count: int, timeout_s: float = 5.0) -> None:
        """Wait until so many different spans were taken.

        Raises:
            AssertionError: they did not come in time.
        """
        with self._changed:
            arrived = self._changed.wait_for(lambda: len(self.span_ids) >= count, timeout_s)
        assert arrived, f"{len(self.span_ids)} of {count} spans after {timeout_s} s"

    def wait_for_requests(self, count: int, timeout_s: float = 5.0) -> None:
        """Wait until so many requests came in, whatever their answer was."""
        with self._changed:
            arrived = self._changed.wait_for(lambda: len(self.requests) >= count, timeout_s)
        assert arrived, f"{len(self.requests)} of {count} requests after {timeout_s} s"

    def take(self, path: str, headers: dict[str, str], body: bytes) -> None:
        """Note a request, and what is in it unless it is going to be refused."""
        with self._changed:
            self.requests.append((path, headers, len(body)))
            self._changed.notify_all()

    def store(self, path: str, body: bytes) -> None:
        """Keep the spans or log records of a request that is answered 200."""
        with self._changed:
            if path.startswith("/v1/traces"):
                traces = ExportTraceServiceRequest.FromString(body)
                for resource_spans in traces.resource_spans:
                    self.resources.append(attributes(resource_spans.resource.attributes))
                    for scope_spans in resource_spans.scope_spans:
                        self.spans += scope_spans.spans
            else:
                logs = ExportLogsServiceRequest.FromString(body)
                for resource_logs in logs.resource_logs:
                    for scope_logs in resource_logs.scope_logs:
                        self.logs += scope_logs.log_records
            self._changed.notify_all()


def attributes(pairs: Any) -> dict[str, Any]:
    """OTLP attributes as a plain dictionary."""
    return {pair.key: _value(pair) for pair in pairs}


def _value(pair: KeyValue) -> Any:
    kind = pair.value.WhichOneof("value")
    if kind == "array_value":
        return tuple(item.string_value for item in pair.value.array_value.values)
    return getattr(pair.value, kind or "string_value")


@contextmanager
def fake_collector(mode: Mode = "ok", *, certificate: Path | None = None) -> Iterator[FakeCollector]:
    """Run one on a free port of this machine until the block ends."""
    collector = FakeCollector(mode)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            collector.take(self.path, dict(self.headers.items()), body)
            _answer(self, collector, body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda request, client_address: None  # type: ignore[method-assign]  # clients come and go
    scheme = "http"
    if certificate is not None:
        import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        scheme = "https"
    collector.url = f"{scheme}://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        collector.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


def _answer(handler: BaseHTTPRequestHandler, collector: FakeCollector, body: bytes) -> None:
    mode = collector.mode
    if mode == "413" and len(body) <= collector.largest:
        mode = "ok"
    if mode == "slow2":
        collector.released.wait(2.0)
        mode = "ok"
    if mode == "ok":
        collector.store(handler.path, body)
        _reply(handler, 200, "application/x-protobuf")
    elif mode == "wrong content type":
        collector.store(handler.path, body)
        _reply(handler, 200, "text/plain")
    elif mode == "partial":
        rejected = ExportTracePartialSuccess(
            rejected_spans=1, error_message="one span is older than the horizon"
        )
        _reply(
            handler,
            200,
            "application/x-protobuf",
            ExportTraceServiceResponse(partial_success=rejected).SerializeToString(),
        )
    elif mode == "html 200":
        _reply(handler, 200, "text/html", b"<html>log in first</html>")
    elif mode == "hang":
        collector.released.wait(30.0)
    elif mode == "trickle":
        for byte in b"HTTP/1.1 200 OK\r\n" * 20:
            try:
                handler.wfile.write(bytes([byte]))
            except OSError:
                return
            if collector.released.wait(0.1):
                return
    elif mode == "reset mid-response":
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Le")
        handler.wfile.flush()
        linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        handler.connection.close()
        handler.close_connection = True
    elif mode == "503 retry-after seconds":
        _reply(handler, 503, "application/x-protobuf", headers={"Retry-After": "1"})
    elif mode == "503 retry-after date":
        when = formatdate(time.time() + 2, usegmt=True)
        _reply(handler, 503, "application/x-protobuf", headers={"Retry-After": when})
    else:
        _reply(handler, int(mode), "application/json", b'{"code": 3, "message": "as the test asked"}')


def _reply(
    handler: BaseHTTPRequestHandler,
    status: int,
    content_type: str,
    content: bytes = b"",
    headers: dict[str, str] | None = None,
) -> None:
    handler.send_response(status)
    handler.send_header("Content-Type", content_type)
    handler.send_header("Content-Length", str(len(content)))
    for name, value in (headers or {}).items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(content)
