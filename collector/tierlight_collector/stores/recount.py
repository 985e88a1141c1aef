"""The chore that recounts closed hours and days, in slices between the groups of ingest."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from ..records import HOUR_NS
from . import sums
from .intern import Dictionary
from .writer import Writer

LATE_NS: Final = 5 * 60 * 1_000_000_000  # an hour stays open this long after its end
_SLICE_S: Final = 0.05


def roll_up(writer: Writer) -> Callable[[sqlite3.Connection, int], bool]:
    """A chore: recount marked hours that are closed, newest first, then the days they complete."""
    dirty = writer.appender.dirty

    def run(connection: sqlite3.Connection, now_ns: int) -> bool:
        # A clock that went back must not open closed hours again.
        closed = max(now_ns, writer.newest_arrival_ns) - LATE_NS
        stop = time.perf_counter() + _SLICE_S
        hours = sorted((hour for hour in dirty.marked() if (hour + 1) * HOUR_NS <= closed), reverse=True)
        for hour in hours:
            writer.in_transaction(partial(_recount, hour))
            if time.perf_counter() >= stop:
                return True
        marked_days = {hour // 24 for hour in dirty.marked()}
        days = [
            day
            for (day,) in connection.execute("SELECT day FROM dirty_days ORDER BY day DESC").fetchall()
            if (day + 1) * sums.DAY_NS <= closed and day not in marked_days
        ]
        for day in days:
            writer.in_transaction(partial(_recount_day, day))
            if time.perf_counter() >= stop:
                return True
        return False

    def _recount_day(day: int, connection: sqlite3.Connection) -> None:
        sums.recount_day(connection, Dictionary(), day)

    def _recount(hour: int, connection: sqlite3.Connection) -> None:
        sums.recount_hour(connection, Dictionary(), hour, writer.now_ns())
        dirty.clean(hour)

    return run
