"""Calls made through the public SDK, sent to a real server, come back from its store column by column, once."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import httpx
import pytest

import tierlight
from tierlight import semconv as s
from tierlight.testing import FrozenClock
from tierlight_collector.records import CallRecord, CallRow, Filters, ScoreRecord
from tierlight_collector.stores import Retention
from tierlight_dashboard.serve import Running, ServeSettings, serving_in_thread

FLUSH_S = 10.0
# What the collector adds by itself: when it came, how it was read. Each has its own tests.
ADDED = {"trace_id", "span_id", "arrived_ns", "norm_version", "project"}
ANSWER = {
    "id": "chatcmpl-77",
    "object": "chat.completion",
    "model": "gpt-4o-mini-2024-07-18",
    "service_tier": "flex",
    "choices": [
        {"index": 0, "finish_reason": "length", "message": {"role": "assistant", "content": "hidden"}}
    ],
    "usage": {
        "prompt_tokens": 1200,
        "completion_tokens": 300,
        "prompt_tokens_details": {"cached_tokens": 200},
        "completion_tokens_details": {"reasoning_tokens": 120},
    },
}
ANTHROPIC = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-5-20250929",
    "stop_reason": "end_turn",
    "content": [{"type": "text", "text": "hidden"}],
    "usage": {
        "input_tokens": 50,
        "output_tokens": 20,
        "cache_read_input_tokens": 1000,
        "cache_creation_input_tokens": 400,
        "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 300},
    },
}
CHUNK = {"id": "chatcmpl-78", "object": "chat.completion.chunk", "model": "gpt-4o-mini"}
STREAM = [
    {**CHUNK, "choices": [{"index": 0, "delta": {"content": "hid"}, "finish_reason": None}]},
    {**CHUNK, "choices": [{"index": 0, "delta": {"content": "den"}, "finish_reason": "stop"}]},
    {**CHUNK, "choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 7}},
]


class RateLimited(Exception):
    """As the providers' clients raise it."""

    status_code = 429


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    settings = ServeSettings(
        f"sqlite:///{tmp_path / 'server' / 'tierlight.db'}", http_port=0, grpc_port=0, port=0, watch_every_s=0
    )
    with serving_in_thread(settings) as started:
        yield started


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock(time.time_ns() // 1_000_000_000 * 1_000_000_000)


@pytest.fixture
def connect(clock: FrozenClock) -> Iterator[Callable[..., None]]:
    """Configures the SDK for a collector; it is shut down after the test."""

    def configure(url: str, **more: Any) -> None:
        settings: dict[str, Any] = {"spool": False, "timeout_s": 5.0, "clock": clock, **more}
        tierlight.configure(
            service_name="shop", service_version="2", environment="staging", endpoint=url, **settings
        )

    yield configure
    tierlight.shutdown()


def test_server_refuses_what_it_would_forget_at_once(tmp_path: Path) -> None:
    settings = ServeSettings(
        f"sqlite:///{tmp_path / 'tierlight.db'}",
        http_port=0, grpc_port=None, port=0, watch_every_s=0, retention=Retention(1, 1, 2),
    )  # fmt: skip
    spans = [
        {
            "traceId": f"{days:032x}",
            "spanId": f"{days:016x}",
            "startTimeUnixNano": str(time.time_ns() - days * 86_400 * 10**9),
        }
        for days in (1, 3)
    ]
    with serving_in_thread(settings) as started:
        body = {"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}
        answer = httpx.post(f"{started.otlp_url}/v1/traces", json=body)
        assert answer.json()["partialSuccess"]["rejectedSpans"] == "1"
        assert started.store.trace((1).to_bytes(16)) != []


def stored(running: Running) -> list[CallRow]:
    return list(running.store.calls(Filters(purpose=()), limit=500, descending=False).rows)


def the_call(running: Running) -> CallRow:
    assert tierlight.flush(FLUSH_S)
    (row,) = stored(running)
    return row


def wrong(call: CallRecord, **expected: Any) -> dict[str, tuple[Any, Any]]:
    """Columns that are not as expected; those not named must be at their defaults."""
    differing = {}
    for spec in fields(CallRecord):
        if spec.name in ADDED:
            continue
        value = getattr(call, spec.name)
        if value != (wanted := expected.get(spec.name, spec.default)):
            differing[spec.name] = (value, wanted)
    return differing


COMMON = {
    "parent_span_id": b"",
    "operation": "chat",
    "env": "staging",
    "service_name": "shop",
    "scope": "tierlight",
    "dialect": "tierlight",
    "route_source": "declared",
    "usage_source": "provider",
    "cache_rule": "inclusive",
    "outcome": "ok",
}


def test_everything_a_call_can_say_comes_back(
    running: Running, clock: FrozenClock, connect: Callable[..., None]
) -> None:
    connect(running.otlp_url, open_join_keys=["user", "ticket"])
    ids = []

    @tierlight.route(
        "support.reply", tier="mid", version="9", purpose="shadow", prompt="greet", prompt_version="4", segment="de",
        provider="openai", model="gpt-4o-mini",
    )  # fmt: skip
    def reply() -> Any:
        call = tierlight.current_call()
        assert call is not None
        ids.append((call.id, call.start_ns))
        call.identify(user="user-1", conversation="session-1")
        call.join(ticket="T-17")
        call.annotate(
            {
                s.TIERLIGHT_ATTEMPT_INDEX: 2,
                s.TIERLIGHT_ATTEMPT_REASON: "escalation",
                s.TIERLIGHT_ATTEMPT_FINAL: False,
                s.TIERLIGHT_EXPERIMENT_ID: "exp-1",
                s.TIERLIGHT_EXPERIMENT_ARM: "b",
                s.TIERLIGHT_ACT_PROB: 0.5,
                s.TIERLIGHT_KEEP_PROB: 0.25,
                s.TIERLIGHT_STRATEGY: "cascade",
                s.TIERLIGHT_POLICY_VERSION: "p-7",
            }
        )
        call.cost(0.0125)
        clock.advance(1.5)
        return ANSWER

    assert reply() is ANSWER
    row = the_call(running)
    ((call_id, start_ns),) = ids
    instance = row.call.service_instance
    assert len(instance) == 36
    assert (
        wrong(
            row.call,
            **{
                **COMMON,
                "name": "chat gpt-4o-mini",
                "start_ns": start_ns,
                "duration_ns": 1_500_000_000,
                "ttft_ns": None,
                "provider": "openai",
                "request_model": "gpt-4o-mini",
                "response_model": "gpt-4o-mini-2024-07-18",
                "route": "support.reply",
                "tier": "mid",
                "input_tokens": 1200,
                "output_tokens": 300,
                "cached_input_tokens": 200,
                "reasoning_tokens": 120,
                "finish_reason": "length",
                "outcome": "truncated",
                "response_id": "chatcmpl-77",
                "call_id": call_id,
                "attempt_index": 2,
                "attempt_reason": "escalation",
                "attempt_final": False,
                "purpose": "shadow",
                "experiment": "exp-1",
                "arm": "b",
                "act_prob": 0.5,
                "keep_prob": 0.25,
                "strategy": "cascade",
                "policy_version": "p-7",
                "session_id": "session-1",
                "user_id": "user-1",
                "prompt_name": "greet",
                "prompt_version": "4",
                "segment": "de",
                "service_tier": "flex",
                "service_instance": instance,
                "cost_nusd": 12_500_000,
                "cost_source": "caller",
                "wire_cost_nusd": 12_500_000,
                "wire_cost_source": "wire:tierlight",
            },
        )
        == {}
    )
    assert "hidden" not in repr(running.store.trace(row.call.trace_id))
    assert running.store.contents(row.call.trace_id, row.call.span_id) == []


def test_cached_parts_of_anthropic_are_inside_the_input_and_priced_apart(
    running: Running, connect: Callable[..., None]
) -> None:
    connect(running.otlp_url)
    with tierlight.route("draft", tier="flagship", provider="anthropic", model="claude-sonnet-4-5"):
        tierlight.observe(ANTHROPIC)
    call = the_call(running).call
    assert (call.input_tokens, call.output_tokens) == (1450, 20)
    assert (call.cached_input_tokens, call.cache_write_input_tokens, call.cache_write_1h_input_tokens) == (
        1000,
        400,
        300,
    )
    assert (call.provider, call.response_model, call.finish_reason) == (
        "anthropic",
        ANTHROPIC["model"],
        "stop",
    )
    # 50 at 3 $, 1000 read at 0.3 $, 100 written for 5 minutes at 3.75 $ and 300 for an hour at 6 $, 20 out at 15 $
    assert (call.cost_nusd, call.cost_source) == (
        150_000 + 300_000 + 375_000 + 1_800_000 + 300_000,
        "price_book",
    )
    parts = (call.cost_input_nusd, call.cost_cached_nusd, call.cost_cache_write_nusd, call.cost_output_nusd)
    assert parts == (150_000, 300_000, 2_175_000, 300_000)
    assert call.price_version.startswith("gp:")


def test_stream_is_timed_to_its_first_chunk_and_its_end(
    running: Running, clock: FrozenClock, connect: Callable[..., None]
) -> None:
    connect(running.otlp_url)

    @tierlight.route("chat", provider="openai")
    def answer() -> Iterator[Any]:
        clock.advance(0.25)
        for chunk in STREAM:
            yield chunk
            clock.advance(0.5)

    assert list(answer()) == STREAM
    call = the_call(running).call
    assert (call.ttft_ns, call.duration_ns, call.is_streaming) == (250_000_000, 1_750_000_000, True)
    assert (call.input_tokens, call.output_tokens, call.finish_reason, call.outcome) == (11, 7, "stop", "ok")


def test_abandoned_async_stream_is_cancelled_with_what_it_said(
    running: Running, connect: Callable[..., None]
) -> None:
    connect(running.otlp_url)

    @tierlight.route("chat", provider="openai")
    async def answer() -> AsyncIterator[Any]:
        for chunk in STREAM:
            yield chunk

    async def read_one() -> None:
        stream = answer()
        async for _ in stream:
            break
        await stream.aclose()  # type: ignore[attr-defined]

    asyncio.run(read_one())
    call = the_call(running).call
    assert (call.outcome, call.error_class, call.output_tokens) == ("cancelled", "cancelled", None)
    assert (call.request_model, call.is_streaming) == ("gpt-4o-mini", True)


def test_coroutine_and_its_error_come_back(running: Running, connect: Callable[..., None]) -> None:
    connect(running.otlp_url)

    @tierlight.route("classify", tier="small", provider="openai", model="gpt-4o-mini")
    async def classify(fails: bool) -> Any:
        await asyncio.sleep(0)
        if fails:
            raise RateLimited("secret words")
        return ANSWER

    async def both() -> None:
        assert await classify(False) is ANSWER
        with pytest.raises(RateLimited):
            await classify(True)

    asyncio.run(both())
    assert tierlight.flush(FLUSH_S)
    ok, failed = sorted((row.call for row in stored(running)), key=lambda call: call.error_type)
    assert (ok.outcome, ok.error_type, ok.error_class, ok.http_status) == ("truncated", "", "", None)
    assert (failed.outcome, failed.error_type, failed.error_class, failed.http_status) == (
        "error",
        "rate_limit",
        "rate_limit",
        429,
    )
    assert (failed.input_tokens, failed.cost_nusd, failed.usage_source) == (None, None, "absent")
    assert "secret words" not in repr(running.store.trace(failed.trace_id))


def test_scores_of_every_way_find_their_call(
    running: Running, clock: FrozenClock, connect: Callable[..., None]
) -> None:
    connect(running.otlp_url, open_join_keys=["ticket"])
    kept = []

    @tierlight.route("faq", provider="openai", validate={"known": lambda result: result is ANSWER})
    def ask() -> Any:
        call = tierlight.current_call()
        assert call is not None
        call.join(ticket="T-1")
        kept.append(call)
        return ANSWER

    ask()
    tierlight.score(1.0, "helpful", call=kept[0].id, label="thumbs up")
    tierlight.score(
        0.5, "style", response_id="chatcmpl-77", kind="judge", judge_model="j", judge_version="3", weight=4
    )
    tierlight.score(False, "resolved", join={"ticket": "T-1"}, kind="outcome")
    row = the_call(running)
    assert all(isinstance(score, ScoreRecord) for score in row.scores)
    found = {
        score.name: (score.value, score.kind, score.evaluator_version, score.weight) for score in row.scores
    }
    assert found == {
        "known": (1.0, "validator", "", 1.0),
        "helpful": (1.0, "feedback", "", 1.0),
        "style": (0.5, "judge", "3", 4.0),
        "resolved": (0.0, "outcome", "", 1.0),
    }


def test_call_and_its_scores_are_once_in_pages_and_api_however_often_they_are_sent(
    running: Running, tmp_path: Path, connect: Callable[..., None]
) -> None:
    spool, copy = tmp_path / "spool", tmp_path / "copy"
    connect("http://127.0.0.1:9", spool=spool, timeout_s=0.5)  # nobody listens: everything waits on disk
    with tierlight.route("nightly", provider="openai", model="gpt-4o-mini") as call:
        tierlight.observe(ANSWER)
    tierlight.score(1.0, "helpful", call=call)
    tierlight.shutdown()
    shutil.copytree(spool, copy)
    before = None
    for _ in range(3):
        shutil.copytree(copy, spool, dirs_exist_ok=True)
        connect(running.otlp_url, spool=spool)
        with tierlight.route("probe", provider="openai", model="gpt-4o-mini", purpose="test"):
            tierlight.observe({**ANSWER, "id": f"probe-{time.monotonic_ns()}"})
        assert tierlight.flush(FLUSH_S)
        tierlight.shutdown()
        assert list(spool.iterdir()) == []
        (row,) = (row for row in stored(running) if row.call.route == "nightly")
        assert [(score.name, score.value) for score in row.scores] == [("helpful", 1.0)]
        before = before or row
        assert row == before
    answer = httpx.get(f"{running.dashboard_url}/api/v1/calls", params={"route": "nightly"}).json()
    (shown,) = answer["calls"]
    assert (shown["trace_id"], shown["input_tokens"]) == (row.call.trace_id.hex(), 1200)
    assert shown["cost_usd"] == pytest.approx((row.call.cost_nusd or 0) / 1e9)
    assert "nightly" in httpx.get(f"{running.dashboard_url}/routes").text
