"""What a fake provider is told to answer, in words of no provider."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

FinishReason = Literal["stop", "length", "tool", "filter"]


@dataclass(frozen=True, slots=True)
class FakeToolCall:
    """A tool that the model wants called; `arguments` is what it would write as JSON."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    id: str = "call_1"


@dataclass(frozen=True, slots=True)
class FakeReply:
    """One good answer.

    Args:
        text: What the model says.
        input_tokens: Total, cached parts included, whatever way the provider's API counts.
        output_tokens: Total, reasoning included.
        finish_reason: Put into the provider's own word.
        model: The model that answers; "" = the one asked for.
        response_id: "" = a counted one.
        latency_s: Before the first byte.
        chunk_delay_s: Between the chunks of a stream.
        chunks: Into how many pieces a stream cuts the text; None = one a word.
        cut_after: A stream breaks off after so many chunks of text, without an ending; None = it does not.
        has_usage: Whether the answer tells its tokens.
        vectors: Numbers per embedding.
        scores: Relevance of each document of a rerank request; None = falling from 0.9 in the order given.
        extra: Merged into the top of the JSON answer (not of streams), for fields of a provider's own.
    """

    text: str = "All good."
    input_tokens: int = 12
    output_tokens: int = 3
    cached_input_tokens: int = 0
    cache_write_input_tokens: int = 0
    reasoning_tokens: int = 0
    finish_reason: FinishReason = "stop"
    tool_calls: tuple[FakeToolCall, ...] = ()
    refusal: str = ""
    model: str = ""
    response_id: str = ""
    service_tier: str = ""
    latency_s: float = 0.0
    chunk_delay_s: float = 0.0
    chunks: int | None = None
    cut_after: int | None = None
    has_usage: bool = True
    vectors: int = 4
    scores: tuple[float, ...] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def pieces(self) -> list[str]:
        """The text as a stream sends it."""
        if not self.text:
            return []
        if self.chunks is None:
            words = self.text.split(" ")
            return [word + " " for word in words[:-1]] + words[-1:]
        count = max(1, min(self.chunks, len(self.text)))
        cuts = [len(self.text) * n // count for n in range(count + 1)]
        return [self.text[start:end] for start, end in pairwise(cuts)]


@dataclass(frozen=True, slots=True)
class FakeError:
    """One refusal.

    Args:
        status: HTTP status, such as 429, 500, 529.
        retry_after_s: Sent as `Retry-After`; None = not sent.
        code: The machine word; "" = the provider's usual one for the status.
    """

    status: int = 500
    message: str = "The fake provider was asked to fail."
    code: str = ""
    retry_after_s: float | None = None
    latency_s: float = 0.0


@dataclass(frozen=True, slots=True)
class FakeRequest:
    """What a client sent. `body` is its JSON; `operation` is chat, embeddings or rerank."""

    wire: str
    operation: str
    model: str
    is_streaming: bool
    path: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]

    @property
    def prompt(self) -> str:
        """All text of the request in one string, for a rule that looks for a word in it."""
        keys = (
            "system",
            "systemInstruction",
            "instructions",
            "messages",
            "contents",
            "input",
            "prompt",
            "query",
            "documents",
        )
        return "\n".join(text for key in keys if key in self.body for text in _texts(self.body[key]))


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key in ("text", "content", "parts"):
            if key in value:
                yield from _texts(value[key])
    elif isinstance(value, Iterable):
        for item in value:
            yield from _texts(item)


Event = tuple[str, Mapping[str, Any] | str]
"""One event of a stream: its name ("" = none) and its JSON, or a literal text such as `[DONE]`."""


def vector(length: int, seed: int) -> list[float]:
    """Numbers between -1 and 1 that differ from text to text and not from run to run."""
    return [((seed * 31 + n * 17) % 200 - 100) / 100 for n in range(length)]
