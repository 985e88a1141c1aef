"""Joining the application's own tracer provider, and stamping routes on the spans of others."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import anthropic
import httpx2
import pytest
from opentelemetry import context as otel
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

import tierlight
from tierlight import semconv as s
from tierlight._content import ContentSettings
from tierlight._joined import JoinedSpans
from tierlight._runtime import Runtime
from tierlight.testing import FakeProvider, FakeReply

CHAT = {"model": "gpt-5-mini", "choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2}}
MESSAGES: Any = [{"role": "user", "content": "hello"}]


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def provider(exporter: InMemorySpanExporter) -> TracerProvider:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider


@pytest.fixture(autouse=True)
def joined(runtime: Runtime, provider: TracerProvider) -> None:
    runtime.joined = JoinedSpans(provider)


def spans(exporter: InMemorySpanExporter) -> list[ReadableSpan]:
    return list(exporter.get_finished_spans())


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def test_a_declared_call_goes_where_the_application_s_spans_go(
    provider: TracerProvider, exporter: InMemorySpanExporter, calls: list[object]
) -> None:
    with provider.get_tracer("app").start_as_current_span("request") as request:
        tierlight.route("support", tier="small")(lambda: CHAT)()
    call, outer = spans(exporter)
    assert call.name == "chat gpt-5-mini"
    assert call.kind is SpanKind.CLIENT
    assert call.parent is not None
    assert call.parent.span_id == request.get_span_context().span_id
    assert attributes(call)[s.GEN_AI_USAGE_INPUT_TOKENS] == 9
    assert attributes(call)[s.TIERLIGHT_ROUTE] == "support"
    assert call.start_time is not None
    assert call.end_time is not None
    assert call.start_time <= call.end_time
    assert calls == []
    assert outer.name == "request"


def test_a_failure_is_an_error_span(exporter: InMemorySpanExporter) -> None:
    @tierlight.route("support")
    def ask() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        ask()
    (call,) = spans(exporter)
    assert call.status.status_code is StatusCode.ERROR
    assert attributes(call)[s.ERROR_TYPE] == "timeout"


FOREIGN = [
    ("gen_ai", {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m"}),
    ("OpenInference", {"openinference.span.kind": "LLM"}),
    ("Traceloop", {"llm.request.type": "chat"}),
    ("Langfuse", {"langfuse.observation.type": "generation"}),
]


@pytest.mark.parametrize("late", [False, True], ids=["at its start", "at its end"])
@pytest.mark.parametrize(("name", "said"), FOREIGN, ids=[row[0] for row in FOREIGN])
def test_a_foreign_call_span_is_stamped_and_stands_for_the_call(
    provider: TracerProvider, exporter: InMemorySpanExporter, name: str, said: dict[str, str], late: bool
) -> None:
    @tierlight.route("support", tier="small", version="2")
    def ask() -> dict[str, Any]:
        with provider.get_tracer("foreign").start_as_current_span(
            "call", attributes={} if late else said
        ) as span:
            span.set_attributes(said)
        return {}

    ask()
    (call,) = spans(exporter)
    assert call.name == "call"
    assert attributes(call)[s.TIERLIGHT_ROUTE] == "support"
    assert attributes(call)[s.TIERLIGHT_TIER] == "small"
    assert attributes(call)[s.TIERLIGHT_ROUTE_VERSION] == "2"
    assert s.TIERLIGHT_CALL_ID in attributes(call)
    assert s.TIERLIGHT_SPAN_ROLE not in attributes(call)


def test_other_spans_inside_do_not_stand_for_the_call(
    provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    @tierlight.route("support")
    def ask() -> dict[str, Any]:
        tracer = provider.get_tracer("foreign")
        tracer.start_span("POST", attributes={"http.request.method": "POST"}).end()
        tracer.start_span("agent", attributes={"gen_ai.operation.name": "invoke_agent"}).end()
        return CHAT

    ask()
    assert [span.name for span in spans(exporter)] == ["POST", "agent", "chat gpt-5-mini"]


def test_nothing_is_stamped_outside_of_a_route(
    provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    provider.get_tracer("foreign").start_span("call", attributes={"gen_ai.operation.name": "chat"}).end()
    assert attributes(spans(exporter)[0]) == {"gen_ai.operation.name": "chat"}


def anthropic_client(provider: TracerProvider) -> anthropic.Anthropic:
    http = httpx2.Client(transport=FakeProvider(FakeReply()).transport(httpx2))
    return anthropic.Anthropic(
        api_key="k", http_client=http, max_retries=0, open_telemetry={"tracer_provider": provider}
    )


def test_anthropic_s_own_span_is_stamped_and_no_second_one_is_made(
    provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    client = anthropic_client(provider)

    @tierlight.route("support", tier="mid")
    def ask() -> anthropic.types.Message:
        return client.messages.create(model="claude-sonnet-5", max_tokens=9, messages=MESSAGES)

    ask()
    (call,) = spans(exporter)
    assert call.instrumentation_scope is not None
    assert call.instrumentation_scope.name == "com.anthropic.sdk.python"
    assert attributes(call)[s.TIERLIGHT_ROUTE] == "support"


def test_anthropic_s_own_span_is_a_child_of_a_wrapped_call(
    provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    client = tierlight.wrap(anthropic_client(provider))
    with tierlight.route("support"):
        client.messages.create(model="claude-sonnet-5", max_tokens=9, messages=MESSAGES)
    own, ours = spans(exporter)
    assert own.parent is not None
    assert ours.context is not None
    assert own.parent.span_id == ours.context.span_id
    assert ours.name == "chat claude-sonnet-5"
    assert attributes(own)[s.TIERLIGHT_CALL_ID] == attributes(ours)[s.TIERLIGHT_CALL_ID]


@dataclass
class InferenceData:
    """As the official instrumentations' shared package keeps it in the context."""


@pytest.fixture
def official(monkeypatch: pytest.MonkeyPatch) -> str:
    module = ModuleType("opentelemetry.util.genai.invocation")
    key = "opentelemetry.genai.client.inference.context"
    module.CLIENT_INFERENCE_CONTEXT_KEY = key  # type: ignore[attr-defined]
    module.InferenceData = InferenceData  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return key


def test_an_official_instrumentation_around_a_wrapped_client_keeps_the_call(
    provider: TracerProvider, exporter: InMemorySpanExporter, official: str
) -> None:
    client = tierlight.wrap(anthropic_client(TracerProvider()))
    token = otel.attach(otel.set_value(official, InferenceData()))
    try:
        client.messages.create(model="claude-sonnet-5", max_tokens=9, messages=MESSAGES)
    finally:
        otel.detach(token)
    assert spans(exporter) == []


def test_an_official_instrumentation_inside_a_wrapped_client_leaves_the_call_to_it(
    exporter: InMemorySpanExporter, official: str
) -> None:
    seen = []

    class Completions:
        def create(self, **kwargs: Any) -> dict[str, Any]:
            seen.append(otel.get_value(official))
            return CHAT

    class Client:
        completions = Completions()

    tierlight.wrap(Client()).completions.create(model="m")
    assert isinstance(seen[0], InferenceData)
    assert len(spans(exporter)) == 1


def test_a_stream_s_span_ends_with_the_stream(
    provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    client = tierlight.wrap(anthropic_client(TracerProvider()))
    stream = client.messages.create(model="claude-sonnet-5", max_tokens=9, messages=MESSAGES, stream=True)
    assert spans(exporter) == []
    list(stream)
    (call,) = spans(exporter)
    assert attributes(call)[s.GEN_AI_REQUEST_STREAM] is True
    assert attributes(call)[s.GEN_AI_USAGE_OUTPUT_TOKENS] == 3


def test_a_redactor_that_raises_drops_the_texts_and_keeps_the_numbers(
    runtime: Runtime, exporter: InMemorySpanExporter
) -> None:
    def fail(text: str) -> str:
        raise RuntimeError

    runtime.content = ContentSettings(captures=True, redactor=fail)
    answer = {
        **CHAT,
        "choices": [{"finish_reason": "stop", "message": {"role": "assistant", "content": "secret"}}],
    }
    tierlight.route("support")(lambda: answer)()
    (call,) = spans(exporter)
    assert "secret" not in str(attributes(call))
    assert attributes(call)[s.TIERLIGHT_CONTENT_DROPPED] == "redaction_failed"
    assert attributes(call)[s.GEN_AI_USAGE_INPUT_TOKENS] == 9


def test_the_provider_s_sampler_decides(runtime: Runtime, exporter: InMemorySpanExporter) -> None:
    from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

    provider = TracerProvider(sampler=ALWAYS_OFF)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    runtime.joined = JoinedSpans(provider)
    assert tierlight.route("support")(lambda: CHAT)() is CHAT
    assert spans(exporter) == []


def test_what_is_no_provider_is_refused() -> None:
    with pytest.raises(tierlight.ConfigurationError, match="TracerProvider"):
        tierlight.configure(provider="globl")  # type: ignore[arg-type]
