"""Rollups: recounted from raw calls, kept per hour and per day, and read so that they are right at every moment.

A range is cut into whole days, whole hours and the rest. A day or hour without a mark is read from its rollup;
marked hours, and part-hours at the ends, are counted from raw calls, in the same snapshot.
"""

# ruff: noqa: S608 - only names of our own tables and columns are put into statements; values are bound

# Long because recount and read of hours and days have to stay the same sums.
from __future__ import annotations

import sqlite3
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import orjson

from ..records import HOUR_NS, Rollup, ScoreSums
from .intern import Dictionary

DAY_NS: Final = 24 * HOUR_NS
_MAX_INTEGER: Final = 2**63 - 1

SUMS: Final = (
    "calls",
    "errors",
    "fallbacks",
    "escalations",
    "retries",
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "cache_write_input_tokens",
    "reasoning_tokens",
    "tokens_unknown",
    "cost_nusd",
    "unpriced",
    "duration_ns",
    "no_latency",
    "scored",
)
_SUMMED: Final = (
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "cache_write_input_tokens",
    "reasoning_tokens",
    "cost_nusd",
    "duration_ns",
)
_UNMETERED: Final = frozenset({"embeddings", "rerank", "image", "audio"})  # no output tokens to be known
_REASONS: Final = {"fallback": "fallbacks", "escalation": "escalations", "retry": "retries"}


@dataclass(slots=True)
class Cell:
    """Sums under construction: `Rollup` without its key, mutable."""

    sums: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SUMS, 0))
    latency: list[bytes] = field(default_factory=list)  # packed histograms, added up at the end
    ttft: list[bytes] = field(default_factory=list)
    error_classes: dict[str, int] = field(default_factory=dict)
    finish_reasons: dict[str, int] = field(default_factory=dict)
    scores: dict[tuple[str, str], ScoreSums] = field(default_factory=dict)

    def rollup(self, key: tuple[str, ...] = ()) -> Rollup:
        return Rollup(
            key=key,
            **self.sums,
            latency=unpack_histogram(b"".join(self.latency)),
            ttft=unpack_histogram(b"".join(self.ttft)),
            error_classes=self.error_classes,
            finish_reasons=self.finish_reasons,
            scores=self.scores,
        )


def pack_histogram(bins: Mapping[int, int]) -> bytes:
    """Pairs of (bin + 1, count); joining two packed histograms is adding them."""
    return np.array([(number + 1, n) for number, n in sorted(bins.items())], dtype="<u4").tobytes()


def unpack_histogram(packed: bytes) -> dict[int, int]:
    if not packed:
        return {}
    pairs = np.frombuffer(packed, dtype="<u4").reshape(-1, 2)
    counts = np.bincount(pairs[:, 0], weights=pairs[:, 1])
    used = np.flatnonzero(counts)
    return dict(zip((used - 1).tolist(), counts[used].astype(np.int64).tolist(), strict=True))


def _count(counts: dict[str, int], word: str, n: int) -> None:
    counts[word] = counts.get(word, 0) + n


# ---- from raw calls -------------------------------------------------------------------------------------

Bucket = Callable[
    [int, int], Any
]  # (series id, start of the piece in ns) -> which cell to add to; None = none
Cells = dict[Any, Cell]


def count_raw(
    connection: sqlite3.Connection,
    dictionary: Dictionary,
    start_ns: int,
    end_ns: int,
    cells: Cells,
    bucket: Bucket,
) -> None:
    """Add the calls that start in [start_ns, end_ns) to their cells."""
    kinds = dictionary.kinds(connection)
    spread: dict[Any, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    waits: dict[Any, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    places: dict[int, Any] = {}

    def place(kind_id: int) -> Any:
        if kind_id not in places:
            places[kind_id] = bucket(kinds[kind_id].series_id, start_ns)
        return places[kind_id]

    for row in _raw_sums(connection, start_ns, end_ns):
        kind_id, latency_bin, n, no_input, no_tokens, unpriced, *summed = row
        where = place(kind_id)
        if where is None:
            continue
        cell = cells.get(where)
        if cell is None:
            cell = cells[where] = Cell()
        kind = kinds[kind_id]
        sums = cell.sums
        sums["calls"] += n
        sums["unpriced"] += unpriced
        sums["tokens_unknown"] += no_input if kind.values["operation"] in _UNMETERED else no_tokens
        for name, value in zip(_SUMMED, summed, strict=True):
            sums[name] += value or 0
        if kind.failed:
            sums["errors"] += n
            _count(cell.error_classes, kind.values["error_class"] or "other", n)
        reason = _REASONS.get(kind.values["attempt_reason"])
        if reason:
            sums[reason] += n
        if kind.values["finish_reason"]:
            _count(cell.finish_reasons, kind.values["finish_reason"], n)
        if latency_bin is None:
            sums["no_latency"] += n
        else:
            spread[where][latency_bin] += n
    for kind_id, ttft_bin, n in connection.execute(
        "SELECT kind_id, ttft_bin, count(*) FROM calls WHERE start_ns >= ? AND start_ns < ?"
        " AND superseded_by IS NULL AND ttft_bin IS NOT NULL GROUP BY 1, 2",
        (start_ns, end_ns),
    ):
        where = place(kind_id)
        if where is not None:
            waits[where][ttft_bin] += n
    for where, bins in spread.items():
        cells[where].latency.append(pack_histogram(bins))
    for where, bins in waits.items():
        cells[where].ttft.append(pack_histogram(bins))
    _count_scores(connection, dictionary, start_ns, end_ns, cells, place)


def _raw_sums(connection: sqlite3.Connection, start_ns: int, end_ns: int) -> list[tuple[Any, ...]]:
    head = (
        "SELECT kind_id, latency_bin, count(*), sum(input_tokens IS NULL),"
        " sum(input_tokens IS NULL OR output_tokens IS NULL), sum(cost_nusd IS NULL), "
    )
    tail = " FROM calls WHERE start_ns >= ? AND start_ns < ? AND superseded_by IS NULL GROUP BY 1, 2"
    try:
        return connection.execute(
            head + ", ".join(f"sum({name})" for name in _SUMMED) + tail, (start_ns, end_ns)
        ).fetchall()
    except sqlite3.OperationalError as error:
        if "integer overflow" not in str(error):
            raise
    # Absurd token counts of a hostile sender: sum both halves, join them where integers are unbounded.
    halves = ", ".join(f"sum({name} >> 32), sum({name} & 4294967295)" for name in _SUMMED)
    return [
        (
            *row[:6],
            *(((high or 0) << 32) + (low or 0) for high, low in zip(row[6::2], row[7::2], strict=True)),
        )
        for row in connection.execute(head + halves + tail, (start_ns, end_ns))
    ]


def _count_scores(
    connection: sqlite3.Connection,
    dictionary: Dictionary,
    start_ns: int,
    end_ns: int,
    cells: Cells,
    place: Callable[[int], Any],
) -> None:
    if connection.execute("SELECT 1 FROM scores LIMIT 1").fetchone() is None:
        return
    signals = dictionary.signals(connection)
    scored = (
        " FROM calls c CROSS JOIN scores s ON s.call_seq = c.seq WHERE c.start_ns >= ? AND c.start_ns < ?"
        " AND c.superseded_by IS NULL AND s.value IS NOT NULL GROUP BY 1"
    )
    for kind_id, signal_id, n, total, squares in connection.execute(
        f"SELECT +c.kind_id, s.signal_id, count(*), sum(s.value), sum(s.value * s.value){scored}, 2",
        (start_ns, end_ns),
    ):
        where = place(kind_id)
        if where is not None:
            _add_score(cells[where].scores, signals[signal_id], ScoreSums(n, total, squares))
    for kind_id, n in connection.execute(
        f"SELECT +c.kind_id, count(DISTINCT c.seq){scored}", (start_ns, end_ns)
    ):
        where = place(kind_id)
        if where is not None:
            cells[where].sums["scored"] += n


def _add_score(scores: dict[tuple[str, str], ScoreSums], key: tuple[str, str], sums: ScoreSums) -> None:
    scores[key] = scores[key] + sums if key in scores else sums


# ---- kept rollups ---------------------------------------------------------------------------------------


def recount_hour(connection: sqlite3.Connection, dictionary: Dictionary, hour: int, now_ns: int) -> None:
    """Write the rollup of an hour anew from its raw calls, in the open transaction."""
    cells: Cells = {}
    count_raw(
        connection,
        dictionary,
        hour * HOUR_NS,
        (hour + 1) * HOUR_NS,
        cells,
        lambda series_id, _: series_id,
    )
    _replace(connection, dictionary, "hour", hour, cells)
    connection.execute(
        "INSERT INTO rolled_hours (hour, rolled_ns, calls) VALUES (?, ?, ?) ON CONFLICT (hour) DO UPDATE"
        " SET rolled_ns = excluded.rolled_ns, calls = excluded.calls",
        (hour, now_ns, sum(cell.sums["calls"] for cell in cells.values())),
    )


def recount_day(connection: sqlite3.Connection, dictionary: Dictionary, day: int) -> None:
    """Write the rollup of a day anew from those of its hours, none of which may be marked."""
    cells: Cells = {}
    read_cells(
        connection, dictionary, "hour", day * 24, (day + 1) * 24, None, cells, lambda series_id, _: series_id
    )
    _replace(connection, dictionary, "day", day, cells)
    connection.execute("DELETE FROM dirty_days WHERE day = ?", (day,))


def _replace(
    connection: sqlite3.Connection, dictionary: Dictionary, tier: str, bucket: int, cells: Cells
) -> None:
    ids = [(series_id, bucket) for series_id in dictionary.series(connection)]
    connection.executemany(f"DELETE FROM rollup_{tier} WHERE series_id = ? AND bucket = ?", ids)
    connection.executemany(f"DELETE FROM rollup_score_{tier} WHERE series_id = ? AND bucket = ?", ids)
    names = ("series_id", "bucket", *SUMS, "latency", "ttft", "error_classes", "finish_reasons")
    connection.executemany(
        f"INSERT INTO rollup_{tier} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})",
        [
            (
                series_id,
                bucket,
                *(min(cell.sums[name], _MAX_INTEGER) for name in SUMS),
                pack_histogram(unpack_histogram(b"".join(cell.latency))),
                pack_histogram(unpack_histogram(b"".join(cell.ttft))),
                orjson.dumps(cell.error_classes).decode() if cell.error_classes else "",
                orjson.dumps(cell.finish_reasons).decode() if cell.finish_reasons else "",
            )
            for series_id, cell in cells.items()
        ],
    )
    signal_ids = {key: signal_id for signal_id, key in dictionary.signals(connection).items()}
    connection.executemany(
        f"INSERT INTO rollup_score_{tier} (series_id, bucket, signal_id, n, sum, sumsq) VALUES (?, ?, ?, ?, ?, ?)",
        [
            (series_id, bucket, signal_ids[key], sums.n, sums.sum, sums.sumsq)
            for series_id, cell in cells.items()
            for key, sums in cell.scores.items()
        ],
    )


def read_cells(
    connection: sqlite3.Connection,
    dictionary: Dictionary,
    tier: str,
    first: int,
    end: int,
    series_ids: Collection[int] | None,
    cells: Cells,
    bucket: Bucket,
) -> None:
    """Add the kept rollups of buckets [first, end) to their cells; None = all series."""
    width = HOUR_NS if tier == "hour" else DAY_NS
    ids = sorted(dictionary.series(connection) if series_ids is None else series_ids)
    if _is_one_cell_each(ids, first, end, width, bucket):
        try:
            _read_added(connection, dictionary, tier, first, end, ids, cells, bucket)
            return
        except sqlite3.OperationalError as error:  # absurd counts: added below, where integers are unbounded
            if "integer overflow" not in str(error):
                raise
    names = ", ".join(("series_id", "bucket", *SUMS, "latency", "ttft", "error_classes", "finish_reasons"))
    query = f"SELECT {names} FROM rollup_{tier} WHERE series_id = ? AND bucket >= ? AND bucket < ?"
    for series_id in ids:
        for row in connection.execute(query, (series_id, first, end)):
            where = bucket(series_id, row[1] * width)
            if where is None:
                continue
            cell = cells.get(where)
            if cell is None:
                cell = cells[where] = Cell()
            sums = cell.sums
            for name, value in zip(SUMS, row[2:], strict=False):
                if value:
                    sums[name] += value
            latency, ttft, classes, finishes = row[-4:]
            if latency:
                cell.latency.append(latency)
            if ttft:
                cell.ttft.append(ttft)
            for text, counts in ((classes, cell.error_classes), (finishes, cell.finish_reasons)):
                if text:
                    for word, n in orjson.loads(text).items():
                        _count(counts, word, n)
    if connection.execute(f"SELECT 1 FROM rollup_score_{tier} LIMIT 1").fetchone() is None:
        return
    signals = dictionary.signals(connection)
    query = (
        f"SELECT bucket, signal_id, n, sum, sumsq FROM rollup_score_{tier}"
        " WHERE series_id = ? AND bucket >= ? AND bucket < ?"
    )
    for series_id in ids:
        for number, signal_id, n, total, squares in connection.execute(query, (series_id, first, end)):
            where = bucket(series_id, number * width)
            if where is not None:
                _add_score(cells[where].scores, signals[signal_id], ScoreSums(n, total, squares))


def _is_one_cell_each(ids: Sequence[int], first: int, end: int, width: int, bucket: Bucket) -> bool:
    """Whether all of a series' buckets in [first, end) belong to one cell: labels only ever rise with time."""
    meant = next(((one, where) for one in ids if (where := bucket(one, first * width)) is not None), None)
    return end - first > 1 and meant is not None and bucket(meant[0], (end - 1) * width) == meant[1]


def _read_added(
    connection: sqlite3.Connection,
    dictionary: Dictionary,
    tier: str,
    first: int,
    end: int,
    ids: Sequence[int],
    cells: Cells,
    bucket: Bucket,
) -> None:
    """`read_cells` where each series has one cell: SQLite adds, a tenth of the time that adding here takes."""
    width = HOUR_NS if tier == "hour" else DAY_NS
    places = {series_id: bucket(series_id, first * width) for series_id in ids}
    within = "series_id = ? AND bucket >= ? AND bucket < ?"
    added = ", ".join(f"sum({name})" for name in SUMS)
    query = f"SELECT {added} FROM rollup_{tier} WHERE {within} HAVING count(*) > 0"
    # All sums are asked for before any cell is touched: an overflow leaves the cells as they were.
    found = [
        (series_id, row)
        for series_id, where in places.items()
        if where is not None
        for row in connection.execute(query, (series_id, first, end))
    ]
    details = f"SELECT latency, ttft, error_classes, finish_reasons FROM rollup_{tier} WHERE {within}"
    scores = (
        f"SELECT signal_id, sum(n), sum(sum), sum(sumsq) FROM rollup_score_{tier} WHERE {within} GROUP BY 1"
    )
    signals = dictionary.signals(connection)
    for series_id, row in found:
        where = places[series_id]
        cell = cells.get(where)
        if cell is None:
            cell = cells[where] = Cell()
        for name, value in zip(SUMS, row, strict=True):
            cell.sums[name] += value
        for latency, ttft, classes, finishes in connection.execute(details, (series_id, first, end)):
            cell.latency.append(latency)
            cell.ttft.append(ttft)
            for text, counts in ((classes, cell.error_classes), (finishes, cell.finish_reasons)):
                if text:
                    for word, n in orjson.loads(text).items():
                        _count(counts, word, n)
        for signal_id, n, total, squares in connection.execute(scores, (series_id, first, end)):
            _add_score(cell.scores, signals[signal_id], ScoreSums(n, total, squares))


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


def sum_range(
    connection: sqlite3.Connection,
    dictionary: Dictionary,
    cuts: Sequence[tuple[int, int, Any]],
    series: Mapping[int, tuple[str, ...]],
) -> Iterable[tuple[Any, tuple[str, ...], Cell]]:
    """Sums of ranges (start_ns, end_ns, label), in rising order, by label and by the key of each series.

    `series` gives the key of every series that is meant.
    """
    if not cuts:
        return []
    first, last = min(cut[0] for cut in cuts), max(cut[1] for cut in cuts)
    # Nothing lies outside what the store holds: years before the first call are not cut into hours.
    oldest, newest = extent(connection)
    if oldest is None or newest is None:
        return []
    dirty_hours = {
        hour
        for (hour,) in connection.execute(
            "SELECT hour FROM dirty_hours WHERE hour BETWEEN ? AND ?", (first // HOUR_NS, last // HOUR_NS)
        )
    }
    dirty_days = {
        day
        for (day,) in connection.execute(
            "SELECT day FROM dirty_days WHERE day BETWEEN ? AND ?", (first // DAY_NS, last // DAY_NS)
        )
    }
    cells: Cells = {}
    kept: dict[str, list[Piece]] = {"hour": [], "day": []}
    starts = [cut[0] for cut in cuts]

    def place(series_id: int, at_ns: int) -> Any:
        key = series.get(series_id)
        return None if key is None else (cuts[bisect_right(starts, at_ns) - 1][2], key)

    for start_ns, end_ns, _ in cuts:
        start_ns = max(start_ns, oldest // DAY_NS * DAY_NS)
        end_ns = min(end_ns, (newest // DAY_NS + 1) * DAY_NS)
        for piece in pieces(start_ns, end_ns, dirty_hours, dirty_days):
            if piece.tier == "raw":
                count_raw(connection, dictionary, piece.start_ns, piece.end_ns, cells, place)
                continue
            run = kept[piece.tier]
            if run and run[-1].end_ns == piece.start_ns:
                run[-1] = Piece(piece.tier, run[-1].start_ns, piece.end_ns)
            else:
                run.append(piece)
    for tier, width in (("hour", HOUR_NS), ("day", DAY_NS)):
        for piece in kept[tier]:
            read_cells(
                connection,
                dictionary,
                tier,
                piece.start_ns // width,
                piece.end_ns // width,
                series,
                cells,
                place,
            )
    return [(label, key, cell) for (label, key), cell in cells.items()]


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
