"""What is asked of a model, in words that no provider need share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """What is asked of a model, whichever answers.

    Args:
        operation: chat, embeddings or rerank.
        messages: of a chat, in OpenAI's form.
        inputs: texts to embed, or the documents to rank.
        query: of a rerank.
        settings: max_tokens, temperature, tools, response_format, ...; passed on by the names of OpenAI.
    """

    operation: str = "chat"
    messages: tuple[Mapping[str, Any], ...] = ()
    inputs: tuple[str, ...] = ()
    query: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds for the whole answer, and for its first token where it is streamed."""

    total_s: float
    first_token_s: float
