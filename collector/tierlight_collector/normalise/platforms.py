"""Platforms around the standard: Logfire, LangWatch, Laminar, LangSmith, Claude Code, ADK, Genkit, Braintrust and others.

They send OTel names; here is only what they add.
"""

from __future__ import annotations

from typing import Final

from ..records import Role
from .coerce import mapping_of, number_of, text_of
from .openinference import response_id_in
from .values import Values

SOURCES: Final = {
    "logfire_type": ("logfire.span_type",),
    "logfire_tags": ("logfire.tags",),
    "logfire_level": ("logfire.level_num",),
    "logfire_duration_s": ("duration",),
    "error_text": ("error",),
    "response_id": ("response_id",),
    "usage_metadata": ("langsmith.metadata.usage_metadata",),
    "ls_completion": ("gen_ai.completion",),
    "stream": ("langsmith.metadata.stream",),
    "attempt": ("pydantic_ai.model_request.attempt",),
    "agent": ("agent_name",),
    "span_type": (
        "lmnr.span.type",
        "langwatch.span.type",
        "langsmith.span.kind",
        "gen_ai.span.kind",
        "fi.span.kind",
        "agentops.span.kind",
        "span.type",
    ),
    "genkit_type": ("genkit:metadata:subtype",),
    "genkit_name": ("genkit:name",),
    "genkit_state": ("genkit:state",),
    "genkit_output": ("genkit:output",),
    "braintrust_attributes": ("braintrust.span_attributes",),
    "braintrust_metadata": ("braintrust.metadata",),
    "braintrust_metrics": ("braintrust.metrics",),
    "success": ("success",),
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
    "bare_status": ("status_code",),
}

CALL_TYPES: Final = {
    "LLM": "",
    "llm": "",
    "llm_request": "",
    "embedding": "embeddings",
    "EMBEDDING": "embeddings",
    "RERANKER": "rerank",
}
OTHER_TYPES: Final[dict[str, Role]] = {
    "TOOL": "tool",
    "AGENT": "aggregate",
    "CHAIN": "aggregate",
    "WORKFLOW": "aggregate",
    "TASK": "aggregate",
    "STEP": "aggregate",
    "ENTRY": "aggregate",
    "RETRIEVER": "other",
    "GUARDRAIL": "other",
    "session": "aggregate",
    "operation": "aggregate",
    "task": "aggregate",
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


GENKIT_OPERATIONS: Final = {"embedder": "embeddings", "reranker": "rerank"}
GENKIT_ROLES: Final[dict[str, Role]] = {
    "model": "call",
    "embedder": "call",
    "reranker": "call",
    "flow": "aggregate",
    "prompt": "aggregate",
    "util": "aggregate",
    "tool": "tool",
}


def refine(values: Values) -> None:
    """Fill what stands in JSON: LangWatch's and Braintrust's metrics, LangSmith's details, Genkit's answer."""
    metrics = mapping_of(values.get("langwatch_metrics"))
    metrics = mapping_of(metrics.get("value")) or metrics
    values.fill("input", metrics.get("promptTokens"))
    values.fill("output", metrics.get("completionTokens"))
    values.fill("wire_cost", number_of(metrics.get("cost")))
    _fill_details(values)
    if "usage_metadata" in values and "ls_completion" in values:
        values.found("response_id", response_id_in(values["ls_completion"]))
    if "braintrust_metrics" in values or "braintrust_metadata" in values:
        _fill_braintrust(values)
    if "genkit_type" in values:
        _fill_genkit(values)


def braintrust_type(values: Values) -> str:
    """The type of a span in Braintrust's words: llm, task, tool, function, score; "" where none is told."""
    return text_of(mapping_of(values.get("braintrust_attributes")).get("type"))


def _fill_details(values: Values) -> None:
    """The parts beside totals that are told already: LangChain's words, or the provider's own usage."""
    told = mapping_of(values.get("usage_metadata"))
    details = mapping_of(values.get("usage_details_in") or told.get("input_token_details"))
    values.fill("cached", details.get("cache_read"))
    values.fill("written", details.get("cache_creation"))
    details = mapping_of(values.get("usage_details_out") or told.get("output_token_details"))
    values.fill("reasoning", details.get("reasoning"))
    raw = mapping_of(values.get("usage_raw"))
    details = mapping_of(raw.get("prompt_tokens_details") or raw.get("input_tokens_details"))
    values.fill("cached", details.get("cached_tokens"))
    values.fill("cached", raw.get("cache_read_input_tokens"))
    values.fill("written", raw.get("cache_creation_input_tokens"))
    values.fill("written_1h", mapping_of(raw.get("cache_creation")).get("ephemeral_1h_input_tokens"))
    details = mapping_of(raw.get("completion_tokens_details") or raw.get("output_tokens_details"))
    values.fill("reasoning", details.get("reasoning_tokens"))


def _fill_braintrust(values: Values) -> None:
    metrics = mapping_of(values.get("braintrust_metrics"))
    values.fill("input", metrics.get("prompt_tokens"))
    values.fill("output", metrics.get("completion_tokens"))
    values.fill("cached", metrics.get("prompt_cached_tokens"))
    values.fill("written", metrics.get("prompt_cache_creation_tokens"))
    values.fill("reasoning", metrics.get("completion_reasoning_tokens"))
    values.fill("total", metrics.get("tokens"))
    values.fill("ttft_s", metrics.get("time_to_first_token"))
    metadata = mapping_of(values.get("braintrust_metadata"))
    values.fill("provider", metadata.get("provider"))
    values.fill("request_model", metadata.get("model"))


def _fill_genkit(values: Values) -> None:
    """Genkit says usage only in the answer it captured; a model's name begins with its plug-in."""
    plugin, _, model = text_of(values.get("genkit_name")).partition("/")
    values.fill("provider", plugin if model else "")
    values.fill("request_model", model or plugin)
    answer = mapping_of(values.get("genkit_output"))
    usage = mapping_of(answer.get("usage"))
    values.found("input", usage.get("inputTokens"))
    values.found("output", usage.get("outputTokens"))
    values.found("cached", usage.get("cachedContentTokens"))
    values.found("reasoning", usage.get("thoughtsTokens"))
    values.found("finish", text_of(answer.get("finishReason")))
    if values.get("genkit_state") == "error":
        values.fill("error_type", "error")
