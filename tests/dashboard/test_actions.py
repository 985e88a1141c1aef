"""What a person does: each act is a form of ours, has an undo, and leaves an entry."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from dashboard import seed
from tierlight_dashboard.advice import _keep_decided
from tierlight_dashboard.app import create_inner
from tierlight_dashboard.views.site import DashboardSettings

if TYPE_CHECKING:
    from dashboard.conftest import Browser


def of_route(desk: Browser, route: str, state: str) -> int:
    return next(r.id for r in desk.store.recommendations() if r.route == route and r.state == state)


def test_an_alert_is_acknowledged_and_taken_back(desk: Browser) -> None:
    first = desk.store.alerts(states=("open",))[0]
    assert "2<span" in desk.text("/alerts")
    answer = desk.post("/alerts/act", id=str(first.id), do="ack", next="/alerts")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/alerts?done=ack.{first.id}")
    acked = desk.store.alert(first.id)
    assert acked is not None
    assert acked.acknowledged_by == "local"
    page = desk.text(answer.headers["location"])
    assert "Acknowledged." in page
    assert 'value="unack"' in page
    assert "1<span" in page, "the badge counts what waits"
    desk.post("/alerts/act", id=str(first.id), do="unack", next="/alerts")
    back = desk.store.alert(first.id)
    assert back is not None
    assert back.acknowledged_ns is None


@pytest.mark.parametrize(
    ("do", "undo", "state"), [("resolve", "reopen", "resolved"), ("mute", "unmute", "muted")]
)
def test_an_alert_is_put_away_and_brought_back(desk: Browser, do: str, undo: str, state: str) -> None:
    first = desk.store.alerts(states=("open",))[0]
    desk.post("/alerts/act", id=str(first.id), do=do, days="1")
    assert f"alert-{first.id}" in desk.text(f"/alerts?state={state}")
    assert f'id="alert-{first.id}"' not in desk.text("/alerts")
    desk.post("/alerts/act", id=str(first.id), do=undo)
    assert f'id="alert-{first.id}"' in desk.text("/alerts")
    assert len(desk.store.audit()) >= 2


def test_several_alerts_are_acted_on_at_once_and_all_undone(desk: Browser) -> None:
    first, second = desk.store.alerts(states=("open",))
    answer = desk.ask(
        "POST",
        "/alerts/act",
        data={"csrf": desk.token(), "id": [str(first.id), str(second.id)], "do": "ack", "note": "Ben looks"},  # type: ignore[dict-item]
    )
    assert answer.headers["location"] == f"/alerts?done=ack.{first.id}.{second.id}"
    acked = desk.store.alerts(states=("open",))
    assert [a.acknowledged_ns for a in acked] == [seed.NOW_NS] * 2
    assert [a.note for a in acked] == ["Ben looks"] * 2
    page = desk.text(answer.headers["location"])
    assert "2 alerts. Acknowledged." in page
    undo = re.search(
        r'<form method="post" action="/alerts/act">(?:(?!</form>).)*value="unack".*?</form>', page, re.S
    )
    assert undo
    assert re.findall(r'name="id" value="(\d+)"', undo.group()) == [str(first.id), str(second.id)]


def test_an_action_on_several_stops_before_the_first_when_one_is_not_there(desk: Browser) -> None:
    first = desk.store.alerts(states=("open",))[0]
    fields = {"csrf": desk.token(), "id": [str(first.id), "999"], "do": "resolve"}
    assert desk.ask("POST", "/alerts/act", data=fields).status_code == 404  # type: ignore[arg-type]
    kept = desk.store.alert(first.id)
    assert kept is not None
    assert kept.state == "open"
    assert desk.post("/alerts/act", do="ack").status_code == 422, "none was ticked"


def test_a_mute_ends_when_it_was_said_to(desk: Browser) -> None:
    first = desk.store.alerts(states=("open",))[0]
    past = desk.post("/alerts/act", one=f"mute.{first.id}", until="2020-01-01T00:00")
    assert past.status_code == 422
    assert "Expected a time to come" in past.text
    desk.post("/alerts/act", one=f"mute.{first.id}", until="2027-01-31T09:00", zone="Europe/Berlin")
    (mute,) = desk.store.mutes()
    assert (mute.route, mute.signal) == (first.route, first.signal)
    assert mute.until_ns == 1_801_382_400 * 10**9, "nine in Berlin is eight in UTC"
    assert "until 31 Jan" in desk.text("/alerts?state=muted")


def test_sizes_of_alerts_are_previewed_and_kept(desk: Browser) -> None:
    before = desk.text("/alerts/rules")
    assert "1 ticket" in before
    tried = desk.post("/alerts/rules", do="preview", **{"alert.size.page.quality": "3"})
    assert tried.status_code == 200
    assert tried.text.count("1 page") == 2, "the latency alert, and now the quality alert too"
    assert "alert.size.page.quality" not in desk.store.settings(), "a preview keeps nothing"
    wrong = desk.post("/alerts/rules", do="save", **{"alert.size.page.quality": "lots"})
    assert wrong.status_code == 422
    assert "expected a percent above 0" in wrong.text
    desk.post("/alerts/rules", do="save", **{"alert.size.page.quality": "3", "alert.budget.page": "1"})
    assert desk.store.settings()["alert.size.page.quality"] == "0.03"
    assert re.search('name="alert.size.page.quality" value="3"', desk.text("/alerts/rules"))


def test_a_new_normal_is_handed_to_the_watch(desk: Browser) -> None:
    taken: list[tuple[int, str, int]] = []
    first = desk.store.alerts(states=("open",))[0]
    assert desk.post("/alerts/act", id=str(first.id), do="normal").status_code == 422, "no watch, no button"
    assert "New normal" not in desk.text("/alerts")
    watched = type(desk)(desk.store, accept_as_normal=lambda *given: taken.append(given))
    assert "New normal" in watched.text("/alerts")
    assert watched.post("/alerts/act", id=str(first.id), do="normal").status_code == 303
    assert taken == [(first.id, "local", seed.NOW_NS)]


def test_a_test_notification_goes_to_every_target(desk: Browser) -> None:
    sent: list[str] = []
    assert desk.post("/settings/test").status_code == 422
    told = type(desk)(desk.store, targets=("webhook ops",), send_test=lambda: sent.append("x"))
    assert "webhook ops" in told.text("/settings")
    assert told.post("/settings/test").status_code == 303
    assert sent == ["x"]


def test_a_move_is_approved_and_taken_back(desk: Browser) -> None:
    ready = of_route(desk, "answer_customer", "ready")
    desk.post("/recommendations/act", id=str(ready), do="ship")
    assert of_route(desk, "answer_customer", "shipped") == ready
    again = desk.post("/recommendations/act", id=str(ready), do="ship")
    assert again.status_code == 422, "an approved move cannot be approved again"
    desk.post("/recommendations/act", id=str(ready), do="unship")
    assert of_route(desk, "answer_customer", "ready") == ready


def test_a_dismissal_needs_its_reason(desk: Browser) -> None:
    ready = of_route(desk, "answer_customer", "ready")
    assert desk.post("/recommendations/act", id=str(ready), do="dismiss", note=" ").status_code == 422
    desk.post("/recommendations/act", id=str(ready), do="dismiss", note="contract until March")
    assert "contract until March" in desk.text("/routes/answer_customer")


def test_a_recommendation_is_snoozed_until_a_day(desk: Browser) -> None:
    ready = of_route(desk, "answer_customer", "ready")
    assert (
        desk.post("/recommendations/act", id=str(ready), do="dismiss", note="x", days="1e9").status_code
        == 422
    )
    desk.post("/recommendations/act", id=str(ready), do="dismiss", note="freeze", days="30")
    row = desk.store.recommendation(ready)
    assert row is not None
    assert (row.state, row.dismissed_until_ns) == ("dismissed", seed.NOW_NS + 30 * seed.DAY_NS)
    assert "Dismissed until 24 Dec" in desk.text("/routes/answer_customer")
    fresh = replace(row, state="ready", dismissed_reason="", dismissed_until_ns=None)
    for later, state in ((29, "dismissed"), (31, "ready")):
        (kept,) = _keep_decided(desk.store, [fresh], [], seed.NOW_NS + later * seed.DAY_NS)
        assert kept.state == state
    desk.post("/recommendations/act", id=str(ready), do="restore")
    back = desk.store.recommendation(ready)
    assert back is not None
    assert back.dismissed_until_ns is None


def test_an_experiment_is_started_from_a_proposal_and_stopped(desk: Browser) -> None:
    ready = of_route(desk, "answer_customer", "ready")
    answer = desk.post("/experiments/start", id=str(ready), kind="shadow")
    page = desk.text(answer.headers["location"])
    assert "[shadow." in page
    ident = next(
        e.id for e in desk.store.experiments() if e.recommendation_id == ready and e.state == "running"
    )
    desk.post("/experiments/act", id=ident, do="stop")
    assert next(e for e in desk.store.experiments() if e.id == ident).ended_ns == seed.NOW_NS


def test_settings_are_checked_beside_their_field_and_kept(desk: Browser) -> None:
    answer = desk.post(
        "/settings/money", **{"currency.code": "EUR", "currency.symbol": "€", "currency.per_usd": "zero"}
    )
    assert answer.status_code == 422
    assert "expected a number above 0" in answer.text
    assert 'value="zero"' in answer.text, "what was typed is still there"
    assert "currency.code" not in desk.store.settings(), "nothing is stored of a form with an error"
    desk.post(
        "/settings/money", **{"currency.code": "EUR", "currency.symbol": "€", "currency.per_usd": "0.9"}
    )
    assert "€" in desk.text("/")
    assert "$" not in re.sub(
        r"<details.*?</details>|Saves at least.*?Ship|would save.*?month",
        "",
        re.sub(r"<dialog.*", "", desk.text("/"), flags=re.S),
        flags=re.S,
    )


@pytest.mark.parametrize("zone", ["Mars/Base", "../../etc/passwd", "Europe"])
def test_a_zone_that_does_not_exist_is_not_kept(desk: Browser, zone: str) -> None:
    assert desk.post("/settings/view", zone=zone).status_code == 422


def test_a_routes_own_floor_goes_first(desk: Browser) -> None:
    desk.post("/settings/route", route="answer_customer", floor="99%")
    assert "the floor of 99.0 %" in desk.text("/routes/answer_customer")


def test_no_form_is_taken_without_the_sessions_token(desk: Browser) -> None:
    app = create_inner(desk.store, DashboardSettings())
    paths = {
        path.replace("{name}", "money")
        for path, methods in app.openapi()["paths"].items()
        if "post" in methods and not path.startswith("/api/")
    }
    assert len(paths) >= 6
    before = len(desk.store.audit())
    other = desk.token()
    for path in paths:
        fields = {"id": "1", "do": "ack", "currency.code": "EUR"}
        assert desk.ask("POST", path, data=fields).status_code == 403, path
        assert desk.ask("POST", f"{path}?csrf={other}", data=fields).status_code == 403, path
        stranger = dict(desk.cookies)
        desk.cookies = {}
        assert desk.ask("POST", path, data={**fields, "csrf": other}).status_code == 403, path
        desk.cookies = {**stranger, f"tierlight_{4319}": "another session"}
        assert desk.ask("POST", path, data={**fields, "csrf": other}).status_code == 403, path
        desk.cookies = stranger
    assert len(desk.store.audit()) == before
    assert desk.store.settings().get("currency.code") is None


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://localhost:1"},
    ],
)
def test_a_foreign_page_cannot_act(desk: Browser, headers: dict[str, str]) -> None:
    answer = desk.ask(
        "POST", "/alerts/act", headers=headers, data={"csrf": desk.token(), "id": "1", "do": "ack"}
    )
    assert answer.status_code == 403


@pytest.mark.parametrize(
    "to", ["//evil.example", "https://evil.example/", "/\\evil.example", "javascript:alert(1)"]
)
def test_nobody_is_sent_to_another_host(desk: Browser, to: str) -> None:
    first = desk.store.alerts(states=("open",))[0]
    assert (
        desk.post("/alerts/act", id=str(first.id), do="ack", next=to).headers["location"].split("?")[0] == "/"
    )


@pytest.mark.parametrize("ident", ["", "x", "-1", "99999999999999999999", "1 OR 1=1"])
def test_an_id_that_is_none_is_not_found(desk: Browser, ident: str) -> None:
    assert desk.post("/alerts/act", id=ident, do="ack").status_code == 404
    assert desk.post("/recommendations/act", id=ident, do="ship").status_code == 404
