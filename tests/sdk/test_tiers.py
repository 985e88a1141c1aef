"""The default map from models to tiers, and what could be tried instead of a model."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from tierlight.pricing import PriceBook
from tierlight.tiers import TIERS, adjacent, candidates, capability_of, tier_of

NOV_24 = datetime(2026, 11, 24, tzinfo=UTC)


@pytest.mark.parametrize(
    ("provider", "model", "tier"),
    [
        ("openai", "gpt-3.5-turbo-0125", "mid"),
        ("openai", "gpt-4-turbo", "flagship"),
        ("openai", "gpt-4o", "flagship"),
        ("openai", "gpt-4o-2024-11-20", "flagship"),
        ("openai", "gpt-4o-mini", "mid"),
        ("openai", "gpt-4.1-nano-2025-04-14", "small"),
        ("openai", "gpt-5", "flagship"),
        ("openai", "gpt-5-mini-2025-08-07", "mid"),
        ("openai", "gpt-5-nano", "small"),
        ("openai", "gpt-5-pro", "reasoning"),
        ("openai", "gpt-5.6-luna", "small"),
        ("openai", "gpt-6.1-terra", "mid"),
        ("openai", "gpt-6-sol", "flagship"),
        ("openai", "o1-preview", "reasoning"),
        ("openai", "o3", "reasoning"),
        ("openai", "o4-mini-2025-04-16", "reasoning"),
        ("openai", "gpt-5.3-codex", "specialised"),
        ("openai", "text-embedding-3-small", "specialised"),
        ("openai", "whisper-1", "specialised"),
        ("openai", "gpt-4o-mini-tts", "specialised"),
        ("openai", "gpt-image-1", "specialised"),
        ("openai", "omni-moderation-latest", "specialised"),
        ("openai", "gpt-4-vision-preview", "specialised"),
        ("anthropic", "claude-3-haiku-20240307", "mid"),
        ("anthropic", "claude-haiku-4-5-20251001", "mid"),
        ("anthropic", "claude-haiku-5-5", "small"),
        ("anthropic", "claude-3-7-sonnet-latest", "flagship"),
        ("anthropic", "claude-opus-4-5", "flagship"),
        ("anthropic", "claude-fable-5-2", "reasoning"),
        ("aws.bedrock", "eu.anthropic.claude-sonnet-4-5-20250929-v1:0", "flagship"),
        ("aws.bedrock", "amazon.nova-micro-v1:0", "small"),
        ("aws.bedrock", "meta.llama3-3-70b-instruct-v1:0", "mid"),
        ("gcp.gemini", "gemini-2.5-flash-lite", "small"),
        ("gcp.gemini", "gemini-2.5-flash", "mid"),
        ("gcp.gemini", "gemini-2.5-pro", "flagship"),
        ("gcp.gemini", "gemini-embedding-001", "specialised"),
        ("gcp.gemini", "gemini-2.5-flash-image", "specialised"),
        ("mistral_ai", "ministral-8b-latest", "small"),
        ("mistral_ai", "mistral-medium-latest", "mid"),
        ("mistral_ai", "mistral-large-2411", "flagship"),
        ("mistral_ai", "magistral-medium", "reasoning"),
        ("mistral_ai", "codestral-2508", "specialised"),
        ("deepseek", "deepseek-chat", "mid"),
        ("deepseek", "deepseek-reasoner", "reasoning"),
        ("cohere", "command-r7b-12-2024", "small"),
        ("cohere", "command-r-08-2024", "mid"),
        ("cohere", "command-r-plus", "flagship"),
        ("cohere", "command-a-03-2025", "flagship"),
        ("cohere", "rerank-v3.5", "specialised"),
        ("voyage", "voyage-3-large", "specialised"),
        ("x_ai", "grok-3-mini", "mid"),
        ("x_ai", "grok-4-0709", "flagship"),
        ("x_ai", "grok-4-fast-non-reasoning", "mid"),
        ("x_ai", "grok-4-fast-reasoning", "reasoning"),
        ("moonshot_ai", "kimi-k2-thinking", "reasoning"),
        ("groq", "llama-3.1-8b-instant", "small"),
        ("groq", "llama-3.3-70b-versatile", "mid"),
        ("groq", "openai/gpt-oss-20b", "small"),
        ("groq", "openai/gpt-oss-120b", "mid"),
        ("together_ai", "meta-llama/Meta-Llama-3.1-405B-Instruct-Turbo", "flagship"),
        ("ollama", "llama3.2", "on-device"),
        ("ollama", "gemma3:270m", "on-device"),
        ("vllm", "Qwen/Qwen3-8B", "on-device"),
        ("ollama", "nomic-embed-text", "specialised"),
        ("my-gateway", "house-model", None),
        ("openai", "", None),
    ],
)
def test_well_known_model_has_its_tier(provider: str, model: str, tier: str | None) -> None:
    assert tier_of(provider, model) == tier


def test_every_priced_model_of_the_big_providers_has_a_tier() -> None:
    big = {
        "openai",
        "anthropic",
        "gcp.gemini",
        "mistral_ai",
        "deepseek",
        "cohere",
        "x_ai",
        "moonshot_ai",
        "groq",
    }
    rows = {(row.provider, row.model) for row in PriceBook.default().rows() if row.source == "genai-prices"}
    tiers = {(provider, model): tier_of(provider, model) for provider, model in rows if provider in big}
    assert [name for name, tier in tiers.items() if tier not in TIERS] == []


def test_override_decides_first_match_first() -> None:
    own = {"openai/gpt-5-mini": "small", "my-gateway/*": "mid", "*-mini": "flagship"}
    assert tier_of("openai", "gpt-5-mini", own) == "small"
    assert tier_of("my-gateway", "House-Model", own) == "mid"
    assert tier_of("openai", "gpt-4o-mini", own) == "flagship"
    assert tier_of("openai", "gpt-4o", own) == "flagship"


@pytest.mark.parametrize(
    ("tier", "down", "up"),
    [
        ("on-device", None, "small"),
        ("small", "on-device", "mid"),
        ("mid", "small", "flagship"),
        ("flagship", "mid", "reasoning"),
        ("reasoning", "flagship", None),
        ("specialised", None, None),
        ("unheard-of", None, None),
    ],
)
def test_tiers_follow_one_another(tier: str, down: str | None, up: str | None) -> None:
    assert (adjacent(tier, "down"), adjacent(tier, "up")) == (down, up)


@pytest.mark.parametrize(
    ("model", "capability"),
    [
        ("gpt-5", "chat"),
        ("gemini-2.5-flash-live-preview", "audio"),
        ("text-embedding-3-large", "embeddings"),
        ("bge-reranker-v2-m3", "rerank"),
        ("bge-m3", "embeddings"),
        ("llama-guard-3-8b", "moderation"),
        ("mistral-ocr-latest", "documents"),
        ("dall-e-3", "image"),
    ],
)
def test_capability_is_read_from_the_name(model: str, capability: str) -> None:
    assert capability_of(model) == capability


@pytest.mark.parametrize(
    ("provider", "model", "direction", "first", "tier"),
    [
        ("openai", "gpt-5-mini", "down", "gpt-6-luna", "small"),
        ("openai", "gpt-5.6-sol", "down", "gpt-4o-mini", "mid"),
        ("openai", "gpt-5-mini", "up", "gpt-5.1", "flagship"),
        ("anthropic", "claude-sonnet-4-5", "down", "claude-haiku-4-5", "mid"),
        ("anthropic", "claude-haiku-4-5", "up", "claude-sonnet-5", "flagship"),
        ("gcp.gemini", "gemini-2.5-flash", "down", "gemini-2.5-flash-lite", "small"),
        ("gcp.vertex_ai", "gemini-2.5-flash", "down", "claude-haiku-5-5", "small"),
    ],
)
def test_cheapest_neighbour_comes_first(
    provider: str, model: str, direction: str, first: str, tier: str
) -> None:
    book = PriceBook.default()
    found = candidates(provider, model, direction, book, NOV_24)  # type: ignore[arg-type]
    assert found[0].model == first
    assert {row.provider for row in found} == {provider}
    assert {tier_of(row.provider, row.model) for row in found} == {tier}
    assert {capability_of(row.model) for row in found} == {"chat"}
    if direction == "down":
        now = book.quote(provider, model, NOV_24)
        assert now is not None
        assert all(
            3 * (r.input_usd or 0) + (r.output_usd or 0) < _blend(now.input_usd, now.output_usd)
            for r in found
        )


def _blend(input_usd: Decimal | None, output_usd: Decimal | None) -> Decimal:
    assert input_usd is not None
    assert output_usd is not None
    return 3 * input_usd + output_usd


def test_model_that_retires_within_a_month_is_no_candidate() -> None:
    book = PriceBook.default()
    in_november = {row.model for row in candidates("openai", "gpt-5.6-sol", "down", book, NOV_24)}
    in_june = {
        row.model
        for row in candidates("openai", "gpt-5.6-sol", "down", book, datetime(2026, 6, 1, tzinfo=UTC))
    }
    assert "gpt-5-mini" in in_june
    assert "gpt-5-mini" not in in_november


def test_other_providers_are_looked_at_only_when_named() -> None:
    book = PriceBook.default()
    found = candidates("openai", "gpt-5-mini", "down", book, NOV_24, providers=("openai", "google"))
    assert {row.provider for row in found} == {"openai", "gcp.gemini"}


@pytest.mark.parametrize("model", ["text-embedding-3-large", "house-model"])
def test_model_without_neighbours_has_no_candidates(model: str) -> None:
    assert candidates("openai", model, "down", PriceBook.default(), NOV_24) == []


def test_own_price_row_can_be_a_candidate() -> None:
    toml = b'[[price]]\nprovider = "openai"\nmodel = "house-nano"\ninput = 0.01\noutput = 0.02'
    own = {"openai/house-nano": "small"}
    found = candidates("openai", "gpt-5-mini", "down", PriceBook.from_toml(toml), NOV_24, overrides=own)
    assert (found[0].model, found[0].source) == ("house-nano", "user")
