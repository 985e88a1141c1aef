"""The same requests over gRPC, against a server of the reference implementation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from tierlight._delivery import open_transport
from tierlight._encode import Encoder
from tierlight._record import ExportSettings, FinishedCall, FinishedScore
from tierlight._transport import Transport
from tierlight.errors import ConfigurationError

Respond = Callable[[Any], trace_service_pb2.ExportTraceServiceResponse]


class Server(trace_service_pb2_grpc.TraceServiceServicer, logs_service_pb2_grpc.LogsServiceServicer):
    """Answers as the test says; keeps what it got with its metadata."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.metadata: dict[str, Any] = {}
        self.respond: Respond = lambda context: trace_service_pb2.ExportTraceServiceResponse()

    def Export(self, request: Any, context: Any) -> Any:
        self.requests.append(request)
        self.metadata = dict(context.invocation_metadata())
        if isinstance(request, logs_service_pb2.ExportLogsServiceRequest):
            return logs_service_pb2.ExportLogsServiceResponse()
        return self.respond(context)


@pytest.fixture
def running() -> Iterator[tuple[Server, Transport]]:
    servicer = Server()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
    logs_service_pb2_grpc.add_LogsServiceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    transport = open_transport(
        ExportSettings(
            endpoint=f"http://127.0.0.1:{port}", protocol="grpc", headers={"Authorization": "Bearer t"}
        )
    )
    yield servicer, transport
    transport.close()
    server.stop(None)


def spans() -> bytes:
    encoder = Encoder({"service.name": "shop"}, "1")
    return encoder.request([encoder.span(FinishedCall(1, 2, None, "chat m", 1, 2, {"k": "v"}))])


def test_spans_and_scores_arrive_with_the_headers(running: tuple[Server, Transport]) -> None:
    server, transport = running
    encoder = Encoder({}, "1")
    assert transport.send("traces", spans(), 5.0).kind == "delivered"
    assert (
        transport.send("logs", encoder.request([encoder.log(FinishedScore(5, {}))]), 5.0).kind == "delivered"
    )
    traces, logs = server.requests
    assert traces.resource_spans[0].scope_spans[0].spans[0].name == "chat m"
    assert logs.resource_logs[0].scope_logs[0].log_records[0].event_name == "gen_ai.evaluation.result"
    assert server.metadata["authorization"] == "Bearer t"


def test_a_partial_success_is_read(running: tuple[Server, Transport]) -> None:
    server, transport = running
    partial = trace_service_pb2.ExportTracePartialSuccess(rejected_spans=3, error_message="too old")
    server.respond = lambda context: trace_service_pb2.ExportTraceServiceResponse(partial_success=partial)
    answer = transport.send("traces", spans(), 5.0)
    assert (answer.kind, answer.rejected, answer.message) == ("delivered", 3, "too old")


def refuse(code: grpc.StatusCode, wait_s: float | None = None) -> Respond:
    def respond(context: Any) -> trace_service_pb2.ExportTraceServiceResponse:
        if wait_s is not None:
            info = error_details_pb2.RetryInfo(retry_delay=Duration(nanos=round(wait_s * 1e9)))
            detail = Packed()
            detail.Pack(info)
            status = status_pb2.Status(code=code.value[0], details=[detail])
            context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        context.abort(code, "as the test asked")
        raise AssertionError("abort raises")

    return respond


@pytest.mark.parametrize(
    ("code", "wait_s", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, None, "retry"),
        (grpc.StatusCode.UNAVAILABLE, 0.5, "retry"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, 0.5, "retry"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, None, "too_large"),
        (grpc.StatusCode.INVALID_ARGUMENT, None, "refused"),
        (grpc.StatusCode.INTERNAL, None, "refused"),
        (grpc.StatusCode.UNAUTHENTICATED, None, "denied"),
        (grpc.StatusCode.UNIMPLEMENTED, None, "denied"),
    ],
)
def test_a_status_means_what_the_specification_says(
    running: tuple[Server, Transport], code: grpc.StatusCode, wait_s: float | None, kind: str
) -> None:
    server, transport = running
    server.respond = refuse(code, wait_s)
    answer = transport.send("traces", spans(), 5.0)
    assert (answer.kind, answer.retry_after_s) == (kind, wait_s)


def test_nobody_listening_is_to_be_tried_again() -> None:
    transport = open_transport(ExportSettings(endpoint="http://127.0.0.1:1", protocol="grpc"))
    assert transport.send("traces", spans(), 1.0).kind == "retry"
    transport.close()


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_an_address_that_is_no_url_is_named(protocol: str) -> None:
    with pytest.raises(ConfigurationError, match="OTLP endpoint must be a URL"):
        open_transport(ExportSettings(endpoint="ftp://example.com", protocol=protocol))
