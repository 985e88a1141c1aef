"""OTLP bodies to records: protobuf by the generated classes, JSON by a walker of its own.

`google.protobuf.json_format` reads the hex ids of OTLP JSON as base64 and takes enum names, so it is not used.
Pure: bytes in, records out. A span that can never be right is rejected with a reason while its neighbours stay;
what is too long is cut and counted. Protobuf stops here.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias, TypeVar

from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from ..errors import BadRequest
from ..limits import IngestLimits
from .from_json import JsonWalker, list_of, load_json, object_of
from .from_protobuf import ProtoWalker
from .walking import DEPTH_MARK, Decoded

__all__ = [
    "DEPTH_MARK",
    "Decoded",
    "MediaType",
    "count_metrics",
    "count_metrics_message",
    "decode_logs",
    "decode_logs_message",
    "decode_traces",
    "decode_traces_message",
]

MediaType: TypeAlias = Literal["protobuf", "json"]
NO_LIMITS_SET: Final = IngestLimits()

M = TypeVar("M", bound=Message)


def decode_traces(
    body: bytes,
    media_type: MediaType,
    *,
    limits: IngestLimits = NO_LIMITS_SET,
    arrived_ns: int | None = None,
) -> Decoded:
    """The spans of an `ExportTraceServiceRequest`, already decompressed.

    Spans that began more than `limits.horizon_days` before `arrived_ns` are rejected (not checked when None).
    Raises BadRequest when the body is not OTLP of that media type.
    """
    if media_type == "protobuf":
        return decode_traces_message(
            _parse(ExportTraceServiceRequest, body), limits=limits, arrived_ns=arrived_ns
        )
    return JsonWalker(limits, arrived_ns).traces(load_json(body))


def decode_traces_message(
    message: ExportTraceServiceRequest,
    *,
    limits: IngestLimits = NO_LIMITS_SET,
    arrived_ns: int | None = None,
) -> Decoded:
    """The same of a request that gRPC has parsed already."""
    return ProtoWalker(limits, arrived_ns).traces(message)


def decode_logs(body: bytes, media_type: MediaType, *, limits: IngestLimits = NO_LIMITS_SET) -> Decoded:
    """The log records of an `ExportLogsServiceRequest`. Raises BadRequest like `decode_traces`."""
    if media_type == "protobuf":
        return decode_logs_message(_parse(ExportLogsServiceRequest, body), limits=limits)
    return JsonWalker(limits, None).log_records(load_json(body))


def decode_logs_message(
    message: ExportLogsServiceRequest, *, limits: IngestLimits = NO_LIMITS_SET
) -> Decoded:
    """The same of a request that gRPC has parsed already."""
    return ProtoWalker(limits, None).log_records(message)


def count_metrics(body: bytes, media_type: MediaType) -> int:
    """How many metrics an `ExportMetricsServiceRequest` holds; they are counted and not stored."""
    if media_type == "protobuf":
        return count_metrics_message(_parse(ExportMetricsServiceRequest, body))
    return sum(
        len(list_of(scope, "metrics"))
        for resource in list_of(load_json(body), "resourceMetrics")
        for scope in list_of(object_of(resource, "resourceMetrics"), "scopeMetrics")
    )


def count_metrics_message(message: ExportMetricsServiceRequest) -> int:
    """The same of a request that gRPC has parsed already."""
    return sum(
        len(scope.metrics) for resource in message.resource_metrics for scope in resource.scope_metrics
    )


def _parse(kind: type[M], body: bytes) -> M:
    try:
        return kind.FromString(body)
    except DecodeError as error:
        raise BadRequest(f"body is not a protobuf {kind.DESCRIPTOR.name}") from error
