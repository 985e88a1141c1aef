"""Prices known from the providers' own pages, one row a case; dollars are exact."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from tierlight.pricing import Cost, PriceBook, Unpriced, Usage

NOV_24 = datetime(2026, 11, 24, tzinfo=UTC)
MILLION = Usage(input_tokens=1_000_000, output_tokens=1_000_000)


def _price(usage: Usage, provider: str, model: str, at: datetime = NOV_24, context: str = "") -> Cost:
    cost = PriceBook.default().price(usage, provider, model, at, context=context)
    assert isinstance(cost, Cost), cost
    assert cost.nusd == sum(
        (cost.input_nusd, cost.cached_nusd, cost.cache_write_nusd, cost.output_nusd, cost.other_nusd)
    )
    return cost


@pytest.mark.parametrize(
    ("provider", "model", "usage", "usd"),
    [
        pytest.param("openai", "gpt-4o-mini", Usage(1500, 56, 1024), "0.0001818", id="cached"),
        pytest.param("openai", "gpt-4o-mini", Usage(120, 34), "0.0000384", id="plain"),
        pytest.param(
            "anthropic", "claude-sonnet-4-5", Usage(1700, 58, 1024, 256), "0.0033972", id="read-and-write"
        ),
        pytest.param(
            "anthropic", "claude-sonnet-4-5", Usage(1700, 58, 1024, 256, 100), "0.0036222", id="1h-write"
        ),
        pytest.param("anthropic", "claude-haiku-4-5", Usage(151, 37), "0.000336", id="haiku"),
        pytest.param("openai", "o4-mini", Usage(80, 900, reasoning_tokens=832), "0.004048", id="reasoning"),
        pytest.param("gcp.gemini", "gemini-2.5-flash", Usage(80, 900), "0.002274", id="gemini"),
        pytest.param("openai", "text-embedding-3-small", Usage(17), "0.00000034", id="embedding"),
        pytest.param("groq", "llama-3.3-70b-versatile", Usage(120, 34), "0.00009766", id="groq"),
        pytest.param("cohere", "command-a-03-2025", Usage(60, 34), "0.00049", id="cohere"),
        pytest.param("gcp.gemini", "gemini-2.5-pro", Usage(200_000, 0), "0.250", id="last-of-short-prompt"),
        pytest.param(
            "gcp.gemini", "gemini-2.5-pro", Usage(200_001, 0), "0.5000025", id="first-of-long-prompt"
        ),
        pytest.param(
            "anthropic", "claude-sonnet-4-5", Usage(0, 0, web_searches=100), "1.00", id="web-search"
        ),
        pytest.param("cohere", "rerank-v3.5", Usage(queries=3), "0.006", id="rerank-by-query"),
        pytest.param(
            "aws.bedrock",
            "anthropic.claude-sonnet-4-5-20250929-v1:0",
            Usage(1_000_000, 0),
            "3",
            id="bedrock-global",
        ),
        pytest.param(
            "aws.bedrock",
            "eu.anthropic.claude-sonnet-4-5-20250929-v1:0",
            Usage(1_000_000, 0),
            "3.30",
            id="bedrock-eu",
        ),
    ],
)
def test_known_price(provider: str, model: str, usage: Usage, usd: str) -> None:
    assert _price(usage, provider, model).usd == Decimal(usd)


@pytest.mark.parametrize(
    ("day", "usd"), [(datetime(2025, 6, 9, tzinfo=UTC), 50), (datetime(2025, 6, 11, tzinfo=UTC), 10)]
)
def test_price_of_the_day_of_the_call_holds(day: datetime, usd: int) -> None:
    assert _price(MILLION, "openai", "o3", day).usd == usd


@pytest.mark.parametrize(("hour", "usd"), [(3, "1.37"), (12, "1.37"), (17, "0.685"), (20, "0.685")])
def test_price_of_the_hour_of_the_call_holds(hour: int, usd: str) -> None:
    at = datetime(2025, 6, 1, hour, tzinfo=UTC)
    assert _price(MILLION, "deepseek", "deepseek-chat", at).usd == Decimal(usd)


@pytest.mark.parametrize(
    ("context", "usd"),
    [
        ("", "2.25"),
        ("default", "2.25"),
        ("flex", "1.125"),
        ("batch", "1.125"),
        ("priority", "4.05"),
        ("bulk", "2.25"),
    ],
)
def test_service_tier_changes_the_price_only_when_known(context: str, usd: str) -> None:
    assert _price(MILLION, "openai", "gpt-5-mini", context=context).usd == Decimal(usd)


@pytest.mark.parametrize(
    ("provider", "model", "usage", "reason"),
    [
        pytest.param("openai", "gpt-5-turbo", MILLION, "unknown_model", id="model-nobody-sells"),
        pytest.param("acme", "gpt-5", MILLION, "unknown_provider", id="provider-nobody-knows"),
        pytest.param("", "gpt-5", MILLION, "unknown_provider", id="no-provider"),
        pytest.param("ollama", "llama3.2", MILLION, "no_unit_price", id="own-machine-is-not-free"),
        pytest.param("openai", "gpt-5", Usage(), "no_usage", id="no-usage"),
        pytest.param("openai", "gpt-5", Usage(input_tokens=10), "partial_usage", id="no-output-count"),
        pytest.param("openai", "gpt-5", Usage(output_tokens=10), "partial_usage", id="no-input-count"),
        pytest.param(
            "openai", "gpt-5", Usage(10, 1, cached_input_tokens=20), "invalid_usage", id="cached-over-input"
        ),
        pytest.param(
            "openai", "gpt-5", Usage(10, 1, reasoning_tokens=2), "invalid_usage", id="reasoning-over-output"
        ),
        pytest.param("openai", "gpt-5", Usage(-1, 1), "invalid_usage", id="negative"),
        pytest.param(
            "openai", "text-embedding-3-small", Usage(10, 5), "no_unit_price", id="output-of-an-embedder"
        ),
        pytest.param("voyage", "rerank-2.5", Usage(), "no_usage", id="rerank-by-token"),
    ],
)
def test_call_without_a_sure_price_has_no_cost(provider: str, model: str, usage: Usage, reason: str) -> None:
    result = PriceBook.default().price(usage, provider, model, NOV_24)
    assert isinstance(result, Unpriced)
    assert result.reason == reason


def test_known_part_of_a_partial_usage_is_the_floor() -> None:
    result = PriceBook.default().price(Usage(input_tokens=1000), "openai", "gpt-4o-mini", NOV_24)
    assert result == Unpriced("partial_usage", floor_nusd=150_000)


def test_rerank_call_without_count_is_one_query_and_estimated() -> None:
    cost = _price(Usage(), "cohere", "rerank-v3.5")
    assert (cost.usd, cost.estimated, cost.price_version[:3]) == (Decimal("0.002"), True, "ll:")


def test_price_without_history_is_estimated_before_its_day() -> None:
    book = PriceBook.default()
    for day, estimated in [(datetime(2026, 1, 1, tzinfo=UTC), True), (NOV_24, False)]:
        cost = book.price(Usage(queries=1), "cohere", "rerank-v3.5", day)
        assert isinstance(cost, Cost)
        assert cost.estimated is estimated


@pytest.mark.parametrize(
    ("provider", "model", "day"),
    [
        ("anthropic", "claude-sonnet-4-5", "2026-11-30"),
        ("openai", "gpt-5-mini", "2026-12-11"),
        ("openai", "o3", "2026-12-11"),
        ("openai", "gpt-4o-mini-2024-07-18", "2027-01-14"),
        ("openai", "gpt-4o-mini", "None"),
        ("openai", "gpt-5.1", "2027-04-01"),
        ("google", "gemini-3.1-flash-lite", "2027-05-07"),
        ("acme", "gpt-5", "None"),
    ],
)
def test_retirement_day_is_that_of_exactly_this_name(provider: str, model: str, day: str) -> None:
    assert str(PriceBook.default().retirement(provider, model)) == day
