"""Gemini: generateContent and embedContent. https://ai.google.dev/api

Its `candidatesTokenCount` leaves the thoughts out; the reply's output tokens are total.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tierlight.testing._wires.reply import Event, FakeError, FakeReply, FakeRequest, vector

_FINISH = {"stop": "STOP", "length": "MAX_TOKENS", "tool": "STOP", "filter": "SAFETY"}
_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def error(failure: FakeError) -> dict[str, Any]:
    status = failure.code or _STATUS.get(failure.status, "INTERNAL")
    return {"error": {"code": failure.status, "message": failure.message, "status": status}}


def content(request: FakeRequest, reply: FakeReply, made: Mapping[str, Any]) -> dict[str, Any]:
    return {**_piece(request, reply, made, _parts(reply), is_last=True), **reply.extra}


def content_events(request: FakeRequest, reply: FakeReply, made: Mapping[str, Any]) -> Iterator[Event]:
    pieces = [[{"text": piece}] for piece in reply.pieces()] if not reply.tool_calls else [_parts(reply)]
    for index, parts in enumerate(pieces or [[{"text": ""}]]):
        yield "", _piece(request, reply, made, parts, is_last=index >= len(pieces) - 1)


def embeddings(request: FakeRequest, reply: FakeReply, made: Mapping[str, Any]) -> dict[str, Any]:
    batch = request.body.get("requests")
    count = len(batch) if isinstance(batch, list) else 1
    vectors = [{"values": vector(reply.vectors, n + 1)} for n in range(count)]
    return {"embeddings": vectors} if isinstance(batch, list) else {"embedding": vectors[0]}


def _piece(
    request: FakeRequest,
    reply: FakeReply,
    made: Mapping[str, Any],
    parts: list[dict[str, Any]],
    *,
    is_last: bool,
) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": parts, "role": "model"}, "index": 0}
    if is_last:
        candidate["finishReason"] = _FINISH[reply.finish_reason]
    answer: dict[str, Any] = {
        "candidates": [candidate],
        "modelVersion": reply.model or request.model,
        "responseId": reply.response_id or f"gemini-{made['number']}",
    }
    if reply.has_usage and is_last:
        answer["usageMetadata"] = {
            "promptTokenCount": reply.input_tokens,
            "candidatesTokenCount": reply.output_tokens - reply.reasoning_tokens,
            "totalTokenCount": reply.input_tokens + reply.output_tokens,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": reply.input_tokens}],
        }
        if reply.cached_input_tokens:
            answer["usageMetadata"]["cachedContentTokenCount"] = reply.cached_input_tokens
        if reply.reasoning_tokens:
            answer["usageMetadata"]["thoughtsTokenCount"] = reply.reasoning_tokens
    return answer


def _parts(reply: FakeReply) -> list[dict[str, Any]]:
    if reply.tool_calls:
        return [
            {"functionCall": {"name": call.name, "args": dict(call.arguments)}} for call in reply.tool_calls
        ]
    return [{"text": reply.text}]
