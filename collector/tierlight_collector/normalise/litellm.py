"""LiteLLM's own OTel callback: OTel names, costs under `gen_ai.cost.*`, details in the `repr` of a dict."""

from __future__ import annotations

from typing import Final

from .coerce import mapping_of, mapping_of_repr
from .values import Values

SOURCES: Final = {
    "litellm_call": ("litellm.call_id",),
    "litellm_usage": ("metadata.usage_object",),
    "litellm_hidden": ("hidden_params",),
    "litellm_model": ("litellm.provider.model",),
    "error_provider": ("error.llm_provider",),
    "error_text": ("error.message",),
    "wire_cost": ("gen_ai.cost.total_cost", "litellm.cost.total"),
    "dialect_route": ("litellm.metadata.route", "metadata.route"),
    "model_group": ("litellm.model_group",),
    "user": ("metadata.user_api_key_end_user_id",),
}

# Children that repeat the provider's raw request: they name a model and are no call.
RAW_REQUEST = "raw_gen_ai_request"


def refine(values: Values) -> None:
    """Fill the cached and reasoning parts, which are nowhere else."""
    usage = mapping_of_repr(values.get("litellm_usage"))
    if usage:
        details = mapping_of(usage.get("prompt_tokens_details"))
        values.fill("cached", details.get("cached_tokens"))
        values.fill("cached", usage.get("cache_read_input_tokens"))
        values.fill("written", details.get("cache_creation_tokens"))
        values.fill("written", usage.get("cache_creation_input_tokens"))
        values.fill("reasoning", mapping_of(usage.get("completion_tokens_details")).get("reasoning_tokens"))
    if "host" not in values:
        values.fill("host", mapping_of(values.get("litellm_hidden")).get("api_base"))
