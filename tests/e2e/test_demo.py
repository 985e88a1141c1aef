"""`tierlight demo`: the week is played through the real SDK and server."""

from __future__ import annotations

import random

import pytest

from tierlight_dashboard.demo import play
from tierlight_dashboard.demo.provider import Provider, RateLimitError, SimulatedClock
from tierlight_dashboard.demo.support import DAY_S, SupportDesk, arrivals


def test_a_played_week_arrives_whole_and_is_judged() -> None:
    said: list[str] = []
    play(port=0, http_port=0, tickets_per_day=100, once=True, say=said.append)
    text = "\n".join(said)
    calls = next(line for line in said if "calls in" in line)
    assert int(calls.split()[0].replace(",", "")) > 100 * 6 * 4
    assert calls.endswith(", 0 lost")
    assert "alerts (" in text
    for route in ("support/reply", "support/classify-intent", "support/daily-digest"):
        assert route in text


def test_tickets_are_fewer_on_a_weekend() -> None:
    monday = 4 * DAY_S  # 5 January 1970
    days = [0] * 8
    for at in arrivals(random.Random(1), 1_000, monday):
        days[int(at // DAY_S)] += 1
    assert max(days[5:7]) < min(days[:5])


def test_a_rate_limited_provider_ends_neither_a_ticket_nor_the_day(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RateLimitError("429: too many requests")

    clock = SimulatedClock(0)
    provider = Provider(clock, random.Random(1))
    for method in ("chat", "embed", "rerank"):
        monkeypatch.setattr(provider, method, refuse)
    desk = SupportDesk(provider, clock, random.Random(1), 0)
    desk.answer()
    desk.end_day()
    assert clock.now_ns > 0
