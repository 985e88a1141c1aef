"""Sums of many series in columns: what is read of rollups and raw calls, and how it adds up to what was asked.

A `Stretch` holds a row per series and moment. All adding is done column by column in numpy, for all groups of a
question at once; a histogram is not touched before somebody looks at one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..records import Rollup, ScoreSums
from ..rollup import Histogram

_SAFE: Final = 2.0**62  # sums below it are exact in 64 bits, in whatever order they are added
_DENSE: Final = 4_000_000  # cells up to which histograms are added in one dense table

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

Ints = NDArray[Any]  # 64 bits wide, or of Python's own integers where sums could be wider
Group = NDArray[np.int64]  # of each row its group, -1 for rows that are not meant


@dataclass(frozen=True, slots=True)
class Spread:
    """Histograms of several rows, end to end: `pairs` of (bin, count), and how many of them each row has."""

    pairs: NDArray[Any]
    sizes: NDArray[np.int64]

    @classmethod
    def of_packed(cls, packed: Sequence[bytes]) -> Spread:
        """Of pairs of (bin + 1, count) in 32 bits each, as tables keep them."""
        sizes = np.fromiter(map(len, packed), np.int64, len(packed)) // 8
        read = np.frombuffer(b"".join(packed), "<u4").reshape(-1, 2)
        pairs: NDArray[Any] = read.astype(np.int32 if read.max(initial=0) < 2**31 else np.int64)
        pairs[:, 0] -= 1
        return cls(pairs, sizes)

    def packed(self) -> list[bytes]:
        wide = self.pairs.astype(np.int64)
        wide[:, 0] += 1
        data = np.minimum(wide, 2**32 - 1).astype("<u4")
        ends = np.cumsum(self.sizes).tolist()
        return [data[a:b].tobytes() for a, b in zip([0, *ends], ends, strict=False)]

    def grouped(self, group: Group, groups: int) -> Spread:
        """The histograms of each group, added up."""
        owner, pairs = np.repeat(group, self.sizes), self.pairs
        if len(group) and group.min() < 0:
            meant = owner >= 0
            owner, pairs = owner[meant], pairs[meant]
        if not len(pairs):
            return Spread(np.empty((0, 2), np.int64), np.zeros(groups, np.int64))
        width = int(pairs[:, 0].max()) + 2
        place = owner * width + pairs[:, 0] + 1
        if groups * width <= max(_DENSE, 4 * len(place)):
            dense = np.bincount(place, pairs[:, 1], groups * width)
            used = np.flatnonzero(dense)
            counts = dense[used].astype(np.int64)
        else:
            used, where = np.unique(place, return_inverse=True)
            counts = np.bincount(where, pairs[:, 1]).astype(np.int64)
        return Spread(
            np.column_stack((used % width - 1, counts)), np.bincount(used // width, minlength=groups)
        )


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts and sums of things that some rows have: of a row (`row`), of which thing (`item`), how many, what in all."""

    row: NDArray[np.int64]
    item: NDArray[np.int64]
    n: NDArray[np.int64]
    sums: NDArray[np.float64]  # two columns: of values, of their squares

    @classmethod
    def of(cls, found: Sequence[tuple[int, int, int, float, float]]) -> Tally:
        """Of (row, item, n, sum, sum of squares)."""
        columns = list(zip(*found, strict=True)) or [()] * 5
        row, item, n = (np.array(column, np.int64) for column in columns[:3])
        return cls(row, item, n, np.column_stack([np.array(column, np.float64) for column in columns[3:]]))

    def entries(self) -> Iterator[tuple[int, int, int, list[float]]]:
        """(row, item, n, [sum, sum of squares])."""
        return zip(self.row.tolist(), self.item.tolist(), self.n.tolist(), self.sums.tolist(), strict=True)

    def grouped(self, group: Group) -> Tally:
        """The tally of each group: its `row` is the group, sorted."""
        owner = group[self.row]
        meant = np.flatnonzero(owner >= 0)
        if not len(meant):
            return Tally(owner[meant], self.item[meant], self.n[meant], self.sums[meant])
        width = int(self.item.max()) + 1
        place = owner[meant] * width + self.item[meant]
        order = np.argsort(place, kind="stable")
        place, chosen = place[order], meant[order]
        starts = _starts(place)
        first = place[starts]
        return Tally(
            first // width,
            first % width,
            np.add.reduceat(self.n[chosen], starts),
            np.add.reduceat(self.sums[chosen], starts, axis=0),
        )


@dataclass(frozen=True, slots=True)
class Stretch:
    """Sums of series at moments. Words are error classes and finish reasons, by their number in `Words`."""

    series: NDArray[np.int64]
    at_ns: NDArray[np.int64]
    sums: Ints  # a row each, in the order of SUMS
    latency: Spread
    ttft: Spread
    words: Tally
    scores: Tally

    @property
    def nbytes(self) -> int:
        arrays = (self.series, self.at_ns, self.sums, self.latency.pairs, self.ttft.pairs, self.scores.sums)
        return sum(array.nbytes for array in arrays) + 24 * (len(self.words.n) + len(self.scores.n))

    def by_series(self, at_ns: int) -> Stretch:
        """One row a series, whatever the moment: all of them at `at_ns`."""
        series, group = np.unique(self.series, return_inverse=True)
        if len(series) == len(self.series) and len(self.at_ns) and (self.at_ns == at_ns).all():
            return self
        return self._grouped(group.astype(np.int64), series, np.full(len(series), at_ns, np.int64))

    def _grouped(self, group: Group, series: NDArray[np.int64], at_ns: NDArray[np.int64]) -> Stretch:
        n = len(series)
        return Stretch(
            series,
            at_ns,
            _added(self.sums, group),
            self.latency.grouped(group, n),
            self.ttft.grouped(group, n),
            self.words.grouped(group),
            self.scores.grouped(group),
        )


def joined(parts: Sequence[Stretch]) -> Stretch:
    """All rows of the parts."""
    if len(parts) < 2:
        return parts[0] if parts else EMPTY
    firsts = np.cumsum([0, *(len(part.series) for part in parts[:-1])]).tolist()

    return Stretch(
        np.concatenate([part.series for part in parts]),
        np.concatenate([part.at_ns for part in parts]),
        np.concatenate([part.sums for part in parts]),
        _joined([part.latency for part in parts]),
        _joined([part.ttft for part in parts]),
        _all([part.words for part in parts], firsts),
        _all([part.scores for part in parts], firsts),
    )


def _joined(spreads: Sequence[Spread]) -> Spread:
    return Spread(
        np.concatenate([each.pairs for each in spreads]), np.concatenate([each.sizes for each in spreads])
    )


def _all(tallies: Sequence[Tally], firsts: Sequence[int]) -> Tally:
    """The tallies of parts that begin at these rows."""
    return Tally(
        np.concatenate([each.row + first for each, first in zip(tallies, firsts, strict=True)]),
        np.concatenate([each.item for each in tallies]),
        np.concatenate([each.n for each in tallies]),
        np.concatenate([each.sums for each in tallies]),
    )


EMPTY: Final = Stretch(
    np.empty(0, np.int64),
    np.empty(0, np.int64),
    np.empty((0, len(SUMS)), np.int64),
    Spread(np.empty((0, 2), np.int64), np.empty(0, np.int64)),
    Spread(np.empty((0, 2), np.int64), np.empty(0, np.int64)),
    Tally.of(()),
    Tally.of(()),
)


def integers(rows: Sequence[Sequence[int]]) -> Ints:
    """Rows of SUMS; of Python's integers where some are wider than 64 bits."""
    if not rows:
        return EMPTY.sums
    try:
        return np.array(rows, np.int64)
    except OverflowError:
        return np.array(rows, object)


def _starts(sorted_values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each run of equal values begins."""
    return np.flatnonzero(np.concatenate(([True], sorted_values[1:] != sorted_values[:-1])))


def _added(sums: Ints, group: Group) -> Ints:
    """The sums of each group; every group has a row."""
    if not len(sums):
        return sums
    order = np.argsort(group, kind="stable")
    first = int(np.searchsorted(group, 0, sorter=order))
    order = order[first:]
    rows = sums[order]
    if rows.dtype != object and np.abs(rows.astype(np.float64)).sum(axis=0).max(initial=0) >= _SAFE:
        rows = rows.astype(object)
    added: Ints = np.add.reduceat(rows, _starts(group[order]), axis=0) if len(rows) else rows
    return added


class _Histograms:
    """The histograms of all groups of an answer, added up when the first of them is looked at."""

    def __init__(self, parts: Sequence[tuple[Spread, Group]], groups: int) -> None:
        self._parts: Sequence[tuple[Spread, Group]] | None = parts
        self._groups = groups
        self._found: tuple[NDArray[Any], list[int]] | None = None

    def of(self, number: int) -> NDArray[Any]:
        if self._found is None and (parts := self._parts) is not None:
            spread = _joined([spread for spread, _ in parts])
            added = spread.grouped(np.concatenate([group for _, group in parts]), self._groups)
            self._found = added.pairs, [0, *np.cumsum(added.sizes).tolist()]
            self._parts = None  # only now: another thread may be at it as well
        assert self._found is not None
        pairs, ends = self._found
        return pairs[ends[number] : ends[number + 1]]


class Words:
    """Numbers for words: an error class or a finish reason is (which of the two, the word)."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[int, str], int] = {}
        self.names: list[tuple[int, str]] = []

    def number(self, column: int, word: str) -> int:
        key = (column, word)
        found = self._numbers.get(key)
        if found is None:
            self.names.append(key)
            found = self._numbers.setdefault(key, len(self.names) - 1)
        return found


@dataclass(frozen=True, slots=True)
class _Grouped:
    """Rows of parts by the place they belong to, which is cut * len(keys) + key; -1 for rows that are not meant."""

    parts: Sequence[Stretch]
    keys: Sequence[tuple[str, ...]]
    places: list[int]  # of each group, in rising order
    group: Group  # of each row of all parts, in their order

    def sums(self, names: Sequence[str] = SUMS) -> list[list[int]]:
        """The sums of these names of each group."""
        columns = slice(None) if names is SUMS else [SUMS.index(name) for name in names]
        rows = np.concatenate([part.sums[:, columns] for part in self.parts])
        found: list[list[int]] = _added(rows, self.group).tolist()
        return found


def _grouped(
    parts: Sequence[Stretch], starts: Sequence[int], series: Mapping[int, tuple[str, ...]]
) -> _Grouped | None:
    parts = [part for part in parts if len(part.series)]
    if not parts or not series:
        return None
    keys = list(dict.fromkeys(series.values()))
    number_of = {key: number for number, key in enumerate(keys)}
    key_of = np.full(max(max(series), *(int(part.series.max()) for part in parts)) + 1, -1, np.int64)
    key_of[list(series)] = [number_of[key] for key in series.values()]
    edges = np.array(starts, np.int64)
    key_at = key_of[np.concatenate([part.series for part in parts])]
    cut_at = np.searchsorted(edges, np.concatenate([part.at_ns for part in parts]), "right") - 1
    present, where = np.unique(np.where(key_at >= 0, cut_at * len(keys) + key_at, -1), return_inverse=True)
    left_out = int(len(present) > 0 and present[0] < 0)
    return _Grouped(parts, keys, present[left_out:].tolist(), where.astype(np.int64) - left_out)


def numbers(
    parts: Sequence[Stretch], starts: Sequence[int], series: Mapping[int, tuple[str, ...]], name: str
) -> Iterator[tuple[int, tuple[str, ...], int]]:
    """One of SUMS by cut and key, as `answer` gives it, for who asks for nothing else."""
    grouped = _grouped(parts, starts, series)
    if grouped is not None:
        for place, (number,) in zip(grouped.places, grouped.sums((name,)), strict=True):
            cut, key = divmod(place, len(grouped.keys))
            yield cut, grouped.keys[key], number


def answer(
    parts: Sequence[Stretch],
    starts: Sequence[int],
    series: Mapping[int, tuple[str, ...]],
    words: Words,
    signals: Mapping[int, tuple[str, str]],
) -> Iterator[tuple[int, Rollup]]:
    """Rollups by the cut a row lies in, given by the cuts' starts, and by the key of its series.

    Rows of a series without a key are left out.
    """
    grouped = _grouped(parts, starts, series)
    if grouped is None:
        return
    parts, keys, group, n = grouped.parts, grouped.keys, grouped.group, len(grouped.places)
    firsts = np.cumsum([0, *(len(part.series) for part in parts)]).tolist()
    groups = [group[a:b] for a, b in pairwise(firsts)]
    latency = _Histograms([(part.latency, own) for part, own in zip(parts, groups, strict=True)], n)
    ttft = _Histograms([(part.ttft, own) for part, own in zip(parts, groups, strict=True)], n)
    counts: tuple[dict[int, dict[str, int]], ...] = ({}, {})
    for at, item, count, _ in _all([part.words for part in parts], firsts[:-1]).grouped(group).entries():
        column, word = words.names[item]
        counts[column].setdefault(at, {})[word] = count
    scores: dict[int, dict[tuple[str, str], ScoreSums]] = {}
    for at, item, count, sums in _all([part.scores for part in parts], firsts[:-1]).grouped(group).entries():
        scores.setdefault(at, {})[signals[item]] = ScoreSums(count, *sums)
    nothing: dict[Any, Any] = {}
    for at, (place, row) in enumerate(zip(grouped.places, grouped.sums(), strict=True)):
        cut, key = divmod(place, len(keys))
        yield (
            cut,
            Rollup(
                keys[key],
                *row,  # type: ignore[call-arg, arg-type]  # by position, which is quick: SUMS are its fields in order
                Histogram(partial(latency.of, at)),
                Histogram(partial(ttft.of, at)),
                counts[0].get(at, nothing),
                counts[1].get(at, nothing),
                scores.get(at, nothing),
            ),
        )
