"""Answers are kept while they are good, renewed behind the reader's back, and dropped when somebody changed something."""

from __future__ import annotations

from concurrent.futures import Executor, Future
from typing import Any

import pytest

from tierlight_dashboard.views import memory
from tierlight_dashboard.views.memory import Memory


class Later(Executor):
    """Runs what was handed in when the test says so."""

    def __init__(self) -> None:
        self.waiting: list[Any] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.waiting.append(lambda: fn(*args, **kwargs))
        return Future()

    def run(self) -> None:
        for work in self.waiting:
            work()
        self.waiting.clear()


class Source:
    """Counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self) -> int:
        self.asked += 1
        return self.asked


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr("tierlight_dashboard.views.memory.time.monotonic", lambda: now[0])
    return now


def test_a_good_answer_is_not_asked_again(clock: list[float]) -> None:
    kept, source = Memory(Later(), 1.0), Source()
    assert [kept.get("k", source) for _ in range(5)] == [1] * 5


def test_a_stale_answer_is_given_at_once_and_renewed_once(clock: list[float]) -> None:
    later = Later()
    kept, source = Memory(later, 1.0), Source()
    kept.get("k", source)
    clock[0] += 5
    assert [kept.get("k", source) for _ in range(3)] == [1, 1, 1]
    assert len(later.waiting) == 1
    later.run()
    assert kept.get("k", source) == 2


def test_an_answer_too_old_is_waited_for(clock: list[float]) -> None:
    kept, source = Memory(Later(), 1.0), Source()
    kept.get("k", source)
    clock[0] += memory.STALE_S + 2
    assert kept.get("k", source) == 2


def test_an_answer_from_before_a_change_does_not_come_back(clock: list[float]) -> None:
    later = Later()
    kept, source = Memory(later, 1.0), Source()
    kept.get("k", source)
    clock[0] += 5
    kept.get("k", source)
    kept.forget()
    later.run()
    assert kept.get("k", source) == 3, "asked anew, the renewal of before was dropped"


def test_a_failure_is_not_kept(clock: list[float]) -> None:
    kept = Memory(Later(), 1.0)
    with pytest.raises(ZeroDivisionError):
        kept.get("k", lambda: 1 // 0)
    assert kept.get("k", lambda: 7) == 7


def test_memory_is_bounded(clock: list[float]) -> None:
    kept, source = Memory(Later(), 1.0), Source()
    for number in range(memory.MOST_KEPT + 1):
        kept.get(str(number), source)
    asked = source.asked
    kept.get("0", source)
    assert source.asked == asked + 1


def test_nothing_is_kept_where_that_was_asked_for() -> None:
    kept, source = Memory(Later(), 0), Source()
    assert [kept.get("k", source), kept.get("k", source)] == [1, 2]
