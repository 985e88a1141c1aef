"""What a stream said, read from its first and last chunks only: memory does not grow with the stream.

The facts stand at the ends of every provider's stream: model, id and prompt tokens in the first chunks,
finish reason and totals in the last ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ._usage import (
    Fields,
    ResponseFacts,
    count,
    fields,
    provider_of,
    read_anthropic_usage,
    read_bedrock_usage,
    read_gemini_usage,
    read_openai_usage,
    text,
    usage_from,
)


class _Reading:
    """The facts so far, and what is only judged when all chunks are seen."""

    __slots__ = ("anthropic_usage", "ended", "facts", "reasons")

    def __init__(self) -> None:
        self.facts: ResponseFacts | None = None
        self.anthropic_usage: dict[str, Any] = {}
        self.reasons: dict[int, str] = {}
        self.ended = False

    def begun(self, operation: str = "chat", provider: str = "") -> ResponseFacts:
        if self.facts is None:
            self.facts = ResponseFacts(operation=operation, provider=provider)
        return self.facts


def _chat(f: Fields, reading: _Reading) -> None:
    facts = reading.begun()
    get = f.get
    facts.model = facts.model or text(get("model"))
    facts.response_id = facts.response_id or text(get("id"))
    tier = get("service_tier")
    if tier is not None:
        facts.service_tier = text(tier) or facts.service_tier
    for choice in get("choices") or ():
        part = fields(choice)
        delta = part.get("delta")
        if delta is not None:
            said = fields(delta)
            if said.get("refusal"):
                facts.is_refusal = True
            for call in said.get("tool_calls") or ():
                facts.tool_calls = max(facts.tool_calls, 1 + (count(fields(call).get("index")) or 0))
        elif "text" in part:
            facts.operation = "text_completion"
        reason = part.get("finish_reason")
        if reason:
            reading.reasons[count(part.get("index")) or 0] = text(reason)
    usage = get("usage")
    if usage is None and "x_groq" in f:
        usage = fields(f["x_groq"]).get("usage")
    if usage is not None:
        read_openai_usage(usage, facts)
        reading.ended = True


def _anthropic(kind: str, f: Fields, reading: _Reading) -> None:
    if kind == "message_start":
        message = fields(f.get("message"))
        facts = reading.begun()
        facts.model, facts.response_id = text(message.get("model")), text(message.get("id"))
        reading.anthropic_usage.update(_known(message.get("usage")))
        if not reading.ended:
            reading.anthropic_usage.pop("output_tokens", None)  # a placeholder until the end
    elif kind == "message_delta":
        reason = text(fields(f.get("delta")).get("stop_reason"))
        reading.begun()
        if reason:
            reading.reasons[0] = reason
        reading.anthropic_usage.update(_known(f.get("usage")))
        reading.ended = True
    elif kind == "content_block_start" and fields(f.get("content_block")).get("type") == "tool_use":
        reading.begun().tool_calls += 1


def _known(usage: object) -> Mapping[str, Any]:
    return {name: value for name, value in fields(usage).items() if value is not None}


def _gemini(f: Fields, reading: _Reading) -> None:
    facts = reading.begun("generate_content", "gcp.gemini")
    facts.model = text(f.get("model_version") or f.get("modelVersion")) or facts.model
    facts.response_id = text(f.get("response_id") or f.get("responseId")) or facts.response_id
    whole = usage_from(f)
    if whole is not None:
        for index, reason in enumerate(whole.finish_reasons):
            reading.reasons[index] = reason
            reading.ended = True
        facts.is_refusal = facts.is_refusal or whole.is_refusal
        facts.tool_calls = max(facts.tool_calls, whole.tool_calls)
    usage = f.get("usage_metadata") or f.get("usageMetadata")
    if usage is not None:
        read_gemini_usage(usage, facts)


def _cohere(kind: str, f: Fields, reading: _Reading) -> None:
    facts = reading.begun(provider="cohere")
    if kind == "message-start":
        facts.response_id = text(f.get("id"))
    elif kind == "tool-call-start":
        facts.tool_calls += 1
    elif kind == "message-end":
        delta = fields(f.get("delta"))
        whole = usage_from(
            {"finish_reason": delta.get("finish_reason"), "message": None, "usage": delta.get("usage")}
        )
        if whole is not None:
            facts.finish_reasons = whole.finish_reasons
            facts.input_tokens, facts.output_tokens = whole.input_tokens, whole.output_tokens
            facts.cached_input_tokens = whole.cached_input_tokens
        reading.ended = True


def _bedrock(f: Fields, reading: _Reading) -> None:
    facts = reading.begun(provider="aws.bedrock")
    reason = text(fields(f.get("messageStop")).get("stopReason"))
    if reason:
        reading.reasons[0] = reason
    if "metadata" in f:
        read_bedrock_usage(fields(f["metadata"]).get("usage"), facts)
        reading.ended = True


def _read(chunk: object, reading: _Reading) -> None:
    f = fields(chunk)
    if not f:
        return
    if "choices" in f:
        _chat(f, reading)
        return
    kind = text(f.get("type"))
    if "chunk" in f:  # an event of OpenAI's stream helper, around the raw chunk
        _read(f["chunk"], reading)
    elif kind.startswith("response."):
        answer = f.get("response")
        if answer is not None:
            reading.facts = usage_from(answer)
            reading.ended = kind in ("response.completed", "response.incomplete", "response.failed")
    elif kind.startswith(("message_", "content_block_")):
        _anthropic(kind, f, reading)
    elif kind.startswith(("message-", "content-", "tool-")):
        _cohere(kind, f, reading)
    elif "candidates" in f or "usage_metadata" in f or "usageMetadata" in f:
        _gemini(f, reading)
    elif "done" in f:
        reading.facts = usage_from(f)
        reading.ended = bool(f["done"])
    elif "messageStop" in f or ("metadata" in f and "usage" in fields(f["metadata"])):
        _bedrock(f, reading)
    elif "data" in f and "choices" in fields(f["data"]):  # an event of Mistral's client
        _read(f["data"], reading)
    elif reading.facts is None:
        reading.facts = usage_from(chunk)
        reading.ended = reading.facts is not None


def facts_from_chunks(chunks: Iterable[object], is_complete: bool) -> ResponseFacts | None:
    """What the ends of a stream say; None if none of the chunks is in a known shape.

    Args:
        chunks: the first and the last chunks, in order, each once.
        is_complete: whether the stream was read to its end. The numbers of a cut stream are marked
            `is_partial`, and a provider's placeholder is never taken for a count.
    """
    reading = _Reading()
    last: object = None
    for chunk in chunks:
        _read(chunk, reading)
        last = chunk
    facts = reading.facts
    if facts is None:
        return None
    if reading.anthropic_usage:
        read_anthropic_usage(reading.anthropic_usage, facts)
    if reading.reasons:
        facts.finish_reasons = tuple(reading.reasons[index] for index in sorted(reading.reasons))
    if facts.is_refusal and facts.finish_reasons == ("stop",):
        facts.finish_reasons = ("refusal",)
    facts.is_refusal = facts.is_refusal or "refusal" in facts.finish_reasons
    facts.is_partial = facts.has_usage and not (is_complete or reading.ended)
    if not facts.provider:
        facts.provider = provider_of(last, facts.model)
    return facts
