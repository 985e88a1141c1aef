"""What is read of a complete response: one row a shape."""

from __future__ import annotations

from types import SimpleNamespace as Object
from typing import Any

import pytest

from tierlight import usage_from

CHAT = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "model": "gpt-5-mini-2026-01-01",
    "service_tier": "flex",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}}],
    "usage": {
        "prompt_tokens": 100,
        "completion_tokens": 30,
        "total_tokens": 130,
        "prompt_tokens_details": {"cached_tokens": 40, "cache_write_tokens": 10, "audio_tokens": 5},
        "completion_tokens_details": {"reasoning_tokens": 12, "audio_tokens": 3},
    },
}
RESPONSES = {
    "id": "resp_1",
    "object": "response",
    "model": "gpt-5",
    "status": "completed",
    "output": [{"type": "message", "content": [{"type": "output_text", "text": "hi"}]}],
    "usage": {
        "input_tokens": 100,
        "input_tokens_details": {"cached_tokens": 40},
        "output_tokens": 30,
        "output_tokens_details": {"reasoning_tokens": 12},
        "total_tokens": 130,
    },
}
ANTHROPIC = {
    "id": "msg_1",
    "type": "message",
    "model": "claude-sonnet-4-5",
    "stop_reason": "end_turn",
    "content": [{"type": "text", "text": "hi"}],
    "usage": {
        "input_tokens": 20,
        "cache_read_input_tokens": 70,
        "cache_creation_input_tokens": 10,
        "cache_creation": {"ephemeral_1h_input_tokens": 4, "ephemeral_5m_input_tokens": 6},
        "output_tokens": 30,
        "output_tokens_details": {"thinking_tokens": 12},
        "service_tier": "standard",
    },
}
GEMINI = {
    "responseId": "g1",
    "modelVersion": "gemini-2.5-pro",
    "candidates": [{"finishReason": "STOP", "content": {"parts": [{"text": "hi"}]}}],
    "usageMetadata": {
        "promptTokenCount": 90,
        "toolUsePromptTokenCount": 10,
        "cachedContentTokenCount": 40,
        "candidatesTokenCount": 18,
        "thoughtsTokenCount": 12,
        "totalTokenCount": 130,
        "promptTokensDetails": [
            {"modality": "AUDIO", "tokenCount": 5},
            {"modality": "TEXT", "tokenCount": 85},
        ],
        "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 18}],
    },
}
BEDROCK = {
    "output": {"message": {"role": "assistant", "content": [{"text": "hi"}]}},
    "stopReason": "end_turn",
    "usage": {"inputTokens": 60, "cacheReadInputTokens": 40, "outputTokens": 30, "totalTokens": 130},
    "ResponseMetadata": {"RequestId": "r-1"},
}

ROWS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    (
        "OpenAI chat",
        CHAT,
        {
            "operation": "chat",
            "provider": "openai",
            "response_id": "chatcmpl-1",
            "finish_reasons": ("stop",),
            "input_tokens": 100,
            "output_tokens": 30,
            "cached_input_tokens": 40,
            "cache_write_input_tokens": 10,
            "reasoning_tokens": 12,
            "audio_input_tokens": 5,
            "audio_output_tokens": 3,
            "service_tier": "flex",
        },
    ),
    (
        "OpenAI Responses",
        RESPONSES,
        {
            "provider": "openai",
            "finish_reasons": ("completed",),
            "input_tokens": 100,
            "output_tokens": 30,
            "cached_input_tokens": 40,
            "reasoning_tokens": 12,
        },
    ),
    (
        "Anthropic counts the cache beside the input",
        ANTHROPIC,
        {
            "provider": "anthropic",
            "finish_reasons": ("end_turn",),
            "input_tokens": 100,
            "output_tokens": 30,
            "cached_input_tokens": 70,
            "cache_write_input_tokens": 10,
            "cache_write_1h_input_tokens": 4,
            "reasoning_tokens": 12,
            "service_tier": "standard",
        },
    ),
    (
        "Gemini counts thoughts and tool results beside",
        GEMINI,
        {
            "operation": "generate_content",
            "provider": "gcp.gemini",
            "model": "gemini-2.5-pro",
            "response_id": "g1",
            "finish_reasons": ("STOP",),
            "input_tokens": 100,
            "output_tokens": 30,
            "cached_input_tokens": 40,
            "reasoning_tokens": 12,
            "audio_input_tokens": 5,
            "text_input_tokens": 85,
            "image_output_tokens": 18,
        },
    ),
    (
        "Bedrock Converse counts the cache beside the input",
        BEDROCK,
        {"provider": "aws.bedrock", "input_tokens": 100, "output_tokens": 30, "cached_input_tokens": 40},
    ),
    (
        "Ollama",
        {
            "model": "llama3.2",
            "message": {"role": "assistant", "content": "hi"},
            "done": True,
            "done_reason": "stop",
            "prompt_eval_count": 9,
            "eval_count": 3,
        },
        {"provider": "ollama", "finish_reasons": ("stop",), "input_tokens": 9, "output_tokens": 3},
    ),
    (
        "Cohere chat: tokens, not billed units",
        {
            "id": "c1",
            "finish_reason": "COMPLETE",
            "message": {"role": "assistant", "content": [{"type": "text", "text": "hi"}]},
            "usage": {
                "billed_units": {"input_tokens": 6.0, "output_tokens": 3.0},
                "tokens": {"input_tokens": 12.0, "output_tokens": 3.0},
            },
        },
        {"provider": "cohere", "finish_reasons": ("COMPLETE",), "input_tokens": 12, "output_tokens": 3},
    ),
    (
        "Cohere rerank is billed by the search, so it has no tokens",
        {
            "id": "r1",
            "results": [{"index": 0, "relevance_score": 0.9}],
            "meta": {"billed_units": {"search_units": 1.0}},
        },
        {"operation": "rerank", "provider": "cohere", "input_tokens": None, "output_tokens": None},
    ),
    (
        "OpenAI embeddings",
        {
            "object": "list",
            "model": "text-embedding-3-small",
            "data": [{"embedding": [0.1]}],
            "usage": {"prompt_tokens": 7, "total_tokens": 7},
        },
        {"operation": "embeddings", "provider": "openai", "input_tokens": 7, "output_tokens": None},
    ),
    (
        "OpenAI images",
        {
            "created": 1,
            "data": [{"b64_json": "aGk="}],
            "usage": {
                "input_tokens": 50,
                "output_tokens": 4000,
                "total_tokens": 4050,
                "input_tokens_details": {"text_tokens": 10, "image_tokens": 40},
            },
        },
        {"operation": "image", "input_tokens": 50, "image_input_tokens": 40, "output_tokens": 4000},
    ),
    (
        "transcription",
        {
            "text": "hello",
            "usage": {
                "type": "tokens",
                "input_tokens": 14,
                "input_token_details": {"audio_tokens": 14},
                "output_tokens": 4,
                "total_tokens": 18,
            },
        },
        {"operation": "audio", "audio_input_tokens": 14, "output_tokens": 4},
    ),
]


def as_objects(value: Any) -> Any:
    """The same shape as a client library's objects."""
    if isinstance(value, dict):
        return Object(**{name: as_objects(one) for name, one in value.items()})
    return [as_objects(one) for one in value] if isinstance(value, list) else value


@pytest.mark.parametrize(("name", "response", "expected"), ROWS, ids=[row[0] for row in ROWS])
def test_dicts_and_objects_of_a_shape_are_read_alike(
    name: str, response: dict[str, Any], expected: dict[str, Any]
) -> None:
    for shaped in (response, as_objects(response)):
        facts = usage_from(shaped)
        assert facts is not None
        assert {field: getattr(facts, field) for field in expected} == expected


@pytest.mark.parametrize(
    "nothing",
    ["text", None, 7, [], {}, {"answer": 42}, {"results": [1]}, {"output": "done"}, object(), {"usage": 3}],
    ids=repr,
)
def test_what_is_no_response_gives_nothing(nothing: object) -> None:
    assert usage_from(nothing) is None


def test_an_absent_or_absurd_number_is_unknown_and_not_0() -> None:
    facts = usage_from(
        {"model": "m", "choices": [], "usage": {"prompt_tokens": -3, "completion_tokens": True}}
    )
    assert facts is not None
    assert (facts.input_tokens, facts.output_tokens, facts.has_usage) == (None, None, False)


def test_parts_larger_than_their_total_are_dropped() -> None:
    facts = usage_from(
        {
            "model": "m",
            "choices": [],
            "usage": {
                "prompt_tokens": 5,
                "completion_tokens": 1,
                "prompt_tokens_details": {"cached_tokens": 9},
            },
        }
    )
    assert facts is not None
    assert (facts.input_tokens, facts.cached_input_tokens) == (5, None)


def test_reasoning_beside_the_output_is_added_to_it() -> None:
    facts = usage_from(
        {
            "model": "grok-4",
            "choices": [],
            "usage": {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "total_tokens": 35,
                "completion_tokens_details": {"reasoning_tokens": 20},
            },
        }
    )
    assert facts is not None
    assert (facts.output_tokens, facts.reasoning_tokens) == (25, 20)


def test_a_refusal_in_words_is_told_from_a_stop() -> None:
    answer = {"finish_reason": "stop", "message": {"content": None, "refusal": "I cannot help with that."}}
    facts = usage_from({"model": "gpt-5", "choices": [answer]})
    assert facts is not None
    assert facts.is_refusal
    assert facts.finish_reasons == ("refusal",)


@pytest.mark.parametrize(
    ("response", "reasons"),
    [
        (
            {
                "model": "gpt-5",
                "choices": [
                    {"finish_reason": "tool_calls", "message": {"tool_calls": [{"id": "a"}, {"id": "b"}]}}
                ],
            },
            ("tool_calls",),
        ),
        (
            {
                "object": "response",
                "status": "completed",
                "output": [{"type": "function_call"}, {"type": "function_call"}],
            },
            ("tool_calls",),
        ),
        (
            {"stop_reason": "tool_use", "content": [{"type": "tool_use"}, {"type": "tool_use"}], "usage": {}},
            ("tool_use",),
        ),
        (
            {
                "candidates": [
                    {
                        "finishReason": "STOP",
                        "content": {
                            "parts": [{"functionCall": {"name": "g"}}, {"functionCall": {"name": "f"}}]
                        },
                    }
                ]
            },
            ("STOP",),
        ),
    ],
    ids=["chat", "Responses", "Anthropic", "Gemini"],
)
def test_tool_calls_are_counted(response: dict[str, Any], reasons: tuple[str, ...]) -> None:
    facts = usage_from(response)
    assert facts is not None
    assert facts.finish_reasons == reasons
    assert facts.tool_calls == 2


@pytest.mark.parametrize(
    ("details", "reason"),
    [({"reason": "max_output_tokens"}, "incomplete"), ({"reason": "content_filter"}, "content_filter")],
)
def test_an_incomplete_response_says_why(details: dict[str, str], reason: str) -> None:
    facts = usage_from(
        {"object": "response", "status": "incomplete", "incomplete_details": details, "output": []}
    )
    assert facts is not None
    assert facts.finish_reasons == (reason,)


def test_a_gateway_s_own_cost_is_kept() -> None:
    facts = usage_from(
        {
            "model": "openai/gpt-5",
            "choices": [],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "cost": 0.0004},
        }
    )
    assert facts is not None
    assert facts.cost_usd == 0.0004
