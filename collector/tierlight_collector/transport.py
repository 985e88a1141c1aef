"""One delivery to another OTLP backend, over HTTP or gRPC, and what its answer means for the outbox.

References: OTLP specification, "Retryable Response Codes" and "OTLP/gRPC Response"; RFC 9110 10.2.3 (Retry-After).
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, Literal, Protocol

import grpc
import grpc.aio
import httpx
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from .limits import KIB

ForwardSignal = Literal["traces", "logs"]

TIMEOUT_S: Final = 10.0
_MOST_OF_AN_ANSWER: Final = 64 * KIB
_MOST_OF_AN_ERROR: Final = 300
_RETRIED_HTTP: Final = frozenset({408, 429, 502, 503, 504})
_RETRIED_GRPC: Final = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
_GRPC_METHODS: Final = {
    "traces": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "logs": "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
}


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of one request.

    `sent`: the target has it (`rejected` of its spans it will never take). `retry`: later, after `retry_after_s` if it
    said so. `blocked`: the credentials are refused. `too_large`: less at once. `refused`: never.
    """

    verdict: Literal["sent", "retry", "blocked", "too_large", "refused"]
    message: str = ""
    retry_after_s: float | None = None
    rejected: int = 0


class Transport(Protocol):
    async def send(self, signal: ForwardSignal, payload: bytes, hops: str) -> Delivery:
        """Deliver one export request; `hops` are the collectors it came through. Never raises for the target's sake."""

    async def close(self) -> None: ...


def seconds_of_retry_after(value: str, now: datetime) -> float | None:
    """The header in either of its forms; None when it is absent or neither.

    >>> seconds_of_retry_after("7", datetime(2026, 1, 1, tzinfo=UTC))
    7.0
    >>> seconds_of_retry_after("Thu, 01 Jan 2026 00:00:30 GMT", datetime(2026, 1, 1, tzinfo=UTC))
    30.0
    """
    text = value.strip()
    if text.isdecimal():
        return float(text[:9])
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())


class HttpTransport:
    """OTLP/HTTP protobuf: no redirects, no proxy of the environment, a bounded answer."""

    def __init__(self, endpoint: str, headers: Mapping[str, str], *, compress: bool) -> None:
        base = endpoint.rstrip("/")
        self._urls = {
            signal: base if base.endswith(f"/v1/{signal}") else f"{base}/v1/{signal}"
            for signal in ("traces", "logs")
        }
        self._compress = compress
        self._client = httpx.AsyncClient(
            headers={**headers, "content-type": "application/x-protobuf", "user-agent": "tierlight"},
            timeout=TIMEOUT_S,
            follow_redirects=False,
            trust_env=False,
        )

    async def send(self, signal: ForwardSignal, payload: bytes, hops: str) -> Delivery:
        headers = {"x-tierlight-hop": hops}
        body = payload
        if self._compress:
            headers["content-encoding"] = "gzip"
            body = gzip.compress(payload, compresslevel=1)
        try:
            request = self._client.build_request("POST", self._urls[signal], content=body, headers=headers)
            response = await self._client.send(request, stream=True)
            try:
                answer = await _first_bytes(response)
            finally:
                await response.aclose()
        except httpx.HTTPError as error:
            return Delivery("retry", f"{type(error).__name__}: {error}"[:_MOST_OF_AN_ERROR])
        status = response.status_code
        if 200 <= status < 300:
            if response.headers.get("content-type", "").startswith("text/html"):
                return Delivery("retry", f"HTTP {status} with a web page: expected an OTLP endpoint")
            is_protobuf = response.headers.get("content-type", "").startswith("application/x-protobuf")
            return _partial(signal, answer if is_protobuf else b"")
        message = f"HTTP {status}"
        if status in _RETRIED_HTTP:
            wait = seconds_of_retry_after(response.headers.get("retry-after", ""), _now())
            return Delivery("retry", message, wait)
        if status in (401, 403):
            return Delivery("blocked", message)
        return Delivery("too_large" if status == 413 else "refused", message)

    async def close(self) -> None:
        await self._client.aclose()


class GrpcTransport:
    """OTLP/gRPC; `https` endpoints use TLS with the system's roots."""

    def __init__(self, endpoint: str, headers: Mapping[str, str], *, compress: bool) -> None:
        scheme, _, address = endpoint.rpartition("://")
        compression = grpc.Compression.Gzip if compress else grpc.Compression.NoCompression
        options = [("grpc.enable_http_proxy", 0)]
        if scheme == "https":
            credentials = grpc.ssl_channel_credentials()
            self._channel = grpc.aio.secure_channel(
                address.rstrip("/"), credentials, options=options, compression=compression
            )
        else:
            self._channel = grpc.aio.insecure_channel(
                address.rstrip("/"), options=options, compression=compression
            )
        self._metadata = tuple((name.lower(), value) for name, value in headers.items())
        self._methods = {signal: self._channel.unary_unary(path) for signal, path in _GRPC_METHODS.items()}

    async def send(self, signal: ForwardSignal, payload: bytes, hops: str) -> Delivery:
        metadata = (*self._metadata, ("x-tierlight-hop", hops))
        try:
            answer = await self._methods[signal](payload, timeout=TIMEOUT_S, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            return _delivery_of(error)
        return _partial(signal, answer)

    async def close(self) -> None:
        await self._channel.close()


def _delivery_of(error: grpc.aio.AioRpcError) -> Delivery:
    code = error.code()
    message = f"{code.name}: {error.details() or ''}"[:_MOST_OF_AN_ERROR]
    wait = _retry_info(error)
    if code in _RETRIED_GRPC or (code is grpc.StatusCode.RESOURCE_EXHAUSTED and wait is not None):
        return Delivery("retry", message, wait)
    if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
        return Delivery("blocked", message)
    return Delivery("too_large" if code is grpc.StatusCode.RESOURCE_EXHAUSTED else "refused", message)


def _retry_info(error: grpc.aio.AioRpcError) -> float | None:
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            try:
                details = Status.FromString(value).details
            except DecodeError:
                return None
            for detail in details:
                info = RetryInfo()
                if detail.Unpack(info):
                    return float(info.retry_delay.ToMilliseconds() / 1000)
    return None


def _partial(signal: ForwardSignal, answer: bytes) -> Delivery:
    try:
        if signal == "traces":
            partial: Any = ExportTraceServiceResponse.FromString(answer).partial_success
            rejected = partial.rejected_spans
        else:
            partial = ExportLogsServiceResponse.FromString(answer).partial_success
            rejected = partial.rejected_log_records
    except DecodeError:
        return Delivery("sent")
    return Delivery("sent", partial.error_message[:_MOST_OF_AN_ERROR], rejected=rejected)


async def _first_bytes(response: httpx.Response) -> bytes:
    pieces: list[bytes] = []
    room = _MOST_OF_AN_ANSWER
    async for piece in response.aiter_bytes():
        pieces.append(piece[:room])
        room -= len(piece)
        if room <= 0:
            break
    return b"".join(pieces)


def _now() -> datetime:
    return datetime.now(UTC)
