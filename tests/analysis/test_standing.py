"""The verdict of `tierlight check`, and who is silenced by a mute."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest

from tierlight_collector.decisions import Alert, AlertMute, Severity
from tierlight_dashboard.analysis.standing import Standing, TestState, check_result, is_muted

ALERT = Alert(
    id=1,
    kind="quality",
    signal="quality:right",
    scope="route",
    route="answer",
    model="gpt-4",
    severity="ticket",
    state="open",
    opened_ns=1,
    resolved_ns=None,
    change_ns=1,
    change_from_ns=1,
    change_to_ns=1,
    before=0.84,
    after=0.8,
    effect_low=-0.05,
    effect_high=-0.01,
    unit="share",
    calls_since_change=500,
    log_evidence=9.0,
    log_threshold=8.0,
    sentence="Quality (right) of answer: 80.0 %, was 84.0 %.",
)


def standing(state: TestState, route: str = "answer", learned: int = 300) -> Standing:
    return Standing(
        ("calls", route, "m", "", ""), "errors", "route", state, 0.0, learned, 300, 0.99, (), inf, 10
    )


@pytest.mark.parametrize(
    ("alert", "fail_on", "passes"),
    [
        (ALERT, "ticket", False),
        (ALERT, "page", True),
        (ALERT, "info", False),
        (replace(ALERT, severity="page"), "page", False),
        (replace(ALERT, state="recovering"), "ticket", False),
        (replace(ALERT, state="resolved"), "ticket", True),
        (replace(ALERT, route="other"), "ticket", True),
    ],
)
def test_only_an_open_alert_as_grave_as_asked_fails(alert: Alert, fail_on: Severity, passes: bool) -> None:
    result = check_result([alert], [], [standing("steady")], "answer", fail_on, 5)
    assert result.passes is passes
    assert result.alerts == (() if passes else (alert,))


def test_every_route_is_meant_by_no_route() -> None:
    assert not check_result([ALERT], [], [standing("steady")], "", "ticket", 5).passes


def test_a_muted_alert_does_not_fail() -> None:
    mute = AlertMute("answer", "quality:right", 10, "ada")
    assert check_result([ALERT], [mute], [standing("steady")], "answer", "ticket", 9).passes
    assert not check_result([ALERT], [mute], [standing("steady")], "answer", "ticket", 10).passes


def test_a_pass_without_evidence_says_so() -> None:
    nothing = check_result([], [], [], "answer", "page", 5)
    learning = check_result([], [], [standing("learning", learned=140)], "answer", "page", 5)
    assert nothing.passes
    assert "no test has seen a call" in nothing.sentence
    assert "learning, 140 of 300" in learning.sentence
    assert check_result([], [], [standing("steady")], "answer", "page", 5).sentence == (
        "answer passes: 1 test without an open alert."
    )


def test_a_pass_of_one_route_says_how_soon_a_drop_would_be_seen() -> None:
    quality = replace(
        standing("steady"),
        signal="quality:judge_ok",
        null=0.84,
        level=(0.86,),
        threshold=1e4,
        calls_a_day=100.0,
    )
    one = check_result([], [], [standing("steady"), quality], "answer", "page", 5).sentence
    assert one.endswith(
        "2 tests without an open alert. At this budget a drop to 76 % takes about 433 calls, 4.3 days."
    )
    rare = check_result([], [], [replace(quality, calls_a_day=1.0)], "answer", "page", 5).sentence
    assert "a drop to 76 % is not visible within 30 days at this volume" in rare
    assert "budget" not in check_result([], [], [quality], "", "page", 5).sentence


def test_mutes_cover_what_they_name() -> None:
    assert is_muted(ALERT, [AlertMute("", "", None, "ada")], 5)
    assert is_muted(ALERT, [AlertMute("answer", "", None, "ada")], 5)
    assert not is_muted(ALERT, [AlertMute("answer", "errors", None, "ada")], 5)
    assert not is_muted(ALERT, [AlertMute("other", "", None, "ada")], 5)
