"""Ollama: chat, generate, embed. https://docs.ollama.com/api"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tierlight.testing._wires.reply import Event, FakeError, FakeReply, FakeRequest, vector

_DONE = {"stop": "stop", "length": "length", "tool": "stop", "filter": "stop"}


def error(failure: FakeError) -> dict[str, Any]:
    return {"error": failure.message}


def chat(request: FakeRequest, reply: FakeReply, made: Mapping[str, Any]) -> dict[str, Any]:
    return {**_head(request, reply, made), **_said(request, reply, reply.text), **_end(reply), **reply.extra}


def chat_events(request: FakeRequest, reply: FakeReply, made: Mapping[str, Any]) -> Iterator[Event]:
    head = _head(request, reply, made)
    for piece in [] if reply.tool_calls else reply.pieces():
        yield "", {**head, **_said(request, reply, piece), "done": False}
    yield "", {**head, **_said(request, reply, ""), **_end(reply)}


def embeddings(request: FakeRequest, reply: FakeReply, made: Mapping[str, Any]) -> dict[str, Any]:
    given = request.body.get("input")
    texts = given if isinstance(given, list) else [given]
    return {
        "model": reply.model or request.model,
        "embeddings": [vector(reply.vectors, len(str(text))) for text in texts],
        "total_duration": 1_000_000,
        "load_duration": 0,
        "prompt_eval_count": reply.input_tokens,
        **reply.extra,
    }


def _head(request: FakeRequest, reply: FakeReply, made: Mapping[str, Any]) -> dict[str, Any]:
    return {"model": reply.model or request.model, "created_at": made["created_at"]}


def _said(request: FakeRequest, reply: FakeReply, text: str) -> dict[str, Any]:
    if request.path.endswith("/generate"):
        return {"response": text}
    message: dict[str, Any] = {"role": "assistant", "content": "" if reply.tool_calls else text}
    if reply.tool_calls:
        message["tool_calls"] = [
            {"function": {"name": call.name, "arguments": dict(call.arguments)}} for call in reply.tool_calls
        ]
    return {"message": message}


def _end(reply: FakeReply) -> dict[str, Any]:
    end: dict[str, Any] = {
        "done": True,
        "done_reason": _DONE[reply.finish_reason],
        "total_duration": 1_000_000,
    }
    if reply.has_usage:
        end |= {
            "prompt_eval_count": reply.input_tokens,
            "prompt_eval_duration": 100_000,
            "eval_count": reply.output_tokens,
            "eval_duration": 900_000,
        }
    return end
