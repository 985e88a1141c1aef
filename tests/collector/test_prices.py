"""Prices of the models in use, and list prices fetched on request."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import httpx
import pytest

from tierlight.errors import ConfigurationError
from tierlight.pricing import Cost, PriceBook, Usage
from tierlight_collector import prices
from tierlight_collector.records import Dim, Filters, Rollup, TimeRange

NOV_24 = datetime(2026, 11, 24, tzinfo=UTC)
END_NS = int(NOV_24.timestamp()) * 10**9
LIST = json.dumps(
    [
        {
            "id": "openai",
            "name": "OpenAI",
            "api_pattern": "https://api\\.openai\\.com",
            "models": [
                {"id": "gpt-9", "match": {"equals": "gpt-9"}, "prices": {"input_mtok": 3, "output_mtok": 4.5}}
            ],
        }
    ]
).encode()


class _Sums:
    def rollups(
        self, when: TimeRange, group_by: tuple[Dim, ...] = (), where: Filters = Filters()
    ) -> list[Rollup]:
        assert group_by == ("provider", "model", "tier")
        return [
            Rollup(
                ("openai", "gpt-5-mini", "mid"), calls=10, input_tokens=100, output_tokens=20, cost_nusd=900
            ),
            Rollup(("openai", "house-model", ""), calls=5, unpriced=5),
            Rollup(("anthropic", "claude-sonnet-4-5", "flagship"), calls=2, cost_nusd=5000),
        ]

    def series(self, *_: object, **__: object) -> list[tuple[datetime, Rollup]]:
        raise AssertionError("not asked for here")

    def costs(self, *_: object, **__: object) -> list[tuple[datetime, tuple[str, ...], int]]:
        raise AssertionError("not asked for here")


def test_models_in_use_show_their_price_and_end_unpriced_first() -> None:
    found = prices.prices_in_use(_Sums(), PriceBook.default(), TimeRange(0, END_NS))
    assert [use.model for use in found] == ["house-model", "claude-sonnet-4-5", "gpt-5-mini"]
    house, sonnet, mini = found
    assert (house.quote, house.unpriced, house.retirement) == (None, 5, "")
    assert mini.quote is not None
    assert (mini.quote.input_usd, mini.quote.output_usd) == (Decimal("0.25"), Decimal(2))
    assert (mini.retires, mini.retires_in_days, mini.retirement) == (date(2026, 12, 11), 17, "warning")
    assert (sonnet.retires, sonnet.retirement) == (date(2026, 11, 30), "alert")
    assert mini.other_list is None


def test_lists_that_disagree_are_shown() -> None:
    book = PriceBook.default()
    gaps = {
        row.model: gap
        for row in book.rows()
        if row.provider == "deepseek"
        and (gap := book.disagreement("deepseek", row.model, NOV_24)) is not None
    }
    assert any(abs(gap) > prices.DISAGREEMENT for gap in gaps.values())
    assert book.disagreement("openai", "gpt-5-mini", NOV_24) == 0
    assert book.disagreement("openai", "house-model", NOV_24) is None


def test_table_age_counts_from_the_day_it_was_taken() -> None:
    book = PriceBook.default()
    assert prices.age_days(book, date(2026, 12, 24)) == 30
    assert prices.age_days(book, date(2026, 11, 1)) == 0


def _client(answer: Callable[[httpx.Request], httpx.Response]) -> httpx.Client:
    return httpx.Client(transport=httpx.MockTransport(answer))


def test_fetched_list_prices_are_kept_and_used(tmp_path: Path) -> None:
    path = tmp_path / "prices" / "list.json"
    with _client(lambda request: httpx.Response(200, content=LIST)) as client:
        prices.save_list(prices.fetch_list(client), path)
    book = prices.open_book(listed=path)
    cost = book.price(Usage(1_000_000, 1_000_000), "openai", "gpt-9", NOV_24)
    assert isinstance(cost, Cost)
    assert cost.usd == Decimal("7.5")
    assert len(cost.price_version) == len("gp:") + 8
    assert book.version.startswith(cost.price_version)
    assert [file.name for file in path.parent.iterdir()] == ["list.json"]


def test_own_prices_stand_before_fetched_ones(tmp_path: Path) -> None:
    own, listed = tmp_path / "prices.toml", tmp_path / "list.json"
    own.write_text('[[price]]\nprovider = "openai"\nmodel = "gpt-9"\ndiscount_percent = 20')
    listed.write_bytes(LIST)
    cost = prices.open_book(own, listed).price(Usage(1_000_000, 1_000_000), "openai", "gpt-9", NOV_24)
    assert isinstance(cost, Cost)
    assert cost.usd == 6


def test_no_files_give_the_shared_list_prices(tmp_path: Path) -> None:
    assert prices.open_book(None, tmp_path / "absent.json") is PriceBook.default()


@pytest.mark.parametrize("body", [b"<html>", b"{}", b'[{"id": 1}]', b"[3]"])
def test_answer_that_is_no_price_list_is_refused(body: bytes) -> None:
    with (
        _client(lambda request: httpx.Response(200, content=body)) as client,
        pytest.raises(ConfigurationError, match="list prices can't be read"),
    ):
        prices.fetch_list(client)


def test_failed_fetch_says_that_prices_stay() -> None:
    with (
        _client(lambda request: httpx.Response(503)) as client,
        pytest.raises(prices.PricesUnavailable, match="stay as they are"),
    ):
        prices.fetch_list(client)
    with (
        _client(lambda request: httpx.Response(200)) as client,
        pytest.raises(prices.PricesUnavailable, match="https"),
    ):
        prices.fetch_list(client, "http://example.com/prices.json")
