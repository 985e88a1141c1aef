"""What a provider's response says: model, id, finish reasons, tokens. Read by shape, never by import.

One reader per shape (OpenAI chat and Responses, Anthropic, Gemini, Ollama, Cohere, Bedrock Converse,
embeddings, rerank, transcription); clients, gateways and plain dicts that answer in one of these shapes are
all understood. `_chunks` does the same for streams. The readers stay in one file, long as it is: a shape is
told from the others by what they all have, so they are read and changed together.
"""

# Long because one table for each shape of answer.
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

MAX_TOKENS: Final = 1_000_000_000  # more than this is a broken number, not a count


@dataclass(slots=True)
class ResponseFacts:
    """What one response says of itself; a number that it does not say is None.

    `input_tokens` is the total, cached and cache-writing parts included; `output_tokens` is the total,
    reasoning included, whatever the provider's own way of counting.
    """

    operation: str = "chat"
    provider: str = ""
    model: str = ""
    response_id: str = ""
    finish_reasons: tuple[str, ...] = ()
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_input_tokens: int | None = None
    cache_write_input_tokens: int | None = None
    cache_write_1h_input_tokens: int | None = None
    reasoning_tokens: int | None = None
    text_input_tokens: int | None = None
    image_input_tokens: int | None = None
    audio_input_tokens: int | None = None
    text_output_tokens: int | None = None
    image_output_tokens: int | None = None
    audio_output_tokens: int | None = None
    service_tier: str = ""
    tool_calls: int = 0
    is_refusal: bool = False
    cost_usd: float | None = None  # said by the provider or gateway
    is_partial: bool = False  # a cut stream: the numbers are what had arrived

    @property
    def has_parts(self) -> bool:
        """Whether tokens are known by what they stand for: text, images, sound."""
        return (
            self.text_input_tokens is not None
            or self.audio_input_tokens is not None
            or self.image_input_tokens is not None
            or self.text_output_tokens is not None
            or self.audio_output_tokens is not None
            or self.image_output_tokens is not None
        )

    @property
    def has_usage(self) -> bool:
        """Whether any token count is known."""
        return self.input_tokens is not None or self.output_tokens is not None


Fields = Mapping[str, Any]

_NOTHING: Final[Fields] = {}


def fields(value: object) -> Fields:
    """The named fields of a response object or dict, without copying; empty for anything else."""
    if isinstance(value, dict):
        return value
    if value is None or type(value) is str:
        return _NOTHING
    names = getattr(value, "__dict__", None)
    if names:
        return names  # type: ignore[no-any-return]
    if hasattr(type(value), "__slots__") and not isinstance(value, str | bytes | int | float | tuple | list):
        return {name: getattr(value, name, None) for base in type(value).__mro__ for name in _slots(base)}
    return _NOTHING


def _slots(base: type) -> Iterable[str]:
    slots = base.__dict__.get("__slots__", ())
    return (slots,) if isinstance(slots, str) else slots


def count(value: object) -> int | None:
    """A token count, None for what is no count: missing, negative, not finite, absurd."""
    if value is None:
        return None
    if type(value) is int:
        return value if 0 <= value <= MAX_TOKENS else None
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        if not value.is_integer():
            return None
        value = int(value)
    return value if isinstance(value, int) and 0 <= value <= MAX_TOKENS else None


def text(value: object) -> str:
    """A short word; enums give their value, anything else than text gives ""."""
    if type(value) is str:
        return value
    if value is None:
        return ""
    value = getattr(value, "value", value)
    return value if isinstance(value, str) else ""


# Keyed by the first part of the module that defines the response's class.
_PROVIDER_OF_PACKAGE: Final = {
    "openai": "openai",
    "anthropic": "anthropic",
    "google": "gcp.gemini",
    "vertexai": "gcp.vertex_ai",
    "mistralai": "mistral_ai",
    "cohere": "cohere",
    "ollama": "ollama",
    "groq": "groq",
    "xai_sdk": "x_ai",
    "together": "together_ai",
    "voyageai": "voyage",
}

_PROVIDER_OF_MODEL: Final = (
    ("gpt-", "openai"),
    ("o1", "openai"),
    ("o3", "openai"),
    ("o4", "openai"),
    ("text-embedding-", "openai"),
    ("chatgpt-", "openai"),
    ("claude-", "anthropic"),
    ("gemini-", "gcp.gemini"),
    ("command-", "cohere"),
    ("rerank-", "cohere"),
    ("embed-", "cohere"),
    ("mistral-", "mistral_ai"),
    ("grok-", "x_ai"),
    ("deepseek-", "deepseek"),
)


def provider_of(response: object, model: str) -> str:
    """The canonical provider name by the class's package, else by the model's name, else ""."""
    named = _PROVIDER_OF_PACKAGE.get(type(response).__module__.partition(".")[0])
    if named:
        return named
    for prefix, provider in _PROVIDER_OF_MODEL:
        if model.startswith(prefix):
            return provider
    return ""


# ---- usage blocks ---------------------------------------------------------------------------------------


def settle(facts: ResponseFacts, total: int | None = None) -> None:
    """Drop parts that cannot be: cached beyond the input, reasoning beyond the output.

    Args:
        total: the response's own total, where it says one. Some providers report reasoning beside the
            output instead of within it; the total tells which.
    """
    tokens_in, tokens_out, reasoning = facts.input_tokens, facts.output_tokens, facts.reasoning_tokens
    if reasoning and tokens_out is not None:
        beside = reasoning > tokens_out or (
            total is not None and tokens_in is not None and total - tokens_in == tokens_out + reasoning
        )
        if beside:
            facts.output_tokens = tokens_out + reasoning
    cached = (facts.cached_input_tokens or 0) + (facts.cache_write_input_tokens or 0)
    if tokens_in is not None and cached > tokens_in:
        facts.cached_input_tokens = facts.cache_write_input_tokens = facts.cache_write_1h_input_tokens = None


def read_openai_usage(usage: object, facts: ResponseFacts) -> None:
    """Chat, Responses, embeddings, images and transcription: totals with parts in `*_details`."""
    block = fields(usage)
    if not block:
        return
    get = block.get
    facts.input_tokens = count(get("prompt_tokens", get("input_tokens")))
    facts.output_tokens = count(get("completion_tokens", get("output_tokens")))
    details = get("prompt_tokens_details") or get("input_tokens_details") or get("input_token_details")
    if details is not None:
        part = fields(details).get
        facts.cached_input_tokens = count(part("cached_tokens"))
        facts.cache_write_input_tokens = count(part("cache_write_tokens"))
        if (tokens := part("text_tokens")) is not None:
            facts.text_input_tokens = count(tokens)
        if (tokens := part("image_tokens")) is not None:
            facts.image_input_tokens = count(tokens)
        if (tokens := part("audio_tokens")) is not None:
            facts.audio_input_tokens = count(tokens)
    else:
        # DeepSeek's names for the same thing
        facts.cached_input_tokens = count(get("prompt_cache_hit_tokens"))
    details = get("completion_tokens_details") or get("output_tokens_details")
    if details is not None:
        part = fields(details).get
        facts.reasoning_tokens = count(part("reasoning_tokens"))
        if (tokens := part("text_tokens")) is not None:
            facts.text_output_tokens = count(tokens)
        if (tokens := part("image_tokens")) is not None:
            facts.image_output_tokens = count(tokens)
        if (tokens := part("audio_tokens")) is not None:
            facts.audio_output_tokens = count(tokens)
    cost = get("cost")
    if cost is None and block is not usage:  # a client that does not know the field keeps it apart
        cost = (getattr(usage, "__pydantic_extra__", None) or _NOTHING).get("cost")
    if cost is not None and isinstance(cost, int | float) and not isinstance(cost, bool) and cost >= 0:
        facts.cost_usd = float(cost)
    settle(facts, count(get("total_tokens")))


def read_anthropic_usage(usage: object, facts: ResponseFacts) -> None:
    """Messages API: `input_tokens` leaves the cached and the cache-writing parts out, so they are added."""
    get = fields(usage).get
    fresh = count(get("input_tokens"))
    cached = count(get("cache_read_input_tokens"))
    written = count(get("cache_creation_input_tokens"))
    if fresh is not None:
        facts.input_tokens = fresh + (cached or 0) + (written or 0)
        facts.cached_input_tokens = cached
        facts.cache_write_input_tokens = written
        facts.cache_write_1h_input_tokens = count(
            fields(get("cache_creation")).get("ephemeral_1h_input_tokens")
        )
    produced = count(get("output_tokens"))
    if produced is not None:
        facts.output_tokens = produced
    thinking = fields(get("output_tokens_details")).get("thinking_tokens")
    if thinking is not None:
        facts.reasoning_tokens = count(thinking)
    facts.service_tier = text(get("service_tier")) or facts.service_tier
    settle(facts)


_GEMINI_PARTS: Final = {
    "TEXT": ("text_input_tokens", "text_output_tokens"),
    "IMAGE": ("image_input_tokens", "image_output_tokens"),
    "AUDIO": ("audio_input_tokens", "audio_output_tokens"),
}


def read_gemini_usage(usage: object, facts: ResponseFacts) -> None:
    """Gemini: thoughts are counted beside the candidates and tool results beside the prompt; both are added."""
    block = fields(usage)

    def field(snake: str, camel: str) -> Any:
        value = block.get(snake)
        return block.get(camel) if value is None else value

    prompt = count(field("prompt_token_count", "promptTokenCount"))
    tools = count(field("tool_use_prompt_token_count", "toolUsePromptTokenCount"))
    candidates = count(field("candidates_token_count", "candidatesTokenCount"))
    if candidates is None:
        candidates = count(field("response_token_count", "responseTokenCount"))
    thoughts = count(field("thoughts_token_count", "thoughtsTokenCount"))
    facts.input_tokens = None if prompt is None else prompt + (tools or 0)
    if candidates is not None or thoughts is not None:
        facts.output_tokens = (candidates or 0) + (thoughts or 0)
    facts.cached_input_tokens = count(field("cached_content_token_count", "cachedContentTokenCount"))
    facts.reasoning_tokens = thoughts
    for index, names in enumerate(
        (
            ("prompt_tokens_details", "promptTokensDetails"),
            ("candidates_tokens_details", "candidatesTokensDetails"),
        )
    ):
        for part in field(*names) or ():
            get = fields(part).get
            known = _GEMINI_PARTS.get(text(get("modality")))
            if known:
                setattr(facts, known[index], count(get("token_count", get("tokenCount"))))
    settle(facts)


# ---- one reader per shape -------------------------------------------------------------------------------


def _openai_chat(response: object, f: Fields) -> ResponseFacts:
    facts = ResponseFacts("chat", "", text(f.get("model")), text(f.get("id")))
    reasons: list[str] = []
    for choice in f.get("choices") or ():
        part = fields(choice)
        reason = text(part.get("finish_reason"))
        message = part.get("message")
        if message is None:
            if "text" in part:
                facts.operation = "text_completion"
        else:
            said = fields(message)
            calls = said.get("tool_calls")
            if calls:
                facts.tool_calls += len(calls)
            if said.get("refusal"):
                facts.is_refusal = True
                reason = "refusal"
        if reason:
            reasons.append(reason)
    facts.finish_reasons = tuple(reasons)
    facts.service_tier = text(f.get("service_tier"))
    read_openai_usage(f.get("usage"), facts)
    return facts


def _openai_responses(response: object, f: Fields) -> ResponseFacts:
    facts = ResponseFacts(model=text(f.get("model")), response_id=text(f.get("id")))
    for item in f.get("output") or ():
        part = fields(item)
        kind = text(part.get("type"))
        if kind.endswith("_call"):
            facts.tool_calls += kind in ("function_call", "custom_tool_call")
        elif kind == "message":
            for piece in part.get("content") or ():
                facts.is_refusal = facts.is_refusal or fields(piece).get("type") == "refusal"
    status = text(f.get("status"))
    reason = text(fields(f.get("incomplete_details")).get("reason"))
    if facts.is_refusal:
        facts.finish_reasons = ("refusal",)
    elif reason == "content_filter":
        facts.finish_reasons = (reason,)
    elif facts.tool_calls and status == "completed":
        facts.finish_reasons = ("tool_calls",)
    elif status:
        facts.finish_reasons = (status,)
    facts.service_tier = text(f.get("service_tier"))
    read_openai_usage(f.get("usage"), facts)
    return facts


def _anthropic(response: object, f: Fields) -> ResponseFacts:
    facts = ResponseFacts(model=text(f.get("model")), response_id=text(f.get("id")))
    reason = text(f.get("stop_reason"))
    facts.finish_reasons = (reason,) if reason else ()
    facts.is_refusal = reason == "refusal"
    for block in f.get("content") or ():
        facts.tool_calls += fields(block).get("type") == "tool_use"
    read_anthropic_usage(f.get("usage"), facts)
    return facts


def _gemini(response: object, f: Fields) -> ResponseFacts:
    facts = ResponseFacts(
        operation="generate_content",
        provider="gcp.gemini",
        model=text(f.get("model_version") or f.get("modelVersion")),
        response_id=text(f.get("response_id") or f.get("responseId")),
    )
    reasons: list[str] = []
    for candidate in f.get("candidates") or ():
        part = fields(candidate)
        reason = text(part.get("finish_reason") or part.get("finishReason"))
        if reason:
            reasons.append(reason)
        for piece in fields(part.get("content")).get("parts") or ():
            get = fields(piece).get
            facts.tool_calls += bool(get("function_call") or get("functionCall"))
    feedback = fields(f.get("prompt_feedback") or f.get("promptFeedback"))
    blocked = text(feedback.get("block_reason") or feedback.get("blockReason"))
    if blocked and not reasons:
        reasons.append("SAFETY")
    facts.is_refusal = "SAFETY" in reasons
    facts.finish_reasons = tuple(reasons)
    read_gemini_usage(f.get("usage_metadata") or f.get("usageMetadata"), facts)
    return facts


def _ollama(response: object, f: Fields) -> ResponseFacts:
    facts = ResponseFacts(provider="ollama", model=text(f.get("model")))
    if "embeddings" in f:
        facts.operation = "embeddings"
    elif "message" not in f:
        facts.operation = "text_completion"
    calls = fields(f.get("message")).get("tool_calls")
    facts.tool_calls = len(calls) if calls else 0
    reason = text(f.get("done_reason"))
    facts.finish_reasons = (reason,) if reason else ()
    facts.input_tokens = count(f.get("prompt_eval_count"))
    facts.output_tokens = count(f.get("eval_count"))
    return facts


def _cohere_tokens(usage: object, facts: ResponseFacts) -> None:
    block = fields(usage)
    tokens = fields(block.get("tokens"))
    if not tokens:
        tokens = fields(block.get("billed_units"))
    facts.input_tokens = count(tokens.get("input_tokens"))
    facts.output_tokens = count(tokens.get("output_tokens"))
    facts.cached_input_tokens = count(block.get("cached_tokens"))
    settle(facts)


def _cohere_chat(response: object, f: Fields) -> ResponseFacts:
    facts = ResponseFacts(provider="cohere", response_id=text(f.get("id")), model=text(f.get("model")))
    reason = text(f.get("finish_reason"))
    facts.finish_reasons = (reason,) if reason else ()
    calls = fields(f.get("message")).get("tool_calls")
    facts.tool_calls = len(calls) if calls else 0
    _cohere_tokens(f.get("usage"), facts)
    return facts


def _rerank(response: object, f: Fields) -> ResponseFacts:
    facts = ResponseFacts(operation="rerank", response_id=text(f.get("id")), model=text(f.get("model")))
    meta = f.get("meta")
    if meta is not None:
        facts.provider = "cohere"
        _cohere_tokens(meta, facts)
    else:
        usage = fields(f.get("usage"))
        facts.input_tokens = count(usage.get("total_tokens", f.get("total_tokens")))
    return facts


def _embeddings(response: object, f: Fields) -> ResponseFacts:
    facts = ResponseFacts(operation="embeddings", response_id=text(f.get("id")), model=text(f.get("model")))
    if "usage_metadata" in f or "metadata" in f or "embedding" in f:  # Gemini
        facts.provider, facts.response_id = "gcp.gemini", ""
        read_gemini_usage(f.get("usage_metadata"), facts)
        if facts.input_tokens is None:
            known = [
                count(fields(fields(one).get("statistics")).get("token_count"))
                for one in f.get("embeddings") or ()
            ]
            if known and None not in known:
                facts.input_tokens = sum(n for n in known if n is not None)
    elif "meta" in f:
        facts.provider = "cohere"
        _cohere_tokens(f.get("meta"), facts)
    return facts


def _openai_list(response: object, f: Fields) -> ResponseFacts | None:
    """`data` beside `usage`: embeddings, or images where the items say so."""
    items = f.get("data")
    if not isinstance(items, Sequence) or isinstance(items, str):
        return None
    first = fields(items[0]) if items else _NOTHING
    is_image = "created" in f and "embedding" not in first
    facts = ResponseFacts(operation="image" if is_image else "embeddings", model=text(f.get("model")))
    read_openai_usage(f.get("usage"), facts)
    return facts


def _transcription(response: object, f: Fields) -> ResponseFacts:
    facts = ResponseFacts(operation="audio", model=text(f.get("model")))
    read_openai_usage(f.get("usage"), facts)
    return facts


def _bedrock(response: object, f: Fields) -> ResponseFacts:
    facts = ResponseFacts(provider="aws.bedrock")
    facts.response_id = text(fields(f.get("ResponseMetadata")).get("RequestId"))
    reason = text(f.get("stopReason"))
    facts.finish_reasons = (reason,) if reason else ()
    for block in fields(fields(f.get("output")).get("message")).get("content") or ():
        facts.tool_calls += "toolUse" in fields(block)
    read_bedrock_usage(f.get("usage"), facts)
    return facts


def read_bedrock_usage(usage: object, facts: ResponseFacts) -> None:
    """Converse: like Anthropic, the cached parts stand beside `inputTokens`."""
    get = fields(usage).get
    fresh = count(get("inputTokens"))
    cached, written = count(get("cacheReadInputTokens")), count(get("cacheWriteInputTokens"))
    if fresh is not None:
        facts.input_tokens = fresh + (cached or 0) + (written or 0)
        facts.cached_input_tokens, facts.cache_write_input_tokens = cached, written
    facts.output_tokens = count(get("outputTokens"))


def reader_for(f: Fields) -> Callable[[object, Fields], ResponseFacts | None] | None:
    """The reader of the shape that these fields have, None for what is no provider's response."""
    if "choices" in f:
        return _openai_chat
    if "stop_reason" in f and "usage" in f and "content" in f:
        return _anthropic
    if "candidates" in f or (("usage_metadata" in f or "usageMetadata" in f) and "embeddings" not in f):
        return _gemini
    if "output" in f:
        if "stopReason" in f:
            return _bedrock
        if f.get("object") == "response" or "incomplete_details" in f:
            return _openai_responses
        return None
    if "prompt_eval_count" in f or ("done" in f and "model" in f):
        return _ollama
    if "results" in f:
        results = f["results"]
        scored = isinstance(results, list) and bool(results) and "relevance_score" in fields(results[0])
        return _rerank if scored else None
    if "finish_reason" in f and "message" in f:
        return _cohere_chat
    if "embeddings" in f or "embedding" in f:
        return _embeddings
    if "usage" in f:
        if "data" in f:
            return _openai_list
        if "text" in f:
            return _transcription
    return None


def usage_from(response: object) -> ResponseFacts | None:
    """What a complete response says of its model, tokens and end; None if it is no provider's response.

    >>> usage_from({"model": "gpt-5-mini", "choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2}})
    ... # doctest: +ELLIPSIS
    ResponseFacts(operation='chat', provider='openai', model='gpt-5-mini', ..., input_tokens=9, output_tokens=2, ...)
    >>> usage_from("just text") is None
    True

    Args:
        response: object or dict in the shape of OpenAI (chat, Responses, embeddings, images, transcription),
            Anthropic, Gemini, Ollama, Cohere, or Bedrock Converse.
    """
    named = fields(response)
    if not named:
        return None
    reader = reader_for(named)
    facts = reader(response, named) if reader else None
    if facts is not None and not facts.provider:
        facts.provider = provider_of(response, facts.model)
    return facts
