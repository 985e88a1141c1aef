"""Anthropic: messages. https://docs.claude.com/en/api/messages

Its `input_tokens` leave the cached parts out; the reply's are total, as everywhere in tierlight.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from tierlight.testing._wires.reply import Event, FakeError, FakeReply, FakeRequest

_STOP = {"stop": "end_turn", "length": "max_tokens", "tool": "tool_use", "filter": "refusal"}
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}


def error(failure: FakeError) -> dict[str, Any]:
    kind = failure.code or _TYPES.get(failure.status, "api_error")
    return {"type": "error", "error": {"type": kind, "message": failure.message}, "request_id": "req_fake"}


def message(request: FakeRequest, reply: FakeReply, made: Mapping[str, Any]) -> dict[str, Any]:
    answer = _message(request, reply, made)
    answer["content"] = _content(reply)
    answer["stop_reason"] = _STOP[reply.finish_reason]
    answer["usage"] = _usage(reply, reply.output_tokens)
    return {**answer, **reply.extra}


def message_events(request: FakeRequest, reply: FakeReply, made: Mapping[str, Any]) -> Iterator[Event]:
    def event(kind: str, **fields: Any) -> Event:
        return kind, {"type": kind, **fields}

    started = _message(request, reply, made)
    started["usage"] = _usage(reply, 1)
    yield event("message_start", message=started)
    for index, block in enumerate(_content(reply)):
        is_text = block["type"] == "text"
        empty = {**block, "text": ""} if is_text else {**block, "input": {}}
        yield event("content_block_start", index=index, content_block=empty)
        if is_text:
            for piece in reply.pieces():
                yield event("content_block_delta", index=index, delta={"type": "text_delta", "text": piece})
        else:
            delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
            yield event("content_block_delta", index=index, delta=delta)
        yield event("content_block_stop", index=index)
    yield event(
        "message_delta",
        delta={"stop_reason": _STOP[reply.finish_reason], "stop_sequence": None},
        usage=_usage(reply, reply.output_tokens),
    )
    yield event("message_stop")


def _message(request: FakeRequest, reply: FakeReply, made: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": reply.response_id or f"msg_{made['number']}",
        "type": "message",
        "role": "assistant",
        "model": reply.model or request.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def _content(reply: FakeReply) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    if reply.text and not reply.tool_calls:
        blocks.append({"type": "text", "text": reply.text, "citations": None})
    for call in reply.tool_calls:
        blocks.append({"type": "tool_use", "id": call.id, "name": call.name, "input": dict(call.arguments)})
    return blocks


def _usage(reply: FakeReply, output_tokens: int) -> dict[str, Any]:
    cached, written = reply.cached_input_tokens, reply.cache_write_input_tokens
    return {
        "input_tokens": reply.input_tokens - cached - written,
        "output_tokens": output_tokens,
        "cache_read_input_tokens": cached,
        "cache_creation_input_tokens": written,
        "cache_creation": {"ephemeral_5m_input_tokens": written, "ephemeral_1h_input_tokens": 0},
        "service_tier": reply.service_tier or "standard",
    }
