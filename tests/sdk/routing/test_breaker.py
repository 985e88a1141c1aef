"""The breaker as a state machine, and the cases that people rely on."""

from __future__ import annotations

import logging

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tierlight.routing.breaker import Breaker, BreakerBoard, Change, log_change
from tierlight.routing.declared import BreakerSettings

SETTINGS = BreakerSettings(
    window_s=60, min_requests=10, failure_rate=0.5, consecutive=5, cooldown_s=30, cooldown_max_s=100
)


def opened(now: float = 0.0) -> Breaker:
    breaker = Breaker(SETTINGS)
    for _ in range(5):
        breaker.fail(now)
    return breaker


def test_consecutive_failures_open_it() -> None:
    breaker = Breaker(SETTINGS)
    for _ in range(4):
        breaker.fail(0)
    assert breaker.state(0) == "closed"
    breaker.fail(0)
    assert breaker.state(0) == "open"
    assert breaker.free_at(0) == 30


def test_half_of_ten_failing_opens_it_and_an_old_failure_is_forgotten() -> None:
    breaker = Breaker(SETTINGS)
    for n in range(10):
        (breaker.fail if n % 2 else breaker.succeed)(float(n))
    assert breaker.state(9) == "open"
    slow = Breaker(SETTINGS)
    for n in range(40):
        (slow.fail if n % 2 else slow.succeed)(n * 30.0)
    assert slow.state(1200) == "closed"


def test_one_probe_is_let_through_and_closes_it() -> None:
    breaker = opened()
    assert not breaker.admit(29.9, 60)
    assert breaker.admit(30, 60)
    assert not breaker.admit(30, 60)
    breaker.succeed(31)
    assert breaker.state(31) == "closed"
    breaker.fail(31)
    assert breaker.state(31) == "closed"


def test_failed_probes_double_the_cool_down_up_to_its_bound() -> None:
    breaker, now, waits = opened(), 0.0, []
    for _ in range(4):
        waits.append(breaker.free_at(now) - now)
        now = breaker.free_at(now)
        assert breaker.admit(now, 60)
        breaker.fail(now)
    assert waits == [30, 60, 100, 100]


def test_a_probe_that_never_reports_does_not_close_the_door_for_good() -> None:
    breaker = opened()
    assert breaker.admit(30, lost_after_s=60)
    assert not breaker.admit(89, 60)
    assert breaker.admit(90, 60)


def test_being_asked_to_wait_is_no_failure() -> None:
    breaker = Breaker(SETTINGS)
    breaker.rest(0, 20)
    assert breaker.state(0) == "closed"
    assert not breaker.is_available(19)
    assert breaker.is_available(20)
    breaker.rest(20, 9_999)
    assert breaker.free_at(20) == 80


def test_a_refused_key_opens_it_for_a_quarter_of_an_hour() -> None:
    breaker = Breaker(SETTINGS)
    breaker.trip(0)
    assert breaker.free_at(0) == 900


def test_a_board_tells_of_changes_once() -> None:
    heard: list[Change] = []
    board = BreakerBoard(heard.append)
    for _ in range(6):
        board.tell("openai/gpt-5", 0.0, SETTINGS, lambda breaker: breaker.fail(0.0), "server")
    assert heard == [Change("openai/gpt-5", "closed", "open", "server")]
    assert not board.is_available("openai/gpt-5", 1.0)
    assert board.is_available("never/tried", 1.0)


def test_a_refused_key_is_a_warning_and_an_outage_a_note(caplog: pytest.LogCaptureFixture) -> None:
    board = BreakerBoard(log_change)
    with caplog.at_level(logging.INFO, "tierlight"):
        board.tell("openai/gpt-5", 0.0, SETTINGS, lambda breaker: breaker.trip(0.0), "auth")
        for _ in range(5):
            board.tell("groq/llama", 0.0, SETTINGS, lambda breaker: breaker.fail(0.0), "server")
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "tierlight.breaker.state target=openai/gpt-5 from=closed to=open cause=auth"),
        ("INFO", "tierlight.breaker.state target=groq/llama from=closed to=open cause=server"),
    ]


class BreakerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker(SETTINGS)
        self.now = 0.0
        self.probes = 0
        self.failures_since_ok = 0

    @rule(seconds=st.floats(0, 40))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def ask(self) -> None:
        before = self.breaker.state(self.now)
        admitted = self.breaker.admit(self.now, lost_after_s=1e9)
        if before == "half_open":
            assert admitted == (self.probes == 0)
            self.probes += admitted
        else:
            assert admitted == (before == "closed")

    @rule()
    def answer_well(self) -> None:
        before = self.breaker.state(self.now)
        self.breaker.succeed(self.now)
        self.probes = 0
        if before != "open":
            assert self.breaker.state(self.now) == "closed"
            self.failures_since_ok = 0

    @rule()
    def answer_badly(self) -> None:
        before = self.breaker.state(self.now)
        self.breaker.fail(self.now)
        self.probes = 0
        self.failures_since_ok += 1
        if before == "half_open":
            assert self.breaker.state(self.now) == "open"

    @invariant()
    def never_open_without_a_cause(self) -> None:
        if self.breaker.state(self.now) != "closed":
            assert self.failures_since_ok > 0
        if not self.probes:
            assert self.breaker.free_at(self.now) <= self.now + SETTINGS.cooldown_max_s


BreakerMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestBreakerMachine = BreakerMachine.TestCase
