"""What a response said, as attributes of its span; an unknown number is left out."""

from __future__ import annotations

from typing import Final

from . import semconv as s
from ._spec import Attributes
from ._usage import ResponseFacts

_MODALITIES: Final = (
    ("text_input_tokens", s.GEN_AI_USAGE_TEXT_INPUT_TOKENS),
    ("image_input_tokens", s.GEN_AI_USAGE_IMAGE_INPUT_TOKENS),
    ("audio_input_tokens", s.GEN_AI_USAGE_AUDIO_INPUT_TOKENS),
    ("text_output_tokens", s.GEN_AI_USAGE_TEXT_OUTPUT_TOKENS),
    ("image_output_tokens", s.GEN_AI_USAGE_IMAGE_OUTPUT_TOKENS),
    ("audio_output_tokens", s.GEN_AI_USAGE_AUDIO_OUTPUT_TOKENS),
)


def describe(facts: ResponseFacts, attributes: Attributes) -> None:
    """Add the facts to the attributes."""
    if facts.model:
        attributes[s.GEN_AI_RESPONSE_MODEL] = facts.model
    if facts.response_id:
        attributes[s.GEN_AI_RESPONSE_ID] = facts.response_id
    if facts.finish_reasons:
        attributes[s.GEN_AI_RESPONSE_FINISH_REASONS] = facts.finish_reasons
    if facts.input_tokens is not None:
        attributes[s.GEN_AI_USAGE_INPUT_TOKENS] = facts.input_tokens
    if facts.output_tokens is not None:
        attributes[s.GEN_AI_USAGE_OUTPUT_TOKENS] = facts.output_tokens
    if facts.cached_input_tokens is not None:
        attributes[s.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS] = facts.cached_input_tokens
    if facts.cache_write_input_tokens is not None:
        attributes[s.GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS] = facts.cache_write_input_tokens
    if facts.cache_write_1h_input_tokens is not None:
        attributes[s.ANTHROPIC_CACHE_WRITE_1H_INPUT_TOKENS] = facts.cache_write_1h_input_tokens
    if facts.reasoning_tokens is not None:
        attributes[s.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS] = facts.reasoning_tokens
    if facts.has_parts:
        for name, attribute in _MODALITIES:
            tokens = getattr(facts, name)
            if tokens is not None:
                attributes[attribute] = tokens
    if facts.service_tier:
        name = (
            s.ANTHROPIC_RESPONSE_SERVICE_TIER
            if facts.provider == "anthropic"
            else s.OPENAI_RESPONSE_SERVICE_TIER
        )
        attributes[name] = facts.service_tier
    if facts.tool_calls:
        attributes[s.TIERLIGHT_TOOL_CALLS] = facts.tool_calls
    if facts.is_refusal:
        attributes[s.TIERLIGHT_REFUSAL] = True
    if facts.cost_usd is not None:
        attributes[s.TIERLIGHT_COST_AMOUNT] = facts.cost_usd
        attributes[s.TIERLIGHT_COST_CURRENCY] = "USD"
        attributes[s.TIERLIGHT_COST_SOURCE] = "provider"
    if not facts.has_usage:
        attributes[s.TIERLIGHT_USAGE_SOURCE] = "absent"
    else:
        attributes[s.TIERLIGHT_USAGE_SOURCE] = "estimated" if facts.is_partial else "provider"
