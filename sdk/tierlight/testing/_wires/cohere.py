"""Cohere: rerank. https://docs.cohere.com/reference/rerank"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tierlight.testing._wires.reply import FakeError, FakeReply, FakeRequest


def error(failure: FakeError) -> dict[str, Any]:
    return {"id": "fake", "message": failure.message}


def rerank(request: FakeRequest, reply: FakeReply, made: Mapping[str, Any]) -> dict[str, Any]:
    documents = request.body.get("documents") or []
    scores = reply.scores or tuple(0.9 / (n + 1) for n in range(len(documents)))
    ranked = sorted(enumerate(scores[: len(documents)]), key=lambda pair: -pair[1])
    top = request.body.get("top_n") or len(ranked)
    return {
        "id": reply.response_id or f"rerank-{made['number']}",
        "results": [{"index": index, "relevance_score": score} for index, score in ranked[:top]],
        "meta": {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}},
        **reply.extra,
    }
