"""OTLP/HTTP: what is stored, what is answered, and what a slow, greedy or broken sender can do."""

from __future__ import annotations

import asyncio
import gzip
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from collector.running import Running, running_collector
from tierlight_collector.app import OtlpApp
from tierlight_collector.conformance import request_json, request_proto, span_json
from tierlight_collector.errors import BadRequest, StoreBusy, StoreError, TooLarge, UnsupportedMedia
from tierlight_collector.ingest import Admission, Ingest, inflate
from tierlight_collector.limits import MIB, IngestLimits
from tierlight_collector.records import Appended, Batch
from tierlight_collector.server import listen

PROTOBUF = {"content-type": "application/x-protobuf"}
JSON = {"content-type": "application/json"}


def call_json(**fields: Any) -> dict[str, Any]:
    """A span that is a model call."""
    said = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o-mini",
        "tierlight.route": "triage",
    }
    attributes = [{"key": key, "value": {"stringValue": text}} for key, text in said.items()]
    attributes.append({"key": "gen_ai.usage.input_tokens", "value": {"intValue": "12"}})
    attributes.append({"key": "gen_ai.usage.output_tokens", "value": {"intValue": "3"}})
    return span_json(name="chat gpt-4o-mini", kind=3, attributes=attributes, **fields)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    limits = IngestLimits(stall_s=0.4, request_s=1.0, concurrent_requests=4)
    with running_collector(tmp_path_factory.mktemp("http"), limits=limits, grpc_port=None) as collector:
        yield collector


def post(running: Running, body: bytes, headers: dict[str, str], path: str = "/v1/traces") -> httpx.Response:
    return httpx.post(running.url + path, content=body, headers=headers, timeout=10)


# ---- stored, answered -------------------------------------------------------------------------------------


def test_a_call_is_in_the_store_when_the_answer_comes(running: Running) -> None:
    span = call_json()
    answer = post(running, request_json(span), JSON)
    assert (answer.status_code, answer.content) == (200, b"{}")
    row = running.store.call(bytes.fromhex(span["traceId"]), bytes.fromhex(span["spanId"]))
    assert row is not None
    assert (row.call.route, row.call.request_model) == ("triage", "gpt-4o-mini")
    assert (row.call.input_tokens, row.call.output_tokens) == (12, 3)


def test_a_success_in_protobuf_has_an_empty_body(running: Running) -> None:
    answer = post(running, request_proto().SerializeToString(), PROTOBUF)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"] == "application/x-protobuf"


def test_the_same_request_at_the_same_time_is_stored_once(running: Running) -> None:
    span = call_json()
    body = gzip.compress(request_json(span))
    answers: list[int] = []

    def send() -> None:
        answers.append(post(running, body, {**JSON, "content-encoding": "gzip"}).status_code)

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [200] * 4
    stored = running.store.trace(bytes.fromhex(span["traceId"]))
    assert len(stored) == 1


def test_a_refused_body_changes_nothing(running: Running) -> None:
    before = running.store.health().calls
    good = request_json(call_json())
    answer = post(running, good[:-5], JSON)
    assert answer.status_code == 400
    assert answer.json()["code"] == 3
    truncated = request_proto().SerializeToString()[:-3]
    refused = post(running, truncated, PROTOBUF)
    assert Status.FromString(refused.content).code == 3
    assert running.store.health().calls == before


def test_rejected_spans_are_named_and_their_neighbours_stored(running: Running) -> None:
    good, bad = call_json(), call_json(traceId="00" * 16)
    answer = post(running, request_json(good, bad), JSON)
    assert answer.json()["partialSuccess"]["rejectedSpans"] == "1"
    assert "trace id" in answer.json()["partialSuccess"]["errorMessage"]
    assert running.store.call(bytes.fromhex(good["traceId"]), bytes.fromhex(good["spanId"])) is not None
    proto = request_proto(2)
    proto.resource_spans[0].scope_spans[0].spans[0].span_id = b""
    answer = post(running, proto.SerializeToString(), PROTOBUF)
    assert ExportTraceServiceResponse.FromString(answer.content).partial_success.rejected_spans == 1


def test_metrics_are_accepted_and_the_answer_says_they_are_not_stored(running: Running) -> None:
    request = ExportMetricsServiceRequest()
    request.resource_metrics.add().scope_metrics.add().metrics.add(name="gen_ai.client.token.usage")
    answer = post(running, request.SerializeToString(), PROTOBUF, "/v1/metrics")
    partial = ExportMetricsServiceResponse.FromString(answer.content).partial_success
    assert (answer.status_code, partial.rejected_data_points) == (200, 0)
    assert "does not store metrics" in partial.error_message
    assert post(running, b"", PROTOBUF, "/v1/metrics").content == b""


def test_an_evaluation_event_becomes_the_score_of_its_call(running: Running) -> None:
    span = call_json()
    post(running, request_json(span), JSON)
    score = {
        "timeUnixNano": str(time.time_ns()),
        "traceId": span["traceId"],
        "spanId": span["spanId"],
        "eventName": "gen_ai.evaluation.result",
        "attributes": [
            {"key": "gen_ai.evaluation.name", "value": {"stringValue": "exact"}},
            {"key": "gen_ai.evaluation.score.value", "value": {"doubleValue": 0.5}},
        ],
    }
    other = {"timeUnixNano": "1", "body": {"stringValue": "hello"}}
    body = orjson.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": [score, other]}]}]})
    answer = post(running, body, JSON, "/v1/logs")
    assert (answer.status_code, answer.content) == (200, b"{}")
    row = running.store.call(bytes.fromhex(span["traceId"]), bytes.fromhex(span["spanId"]))
    assert row is not None
    assert [(found.name, found.value) for found in row.scores] == [("exact", 0.5)]


def test_probes_say_that_it_lives_and_is_ready(running: Running) -> None:
    assert httpx.get(running.url + "/healthz").text == "ok\n"
    assert httpx.get(running.url + "/readyz").status_code == 200
    assert httpx.head(running.url + "/healthz").content == b""
    assert httpx.post(running.url + "/healthz", headers=JSON).status_code == 405


# ---- senders that stall, leave or ask for too much ---------------------------------------------------------


def head_of(running: Running, length: int) -> bytes:
    return (
        f"POST /v1/traces HTTP/1.1\r\nHost: 127.0.0.1:{running.http_port}\r\n"
        f"Content-Type: application/x-protobuf\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


def connect(running: Running) -> socket.socket:
    return socket.create_connection(("127.0.0.1", running.http_port), timeout=5)


def read_to_end(connection: socket.socket) -> bytes:
    answer = b""
    while piece := connection.recv(65536):
        answer += piece
    return answer


def test_a_body_that_stalls_is_timed_out_while_others_are_served(running: Running) -> None:
    with connect(running) as slow:
        slow.sendall(head_of(running, 100) + b"abc")
        assert post(running, b"", PROTOBUF).status_code == 200
        answer = read_to_end(slow)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in answer.lower()


def test_a_body_that_drips_is_ended_after_the_longest_time(running: Running) -> None:
    with connect(running) as slow:
        slow.sendall(head_of(running, 1000))
        slow.setblocking(False)
        answer = b""
        for _ in range(60):
            try:
                slow.send(b"x")
                answer += slow.recv(4096)
            except BlockingIOError:
                pass
            except OSError:
                break
            if answer:
                break
            time.sleep(0.05)
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_a_header_that_drips_is_timed_out(running: Running) -> None:
    with connect(running) as slow:
        slow.sendall(b"POST /v1/traces HTTP/1.1\r\nHost: ")
        assert read_to_end(slow).startswith(b"HTTP/1.1 408 ")


def test_a_connection_that_never_speaks_is_closed(running: Running) -> None:
    with connect(running) as silent:
        assert read_to_end(silent) == b""


def test_a_header_without_end_is_refused_at_the_limit(running: Running) -> None:
    with connect(running) as greedy:
        greedy.sendall(b"POST /v1/traces HTTP/1.1\r\nX: " + b"a" * 17_000)
        assert read_to_end(greedy).startswith(b"HTTP/1.1 431 ")


def test_an_absolute_form_target_is_refused(running: Running) -> None:
    with connect(running) as odd:
        odd.sendall(
            f"GET http://evil.com/healthz HTTP/1.1\r\nHost: 127.0.0.1:{running.http_port}\r\n\r\n".encode()
        )
        assert read_to_end(odd).startswith(b"HTTP/1.1 400 ")


def test_a_sender_that_resets_in_the_middle_leaves_nothing(running: Running) -> None:
    body = request_proto().SerializeToString()
    trace_id = request_proto().resource_spans[0].scope_spans[0].spans[0].trace_id
    with connect(running) as leaver:
        leaver.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        leaver.sendall(head_of(running, len(body)) + body[:-4])
    deadline = time.monotonic() + 5
    while "http_traces_gone" not in running.collector.ingest.counters.snapshot():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert running.store.trace(trace_id) == []


def test_more_requests_than_places_are_sent_away_for_a_second(running: Running) -> None:
    waiting = [connect(running) for _ in range(4)]
    try:
        for connection in waiting:
            connection.sendall(head_of(running, 100) + b"abc")
        deadline = time.monotonic() + 0.35
        while running.collector.ingest.admission.requests < 4 and time.monotonic() < deadline:
            time.sleep(0.005)
        answer = post(running, b"", PROTOBUF)
    finally:
        for connection in waiting:
            connection.close()
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert Status.FromString(answer.content).code == 14


def test_one_connection_serves_many_requests(running: Running) -> None:
    with httpx.Client(base_url=running.url) as client:
        answers = [client.post("/v1/traces", content=b"", headers=PROTOBUF) for _ in range(20)]
        assert {answer.status_code for answer in answers} == {200}


def test_an_answer_never_waits_for_the_acknowledgement_of_its_header() -> None:
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()[:2]):
        listener.settimeout(5)
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


def test_an_endless_chunked_body_is_cut_off(tmp_path: Path) -> None:
    limits = replace(IngestLimits(), body_bytes=MIB, compressed_bytes=MIB)

    def endless() -> Iterator[bytes]:
        for _ in range(10_000):
            yield bytes(16_384)

    with running_collector(tmp_path, limits=limits, grpc_port=None) as small:
        answer = httpx.post(small.url + "/v1/traces", content=endless(), headers=PROTOBUF, timeout=10)
        assert answer.status_code == 413
        assert Status.FromString(answer.content).code == 8


# ---- a store that can't ------------------------------------------------------------------------------------


class BrokenStore:
    """A store that can't take a batch, in the ways a real one can't."""

    def __init__(self, error: Exception, *, at_commit: bool) -> None:
        self.error = error
        self.at_commit = at_commit

    def submit(self, batch: Batch) -> Future[Appended]:
        if not self.at_commit:
            raise self.error
        future: Future[Appended] = Future()
        future.set_exception(self.error)
        return future

    def append(self, batch: Batch) -> Appended:
        return self.submit(batch).result()


def answer_of(store: BrokenStore) -> httpx.Response:
    async def ask() -> httpx.Response:
        ingest = Ingest(store)
        app = OtlpApp(ingest, is_ready=lambda: False)
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app),
            base_url="http://localhost:4318",
        ) as client:
            assert (await client.get("/readyz")).status_code == 503
            answer = await client.post("/v1/traces", content=request_json(call_json()), headers=JSON)
        ingest.close()
        assert (ingest.admission.requests, ingest.admission.bytes) == (0, 0)
        return answer

    return asyncio.run(ask())


@pytest.mark.parametrize(
    ("error", "at_commit", "wait_s"),
    [
        (StoreBusy("the queue is full", retry_after_s=7), False, (7, 9)),
        (StoreBusy("the disk is low", retry_after_s=30), True, (30, 36)),
        (StoreError("the disk is full"), True, (5, 5)),
        (OSError("disk I/O error"), True, (5, 5)),
    ],
    ids=["queue full", "disk low", "store error", "driver error"],
)
def test_what_the_store_cannot_do_now_may_be_sent_again(
    error: Exception, at_commit: bool, wait_s: tuple[int, int]
) -> None:
    answer = answer_of(BrokenStore(error, at_commit=at_commit))
    assert (answer.status_code, answer.json()["code"]) == (503, 14)
    assert wait_s[0] <= int(answer.headers["retry-after"]) <= wait_s[1]


# ---- the parts ---------------------------------------------------------------------------------------------


def test_a_body_is_inflated_up_to_the_limit_and_not_beyond() -> None:
    text = b"span " * 100_000
    assert inflate(gzip.compress(text), "gzip", len(text)) == text
    with pytest.raises(TooLarge):
        inflate(gzip.compress(text), "gzip", len(text) - 1)
    assert inflate(text, "", len(text)) == text
    with pytest.raises(TooLarge):
        inflate(text, "identity", len(text) - 1)


@pytest.mark.parametrize("encoding", ["br", "gzip, gzip", "gzip,identity", "x"])
def test_an_encoding_nobody_reads_is_named(encoding: str) -> None:
    with pytest.raises(UnsupportedMedia, match="gzip, deflate or identity"):
        inflate(b"", encoding, 100)


@pytest.mark.parametrize(
    "body", [b"", b"\x1f\x8b", gzip.compress(b"abc")[:-1], gzip.compress(b"abc") + b"\x00"]
)
def test_a_damaged_stream_is_a_bad_request(body: bytes) -> None:
    with pytest.raises(BadRequest):
        inflate(body, "gzip", 100)


def test_bytes_in_flight_are_bounded_over_all_requests() -> None:
    admission = Admission(IngestLimits(in_flight_bytes=100))
    with admission.request() as one, admission.request() as two:
        one.grow(60)
        with pytest.raises(StoreBusy):
            two.grow(60)
        two.grow(40)
    assert (admission.requests, admission.bytes) == (0, 0)


def test_the_time_to_wait_follows_from_the_measured_rate() -> None:
    now = [0.0]
    admission = Admission(IngestLimits(in_flight_bytes=1000), clock=lambda: now[0])
    assert admission.retry_after_s() == 1.0
    with admission.request() as lease:
        lease.grow(100)
        now[0] = 10.0  # 10 bytes a second
    with admission.request() as lease:
        lease.grow(300)
        assert admission.retry_after_s() == pytest.approx(30.0)
