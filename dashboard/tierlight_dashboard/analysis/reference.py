"""A frozen reference of one signal: which cell a call belongs to, and the null of each cell.

A cell is a time bin, a segment, a bucket of input or output tokens, or a time bin and a bucket together: calls
of one cell are alike, so a change of the mix of cells is no change of the signal. A cell needs 100 reference
calls; the rest share one null.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, tzinfo
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .drift import BETS, Floats, stakes
from .signals import FIELDS, Signal, StreamKind
from .windows import (
    CELL_CALLS,
    DAY_NS,
    QUANTILES,
    buckets,
    clip_null,
    excess_deviation,
    kept_segments,
    null_bound,
    quartile_edges,
    spread_within,
    tail_null,
    time_bins,
)

TIME, WEIGHT, SEGMENT, FIRST_FIELD = 0, 1, 2, 3  # columns of a sample; times in ms
LEAST_REST = 20
BUCKETS = 32


@dataclass(frozen=True, slots=True)
class Learning:
    """When a reference is long enough. Shares and scores need calls; tails and the traffic mix need days too.

    Measured (2026-11, 400 shuffles of 1,000 + 1,000 real outcomes, 84 % then 51 %): a first reference of 200, 300
    or 400 calls rings before the change in 5, 4 and 2 % of the shuffles, and finds it in 27 calls (median)
    each time.
    """

    min_scored: int = 300
    target_scored: int = 1000
    growth: float = 1.25
    min_calls: int = 500
    min_days: float = 7
    per_bin: int = CELL_CALLS
    refresh_days: float = 7
    longest_days: float = 28
    quarantine_hours: float = 24
    quality_tolerance: float = 0.01
    guard: bool = True
    sample_rows: int = 2048
    zone: tzinfo = UTC


@dataclass(frozen=True, slots=True)
class Reference:
    """What a signal was like before.

    `nulls` has for each cell and lane the null m, the mean, and the stakes against m, cells x (2 + bets) x lanes; in
    one array, as every call of every test takes its own. `t` are the thresholds of tails, one row a cell. `index` gives the row of a cell's code; `rest` is the row of every call
    without one of its own, -1 = not tested. `level` is the reference mean of shares and scores, and median, upper
    quartile and 90th percentile of tails.
    """

    n: int
    until_ns: int
    nulls: Floats
    t: Floats | None
    index: Mapping[int, int]
    rest: int
    edges: tuple[float, ...] = ()
    segments: tuple[str, ...] = ()
    timed: bool = False
    weekends: bool = False
    level: tuple[float, ...] = ()

    @property
    def lanes(self) -> int:
        return int(self.nulls.shape[2])

    @property
    def m(self) -> Floats:
        return self.nulls[:, 0]

    @property
    def mean(self) -> Floats:
        return self.nulls[:, 1]

    def as_json(self) -> dict[str, Any]:
        thresholds = self.t.tolist() if self.t is not None else [None] * len(self.m)
        return {
            "n": self.n,
            "until_ns": self.until_ns,
            "cells": [
                list(cell) for cell in zip(self.m.tolist(), self.mean.tolist(), thresholds, strict=True)
            ],
            "index": list(self.index.items()),
            "rest": self.rest,
            "edges": self.edges,
            "segments": self.segments,
            "timed": self.timed,
            "weekends": self.weekends,
            "level": self.level,
        }


def from_json(data: Mapping[str, Any], signal: Signal) -> Reference:
    m, mean, t = zip(*data["cells"], strict=True)
    return Reference(
        data["n"],
        data["until_ns"],
        *_cells(m, mean, None if t[0] is None else t, signal.error_like),
        {int(number): int(cell) for number, cell in data["index"]},
        data["rest"],
        tuple(data["edges"]),
        tuple(data["segments"]),
        data["timed"],
        data["weekends"],
        tuple(data["level"]),
    )


def _cells(
    m: Sequence[Sequence[float]],
    mean: Sequence[Sequence[float]],
    t: Sequence[Sequence[float]] | None,
    error_like: bool,
) -> tuple[Floats, Floats | None]:
    """The `nulls` and `t` of a reference."""
    levels = np.array([m, mean], dtype=float)
    lam = stakes(levels[0].ravel(), error_like=error_like).reshape(BETS, *levels.shape[1:])
    nulls = np.ascontiguousarray(np.concatenate([levels, lam]).transpose(1, 0, 2))
    return nulls, None if t is None else np.array(t, dtype=float)


# ---- one call's value -----------------------------------------------------------------------------------


def column(signal: Signal, kind: StreamKind) -> int:
    return FIELDS[kind].index(signal.field)


def good(signal: Signal, values: Floats) -> Floats:
    """x of shares or scores: 1 = good, with the watched direction always down."""
    if signal.form == "score":
        return values
    if signal.field == "error":
        return np.asarray(values != signal.only if signal.only else values == 0, dtype=float)
    return values if signal.falls else 1.0 - values


# ---- building -------------------------------------------------------------------------------------------


def learned(signal: Signal, kind: StreamKind, sample: Floats, learning: Learning) -> tuple[int, int, bool]:
    """How many calls a signal has of how many it needs first, and whether that is enough by days and bins too."""
    known = sample[:, FIRST_FIELD + column(signal, kind)]
    n = int((~np.isnan(known)).sum())
    if signal.form in ("share", "score"):
        return n, learning.min_scored, n >= learning.min_scored
    if n < learning.min_calls:
        return n, learning.min_calls, False
    days = (sample[-1, TIME] - sample[0, TIME]) / (DAY_NS / 1e6)
    if days < learning.min_days:
        return n, learning.min_calls, False
    # A route that sleeps at night never fills its night bins: after twice the days the rest is enough.
    counts = np.unique(_bins(sample, learning, weekends=False), return_counts=True)[1]
    return n, learning.min_calls, bool(counts.min() >= learning.per_bin or days >= 2 * learning.min_days)


def build(
    signal: Signal, kind: StreamKind, sample: Floats, names: Sequence[str], learning: Learning
) -> Reference | None:
    """The reference of a signal from sampled calls in arrival order (`names`: the segments by code).

    None when there is nothing to hold calls against: no known value, or a traffic mix of a single segment.
    """
    y = sample[:, FIRST_FIELD + column(signal, kind)]
    if signal.form != "mix":
        sample = sample[~np.isnan(y)]
        y = y[~np.isnan(y)]
    if len(sample) == 0:
        return None
    segments: tuple[str, ...] = ()
    edges: tuple[float, ...] = ()
    codes = np.zeros(len(sample), dtype=int)
    if signal.cells in ("output", "input"):
        tokens = sample[:, FIRST_FIELD + FIELDS[kind].index(f"{signal.cells}_tokens")]
        edges = quartile_edges(tokens)
        codes = buckets(tokens, edges) + 1
    elif signal.cells == "segment":
        segments = kept_segments([names[int(code)] for code in sample[:, SEGMENT]])
        # One segment and nothing else is no segment at all.
        segments = segments if len(segments) > 1 or len(set(sample[:, SEGMENT])) > 1 else ()
        codes = _segment_codes(sample, names, segments) + 1
    timed = signal.cells in ("time", "output", "input")
    weekends = False
    if timed:
        bins = _bins(sample, learning, weekends=True)
        span_days = (sample[-1, TIME] - sample[0, TIME]) / (DAY_NS / 1e6)
        counts = np.unique(bins, return_counts=True)[1]
        weekends = bool(span_days >= 14 and len(counts) == 16 and counts.min() >= learning.per_bin)
        codes = codes + BUCKETS * (bins if weekends else bins & 7)
    lane_codes = None
    if signal.form == "mix":
        segments, edges, lane_codes = _mix_lanes(sample, names, y)
        if lane_codes is None:
            return None
    return _assemble(
        signal, learning, sample, y, codes, lane_codes, segments, edges, timed=timed, weekends=weekends
    )


def _assemble(
    signal: Signal,
    learning: Learning,
    sample: Floats,
    y: Floats,
    codes: NDArray[np.int_],
    lane_codes: NDArray[np.int_] | None,
    segments: tuple[str, ...],
    edges: tuple[float, ...],
    *,
    timed: bool,
    weekends: bool,
) -> Reference | None:
    numbers, counts = np.unique(codes, return_counts=True)
    own = [int(number) for number, n in zip(numbers, counts, strict=True) if n >= CELL_CALLS]
    members = [codes == number for number in own]
    others = ~np.isin(codes, own)
    rest = -1
    if int(others.sum()) >= LEAST_REST or not own:
        rest = len(members)
        members.append(others)
    tested = np.zeros(len(y), dtype=bool)
    x = np.zeros((len(y), len(QUANTILES) if signal.form == "tail" else 1))
    if lane_codes is not None:
        x = (lane_codes[:, None] != np.arange(lane_codes.max() + 1)).astype(float)
    residual, within = np.zeros_like(x), np.zeros_like(x)
    nulls = []
    for chosen in members:
        tested |= chosen
        null = tail_null(y[chosen], falls=signal.falls) if signal.form == "tail" else None
        if null is not None:
            at = y[chosen][:, None]
            x[chosen] = (at >= np.array(null.t)) if signal.falls else (at <= np.array(null.t))
        elif lane_codes is None:
            x[chosen, 0] = good(signal, y[chosen])
        mean = x[chosen].mean(axis=0)
        residual[chosen] = x[chosen] - mean
        within[chosen] = [spread_within(x[chosen, lane]) for lane in range(x.shape[1])]
        nulls.append((chosen, mean, null.t if null else None))
    days = np.floor(sample[tested, TIME] / (DAY_NS / 1e6))
    excess = [
        excess_deviation(residual[tested, lane], within=float(within[tested, lane].mean()), days=days)
        if learning.guard
        else 0.0
        for lane in range(x.shape[1])
    ]
    tolerance = learning.quality_tolerance if signal.form == "score" else 0.0
    cells = _cells(
        [
            [
                null_bound(
                    x[chosen, lane], tolerance=tolerance, excess=excess[lane], weight=sample[chosen, WEIGHT]
                )
                for lane in range(x.shape[1])
            ]
            for chosen, _, _ in nulls
        ],
        [mean.tolist() for _, mean, _ in nulls],
        [t for _, _, t in nulls if t is not None] or None,
        signal.error_like,
    )
    if signal.form == "tail":
        level = tuple(float(v) for v in np.quantile(y, QUANTILES, method="higher"))
    elif signal.form == "mix":
        level = tuple(float(v) for v in 1 - x.mean(axis=0))
    else:
        level = (float(x.mean()),)
    return Reference(
        len(y),
        int(sample[-1, TIME] * 1_000_000),
        *cells,
        {number: at for at, number in enumerate(own)},
        rest,
        edges,
        segments,
        timed,
        weekends,
        level,
    )


def segment_reference(whole: Reference, code: int) -> Reference:
    """The reference of one segment alone, out of the route's; `code` counts `whole.segments`."""
    at = whole.index[code + 1]
    return replace(
        whole,
        nulls=whole.nulls[at : at + 1],
        index={code + 1: 0},
        rest=-1,
        level=(float(whole.mean[at, 0]),),
    )


def fixed_reference(m: float, mean: float, *, error_like: bool = False) -> Reference:
    """A reference of one given null, for simulations and examples."""
    return Reference(0, 0, *_cells([[clip_null(m)]], [[mean]], None, error_like), {}, 0, level=(mean,))


def _bins(sample: Floats, learning: Learning, *, weekends: bool) -> NDArray[np.int_]:
    return time_bins([int(ms) * 1_000_000 for ms in sample[:, TIME]], learning.zone, weekends=weekends)


def _segment_codes(sample: Floats, names: Sequence[str], kept: tuple[str, ...]) -> NDArray[np.int_]:
    """The index of each call's segment among the kept ones, -1 for every other."""
    place = {name: at for at, name in enumerate(kept)}
    return np.array([place.get(names[int(code)], -1) for code in sample[:, SEGMENT]], dtype=int)


def _mix_lanes(
    sample: Floats, names: Sequence[str], input_tokens: Floats
) -> tuple[tuple[str, ...], tuple[float, ...], NDArray[np.int_] | None]:
    """The parts of the traffic: declared segments where there are several, else quarters of the input size."""
    kept = kept_segments([names[int(code)] for code in sample[:, SEGMENT]])
    if len(kept) > 1:
        codes = _segment_codes(sample, names, kept)
        return kept, (), np.where(codes < 0, len(kept), codes)
    edges = quartile_edges(input_tokens)
    if not edges:
        return (), (), None
    return (), edges, np.maximum(buckets(input_tokens, edges), 0)
