"""Declared routes: what they record, and that what they stand around is left alone."""

from __future__ import annotations

import asyncio
import inspect
import re
import threading
from collections.abc import AsyncIterator, Generator, Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

import tierlight
from tierlight import semconv as s
from tierlight._config import sampler
from tierlight._record import FinishedCall
from tierlight._runtime import Runtime

pytestmark = pytest.mark.anyio

CHAT = {
    "id": "chatcmpl-1",
    "model": "gpt-5-mini-2026-01-01",
    "choices": [{"finish_reason": "stop", "message": {"content": "billing"}}],
    "usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12},
}


class Answer:
    """A response that can be told apart from its copies."""

    def __init__(self) -> None:
        self.__dict__.update(CHAT)


def chunk(**fields: Any) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "model": "gpt-5-mini", "choices": [], **fields}


CHUNKS = [
    chunk(choices=[{"index": 0, "delta": {"content": "bill"}}]),
    *(chunk(choices=[{"index": 0, "delta": {"content": "ing"}}]) for _ in range(30)),
    chunk(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}]),
    chunk(usage={"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12}),
]


class RateLimitError(Exception):
    status_code = 429
    code = "rate_limit_exceeded"


# ---- the span -------------------------------------------------------------------------------------------


def test_a_decorated_call_has_exactly_these_attributes(calls: list[FinishedCall]) -> None:
    @tierlight.route("classify-intent", tier="small", version="2", prompt="intent", prompt_version="7")
    def classify(question: str) -> Answer:
        return Answer()

    classify("Where is my parcel?")

    (call,) = calls
    call_id = call.attributes.pop(s.TIERLIGHT_CALL_ID)
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", str(call_id))
    assert call.name == "chat gpt-5-mini-2026-01-01"
    assert call.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-5-mini-2026-01-01",
        "gen_ai.response.model": "gpt-5-mini-2026-01-01",
        "gen_ai.response.id": "chatcmpl-1",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 2,
        "gen_ai.prompt.name": "intent",
        "gen_ai.prompt.version": "7",
        "tierlight.schema": "1",
        "tierlight.span.role": "call",
        "tierlight.route": "classify-intent",
        "tierlight.route.version": "2",
        "tierlight.tier": "small",
        "tierlight.attempt.index": 0,
        "tierlight.attempt.reason": "first",
        "tierlight.attempt.final": True,
        "tierlight.purpose": "production",
        "tierlight.outcome": "ok",
        "tierlight.usage.source": "provider",
    }
    assert not call.is_error
    assert call.end_ns >= call.start_ns
    assert call.parent_span_id is None


def test_the_result_is_the_identical_object(calls: list[FinishedCall]) -> None:
    answer = Answer()
    assert tierlight.route("r")(lambda: answer)() is answer
    assert len(calls) == 1


def test_a_result_that_is_no_response_is_a_call_of_unknown_usage(calls: list[FinishedCall]) -> None:
    assert tierlight.route("r", model="local-7b", provider="ollama")(lambda: "billing")() == "billing"

    (call,) = calls
    assert call.attributes[s.TIERLIGHT_USAGE_SOURCE] == "absent"
    assert call.attributes[s.GEN_AI_REQUEST_MODEL] == "local-7b"
    assert s.GEN_AI_USAGE_INPUT_TOKENS not in call.attributes


def test_an_exception_passes_unchanged_and_is_recorded(calls: list[FinishedCall]) -> None:
    error = RateLimitError("slow down, key sk-secretsecretsecret")

    @tierlight.route("r")
    def ask() -> None:
        raise error

    with pytest.raises(RateLimitError) as caught:
        ask()

    assert caught.value is error
    (call,) = calls
    assert call.is_error
    assert call.attributes[s.ERROR_TYPE] == "rate_limit"
    assert call.attributes[s.HTTP_RESPONSE_STATUS_CODE] == 429
    assert call.attributes[s.TIERLIGHT_OUTCOME] == "error"
    assert call.message == "RateLimitError: rate_limit_exceeded"


def test_what_was_never_sent_is_marked_so(calls: list[FinishedCall]) -> None:
    @tierlight.route("r")
    def ask() -> None:
        raise TypeError("unexpected argument")

    with pytest.raises(TypeError):
        ask()
    assert calls[0].attributes[s.ERROR_TYPE] == "not_sent"
    assert calls[0].attributes[s.TIERLIGHT_OUTCOME] == "not_sent"


def test_a_cut_answer_is_truncated(calls: list[FinishedCall]) -> None:
    cut = {**CHAT, "choices": [{"finish_reason": "length", "message": {"content": "bil"}}]}
    tierlight.route("r")(lambda: cut)()
    assert calls[0].attributes[s.TIERLIGHT_OUTCOME] == "truncated"


def test_nothing_is_recorded_before_configure() -> None:
    answer = Answer()
    assert tierlight.route("r")(lambda: answer)() is answer
    with tierlight.route("r") as call:
        call.annotate({"a": 1})
        call.cost(1.0)
    assert not call.is_recorded
    assert tierlight.current_call() is None
    assert tierlight.flush() is True
    tierlight.score(1.0, "helpful", call=call)


# ---- kinds of functions ---------------------------------------------------------------------------------


async def test_a_coroutine_function_stays_one(calls: list[FinishedCall]) -> None:
    answer = Answer()

    @tierlight.route("r")
    async def ask() -> Answer:
        await asyncio.sleep(0)
        assert tierlight.current_call() is not None
        return answer

    assert inspect.iscoroutinefunction(ask)
    assert await ask() is answer
    assert calls[0].attributes[s.GEN_AI_USAGE_INPUT_TOKENS] == 10


async def test_a_function_that_returns_a_coroutine_ends_when_it_is_awaited(calls: list[FinishedCall]) -> None:
    async def ask() -> dict[str, Any]:
        return CHAT

    pending = tierlight.route("r")(lambda: ask())()
    assert calls == []
    assert await pending is CHAT
    assert len(calls) == 1


async def test_a_cancelled_task_is_recorded_as_cancelled(calls: list[FinishedCall]) -> None:
    @tierlight.route("r")
    async def ask() -> None:
        await asyncio.sleep(60)

    task = asyncio.create_task(ask())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    (call,) = calls
    assert call.attributes[s.TIERLIGHT_OUTCOME] == "cancelled"
    assert not call.is_error


def test_a_generator_function_ends_with_its_last_item(calls: list[FinishedCall]) -> None:
    @tierlight.route("r")
    def ask() -> Iterator[dict[str, Any]]:
        assert tierlight.current_call() is not None
        yield from CHUNKS

    assert inspect.isgeneratorfunction(ask)
    running = ask()
    assert next(running) is CHUNKS[0]
    assert tierlight.current_call() is None
    assert calls == []
    assert list(running) == CHUNKS[1:]

    (call,) = calls
    assert call.attributes[s.GEN_AI_USAGE_OUTPUT_TOKENS] == 2
    assert call.attributes[s.GEN_AI_RESPONSE_FINISH_REASONS] == ("stop",)
    assert call.attributes[s.GEN_AI_REQUEST_STREAM] is True
    assert call.attributes[s.TIERLIGHT_STREAM_COMPLETED] is True
    ttft = call.attributes[s.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK]
    assert isinstance(ttft, float)
    assert 0 <= ttft <= (call.end_ns - call.start_ns) / 1e9


def test_values_errors_and_the_return_value_pass_through_a_generator(calls: list[FinishedCall]) -> None:
    @tierlight.route("r")
    def talk() -> Generator[str, str, str]:
        said = yield "first"
        try:
            yield f"heard {said}"
        except KeyError:
            yield "caught"
        return "over"

    talking = talk()
    assert next(talking) == "first"
    assert talking.send("hello") == "heard hello"
    assert talking.throw(KeyError("x")) == "caught"
    with pytest.raises(StopIteration) as stop:
        next(talking)
    assert stop.value.value == "over"
    assert len(calls) == 1


def test_a_generator_that_nobody_reads_on_is_cancelled_once(calls: list[FinishedCall]) -> None:
    closed = []

    @tierlight.route("r")
    def ask() -> Iterator[dict[str, Any]]:
        try:
            yield from CHUNKS
        finally:
            closed.append(True)

    running = ask()
    next(running)
    del running

    (call,) = calls
    assert closed == [True]
    assert call.attributes[s.TIERLIGHT_OUTCOME] == "cancelled"
    assert call.attributes[s.TIERLIGHT_STREAM_COMPLETED] is False
    assert call.attributes[s.TIERLIGHT_USAGE_SOURCE] == "absent"


def test_a_generator_that_raises_is_recorded_and_raises(calls: list[FinishedCall]) -> None:
    error = RateLimitError("later")

    @tierlight.route("r")
    def ask() -> Iterator[dict[str, Any]]:
        yield CHUNKS[0]
        raise error

    with pytest.raises(RateLimitError) as caught:
        list(ask())
    assert caught.value is error
    assert calls[0].attributes[s.ERROR_TYPE] == "rate_limit"
    assert len(calls) == 1


async def test_an_async_generator_function_behaves_like_its_own(calls: list[FinishedCall]) -> None:
    @tierlight.route("r")
    async def ask() -> AsyncIterator[dict[str, Any]]:
        for one in CHUNKS:
            await asyncio.sleep(0)
            yield one

    assert inspect.isasyncgenfunction(ask)
    assert [one async for one in ask()] == CHUNKS
    (call,) = calls
    assert call.attributes[s.GEN_AI_USAGE_INPUT_TOKENS] == 10
    assert call.attributes[s.TIERLIGHT_STREAM_COMPLETED] is True


async def test_an_async_generator_handles_what_is_thrown_into_it(calls: list[FinishedCall]) -> None:
    @tierlight.route("r")
    async def talk() -> AsyncIterator[str]:
        try:
            yield "first"
        except KeyError:
            yield "caught"

    talking = talk()
    assert await anext(talking) == "first"
    assert await talking.athrow(KeyError("x")) == "caught"  # type: ignore[attr-defined]
    await talking.aclose()  # type: ignore[attr-defined]
    assert calls[0].attributes[s.TIERLIGHT_OUTCOME] == "cancelled"


def test_a_method_is_recorded_like_a_function(calls: list[FinishedCall]) -> None:
    class Agent:
        @tierlight.route("r")
        def ask(self) -> Answer:
            return Answer()

    Agent().ask()
    assert len(calls) == 1


# ---- blocks ---------------------------------------------------------------------------------------------


def test_one_route_object_decorates_and_opens_blocks(calls: list[FinishedCall]) -> None:
    support = tierlight.route("support", tier="mid")
    support(lambda: Answer())()
    with support as call:
        assert tierlight.current_call() is call
        tierlight.observe(Answer())
    assert tierlight.current_call() is None
    assert [one.attributes[s.TIERLIGHT_ROUTE] for one in calls] == ["support", "support"]
    assert calls[1].attributes[s.GEN_AI_USAGE_INPUT_TOKENS] == 10
    assert calls[1].attributes[s.TIERLIGHT_CALL_ID] == call.id


def test_blocks_of_one_route_nest_and_run_in_threads(calls: list[FinishedCall]) -> None:
    support = tierlight.route("support")
    ids = []
    barrier = threading.Barrier(4)

    def work() -> None:
        with support as call:
            barrier.wait()
            ids.append(call.id)
            tierlight.observe(Answer())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(str(one.attributes[s.TIERLIGHT_CALL_ID]) for one in calls) == sorted(ids)
    assert len(set(ids)) == 4


async def test_a_block_works_with_async_with_in_concurrent_tasks(calls: list[FinishedCall]) -> None:
    support = tierlight.route("support")

    async def work() -> None:
        async with support:
            await asyncio.sleep(0)
            tierlight.observe(Answer())

    await asyncio.gather(*(work() for _ in range(5)))
    assert len(calls) == 5


def test_an_observed_stream_is_counted_when_the_block_ends(calls: list[FinishedCall]) -> None:
    with tierlight.route("support"):
        assert list(tierlight.observe(one for one in CHUNKS)) == CHUNKS
        assert calls == []
    assert calls[0].attributes[s.GEN_AI_USAGE_OUTPUT_TOKENS] == 2
    assert calls[0].attributes[s.GEN_AI_REQUEST_STREAM] is True


# ---- nesting --------------------------------------------------------------------------------------------


def test_a_function_around_recorded_calls_has_no_span_of_its_own(calls: list[FinishedCall]) -> None:
    inner = tierlight.route("inner")(lambda: Answer())

    @tierlight.route("pipeline")
    def pipeline() -> str:
        inner()
        return "done"

    passed_on = tierlight.route("outer")(inner)

    pipeline()
    passed_on()
    assert [call.attributes[s.TIERLIGHT_ROUTE] for call in calls] == ["inner", "inner"]


def test_a_function_with_a_call_of_its_own_beside_others_has_a_span(calls: list[FinishedCall]) -> None:
    inner = tierlight.route("classify")(lambda: Answer())

    @tierlight.route("answer")
    def answer() -> dict[str, Any]:
        inner()
        return {**CHAT, "id": "chatcmpl-2"}

    answer()
    assert [call.attributes[s.TIERLIGHT_ROUTE] for call in calls] == ["classify", "answer"]
    assert calls[0].trace_id == calls[1].trace_id


def test_a_generator_over_a_recorded_stream_counts_it_once(calls: list[FinishedCall]) -> None:
    inner = tierlight.route("inner")(lambda: iter(CHUNKS))

    @tierlight.route("outer")
    def outer() -> Iterator[dict[str, Any]]:
        yield from inner()

    assert list(outer()) == CHUNKS
    assert [call.attributes[s.TIERLIGHT_ROUTE] for call in calls] == ["inner"]


# ---- context --------------------------------------------------------------------------------------------


def current(trace_id: int, span_id: int, sampled: bool) -> Any:
    context = SpanContext(trace_id, span_id, is_remote=False, trace_flags=TraceFlags(int(sampled)))
    return trace.use_span(NonRecordingSpan(context))


def test_the_parent_comes_from_the_current_context(calls: list[FinishedCall]) -> None:
    with current(0xABC, 0xDEF, sampled=True):
        tierlight.route("r")(lambda: Answer())()
    assert (calls[0].trace_id, calls[0].parent_span_id) == (0xABC, 0xDEF)


def test_a_call_below_an_unsampled_span_is_not_recorded(calls: list[FinishedCall]) -> None:
    answer = Answer()
    with current(0xABC, 0xDEF, sampled=False):
        assert tierlight.route("r")(lambda: answer)() is answer
        with tierlight.route("r") as call:
            assert not call.is_recorded
    assert calls == []


@pytest.mark.parametrize(
    ("name", "argument", "kept", "follows"),
    [
        ("", "", True, True),
        ("always_on", "", True, False),
        ("always_off", "", False, False),
        ("parentbased_always_off", "", False, True),
        ("traceidratio", "0.5", False, False),
        ("parentbased_traceidratio", "0.9", True, True),
        ("traceidratio", "nonsense", True, False),
        ("jaeger_remote", "", True, True),
    ],
)
def test_the_sampler_of_the_environment_decides(name: str, argument: str, kept: bool, follows: bool) -> None:
    sample, follows_parent = sampler({"OTEL_TRACES_SAMPLER": name, "OTEL_TRACES_SAMPLER_ARG": argument})
    trace_id = (7 << 64) | int(0.7 * 2**64)
    assert (sample is None or sample(trace_id)) is kept
    assert follows_parent is follows


def test_calls_inside_a_sampled_out_call_are_out_too(runtime: Runtime, calls: list[FinishedCall]) -> None:
    decisions = iter([False, True])
    runtime.sample = lambda _trace_id: next(decisions)
    inner = tierlight.route("inner")(lambda: Answer())
    tierlight.route("outer")(lambda: inner())()
    assert calls == []


def test_carry_takes_the_call_into_a_thread(calls: list[FinishedCall]) -> None:
    seen = []

    def look() -> None:
        seen.append(tierlight.current_call())

    with tierlight.route("r") as call:
        thread = threading.Thread(target=tierlight.carry(look))
        thread.start()
        thread.join()
    assert seen == [call]


# ---- our own faults -------------------------------------------------------------------------------------


class Broken:
    """A response whose fields raise."""

    @property
    def __dict__(self) -> dict[str, Any]:  # type: ignore[override]
        raise RuntimeError("prompt text in an error of ours")


def test_a_fault_of_ours_changes_nothing_and_is_told_once(
    calls: list[FinishedCall], caplog: pytest.LogCaptureFixture
) -> None:
    answer = Broken()
    before = tierlight.stats()["faults"]
    for _ in range(3):
        assert tierlight.route("r")(lambda: answer)() is answer
    assert tierlight.stats()["faults"] == before + 3
    assert len(caplog.records) <= 1
    assert "prompt text" not in caplog.text
    assert [call.attributes[s.TIERLIGHT_INSTRUMENTATION_ERROR] for call in calls] == ["read a response"] * 3


def test_a_sink_that_raises_does_not_reach_the_user(runtime: Runtime) -> None:
    class Failing:
        def __getattr__(self, name: str) -> Any:
            raise OSError("disk")

    runtime.sink = Failing()
    assert tierlight.route("r")(lambda: "fine")() == "fine"
    assert tierlight.flush(0.1) is False


@pytest.mark.parametrize("name", ["", "Upper", "with space", "-dash", "x" * 81, 7])
def test_a_name_that_no_route_may_have_is_refused(name: Any) -> None:
    with pytest.raises(tierlight.ConfigurationError, match="route's name"):
        tierlight.route(name)


def test_an_unknown_tier_is_refused() -> None:
    with pytest.raises(tierlight.ConfigurationError, match="tier is one of"):
        tierlight.route("r", tier="huge")  # type: ignore[arg-type]


def test_a_route_decorates_functions_only() -> None:
    with pytest.raises(tierlight.ConfigurationError, match="below @classmethod"):
        tierlight.route("r")(classmethod(lambda cls: None))  # type: ignore[arg-type]
