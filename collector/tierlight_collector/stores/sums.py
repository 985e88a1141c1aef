"""Rollups: recounted from raw calls, kept per hour and per day, and read so that they are right at every moment.

A range is cut into whole days, whole hours and the rest. A day or hour without a mark is read from its rollup;
marked hours, and part-hours at the ends, are counted from raw calls, in the same snapshot. What was read of closed
hours stays in memory until one of them is counted anew.
"""

# ruff: noqa: S608 - only names of our own tables and columns are put into statements; values are bound

# Long because recount and read of hours and days have to stay the same sums.
from __future__ import annotations

import sqlite3
import threading
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson

from ..records import HOUR_NS
from . import stretches
from .intern import Dictionary
from .stretches import SUMS, Spread, Stretch, Tally, Words

DAY_NS: Final = 24 * HOUR_NS
MOST_KEPT_BYTES: Final = 160 << 20
FEW: Final = 16  # a question about less than one series in so many reads its own rows alone
_MAX_INTEGER: Final = 2**63 - 1
_AT: Final = {name: index for index, name in enumerate(SUMS)}
_SUMMED: Final = (
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "cache_write_input_tokens",
    "reasoning_tokens",
    "cost_nusd",
    "duration_ns",
)
_SUMMED_AT: Final = tuple(_AT[name] for name in _SUMMED)
_UNMETERED: Final = frozenset({"embeddings", "rerank", "image", "audio"})  # no output tokens to be known
_REASONS: Final = {"fallback": "fallbacks", "escalation": "escalations", "retry": "retries"}
_CLASS, _FINISH = 0, 1  # columns of `Words`


# ---- from raw calls -------------------------------------------------------------------------------------

_COUNTED: Final = "start_ns >= ? AND start_ns < ? AND superseded_by IS NULL"


def count_raw(
    connection: sqlite3.Connection,
    dictionary: Dictionary,
    words: Words,
    start_ns: int,
    end_ns: int,
) -> Stretch:
    """The calls that start in [start_ns, end_ns): a row for each series that has some."""
    kinds = dictionary.kinds(connection)
    within = (start_ns, end_ns)
    found = _raw_sums(connection, within)
    row_of = {
        series_id: row for row, series_id in enumerate(sorted({kinds[each[0]].series_id for each in found}))
    }
    if not row_of:
        return stretches.EMPTY
    row_of_kind = {each[0]: row_of[kinds[each[0]].series_id] for each in found}
    sums = [[0] * len(SUMS) for _ in row_of]
    told: list[tuple[int, int, int, float, float]] = []
    for kind_id, n, no_input, no_tokens, unpriced, no_latency, _, _, *summed in found:
        kind, row = kinds[kind_id], row_of_kind[kind_id]
        own = sums[row]
        own[_AT["calls"]] += n
        own[_AT["unpriced"]] += unpriced
        own[_AT["tokens_unknown"]] += no_input if kind.values["operation"] in _UNMETERED else no_tokens
        own[_AT["no_latency"]] += no_latency
        for at, value in zip(_SUMMED_AT, summed, strict=True):
            own[at] += value or 0
        if kind.failed:
            own[_AT["errors"]] += n
            told.append((row, words.number(_CLASS, kind.values["error_class"] or "other"), n, 0, 0))
        reason = _REASONS.get(kind.values["attempt_reason"])
        if reason:
            own[_AT[reason]] += n
        if kind.values["finish_reason"]:
            told.append((row, words.number(_FINISH, kind.values["finish_reason"]), n, 0, 0))
    scored, scores = _raw_scores(connection, within, row_of_kind)
    for row, n in scored:
        sums[row][_AT["scored"]] += n
    total = len(row_of)
    every = np.arange(total)
    return Stretch(
        np.array(list(row_of), np.int64),
        np.full(total, start_ns, np.int64),
        stretches.integers(sums),
        _raw_spread([(row_of_kind[each[0]], each[6]) for each in found], total),
        _raw_spread([(row_of_kind[each[0]], each[7]) for each in found], total),
        Tally.of(told).grouped(every),
        Tally.of(scores).grouped(every),
    )


def _raw_sums(connection: sqlite3.Connection, within: tuple[int, int]) -> list[tuple[Any, ...]]:
    """Of each kind, in one scan: what its calls add up to, and the bins of their times, which are many, as a list."""
    head = (
        "SELECT kind_id, count(*), sum(input_tokens IS NULL), sum(input_tokens IS NULL OR output_tokens IS NULL),"
        " sum(cost_nusd IS NULL), sum(latency_bin IS NULL), group_concat(latency_bin), group_concat(ttft_bin), "
    )
    tail = f" FROM calls WHERE {_COUNTED} GROUP BY 1"
    try:
        return connection.execute(
            head + ", ".join(f"sum({name})" for name in _SUMMED) + tail, within
        ).fetchall()
    except sqlite3.OperationalError as error:
        if "integer overflow" not in str(error):
            raise
    # Absurd token counts of a hostile sender: sum both halves, join them where integers are unbounded.
    halves = ", ".join(f"sum({name} >> 32), sum({name} & 4294967295)" for name in _SUMMED)
    return [
        (
            *row[:8],
            *(((high or 0) << 32) + (low or 0) for high, low in zip(row[8::2], row[9::2], strict=True)),
        )
        for row in connection.execute(head + halves + tail, within)
    ]


def _raw_spread(bins: Sequence[tuple[int, str | None]], rows: int) -> Spread:
    """Of (row, the bins of its calls with commas between, None where it has none)."""
    listed = [(row, each) for row, each in bins if each is not None]
    found = np.fromstring(",".join(each for _, each in listed), np.int64, sep=",")
    owner = np.repeat(
        np.array([row for row, _ in listed], np.int64),
        np.array([each.count(",") + 1 for _, each in listed], np.int64),
    )
    ones = np.ones(len(found), np.int64)
    return Spread(np.column_stack((found, ones)), ones).grouped(owner, rows)


def _raw_scores(
    connection: sqlite3.Connection, within: tuple[int, int], row_of_kind: Mapping[int, int]
) -> tuple[list[tuple[int, int]], list[tuple[int, int, int, float, float]]]:
    """How many calls are scored (row, n), and (row, signal, n, sum, sum of squares)."""
    if connection.execute("SELECT 1 FROM scores LIMIT 1").fetchone() is None:
        return [], []
    scored = (
        f" FROM (SELECT seq, kind_id FROM calls WHERE {_COUNTED}) c CROSS JOIN scores s ON s.call_seq = c.seq"
        " WHERE s.value IS NOT NULL GROUP BY 1"
    )
    values = connection.execute(
        f"SELECT +c.kind_id, s.signal_id, count(*), sum(s.value), sum(s.value * s.value){scored}, 2", within
    ).fetchall()
    if len({signal_id for _, signal_id, *_ in values}) < 2:
        calls = [(kind_id, n) for kind_id, _, n, *_ in values]  # a call has one score of each signal
    else:
        calls = connection.execute(f"SELECT +c.kind_id, count(DISTINCT c.seq){scored}", within).fetchall()
    return (
        [(row_of_kind[kind_id], n) for kind_id, n in calls],
        [(row_of_kind[kind_id], *rest) for kind_id, *rest in values],
    )


# ---- kept rollups ---------------------------------------------------------------------------------------


def recount_hour(connection: sqlite3.Connection, dictionary: Dictionary, hour: int, now_ns: int) -> None:
    """Write the rollup of an hour anew from its raw calls, in the open transaction."""
    words = Words()
    counted = count_raw(connection, dictionary, words, hour * HOUR_NS, (hour + 1) * HOUR_NS)
    _replace(connection, dictionary, "hour", hour, counted, words)
    # Readers know by `rolled_ns` whether what they keep of an hour is what it says now: each recount is another moment.
    connection.execute(
        "INSERT INTO rolled_hours (hour, rolled_ns, calls) VALUES (?, ?, ?) ON CONFLICT (hour) DO UPDATE"
        " SET rolled_ns = max(excluded.rolled_ns, rolled_hours.rolled_ns + 1), calls = excluded.calls",
        (hour, now_ns, int(counted.sums[:, _AT["calls"]].sum())),
    )


def recount_day(connection: sqlite3.Connection, dictionary: Dictionary, day: int) -> None:
    """Write the rollup of a day anew from those of its hours, none of which may be marked."""
    words = Words()
    hours = read_kept(connection, words, "hour", day * 24, (day + 1) * 24, dictionary.series(connection))
    _replace(connection, dictionary, "day", day, hours.by_series(day * DAY_NS), words)
    connection.execute("DELETE FROM dirty_days WHERE day = ?", (day,))


def _replace(
    connection: sqlite3.Connection,
    dictionary: Dictionary,
    tier: str,
    bucket: int,
    counted: Stretch,
    words: Words,
) -> None:
    ids = [(series_id, bucket) for series_id in dictionary.series(connection)]
    connection.executemany(f"DELETE FROM rollup_{tier} WHERE series_id = ? AND bucket = ?", ids)
    connection.executemany(f"DELETE FROM rollup_score_{tier} WHERE series_id = ? AND bucket = ?", ids)
    names = ("series_id", "bucket", *SUMS, "latency", "ttft", "error_classes", "finish_reasons")
    told: list[tuple[dict[str, int], dict[str, int]]] = [({}, {}) for _ in counted.series]
    for row, item, n, _ in counted.words.entries():
        column, word = words.names[item]
        told[row][column][word] = n
    series = counted.series.tolist()
    connection.executemany(
        f"INSERT INTO rollup_{tier} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})",
        [
            (
                series_id,
                bucket,
                *(min(value, _MAX_INTEGER) for value in sums),
                latency,
                ttft,
                *(orjson.dumps(counts).decode() if counts else "" for counts in own),
            )
            for series_id, sums, latency, ttft, own in zip(
                series,
                counted.sums.tolist(),
                counted.latency.packed(),
                counted.ttft.packed(),
                told,
                strict=True,
            )
        ],
    )
    connection.executemany(
        f"INSERT INTO rollup_score_{tier} (series_id, bucket, signal_id, n, sum, sumsq) VALUES (?, ?, ?, ?, ?, ?)",
        [(series[row], bucket, signal_id, n, *sums) for row, signal_id, n, sums in counted.scores.entries()],
    )


def read_kept(
    connection: sqlite3.Connection, words: Words, tier: str, first: int, end: int, series: Iterable[int]
) -> Stretch:
    """The kept rollups of buckets [first, end), a row each."""
    width = HOUR_NS if tier == "hour" else DAY_NS
    names = ", ".join(
        ("r.series_id", "r.bucket", *SUMS, "latency", "ttft", "error_classes", "finish_reasons")
    )
    within = "r.series_id = j.value AND r.bucket >= ?2 AND r.bucket < ?3"
    asked = (orjson.dumps(sorted(series)).decode(), first, end)
    found = connection.execute(
        f"SELECT {names} FROM json_each(?1) j CROSS JOIN rollup_{tier} r ON {within}", asked
    ).fetchall()
    if not found:
        return stretches.EMPTY
    told = [
        (row, words.number(column, word), n, 0.0, 0.0)
        for row, each in enumerate(found)
        for column in (_CLASS, _FINISH)
        if each[column - 2]
        for word, n in orjson.loads(each[column - 2]).items()
    ]
    rows = {each[:2]: row for row, each in enumerate(found)}
    scores = [
        (rows[series_id, bucket], signal_id, n, total, squares)
        for series_id, bucket, signal_id, n, total, squares in connection.execute(
            "SELECT r.series_id, r.bucket, r.signal_id, r.n, r.sum, r.sumsq"
            f" FROM json_each(?1) j CROSS JOIN rollup_score_{tier} r ON {within}",
            asked,
        )
    ]
    return Stretch(
        np.array([each[0] for each in found], np.int64),
        np.array([each[1] for each in found], np.int64) * width,
        stretches.integers([each[2:-4] for each in found]),
        Spread.of_packed([each[-4] for each in found]),
        Spread.of_packed([each[-3] for each in found]),
        Tally.of(told),
        Tally.of(scores),
    )


# ---- a range --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a range and where its sums are: in day or hour rollups, or in raw calls."""

    tier: str  # "day" | "hour" | "raw"
    start_ns: int
    end_ns: int


def pieces(
    start_ns: int, end_ns: int, dirty_hours: Collection[int], dirty_days: Collection[int]
) -> Iterator[Piece]:
    """Cut [start_ns, end_ns) into the fewest pieces."""
    runs: list[Piece] = []
    at = start_ns
    while at < end_ns:
        hour, day = at // HOUR_NS, at // DAY_NS
        if at == day * DAY_NS and (day + 1) * DAY_NS <= end_ns and day not in dirty_days:
            piece = Piece("day", at, (day + 1) * DAY_NS)
        elif at == hour * HOUR_NS and (hour + 1) * HOUR_NS <= end_ns and hour not in dirty_hours:
            piece = Piece("hour", at, (hour + 1) * HOUR_NS)
        else:
            piece = Piece("raw", at, min((hour + 1) * HOUR_NS, end_ns))
        if runs and runs[-1].tier == piece.tier:
            runs[-1] = Piece(piece.tier, runs[-1].start_ns, piece.end_ns)
        else:
            runs.append(piece)
        at = piece.end_ns
    yield from runs


class SumsMemory:
    """What was read of stretches of time, all series of each; the least recently used goes first.

    A stretch is kept under a stamp of what it was read from, and is good for as long as the stamp is the same.
    """

    def __init__(self, most_bytes: int = MOST_KEPT_BYTES) -> None:
        self.words = Words()
        self._most_bytes = most_bytes
        self._bytes = 0
        self._kept: OrderedDict[tuple[int, int], tuple[object, Stretch]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, piece: Piece, stamp: object) -> Stretch | None:
        with self._lock:
            found = self._kept.get((piece.start_ns, piece.end_ns))
            if found is None or found[0] != stamp:
                return None
            self._kept.move_to_end((piece.start_ns, piece.end_ns))
            return found[1]

    def keep(self, piece: Piece, stamp: object, stretch: Stretch) -> None:
        key = (piece.start_ns, piece.end_ns)
        with self._lock:
            if key in self._kept:
                self._bytes -= self._kept.pop(key)[1].nbytes
            self._kept[key] = (stamp, stretch)
            self._bytes += stretch.nbytes
            while self._bytes > self._most_bytes:
                self._bytes -= self._kept.popitem(last=False)[1][1].nbytes


class _Reading:
    """One question's look at the store, in one snapshot."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        dictionary: Dictionary,
        memory: SumsMemory,
        version: int | None,
        span: tuple[int, int],
    ) -> None:
        self._connection, self._dictionary, self._memory, self._version = (
            connection,
            dictionary,
            memory,
            version,
        )
        self._raw_from = connection.execute("SELECT min(start_ns) FROM calls").fetchone()[0] or 0
        first, last = span[0] // HOUR_NS, span[1] // HOUR_NS
        asked = (first, last)
        self.dirty_hours = {
            hour
            for (hour,) in connection.execute(
                "SELECT hour FROM dirty_hours WHERE hour BETWEEN ? AND ?", asked
            )
        }
        self.dirty_days = {
            day
            for (day,) in connection.execute(
                "SELECT day FROM dirty_days WHERE day BETWEEN ? AND ?", (first // 24, last // 24)
            )
        }
        rolled = connection.execute(
            "SELECT hour, rolled_ns FROM rolled_hours WHERE hour BETWEEN ? AND ? ORDER BY hour", asked
        ).fetchall()
        self._hours = [hour for hour, _ in rolled]
        # Sums of 64 bits, wrapped: of one stretch they differ after any recount, because `rolled_ns` only rises.
        self._rolled = np.cumsum([0, *(rolled_ns for _, rolled_ns in rolled)], dtype=np.uint64).tolist()

    def _stamp(self, piece: Piece) -> object:
        """What tells whether a stretch is as it was, None where nothing does."""
        first, end = piece.start_ns // HOUR_NS, -(-piece.end_ns // HOUR_NS)
        if piece.tier == "raw" and any(hour in self.dirty_hours for hour in range(first, end)):
            return None if self._version is None else ("version", self._version)
        if piece.tier == "raw" and piece.start_ns < self._raw_from:
            return None
        low, high = bisect_left(self._hours, first), bisect_left(self._hours, end)
        return piece.tier == "raw", high - low, (self._rolled[high] - self._rolled[low]) % 2**64

    def remembered(self, piece: Piece) -> Stretch | None:
        """The sums of a piece, one row a series, where they are in memory."""
        stamp = self._stamp(piece)
        return None if stamp is None else self._memory.get(piece, stamp)

    def all_series(self, piece: Piece) -> Stretch:
        """The sums of a piece, one row a series."""
        if (kept := self.remembered(piece)) is not None:
            return kept
        found, stamp = self._read(piece), self._stamp(piece)
        if stamp is not None:
            self._memory.keep(piece, stamp, found)
        return found

    def _read(self, piece: Piece) -> Stretch:
        if piece.tier == "day" and piece.end_ns - piece.start_ns > DAY_NS:
            low, high = (bisect_left(self._hours, at // HOUR_NS) for at in (piece.start_ns, piece.end_ns))
            waiting, size = [stretches.EMPTY], 0
            for day in dict.fromkeys(hour // 24 for hour in self._hours[low:high]):
                waiting.append(self.all_series(Piece("day", day * DAY_NS, (day + 1) * DAY_NS)))
                size += waiting[-1].nbytes
                if size > MOST_KEPT_BYTES:
                    waiting, size = [stretches.joined(waiting).by_series(piece.start_ns)], 0
            return stretches.joined(waiting).by_series(piece.start_ns)
        connection, words = self._connection, self._memory.words
        if piece.tier == "raw":
            return count_raw(connection, self._dictionary, words, piece.start_ns, piece.end_ns)
        return self.kept(piece, self._dictionary.series(connection)).by_series(piece.start_ns)

    def kept(self, piece: Piece, series: Iterable[int]) -> Stretch:
        """The kept sums of some series, a row each, as the tables have them."""
        width = HOUR_NS if piece.tier == "hour" else DAY_NS
        first, end = piece.start_ns // width, piece.end_ns // width
        return read_kept(self._connection, self._memory.words, piece.tier, first, end, series)


def parts_of(
    connection: sqlite3.Connection,
    dictionary: Dictionary,
    memory: SumsMemory,
    version: int | None,
    cuts: Sequence[tuple[int, int, Any]],
    series: Collection[int],
    *,
    is_narrow: bool = False,
) -> list[Stretch]:
    """What the sums of ranges (start_ns, end_ns, _), in rising order, are made of; `stretches` adds it up.

    All of the `series` are in it, and perhaps others, which cost little where the question `is_narrow`: about one
    of the sums. `version` names the snapshot where its name is known.
    """
    # Nothing lies outside what the store holds: years before the first call are not cut into hours.
    oldest, newest = extent(connection)
    if not cuts or not series or oldest is None or newest is None:
        return []
    # That the end of a range is moved to that of the last hour makes the open hour one piece of all questions.
    first, last = max(cuts[0][0], oldest // DAY_NS * DAY_NS), cuts[-1][1]
    if last > newest:
        last = (newest // HOUR_NS + 1) * HOUR_NS
    reading = _Reading(connection, dictionary, memory, version, (first, last))
    is_few = len(series) * FEW <= len(dictionary.series(connection))
    found: list[Stretch] = []
    runs: list[Piece] = []
    for start_ns, end_ns, _ in cuts:
        end_ns = last if end_ns > newest else end_ns
        for piece in pieces(max(start_ns, first), end_ns, reading.dirty_hours, reading.dirty_days):
            if not is_few or piece.tier == "raw":
                found.append(reading.all_series(piece))
            elif is_narrow and (kept := reading.remembered(piece)) is not None:
                found.append(kept)
            elif runs and runs[-1].tier == piece.tier and runs[-1].end_ns == piece.start_ns:
                runs[-1] = Piece(piece.tier, runs[-1].start_ns, piece.end_ns)
            else:
                runs.append(piece)
    return found + [reading.kept(run, series) for run in runs]


def extent(connection: sqlite3.Connection) -> tuple[int | None, int | None]:
    """Start of the first and of the last call that raw calls or rollups know of."""
    low = connection.execute("SELECT min(start_ns) FROM calls").fetchone()[0]
    high = connection.execute("SELECT max(start_ns) FROM calls").fetchone()[0]
    rolled = connection.execute("SELECT min(hour), max(hour) FROM rolled_hours").fetchone()
    lows = [value for value in (low, None if rolled[0] is None else rolled[0] * HOUR_NS) if value is not None]
    highs = [
        value for value in (high, None if rolled[1] is None else rolled[1] * HOUR_NS) if value is not None
    ]
    return min(lows, default=None), max(highs, default=None)
