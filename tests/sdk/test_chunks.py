"""What is read of the ends of a stream, one row a provider, whole and cut."""

from __future__ import annotations

from typing import Any

import pytest

import tierlight
from tierlight import semconv as s
from tierlight._chunks import facts_from_chunks
from tierlight._record import FinishedCall

ANTHROPIC: list[dict[str, Any]] = [
    {
        "type": "message_start",
        "message": {
            "id": "msg_1",
            "model": "claude-sonnet-5",
            "usage": {"input_tokens": 20, "cache_read_input_tokens": 80, "output_tokens": 1},
        },
    },
    {"type": "content_block_start", "content_block": {"type": "tool_use"}},
    {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "hi"}},
    {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 30}},
    {"type": "message_stop"},
]
GEMINI: list[dict[str, Any]] = [
    {"modelVersion": "gemini-2.5-pro", "responseId": "g1", "candidates": [{"content": {"parts": [{"text": "h"}]}}], "usageMetadata": {"promptTokenCount": 100, "candidatesTokenCount": 1}},
    {"modelVersion": "gemini-2.5-pro", "responseId": "g1", "candidates": [{"content": {"parts": [{"text": "i"}]}, "finishReason": "STOP"}], "usageMetadata": {"promptTokenCount": 100, "candidatesTokenCount": 18, "thoughtsTokenCount": 12, "totalTokenCount": 130}},
]  # fmt: skip
OLLAMA: list[dict[str, Any]] = [
    {"model": "llama3.2", "message": {"role": "assistant", "content": "h"}, "done": False},
    {"model": "llama3.2", "message": {"content": ""}, "done": True, "done_reason": "stop", "prompt_eval_count": 100, "eval_count": 30},
]  # fmt: skip
COHERE: list[dict[str, Any]] = [
    {"type": "message-start", "id": "c1", "delta": {"message": {"role": "assistant"}}},
    {"type": "content-delta", "delta": {"message": {"content": {"text": "hi"}}}},
    {
        "type": "message-end",
        "delta": {
            "finish_reason": "COMPLETE",
            "usage": {"tokens": {"input_tokens": 100, "output_tokens": 30}},
        },
    },
]
RESPONSES: list[dict[str, Any]] = [
    {"type": "response.created", "response": {"id": "resp_1", "object": "response", "model": "gpt-5", "status": "in_progress", "output": []}},
    {"type": "response.output_text.delta", "delta": "hi"},
    {"type": "response.completed", "response": {"id": "resp_1", "object": "response", "model": "gpt-5", "status": "completed", "output": [], "usage": {"input_tokens": 100, "output_tokens": 30, "total_tokens": 130}}},
]  # fmt: skip
BEDROCK: list[dict[str, Any]] = [
    {"messageStart": {"role": "assistant"}},
    {"contentBlockDelta": {"delta": {"text": "hi"}}},
    {"messageStop": {"stopReason": "end_turn"}},
    {"metadata": {"usage": {"inputTokens": 100, "outputTokens": 30}}},
]
WHOLE = [
    ("Anthropic", ANTHROPIC, "anthropic", ("tool_use",)),
    ("Gemini", GEMINI, "gcp.gemini", ("STOP",)),
    ("Ollama", OLLAMA, "ollama", ("stop",)),
    ("Cohere", COHERE, "cohere", ("COMPLETE",)),
    ("OpenAI Responses", RESPONSES, "openai", ("completed",)),
    ("Bedrock", BEDROCK, "aws.bedrock", ("end_turn",)),
]


@pytest.mark.parametrize(("name", "chunks", "provider", "reasons"), WHOLE, ids=[row[0] for row in WHOLE])
def test_a_whole_stream_gives_totals_and_its_end(
    name: str, chunks: list[dict[str, Any]], provider: str, reasons: tuple[str, ...]
) -> None:
    facts = facts_from_chunks(chunks, is_complete=True)
    assert facts is not None
    assert (facts.input_tokens, facts.output_tokens) == (100, 30)
    assert (facts.provider, facts.finish_reasons, facts.is_partial) == (provider, reasons, False)


@pytest.mark.parametrize(
    ("chunks", "tokens"),
    [
        (ANTHROPIC[:3], (100, None)),
        (GEMINI[:1], (100, 1)),
        (OLLAMA[:1], (None, None)),
        (RESPONSES[:2], (None, None)),
    ],
    ids=["Anthropic", "Gemini", "Ollama", "Responses"],
)
def test_a_cut_stream_gives_what_had_arrived_and_no_placeholder(
    chunks: list[dict[str, Any]], tokens: tuple[int | None, int | None]
) -> None:
    facts = facts_from_chunks(chunks, is_complete=False)
    assert facts is not None
    assert (facts.input_tokens, facts.output_tokens) == tokens
    assert facts.is_partial is (tokens != (None, None))


def test_a_streamed_refusal_is_seen_at_its_start() -> None:
    def delta(**said: Any) -> dict[str, Any]:
        return {"model": "gpt-5", "choices": [{"index": 0, "delta": said}]}

    end = {"model": "gpt-5", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    facts = facts_from_chunks(
        [delta(role="assistant"), delta(refusal="I"), delta(refusal=" cannot"), end], True
    )
    assert facts is not None
    assert facts.is_refusal
    assert facts.finish_reasons == ("refusal",)


def test_texts_of_one_s_own_are_no_chunks() -> None:
    assert facts_from_chunks(["a", "b", 3, None], is_complete=True) is None


def test_memory_does_not_grow_with_the_stream(calls: list[FinishedCall]) -> None:
    import tracemalloc

    def chunks(count: int) -> Any:
        for _ in range(count):
            yield {"model": "m", "choices": [{"index": 0, "delta": {"content": "x" * 100}}]}

    def peak(count: int) -> int:
        stream = tierlight.route("r")(lambda: chunks(count))()
        tracemalloc.start()
        for _ in stream:
            pass
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    peak(10)
    assert peak(5_000) < peak(50) + 5_000
    assert calls[-1].attributes[s.TIERLIGHT_STREAM_COMPLETED] is True


class Unhashable:
    """An iterator of chunks that equals its like, as a client library's may."""

    def __init__(self) -> None:
        self._iterator = iter([{"model": "m", "choices": []}])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Unhashable)

    __hash__ = None  # type: ignore[assignment]

    def __next__(self) -> Any:
        return next(self._iterator)


def test_streams_that_equal_each_other_are_followed_apart(calls: list[FinishedCall]) -> None:
    ask = tierlight.route("r")(Unhashable)
    first, second = ask(), ask()
    next(first)
    del first
    assert [call.attributes[s.TIERLIGHT_OUTCOME] for call in calls] == ["cancelled"]
    assert next(second)
    with pytest.raises(StopIteration):
        next(second)
    assert [call.attributes[s.TIERLIGHT_OUTCOME] for call in calls] == ["cancelled", "ok"]


def test_a_stream_still_open_at_the_end_of_the_process_is_recorded() -> None:
    import subprocess
    import sys

    code = """
import atexit
import tierlight
from tierlight.testing import capture_calls

captured = capture_calls()
calls = captured.__enter__()
atexit.register(lambda: print([call.outcome for call in calls.calls]))
stream = tierlight.route("r")(lambda: iter([{"model": "m", "choices": []}] * 3))()
next(stream)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "['cancelled']\n"
