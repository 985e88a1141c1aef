"""OpenAI: chat completions, Responses, embeddings. https://platform.openai.com/docs/api-reference"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator, Mapping
from typing import Any

from tierlight.testing._wires.reply import Event, FakeError, FakeReply, FakeRequest, vector

_FINISH = {"stop": "stop", "length": "length", "tool": "tool_calls", "filter": "content_filter"}
_CODES = {
    400: "invalid_request_error",
    401: "invalid_api_key",
    404: "model_not_found",
    429: "rate_limit_exceeded",
}


def error(failure: FakeError) -> dict[str, Any]:
    code = failure.code or _CODES.get(failure.status, "server_error")
    kind = "server_error" if failure.status >= 500 else "invalid_request_error"
    return {"error": {"message": failure.message, "type": kind, "param": None, "code": code}}


# ---- chat completions -----------------------------------------------------------------------------------


def chat(request: FakeRequest, reply: FakeReply, made: Mapping[str, Any]) -> dict[str, Any]:
    message: dict[str, Any] = {
        "role": "assistant",
        "content": None if reply.refusal or reply.tool_calls else reply.text,
        "refusal": reply.refusal or None,
    }
    if reply.tool_calls:
        message["tool_calls"] = _tool_calls(reply)
    answer = _chat_head(request, reply, made, "chat.completion")
    answer["choices"] = [
        {"index": 0, "message": message, "logprobs": None, "finish_reason": _FINISH[reply.finish_reason]}
    ]
    if reply.has_usage:
        answer["usage"] = _chat_usage(reply)
    return {**answer, **reply.extra}


def chat_events(request: FakeRequest, reply: FakeReply, made: Mapping[str, Any]) -> Iterator[Event]:
    head = _chat_head(request, reply, made, "chat.completion.chunk")

    def chunk(delta: dict[str, Any], finish: str | None = None) -> Event:
        return "", {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}

    yield chunk({"role": "assistant", "content": "", "refusal": None})
    if reply.refusal:
        yield chunk({"refusal": reply.refusal})
    elif reply.tool_calls:
        for index, call in enumerate(_tool_calls(reply)):
            yield chunk({"tool_calls": [{"index": index, **call}]})
    else:
        for piece in reply.pieces():
            yield chunk({"content": piece})
    yield chunk({}, _FINISH[reply.finish_reason])
    options = request.body.get("stream_options") or {}
    if reply.has_usage and options.get("include_usage"):
        yield "", {**head, "choices": [], "usage": _chat_usage(reply)}
    yield "", "[DONE]"


def _chat_head(request: FakeRequest, reply: FakeReply, made: Mapping[str, Any], kind: str) -> dict[str, Any]:
    head = {
        "id": reply.response_id or f"chatcmpl-{made['number']}",
        "object": kind,
        "created": made["created"],
        "model": reply.model or request.model,
    }
    if reply.service_tier:
        head["service_tier"] = reply.service_tier
    return head


def _tool_calls(reply: FakeReply) -> list[dict[str, Any]]:
    return [
        {
            "id": call.id,
            "type": "function",
            "function": {"name": call.name, "arguments": json.dumps(dict(call.arguments))},
        }
        for call in reply.tool_calls
    ]


def _chat_usage(reply: FakeReply) -> dict[str, Any]:
    return {
        "prompt_tokens": reply.input_tokens,
        "completion_tokens": reply.output_tokens,
        "total_tokens": reply.input_tokens + reply.output_tokens,
        "prompt_tokens_details": {"cached_tokens": reply.cached_input_tokens, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": reply.reasoning_tokens, "audio_tokens": 0},
    }


# ---- Responses ------------------------------------------------------------------------------------------


def response(request: FakeRequest, reply: FakeReply, made: Mapping[str, Any]) -> dict[str, Any]:
    return {**_response(request, reply, made, _output(reply, made)), **reply.extra}


def response_events(request: FakeRequest, reply: FakeReply, made: Mapping[str, Any]) -> Iterator[Event]:
    number = 0

    def event(kind: str, **fields: Any) -> Event:
        nonlocal number
        number += 1
        return kind, {"type": kind, "sequence_number": number - 1, **fields}

    started = _response(request, reply, made, [], status="in_progress")
    yield event("response.created", response=started)
    yield event("response.in_progress", response=started)
    for index, item in enumerate(_output(reply, made)):
        place = {"output_index": index, "item_id": item["id"]}
        yield event("response.output_item.added", output_index=index, item={**item, "status": "in_progress"})
        if item["type"] == "message" and not reply.refusal:
            part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
            yield event("response.content_part.added", **place, content_index=0, part=part)
            for piece in reply.pieces():
                yield event("response.output_text.delta", **place, content_index=0, delta=piece, logprobs=[])
            yield event("response.output_text.done", **place, content_index=0, text=reply.text, logprobs=[])
        elif item["type"] == "function_call":
            yield event("response.function_call_arguments.delta", **place, delta=item["arguments"])
            yield event(
                "response.function_call_arguments.done",
                **place,
                name=item["name"],
                arguments=item["arguments"],
            )
        yield event("response.output_item.done", output_index=index, item=item)
    final = _response(request, reply, made, _output(reply, made))
    kind = "response.incomplete" if final["status"] == "incomplete" else "response.completed"
    yield event(kind, response=final)


def _output(reply: FakeReply, made: Mapping[str, Any]) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    if reply.reasoning_tokens:
        items.append({"id": f"rs_{made['number']}", "type": "reasoning", "summary": []})
    if reply.tool_calls:
        for call in reply.tool_calls:
            items.append(
                {
                    "id": f"fc_{made['number']}",
                    "type": "function_call",
                    "status": "completed",
                    "call_id": call.id,
                    "name": call.name,
                    "arguments": json.dumps(dict(call.arguments)),
                }
            )
        return items
    content = (
        {"type": "refusal", "refusal": reply.refusal}
        if reply.refusal
        else {"type": "output_text", "text": reply.text, "annotations": [], "logprobs": []}
    )
    items.append(
        {
            "id": f"msg_{made['number']}",
            "type": "message",
            "status": "completed",
            "role": "assistant",
            "content": [content],
        }
    )
    return items


def _response(
    request: FakeRequest,
    reply: FakeReply,
    made: Mapping[str, Any],
    output: list[dict[str, Any]],
    status: str = "",
) -> dict[str, Any]:
    reasons = {"length": "max_output_tokens", "filter": "content_filter"}
    reason = reasons.get(reply.finish_reason)
    is_final = not status
    answer: dict[str, Any] = {
        "id": reply.response_id or f"resp_{made['number']}",
        "object": "response",
        "created_at": made["created"],
        "status": status or ("incomplete" if reason else "completed"),
        "error": None,
        "incomplete_details": {"reason": reason} if reason and is_final else None,
        "instructions": request.body.get("instructions"),
        "max_output_tokens": request.body.get("max_output_tokens"),
        "model": reply.model or request.model,
        "output": output,
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": request.body.get("tools") or [],
        "top_p": 1.0,
        "metadata": {},
        "service_tier": reply.service_tier or "default",
        "usage": None,
    }
    if is_final and reply.has_usage:
        answer["usage"] = {
            "input_tokens": reply.input_tokens,
            "input_tokens_details": {
                "cached_tokens": reply.cached_input_tokens,
                "cache_write_tokens": reply.cache_write_input_tokens,
            },
            "output_tokens": reply.output_tokens,
            "output_tokens_details": {"reasoning_tokens": reply.reasoning_tokens},
            "total_tokens": reply.input_tokens + reply.output_tokens,
        }
    return answer


# ---- embeddings -----------------------------------------------------------------------------------------


def embeddings(request: FakeRequest, reply: FakeReply, made: Mapping[str, Any]) -> dict[str, Any]:
    given = request.body.get("input")
    texts = given if isinstance(given, list) and given and not isinstance(given[0], int) else [given]
    length = request.body.get("dimensions") or reply.vectors
    data = []
    for index, text in enumerate(texts):
        numbers: Any = vector(length, len(str(text)))
        if request.body.get("encoding_format") == "base64":
            numbers = base64.b64encode(struct.pack(f"<{length}f", *numbers)).decode()
        data.append({"object": "embedding", "index": index, "embedding": numbers})
    answer: dict[str, Any] = {"object": "list", "data": data, "model": reply.model or request.model}
    if reply.has_usage:
        answer["usage"] = {"prompt_tokens": reply.input_tokens, "total_tokens": reply.input_tokens}
    return {**answer, **reply.extra}
