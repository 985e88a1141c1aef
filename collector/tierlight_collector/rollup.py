"""Arithmetic of rollups: the fixed log bins of latencies, their percentiles, and the sum of two rollups."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from functools import reduce
from operator import attrgetter
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from .records import Rollup, ScoreSums

GROWTH: Final = 1.04
_LN_GROWTH: Final = math.log(GROWTH)

EMPTY: Final = Rollup()
_NUMBERS: Final = tuple(each.name for each in fields(Rollup) if each.type == "int")
_numbers_of: Final = attrgetter(*_NUMBERS)

_K = TypeVar("_K")


def bin_of_ms(ms: float) -> int:
    """The log bin of a time: -1 for nothing or less, 0 up to 1 ms, then 4 % wider each.

    The bins are fixed, so the histograms of two sets of calls add up to that of both, in every store.

    >>> [bin_of_ms(ms) for ms in (0, 0.5, 1, 2, 100, 60_000)]
    [-1, 0, 0, 18, 118, 281]
    """
    if ms <= 0:
        return -1
    if ms <= 1:
        return 0
    return math.ceil(math.log(ms) / _LN_GROWTH)


def bin_of_ns(ns: int) -> int:
    """The same bin of a time in nanoseconds; found in a table in a third of the time that a logarithm takes.

    >>> [bin_of_ns(ns) for ns in (0, 1, 1_000_000, 1_000_001, 60_000_000_000)]
    [-1, 0, 0, 1, 281]
    """
    if ns <= 0:
        return -1
    return bisect_left(_LARGEST_NS, ns) if ns <= _LARGEST_NS[-1] else bin_of_ms(ns / 1e6)


def _largest_ns(number: int) -> int:
    """The longest time that `bin_of_ms` puts into a bin."""
    ns = round(GROWTH**number * 1e6)
    while bin_of_ms(ns / 1e6) > number:
        ns -= 1
    while bin_of_ms((ns + 1) / 1e6) <= number:
        ns += 1
    return ns


_LARGEST_NS: Final = [_largest_ns(number) for number in range(400)]  # up to 1.8 hours


def ms_of_bin(number: int) -> float:
    """The value that stands for a bin, at most 2 % from every time in it.

    >>> round(ms_of_bin(118), 4)
    100.3076
    """
    if number < 0:
        return 0.0
    if number == 0:
        return 1.0
    return float(2 * GROWTH**number / (1 + GROWTH))


class Histogram(Mapping[int, int]):
    """Calls by log bin, from one or several sources, which are read and added up when first looked at.

    Most pages look at few of the histograms that come with their sums, and those that do mostly want percentiles.
    A source gives pairs of (bin, count), as the rows of an array, in the order of the bins.

    >>> some = Histogram(lambda: np.array([[3, 1], [8, 2]]))
    >>> some == {3: 1, 8: 2}, dict(some.joined(some)), percentile(some, 0.5) == ms_of_bin(8)
    (True, {3: 2, 8: 4}, True)
    """

    __slots__ = ("_counts", "_pairs", "_sources")

    def __init__(self, *sources: Callable[[], NDArray[Any]]) -> None:
        self._sources = sources
        self._counts: dict[int, int] | None = None
        self._pairs: NDArray[Any] | None = None

    def joined(self, *others: Histogram) -> Histogram:
        """The histogram of all the sets of calls."""
        return Histogram(*self._sources, *(source for other in others for source in other._sources))

    def pairs(self) -> NDArray[Any]:
        """Pairs of (bin, count), in the order of the bins."""
        if self._pairs is None:
            parts = [source() for source in self._sources]
            if len(parts) == 1:
                self._pairs = parts[0]
            else:
                both = np.concatenate([*parts, np.empty((0, 2), np.int64)])
                bins, where = np.unique(both[:, 0], return_inverse=True)
                counts = np.zeros(len(bins), np.int64)
                np.add.at(counts, where, both[:, 1])
                self._pairs = np.column_stack((bins, counts))
        return self._pairs

    def _all(self) -> dict[int, int]:
        if self._counts is None:
            self._counts = dict(self.pairs().tolist())
        return self._counts

    def __getitem__(self, number: int) -> int:
        return self._all()[number]

    def __iter__(self) -> Iterator[int]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self.pairs())

    def __repr__(self) -> str:
        return repr(self._all())


def percentile(histogram: Mapping[int, int], q: float) -> float | None:
    """The time in ms below which a share `q` (0..1) of the calls lies; None without calls.

    The value of the first bin whose cumulated count reaches ceil(q * n).
    """
    if isinstance(histogram, Histogram):
        pairs = histogram.pairs()
        below = pairs[:, 1].cumsum()
        if not len(below):
            return None
        rank = max(1, math.ceil(q * int(below[-1])))
        return ms_of_bin(int(pairs[below.searchsorted(rank), 0]))
    total = sum(histogram.values())
    if total == 0:
        return None
    rank = max(1, math.ceil(q * total))
    seen = 0
    for number in sorted(histogram):
        seen += histogram[number]
        if seen >= rank:
            return ms_of_bin(number)
    return None


def add(a: Rollup, b: Rollup) -> Rollup:
    """The rollup of both sets of calls; the key is that of `a` (of `b` when `a` has none).

    Associative and commutative over rollups of one key, with `EMPTY` as its zero.
    """
    return Rollup(
        key=a.key or b.key,
        calls=a.calls + b.calls,
        errors=a.errors + b.errors,
        fallbacks=a.fallbacks + b.fallbacks,
        escalations=a.escalations + b.escalations,
        retries=a.retries + b.retries,
        input_tokens=a.input_tokens + b.input_tokens,
        output_tokens=a.output_tokens + b.output_tokens,
        cached_input_tokens=a.cached_input_tokens + b.cached_input_tokens,
        cache_write_input_tokens=a.cache_write_input_tokens + b.cache_write_input_tokens,
        reasoning_tokens=a.reasoning_tokens + b.reasoning_tokens,
        tokens_unknown=a.tokens_unknown + b.tokens_unknown,
        cost_nusd=a.cost_nusd + b.cost_nusd,
        unpriced=a.unpriced + b.unpriced,
        duration_ns=a.duration_ns + b.duration_ns,
        no_latency=a.no_latency + b.no_latency,
        scored=a.scored + b.scored,
        latency=_add_counts(a.latency, b.latency),
        ttft=_add_counts(a.ttft, b.ttft),
        error_classes=_add_counts(a.error_classes, b.error_classes),
        finish_reasons=_add_counts(a.finish_reasons, b.finish_reasons),
        scores=_add_scores(a.scores, b.scores),
    )


def total(parts: Sequence[Rollup]) -> Rollup:
    """The sum of many rollups, whatever their keys; the key is that of the first that has one.

    >>> total([Rollup(calls=1), Rollup(calls=2)]) == add(Rollup(calls=1), Rollup(calls=2)), total([]) == EMPTY
    (True, True)
    """
    if len(parts) < 2:
        return parts[0] if parts else EMPTY
    return Rollup(
        key=next((part.key for part in parts if part.key), ()),
        **dict(zip(_NUMBERS, map(sum, zip(*map(_numbers_of, parts), strict=True)), strict=True)),
        latency=_all_counts([part.latency for part in parts]),
        ttft=_all_counts([part.ttft for part in parts]),
        error_classes=_all_counts([part.error_classes for part in parts]),
        finish_reasons=_all_counts([part.finish_reasons for part in parts]),
        scores=reduce(_add_scores, (part.scores for part in parts)),
    )


def _all_counts(counts: Sequence[Mapping[_K, int]]) -> Mapping[_K, int]:
    first, *others = counts
    if isinstance(first, Histogram) and all(isinstance(each, Histogram) for each in others):
        return first.joined(*others)  # type: ignore[arg-type, return-value]  # the keys are bins then
    return reduce(_add_counts, counts)


def _add_counts(a: Mapping[_K, int], b: Mapping[_K, int]) -> Mapping[_K, int]:
    if isinstance(a, Histogram) and isinstance(b, Histogram):
        return a.joined(b)  # type: ignore[return-value]  # the keys of both are bins then
    if not isinstance(b, Histogram) and not b:
        return a
    if not isinstance(a, Histogram) and not a:
        return b
    total = dict(a)
    for key, n in b.items():
        total[key] = total.get(key, 0) + n
    return total


def _add_scores(
    a: Mapping[tuple[str, str], ScoreSums], b: Mapping[tuple[str, str], ScoreSums]
) -> Mapping[tuple[str, str], ScoreSums]:
    if not a or not b:
        return a or b
    total = dict(a)
    for key, sums in b.items():
        total[key] = total[key] + sums if key in total else sums
    return total
