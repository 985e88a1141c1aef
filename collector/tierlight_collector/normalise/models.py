"""Model names: one spelling, and whether two of them are the same family."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

# Gateways: what stands before the slash is part of the model's id there.
ROUTERS: Final = frozenset({"openrouter", "huggingface", "vercel", "together_ai", "fireworks", "cloudflare"})

_SNAPSHOT: Final = re.compile(r"(?:[-@](?:\d{4}-\d{2}-\d{2}|\d{8}|\d{3}|latest)|-v\d+:\d+)$")
_REGION: Final = re.compile(r"^(?:us|eu|apac|global|jp|au|us-gov)\.(?=[a-z0-9]+\.)")


@lru_cache(maxsize=4096)
def family(model: str) -> str:
    """The name without region, provider prefix and the date or number of a snapshot, in lower case.

    >>> family("openai/GPT-4o-mini-2024-07-18")
    'gpt-4o-mini'
    """
    name = model.lower().rsplit("/", 1)[-1]
    name = _REGION.sub("", name)
    head, dot, tail = name.partition(".")
    if dot and head in _BEDROCK_VENDORS:
        name = tail
    while True:
        shorter = _SNAPSHOT.sub("", name)
        if shorter == name:
            return name
        name = shorter


_BEDROCK_VENDORS: Final = frozenset(
    {"anthropic", "amazon", "cohere", "meta", "mistral", "ai21", "deepseek", "openai", "qwen", "stability"}
)


def same_family(one: str, other: str) -> bool:
    """Whether two names differ only by what a snapshot adds."""
    return one == other or family(one) == family(other)
