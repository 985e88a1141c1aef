"""A provider's outage in the middle of 10,000 calls at 50 a second, seen by the application and by the watch."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import tierlight
from tierlight.routing import CallableProvider, Policy, Router
from tierlight.routing.breaker import BreakerBoard, Change
from tierlight.testing import FrozenClock, capture_calls
from tierlight_collector.records import Filters
from tierlight_dashboard.serve import ServeSettings, serving_in_thread

POLICY = """
schema = 1
[defaults]
deadline_s = 10.0
[target.nano]
provider = "openai"
model = "gpt-5.4-nano"
fallback = ["flash"]
[target.flash]
provider = "google"
model = "gemini-2.5-flash-lite"
tier = "small"
fallback = ["nano"]
[route.intent]
target = "nano"
"""
CALLS, A_SECOND = 10_000, 50
DOWN_FROM_S, DOWN_UNTIL_S = 80.0, 120.0
START_NS = 1_764_000_000_000_000_000


class Unavailable(Exception):
    """What a client library raises for a 503."""

    status_code = 503


@dataclass
class Outage:
    """Two providers on a frozen clock, of which one is down for a while, and an application that goes on asking."""

    clock: FrozenClock
    changes: list[tuple[float, Change]]
    router: Router
    asked: Counter[str]

    @property
    def now_s(self) -> float:
        return (self.clock.now_ns - START_NS) / 1e9

    def play(self, each: Callable[[int], None] = lambda n: None) -> list[str]:
        """Every call's target, in order; a failure of any call ends the test."""
        answered = []
        for n in range(CALLS):
            due_ns = START_NS + n * 1_000_000_000 // A_SECOND
            self.clock.now_ns = max(self.clock.now_ns, due_ns)
            begun = self.now_s
            answered.append(self.router.chat("intent", "where is it").target)
            assert self.now_s - begun <= 10.0
            each(n)
        return answered


def outage() -> Outage:
    clock, changes, asked = FrozenClock(START_NS), [], Counter[str]()
    answer = {
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 5},
    }

    def send(target: Any, request: Any) -> dict[str, Any]:
        now_s = (clock.now_ns - START_NS) / 1e9
        asked[target.name] += 1
        clock.advance(0.004)
        if target.provider == "openai" and DOWN_FROM_S <= now_s < DOWN_UNTIL_S:
            raise Unavailable
        return {**answer, "model": target.model}

    provider = CallableProvider(send)
    board = BreakerBoard(lambda change: changes.append(((clock.now_ns - START_NS) / 1e9, change)))
    router = Router(
        Policy.from_toml(POLICY),
        providers={"openai": provider, "gcp.gemini": provider},
        board=board,
        clock=clock,
        sleep=clock.advance,
        rng=random.Random(1),
    )
    return Outage(clock, changes, router, asked)


def test_no_call_fails_and_the_breaker_opens_and_closes() -> None:
    scene = outage()
    with capture_calls(clock=scene.clock) as calls:
        answered = scene.play()
    states = [(change.before, change.after) for _, change in scene.changes]
    assert states[0] == ("closed", "open")
    assert states[-1] == ("half_open", "closed")
    opened, closed = scene.changes[0][0], scene.changes[-1][0]
    assert DOWN_FROM_S < opened < DOWN_FROM_S + 2
    assert (
        DOWN_UNTIL_S <= closed < DOWN_UNTIL_S + 60 + 1
    )  # two cool-downs of 30 and 60 s began at the opening
    assert set(answered[: int(DOWN_FROM_S * A_SECOND)]) == {"nano"}
    assert set(answered[int(closed * A_SECOND) + 1 :]) == {"nano"}
    # While it is open, the sick provider is asked by single probes only.
    failures = [call for call in calls if call.is_error]
    assert len(failures) < 20
    routes = [call for call in calls if call.attributes["tierlight.span.role"] == "route"]
    attempts = [call for call in calls if call.attributes["tierlight.span.role"] == "call"]
    assert len(routes) == CALLS
    diverted = [call for call in routes if call.attributes["tierlight.call.fallbacks"]]
    assert len(diverted) == answered.count("flash")
    assert len(attempts) == sum(scene.asked.values()) == CALLS + len(failures)
    around = {call.span_id: call.id for call in routes}
    assert all(around[call.parent_span_id or 0] == call.id for call in attempts)
    assert all(call.input_tokens == 100 for call in attempts if not call.is_error)


@pytest.mark.slow
def test_the_watch_raises_the_failover_alert_and_resolves_it(tmp_path: Path) -> None:
    scene = outage()
    settings = ServeSettings(
        store=f"sqlite:///{tmp_path / 'calls.db'}", http_port=0, grpc_port=None, port=0, watch_every_s=3600
    )
    with serving_in_thread(settings) as running:
        tierlight.configure(endpoint=running.otlp_url, spool=False, clock=scene.clock)
        opened: list[str] = []
        resolved: list[str] = []

        def look(n: int) -> None:
            if n % 500 == 499:
                assert tierlight.flush(20)
                report = running.watch.tick(scene.clock.now_ns)
                opened.extend(alert.kind for alert in report.opened)
                resolved.extend(alert.kind for alert in report.resolved)

        scene.play(look)
        tierlight.shutdown()
        rows = running.store.calls(Filters(error=False), limit=1000).rows
    assert "failover" in opened
    assert sorted(opened) == sorted(resolved)
    assert all(row.call.cost_nusd for row in rows)
