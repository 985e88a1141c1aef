"""Whether calls that should be scored still are: a missing score is a signal of its own, never a bad score.

Feedback comes late, so a call is judged only when the maturity lag lies behind it, counted on the calls' own
clock; then it was scored in time or it was not. Calls of a route that was never scored are not expected to be.
The queue of young calls is bounded: when it is full, every second call is left out from then on.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from zlib import crc32

from tierlight_collector.records import CallEvidence, ScoreEvidence

from .signals import Observation

LONGEST_QUEUE = 400


@dataclass(slots=True)
class RouteCoverage:
    """The calls of one route that are not yet judged: [arrival number, start, whether scored in time].

    The first `ripe` of them are old enough and wait for the batch's scores only.
    """

    queue: list[list[int]] = field(default_factory=list)
    stride: int = 1
    newest_ns: int = 0
    is_scored: bool = False
    ripe: int = 0

    def encode(self) -> bytes:
        return json.dumps([self.queue, self.stride, self.newest_ns, self.is_scored, self.ripe]).encode()

    @classmethod
    def decode(cls, state: bytes) -> RouteCoverage:
        return cls(*json.loads(state))

    def copy(self) -> RouteCoverage:
        queue = [list(entry) for entry in self.queue]
        return RouteCoverage(queue, self.stride, self.newest_ns, self.is_scored, self.ripe)

    def add_call(self, call: CallEvidence, lag_ns: int) -> None:
        self.newest_ns = max(self.newest_ns, call.start_ns)
        while self.ripe < len(self.queue) and self.queue[self.ripe][1] + lag_ns <= self.newest_ns:
            self.ripe += 1
        if crc32(call.span_id + call.trace_id) % self.stride or call.error_class:
            return
        self.queue.append([call.seq, call.start_ns, 0])
        if len(self.queue) - self.ripe > LONGEST_QUEUE:
            self.stride *= 2
            self.queue[self.ripe :] = self.queue[self.ripe :: 2]

    def add_score(self, score: ScoreEvidence, lag_ns: int) -> None:
        self.is_scored = True
        if score.time_ns - score.call.start_ns <= lag_ns:
            place = bisect_left(self.queue, [score.call.seq])  # the queue is in order of arrival numbers
            if place < len(self.queue) and self.queue[place][0] == score.call.seq:
                self.queue[place][2] = 1

    def mature(self, route: str) -> list[Observation]:
        """The calls whose lag has passed, in arrival order; the rest keeps waiting behind the first young one."""
        done, self.queue, self.ripe = self.queue[: self.ripe], self.queue[self.ripe :], 0
        if not self.is_scored:
            return []
        return [
            Observation(("coverage", route), seq, start, (float(not scored),), "", 1.0, "")
            for seq, start, scored in done
        ]


def touched_routes(calls: Iterable[CallEvidence], scores: Iterable[ScoreEvidence]) -> set[str]:
    """The routes whose coverage a batch may move."""
    routes = {call.route for call in calls if is_expected(call)}
    return routes | {score.call.route for score in scores if is_expected(score.call)}


def is_expected(call: CallEvidence) -> bool:
    return call.purpose == "production" and call.attempt_final
