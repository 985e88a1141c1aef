"""When a target is left alone: one state machine per (provider, model), shared by all routers of a process.

    closed --failures--> open --cool-down over--> half_open --probe ok--> closed
                          ^------------------------probe fails (cool-down doubled)

Time is passed in, in seconds of any clock that does not run backwards.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from .declared import BreakerSettings

log = logging.getLogger("tierlight")

State = Literal["closed", "half_open", "open"]

TRIPPED_S: Final = 900.0  # a refused key or a model that is gone does not heal in seconds
RATE_LIMIT_MAX_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Change:
    """A breaker went from one state to another."""

    key: str
    before: State
    after: State
    cause: str


class Breaker:
    """The state of one target. Not safe for threads; `BreakerBoard` is."""

    __slots__ = (
        "_consecutive",
        "_cooldown_s",
        "_is_open",
        "_open_until",
        "_probe_until",
        "_rested_until",
        "_settings",
        "_window",
    )

    def __init__(self, settings: BreakerSettings) -> None:
        self._settings = settings
        self._window: deque[tuple[int, int, int]] = deque()  # second, requests, failures
        self._consecutive = 0
        self._is_open = False
        self._open_until = 0.0
        self._cooldown_s = settings.cooldown_s
        self._probe_until: float | None = None  # a probe is under way, and lost after this
        self._rested_until = 0.0  # told by Retry-After to wait; not a failure

    def state(self, now: float) -> State:
        """What holds at that moment."""
        if not self._is_open:
            return "closed"
        return "half_open" if now >= self._open_until else "open"

    def is_available(self, now: float) -> bool:
        """Whether a request may be sent: not while open or resting, nor beside a probe."""
        if now < self._rested_until:
            return False
        state = self.state(now)
        if state == "half_open":
            return self._probe_until is None or now >= self._probe_until
        return state == "closed"

    def free_at(self, now: float) -> float:
        """When it can be tried again at the earliest."""
        waits = [now, self._rested_until]
        if self._is_open:
            waits += [self._open_until, self._probe_until or 0.0]
        return max(waits)

    def admit(self, now: float, lost_after_s: float) -> bool:
        """Take the right to send a request; in half-open exactly one caller gets it.

        Args:
            lost_after_s: a probe that has reported nothing by then is taken as lost.
        """
        if not self.is_available(now):
            return False
        if self._is_open:
            self._probe_until = now + lost_after_s
        return True

    def release(self) -> None:
        """The request ended without saying anything of the target (cancelled, refused by itself)."""
        self._probe_until = None

    def succeed(self, now: float) -> None:
        """The target answered."""
        if self._is_open and self.state(now) == "half_open":
            self._is_open = False
            self._window.clear()
            self._cooldown_s = self._settings.cooldown_s
        self._probe_until = None
        if not self._is_open:
            self._consecutive = 0
            self._count(now, 0)

    def fail(self, now: float) -> None:
        """The target failed by its own fault."""
        self._probe_until = None
        if self._is_open:
            if self.state(now) == "half_open":
                self._cooldown_s = min(
                    self._cooldown_s * 2, max(self._settings.cooldown_max_s, self._settings.cooldown_s)
                )
                self._open_until = now + self._cooldown_s
            return
        self._consecutive += 1
        requests, failures = self._count(now, 1)
        settings = self._settings
        if self._consecutive >= settings.consecutive or (
            requests >= settings.min_requests and failures >= settings.failure_rate * requests
        ):
            self._open(now, settings.cooldown_s)

    def trip(self, now: float, seconds: float = TRIPPED_S) -> None:
        """Open at once, for a cause that only a person can remove."""
        self._probe_until = None
        self._open(now, seconds)

    def rest(self, now: float, seconds: float) -> None:
        """Leave it alone for a while because it asked for that; no failure is counted."""
        self._probe_until = None
        self._rested_until = max(self._rested_until, now + min(seconds, RATE_LIMIT_MAX_S))

    def _open(self, now: float, seconds: float) -> None:
        self._is_open = True
        self._open_until = now + seconds
        self._window.clear()
        self._consecutive = 0

    def _count(self, now: float, failed: int) -> tuple[int, int]:
        second = int(now)
        if self._window and self._window[-1][0] == second:
            _, requests, failures = self._window.pop()
            self._window.append((second, requests + 1, failures + failed))
        else:
            self._window.append((second, 1, failed))
        while self._window[0][0] <= second - self._settings.window_s:
            self._window.popleft()
        return sum(one[1] for one in self._window), sum(one[2] for one in self._window)


class BreakerBoard:
    """The breakers of all targets by key; safe for threads. `listen` hears of every change of state."""

    def __init__(self, listen: Callable[[Change], None] | None = None) -> None:
        self._breakers: dict[str, Breaker] = {}
        self._lock = threading.Lock()
        self.listen = listen

    def state(self, key: str, now: float) -> State:
        """The state of a target; one that was never tried is closed."""
        with self._lock:
            breaker = self._breakers.get(key)
            return breaker.state(now) if breaker is not None else "closed"

    def is_available(self, key: str, now: float) -> bool:
        """Whether a request to the target may be sent."""
        with self._lock:
            breaker = self._breakers.get(key)
            return breaker is None or breaker.is_available(now)

    def free_at(self, key: str, now: float) -> float:
        """When the target can be tried again at the earliest."""
        with self._lock:
            breaker = self._breakers.get(key)
            return now if breaker is None else breaker.free_at(now)

    def admit(self, key: str, now: float, lost_after_s: float, settings: BreakerSettings) -> bool:
        """Take the right to send one request."""
        with self._lock:
            breaker = self._breakers.get(key)
            if breaker is None:
                breaker = self._breakers[key] = Breaker(settings)
            return breaker.admit(now, lost_after_s)

    def tell(
        self, key: str, now: float, settings: BreakerSettings, act: Callable[[Breaker], None], cause: str
    ) -> Change | None:
        """Report how a request ended; gives the change of state that it made."""
        with self._lock:
            breaker = self._breakers.get(key)
            if breaker is None:
                breaker = self._breakers[key] = Breaker(settings)
            before = breaker.state(now)
            act(breaker)
            after = breaker.state(now)
        if before == after:
            return None
        change = Change(key, before, after, cause)
        if self.listen is not None:
            self.listen(change)
        return change


def log_change(change: Change) -> None:
    """Say that a target was left alone or taken back; a warning where only a person can heal it."""
    level = logging.WARNING if change.cause in ("auth", "model_gone") else logging.INFO
    log.log(
        level,
        "tierlight.breaker.state target=%s from=%s to=%s cause=%s",
        change.key,
        change.before,
        change.after,
        change.cause,
    )


SHARED: Final = BreakerBoard(log_change)
"""The breakers of this process: what one router learns of a target, the others know."""
