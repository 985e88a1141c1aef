"""The export pipeline against a collector that behaves, misbehaves and comes back."""

from __future__ import annotations

import itertools
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, get_value

from e2e.doubles.fake_collector import FakeCollector, Mode, attributes, fake_collector
from tierlight import semconv as s
from tierlight._delivery import Circuit, send_spool
from tierlight._encode import Signal
from tierlight._export import Pipeline
from tierlight._record import ExportSettings, FinishedCall, FinishedScore
from tierlight._transport import Answer

ids = itertools.count(1)


def call(content: str = "", **found: Any) -> FinishedCall:
    record = FinishedCall(
        trace_id=1 << 100,
        span_id=next(ids),
        parent_span_id=None,
        name="chat m",
        start_ns=time.time_ns() - 10**9,
        end_ns=time.time_ns(),
        attributes={s.TIERLIGHT_SPAN_ROLE: "call", **found},
        content_bytes=len(content),
    )
    if content:
        record.attributes[s.GEN_AI_INPUT_MESSAGES] = content
    return record


@pytest.fixture
def collector() -> Iterator[FakeCollector]:
    with fake_collector() as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spool"


Pipelines = Any


@pytest.fixture
def pipeline(collector: FakeCollector, folder: Path) -> Iterator[Pipelines]:
    made: list[Pipeline] = []

    def make(transport: Any = None, **changes: Any) -> Pipeline:
        settings: dict[str, Any] = {
            "endpoint": collector.url,
            "spool_dir": str(folder),
            "schedule_delay_s": 0.02,
            "timeout_s": 0.4,
            "exit_timeout_s": 1.0,
            "price": False,
            "resource": {"service.name": "shop"},
        }
        made.append(Pipeline(ExportSettings(**(settings | changes)), transport))
        return made[-1]

    yield make
    for one in made:
        one.shutdown(0.0)


def test_no_thread_before_the_first_record_and_one_batch_after_it(
    pipeline: Pipelines, collector: FakeCollector
) -> None:
    sink = pipeline(schedule_delay_s=0.3)
    before = threading.active_count()
    assert sink.flush(1.0)
    assert threading.active_count() == before
    for _ in range(3):
        sink.offer(call())
    sink.offer(FinishedScore(5, {"gen_ai.evaluation.name": "exact"}))
    collector.wait_for_spans(3)
    assert sink.flush(5.0)
    assert sorted(path for path, _, _ in collector.requests) == ["/v1/logs", "/v1/traces"]
    assert [attributes(log.attributes) for log in collector.logs] == [{"gen_ai.evaluation.name": "exact"}]
    assert sink.stats() | {"requests": 0} == {
        "offered": 4,
        "delivered": 4,
        "queued": 0,
        "spooled": 0,
        "recovered": 0,
        "requests": 0,
        "failures": 0,
        "dropped": 0,
    }


@pytest.mark.parametrize("compression", ["gzip", "none"])
def test_the_request_says_what_it_is(pipeline: Pipelines, collector: FakeCollector, compression: str) -> None:
    sink = pipeline(compression=compression, headers={"authorization": "Bearer t"})
    sink.offer(call())
    assert sink.flush(5.0)
    [(path, headers, _)] = collector.requests
    assert path == "/v1/traces"
    assert headers["Content-Type"] == "application/x-protobuf"
    assert headers["authorization"] == "Bearer t"
    assert headers.get("Content-Encoding", "none") == compression


def test_whole_urls_for_a_signal_are_used_as_they_are(pipeline: Pipelines, collector: FakeCollector) -> None:
    sink = pipeline(endpoint="http://192.0.2.1", traces_endpoint=f"{collector.url}/v1/traces?tenant=a")
    sink.offer(call())
    sink.flush(5.0)
    assert [path for path, _, _ in collector.requests] == ["/v1/traces?tenant=a"]


def test_batches_are_cut_by_records_and_by_bytes(pipeline: Pipelines, collector: FakeCollector) -> None:
    sink = pipeline(max_batch_records=4, max_batch_bytes=4_000)
    for _ in range(7):
        sink.offer(call())
    for _ in range(5):
        sink.offer(call(content="x" * 1_500))
    assert sink.flush(5.0)
    assert len(collector.span_ids) == 12
    assert len(collector.requests) >= 4
    assert max(size for _, _, size in collector.requests) <= 4_000 + 200


def test_a_full_queue_loses_the_oldest_and_the_next_span_tells(
    pipeline: Pipelines, collector: FakeCollector
) -> None:
    sink = pipeline(max_queue_records=10)
    with sink._lock:  # the export thread cannot take anything meanwhile
        sent = [call() for _ in range(25)]
        for record in sent:
            sink.offer(record)
    assert not sink.flush(5.0), "15 were lost"
    assert {int.from_bytes(span_id) for span_id in collector.span_ids} == {r.span_id for r in sent[15:]}
    first = attributes(collector.spans[0].attributes)
    assert first[s.TIERLIGHT_SDK_DROPPED] == 15
    assert first[s.TIERLIGHT_SDK_DROPPED_REASON] == "queue_full:15"
    assert all(s.TIERLIGHT_SDK_DROPPED not in attributes(span.attributes) for span in collector.spans[1:])
    assert sink.stats()["dropped.queue_full"] == 15

    sink.offer(call())
    assert sink.flush(5.0), "nothing was lost since"
    assert s.TIERLIGHT_SDK_DROPPED not in attributes(collector.spans[-1].attributes)


def test_losses_are_told_again_until_a_span_that_tells_them_is_safe(
    pipeline: Pipelines, collector: FakeCollector
) -> None:
    collector.mode = "400"
    sink = pipeline()
    sink.offer(call())
    sink.flush(5.0)
    sink.offer(call())
    sink.flush(5.0)
    collector.mode = "ok"
    sink.offer(call())
    sink.flush(5.0)
    [span] = collector.spans
    assert attributes(span.attributes)[s.TIERLIGHT_SDK_DROPPED] == 2
    assert attributes(span.attributes)[s.TIERLIGHT_SDK_DROPPED_REASON] == "refused:2"


def test_too_many_texts_are_dropped_before_any_call_is(pipeline: Pipelines, collector: FakeCollector) -> None:
    sink = pipeline(max_queue_bytes=10_000)
    with sink._lock:
        for _ in range(20):
            sink.offer(call(content="x" * 1_000))
    assert sink.flush(5.0)
    found = [attributes(span.attributes) for span in collector.spans]
    assert len(found) == 20
    assert sum(s.GEN_AI_INPUT_MESSAGES in one for one in found) == 10
    assert sum(one.get(s.TIERLIGHT_CONTENT_DROPPED) == "queue_full" for one in found) == 10


def test_a_span_over_the_limit_loses_its_text_and_not_itself(
    pipeline: Pipelines, collector: FakeCollector
) -> None:
    sink = pipeline(max_batch_bytes=2_000)
    sink.offer(call(content="x" * 5_000, model="m"))
    assert sink.flush(5.0)
    [span] = collector.spans
    assert attributes(span.attributes) == {
        s.TIERLIGHT_SPAN_ROLE: "call",
        "model": "m",
        s.TIERLIGHT_CONTENT_DROPPED: "size",
    }


def test_a_span_that_is_too_large_even_so_is_counted(pipeline: Pipelines, collector: FakeCollector) -> None:
    sink = pipeline(max_batch_bytes=2_000)
    sink.offer(call(note="x" * 5_000))
    assert not sink.flush(5.0)
    assert sink.stats()["dropped.too_large"] == 1
    assert collector.spans == []


def test_texts_are_redacted_on_the_export_thread(pipeline: Pipelines, collector: FakeCollector) -> None:
    seen: list[str] = []

    def redact(record: FinishedCall) -> None:
        seen.append(threading.current_thread().name)
        record.attributes[s.GEN_AI_INPUT_MESSAGES] = "[redacted]"

    record = call(content="secret")
    record.prepare = redact
    sink = pipeline()
    sink.offer(record)
    assert sink.flush(5.0)
    assert seen == ["tierlight-export"]
    assert attributes(collector.spans[0].attributes)[s.GEN_AI_INPUT_MESSAGES] == "[redacted]"


def test_a_redactor_that_flushes_does_not_wait_for_itself(
    pipeline: Pipelines, collector: FakeCollector
) -> None:
    answers: list[bool] = []
    record = call(content="text")
    sink = pipeline()
    record.prepare = lambda _: answers.append(sink.flush(30.0))
    sink.offer(record)
    assert sink.flush(5.0)
    assert answers == [False]


def test_a_failing_redactor_takes_the_texts_with_it_and_nothing_else(
    pipeline: Pipelines, collector: FakeCollector
) -> None:
    def fail(record: FinishedCall) -> None:
        raise ValueError("secret")

    record = call(content="secret", model="m")
    record.is_error, record.message, record.prepare = True, "secret", fail
    sink = pipeline()
    sink.offer(record)
    assert sink.flush(5.0)
    [span] = collector.spans
    found = attributes(span.attributes)
    assert found["model"] == "m"
    assert found[s.TIERLIGHT_CONTENT_DROPPED] == "redaction_failed"
    assert found[s.TIERLIGHT_INSTRUMENTATION_ERROR] == "redaction: ValueError"
    assert "secret" not in str(span)


def test_a_call_is_priced_on_the_export_thread(pipeline: Pipelines, collector: FakeCollector) -> None:
    usage: dict[str, Any] = {
        s.GEN_AI_PROVIDER_NAME: "openai",
        s.GEN_AI_REQUEST_MODEL: "gpt-4o-mini",
        s.GEN_AI_USAGE_INPUT_TOKENS: 120,
        s.GEN_AI_USAGE_OUTPUT_TOKENS: 34,
    }
    sink = pipeline(price=True, draft_cost=True)
    sink.offer(call(**usage))
    sink.offer(call(**(usage | {s.GEN_AI_REQUEST_MODEL: "no-such-model"})))
    sink.offer(call(**(usage | {s.TIERLIGHT_COST_AMOUNT: 7.0, s.TIERLIGHT_COST_SOURCE: "caller"})))
    assert sink.flush(20.0)
    listed, unknown, said = (attributes(span.attributes) for span in collector.spans)
    assert listed[s.TIERLIGHT_COST_AMOUNT] == pytest.approx(0.0000384)
    assert listed[s.TIERLIGHT_COST_CURRENCY] == "USD"
    assert listed[s.TIERLIGHT_COST_SOURCE] == "price_book"
    assert listed[s.TIERLIGHT_COST_PRICE_VERSION].startswith("gp:")
    assert listed[s.GEN_AI_USAGE_COST_AMOUNT] == listed[s.TIERLIGHT_COST_AMOUNT]
    assert not any("cost" in key for key in unknown)
    assert (said[s.TIERLIGHT_COST_AMOUNT], said[s.TIERLIGHT_COST_SOURCE]) == (7.0, "caller")


RETRYABLE: list[Mode] = [
    "503",
    "503 retry-after seconds",
    "503 retry-after date",
    "429",
    "hang",
    "trickle",
    "401",
    "html 200",
    "reset mid-response",
]


@pytest.mark.parametrize("mode", RETRYABLE)
def test_what_cannot_be_delivered_now_is_kept_and_delivered_once_later(
    pipeline: Pipelines, collector: FakeCollector, folder: Path, mode: Mode
) -> None:
    collector.mode = mode
    first = pipeline()
    for _ in range(5):
        first.offer(call())
    assert not first.flush(5.0)
    assert first.stats()["spooled"] == 5
    assert first.stats()["dropped"] == 0
    first.shutdown()
    assert collector.spans == []
    assert [path.suffix for path in folder.iterdir()] == [".otlp"]

    collector.mode = "ok"
    second = pipeline()
    second.offer(call())
    assert second.flush(5.0)
    assert sorted(collector.span_ids.values()) == [1] * 6
    assert second.stats()["delivered"] == 1
    assert second.stats()["recovered"] == 5
    assert list(folder.iterdir()) == []


def test_the_same_process_delivers_after_the_wait_that_was_asked_for(
    pipeline: Pipelines, collector: FakeCollector
) -> None:
    collector.mode = "503 retry-after seconds"
    sink = pipeline()
    sink.offer(call())
    collector.wait_for_requests(1)
    collector.mode = "ok"
    asked = time.monotonic()
    assert not sink.flush(5.0), "a flush does not overrule Retry-After"
    collector.wait_for_spans(1)
    assert time.monotonic() - asked >= 0.5
    assert sink.flush(5.0)
    assert sink.stats()["delivered"] == 1


@pytest.mark.parametrize("mode", ["400", "413"])
def test_what_will_never_be_taken_is_counted_and_said_once(
    pipeline: Pipelines, collector: FakeCollector, caplog: pytest.LogCaptureFixture, mode: Mode
) -> None:
    collector.mode = mode
    sink = pipeline()
    with caplog.at_level(logging.INFO, "tierlight"):
        for _ in range(3):
            sink.offer(call())
            assert not sink.flush(5.0)
    assert sink.stats()["dropped"] == 3
    assert sink.stats()["spooled"] == 0
    assert len(caplog.messages) == 1
    assert "as the test asked" in caplog.text


def test_a_batch_that_is_too_large_goes_in_pieces(pipeline: Pipelines, collector: FakeCollector) -> None:
    collector.mode, collector.largest = "413", 2_000
    sink = pipeline(max_batch_bytes=100_000)
    for size in (500, 500, 5_000, 500, 500, 500):
        sink.offer(call(content="x" * size))
    assert not sink.flush(5.0)
    assert sorted(collector.span_ids.values()) == [1] * 5
    assert sink.stats()["dropped.too_large"] == 1
    assert sink.stats()["delivered"] == 5


def test_a_partial_success_is_counted_and_said_once(
    pipeline: Pipelines, collector: FakeCollector, caplog: pytest.LogCaptureFixture
) -> None:
    collector.mode = "partial"
    sink = pipeline()
    for _ in range(2):
        sink.offer(call())
        sink.offer(call())
        assert not sink.flush(5.0)
    assert sink.stats()["dropped.refused"] == 2
    assert sink.stats()["delivered"] == 2
    assert caplog.text.count("one span is older than the horizon") == 1


def test_an_unreachable_collector_is_one_warning_and_one_line_when_it_is_back(
    pipeline: Pipelines, collector: FakeCollector, caplog: pytest.LogCaptureFixture
) -> None:
    collector.mode = "503"
    sink = pipeline(endpoint=collector.url.replace("://", "://user:secret@"))
    with caplog.at_level(logging.INFO, "tierlight"):
        for _ in range(3):
            sink.offer(call())
            sink.flush(5.0)
        collector.mode = "ok"
        sink._delivery.circuit.until = 0.0
        sink.flush(5.0)
        sink.offer(call())
        collector.wait_for_spans(4)
        assert sink.flush(5.0)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "secret" not in caplog.text


@pytest.mark.parametrize("spool_dir", ["", "read-only"])
def test_without_a_spool_memory_keeps_what_it_can(
    pipeline: Pipelines,
    collector: FakeCollector,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    spool_dir: str,
) -> None:
    if spool_dir:
        (tmp_path / "a file").write_text("in the way")
        spool_dir = str(tmp_path / "a file" / "spool")
    collector.mode = "503"
    sink = pipeline(spool_dir=spool_dir)
    sink.offer(call())
    assert not sink.flush(5.0)
    assert sink.stats()["spooled"] == 1
    collector.mode = "ok"
    assert sink.flush(5.0)
    assert sink.stats()["delivered"] == 1

    collector.mode = "503"
    sink.offer(call())
    assert not sink.shutdown()
    assert sink.stats()["dropped.shutdown"] == 1
    assert "no spool" in caplog.text


def test_a_hanging_collector_delays_the_end_by_no_more_than_its_budget(
    pipeline: Pipelines, collector: FakeCollector, folder: Path
) -> None:
    collector.mode = "hang"
    sink = pipeline(timeout_s=30.0, exit_timeout_s=0.6)
    for _ in range(700):
        sink.offer(call())
    began = time.monotonic()
    assert not sink.shutdown()
    assert time.monotonic() - began < 1.5
    assert sink.stats()["spooled"] == 700
    collector.mode = "ok"
    later = pipeline()
    later.offer(call())
    assert later.flush(5.0)
    assert sorted(collector.span_ids.values()) == [1] * 701


class Stuck:
    """A transport that does not come back, as a name server that does not answer."""

    def __init__(self) -> None:
        self.entered, self.released = threading.Event(), threading.Event()

    def send(self, signal: Signal, body: bytes, timeout_s: float) -> Answer:
        self.entered.set()
        self.released.wait(20)
        return Answer("retry")

    def close(self) -> None:
        pass


class Looking:
    """A transport that notes whether instrumentation of HTTP libraries is told to keep still."""

    def __init__(self) -> None:
        self.seen: list[object] = []

    def send(self, signal: Signal, body: bytes, timeout_s: float) -> Answer:
        self.seen.append(get_value(_SUPPRESS_INSTRUMENTATION_KEY))
        return Answer("delivered")

    def close(self) -> None:
        pass


def test_what_is_sent_is_not_traced_itself(pipeline: Pipelines) -> None:
    looking = Looking()
    sink = pipeline(looking)
    sink.offer(call())
    assert sink.flush(5.0)
    assert looking.seen == [True]
    assert get_value(_SUPPRESS_INSTRUMENTATION_KEY) is None


def test_what_a_stuck_thread_holds_is_put_on_disk_from_outside(
    pipeline: Pipelines, collector: FakeCollector
) -> None:
    stuck = Stuck()
    sink = pipeline(stuck, exit_timeout_s=0.5, max_batch_records=2)
    for _ in range(2):
        sink.offer(call())
    assert stuck.entered.wait(5)
    for _ in range(3):
        sink.offer(call())
    assert not sink.shutdown()
    assert sink.stats()["spooled"] == 5
    later = pipeline()
    later.offer(call())
    assert later.flush(5.0)
    assert sorted(collector.span_ids.values()) == [1] * 6
    stuck.released.set()


def test_a_record_after_the_end_is_not_lost(pipeline: Pipelines, collector: FakeCollector) -> None:
    sink = pipeline()
    sink.offer(call())
    assert sink.shutdown()
    sink.offer(call())
    assert sink.stats()["spooled"] == 1
    later = pipeline()
    later.offer(call())
    assert later.flush(5.0)
    assert sorted(collector.span_ids.values()) == [1] * 3


def test_flush_gives_up_at_its_own_time_out(pipeline: Pipelines, collector: FakeCollector) -> None:
    collector.mode = "hang"
    sink = pipeline(timeout_s=5.0)
    sink.offer(call())
    began = time.monotonic()
    assert not sink.flush(0.1)
    assert time.monotonic() - began < 2.0


def test_a_bad_record_does_not_take_its_batch_with_it(pipeline: Pipelines, collector: FakeCollector) -> None:
    bad = call()
    bad.trace_id = -1
    sink = pipeline()
    for record in (call(), bad, call()):
        sink.offer(record)
    assert not sink.flush(5.0)
    assert len(collector.span_ids) == 2
    assert sink.stats()["dropped.serialize"] == 1


def test_many_threads_lose_nothing(pipeline: Pipelines, collector: FakeCollector) -> None:
    sink = pipeline(max_queue_records=100_000)

    def work() -> None:
        for _ in range(100):
            sink.offer(call())

    threads = [threading.Thread(target=work) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sink.flush(20.0)
    assert len(collector.span_ids) == 2_000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_starts_afresh_and_the_parent_keeps_its_queue(
    pipeline: Pipelines, collector: FakeCollector
) -> None:
    sink = pipeline(
        schedule_delay_s=60.0,
        resource={"service.instance.id": "0b5d4c1e-4f7c-4f5e-8d56-0a4a4a4a4a4a"},
    )
    mine, theirs = [call() for _ in range(3)], [call() for _ in range(2)]
    for record in mine:
        sink.offer(record)
    child = os.fork()
    if child == 0:
        for record in theirs:
            sink.offer(record)
        os._exit(0 if sink.flush(5.0) and sink.stats()["delivered"] == 2 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert sink.flush(5.0)
    assert {int.from_bytes(span_id): times for span_id, times in collector.span_ids.items()} == {
        record.span_id: 1 for record in [*mine, *theirs]
    }
    instances = {resource["service.instance.id"] for resource in collector.resources}
    assert len(instances) == 2
    assert "0b5d4c1e-4f7c-4f5e-8d56-0a4a4a4a4a4a" in instances


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_worker_of_celery_sends_what_is_queued_when_it_ends(
    pipeline: Pipelines, collector: FakeCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    ending: list[Any] = []
    signals: Any = ModuleType("celery.signals")
    signals.worker_process_shutdown = SimpleNamespace(connect=lambda handler, **_: ending.append(handler))
    monkeypatch.setitem(sys.modules, "celery.signals", signals)
    sink = pipeline(schedule_delay_s=60.0)
    record = call()
    child = os.fork()
    if child == 0:
        sink.offer(record)
        ending[0](sender="worker", pid=os.getpid(), exitcode=0)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert [int.from_bytes(span_id) for span_id in collector.span_ids] == [record.span_id]


def test_a_command_can_send_what_others_left(
    pipeline: Pipelines, collector: FakeCollector, folder: Path
) -> None:
    collector.mode = "503"
    sink = pipeline()
    sink.offer(call())
    sink.offer(FinishedScore(5, {}))
    sink.shutdown()
    settings = ExportSettings(endpoint=collector.url, spool_dir=str(folder))
    assert send_spool(settings) == {"delivered": 0, "lost": 0, "failures": 1}
    collector.mode = "ok"
    assert send_spool(settings) == {"delivered": 2, "lost": 0, "failures": 0}
    assert (len(collector.spans), len(collector.logs)) == (1, 1)
    assert send_spool(settings) == {"delivered": 0, "lost": 0, "failures": 0}


def test_the_circuit_backs_off_by_the_steps_of_its_table() -> None:
    circuit = Circuit()
    waits = []
    for _ in range(9):
        circuit.failed(100.0, 0.5, asked_s=None, is_denied=False)
        waits.append(circuit.until - 100.0)
    assert waits == [0.5, 1.0, 5.0, 10.0, 20.0, 40.0, 60.0, 60.0, 60.0]
    assert circuit.is_open
    circuit.succeeded()
    assert (circuit.until, circuit.is_open) == (0.0, False)


def test_the_collectors_own_wait_wins_up_to_a_bound() -> None:
    circuit = Circuit()
    circuit.failed(100.0, 0.5, asked_s=7.0, is_denied=False)
    assert (circuit.until, circuit.is_open) == (107.0, True)
    circuit.failed(100.0, 0.5, asked_s=86_400.0, is_denied=False)
    assert circuit.until == 400.0


def test_a_missing_permission_is_not_asked_for_again_within_a_minute() -> None:
    circuit = Circuit()
    circuit.failed(100.0, 0.5, asked_s=None, is_denied=True)
    assert (circuit.until, circuit.is_open) == (160.0, True)
