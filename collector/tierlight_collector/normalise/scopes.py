"""The three lists in which rules may name an emitter: native scopes, exclusive-cache scopes, known LLM scopes."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

# A provider's own SDK speaking of itself: nearest to the wire, so it wins over every wrapper.
NATIVE_SCOPES: Final = ("com.anthropic.", "com.openai.", "com.google.genai.", "com.cohere.", "com.mistral.")

# Instrumentations that send Anthropic's own count: input without its cached parts.
EXCLUSIVE_CACHE_SCOPES: Final = (
    "openlit.instrumentation.anthropic",
    "openlit.instrumentation.bedrock",
    "com.anthropic.claude_code",
    "opentelemetry.instrumentation.bedrock",  # the Converse API's own count; its total leaves the cached parts out
)


@lru_cache(maxsize=1024)
def is_native_scope(scope: str) -> bool:
    return scope.startswith(NATIVE_SCOPES)


@lru_cache(maxsize=1024)
def counts_cache_apart(scope: str) -> bool:
    return scope.startswith(EXCLUSIVE_CACHE_SCOPES)
