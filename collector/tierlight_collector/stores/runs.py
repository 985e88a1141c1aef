"""Where in the order of arrival a trace has spans, found without an index that grows under ingest.

Ids are random. An index on them takes each new entry at another place, so from some hundred thousand calls on every
span dirties a page of its own in each such index, and that page is written three times: more than everything else
that ingest costs. Indexes on ids therefore begin with the *run*, 8,192 arrival numbers in a row: new entries all lie
on the last few pages, however much is stored. A look-up of one id asks every run (a millisecond at five million calls).

What is asked for each span that comes in, whether its trace has stored spans, is answered from memory: a Bloom
filter of each run's traces, kept bit by bit across the runs, so that five short rows say which runs may hold a
trace. The filters take four bytes a span, in memory and beside the run in the file.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Final

import numpy as np
import orjson
from numpy.typing import NDArray

RUN_BITS: Final = 13  # of 4,096 to 16,384 numbers a run, ingest writes about the same
_SPANS_A_RUN: Final = 1 << RUN_BITS
# At 32 bits a span and five probes one run in 16,000 is asked in vain. Each probe is a miss of the CPU's cache.
_FILTER_BITS: Final = 18
_PROBES: Final = 5
_FILTER_BYTES: Final = (1 << _FILTER_BITS) // 8
_FIRST_HASH: Final = np.uint64(0x9E3779B97F4A7C15)
_SECOND_HASH: Final = np.uint64(0xC2B2AE3D27D4EB4F)
_SHIFT: Final = np.uint64(64 - _FILTER_BITS)
_MASK: Final = np.uint64((1 << _FILTER_BITS) - 1)
_STEPS: Final = np.arange(_PROBES, dtype=np.uint64)

_NOTE: Final = (
    "INSERT INTO arrival_runs (run, oldest_ns, newest_ns) VALUES (?, ?, ?) ON CONFLICT (run) DO UPDATE SET"
    " oldest_ns = min(oldest_ns, excluded.oldest_ns), newest_ns = max(newest_ns, excluded.newest_ns)"
)


class Runs:
    """The filters of all runs, and their rows in the writer's open transaction. After a rollback call `forget`.

    Bits of spans that were taken back stay: they only cost a look-up in vain.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._first: int = self._first_run()
        self._bits: NDArray[np.uint8] = np.zeros((1 << _FILTER_BITS, 8), np.uint8)
        self._used = 0  # columns of `_bits`, eight runs each
        self._unsealed: set[int] = set()
        self._load()
        self.forget()

    def _load(self) -> None:
        (newest,) = self._connection.execute("SELECT max(run) FROM arrival_runs").fetchone()
        if newest is not None:
            self._place(newest)
        rows = self._connection.execute("SELECT run, traces FROM arrival_runs ORDER BY run")
        for number, eight in groupby(rows, lambda row: (row[0] - self._first) // 8):
            filters = np.zeros(
                1 << _FILTER_BITS, np.uint8
            )  # a column at a time: `_bits` is far apart in memory
            without = []
            for run, traces in eight:
                if traces is not None and len(traces) == _FILTER_BYTES:
                    bits = np.unpackbits(np.frombuffer(traces, np.uint8))
                    filters |= bits << np.uint8((run - self._first) % 8)
                else:
                    without.append(run)
            column, _ = self._place(self._first + 8 * number)
            self._bits[:, column] = filters
            for run in without:
                self._add(run, self._stored_traces(run))

    def forget(self) -> None:
        self._unsealed = {
            run
            for (run,) in self._connection.execute(
                "SELECT run FROM arrival_runs WHERE ifnull(length(traces), 0) <> ?", (_FILTER_BYTES,)
            )
        }

    def of(self, traces: Iterable[bytes]) -> list[tuple[bytes, int]]:
        """Every (trace, run) in which the trace has stored spans, and a few in which it has not."""
        asked = list(traces)
        if not asked or not self._used:
            return []
        hits = np.bitwise_and.reduce(self._bits[:, : self._used][_positions(asked)], axis=1)
        which = np.flatnonzero(hits.any(axis=1))
        if not len(which):
            return []
        found, runs = np.nonzero(np.unpackbits(hits[which], axis=1, bitorder="little"))
        return [
            (asked[at], self._first + run)
            for at, run in zip(which[found].tolist(), runs.tolist(), strict=True)
        ]

    def as_json(self, trace_id: bytes) -> str:
        """The runs that may hold the trace, for `tables.given_runs`; may be asked from any thread."""
        return orjson.dumps([run for _, run in self.of([trace_id])]).decode()

    def note(self, spans: Sequence[tuple[int, bytes, int]]) -> None:
        """Spans (arrival number, trace, start) are stored now; in order of arrival."""
        at = 0
        while at < len(spans):
            run = spans[at][0] >> RUN_BITS
            end = at
            while end < len(spans) and spans[end][0] >> RUN_BITS == run:
                end += 1
            part = spans[at:end]
            at = end
            self._add(run, [trace_id for _, trace_id, _ in part])
            starts = [start_ns for _, _, start_ns in part]
            self._connection.execute(_NOTE, (run, min(starts), max(starts)))
            for full in [each for each in self._unsealed if each < run]:
                self._seal(full)
            self._unsealed.add(run)

    def _seal(self, run: int) -> None:
        """No more spans will come into the run: keep its filter, for the next start."""
        column, bit = self._place(run)
        packed = np.packbits(self._bits[:, column] & bit != 0).tobytes()
        self._connection.execute("UPDATE arrival_runs SET traces = ? WHERE run = ?", (packed, run))
        self._unsealed.discard(run)

    def _add(self, run: int, traces: Sequence[bytes]) -> None:
        column, bit = self._place(run)
        if traces:
            self._bits[_positions(traces).ravel(), column] |= bit

    def _place(self, run: int) -> tuple[int, np.uint8]:
        """The column of a run's filter and its bit there; makes room for it."""
        column, bit = divmod(run - self._first, 8)
        if column >= self._bits.shape[1]:
            wider = np.zeros((1 << _FILTER_BITS, column + 8 + column // 8), np.uint8)
            wider[:, : self._used] = self._bits[:, : self._used]
            self._bits = wider
        self._used = max(self._used, column + 1)
        return column, np.uint8(1 << bit)

    def _first_run(self) -> int:
        run: int = self._connection.execute(
            "SELECT coalesce((SELECT min(run) FROM arrival_runs),"
            " (SELECT n >> ? FROM counters WHERE name = 'next_seq'), 0)",
            (RUN_BITS,),
        ).fetchone()[0]
        return run

    def _stored_traces(self, run: int) -> list[bytes]:
        first = run << RUN_BITS
        return [
            trace_id
            for (trace_id,) in self._connection.execute(
                "SELECT trace_id FROM calls WHERE seq BETWEEN ?1 AND ?2"
                " UNION SELECT trace_id FROM spans WHERE seq BETWEEN ?1 AND ?2",
                (first, first + _SPANS_A_RUN - 1),
            )
        ]


def _positions(traces: Sequence[bytes]) -> NDArray[np.uint64]:
    """Where the bits of each trace are: one row of positions a trace. The last half of an id is the random one."""
    numbers = np.frombuffer(b"".join([trace_id[-8:] for trace_id in traces]), np.dtype("<u8"))
    start = (numbers * _FIRST_HASH) >> _SHIFT
    step = ((numbers * _SECOND_HASH) >> _SHIFT) | np.uint64(1)
    return (start[:, None] + step[:, None] * _STEPS) & _MASK
