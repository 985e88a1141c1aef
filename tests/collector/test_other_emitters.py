"""What emitters send that no capture is there of: by the conventions they publish, and as their packages were seen to.

Each case holds the attributes that decide, in the spelling of the sender.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from collector.told import COSTING, NOW_NS
from tierlight_collector.content import is_content_key
from tierlight_collector.normalise import normalise, resolve
from tierlight_collector.normalise.resolve import facts_of
from tierlight_collector.records import (
    Batch,
    CallRecord,
    EventRecord,
    Filters,
    NormalisedSpan,
    Resource,
    SpanRecord,
)
from tierlight_collector.renormalise import apply
from tierlight_collector.stores import open_store

SECOND = 1_000_000_000
RESOURCE = Resource({"service.name": "shop", "service.instance.id": "i-1"}, "shop", "i-1")


def span(
    attributes: Mapping[str, Any],
    *,
    name: str = "work",
    scope: str = "com.example",
    kind: int = 1,
    number: int = 1,
    parent: int = 0,
    trace: int = 1,
    start_ns: int = NOW_NS,
    end_ns: int | None = None,
    status: int = 0,
    message: str = "",
    events: tuple[EventRecord, ...] = (),
    resource: Resource = RESOURCE,
) -> SpanRecord:
    return SpanRecord(
        trace.to_bytes(16), number.to_bytes(8), parent.to_bytes(8) if parent else b"", name, kind, start_ns,
        start_ns + SECOND if end_ns is None else end_ns, status, message, scope, "", attributes, events, resource,
    )  # fmt: skip


def read(attributes: Mapping[str, Any], **about: Any) -> NormalisedSpan:
    return normalise(span(attributes, **about), NOW_NS)


def call(attributes: Mapping[str, Any], **about: Any) -> CallRecord:
    found = read(attributes, **about)
    assert found.call is not None, f"role {found.role}"
    return found.call


def counted(*spans: SpanRecord) -> list[CallRecord]:
    """The calls that count among these spans, with what they take from their duplicates, by start."""
    found = {(each.trace_id, each.span_id): normalise(each, NOW_NS) for each in spans}
    calls = []
    for key, verdict in resolve([facts_of(each) for each in found.values()]).items():
        one = found[key].call
        if one is not None and verdict.superseded_by is None:
            calls.append(replace(one, route=verdict.route, **verdict.taken))
    return sorted(calls, key=lambda one: (one.start_ns, one.span_id))


# (attributes, about) -> provider, operation, model, input, output, cached, written, reasoning
CALLS = [
    pytest.param(
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "azure.ai.openai",
            "gen_ai.request.model": "gpt-4o-mini",
            "gen_ai.response.id": "chatcmpl-1",
            "gen_ai.usage.input_tokens": 1500,
            "gen_ai.usage.output_tokens": 56,
            "gen_ai.usage.cache_read.input_tokens": 1024,
            "server.address": "shop.openai.azure.com",
            "server.port": 443,
        },
        {"name": "chat gpt-4o-mini", "scope": "Experimental.Microsoft.Extensions.AI", "kind": 3},
        ("azure.ai.openai", "chat", "gpt-4o-mini", 1500, 56, 1024, None, None),
        id="dotnet-extensions-ai",
    ),
    pytest.param(
        {
            "gen_ai.operation.name": "chat.streaming_completions",
            "gen_ai.system": "openai",
            "gen_ai.request.model": "gpt-4o-mini",
        },
        {"name": "chat.streaming_completions gpt-4o-mini", "scope": "semantic_kernel.utils.telemetry"},
        ("openai", "chat", "gpt-4o-mini", None, None, None, None, None),
        id="semantic-kernel-stream-without-usage",
    ),
    pytest.param(  # Micrometer writes every value as text, and "none" for what is not there
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.system": "openai",
            "gen_ai.request.model": "gpt-4o-mini",
            "gen_ai.response.model": "none",
            "gen_ai.response.finish_reasons": '["STOP"]',
            "gen_ai.usage.input_tokens": "120",
            "gen_ai.usage.output_tokens": "34",
            "gen_ai.usage.total_tokens": "154",
            "error": "none",
        },
        {"name": "chat gpt-4o-mini", "scope": "org.springframework.boot", "kind": 3},
        ("openai", "chat", "gpt-4o-mini", 120, 34, None, None, None),
        id="spring-ai",
    ),
    pytest.param(
        {
            "gen_ai.request.model": "gpt-4o-mini",
            "gen_ai.response.model": "gpt-4o-mini-2024-07-18",
            "gen_ai.usage.prompt_tokens": 120,
            "gen_ai.usage.completion_tokens": 34,
            "gen_ai.client.estimated_cost": "0.0000384USD",
        },
        {"name": "completion gpt-4o-mini", "scope": "io.quarkus.opentelemetry"},
        ("openai", "chat", "gpt-4o-mini", 120, 34, None, None, None),
        id="quarkus-langchain4j",
    ),
    pytest.param(
        {
            "gen_ai.operation.name": "llm_call",
            "gen_ai.agent.name": "gemini-cli",
            "gen_ai.request.model": "gemini-2.5-pro",
            "gen_ai.usage.input_tokens": 9000,
            "gen_ai.usage.output_tokens": 300,
        },
        {"name": "llm_call", "scope": "gemini-cli"},
        ("gcp.gemini", "chat", "gemini-2.5-pro", 9000, 300, None, None, None),
        id="gemini-cli",
    ),
    pytest.param(
        {
            "gen_ai.operation.name": "call_llm",
            "gen_ai.request.model": "mistral/mistral-small-latest",
            "gen_ai.usage.input_tokens": 10,
            "gen_ai.usage.output_tokens": 5,
        },
        {"name": "call_llm mistral-small-latest", "scope": "any_agent"},
        ("mistral_ai", "chat", "mistral-small-latest", 10, 5, None, None, None),
        id="any-agent",
    ),
    pytest.param(
        {
            "genkit:type": "action",
            "genkit:metadata:subtype": "model",
            "genkit:name": "googleai/gemini-2.5-flash",
            "genkit:state": "success",
            "genkit:output": json.dumps(
                {
                    "message": {"content": [{"text": "All good."}]},
                    "finishReason": "stop",
                    "usage": {"inputTokens": 1500, "outputTokens": 36, "totalTokens": 1556, "thoughtsTokens": 20},
                }
            ),
        },
        {"name": "googleai/gemini-2.5-flash", "scope": "genkit-tracer"},
        ("gcp.gemini", "chat", "gemini-2.5-flash", 1500, 36, None, None, 20),
        id="genkit",
    ),
    pytest.param(
        {
            "braintrust.span_attributes": '{"type": "llm", "name": "Chat Completion"}',
            "braintrust.metadata": '{"provider": "anthropic", "model": "claude-sonnet-4-5"}',
            "braintrust.metrics": json.dumps(
                {
                    "prompt_tokens": 1700,
                    "completion_tokens": 58,
                    "prompt_cached_tokens": 1024,
                    "prompt_cache_creation_tokens": 256,
                    "time_to_first_token": 0.2,
                }
            ),
        },
        {"name": "anthropic.messages.create", "scope": "braintrust"},
        ("anthropic", "chat", "claude-sonnet-4-5", 1700, 58, 1024, 256, None),
        id="braintrust",
    ),
    pytest.param(
        {
            "langsmith.span.kind": "llm",
            "gen_ai.operation.name": "chat",
            "gen_ai.system": "openai",
            "gen_ai.request.model": "gpt-4o-mini",
            "gen_ai.usage.input_tokens": 1500,
            "gen_ai.usage.output_tokens": 56,
            "gen_ai.usage.total_tokens": 1556,
            "langsmith.metadata.usage_metadata": json.dumps(
                {
                    "input_tokens": 1500,
                    "output_tokens": 56,
                    "input_token_details": {"audio": 0, "cache_read": 1024},
                    "output_token_details": {"reasoning": 20},
                }
            ),
            "gen_ai.completion": json.dumps(
                {
                    "generations": [
                        [{"message": {"kwargs": {"id": "lc_run--1", "response_metadata": {"id": "chatcmpl-9"}}}}]
                    ]
                }
            ),
        },
        {"name": "ChatOpenAI", "scope": "langsmith"},
        ("openai", "chat", "gpt-4o-mini", 1500, 56, 1024, None, 20),
        id="langsmith-usage-metadata",
    ),
    pytest.param(
        {
            "logfire.span_type": "span",
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "anthropic",
            "gen_ai.request.model": "claude-sonnet-4-5",
            "gen_ai.response.id": "msg_1",
            "gen_ai.usage.input_tokens": 1700,
            "gen_ai.usage.output_tokens": 58,
            "gen_ai.usage.raw": json.dumps(
                {
                    "input_tokens": 420,
                    "output_tokens": 58,
                    "cache_read_input_tokens": 1024,
                    "cache_creation_input_tokens": 256,
                    "cache_creation": {"ephemeral_1h_input_tokens": 100, "ephemeral_5m_input_tokens": 156},
                }
            ),
        },
        {"name": "Message with {request_data[model]!r}", "scope": "logfire.anthropic", "kind": 3},
        ("anthropic", "chat", "claude-sonnet-4-5", 1700, 58, 1024, 256, None),
        id="logfire-anthropic",
    ),
    pytest.param(  # the API counts input without what was cached, and the sender's total leaves it out too
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "aws.bedrock",
            "gen_ai.request.model": "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
            "gen_ai.usage.input_tokens": 2000,
            "gen_ai.usage.output_tokens": 58,
            "gen_ai.usage.total_tokens": 2058,
            "gen_ai.usage.cache_read.input_tokens": 1024,
        },
        {"name": "bedrock.converse", "scope": "opentelemetry.instrumentation.bedrock", "kind": 3},
        ("aws.bedrock", "chat", "us.anthropic.claude-sonnet-4-5-20250929-v1:0", 3024, 58, 1024, None, None),
        id="openllmetry-bedrock-converse",
    ),
    pytest.param(
        {
            "gen_ai.system": "az.ai.agents",
            "gen_ai.operation.name": "process_thread_run",
            "gen_ai.request.model": "gpt-4o",
            "gen_ai.usage.input_tokens": 320,
            "gen_ai.usage.output_tokens": 40,
        },
        {"name": "process_thread_run", "scope": "azure.ai.agents", "kind": 3},
        ("azure.ai.inference", "chat", "gpt-4o", 320, 40, None, None, None),
        id="azure-agents-run",
    ),
    pytest.param(
        {
            "gen_ai.span.kind": "LLM",
            "gen_ai.provider.name": "openai",
            "gen_ai.model_name": "gpt-4o-mini",
            "gen_ai.usage.input_tokens": 12,
            "gen_ai.usage.output_tokens": 3,
        },
        {"name": "llm", "scope": "dify"},
        ("openai", "chat", "gpt-4o-mini", 12, 3, None, None, None),
        id="span-kind-llm",
    ),
    pytest.param(
        {
            "gen_ai.request.model": "@cf/meta/llama-3.1-8b-instruct",
            "gen_ai.model.provider": "workers-ai",
            "gen_ai.usage.input_tokens": 12,
            "gen_ai.usage.output_tokens": 3,
            "gen_ai.usage.total_cost": 0.00001,
        },
        {"name": "ai-gateway", "scope": "cloudflare"},
        ("cloudflare", "chat", "@cf/meta/llama-3.1-8b-instruct", 12, 3, None, None, None),
        id="cloudflare-gateway",
    ),
    pytest.param(
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.system": "openrouter",
            "gen_ai.request.model": "anthropic/claude-sonnet-4.5",
            "gen_ai.usage.input_tokens": 1700,
            "gen_ai.usage.input_tokens.cached": 1024,
            "gen_ai.usage.output_tokens": 58,
            "gen_ai.usage.output_tokens.reasoning": 20,
        },
        {"name": "chat", "kind": 3},
        ("openrouter", "chat", "anthropic/claude-sonnet-4.5", 1700, 58, 1024, None, 20),
        id="openrouter-broadcast",
    ),
    pytest.param(
        {
            "gen_ai.request.model": "gpt-4o-mini",
            "gen_ai.system": "openai",
            "gen_ai.usage.input_tokens": 1500,
            "gen_ai.usage.output_tokens": 56,
            "usage": json.dumps(
                {
                    "input_tokens": 1500,
                    "input_tokens_details": {"cached_tokens": 1024},
                    "output_tokens_details": {"reasoning_tokens": 20},
                }
            ),
            "logfire.span_type": "span",
            "logfire.tags": ["LLM"],
        },
        {"name": "Chat completion with {gen_ai.request.model!r}", "scope": "logfire.openai_agents"},
        ("openai", "chat", "gpt-4o-mini", 1500, 56, 1024, None, 20),
        id="logfire-agents",
    ),
    pytest.param(
        {
            "gen_ai.operation.name": "tool_selection",
            "gen_ai.system": "openai",
            "gen_ai.request.model": "gpt-4o-mini",
            "gen_ai.usage.input_tokens": 1500,
            "gen_ai.usage.output_tokens": 56,
            "gen_ai.usage.total_tokens": 1556,
            "gen_ai.usage.reasoning_tokens": 20,
            "gen_ai.usage.cached_input_tokens": 1024,
        },
        {"name": "tool_selection gpt-4o-mini", "scope": "@mastra/otel", "kind": 3},
        ("openai", "chat", "gpt-4o-mini", 1500, 56, 1024, None, 20),
        id="mastra",
    ),
    pytest.param(
        {
            "gen_ai.response.model": "meta-llama/Llama-3.1-8B-Instruct",
            "gen_ai.request.id": "cmpl-1",
            "gen_ai.usage.prompt_tokens": 512,
            "gen_ai.usage.completion_tokens": 128,
            "gen_ai.latency.time_to_first_token": 0.25,
        },
        {"name": "llm_request", "scope": "vllm.llm_engine", "kind": 2},
        ("vllm", "chat", "meta-llama/Llama-3.1-8B-Instruct", 512, 128, None, None, None),
        id="vllm-server",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("attributes", "about", "expected"), CALLS)
def test_a_call_is_read_as_its_sender_means_it(
    attributes: dict[str, Any], about: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    one = call(attributes, **about)
    assert (
        one.provider, one.operation, one.request_model, one.input_tokens, one.output_tokens,
        one.cached_input_tokens, one.cache_write_input_tokens, one.reasoning_tokens,
    ) == expected  # fmt: skip


@pytest.mark.parametrize(("attributes", "about", "expected"), CALLS)
def test_the_stored_span_is_read_the_same_again(
    attributes: dict[str, Any], about: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    first = read(attributes, **about)
    assert normalise(first.span, NOW_NS).call == first.call


@pytest.mark.parametrize(
    ("attributes", "about", "role"),
    [
        ({"gen_ai.operation.name": "orchestrate_tools"}, {"name": "orchestrate_tools"}, "aggregate"),
        ({"gen_ai.operation.name": "agent_call", "gen_ai.usage.input_tokens": 5}, {}, "aggregate"),
        (
            {
                "gen_ai.operation.name": "agent_step",
                "gen_ai.request.model": "m",
                "gen_ai.usage.input_tokens": 5,
            },
            {},
            "aggregate",
        ),
        (
            {
                "gen_ai.operation.name": "model.step",
                "gen_ai.request.model": "m",
                "gen_ai.usage.input_tokens": 5,
            },
            {},
            "aggregate",
        ),
        ({"gen_ai.operation.name": "agent.run"}, {"name": "agent.refund", "kind": 2}, "aggregate"),
        ({"gen_ai.operation.name": "tool.execute"}, {"name": "tool.execute look_up"}, "tool"),
        ({"gen_ai.span.kind": "CHAIN", "gen_ai.usage.input_tokens": 5}, {}, "aggregate"),
        ({"gen_ai.span.kind": "TOOL"}, {}, "tool"),
        ({"agentops.span.kind": "session"}, {}, "aggregate"),
        ({"genkit:metadata:subtype": "flow", "genkit:name": "answerMail"}, {}, "aggregate"),
        ({"genkit:metadata:subtype": "tool"}, {}, "tool"),
        ({"genkit:metadata:subtype": "retriever"}, {}, "other"),
        (
            {"braintrust.span_attributes": '{"type": "task"}', "braintrust.metrics": '{"tokens": 9}'},
            {},
            "other",
        ),
        ({"haystack.component.type": "OpenAIChatGenerator"}, {"name": "haystack.component.run"}, "other"),
        ({"gen_ai.request.model": "gpt-4o"}, {"name": "gpt-4o.llm", "kind": 3}, "other"),  # CrewAI's frame
    ],
)
def test_frames_around_calls_are_no_calls(
    attributes: dict[str, Any], about: dict[str, Any], role: str
) -> None:
    found = read(attributes, **about)
    assert (found.role, found.call) == (role, None)


@pytest.mark.parametrize(
    ("attributes", "about", "klass", "status"),
    [
        pytest.param(
            {"gen_ai.request.model": "gpt-4o-mini"},
            {
                "name": "completion gpt-4o-mini",
                "status": 2,
                "message": "dev.langchain4j.exception.RateLimitException",
            },
            "rate_limit",
            None,
            id="langchain4j-without-usage",
        ),
        pytest.param(
            {"gen_ai.operation.name": "generate_content", "gen_ai.request.model": "gemini-2.5-flash"},
            {
                "status": 2,
                "message": "429 RESOURCE_EXHAUSTED. {'error': {'code': 429}}",
                "events": (
                    EventRecord("exception", 1, {"exception.type": "google.genai.errors.ClientError"}),
                ),
            },
            "rate_limit",
            429,
            id="google-client-error",
        ),
        pytest.param(
            {"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o", "error.type": "RetryError"},
            {"status": 2, "message": "RetryError[<Future at 0x7f state=finished raised APITimeoutError>]"},
            "timeout",
            None,
            id="a-wrapper-names-the-cause",
        ),
        pytest.param(
            {
                "gen_ai.operation.name": "chat",
                "gen_ai.request.model": "nova",
                "error.type": "ServiceResponseException",
            },
            {"status": 2, "message": "DEADLINE_EXCEEDED: the model took too long"},
            "timeout",
            None,
            id="grpc-word",
        ),
        pytest.param(
            {
                "gen_ai.request.model": "gpt-4o-mini",
                "gen_ai.system": "openai",
                "logfire.span_type": "span",
                "logfire.tags": ["LLM"],
                "logfire.level_num": 17,
                "error": '{"message": "Error getting response", "data": {"error": "Error code: 429 - slow down"}}',
            },
            {"name": "Chat completion with {gen_ai.request.model!r}", "scope": "logfire.openai_agents"},
            "rate_limit",
            429,
            id="logfire-agents-error-level",
        ),
        pytest.param(
            {"ai.operationId": "ai.generateText.doGenerate", "ai.model.id": "gpt-4o-mini"},
            {
                "status": 2,
                "message": "Rate limit reached for gpt-4o-mini",
                "events": (EventRecord("exception", 1, {"exception.type": "AI_APICallError"}),),
            },
            "rate_limit",
            None,
            id="a-providers-message-without-status",
        ),
        pytest.param(
            {
                "span.type": "llm_request",
                "model": "claude-opus-4-6",
                "success": "false",
                "status_code": "529",
            },
            {"name": "claude_code.llm_request", "scope": "com.anthropic.claude_code.tracing"},
            "overloaded",
            529,
            id="claude-code-says-success-false",
        ),
        pytest.param(
            {"genkit:metadata:subtype": "model", "genkit:name": "openai/gpt-4o", "genkit:state": "error"},
            {"status": 2, "message": "503 Service Unavailable"},
            "overloaded",
            503,
            id="genkit-state-error",
        ),
    ],
)
def test_a_failed_call_says_why(
    attributes: dict[str, Any], about: dict[str, Any], klass: str, status: int | None
) -> None:
    found = read(attributes, **about)
    assert found.call is not None
    assert (found.call.error_class, found.call.http_status, found.call.outcome) == (klass, status, "error")
    assert found.call.input_tokens is None
    assert normalise(found.span, NOW_NS).call == found.call


def test_the_words_of_a_prompt_name_no_error() -> None:
    failed = call(
        {"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o", "error.type": "Whatever"},
        status=2,
        message="cannot answer: is there a timeout or a safety problem at 429 Main Street?",
    )
    assert (failed.error_class, failed.http_status) == ("unknown", None)


def test_captured_texts_of_these_senders_are_content() -> None:
    keys = (
        "genkit:input", "genkit:output", "braintrust.input_json", "braintrust.output_json", "gen_ai.prompt_json",
        "gen_ai.completion_json", "haystack.component.output", "langsmith.metadata.input",
    )  # fmt: skip
    assert [key for key in keys if not is_content_key(key)] == []


def test_a_frame_named_generate_names_no_route() -> None:
    frame = span({"genkit:metadata:subtype": "util"}, number=1, name="generate")
    model = span({"genkit:metadata:subtype": "model", "genkit:name": "openai/gpt-4o"}, number=2, parent=1)
    (one,) = counted(frame, model)
    assert one.route == "unrouted/shop"


def test_a_flow_gives_its_name_to_the_calls_below_it() -> None:
    flow = span({"genkit:metadata:subtype": "flow", "genkit:name": "answerMail"}, number=1, name="answerMail")
    model = span({"genkit:metadata:subtype": "model", "genkit:name": "openai/gpt-4o"}, number=2, parent=1)
    (one,) = counted(flow, model)
    assert one.route == "answermail"


# ---- the same call seen twice -------------------------------------------------------------------------------


LOGFIRE = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-4o-mini",
    "gen_ai.response.model": "gpt-4o-mini",
}


def logfire_stream(
    trace: int, report_trace: int, start_ns: int = NOW_NS, parent: int = 0
) -> list[SpanRecord]:
    """The request's span ends with the first byte; at the end of the stream a log of its own tells the usage."""
    headers_ns, end_ns = start_ns + SECOND // 5, start_ns + 4 * SECOND
    began = span(
        {"logfire.span_type": "span", **LOGFIRE}, name="Chat Completion with 'gpt-4o-mini'", kind=3,
        scope="logfire.openai", number=start_ns % 1_000 + 10, trace=trace, parent=parent, start_ns=start_ns,
        end_ns=headers_ns,
    )  # fmt: skip
    told = {
        "logfire.span_type": "log",
        **LOGFIRE,
        "duration": (end_ns - headers_ns - 2_000_000) / 1e9,
        "gen_ai.usage.input_tokens": 1500,
        "gen_ai.usage.output_tokens": 56,
        "gen_ai.usage.raw": '{"prompt_tokens_details": {"cached_tokens": 1024}}',
    }
    report = span(
        told, name="streaming response", scope="logfire.openai", number=start_ns % 1_000 + 11, trace=report_trace,
        parent=parent, start_ns=end_ns, end_ns=end_ns,
    )  # fmt: skip
    return [began, report]


def test_a_stream_reported_at_its_end_is_one_call() -> None:
    root = span({}, name="answer-mail", number=1)
    (one,) = counted(root, *logfire_stream(1, 1, parent=1))
    assert (one.input_tokens, one.output_tokens, one.cached_input_tokens, one.is_streaming) == (
        1500,
        56,
        1024,
        True,
    )
    assert one.route == "answer-mail"
    assert one.duration_ns == pytest.approx(3.8 * SECOND, rel=0.01)


def test_two_streams_at_once_stay_two_calls() -> None:
    one, other = logfire_stream(1, 2), logfire_stream(3, 4, NOW_NS + SECOND // 2)
    assert [each.input_tokens for each in counted(*one, *other)] == [1500, 1500]


def test_a_reported_stream_without_a_parent_is_one_call_in_the_store_too(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'calls.db'}", now_ns=lambda: NOW_NS + 10 * SECOND)
    for each in (*logfire_stream(1, 2), *logfire_stream(1, 2)):
        store.append(Batch(spans=(normalise(each, NOW_NS + 10 * SECOND),), arrived_ns=NOW_NS + 10 * SECOND))
    rows = store.calls(Filters()).rows
    assert [row.call.input_tokens for row in rows] == [1500]
    assert store.health().counters.get("conflicts", 0) == 0
    assert apply(store, COSTING).changed == 0
    store.close()


def test_the_caller_of_a_model_server_counts_and_takes_what_only_the_server_knows() -> None:
    client = span(
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": "llama-3.1-8b",
            "gen_ai.usage.input_tokens": 512,
            "gen_ai.usage.output_tokens": 128,
            "server.address": "llm.internal",
        },
        name="chat llama-3.1-8b", kind=3, scope="opentelemetry.instrumentation.openai_v2", number=1,
    )  # fmt: skip
    server = span(
        {
            "gen_ai.response.model": "llama-3.1-8b",
            "gen_ai.usage.prompt_tokens": 512,
            "gen_ai.usage.completion_tokens": 128,
            "gen_ai.latency.time_to_first_token": 0.25,
        },
        name="llm_request", kind=2, scope="vllm.llm_engine", number=2, parent=1,
        resource=Resource({"service.name": "vllm"}, "vllm"),
    )  # fmt: skip
    (one,) = counted(client, server)
    assert (one.scope, one.ttft_ns) == ("opentelemetry.instrumentation.openai_v2", SECOND // 4)


def test_the_providers_own_platform_adds_no_second_call() -> None:
    told = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "anthropic",
        "gen_ai.request.model": "claude-sonnet-4-5",
        "gen_ai.response.id": "msg_1",
        "gen_ai.usage.input_tokens": 1700,
        "gen_ai.usage.output_tokens": 58,
    }
    sdk = span(told, name="anthropic.messages.create", kind=3, scope="com.anthropic.sdk.python", number=1)
    api = span(
        told, name="anthropic.messages.create", kind=2, scope="com.anthropic.claude-platform", number=2, parent=1,
        resource=Resource({"service.name": "claude-platform"}, "claude-platform"),
    )  # fmt: skip
    (one,) = counted(sdk, api)
    assert one.service_name == "shop"
    assert [each.service_name for each in counted(api)] == ["claude-platform"]


def test_a_root_that_sums_its_models_calls_gives_way_to_them() -> None:
    def step(number: int, tokens: int, parent: int = 1) -> SpanRecord:
        told = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": "gpt-4o-mini",
            "gen_ai.usage.input_tokens": tokens,
            "gen_ai.usage.output_tokens": tokens // 10,
        }
        return span(
            told, name="chat gpt-4o-mini", number=number, parent=parent if number > 1 else 0, scope="tanstack"
        )

    assert [one.input_tokens for one in counted(step(1, 300), step(2, 100), step(3, 200))] == [100, 200]
