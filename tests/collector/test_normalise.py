"""One span in each dialect, and what must hold for any span."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tierlight import semconv
from tierlight_collector.normalise import normalise, normalise_log
from tierlight_collector.normalise.failures import error_class, error_word
from tierlight_collector.normalise.profiles import _MAX_PROFILES, _PROFILES
from tierlight_collector.normalise.providers import identify
from tierlight_collector.normalise.routes import is_generic, route_name
from tierlight_collector.normalise.sources import _PLANS, DIALECTS
from tierlight_collector.normalise.tiering import tier_of
from tierlight_collector.records import (
    CallRecord,
    EventRecord,
    LogRecord,
    NormalisedSpan,
    Resource,
    SpanRecord,
)

START = 1_764_000_000_000_000_000
SECOND = 1_000_000_000
RESOURCE = Resource({"service.name": "shop"}, "shop", "i-1", "prod")


def span(
    attributes: Mapping[str, Any],
    *,
    name: str = "chat",
    scope: str = "com.example.llm",
    kind: int = 3,
    start_ns: int = START,
    end_ns: int = START + SECOND,
    status: int = 0,
    message: str = "",
    events: tuple[EventRecord, ...] = (),
) -> SpanRecord:
    return SpanRecord(
        b"t" * 16, b"s" * 8, b"", name, kind, start_ns, end_ns, status, message, scope, "", attributes, events, RESOURCE
    )  # fmt: skip


def read(attributes: Mapping[str, Any], **about: Any) -> NormalisedSpan:
    return normalise(span(attributes, **about), arrived_ns=START + 2 * SECOND)


def call(attributes: Mapping[str, Any], **about: Any) -> CallRecord:
    found = read(attributes, **about).call
    assert found is not None
    return found


CHAT = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-5-mini",
    "gen_ai.usage.input_tokens": 100,
    "gen_ai.usage.output_tokens": 20,
}


@pytest.mark.parametrize(
    ("attributes", "about", "expected"),
    [
        pytest.param(
            {
                "gen_ai.system": "AWS",
                "llm.request.type": "completion",
                "gen_ai.request.model": "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
                "gen_ai.usage.prompt_tokens": "120",
                "gen_ai.usage.completion_tokens": 34.0,
                "traceloop.association.properties.route": "refunds",
            },
            {"name": "bedrock.completion"},
            ("aws.bedrock", "chat", 120, 34, None, "refunds"),
            id="traceloop-bedrock",
        ),
        pytest.param(
            {
                "gen_ai.operation.name": "chat",
                "gen_ai.system": "strands-agents",
                "gen_ai.request.model": "us.amazon.nova-pro-v1:0",
                "gen_ai.usage.input_tokens": 400,
                "gen_ai.usage.output_tokens": 20,
                "gen_ai.usage.total_tokens": 720,
                "gen_ai.usage.cache_read_input_tokens": 300,
            },
            {"scope": "strands.telemetry.tracer"},
            ("aws.bedrock", "chat", 700, 20, 300, "unrouted/shop"),
            id="strands-counts-cache-apart",
        ),
        pytest.param(
            {
                "openinference.span.kind": "LLM",
                "llm.model_name": "claude-haiku-4-5",
                "llm.provider": "anthropic",
                "llm.token_count.prompt": 900,
                "llm.token_count.completion": 12,
                "llm.token_count.prompt_details.cache_read": 512,
                "metadata": '{"route": "Ticket Triage"}',
            },
            {"name": "LM.__call__"},
            ("anthropic", "chat", 900, 12, 512, "ticket-triage"),
            id="openinference",
        ),
        pytest.param(
            {
                "langfuse.observation.type": "generation",
                "langfuse.observation.model.name": "claude-sonnet-4-5",
                "langfuse.observation.usage_details": json.dumps(
                    {"input": 420, "output": 58, "cache_read_input_tokens": 1024, "cache_creation_input_tokens": 256}
                ),
                "langfuse.trace.name": "answer-mail",
            },
            {"name": "OpenAI-generation", "kind": 1},
            ("anthropic", "chat", 1700, 58, 1024, "answer-mail"),
            id="langfuse-buckets",
        ),
        pytest.param(
            {
                "ai.operationId": "ai.streamText.doStream",
                "ai.model.provider": "google.generative-ai",
                "ai.model.id": "gemini-2.5-flash",
                "ai.usage.inputTokens": 80,
                "ai.usage.outputTokens": 900,
                "ai.usage.cachedInputTokens": 16,
                "ai.telemetry.functionId": "summary",
            },
            {"kind": 1},
            ("gcp.gemini", "chat", 80, 900, 16, "summary"),
            id="vercel",
        ),
        pytest.param(
            {
                "mlflow.spanType": '"EMBEDDING"',
                "mlflow.spanInputs": '{"model": "text-embedding-3-small"}',
                "mlflow.chat.tokenUsage": '{"input_tokens": 17, "output_tokens": 0, "total_tokens": 17}',
            },
            {"kind": 1, "name": "Embeddings"},
            ("openai", "embeddings", 17, 0, None, "unrouted/shop"),
            id="mlflow",
        ),
        pytest.param(
            {
                "span.type": "llm_request",
                "model": "claude-opus-4-6",
                "input_tokens": 3,
                "output_tokens": 200,
                "cache_read_tokens": 9000,
                "cache_creation_tokens": 1000,
            },
            {"name": "claude_code.llm_request", "scope": "com.anthropic.claude_code.tracing"},
            ("anthropic", "chat", 10_003, 200, 9000, "unrouted/shop"),
            id="claude-code",
        ),
        pytest.param(
            {
                "langsmith.span.kind": "llm",
                "gen_ai.operation.name": "chat",
                "langsmith.metadata.ls_provider": "cohere",
                "gen_ai.request.model": "command-a-03-2025",
                "gen_ai.usage.input_tokens": 60,
                "gen_ai.usage.output_tokens": 34,
            },
            {"scope": "langsmith", "kind": 1},
            ("cohere", "chat", 60, 34, None, "unrouted/shop"),
            id="langsmith",
        ),
        pytest.param(
            {
                "gen_ai.system": "gcp.vertex.agent",
                "gen_ai.request.model": "gemini-2.5-pro",
                "gen_ai.usage.input_tokens": 10,
                "gen_ai.usage.output_tokens": 20,
            },
            {"name": "call_llm", "scope": "gcp.vertex.agent", "kind": 1},
            ("gcp.gemini", "chat", 10, 20, None, "unrouted/shop"),
            id="adk-without-operation",
        ),
        pytest.param(
            {
                "langwatch.span.type": "llm",
                "gen_ai.request.model": "openai/gpt-5-mini",
                "langwatch.metrics": '{"type": "json", "value": {"promptTokens": 11, "completionTokens": 7}}',
                "langwatch.labels": '["returns"]',
            },
            {"kind": 1},
            ("openai", "chat", 11, 7, None, "returns"),
            id="langwatch",
        ),
        pytest.param(
            {
                "gen_ai.operation.name": "chat.completions",
                "gen_ai.system": "openai",
                "gen_ai.request.model": "gpt-4o",
                "gen_ai.response.prompt_tokens": 16,
                "gen_ai.response.completion_tokens": 28,
            },
            {"scope": "Microsoft.SemanticKernel.Diagnostics"},
            ("openai", "chat", 16, 28, None, "unrouted/shop"),
            id="semantic-kernel",
        ),
    ],
)  # fmt: skip
def test_a_call_is_read_in_its_dialect(
    attributes: dict[str, Any], about: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    found = call(attributes, **about)
    assert (
        found.provider,
        found.operation,
        found.input_tokens,
        found.output_tokens,
        found.cached_input_tokens,
        found.route,
    ) == expected


@pytest.mark.parametrize(
    ("attributes", "about", "role"),
    [
        ({**CHAT, "gen_ai.operation.name": "invoke_agent"}, {}, "aggregate"),
        ({"openinference.span.kind": "CHAIN", "llm.token_count.prompt": 5}, {}, "aggregate"),
        ({"openinference.span.kind": "TOOL"}, {}, "tool"),
        ({"ai.operationId": "ai.generateText", "ai.usage.inputTokens": 5}, {}, "aggregate"),
        ({"ai.operationId": "ai.toolCall"}, {}, "tool"),
        ({"traceloop.span.kind": "workflow"}, {}, "aggregate"),
        ({"langfuse.observation.type": "span"}, {}, "other"),
        ({"langsmith.span.kind": "prompt", "gen_ai.operation.name": "chat"}, {}, "other"),
        ({"http.request.method": "POST", "url.full": "https://api.openai.com/v1"}, {"name": "POST"}, "http"),
        ({"gen_ai.operation.name": "framework", "gen_ai.system": "spring_ai"}, {}, "aggregate"),
        ({"logfire.span_type": "pending_span", **CHAT}, {}, "other"),
        ({"tierlight.span.role": "route", "tierlight.route": "a"}, {}, "route"),
        ({"llm.openai.model": "gpt-4o"}, {"name": "raw_gen_ai_request", "scope": "litellm"}, "other"),
        ({}, {"name": "answer"}, "other"),
    ],
)
def test_what_is_no_call_has_another_role(
    attributes: dict[str, Any], about: dict[str, Any], role: str
) -> None:
    found = read(attributes, **about)
    assert (found.role, found.call) == (role, None)


def test_http_attributes_beside_gen_ai_ones_make_a_call() -> None:
    assert read({**CHAT, "http.request.method": "POST", "url.full": "https://x"}).role == "call"


def test_a_known_host_is_believed_before_the_clients_name() -> None:
    assert call({**CHAT, "server.address": "api.groq.com"}).provider == "groq"
    assert call({**CHAT, "server.address": "shop.openai.azure.com"}).provider == "azure.ai.openai"
    assert call({**CHAT, "server.address": "localhost", "server.port": 11434}).provider == "ollama"


def test_a_provider_that_cannot_serve_the_model_is_flagged() -> None:
    assert "provider_suspect" in call({**CHAT, "gen_ai.request.model": "llama-3.3-70b-versatile"}).flags
    assert "provider_suspect" not in call(CHAT).flags


def test_cached_parts_beside_the_input_are_added_to_it() -> None:
    parts = {"gen_ai.usage.cache_read.input_tokens": 1024, "gen_ai.usage.cache_creation.input_tokens": 256}
    found = call({**CHAT, "gen_ai.usage.input_tokens": 420, **parts})
    assert (found.input_tokens, found.cache_rule) == (1700, "exclusive:proof")
    found = call({**CHAT, "gen_ai.usage.input_tokens": 1700, **parts})
    assert (found.input_tokens, found.cache_rule) == (1700, "inclusive")
    found = call({**CHAT, "gen_ai.usage.input_tokens": 2000, "gen_ai.usage.total_tokens": 3300, **parts})
    assert (found.input_tokens, found.cache_rule) == (3280, "exclusive:total")


def test_thoughts_apart_from_the_answer_are_output() -> None:
    found = call({**CHAT, "gen_ai.usage.output_tokens": 68, "gen_ai.usage.reasoning_tokens": 832})
    assert (found.output_tokens, found.reasoning_tokens) == (900, 832)


@pytest.mark.parametrize("value", [-1, 2**41, float("nan"), "many", True, [1], ""])
def test_impossible_token_counts_are_unknown_not_zero(value: object) -> None:
    found = call({**CHAT, "gen_ai.usage.input_tokens": value, "gen_ai.usage.output_tokens": value})
    assert (found.input_tokens, found.output_tokens, found.usage_source) == (None, None, "absent")


def test_zeros_of_a_failed_call_are_unknown() -> None:
    zeros = {"gen_ai.usage.input_tokens": 0, "gen_ai.usage.output_tokens": 0}
    found = call(
        {**CHAT, **zeros, "error.type": "RateLimitError", "http.response.status_code": 429}, status=2
    )
    assert (found.input_tokens, found.output_tokens, found.error_class) == (None, None, "rate_limit")


@pytest.mark.parametrize(
    ("spelling", "status", "klass"),
    [
        ("RateLimitError", None, "rate_limit"),
        ("<class 'openai.RateLimitError'>", None, "rate_limit"),
        ("rate_limit_error", None, "rate_limit"),
        ("anthropic.OverloadedError", None, "overloaded"),
        ("_OTHER", 529, "overloaded"),
        ("APITimeoutError", None, "timeout"),
        ("AuthenticationError", None, "auth"),
        ("BadRequestError", 400, "invalid_request"),
        ("InternalServerError", 500, "server"),
        ("httpx.RemoteProtocolError", None, "connection"),
        ("asyncio.CancelledError", None, "cancelled"),
        ("ContentFilterFinishReasonError", None, "content_filter"),
        ("Whatever", None, "unknown"),
    ],
)
def test_one_class_for_the_many_spellings_of_an_error(spelling: str, status: int | None, klass: str) -> None:
    assert error_class(error_word(spelling), status) == klass


def test_a_status_is_found_in_the_message_and_survives_its_stripping() -> None:
    failed = span(CHAT, status=2, message="Error code: 429 - {'error': 'the secret prompt'}")
    first = normalise(failed, arrived_ns=START)
    assert first.call is not None
    assert (first.call.http_status, first.call.error_class) == (429, "rate_limit")
    assert "secret" not in first.span.status_message
    assert normalise(first.span, arrived_ns=START).call == first.call


def test_what_was_refused_before_sending_is_no_call() -> None:
    attributes = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-5", "error.type": "TypeError"}
    refused = read(attributes, status=2)
    assert (refused.call, refused.role, refused.is_refused) == (None, "other", True)


def test_an_end_before_the_start_leaves_the_duration_unknown() -> None:
    found = call(CHAT, end_ns=START - 1)
    assert (found.duration_ns, found.input_tokens) == (None, 100)
    assert "clock_suspect" in found.flags


def test_a_start_in_the_future_becomes_the_arrival_and_keeps_the_duration() -> None:
    for start in (START + 3600 * 3 * SECOND, 2**64 - 1 - SECOND):
        found = normalise(span(CHAT, start_ns=start, end_ns=start + SECOND), arrived_ns=START)
        assert found.call is not None
        assert (found.call.start_ns, found.call.duration_ns) == (START, SECOND)
        assert found.span.start_ns == START
        assert "clock_suspect" in found.call.flags


def test_content_is_given_back_only_when_asked_for() -> None:
    texts = {"gen_ai.input.messages": '[{"role":"user"}]', "gen_ai.output.messages": '[{"role":"assistant"}]'}
    captured = normalise(span({**CHAT, **texts}), arrived_ns=START, content=True)
    assert [(each.kind, each.body) for each in captured.contents] == [
        ("prompt", '[{"role":"user"}]'),
        ("completion", '[{"role":"assistant"}]'),
    ]
    assert not texts.keys() & captured.span.attributes.keys()
    assert read({**CHAT, **texts}).contents == ()


def test_a_response_id_inside_the_answer_outlives_the_answer() -> None:
    attributes = {
        "openinference.span.kind": "LLM",
        "llm.model_name": "gpt-5-mini",
        "output.value": '{"id": "chatcmpl-7", "choices": []}',
    }
    first = read(attributes)
    assert first.call is not None
    assert first.call.response_id == "chatcmpl-7"
    assert "output.value" not in first.span.attributes
    assert call(first.span.attributes).response_id == "chatcmpl-7"


def test_our_own_span_gives_back_what_the_sdk_said() -> None:
    found = call(
        {
            **CHAT,
            semconv.TIERLIGHT_SCHEMA: "1",
            semconv.TIERLIGHT_SPAN_ROLE: "call",
            semconv.TIERLIGHT_CALL_ID: "c-1",
            semconv.TIERLIGHT_ROUTE: "support/answer",
            semconv.TIERLIGHT_TIER: "flagship",
            semconv.TIERLIGHT_ATTEMPT_INDEX: 1,
            semconv.TIERLIGHT_ATTEMPT_REASON: "escalation",
            semconv.TIERLIGHT_ATTEMPT_FINAL: False,
            semconv.TIERLIGHT_PURPOSE: "shadow",
            semconv.TIERLIGHT_COST_AMOUNT: 0.0001818,
            semconv.TIERLIGHT_COST_CURRENCY: "USD",
            semconv.TIERLIGHT_COST_SOURCE: "caller",
            semconv.TIERLIGHT_USAGE_SOURCE: "estimated",
        }
    )
    assert (found.call_id, found.route, found.tier, found.dialect) == (
        "c-1",
        "support/answer",
        "flagship",
        "tierlight",
    )
    assert (found.attempt_index, found.attempt_reason, found.attempt_final, found.purpose) == (
        1,
        "escalation",
        False,
        "shadow",
    )
    assert (found.cost_nusd, found.cost_source, found.usage_source) == (181_800, "caller", "estimated")


def test_an_answer_from_a_local_cache_costs_nothing() -> None:  # R07
    found = call({**CHAT, semconv.TIERLIGHT_SPAN_ROLE: "call", semconv.TIERLIGHT_CACHE_HIT: True})
    assert (found.outcome, found.cost_nusd, found.cost_source) == ("cache_hit", 0, "cache")


def test_scores_on_spans_are_read() -> None:
    found = read(
        {
            **CHAT,
            "tierlight.score.schema_valid": 1.0,
            "tierlight.score.weight": 2.0,
            "evaluations.0.evaluation.name": "faithful",
            "evaluations.0.evaluation.score": 0.25,
            "evaluations.0.evaluation.annotator_kind": "LLM",
            "evaluations.0.evaluation.explanation": "made up",
        }
    )
    assert [(each.name, each.value, each.kind, each.explanation) for each in found.scores] == [
        ("schema_valid", 1.0, "validator", ""),
        ("faithful", 0.25, "judge", ""),
    ]


def log(event: str, attributes: Mapping[str, Any]) -> LogRecord:
    return LogRecord(event, START, b"t" * 16, b"s" * 8, attributes, RESOURCE)


def test_an_evaluation_event_is_a_score() -> None:
    said = {
        "gen_ai.evaluation.name": "helpful",
        "gen_ai.evaluation.score.value": 0.8,
        "tierlight.join.ticket": "T-1",
    }
    score = normalise_log(log("gen_ai.evaluation.result", said))
    assert score is not None
    assert (score.name, score.value, score.join_key, score.join_value) == ("helpful", 0.8, "ticket", "T-1")


def test_a_failed_evaluation_is_missing_not_zero() -> None:
    said = {
        "gen_ai.evaluation.name": "helpful",
        "gen_ai.evaluation.score.value": 0.0,
        "error.type": "Timeout",
    }
    score = normalise_log(log("gen_ai.evaluation.result", said))
    assert score is not None
    assert score.value is None


@pytest.mark.parametrize(
    "record",
    [
        log("gen_ai.evaluation.result", {"gen_ai.evaluation.score.value": 1.0}),
        log("gen_ai.client.inference.operation.details", CHAT),
        log("", {}),
    ],
)
def test_other_log_events_are_no_scores(record: LogRecord) -> None:
    assert normalise_log(record) is None


# ---- for any span ---------------------------------------------------------------------------------------

KNOWN_KEYS = sorted({key for dialect in DIALECTS for keys in dialect.SOURCES.values() for key in keys})
VALUES: st.SearchStrategy[Any] = st.one_of(
    st.integers(-5, 3000),
    st.integers(),
    st.floats(),
    st.booleans(),
    st.text(max_size=12),
    st.sampled_from(
        ["chat", "LLM", "call", '"CHAT_MODEL"', "generation", "{}", "[]", "{", '"', "openai", "1e3", "ai.embed.doEmbed"]
    ),
    st.lists(st.integers(), max_size=2),
    st.none(),
    st.binary(max_size=4),
)  # fmt: skip
ATTRIBUTES = st.dictionaries(st.sampled_from(KNOWN_KEYS), VALUES, max_size=12).map(
    lambda drawn: {"gen_ai.operation.name": "chat", **drawn}
)


@settings(max_examples=400, deadline=None)
@given(ATTRIBUTES, st.sampled_from(["openlit.instrumentation.anthropic", "com.example.llm"]))
def test_parts_never_exceed_their_total_and_nothing_is_negative(
    attributes: dict[str, Any], scope: str
) -> None:
    found = read(attributes, scope=scope)
    if found.call is None:
        return
    made = found.call
    for spec in fields(made):
        value = getattr(made, spec.name)
        if isinstance(value, int) and not isinstance(value, bool):
            assert value >= 0, spec.name
        assert value == value, spec.name  # NaN differs from itself
    inputs = (made.cached_input_tokens or 0) + (made.cache_write_input_tokens or 0)
    assert inputs <= (made.input_tokens if made.input_tokens is not None else 0) or not inputs
    assert (made.cache_write_1h_input_tokens or 0) <= (made.cache_write_input_tokens or 0)
    if made.reasoning_tokens is not None:
        assert made.output_tokens is not None
        assert made.reasoning_tokens <= made.output_tokens
    assert (made.usage_source == "absent") == (made.input_tokens is None and made.output_tokens is None)


@settings(max_examples=200, deadline=None)
@given(ATTRIBUTES)
def test_no_number_is_invented_where_none_was_sent(attributes: dict[str, Any]) -> None:
    silent = {
        key: value
        for key, value in attributes.items()
        if "usage" not in key and "token" not in key and "metrics" not in key
    }
    found = read(silent)
    if found.call is not None:
        assert (found.call.input_tokens, found.call.output_tokens) == (None, None)


@settings(max_examples=200, deadline=None)
@given(ATTRIBUTES, st.randoms(use_true_random=False))
def test_the_order_of_attributes_does_not_matter(attributes: dict[str, Any], shuffler: Any) -> None:
    pairs = list(attributes.items())
    shuffler.shuffle(pairs)
    assert repr(read(dict(pairs)).call) == repr(read(attributes).call)


@settings(max_examples=200, deadline=None)
@given(ATTRIBUTES, st.sampled_from(["chat m", "GET /", ""]), st.sampled_from([0, 2, 3]))
def test_what_was_read_before_changes_nothing(attributes: dict[str, Any], name: str, kind: int) -> None:
    _PROFILES.clear()
    alone = repr(read(attributes, name=name, kind=kind))
    for other in (attributes, {**CHAT, **attributes}, attributes):
        read(other, name=name, kind=kind)
    assert repr(read(attributes, name=name, kind=kind)) == alone


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"gen_ai.request.stream": 1}, {"gen_ai.request.stream": True}),
        ({"tierlight.attempt.index": True}, {"tierlight.attempt.index": 1}),
        ({"tierlight.attempt.index": 1.5}, {"tierlight.attempt.index": 1}),
        ({"gen_ai.response.finish_reasons": [1]}, {"gen_ai.response.finish_reasons": ["1"]}),
        ({"gen_ai.response.finish_reasons": [["stop"]]}, {"gen_ai.response.finish_reasons": ["stop"]}),
        ({"gen_ai.agent.name": {"a": 1}}, {"gen_ai.agent.name": "a"}),
        ({"gen_ai.agent.name": b"a"}, {"gen_ai.agent.name": "a"}),
        ({"gen_ai.system": "", "gen_ai.provider.name": "groq"}, {"gen_ai.system": "groq", "gen_ai.provider.name": ""}),
    ],
)  # fmt: skip
def test_equal_values_of_another_kind_are_read_as_what_they_are(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    base = {**CHAT, "tierlight.call.id": "c1", "tierlight.schema": "1"}
    alone = []
    for said in (one, other):
        _PROFILES.clear()
        alone.append(repr(read({**base, **said}).call))
    for said, expected in ((one, alone[0]), (other, alone[1]), (one, alone[0])):
        assert repr(read({**base, **said}).call) == expected


def test_spans_of_one_sender_share_what_follows_from_their_common_values() -> None:
    _PROFILES.clear()
    said = {**CHAT, "gen_ai.response.finish_reasons": ["length"], "server.port": 443}
    first = call({**said, "gen_ai.usage.input_tokens": 5, "gen_ai.response.id": "r1"})
    second = call({**said, "gen_ai.usage.input_tokens": 7, "gen_ai.response.id": "r2"})
    assert len(_PROFILES) == 1
    assert (first.input_tokens, first.response_id) == (5, "r1")
    assert (second.input_tokens, second.response_id) == (7, "r2")
    assert first.outcome == second.outcome == "truncated"


def test_made_up_keys_and_names_are_not_remembered_for_ever() -> None:
    before = len(_PLANS)
    for number in range(50):
        long = f"{number}" + "x" * 50_000
        read(
            {**CHAT, f"k{number}" + "y" * 250: 1, **{f"{number}-{n}" + "z" * 200: 1 for n in range(40)}},
            scope=long,
        )
        read(
            {**CHAT, "gen_ai.request.model": long, "route": long, "server.address": long, "error.type": long}
        )
    assert len(_PLANS) - before <= 2
    assert not any("x" * 200 in repr(key) for key in _PROFILES)
    for number in range(_MAX_PROFILES + 5):
        read({**CHAT, "route": f"r{number}"})
    assert len(_PROFILES) <= _MAX_PROFILES
    for remembered in (identify, route_name, is_generic, error_word, tier_of):
        info = remembered.cache_info()
        assert info.maxsize is not None
        assert info.currsize <= info.maxsize
    assert len(call({**CHAT, "gen_ai.request.model": "m" * 50_000}).request_model) == 200
