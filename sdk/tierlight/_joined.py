"""Spans through the application's own tracer provider: `configure(provider=...)`.

A declared call becomes a real OpenTelemetry span at its end, when it is known whether somebody else has
recorded it; a wrapped client's call is a real span from its start, so that what it causes is its child.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import context as otel
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode

from . import semconv as s
from ._call import Call
from ._context import current_call
from ._guard import attempt, guarded
from ._record import KIND_INTERNAL, FinishedCall
from ._version import __version__

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Tracer, TracerProvider

# Where the official instrumentations keep what a call around theirs already records.
_GENAI: Final = "opentelemetry.util.genai.invocation"
_GENAI_KEYS: Final = (
    ("CLIENT_INFERENCE_CONTEXT_KEY", "InferenceData"),
    ("EMBEDDING_CONTEXT_KEY", "EmbeddingData"),
)

_CALL_OPERATIONS: Final = frozenset(
    {
        "chat",
        "text_completion",
        "generate_content",
        "embeddings",
        "embedding",
        "rerank",
        "completion",
        "responses",
    }
)
_CALL_KINDS: Final = frozenset({"LLM", "EMBEDDING", "RERANKER"})
_CALL_OBSERVATIONS: Final = frozenset({"generation", "embedding"})


class JoinedSpans:
    """The application's spans, as far as ours are among them.

    Args:
        provider: None = the global one, looked up when the first span is made, so that it may be set later.
    """

    def __init__(self, provider: TracerProvider | None) -> None:
        self._provider = provider
        self._tracer: Tracer | None = None
        if provider is not None:
            self._stamp(provider)

    def _stamp(self, provider: object) -> None:
        add = getattr(provider, "add_span_processor", None)
        if add is not None:
            add(RouteStamper())

    def tracer(self) -> Tracer:
        """Our tracer of the application's provider."""
        if self._tracer is None:
            if self._provider is None:
                provider = trace.get_tracer_provider()
                if isinstance(provider, trace.ProxyTracerProvider):  # none is set yet
                    return provider.get_tracer(s.SCOPE, __version__)
                self._provider = provider
                self._stamp(provider)
            self._tracer = self._provider.get_tracer(s.SCOPE, __version__)
        return self._tracer

    def is_recorded_outside(self) -> bool:
        """Whether an official instrumentation around us records this very call."""
        module = sys.modules.get(_GENAI)
        if module is None:
            return False
        return any(
            otel.get_value(getattr(module, key, key)) is not None
            for key, _ in _GENAI_KEYS
            if hasattr(module, key)
        )

    def start(self, call: Call) -> None:
        """Give a request its real span; a declared call only keeps where it began."""
        tracer = self.tracer()
        call.context = otel.get_current()
        request = call.request
        if request is None:
            return
        operation = "route" if request.is_route else request.operation
        name = f"{operation} {call.spec.name if request.is_route else request.model}".rstrip()
        kind = SpanKind.INTERNAL if request.is_route else SpanKind.CLIENT
        # Set at once: what samplers decide by.
        attributes: dict[str, Any] = {s.TIERLIGHT_SPAN_ROLE: "route" if request.is_route else "call"}
        if call.spec.name:
            attributes[s.TIERLIGHT_ROUTE] = call.spec.name
        if not request.is_route:
            attributes[s.GEN_AI_OPERATION_NAME] = operation
            attributes[s.GEN_AI_REQUEST_MODEL] = request.model
        span = tracer.start_span(name, call.context, kind, attributes, start_time=call.start_ns)
        context = trace.set_span_in_context(span, call.context)
        module = sys.modules.get(_GENAI)
        if module is not None and not request.is_route:
            for key, data in _GENAI_KEYS:
                if hasattr(module, key) and hasattr(module, data):
                    # The official instrumentation of this client then leaves the call to us.
                    context = otel.set_value(getattr(module, key), getattr(module, data)(), context)
        own = span.get_span_context()
        if own.is_valid:
            call.trace_id, call.span_id = own.trace_id, own.span_id
        call.span, call.context = span, context

    @guarded("end a span of the application's provider")
    def finish(self, record: FinishedCall, span: trace.Span | None, context: Context | None) -> None:
        """Write the record to its span, masked as for our own export, and end it."""
        if record.prepare is not None:
            is_clean, _ = attempt("redact the contents", record.prepare, record)
            if not is_clean:
                for name in s.CONTENT_ATTRIBUTES:
                    record.attributes.pop(name, None)
                record.message = ""
                record.attributes[s.TIERLIGHT_CONTENT_DROPPED] = "redaction_failed"
        if span is None:
            kind = SpanKind.INTERNAL if record.kind == KIND_INTERNAL else SpanKind.CLIENT
            span = self.tracer().start_span(
                record.name, context, kind, dict(record.attributes), start_time=record.start_ns
            )
        else:
            span.update_name(record.name)
            span.set_attributes(dict(record.attributes))
        if record.is_error:
            span.set_status(Status(StatusCode.ERROR, record.message or None))
        span.end(record.end_ns)


class RouteStamper(SpanProcessor):
    """Writes the route of the current call on the spans that others start inside of it.

    Where such a span is an LLM call itself, the declared call around it has no span of its own.
    """

    def __init__(self) -> None:
        self._open: dict[int, Call] = {}  # spans whose kind is not known yet, by span id

    @guarded("stamp a route")
    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Stamp, and count a span that says at once that it is a call."""
        call = current_call()
        scope = span.instrumentation_scope
        if call is None or not call.is_recorded or (scope is not None and scope.name == s.SCOPE):
            return
        base = call.spec.base
        for name in (s.TIERLIGHT_ROUTE, s.TIERLIGHT_ROUTE_VERSION, s.TIERLIGHT_TIER):
            if name in base:
                span.set_attribute(name, base[name])
        span.set_attribute(s.TIERLIGHT_CALL_ID, call.id)
        if base.get(s.TIERLIGHT_PURPOSE) != "production":
            span.set_attribute(s.TIERLIGHT_PURPOSE, base[s.TIERLIGHT_PURPOSE])
        if call.request is not None:
            return
        if is_call_span(span):
            call.leave_to_others()
        else:
            own = span.get_span_context()
            if own is not None:
                self._open[own.span_id] = call

    @guarded("see a span end")
    def on_end(self, span: ReadableSpan) -> None:
        """Count a span that says only at its end that it is a call."""
        own = span.get_span_context()
        call = self._open.pop(own.span_id, None) if own is not None else None
        if call is not None and is_call_span(span):
            call.leave_to_others()

    def shutdown(self) -> None:
        """Nothing is kept."""
        self._open.clear()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Nothing is kept."""
        return True


def is_call_span(span: ReadableSpan) -> bool:
    """Whether a foreign span is a call of a model, in one of the conventions in use; agents and chains are not."""
    get = (span.attributes or {}).get
    operation = get(s.GEN_AI_OPERATION_NAME)
    if operation is not None:
        return operation in _CALL_OPERATIONS
    kind = get("openinference.span.kind")
    if kind is not None:
        return kind in _CALL_KINDS
    observation = get("langfuse.observation.type")
    if observation is not None:
        return observation in _CALL_OBSERVATIONS
    return get("llm.request.type") is not None or get(s.GEN_AI_REQUEST_MODEL) is not None
