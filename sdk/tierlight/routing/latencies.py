"""How long each target took lately: the median of its last hour, for routes that have a goal for it."""

from __future__ import annotations

import threading
from collections import deque
from statistics import median
from typing import Final

KEPT_S: Final = 3600.0
MOST_KEPT: Final = 500  # of one target; enough for a median within a few per cent
AGAIN_S: Final = 5.0  # a median is good this long: deciding must not sort each time


class Latencies:
    """Durations of successful attempts by target. Times in seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._taken: dict[str, deque[tuple[float, float]]] = {}
        self._medians: dict[str, tuple[float, float | None]] = {}
        self._lock = threading.Lock()

    def tell(self, target: str, now: float, took_s: float) -> None:
        """A whole answer of a target arrived `took_s` after it was asked."""
        with self._lock:
            self._taken.setdefault(target, deque(maxlen=MOST_KEPT)).append((now, took_s))

    def median_ms(self, target: str, now: float) -> float | None:
        """The median of the last hour, None where nothing is known of it."""
        found = self._medians.get(target)
        if found is not None and now - found[0] < AGAIN_S:
            return found[1]
        with self._lock:
            recent = [took for at, took in self._taken.get(target, ()) if now - at <= KEPT_S]
        value = 1000 * median(recent) if recent else None
        self._medians[target] = (now, value)
        return value
