"""A frozen reference of one signal: which cell a call belongs to, and the null of each cell.

A cell is a time bin, a segment, a bucket of input or output tokens, or a time bin and a bucket together: calls
of one cell are alike, so a change of the mix of cells is no change of the signal. A cell needs 100 reference
calls; the rest share one null.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, tzinfo
from math import isnan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .drift import BETS, Floats, bets
from .signals import FIELDS, Observation, Signal, StreamKind
from .windows import (
    CELL_CALLS,
    DAY_NS,
    QUANTILES,
    bucket,
    clip_null,
    excess_deviation,
    kept_segments,
    null_bound,
    quartile_edges,
    spread_within,
    tail_null,
    time_bin,
)

TIME, WEIGHT, SEGMENT, FIRST_FIELD = 0, 1, 2, 3  # columns of a sample; times in ms
LEAST_REST = 20
_BUCKETS = 32


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
class Cell:
    """The null of one cell, one number a lane; `t` are the thresholds of tails."""

    m: Floats
    mean: Floats
    lam: Floats  # bets x lanes
    t: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Reference:
    """What a signal was like before. `rest` is the cell of every call without one of its own, -1 = not tested.

    `level` is the reference mean of shares and scores, and median, upper quartile and 90th percentile of tails.
    """

    n: int
    until_ns: int
    cells: tuple[Cell, ...]
    index: Mapping[int, int]
    rest: int
    edges: tuple[float, ...] = ()
    segments: tuple[str, ...] = ()
    timed: bool = False
    weekends: bool = False
    level: tuple[float, ...] = ()
    _codes: Mapping[str, int] = field(default_factory=dict)

    @property
    def lanes(self) -> int:
        return len(self.cells[0].m)

    def as_json(self) -> dict[str, Any]:
        return {
            "n": self.n,
            "until_ns": self.until_ns,
            "cells": [[cell.m.tolist(), cell.mean.tolist(), cell.t] for cell in self.cells],
            "index": list(self.index.items()),
            "rest": self.rest,
            "edges": self.edges,
            "segments": self.segments,
            "timed": self.timed,
            "weekends": self.weekends,
            "level": self.level,
        }


def make_cell(m: Sequence[float], mean: Sequence[float], t: Sequence[float] | None, error_like: bool) -> Cell:
    lam = np.array([bets(value, error_like=error_like) for value in m]).T.reshape(BETS, len(m))
    return Cell(
        np.array(m, dtype=float), np.array(mean, dtype=float), lam, tuple(t) if t is not None else None
    )


def from_json(data: Mapping[str, Any], signal: Signal) -> Reference:
    return Reference(
        data["n"],
        data["until_ns"],
        tuple(make_cell(m, mean, t, signal.error_like) for m, mean, t in data["cells"]),
        {int(number): int(cell) for number, cell in data["index"]},
        data["rest"],
        tuple(data["edges"]),
        tuple(data["segments"]),
        data["timed"],
        data["weekends"],
        tuple(data["level"]),
        {name: code for code, name in enumerate(data["segments"])},
    )


# ---- one call -------------------------------------------------------------------------------------------


def column(signal: Signal, kind: StreamKind) -> int:
    return FIELDS[kind].index(signal.field)


def good(signal: Signal, value: float) -> float:
    """x of a share or score: 1 = good, with the watched direction always down."""
    if signal.form == "score":
        return value
    if signal.field == "error":
        return float(value != signal.only) if signal.only else float(value == 0)
    return value if signal.falls else 1.0 - value


def resolve(
    signal: Signal, reference: Reference, observation: Observation, time_of_day: int
) -> tuple[tuple[float, ...], Cell] | None:
    """x of each lane and the cell whose null it is held against; None when the call is no row of this test."""
    values = observation.values
    fields = FIELDS[observation.kind]
    y = values[fields.index(signal.field)]
    cell_code = 0
    if signal.form == "mix":
        code = _mix_code(reference, observation.segment, y)
        if code < 0:
            return None
    elif isnan(y):
        return None
    if signal.cells == "segment":
        cell_code = reference._codes.get(observation.segment, -1) + 1
    elif signal.cells == "output":
        cell_code = bucket(values[fields.index("output_tokens")], reference.edges) + 1
    elif signal.cells == "input":
        cell_code = bucket(values[fields.index("input_tokens")], reference.edges) + 1
    if reference.timed:
        cell_code += _BUCKETS * (time_of_day if reference.weekends else time_of_day & 7)
    at = reference.index.get(cell_code, reference.rest)
    if at < 0:
        return None
    cell = reference.cells[at]
    if signal.form == "tail":
        t0, t1, t2 = cell.t or (0.0, 0.0, 0.0)
        if signal.falls:
            return (float(y >= t0), float(y >= t1), float(y >= t2)), cell
        return (float(y <= t0), float(y <= t1), float(y <= t2)), cell
    if signal.form == "mix":
        return tuple(float(lane != code) for lane in range(len(cell.m))), cell
    return (good(signal, y),), cell


def _mix_code(reference: Reference, segment: str, input_tokens: float) -> int:
    if reference.segments:
        return reference._codes.get(segment, len(reference.segments))
    return bucket(input_tokens, reference.edges)


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
        codes = np.array([bucket(value, edges) for value in tokens]) + 1
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
        codes = codes + _BUCKETS * (bins if weekends else bins & 7)
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
            x[chosen, 0] = [good(signal, value) for value in y[chosen]]
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
    cells = tuple(
        make_cell(
            [
                null_bound(
                    x[chosen, lane], tolerance=tolerance, excess=excess[lane], weight=sample[chosen, WEIGHT]
                )
                for lane in range(x.shape[1])
            ],
            mean.tolist(),
            t,
            signal.error_like,
        )
        for chosen, mean, t in nulls
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
        cells,
        {number: at for at, number in enumerate(own)},
        rest,
        edges,
        segments,
        timed,
        weekends,
        level,
        {name: code for code, name in enumerate(segments)},
    )


def segment_reference(whole: Reference, code: int) -> Reference:
    """The reference of one segment alone, out of the route's; `code` counts `whole.segments`."""
    cell = whole.cells[whole.index[code + 1]]
    return replace(whole, cells=(cell,), index={code + 1: 0}, rest=-1, level=(float(cell.mean[0]),))


def fixed_reference(m: float, mean: float, *, error_like: bool = False) -> Reference:
    """A reference of one given null, for simulations and examples."""
    return Reference(0, 0, (make_cell([clip_null(m)], [mean], None, error_like),), {}, 0, level=(mean,))


def _bins(sample: Floats, learning: Learning, *, weekends: bool) -> NDArray[np.int_]:
    return np.array(
        [time_bin(int(ms) * 1_000_000, learning.zone, weekends=weekends) for ms in sample[:, TIME]], dtype=int
    )


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
    codes = np.array([bucket(value, edges) for value in input_tokens], dtype=int)
    return (), edges, np.where(codes < 0, 0, codes)
