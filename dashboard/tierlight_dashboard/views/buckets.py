"""The columns of a time chart: local days or hours of a window, complete, also where nothing happened."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Literal, TypeVar

from tierlight_collector.records import HOUR_NS, Rollup, TimeRange
from tierlight_collector.rollup import add

from .charts import Column
from .fmt import NANO, at, day
from .urlstate import State

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Buckets:
    """`starts` in ns, oldest first, and the end of the last one; days have 23 to 25 hours."""

    starts: tuple[int, ...]
    end: int
    zone: tzinfo
    step: Literal["hour", "day"]

    @property
    def edges(self) -> tuple[int, ...]:
        return (*self.starts, self.end)

    @property
    def window(self) -> TimeRange:
        return TimeRange(self.starts[0], self.end)

    def label(self, i: int) -> str:
        when = at(self.starts[i], self.zone)
        return day(when) if self.step == "day" else f"{when:%H:%M}"

    def name(self, i: int) -> str:
        """The bucket in full, for titles and tables."""
        when = at(self.starts[i], self.zone)
        return f"{when:%a} {day(when)}" if self.step == "day" else f"{day(when)} {when:%H:%M}"

    def columns(self, says: Callable[[int], str]) -> list[Column]:
        return [Column(self.label(i), f"{self.name(i)}: {says(i)}") for i in range(len(self.starts))]

    def place(self, found: Iterable[tuple[datetime, Rollup]]) -> list[Rollup | None]:
        """One rollup a bucket, None where there is none; several of one bucket are added up."""
        placed: list[Rollup | None] = [None] * len(self.starts)
        index = {start: i for i, start in enumerate(self.starts)}
        for when, sums in found:
            i = index.get(int(when.timestamp()) * NANO)
            if i is not None:
                known = placed[i]
                placed[i] = sums if known is None else add(known, sums)
        return placed

    def whole(self, values: Sequence[T], now_ns: int) -> list[T]:
        """The values of the buckets that are over."""
        return [v for v, end in zip(values, self.edges[1:], strict=True) if end <= now_ns]


LEAST_DAYS = 7


def buckets(state: State, first_ns: int | None = None) -> Buckets:
    """Hours for up to three days, else local days; a week at least, else from the day of the first call on."""
    zone, start, end = state.zone, state.window.start_ns, state.window.end_ns
    if first_ns is not None and not state.step_is_hour:
        start = max(start, min(first_ns, end - LEAST_DAYS * 24 * HOUR_NS))
    if state.step_is_hour:
        # Every zone in use is a whole number of quarter hours off UTC; an hour starts on the UTC hour here.
        first = start // HOUR_NS * HOUR_NS
        starts = tuple(range(first, end, HOUR_NS))
        return Buckets(starts, starts[-1] + HOUR_NS, zone, "hour")
    today = at(start, zone).date()
    days = []
    while (ns := _midnight(today, zone)) < end:
        days.append(ns)
        today += timedelta(days=1)
    return Buckets(tuple(days), _midnight(today, zone), zone, "day")


def _midnight(date: date, zone: tzinfo) -> int:
    local = datetime.combine(date, datetime.min.time(), zone)
    return int(local.astimezone(UTC).timestamp()) * NANO
