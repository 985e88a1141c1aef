"""Answers kept for a while: what took long is asked again seldom, and nobody waits for the asking."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Final, TypeVar

T = TypeVar("T")

MOST_KEPT: Final = 256
REST: Final = (
    10.0  # an answer that took t seconds is good for ten times t: at most a tenth of a core goes into it
)
LONGEST_S: Final = 30.0
STALE_S: Final = 60.0  # up to so old an answer is given at once while a new one is being worked out


@dataclass(slots=True)
class _Kept:
    value: Any
    fresh_until: float
    stale_until: float
    is_asked: bool = False


class Memory:
    """Keeps answers by key. `shortest_s` 0 keeps nothing: every question is asked."""

    def __init__(self, executor: Executor, shortest_s: float) -> None:
        self._executor = executor
        self._shortest_s = shortest_s
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._lock = threading.Lock()
        self._generation = 0

    def get(self, key: str, make: Callable[[], T]) -> T:
        """`make()`, or what it gave a while ago; a stale answer is renewed behind the reader's back."""
        if self._shortest_s <= 0:
            return make()
        now = time.monotonic()
        with self._lock:
            generation = self._generation
            kept = self._kept.get(key)
            if kept is not None and now < kept.stale_until:
                self._kept.move_to_end(key)
                if now >= kept.fresh_until and not kept.is_asked:
                    kept.is_asked = True
                    self._executor.submit(self._renew, key, make, generation)
                value: T = kept.value
                return value
        return self._renew(key, make, generation)

    def forget(self) -> None:
        """Keep nothing of before: after a person changed something they must see it."""
        with self._lock:
            self._kept.clear()
            self._generation += 1

    def _renew(self, key: str, make: Callable[[], T], generation: int) -> T:
        begun = time.monotonic()
        try:
            value = make()
        except BaseException:
            with self._lock:
                self._kept.pop(key, None)
            raise
        now = time.monotonic()
        good_for = min(LONGEST_S, max(self._shortest_s, REST * (now - begun)))
        with self._lock:
            if generation == self._generation:  # an answer from before a change must not come back
                self._kept[key] = _Kept(value, now + good_for, now + good_for + STALE_S)
                self._kept.move_to_end(key)
                while len(self._kept) > MOST_KEPT:
                    self._kept.popitem(last=False)
        return value
