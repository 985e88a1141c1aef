"""A store that fails or dawdles costs its panel, not the page."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, cast

import pytest

from dashboard import seed
from dashboard.conftest import Browser
from tierlight_collector.errors import StoreError
from tierlight_dashboard.views import site
from tierlight_dashboard.views.report import report

if TYPE_CHECKING:
    from tierlight_collector.stores.protocol import Store


class Ailing:
    """A store with some methods replaced."""

    def __init__(self, store: Store, **methods: Any) -> None:
        self._store, self._methods = store, methods

    def __getattr__(self, name: str) -> Any:
        return self._methods.get(name) or getattr(self._store, name)


def over(store: Store, **methods: Any) -> Browser:
    """A browser over a store with these methods replaced."""
    return Browser(cast("Store", Ailing(store, **methods)))


def broken(*args: object, **kwargs: object) -> Any:
    raise StoreError("disk on fire")


def test_a_failing_question_costs_its_panel_only(desk: Browser) -> None:
    page = over(desk.store, costs=broken).text("/")
    assert page.count("The store could not answer (id ") >= 1
    assert "Routes by cost" in page
    assert "answer_customer" in page
    assert "disk on fire" not in page, "details belong into the log"


def test_a_slow_question_is_not_waited_for(desk: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "PANEL_SECONDS", 0.05)

    def slow(*args: object, **kwargs: object) -> Any:
        time.sleep(0.3)
        return []

    page = over(desk.store, calls=slow).text("/calls")
    assert "This took too long. Narrow the range" in page


def test_a_store_that_answers_nothing_still_gets_a_sentence(desk: Browser) -> None:
    answer = over(desk.store, routes=broken).get("/")
    assert answer.status_code == 503
    assert "reload in a moment" in answer.text
    assert answer.headers["x-incident"]


def test_an_unexpected_fault_shows_its_number_and_nothing_else(desk: Browser) -> None:
    def faulty(*args: object, **kwargs: object) -> Any:
        raise RuntimeError("secret prompt text")

    answer = over(desk.store, alert=faulty).get("/alerts.atom")
    assert answer.status_code == 200
    failed = over(desk.store, alerts=faulty).get("/alerts.atom")
    assert failed.status_code == 500
    assert "secret prompt text" not in failed.text
    assert failed.headers["x-incident"] in failed.text


def test_a_report_of_a_quiet_week_says_so(desk: Browser) -> None:
    assert "No call of this route in the week" in report(
        desk.store, "answer_customer", seed.NOW_NS + 30 * seed.DAY_NS
    )


@pytest.mark.parametrize(
    "path",
    ["/", "/?compare=prev", "/routes?group=prefix", "/calls", "/calls?view=costliest", f"/routes/{seed.DRIFTING}?open=slices", "/simulate", "/models", "/alerts", "/experiments"],
)  # fmt: skip
def test_no_panel_waits_for_another(desk: Browser, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """With one worker a panel inside a panel never gets its turn; many readers at once are the same."""
    monkeypatch.setattr(site, "ThreadPoolExecutor", lambda **options: ThreadPoolExecutor(1))
    assert "took too long" not in Browser(desk.store).text(path)


def test_a_route_page_stands_without_its_calls(desk: Browser) -> None:
    page = over(desk.store, calls=broken, trace=broken).text(f"/routes/{seed.DRIFTING}?open=slices")
    assert page.count("The store could not answer (id ") >= 5, "four lists and the slices"
    assert "Hold." in page
    assert "None in this range" not in page, "unknown is not none"
    assert "disk on fire" not in page
