"""Platforms around the standard: Logfire and pydantic-ai, LangWatch, Laminar, LangSmith, Claude Code, ADK, Genkit.

They send OTel names; here is only what they add.
"""

from __future__ import annotations

from typing import Final

from ..records import Role
from .coerce import mapping_of, number_of
from .values import Values

SOURCES: Final = {
    "logfire_type": ("logfire.span_type",),
    "attempt": ("pydantic_ai.model_request.attempt",),
    "agent": ("agent_name",),
    "span_type": ("lmnr.span.type", "langwatch.span.type", "langsmith.span.kind", "span.type"),
    "genkit_type": ("genkit:metadata:subtype",),
    "dialect_route": (
        "lmnr.association.properties.route",
        "lmnr.association.properties.metadata.route",
        "langsmith.metadata.route",
        "langwatch.labels",
        "langsmith.trace.name",
    ),
    "session": (
        "lmnr.association.properties.session_id",
        "langwatch.thread.id",
        "langsmith.trace.session_id",
        "langsmith.metadata.thread_id",
        "gcp.vertex.agent.session_id",
        "thread.id",
    ),
    "user": (
        "lmnr.association.properties.user_id",
        "langwatch.user.id",
        "langwatch.customer.id",
        "langsmith.metadata.user_id",
    ),
    "prompt_name": ("langwatch.prompt.id", "langwatch.prompt.handle"),
    "prompt_version": ("langwatch.prompt.version.number",),
    "provider": ("langsmith.metadata.ls_provider",),
    "request_model": ("langsmith.metadata.ls_model_name",),
    "langwatch_metrics": ("langwatch.metrics",),
    # Claude Code: bare names, Anthropic's own count.
    "bare_input": ("input_tokens",),
    "bare_output": ("output_tokens",),
    "bare_cached": ("cache_read_tokens", "cache_read_input_tokens"),
    "bare_written": ("cache_creation_tokens", "cache_creation_input_tokens"),
    "bare_ttft_ms": ("ttft_ms",),
}

CALL_TYPES: Final = {
    "LLM": "",
    "llm": "",
    "llm_request": "",
    "embedding": "embeddings",
    "EMBEDDING": "embeddings",
}
OTHER_TYPES: Final[dict[str, Role]] = {
    "TOOL": "tool",
    "tool": "tool",
    "tool.execution": "tool",
    "agent": "aggregate",
    "chain": "aggregate",
    "workflow": "aggregate",
    "interaction": "aggregate",
    "CACHED": "other",
    "EVALUATION": "other",
    "EVALUATOR": "other",
    "EXECUTOR": "other",
    "retriever": "other",
    "prompt": "other",
    "parser": "other",
    "rag": "other",
}


def refine(values: Values) -> None:
    """Fill LangWatch's metrics."""
    metrics = mapping_of(values.get("langwatch_metrics"))
    metrics = mapping_of(metrics.get("value")) or metrics
    values.fill("input", metrics.get("promptTokens"))
    values.fill("output", metrics.get("completionTokens"))
    values.fill("wire_cost", number_of(metrics.get("cost")))
