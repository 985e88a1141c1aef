"""What is set on the page is in force at once: how long things are kept, prices, floors by tier; and what a start fixes is locked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from dashboard import seed
from tierlight_collector.forward import ForwardTarget
from tierlight_collector.redaction import Redaction
from tierlight_collector.stores import Retention
from tierlight_dashboard.advice import decided
from tierlight_dashboard.channels import Notifications
from tierlight_dashboard.notify import Webhook
from tierlight_dashboard.serve import Running, ServeSettings, retention_of, serving_in_thread

if TYPE_CHECKING:
    from dashboard.conftest import Browser

DAY_NS = seed.DAY_NS


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    settings = ServeSettings(
        f"sqlite:///{tmp_path / 's.db'}", http_port=0, grpc_port=None, port=0, watch_every_s=0, clock=lambda: seed.NOW_NS,
        retention=Retention(contents_days=9), fixed_days=("contents_days",), redaction=Redaction([("ticket", "TCK-[0-9]{6}")]),
        notifications=Notifications((Webhook("https://hooks.example/SECRET", secret="s3cret", resolver=lambda host, port: ["10.0.0.1"]),)),
        targets=(ForwardTarget("tempo", "http://127.0.0.1:9/x", headers={"authorization": "Bearer s3cret"}),),
    )  # fmt: skip
    with serving_in_thread(settings) as running:
        yield running


@pytest.fixture
def visitor(running: Running) -> Iterator[Visitor]:
    with httpx.Client(base_url=running.dashboard_url, trust_env=False) as client:
        yield Visitor(client)


class Visitor:
    """A browser at a running server."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client

    def page(self) -> str:
        return self.client.get("/settings").text

    def post(self, path: str, **fields: str) -> httpx.Response:
        found = re.search(r'name="csrf" value="([0-9a-f]+)"', self.page())
        assert found
        return self.client.post(path, data={"csrf": found.group(1), **fields})


def test_a_shorter_time_deletes_and_a_fixed_one_is_locked(running: Running, visitor: Visitor) -> None:
    seed.fill(running.store, days=20, volume=0.05, with_decisions=False)
    page = visitor.page()
    assert "fixed at 9 by --keep-content-days" in page
    assert re.search(r'name="keep\.contents_days"[^>]* disabled', page)
    oldest = min(r.first_ns for r in running.store.routes())
    assert oldest < seed.NOW_NS - 15 * DAY_NS
    wrong = visitor.post("/settings/data", **{"keep.calls_days": "0"})
    assert wrong.status_code == 422
    assert "expected a number of days from 1 to 36500" in wrong.text
    answer = visitor.post(
        "/settings/data", **{"keep.contents_days": "1", "keep.spans_days": "", "keep.calls_days": "5"}
    )
    assert answer.status_code == 303
    assert "keep.contents_days" not in running.store.settings(), "what the start fixes is not kept"
    running.store.retain()
    kept = running.store.calls(limit=1, descending=False).rows[0].call.start_ns
    assert kept >= (seed.NOW_NS // DAY_NS - 5) * DAY_NS


def test_no_secret_is_on_the_page_and_all_sections_are(visitor: Visitor) -> None:
    page = visitor.page()
    assert "s3cret" not in page
    assert "SECRET" not in page
    for words in (
        "hooks.example",
        "tempo",
        "127.0.0.1:9",
        "ticket",
        "Answers to the host names",
        "SQLite",
        "Tokens",
    ):
        assert words in page


def test_the_test_button_sends_and_the_log_says_what_came_of_it(visitor: Visitor) -> None:
    assert visitor.post("/settings/test").status_code == 303
    log = visitor.client.get("/alerts/rules").text
    assert "not told" in log
    assert "[tierlight test] notifications work" in log
    assert "SECRET" not in log


def test_an_export_is_paused_and_tried_again(visitor: Visitor) -> None:
    assert visitor.post("/settings/export", target="tempo", do="pause").status_code == 303
    assert ">paused<" in visitor.page()
    visitor.post("/settings/export", target="tempo", do="resume")
    assert ">paused<" not in visitor.page()
    assert visitor.post("/settings/export", target="none", do="pause").status_code == 404
    assert visitor.post("/settings/export", target="tempo", do="drop").status_code == 422


def test_saved_times_hold_after_a_restart_unless_the_start_fixes_them() -> None:
    settings = ServeSettings("", retention=Retention(calls_days=30), fixed_days=("calls_days",))
    saved = {"keep.calls_days": "7", "keep.spans_days": "3", "keep.contents_days": "x"}
    assert retention_of(settings, saved) == Retention(14, 3, 30)


def test_a_floor_of_a_tier_holds_for_its_routes_until_one_has_its_own(desk: Browser) -> None:
    tiers = {info.route: info.declared_tier for info in desk.store.routes()}
    route = next(route for route, tier in tiers.items() if tier == "mid")
    answer = desk.post("/settings/tiers", **{"tier_floor:mid": "91%", "tier_margin:small": "3%"})
    assert answer.status_code == 303
    set_there = decided(desk.store)
    assert set_there.floor_of(route) == 0.91
    assert set_there.floor_of("a route nobody knows") == 0.88
    small = next((route for route, tier in tiers.items() if tier == "small"), "")
    assert set_there.margin_of(small) == (0.03 if small else None)
    desk.post("/settings/route", route=route, floor="70%")
    assert decided(desk.store).floor_of(route) == 0.7
