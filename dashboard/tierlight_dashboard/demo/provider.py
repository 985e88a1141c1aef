"""A local look-alike of model providers: answers in their shapes, with believable tokens, waits and mistakes.

No text is generated and no network is used; what is real is everything downstream of the answer.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace
from typing import Any

SECOND_NS = 1_000_000_000

Answer = dict[str, Any]  # a provider's answer as decoded JSON


class SimulatedClock:
    """A clock that stands still until it is told to move; serves as wall clock and as timer."""

    def __init__(self, start_ns: int) -> None:
        self.now_ns = start_ns

    def time_ns(self) -> int:
        return self.now_ns

    def perf_ns(self) -> int:
        return self.now_ns

    def advance(self, seconds: float) -> None:
        """Let this much time pass."""
        self.now_ns += round(seconds * SECOND_NS)


class RateLimitError(Exception):
    """The look-alike's 429."""

    status_code = 429


@dataclass(frozen=True, slots=True)
class Model:
    """How one model behaves on one kind of work: mean tokens and seconds, and its share of right answers."""

    provider: str
    name: str
    input_tokens: float
    output_tokens: float
    seconds: float
    right: float = 1.0
    cached: float = 0.0
    rate_limited: float = 0.002

    def but(self, **changes: Any) -> Model:
        """The same model, changed."""
        return replace(self, **changes)


class Provider:
    """Answers calls; time passes on the clock while it does."""

    def __init__(self, clock: SimulatedClock, rng: random.Random) -> None:
        self._clock = clock
        self._rng = rng
        self._answers = 0

    def chat(self, model: Model) -> tuple[Answer, bool]:
        """A chat answer in the provider's shape, and whether it is right.

        Raises:
            RateLimitError: in a small share of calls.
        """
        if self._rng.random() < model.rate_limited:
            self._clock.advance(0.2)
            raise RateLimitError("429: too many requests")
        tokens_in = self._about(model.input_tokens, 0.25)
        tokens_out = self._about(model.output_tokens, 0.45)
        self._clock.advance(model.seconds * math.exp(self._rng.gauss(0.0, 0.35)))
        cached = int(tokens_in * model.cached)
        self._answers += 1
        return _SHAPES[model.provider](
            f"answer-{self._answers}", model.name, tokens_in, tokens_out, cached
        ), (self._rng.random() < model.right)

    def embed(self, model: Model) -> Answer:
        """An embedding answer in OpenAI's shape."""
        tokens = self._about(model.input_tokens, 0.25)
        self._clock.advance(model.seconds * math.exp(self._rng.gauss(0.0, 0.3)))
        return {
            "object": "list",
            "model": model.name,
            "data": [{"object": "embedding", "index": 0, "embedding": [0.0]}],
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }

    def rerank(self, model: Model) -> Answer:
        """A rerank answer in Cohere's shape."""
        self._clock.advance(model.seconds * math.exp(self._rng.gauss(0.0, 0.3)))
        self._answers += 1
        return {
            "id": f"rerank-{self._answers}",
            "results": [{"index": 0, "relevance_score": round(self._rng.betavariate(5, 2), 3)}],
            "meta": {"billed_units": {"search_units": 1}},
        }

    def _about(self, mean: float, spread: float) -> int:
        return max(1, round(mean * math.exp(self._rng.gauss(-(spread**2) / 2, spread))))


def _openai(answer: str, model: str, tokens_in: int, tokens_out: int, cached: int) -> Answer:
    return {
        "id": answer,
        "object": "chat.completion",
        "model": model,
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "…"}}],
        "usage": {
            "prompt_tokens": tokens_in,
            "completion_tokens": tokens_out,
            "total_tokens": tokens_in + tokens_out,
            "prompt_tokens_details": {"cached_tokens": cached},
        },
    }


def _anthropic(answer: str, model: str, tokens_in: int, tokens_out: int, cached: int) -> Answer:
    return {
        "id": answer,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [{"type": "text", "text": "…"}],
        "stop_reason": "end_turn",
        "usage": {
            "input_tokens": tokens_in - cached,
            "output_tokens": tokens_out,
            "cache_read_input_tokens": cached,
            "cache_creation_input_tokens": 0,
        },
    }


def _gemini(answer: str, model: str, tokens_in: int, tokens_out: int, cached: int) -> Answer:
    return {
        "responseId": answer,
        "modelVersion": model,
        "candidates": [{"content": {"role": "model", "parts": [{"text": "…"}]}, "finishReason": "STOP"}],
        "usageMetadata": {
            "promptTokenCount": tokens_in,
            "candidatesTokenCount": tokens_out,
            "cachedContentTokenCount": cached,
            "totalTokenCount": tokens_in + tokens_out,
        },
    }


_SHAPES = {"openai": _openai, "anthropic": _anthropic, "gcp.gemini": _gemini}
