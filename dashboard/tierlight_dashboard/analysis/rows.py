"""The rows of a test: which calls of a batch it sees, what each is worth to it, and the factors of its bets.

All rows of a test are worked out at once. They depend on its reference alone, never on its evidence, so they hold
until the reference is replaced.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import tzinfo

import numpy as np
from numpy.typing import NDArray

from .drift import Floats, stakes
from .reference import BUCKETS, Reference, column, good
from .signals import FIELDS, Observation, Signal, StreamKind
from .windows import LARGEST_NULL, LEAST_NULL, buckets, time_bins

Ints = NDArray[np.int_]


@dataclass(slots=True)
class Rows:
    """Rows in order of arrival. `place` counts the calls of the batch; the last axis is the lanes."""

    place: Ints
    ordinal: Ints
    at_ms: Floats
    weight: Floats
    x: Floats
    m: Floats
    mean: Floats
    factors: Floats  # rows x bets x lanes

    def end(self, place: int) -> int:
        """The first row of a call at or after `place`."""
        return int(np.searchsorted(self.place, place))

    def after(self, ordinal: int, first: int, last: int) -> Rows:
        """Those of the rows `first` up to `last` that come after the call of this ordinal."""
        chosen = slice(max(first, int(np.searchsorted(self.ordinal, ordinal, side="right"))), last)
        return Rows(
            self.place[chosen],
            self.ordinal[chosen],
            self.at_ms[chosen],
            self.weight[chosen],
            self.x[chosen],
            self.m[chosen],
            self.mean[chosen],
            self.factors[chosen],
        )

    def recovery(self, first: int, last: int, lane: int, drop: float) -> Floats:
        """The factors of rows `first` up to `last` for the test that the level of `lane` is back."""
        null = 1 - (self.mean[first:last, lane] - drop / 2)
        null = np.minimum(np.maximum(null, LEAST_NULL), LARGEST_NULL)
        x = 1 - self.x[first:last, lane]
        return np.asarray(1 + (self.weight[first:last] * stakes(null)) * (null - x)).T[:, :, None]


class Queue:
    """The new observations of one stream, in order of arrival, with the columns that all its tests read."""

    def __init__(self, kind: StreamKind, observations: Sequence[Observation], zone: tzinfo) -> None:
        self.observations = observations
        self._kind = kind
        self._zone = zone
        self._values = np.array([o.values for o in observations], dtype=float)
        self._ordinal = np.array([o.ordinal for o in observations])
        self._at_ms = np.array([o.time_ns / 1e6 for o in observations])
        self._keep_prob = np.array([o.keep_prob for o in observations], dtype=float)
        self._bins: dict[bool, Ints] = {}

    def __len__(self) -> int:
        return len(self.observations)

    def rows(self, signal: Signal, reference: Reference, first: int, keep_min: float) -> Rows:
        """The rows of a test from the call at `first` on."""
        y = self._values[first:, column(signal, self._kind)]
        code = np.zeros(len(y), dtype=int)
        part = None
        if signal.form == "mix":
            part = self._parts(reference, y, first)
            known = part >= 0
        else:
            known = ~np.isnan(y)
        if signal.cells == "segment":
            code = self._segments(reference, first, -1) + 1
        elif signal.cells in ("output", "input"):
            tokens = FIELDS[self._kind].index(f"{signal.cells}_tokens")
            code = buckets(self._values[first:, tokens], reference.edges) + 1
        if reference.timed:
            code = code + BUCKETS * self._time_bins(reference.weekends)[first:]
        cell = _lookup(reference, code)
        known &= cell >= 0
        chosen = np.flatnonzero(known)
        y, cell, place = y[chosen], cell[chosen], chosen + first
        weight = np.minimum(1.0, keep_min / self._keep_prob[place])
        x = _x(signal, reference, y, cell, None if part is None else part[chosen])
        m = reference.m[cell]
        factors = 1 + (weight[:, None, None] * reference.lam[cell]) * (m - x)[:, None, :]
        return Rows(
            place, self._ordinal[place], self._at_ms[place], weight, x, m, reference.mean[cell], factors
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


def _x(signal: Signal, reference: Reference, y: Floats, cell: Ints, part: Ints | None) -> Floats:
    """x of each lane."""
    if signal.form == "tail" and reference.t is not None:
        t = reference.t[cell]
        return np.asarray(y[:, None] >= t if signal.falls else y[:, None] <= t, dtype=float)
    if part is not None:
        return np.asarray(part[:, None] != np.arange(reference.lanes), dtype=float)
    return good(signal, y)[:, None]


def joined(parts: Sequence[Rows]) -> Rows:
    """The rows of several tests of one lane in order of arrival, their places counted anew."""
    ordinal = np.concatenate([rows.ordinal for rows in parts])
    order = np.argsort(ordinal, kind="stable")
    return Rows(
        np.arange(len(order)),
        ordinal[order],
        np.concatenate([rows.at_ms for rows in parts])[order],
        np.concatenate([rows.weight for rows in parts])[order],
        np.concatenate([rows.x for rows in parts])[order],
        np.concatenate([rows.m for rows in parts])[order],
        np.concatenate([rows.mean for rows in parts])[order],
        np.concatenate([rows.factors for rows in parts])[order],
    )
