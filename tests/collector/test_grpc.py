"""OTLP/gRPC: the same store, and the codes that make a client retry or stop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from grpc_status import rpc_status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import LogsServiceStub
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import MetricsServiceStub
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from collector.running import Running, running_collector
from collector.test_http import BrokenStore
from tierlight_collector.conformance import request_proto
from tierlight_collector.errors import InsecureBind, StoreBusy, StoreError
from tierlight_collector.grpc import serve_grpc
from tierlight_collector.ingest import Ingest
from tierlight_collector.limits import MIB, IngestLimits


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    limits = IngestLimits(message_bytes=MIB)
    with running_collector(tmp_path_factory.mktemp("grpc"), limits=limits) as collector:
        yield collector


@pytest.fixture
def channel(running: Running) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(running.grpc_address) as channel:
        yield channel


def stub(kind: Any, channel: Any) -> Any:
    """The generated client, which has no types."""
    return kind(channel)


def refusal_of(call: Any) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
def test_a_span_is_in_the_store_when_the_answer_comes(
    running: Running, channel: grpc.Channel, compression: grpc.Compression
) -> None:
    request = request_proto()
    answer = stub(TraceServiceStub, channel).Export(request, compression=compression)
    assert not answer.HasField("partial_success")
    span = request.resource_spans[0].scope_spans[0].spans[0]
    assert [stored.span_id for stored in running.store.trace(span.trace_id)] == [span.span_id]


def test_rejected_spans_are_counted_in_the_answer(channel: grpc.Channel) -> None:
    request = request_proto(2)
    request.resource_spans[0].scope_spans[0].spans[0].trace_id = b"short"
    answer = stub(TraceServiceStub, channel).Export(request)
    assert answer.partial_success.rejected_spans == 1
    assert "trace id" in answer.partial_success.error_message


def test_logs_and_metrics_are_taken(channel: grpc.Channel) -> None:
    stub(LogsServiceStub, channel).Export(ExportLogsServiceRequest())
    request = ExportMetricsServiceRequest()
    request.resource_metrics.add().scope_metrics.add().metrics.add(name="m")
    answer = stub(MetricsServiceStub, channel).Export(request)
    assert "does not store metrics" in answer.partial_success.error_message


def test_bytes_that_are_no_request_are_an_invalid_argument(channel: grpc.Channel) -> None:
    export = channel.unary_unary("/opentelemetry.proto.collector.trace.v1.TraceService/Export")
    error = refusal_of(lambda: export(b"\xff\xff garbage"))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
def test_a_message_over_the_limit_is_not_to_be_retried(
    channel: grpc.Channel, compression: grpc.Compression
) -> None:
    request = request_proto()
    span = request.resource_spans[0].scope_spans[0].spans[0]
    span.attributes.append(KeyValue(key="long", value=AnyValue(string_value="a" * 2 * MIB)))
    error = refusal_of(lambda: stub(TraceServiceStub, channel).Export(request, compression=compression))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert rpc_status.from_call(error) is None


def test_an_unknown_method_is_unimplemented(channel: grpc.Channel) -> None:
    export = channel.unary_unary("/opentelemetry.proto.collector.trace.v1.TraceService/Import")
    assert refusal_of(lambda: export(b"")).code() is grpc.StatusCode.UNIMPLEMENTED


def answer_of(store: BrokenStore) -> grpc.RpcError:
    async def ask() -> grpc.RpcError:
        ingest = Ingest(store)
        async with (
            serve_grpc(ingest, "127.0.0.1", 0) as port,
            grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
        ):
            try:
                await stub(TraceServiceStub, channel).Export(request_proto())
            except grpc.aio.AioRpcError as error:
                return error
            finally:
                ingest.close()
        raise AssertionError("the store is broken and the answer was OK")

    return asyncio.run(ask())


@pytest.mark.parametrize(
    ("error", "at_commit", "wait_s"),
    [
        (StoreBusy("the queue is full", retry_after_s=7), False, (7, 8.4)),
        (StoreError("the disk is full"), True, (5, 6)),
        (OSError("disk I/O error"), True, (5, 6)),
    ],
    ids=["queue full", "store error", "driver error"],
)
def test_what_the_store_cannot_do_now_is_unavailable_with_the_time_to_wait(
    error: Exception, at_commit: bool, wait_s: tuple[float, float]
) -> None:
    answer = answer_of(BrokenStore(error, at_commit=at_commit))
    assert answer.code() is grpc.StatusCode.UNAVAILABLE
    details = rpc_status.from_call(answer).details
    info = RetryInfo()
    assert details[0].Unpack(info)
    assert wait_s[0] <= info.retry_delay.ToMilliseconds() / 1000 <= wait_s[1]


def test_a_second_server_on_the_port_is_refused(running: Running, tmp_path: Path) -> None:
    port = int(running.grpc_address.rpartition(":")[2])
    with pytest.raises(OSError, match="the port is taken"), running_collector(tmp_path, grpc_port=port):
        pass


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5"])
def test_an_address_others_can_reach_is_refused_before_anything_listens(host: str, tmp_path: Path) -> None:
    with pytest.raises(InsecureBind), running_collector(tmp_path, host=host):
        pass
