"""Captured texts of a call, per dialect; read only when capture is on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from ..records import ContentKind, ContentRecord, SpanRecord

# The first key that is there gives the text.
_KEYS: Final[dict[ContentKind, tuple[str, ...]]] = {
    "prompt": (
        "gen_ai.input.messages",
        "ai.prompt.messages",
        "ai.prompt",
        "ai.value",
        "ai.values",
        "langfuse.observation.input",
        "mlflow.spanInputs",
        "gen_ai.prompt",
        "input.value",
        "langwatch.input",
        "lmnr.span.input",
        "traceloop.entity.input",
        "gcp.vertex.agent.llm_request",
        "inputs",
        "request_data",
        "user_prompt",
    ),
    "completion": (
        "gen_ai.output.messages",
        "ai.response.text",
        "ai.response.object",
        "ai.response.toolCalls",
        "langfuse.observation.output",
        "mlflow.spanOutputs",
        "gen_ai.completion",
        "output.value",
        "langwatch.output",
        "lmnr.span.output",
        "traceloop.entity.output",
        "gcp.vertex.agent.llm_response",
        "response_data",
    ),
    "system": ("gen_ai.system_instructions", "instructions"),
    "tools": ("gen_ai.tool.definitions", "ai.prompt.tools", "mlflow.chat.tools", "tools"),
}
# Flattened lists: `gen_ai.prompt.0.content` and the like.
_PREFIXES: Final[dict[ContentKind, tuple[str, ...]]] = {
    "prompt": ("llm.input_messages.", "gen_ai.prompt.", "embedding.embeddings."),
    "completion": ("llm.output_messages.", "gen_ai.completion."),
    "system": (),
    "tools": ("llm.tools.", "llm.request.functions."),
}
_EVENTS: Final[dict[str, ContentKind]] = {
    "gen_ai.content.prompt": "prompt",
    "gen_ai.content.completion": "completion",
    "gen_ai.system.message": "system",
    "gen_ai.user.message": "prompt",
    "gen_ai.assistant.message": "prompt",
    "gen_ai.tool.message": "prompt",
    "gen_ai.choice": "completion",
}
# What decode appends to a value that it cut.
_CUT: Final = "…[truncated "


def contents_of(span: SpanRecord) -> tuple[ContentRecord, ...]:
    """Prompt, completion, system text and tools of the span, at most one of each."""
    found: list[ContentRecord] = []
    for kind in _KEYS:
        body = _text(span.attributes, kind) or _from_events(span, kind)
        if body:
            found.append(ContentRecord(span.trace_id, span.span_id, kind, body, _CUT in body[-80:]))
    return tuple(found)


def _text(attributes: Mapping[str, Any], kind: ContentKind) -> str:
    for key in _KEYS[kind]:
        value = attributes.get(key)
        if value:
            return value if isinstance(value, str) else _json(value)
    prefixes = _PREFIXES[kind]
    if not prefixes:
        return ""
    for prefix in prefixes:
        rows = {
            key[len(prefix) :]: value
            for key, value in attributes.items()
            if key.startswith(prefix) and key[len(prefix) : len(prefix) + 1].isdecimal()
        }
        if rows:
            return _json(rows)
    return ""


def _from_events(span: SpanRecord, kind: ContentKind) -> str:
    bodies = [
        dict(event.attributes)
        for event in span.events
        if _EVENTS.get(event.name) == kind and event.attributes
    ]
    return _json(bodies) if bodies else ""


def _json(value: object) -> str:
    return orjson.dumps(value, default=_plain, option=orjson.OPT_NON_STR_KEYS).decode()


def _plain(value: object) -> object:
    return value.hex() if isinstance(value, bytes) else str(value)
