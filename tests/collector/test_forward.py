"""Forwarding: every accepted span reaches every target, in order, whatever the target does meanwhile."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collector.running import running_collector
from collector.test_http import JSON, call_json
from e2e.doubles.fake_collector import FakeCollector, Mode, fake_collector
from tierlight_collector.conformance import request_json, request_proto, span_json
from tierlight_collector.errors import BadTarget, StoreBusy
from tierlight_collector.forward import Forwarder, ForwardTarget, check_target, read_secret
from tierlight_collector.payload import (
    count,
    halves,
    seal,
    strip_content,
    unseal,
    with_content,
    without_content,
)
from tierlight_collector.records import Batch, NormalisedSpan, Resource, RouteHints, SpanRecord
from tierlight_collector.stores import Store, open_store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = open_store(f"sqlite:///{tmp_path / 'calls.db'}")
    yield store
    store.close()


def queue(store: Store, requests: int = 1, spans: int = 2, hops: tuple[str, ...] = ()) -> list[bytes]:
    """Put requests into the outbox as ingest does; gives the span ids in order."""
    ids: list[bytes] = []
    for _ in range(requests):
        request = request_proto(spans)
        received = request.resource_spans[0].scope_spans[0].spans
        ids += [span.span_id for span in received]
        stored = tuple(
            NormalisedSpan(
                SpanRecord(
                    span.trace_id,
                    span.span_id,
                    b"",
                    "probe",
                    1,
                    time.time_ns(),
                    0,
                    0,
                    "",
                    "",
                    "",
                    {},
                    (),
                    Resource({}),
                ),
                "other",
                RouteHints(),
                None,
            )
            for span in received
        )
        store.append(
            Batch(spans=stored, forward=seal(hops, request.SerializeToString()), arrived_ns=time.time_ns())
        )
    return ids


@asynccontextmanager
async def forwarding(store: Store, *targets: ForwardTarget) -> AsyncIterator[Forwarder]:
    forwarder = Forwarder(store, targets, instance_id="me", first_wait_s=0.02)
    sending = asyncio.create_task(forwarder.run())
    try:
        yield forwarder
    finally:
        forwarder.stop()
        await sending


async def until(reached: Callable[[], bool], timeout_s: float = 8.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not reached():
        assert time.monotonic() < deadline, "it did not come to that in time"
        await asyncio.sleep(0.01)


def state_of(store: Store, name: str = "there") -> Any:
    return next((target for target in store.outbox_targets() if target.name == name), None)


def forward_to(store: Store, target: FakeCollector, reached: Callable[[], bool], **options: Any) -> None:
    async def run() -> None:
        async with forwarding(store, ForwardTarget("there", target.url, **options)):
            await until(reached)

    asyncio.run(run())


def test_all_spans_arrive_once_in_order_and_leave_the_outbox(store: Store) -> None:
    ids = queue(store, requests=7)
    with fake_collector() as target:
        forward_to(store, target, lambda: len(target.spans) == 14 and state_of(store).sent == 14)
        assert [span.span_id for span in target.spans] == ids
        path, headers, _ = target.requests[0]
    assert len(target.requests) == 1  # joined
    assert path == "/v1/traces"
    headers = {name.lower(): value for name, value in headers.items()}
    assert (headers["x-tierlight-hop"], headers["content-encoding"]) == ("me", "gzip")
    assert store.outbox_batches(0, 1 << 20) == []


@pytest.mark.parametrize("mode", ["503", "429", "reset mid-response", "html 200"])
def test_a_target_that_recovers_gets_everything(store: Store, mode: Mode) -> None:
    ids = queue(store, requests=3)
    with fake_collector(mode) as target:

        def recovered() -> bool:
            if len(target.requests) >= 3:
                target.mode = "ok"
            return len(target.span_ids) == 6 and state_of(store).state == "ok"

        forward_to(store, target, recovered)
        assert [span.span_id for span in target.spans] == ids


@pytest.mark.parametrize("mode", ["503 retry-after seconds", "503 retry-after date"])
def test_the_time_that_a_target_asks_for_is_waited(store: Store, mode: Mode) -> None:
    queue(store)
    with fake_collector(mode) as target:
        began: list[float] = []

        def retried() -> bool:
            if len(target.requests) == 1 and not began:
                began.append(time.monotonic())
            return len(target.requests) >= 2

        forward_to(store, target, retried)
        assert time.monotonic() - began[0] > 0.7
    assert state_of(store).attempts >= 1


def test_a_refused_key_blocks_the_target_and_keeps_the_spans(store: Store) -> None:
    queue(store)
    with fake_collector("401") as target:
        forward_to(store, target, lambda: state_of(store) is not None and state_of(store).state == "blocked")
        assert len(target.requests) == 1
    assert state_of(store).last_error == "HTTP 401"
    assert len(store.outbox_batches(0, 1 << 20)) == 1


def test_what_is_refused_for_good_is_dropped_and_counted(store: Store) -> None:
    queue(store, requests=2)
    with fake_collector("400") as target:
        forward_to(store, target, lambda: state_of(store) is not None and state_of(store).dropped == 4)
    assert state_of(store).sent == 0
    assert store.outbox_batches(0, 1 << 20) == []


def test_partial_success_is_not_sent_again(store: Store) -> None:
    queue(store, spans=3)
    with fake_collector("partial") as target:
        forward_to(store, target, lambda: state_of(store) is not None and state_of(store).sent == 2)
        assert len(target.requests) == 1
    assert (state_of(store).dropped, "horizon" in state_of(store).last_error) == (1, True)


def test_what_is_too_large_is_halved_down_to_one_span(store: Store) -> None:
    ids = queue(store, spans=8)
    with fake_collector("413") as target:
        target.largest = len(request_proto(2).SerializeToString()) + 20
        forward_to(store, target, lambda: state_of(store) is not None and state_of(store).sent == 8)
        assert [span.span_id for span in target.spans] == ids
    queue(store, spans=2)
    with fake_collector("413") as target:
        forward_to(store, target, lambda: state_of(store).dropped == 2)


def test_a_dead_target_does_not_stop_the_other(store: Store) -> None:
    ids = queue(store, requests=2)

    async def run(alive: FakeCollector, dead: FakeCollector) -> None:
        targets = ForwardTarget("alive", alive.url), ForwardTarget("dead", dead.url)
        async with forwarding(store, *targets):
            await until(lambda: len(alive.spans) == 4 and state_of(store, "alive").sent == 4)
            await until(lambda: state_of(store, "dead").state == "retrying")

    with fake_collector() as alive, fake_collector("503") as dead:
        asyncio.run(run(alive, dead))
    assert len(store.outbox_batches(0, 1 << 20)) == 2  # kept for the dead one
    with fake_collector() as back:

        async def resume() -> None:
            async with forwarding(store, ForwardTarget("alive", back.url), ForwardTarget("dead", back.url)):
                await until(lambda: len(back.spans) == 4 and state_of(store, "dead").sent == 4)

        asyncio.run(resume())
        assert [span.span_id for span in back.spans] == ids


def test_a_paused_target_waits_until_it_is_resumed(store: Store) -> None:
    async def run(target: FakeCollector) -> None:
        async with forwarding(store, ForwardTarget("there", target.url)) as forwarder:
            await until(lambda: bool(forwarder.status()))
            await forwarder.pause("there")
            queue(store)
            await asyncio.sleep(0.7)
            assert target.requests == []
            await forwarder.resume("there")
            await until(lambda: len(target.spans) == 2)

    with fake_collector() as target:
        asyncio.run(run(target))


def test_the_outbox_over_its_limit_loses_the_oldest_and_says_how_many(store: Store) -> None:
    queue(store, requests=10)
    size = len(store.outbox_batches(0, 1)[0].payload)

    async def run() -> int:
        target = ForwardTarget("there", "http://127.0.0.1:9", max_queue_bytes=4 * size + 1)
        async with forwarding(store, target) as forwarder:
            await until(lambda: forwarder.trimmed > 0)
            return forwarder.trimmed

    assert asyncio.run(run()) == 12
    assert len(store.outbox_batches(0, 1 << 20)) == 4


class FlakyOutbox:
    """A store whose writer is busy for a while."""

    def __init__(self, store: Store, failures: int) -> None:
        self.store = store
        self.failures = failures

    def __getattr__(self, name: str) -> Any:
        if name in ("outbox_batches", "trim_outbox") and self.failures:
            self.failures -= 1
            return self._refuse
        return getattr(self.store, name)

    def _refuse(self, *arguments: Any) -> Any:
        raise StoreBusy("the disk is low", retry_after_s=1)


def test_a_store_that_is_busy_for_a_while_does_not_end_forwarding(store: Store) -> None:
    queue(store)

    async def run(target: FakeCollector) -> None:
        flaky: Any = FlakyOutbox(store, failures=2)
        async with forwarding(flaky, ForwardTarget("there", target.url)):
            await until(lambda: len(target.spans) == 2)

    with fake_collector() as target:
        asyncio.run(run(target))


# ---- from end to end ----------------------------------------------------------------------------------------


def test_an_accepted_request_reaches_another_collector_by_http_and_grpc(tmp_path: Path) -> None:
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
    with running_collector(tmp_path / "second") as second:
        targets = [
            ForwardTarget("http", second.url),
            ForwardTarget("grpc", f"http://{second.grpc_address}", protocol="grpc"),
        ]
        with running_collector(tmp_path / "first", targets=targets) as first:
            span = call_json()
            assert (
                httpx.post(first.url + "/v1/traces", content=request_json(span), headers=JSON).status_code
                == 200
            )
            ids = bytes.fromhex(span["traceId"]), bytes.fromhex(span["spanId"])
            deadline = time.monotonic() + 8
            while {target.sent for target in first.store.outbox_targets()} != {1}:
                assert time.monotonic() < deadline, first.store.outbox_targets()
                time.sleep(0.02)
            here, there = first.store.call(*ids), second.store.call(*ids)
    assert here is not None
    assert there is not None
    assert (here.call.route, here.call.input_tokens) == (there.call.route, there.call.input_tokens)


def test_two_collectors_that_forward_to_each_other_stop_after_one_round(tmp_path: Path) -> None:
    with fake_collector() as outside:
        with running_collector(
            tmp_path, targets=[ForwardTarget("there", outside.url)], instance_id="a", grpc_port=None
        ) as ours:
            for hops in ("a", "b,a", "w,x,y,z"):
                headers = {**JSON, "x-tierlight-hop": hops}
                body = request_json(span_json())
                assert httpx.post(ours.url + "/v1/traces", content=body, headers=headers).status_code == 200
            headers = {**JSON, "x-tierlight-hop": "b"}
            httpx.post(ours.url + "/v1/traces", content=request_json(span_json()), headers=headers)
            outside.wait_for_spans(1)
            time.sleep(0.2)
        assert len(outside.spans) == 1
        sent = {name.lower(): value for name, value in outside.requests[0][1].items()}
        assert sent["x-tierlight-hop"] == "b,a"


def test_a_request_that_comes_back_after_a_restart_goes_no_second_round(tmp_path: Path) -> None:
    with fake_collector() as outside:
        targets = [ForwardTarget("there", outside.url)]
        with running_collector(tmp_path, targets=targets, grpc_port=None) as ours:
            httpx.post(ours.url + "/v1/traces", content=request_json(span_json()), headers=JSON)
            outside.wait_for_spans(1)
        sent = {name.lower(): value for name, value in outside.requests[0][1].items()}
        with running_collector(tmp_path, targets=targets, grpc_port=None) as ours:
            back = {**JSON, "x-tierlight-hop": f"{sent['x-tierlight-hop']},b"}
            httpx.post(ours.url + "/v1/traces", content=request_json(span_json()), headers=back)
            httpx.post(ours.url + "/v1/traces", content=request_json(span_json()), headers=JSON)
            outside.wait_for_spans(2)
        assert len(outside.spans) == 2


# ---- the payload --------------------------------------------------------------------------------------------

SECRET = "the customer's own words"


def with_text() -> bytes:
    attributes = [
        {"key": "gen_ai.input.messages", "value": {"stringValue": SECRET}},
        {"key": "gen_ai.usage.input_tokens", "value": {"intValue": "7"}},
        {"key": "my.own", "value": {"stringValue": "kept"}},
    ]
    event = {"name": "gen_ai.choice", "attributes": [{"key": "content", "value": {"stringValue": SECRET}}]}
    return request_json(span_json(attributes=attributes, events=[event], traceState="x=1"))


def test_content_is_stripped_and_everything_else_stays() -> None:
    kept = with_content("traces", with_text(), "json")
    stripped = without_content("traces", with_text(), "json")
    assert SECRET.encode() in kept
    assert SECRET.encode() not in stripped
    assert strip_content("traces", kept) == without_content("traces", kept, "protobuf")
    span = ExportTraceServiceRequest.FromString(stripped).resource_spans[0].scope_spans[0].spans[0]
    assert [pair.key for pair in span.attributes] == ["gen_ai.usage.input_tokens", "my.own"]
    assert ([event.name for event in span.events], span.trace_state) == (["gen_ai.choice"], "x=1")


def test_json_ids_are_forwarded_as_the_bytes_they_name() -> None:
    sent = span_json(parentSpanId=secrets.token_hex(8))
    payload = without_content("traces", request_json(sent), "json")
    span = ExportTraceServiceRequest.FromString(payload).resource_spans[0].scope_spans[0].spans[0]
    assert (span.trace_id.hex(), span.span_id.hex()) == (sent["traceId"], sent["spanId"])
    assert span.parent_span_id.hex() == sent["parentSpanId"]


def test_rejected_spans_are_not_forwarded() -> None:
    request = request_proto(3)
    request.resource_spans[0].scope_spans[0].spans[1].trace_id = b"short"
    payload = without_content("traces", request.SerializeToString(), "protobuf")
    assert count("traces", payload) == 2
    assert without_content("traces", request_json(span_json(traceId="zz")), "json") == b""


def test_halves_hold_every_span_once() -> None:
    request = request_proto(3)
    request.MergeFrom(request_proto(2))
    parts = halves("traces", request.SerializeToString())
    assert parts is not None
    assert [count("traces", part) for part in parts] == [2, 3]
    ids = [
        span.span_id
        for part in (*parts, request.SerializeToString())
        for group in ExportTraceServiceRequest.FromString(part).resource_spans
        for span in group.scope_spans[0].spans
    ]
    assert ids[:5] == ids[5:]
    assert halves("traces", request_proto(1).SerializeToString()) is None


def test_the_way_here_travels_with_the_request() -> None:
    assert unseal(seal(("a", "b"), b"\x0a\x0abytes")) == ("a,b", b"\x0a\x0abytes")
    assert unseal(seal((), b"")) == ("", b"")


# ---- targets ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "endpoint",
    ["", "host:4318", "file:///etc/passwd", "http://", "http://u:p@host", "http://host:99999", "gopher://x"],
)
def test_an_endpoint_that_cannot_work_is_refused_by_name(endpoint: str) -> None:
    with pytest.raises(BadTarget, match="'there'"):
        check_target(ForwardTarget("there", endpoint))


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "0.0.0.0"])
def test_a_target_that_is_ourselves_is_refused(host: str) -> None:
    with pytest.raises(BadTarget, match="itself"):
        check_target(ForwardTarget("there", f"http://{host}:4318"), [4318])
    check_target(ForwardTarget("there", f"http://{host}:5318"), [4318])


def test_secrets_come_from_the_environment_or_a_file_and_never_into_a_message(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("s3cret\n")
    assert read_secret("env:TOKEN", {"TOKEN": "s3cret"}) == "s3cret"
    assert read_secret(f"file:{tmp_path / 'key'}") == "s3cret"
    assert read_secret("Basic abc") == "Basic abc"
    for missing in ("env:NOT_THERE", f"file:{tmp_path / 'nothing'}"):
        with pytest.raises(BadTarget):
            read_secret(missing, {})
