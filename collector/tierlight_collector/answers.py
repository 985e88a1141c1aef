"""What OTLP senders are answered, in protobuf or JSON, over HTTP and gRPC.

References: OTLP specification, "OTLP/HTTP Response" and "Partial Success"
(https://opentelemetry.io/docs/specs/otlp/); google.rpc.Status and google.rpc.Code.
"""

from __future__ import annotations

from typing import Final, Literal

import orjson
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

Signal = Literal["traces", "logs", "metrics"]
ExportResponse = ExportTraceServiceResponse | ExportLogsServiceResponse | ExportMetricsServiceResponse

INVALID_ARGUMENT: Final = 3
PERMISSION_DENIED: Final = 7
RESOURCE_EXHAUSTED: Final = 8
UNIMPLEMENTED: Final = 12
INTERNAL: Final = 13
UNAVAILABLE: Final = 14
UNAUTHENTICATED: Final = 16

_REJECTED_IN_JSON: Final = {
    "traces": "rejectedSpans",
    "logs": "rejectedLogRecords",
    "metrics": "rejectedDataPoints",
}


def export_response(signal: Signal, rejected: int, message: str) -> ExportResponse:
    """The response of an accepted request; partial success stays unset when there is nothing to say."""
    if signal == "traces":
        spans = ExportTraceServiceResponse()
        if rejected or message:
            spans.partial_success.rejected_spans = rejected
            spans.partial_success.error_message = message
        return spans
    if signal == "logs":
        logs = ExportLogsServiceResponse()
        if rejected or message:
            logs.partial_success.rejected_log_records = rejected
            logs.partial_success.error_message = message
        return logs
    metrics = ExportMetricsServiceResponse()
    if rejected or message:
        metrics.partial_success.rejected_data_points = rejected
        metrics.partial_success.error_message = message
    return metrics


def export_body(signal: Signal, rejected: int, message: str, *, as_json: bool) -> bytes:
    """The body of a 200; an int64 is a string in protobuf's JSON.

    >>> export_body("traces", 0, "", as_json=True)
    b'{}'
    >>> export_body("traces", 2, "bad ids", as_json=True)
    b'{"partialSuccess":{"rejectedSpans":"2","errorMessage":"bad ids"}}'
    """
    if not as_json:
        return export_response(signal, rejected, message).SerializeToString()
    if not rejected and not message:
        return b"{}"
    partial: dict[str, str] = {}
    if rejected:
        partial[_REJECTED_IN_JSON[signal]] = str(rejected)
    if message:
        partial["errorMessage"] = message
    return orjson.dumps({"partialSuccess": partial})


def status_body(code: int, message: str, *, as_json: bool) -> bytes:
    """The body of a refusal: google.rpc.Status in the encoding of the request."""
    if as_json:
        return orjson.dumps({"code": code, "message": message})
    body: bytes = Status(code=code, message=message).SerializeToString()
    return body


def unavailable_status(message: str, retry_after_s: float) -> Status:
    """UNAVAILABLE with the RetryInfo that makes a gRPC exporter try again, after so long."""
    delay = Duration()
    delay.FromMilliseconds(int(retry_after_s * 1000))
    status = Status(code=UNAVAILABLE, message=message)
    status.details.add().Pack(RetryInfo(retry_delay=delay))
    return status
