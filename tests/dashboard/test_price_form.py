"""A price of one's own, set on the page of models: kept, used, taken back; and pricing stored calls again."""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING, Any

import pytest

from dashboard import seed
from tierlight.pricing import PriceBook
from tierlight_collector.prices import OwnPrice, as_setting, as_toml, open_book, own_prices
from tierlight_collector.records import Filters
from tierlight_dashboard.views.recost import Recost

if TYPE_CHECKING:
    from dashboard.conftest import Browser

MODEL = {"provider": "openai", "model": "acme-support-ft-7"}
PRICE = {**MODEL, "input": "0.5", "output": "2"}


def unpriced(desk: Browser) -> int:
    return len(desk.store.calls(Filters(model=(MODEL["model"],), unpriced=True), limit=500).rows)


def test_a_price_is_set_looked_at_and_applied(desk: Browser) -> None:
    taken: list[PriceBook] = []
    desk = type(desk)(desk.store, take_book=taken.append)
    waiting = unpriced(desk)
    assert waiting > 0
    assert "Set a price" in desk.text("/models")
    answer = desk.post("/models/price", **PRICE, cached_input="", valid_from="2026-01-01")
    assert answer.headers["location"] == "/models?done=priced"
    assert len(taken) == 1, "the server prices by the new book"
    page = desk.text("/models?done=priced")
    assert f"would change {waiting} of {waiting}" in page
    assert unpriced(desk) == waiting, "a look changes nothing"
    desk.post("/models/recost", do="apply", model=MODEL["model"])
    assert unpriced(desk) == 0
    row = desk.store.calls(Filters(model=(MODEL["model"],)), limit=1).rows[0].call
    assert row.input_tokens is not None
    assert row.output_tokens is not None
    assert row.cost_nusd == row.input_tokens * 500 + row.output_tokens * 2_000
    assert row.cost_source == "user"
    page = desk.text("/models")
    assert f"{waiting} of {waiting} calls priced anew" in page
    assert "Take back" in page


def test_a_price_of_the_same_day_goes_in_its_place_and_can_be_taken_back(desk: Browser) -> None:
    desk.post("/models/price", **PRICE)
    desk.post("/models/price", **{**PRICE, "input": "0.75"})
    assert own_prices(desk.store.settings()) == [OwnPrice(**{**PRICE, "input": "0.75"})]
    assert desk.post("/models/price/remove", **MODEL, valid_from="").status_code == 303
    assert own_prices(desk.store.settings()) == []
    assert desk.post("/models/price/remove", **MODEL, valid_from="").status_code == 404


@pytest.mark.parametrize(
    ("field", "text", "told"),
    [
        ("input", "", "expected US dollars"),
        ("input", "-1", "expected US dollars"),
        ("output", "NaN", "expected US dollars"),
        ("output", "1e400", "expected US dollars"),
        ("cached_input", "cheap", "expected US dollars"),
        ("valid_from", "tomorrow", "expected a date"),
        ("model", "*", "expected a name without *"),
    ],
)
def test_a_wrong_price_is_told_beside_its_field_and_changes_nothing(
    desk: Browser, field: str, text: str, told: str
) -> None:
    answer = desk.post("/models/price", **{**PRICE, field: text})
    assert answer.status_code == 422
    assert told in answer.text or field == "model"
    assert own_prices(desk.store.settings()) == []


@pytest.mark.parametrize("name", [*seed.HOSTILE_TEXTS, 'a"\nfree = true\nmodel = "*"', "\x7f\x00", "ü😀"])
def test_a_hostile_name_is_only_a_name_in_the_price_file(name: str) -> None:
    book = open_book(own=[OwnPrice("openai", name, "1", "1"), OwnPrice("openai", "other", "2", "2")])
    assert book.quote("openai", "third", seed.NOW_NS) is None
    other = book.quote("openai", "other", seed.NOW_NS)
    assert other is not None
    assert other.input_usd == 2
    assert as_toml([OwnPrice("openai", name, "1", "1")]).count(b"\n[[price]]") == 0


def test_what_is_kept_comes_back() -> None:
    rows = [OwnPrice(**PRICE), OwnPrice("x", 'say "hi"', "1", "2", "0.1", "2026-01-01")]
    assert own_prices({"prices.own": as_setting(rows)}) == rows


def test_a_run_can_be_stopped_and_only_one_goes_on(desk: Browser) -> None:
    entered, leave = threading.Event(), threading.Event()

    class Slow:
        def calls(self, *given: Any, **more: Any) -> Any:
            entered.set()
            assert leave.wait(10)
            return desk.store.calls(*given, **more)

    recost = Recost(Slow())  # type: ignore[arg-type]
    assert recost.start(PriceBook.default(), "", does=False)
    assert entered.wait(10)
    assert not recost.start(PriceBook.default(), "", does=True), "one at a time"
    recost.stop()
    leave.set()
    recost.wait(10)
    ended = [recost.course.state]
    assert recost.start(PriceBook.default(), "nothing", does=False)
    recost.wait(10)
    ended.append(recost.course.state)
    assert ended == ["stopped", "done"]


def test_an_order_nobody_knows_starts_nothing(desk: Browser) -> None:
    assert desk.post("/models/recost", do="drop").status_code == 422
    assert not re.search(r"so far|would change \d", desk.text("/models"))
