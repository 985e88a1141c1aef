"""The chore that doubts: now and then the rollups of some hours and a day are compared with what they sum up.

By construction they are equal at every moment. Should they ever not be, the hour is marked, so that from then on it is
read from its raw calls and within seconds counted anew; the difference is counted, logged and shown in /health.
"""

# ruff: noqa: S608 - only names of our own tables and columns are put into statements; values are bound

from __future__ import annotations

import logging
import random
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from ..records import HOUR_NS
from . import sums
from .intern import Dictionary
from .stretches import SUMS, Words
from .writer import Writer

log = logging.getLogger(__name__)

HOURS: Final = 3
_COLUMNS: Final = ", ".join(SUMS)
_TOTALS: Final = ", ".join(f"sum({name})" for name in SUMS)
_MOST: Final = 2**63 - 1
_Totals = dict[int, tuple[int, ...]]  # series -> its sums


@dataclass(frozen=True, slots=True)
class Checked:
    """What a check looked at, and the hours and days whose rollup was not what it sums up."""

    hours: int = 0
    days: int = 0
    wrong_hours: tuple[int, ...] = ()
    wrong_days: tuple[int, ...] = ()


def self_check(
    writer: Writer, chance: random.Random, report: Callable[[Checked], None] = lambda _: None
) -> Callable[[sqlite3.Connection, int], bool]:
    """A chore: compare `HOURS` clean hours and a clean day of the `chance`'s choice, mark what is wrong."""

    def run(connection: sqlite3.Connection, now_ns: int) -> bool:
        dictionary = Dictionary()
        floor = writer.appender.dirty.floor_hour
        clean = [
            hour
            for (hour,) in connection.execute(
                "SELECT hour FROM rolled_hours WHERE hour >= ? AND hour NOT IN (SELECT hour FROM dirty_hours)",
                (floor,),
            )
        ]
        hours = chance.sample(clean, min(HOURS, len(clean)))
        whole = [
            day
            for (day,) in connection.execute(
                "SELECT DISTINCT bucket FROM rollup_day WHERE bucket >= ?"
                " AND bucket NOT IN (SELECT day FROM dirty_days)",
                (-(-floor // 24),),
            )
        ]
        days = chance.sample(whole, min(1, len(whole)))
        found = Checked(
            len(hours),
            len(days),
            tuple(hour for hour in hours if not _is_right(connection, dictionary, hour)),
            tuple(day for day in days if not _adds_up(connection, day)),
        )
        writer.in_transaction(partial(_note, writer, found))
        report(found)
        return False

    return run


def _is_right(connection: sqlite3.Connection, dictionary: Dictionary, hour: int) -> bool:
    """Whether an hour's rollup is the sum of its raw calls."""
    counted = sums.count_raw(connection, dictionary, Words(), hour * HOUR_NS, (hour + 1) * HOUR_NS)
    raw = {
        series_id: tuple(min(value, _MOST) for value in row)
        for series_id, row in zip(counted.series.tolist(), counted.sums.tolist(), strict=True)
    }
    return _kept(connection, "hour", hour) == raw


def _adds_up(connection: sqlite3.Connection, day: int) -> bool:
    """Whether a day's rollup is the sum of those of its hours."""
    of_hours: _Totals = {}
    try:
        for series_id, *totals in connection.execute(
            f"SELECT series_id, {_TOTALS} FROM rollup_hour WHERE bucket >= ? AND bucket < ? GROUP BY series_id",
            (day * 24, (day + 1) * 24),
        ):
            of_hours[series_id] = tuple(totals)
    except sqlite3.OperationalError:
        return True  # sums beyond what SQLite adds up: the rollup holds its greatest number
    return _kept(connection, "day", day) == of_hours


def _kept(connection: sqlite3.Connection, tier: str, bucket: int) -> _Totals:
    return {
        series_id: tuple(totals)
        for series_id, *totals in connection.execute(
            f"SELECT series_id, {_COLUMNS} FROM rollup_{tier} WHERE bucket = ?", (bucket,)
        )
    }


def _note(writer: Writer, found: Checked, connection: sqlite3.Connection) -> None:
    wrong = [*found.wrong_hours, *(day * 24 for day in found.wrong_days)]
    for hour in wrong:
        writer.appender.dirty.mark(hour)
    if wrong:
        writer.last_error = (
            f"self-check: the sums of {len(wrong)} hours or days were wrong and are counted anew"
        )
        log.error("self-check: wrong rollups of hours %s, days %s", found.wrong_hours, found.wrong_days)
    connection.executemany(
        "INSERT INTO counters (name, n) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET n = counters.n + ?2",
        [("self_checks", found.hours + found.days), ("self_check_failures", len(wrong))],
    )
