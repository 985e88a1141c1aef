"""Requests and answers of every provider as messages of the OpenTelemetry convention, and as plain text.

References:
    semantic-conventions-genai, gen_ai.input.messages: a list of {role, parts}, parts of type text,
    tool_call, tool_call_response, or the provider's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from . import semconv as s
from ._content import Frozen
from ._usage import fields, text

_TEXT_PARTS: Final = frozenset({"text", "input_text", "output_text", "summary_text"})
MAX_TEXT: Final = 1_000_000  # characters of one answer that validators and judges see


def request_contents(kwargs: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Frozen]:
    """The texts of a request by attribute, from the arguments of a client's method.

    Args:
        settings: Gemini's `config`; the same as `kwargs` elsewhere.
    """
    found: dict[str, Frozen] = {}
    asked = next(
        (kwargs[name] for name in ("messages", "input", "contents", "prompt") if name in kwargs), None
    )
    if asked is not None:
        found[s.GEN_AI_INPUT_MESSAGES] = Frozen(messages_of(asked, "user"))
    system = kwargs.get("system") or kwargs.get("instructions") or settings.get("system_instruction")
    if isinstance(system, str | list | tuple) and system:
        found[s.GEN_AI_SYSTEM_INSTRUCTIONS] = Frozen(parts_of(system))
    tools = kwargs.get("tools") or settings.get("tools")
    if isinstance(tools, list | tuple) and tools:
        found[s.GEN_AI_TOOL_DEFINITIONS] = Frozen(tools)
    return found


def messages_of(asked: object, role: str) -> list[dict[str, Any]]:
    """A prompt, a list of messages, or Gemini's contents as messages."""
    if isinstance(asked, str):
        return [{"role": role, "parts": [{"type": "text", "content": asked}]}]
    if isinstance(asked, list | tuple):
        return [one for part in asked for one in messages_of(part, role)]
    named = fields(asked)
    if not named:
        return [{"role": role, "parts": [{"type": type(asked).__name__}]}]
    content = named.get("content", named.get("parts"))
    parts = parts_of(content) if content is not None else []
    for call in named.get("tool_calls") or ():
        parts.append(_tool_call(call))
    kind = text(named.get("type"))
    if not parts:
        parts = [_part(asked)]
    elif named.get("role") == "tool" or kind == "function_call_output":
        parts = [{"type": "tool_call_response", "id": text(named.get("tool_call_id")), "response": parts}]
    return [{"role": text(named.get("role")) or role, "parts": parts}]


def parts_of(content: object) -> list[dict[str, Any]]:
    """The content of one message as parts."""
    if isinstance(content, str):
        return [{"type": "text", "content": content}]
    if isinstance(content, list | tuple):
        return [_part(one) for one in content]
    return [_part(content)]


def _part(piece: object) -> dict[str, Any]:
    if isinstance(piece, str):
        return {"type": "text", "content": piece}
    get = fields(piece).get
    kind = text(get("type"))
    said = get("text")
    if said is not None and (kind in _TEXT_PARTS or not kind):
        return {"type": "text", "content": said}
    if kind in ("thinking", "reasoning"):
        return {"type": "reasoning", "content": get("thinking") or get("summary") or ""}
    if kind in ("tool_use", "function_call", "custom_tool_call"):
        return _tool_call(piece)
    call = get("function_call") or get("functionCall")
    if call is not None:
        return _tool_call(call)
    if kind in ("tool_result", "function_call_output"):
        return {
            "type": "tool_call_response",
            "id": text(get("tool_use_id") or get("call_id")),
            "response": get("content", get("output")),
        }
    refusal = get("refusal")
    if refusal:
        return {"type": "refusal", "content": refusal}
    return {"type": kind or "other"}  # images, audio, files: named, not copied


def _tool_call(call: object) -> dict[str, Any]:
    get = fields(call).get
    function = fields(get("function")).get
    return {
        "type": "tool_call",
        "id": text(get("id") or get("call_id")),
        "name": text(get("name") or function("name")),
        "arguments": get("arguments", get("input", get("args", function("arguments")))),
    }


def answer_messages(response: object) -> list[dict[str, Any]]:
    """What a complete response says, as messages; empty for embeddings and the like."""
    f = fields(response)
    if "choices" in f:
        messages = []
        for choice in f.get("choices") or ():
            part = fields(choice)
            message = part.get("message")
            said = messages_of(message if message is not None else text(part.get("text")), "assistant")
            refusal = fields(message).get("refusal")
            if refusal:
                said[0]["parts"] = [{"type": "refusal", "content": refusal}]
            said[0]["finish_reason"] = text(part.get("finish_reason"))
            messages += said
        return messages
    if "candidates" in f:
        return [
            {
                "role": "assistant",
                "parts": parts_of(fields(fields(candidate).get("content")).get("parts") or ()),
                "finish_reason": text(
                    fields(candidate).get("finish_reason") or fields(candidate).get("finishReason")
                ),
            }
            for candidate in f.get("candidates") or ()
        ]
    if isinstance(f.get("output"), list):
        return [one for item in f["output"] for one in messages_of(item, "assistant")]
    if "output" in f:
        return messages_of(fields(f["output"]).get("message"), "assistant")
    if "stop_reason" in f:
        return [
            {
                "role": "assistant",
                "parts": parts_of(f.get("content") or ()),
                "finish_reason": text(f["stop_reason"]),
            }
        ]
    if "message" in f:
        return messages_of(f["message"], "assistant")
    if isinstance(f.get("response"), str) or isinstance(f.get("text"), str):
        return messages_of(f.get("response") or f.get("text"), "assistant")
    return []


def text_of(result: object) -> str:
    """The answer in plain text: a text itself, a response's first message, "" where there is none."""
    if isinstance(result, str):
        return result
    return "".join(_texts(answer_messages(result)[:1]))[:MAX_TEXT]


def _texts(messages: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    for message in messages:
        for part in message["parts"]:
            if part["type"] in ("text", "refusal") and isinstance(part.get("content"), str):
                yield part["content"]


def text_of_chunk(chunk: object) -> str:
    """What one chunk adds to the answer's text."""
    if isinstance(chunk, str):
        return chunk
    f = fields(chunk)
    if "choices" in f:
        for choice in f.get("choices") or ():
            part = fields(choice)
            delta = fields(part.get("delta"))
            return text(delta.get("content") or delta.get("refusal") or part.get("text"))
        return ""
    kind = text(f.get("type"))
    if kind == "chunk":
        return text_of_chunk(f.get("chunk"))
    if kind in ("response.output_text.delta", "response.refusal.delta"):
        return text(f.get("delta"))
    if kind in ("content_block_delta", "content-delta"):
        delta = fields(f.get("delta"))
        return text(delta.get("text")) or text(
            fields(fields(delta.get("message")).get("content")).get("text")
        )
    if "candidates" in f:
        return "".join(_texts(answer_messages(chunk)[:1]))
    if "done" in f:
        return text(f.get("response")) or text(fields(f.get("message")).get("content"))
    if "data" in f:
        return text_of_chunk(f.get("data"))
    return ""
