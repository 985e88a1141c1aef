"""The same requests over OTLP/gRPC, loaded only when `protocol` is `grpc`.

The bytes come ready from our encoder, so this calls the two `Export` methods directly instead of through the
stock exporter, which would encode once more and hides what the collector rejected.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
from google.rpc import error_details_pb2, status_pb2

from tierlight._encode import Signal, partial_success
from tierlight._record import ExportSettings
from tierlight._transport import Answer, is_compressed
from tierlight.errors import ConfigurationError

_METHODS: dict[Signal, str] = {
    "traces": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "logs": "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
}
# OTLP specification, "OTLP/gRPC Throttling" and "Failures": the codes a client may send again.
_RETRYABLE = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
_DENIED = frozenset(
    {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNIMPLEMENTED}
)


class GrpcTransport:
    """OTLP/gRPC over one channel."""

    def __init__(self, settings: ExportSettings) -> None:
        self._metadata = tuple((name.lower(), value) for name, value in (settings.headers or {}).items())
        self._compression = (
            grpc.Compression.Gzip
            if is_compressed(settings, urlsplit(settings.endpoint).hostname or "")
            else grpc.Compression.NoCompression
        )
        self._channels: list[Any] = []
        self._calls: dict[Signal, Callable[..., bytes]] = {}
        addresses: dict[Signal, str] = {
            "traces": settings.traces_endpoint or settings.endpoint,
            "logs": settings.logs_endpoint or settings.endpoint,
        }
        for signal, address in addresses.items():
            channel = _channel(address, settings)
            self._channels.append(channel)
            self._calls[signal] = channel.unary_unary(_METHODS[signal], None, None)

    def send(self, signal: Signal, body: bytes, timeout_s: float) -> Answer:
        try:
            response = self._calls[signal](
                body, timeout=timeout_s, metadata=self._metadata, compression=self._compression
            )
        except grpc.RpcError as error:
            return _answer(error)
        try:
            rejected, message = partial_success(response)
        except ValueError:
            return Answer("denied", message="an answer that is no OTLP answer")
        return Answer("delivered", rejected=rejected, message=message[:500])

    def close(self) -> None:
        for channel in self._channels:
            channel.close()


def _channel(address: str, settings: ExportSettings) -> Any:
    url = urlsplit(address if "://" in address else f"http://{address}")
    if url.scheme not in {"http", "https"} or not url.hostname:
        raise ConfigurationError(
            f"the OTLP endpoint must be a URL such as http://127.0.0.1:4317, not {address!r}"
        )
    target = f"{url.hostname}:{url.port or 4317}"
    if url.scheme == "http":
        return grpc.insecure_channel(target)
    return grpc.secure_channel(
        target,
        grpc.ssl_channel_credentials(
            _read(settings.certificate), _read(settings.client_key), _read(settings.client_certificate)
        ),
    )


def _read(path: str) -> bytes | None:
    return Path(path).read_bytes() if path else None


def _answer(error: Any) -> Answer:
    code = error.code()
    message = f"gRPC {code.name}: {(error.details() or '')[:500]}"
    wait = _retry_delay(error)
    if code in _RETRYABLE or (code is grpc.StatusCode.RESOURCE_EXHAUSTED and wait is not None):
        return Answer("retry", message=f"gRPC {code.name}", retry_after_s=wait)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return Answer("too_large", message=message)
    return Answer("denied" if code in _DENIED else "refused", message=message)


def _retry_delay(error: Any) -> float | None:
    """Seconds of the `google.rpc.RetryInfo` in the trailing metadata, None without one."""
    for name, value in error.trailing_metadata() or ():
        if name == "grpc-status-details-bin":
            status = status_pb2.Status.FromString(value)
            for detail in status.details:
                info = error_details_pb2.RetryInfo()
                if detail.Unpack(info):
                    return float(info.retry_delay.ToTimedelta().total_seconds())
    return None
