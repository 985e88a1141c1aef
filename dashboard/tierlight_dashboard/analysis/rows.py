"""The rows of a test: which calls of a batch it sees, what each is worth to it, and what is bet on it.

All rows of a test are worked out at once. They depend on its reference alone, never on its evidence, so they hold
until the reference is replaced.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import tzinfo
from math import isnan

import numpy as np
from numpy.typing import NDArray

from .drift import Floats
from .reference import BUCKETS, Reference, column, good
from .signals import FIELDS, Observation, Signal, StreamKind
from .windows import buckets, time_bins

Ints = NDArray[np.int_]


@dataclass(slots=True)
class Rows:
    """Rows in order of arrival. `place` counts the calls of the batch; the last axis is the lanes."""

    place: Ints
    ordinal: Ints
    time_ns: Ints
    at_ms: Floats
    weight: Floats
    x: Floats
    nulls: Floats  # each row's cell of `Reference.nulls`

    def end(self, place: int) -> int:
        """The first row of a call at or after `place`."""
        return int(self.place.searchsorted(place))


class Queue:
    """The new observations of one stream, in order of arrival, with the columns that all its tests read."""

    def __init__(self, kind: StreamKind, observations: Sequence[Observation], zone: tzinfo) -> None:
        self.observations = observations
        self._kind = kind
        self._zone = zone
        self._values = np.array([o.values for o in observations], dtype=float)
        self._ordinal = np.array([o.ordinal for o in observations])
        self._time_ns = np.array([o.time_ns for o in observations])
        self._at_ms = np.array([o.time_ns / 1e6 for o in observations])
        self._keep_prob = np.array([o.keep_prob for o in observations], dtype=float)
        self._bins: dict[bool, Ints] = {}

    def __len__(self) -> int:
        return len(self.observations)

    def rows(self, signal: Signal, reference: Reference, first: int, keep_min: float) -> Rows:
        """The rows of a test from the call at `first` on."""
        if len(self) == 1:
            return self._row(signal, reference, keep_min)
        y = self._values[first:, column(signal, self._kind)]
        code = np.zeros(len(y), dtype=int)
        if signal.form == "mix":
            part = self._parts(reference, y, first)
        else:
            part = np.where(np.isnan(y), -1, 0)
        known = part >= 0
        if signal.cells == "segment":
            code = self._segments(reference, first, -1) + 1
        elif signal.cells in ("output", "input"):
            tokens = FIELDS[self._kind].index(f"{signal.cells}_tokens")
            code = buckets(self._values[first:, tokens], reference.edges) + 1
        if reference.timed:
            code = code + BUCKETS * self._time_bins(reference.weekends)[first:]
        cell = _lookup(reference, code)
        known &= cell >= 0
        place = np.arange(first, first + len(y))
        if not known.all():
            y, cell, place, part = y[known], cell[known], place[known], part[known]
        weight = np.minimum(1.0, keep_min / self._keep_prob[place])
        x = _x(signal, reference, y, cell, part)
        return Rows(
            place,
            self._ordinal[place],
            self._time_ns[place],
            self._at_ms[place],
            weight,
            x,
            reference.nulls[cell],
        )

    def _row(self, signal: Signal, reference: Reference, keep_min: float) -> Rows:
        """`rows` for a single call, in a third of the time: most calls of a quiet fleet come alone."""
        (observation,) = self.observations
        values = observation.values
        y = values[column(signal, self._kind)]
        part, code = 0, 0
        if signal.form == "mix":
            part = int(self._parts(reference, np.array([y]), 0)[0])
        elif isnan(y):
            part = -1
        if signal.cells == "segment" and observation.segment in reference.segments:
            code = reference.segments.index(observation.segment) + 1
        elif signal.cells in ("output", "input"):
            tokens = values[FIELDS[self._kind].index(f"{signal.cells}_tokens")]
            code = 0 if isnan(tokens) else bisect_left(reference.edges, tokens) + 1
        if reference.timed:
            code += BUCKETS * int(self._time_bins(reference.weekends)[0])
        cell = reference.index.get(code, reference.rest)
        if part < 0 or cell < 0:
            return NO_ROWS
        weight = min(1.0, keep_min / observation.keep_prob)
        here = slice(cell, cell + 1)
        x = _x(signal, reference, self._values[:, column(signal, self._kind)], here, part)
        return Rows(
            _FIRST, self._ordinal, self._time_ns, self._at_ms, np.array([weight]), x, reference.nulls[here]
        )

    def _time_bins(self, weekends: bool) -> Ints:
        if weekends not in self._bins:
            times = [o.time_ns for o in self.observations]
            self._bins[weekends] = time_bins(times, self._zone, weekends=weekends)
        return self._bins[weekends]

    def _segments(self, reference: Reference, first: int, other: int) -> Ints:
        codes = {name: code for code, name in enumerate(reference.segments)}
        return np.array([codes.get(o.segment, other) for o in self.observations[first:]], dtype=int)

    def _parts(self, reference: Reference, input_tokens: Floats, first: int) -> Ints:
        """Which part of the traffic each call belongs to, -1 = unknown."""
        if reference.segments:
            return self._segments(reference, first, len(reference.segments))
        return buckets(input_tokens, reference.edges)


def _lookup(reference: Reference, code: Ints) -> Ints:
    if len(code) < 8:
        return np.array([reference.index.get(int(one), reference.rest) for one in code], dtype=int)
    rows = np.full(max(int(code.max()), *reference.index, 0) + 1, reference.rest)
    for number, cell in reference.index.items():
        rows[number] = cell
    return rows[code]


def _x(signal: Signal, reference: Reference, y: Floats, cell: Ints | slice, part: Ints | int) -> Floats:
    """x of each lane."""
    if signal.form == "tail" and reference.t is not None:
        t = reference.t[cell]
        return np.asarray(y[:, None] >= t if signal.falls else y[:, None] <= t, dtype=float)
    if signal.form == "mix":
        return np.asarray(np.reshape(part, (-1, 1)) != np.arange(reference.lanes), dtype=float)
    return good(signal, y)[:, None]


_FIRST = np.zeros(1, dtype=int)
NO_ROWS = Rows(*(np.zeros(0, dtype=int) for _ in range(3)), *(np.zeros(0) for _ in range(4)))


def joined(parts: Sequence[tuple[Rows, slice]], after: int) -> Rows:
    """Rows of several tests of one lane that come after an ordinal, in order of arrival, their places counted anew."""
    ordinal = np.concatenate([rows.ordinal[some] for rows, some in parts])
    order = np.argsort(ordinal, kind="stable")
    order = order[ordinal[order] > after]
    return Rows(
        np.arange(len(order)),
        ordinal[order],
        np.concatenate([rows.time_ns[some] for rows, some in parts])[order],
        np.concatenate([rows.at_ms[some] for rows, some in parts])[order],
        np.concatenate([rows.weight[some] for rows, some in parts])[order],
        np.concatenate([rows.x[some] for rows, some in parts])[order],
        np.concatenate([rows.nulls[some] for rows, some in parts])[order],
    )
