"""Langfuse: everything under `langfuse.*`, usage and cost as JSON in strings, metadata quoted as JSON."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from ..records import Role
from .coerce import mapping_of, number_of, text_of, tokens_of
from .values import Values

SOURCES: Final = {
    "lf_type": ("langfuse.observation.type",),
    "lf_usage": ("langfuse.observation.usage_details",),
    "lf_cost": ("langfuse.observation.cost_details",),
    "lf_first_chunk": ("langfuse.observation.completion_start_time",),
    "lf_level": ("langfuse.observation.level",),
    "error_text": ("langfuse.observation.status_message",),
    "any_model": ("langfuse.observation.model.name",),
    "response_id": ("langfuse.observation.metadata.id",),
    "finish": ("langfuse.observation.metadata.finish_reason", "langfuse.observation.metadata.status"),
    "service_tier": ("langfuse.observation.metadata.service_tier",),
    "dialect_route": (
        "langfuse.observation.metadata.route",
        "langfuse.trace.metadata.route",
        "langfuse.trace.name",
    ),
    "session": ("langfuse.session.id",),
    "user": ("langfuse.user.id",),
    "prompt_name": ("langfuse.observation.prompt.name",),
    "prompt_version": ("langfuse.observation.prompt.version",),
    "env": ("langfuse.environment",),
}

CALL_TYPES: Final = {"generation": "", "embedding": "embeddings"}
OTHER_TYPES: Final[dict[str, Role]] = {"tool": "tool", "agent": "aggregate", "chain": "aggregate"}


def refine(values: Values, start_ns: int) -> None:
    """Fill usage, cost and the first chunk from their JSON forms."""
    usage = mapping_of(values.get("lf_usage"))
    if usage:
        _usage(values, usage)
    cost = mapping_of(values.get("lf_cost"))
    if cost:
        total = number_of(cost.get("total"))
        if total is None:
            parts = [number_of(part) for part in cost.values()]
            total = (
                sum(part for part in parts if part is not None) if any(p is not None for p in parts) else None
            )
        values.fill("wire_cost", total)
    first = values.get("lf_first_chunk")
    if isinstance(first, str) and "ttft_s" not in values:
        try:
            moment = datetime.fromisoformat(first)
        except ValueError:
            return
        if moment.tzinfo is not None:
            values.fill("ttft_s", moment.timestamp() - start_ns / 1e9)
            values.fill("stream", True)


def _usage(values: Values, usage: object) -> None:
    """OpenAI's own form (parts inside the total), else buckets: disjoint, their sum is the total."""
    counts = mapping_of(usage)
    if "prompt_tokens" in counts or ("input_tokens" in counts and "input" not in counts):
        bare = "prompt_tokens" in counts
        values.fill("lf_input", counts.get("prompt_tokens" if bare else "input_tokens"))
        values.fill("lf_output", counts.get("completion_tokens" if bare else "output_tokens"))
        values.fill("lf_total", counts.get("total_tokens"))
        details = mapping_of(counts.get("prompt_tokens_details") or counts.get("input_tokens_details"))
        values.fill("lf_cached", details.get("cached_tokens"))
        details = mapping_of(counts.get("completion_tokens_details") or counts.get("output_tokens_details"))
        values.fill("lf_reasoning", details.get("reasoning_tokens"))
        # Anthropic's raw usage has its cached parts beside the input, not inside.
        values.fill("lf_cached", counts.get("cache_read_input_tokens"))
        values.fill("lf_written", counts.get("cache_creation_input_tokens"))
        values.fill("lf_cached", counts.get("input_cached_tokens") or counts.get("prompt_cached_tokens"))
        values.fill("lf_reasoning", counts.get("output_reasoning_tokens"))
        if "cache_read_input_tokens" in counts or "cache_creation_input_tokens" in counts:
            values.fill("lf_apart", True)
        return
    read = written = reasoning = None
    inputs: list[int] = []
    outputs: list[int] = []
    for name, value in counts.items():
        count = tokens_of(value)
        if count is None or not isinstance(name, str) or name == "total":
            continue
        if "cache_creation" in name or "cache_write" in name:
            written = (written or 0) + count
            inputs.append(count)
        elif "cache_read" in name or "cached" in name:
            read = (read or 0) + count
            inputs.append(count)
        elif name.startswith("output"):
            if "reasoning" in name:
                reasoning = (reasoning or 0) + count
            outputs.append(count)
        elif name.startswith("input"):
            inputs.append(count)
    total = tokens_of(counts.get("total"))
    values.fill("lf_input", sum(inputs) if inputs else None)
    values.fill("lf_output", sum(outputs) if outputs else None)
    # A total alone (embeddings) is all input.
    if not inputs and not outputs:
        values.fill("lf_input", total)
    values.fill("lf_cached", read)
    values.fill("lf_written", written)
    values.fill("lf_reasoning", reasoning)
    if read is not None or written is not None:
        values.fill("lf_summed", True)


def span_route(name: str) -> str:
    """A generation's own name as a route: people name them; the integrations' defaults say nothing."""
    return "" if name.startswith(("OpenAI-", "openai", "Anthropic-", "LLM", "Chat")) else text_of(name)
