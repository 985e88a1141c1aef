"""Scores: each finds its call by one address, or is held until the call is there."""

# ruff: noqa: S608 - only names of our own columns are put into statements; values are bound

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

import orjson

from tierlight.semconv import TIERLIGHT_JOIN_PREFIX

from ..normalise import SpanKey
from ..records import HOUR_NS, Attributes, Batch, CallRecord, ScoreRecord
from . import tables
from .dirty import DirtyHours
from .intern import Interner
from .runs import Runs
from .sums import DAY_NS

MAX_ADDRESSES: Final = 200_000  # held addresses kept in memory; above, the table is asked for every call

Fresh = tuple[
    int, int | None, CallRecord | None
]  # of a span just stored: its number, who counts for it, its call

_BY_CALL_ID: Final = tables.has_id("call_id", "?2")
_BY_SPAN: Final = tables.has_id("trace_id", "?2", runs=tables.given_runs("?4")) + " AND c.span_id = ?3"
_BY_RESPONSE: Final = tables.has_id("response_id", "?2")
_BY_RESPONSE_OF_A_DAY: Final = tables.has_id("response_id", "?2", runs=tables.runs_between("?3", "?4"))
_UPSERT: Final = (
    "INSERT INTO scores (call_seq, signal_id, kind, value, weight, time_ns, evaluator_version, label, explanation)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (call_seq, signal_id) DO UPDATE SET"
    " kind = excluded.kind, value = excluded.value, weight = excluded.weight, time_ns = excluded.time_ns,"
    " evaluator_version = excluded.evaluator_version, label = excluded.label, explanation = excluded.explanation"
    " WHERE excluded.time_ns >= scores.time_ns"
)
_HOLD: Final = (
    "INSERT INTO held_scores (project, address, name, source, held_ns, body) VALUES (?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (project, address, name, source) DO UPDATE SET held_ns = excluded.held_ns, body = excluded.body"
    " WHERE excluded.body ->> '$.time_ns' >= held_scores.body ->> '$.time_ns'"
)


class Scorer:
    """Stores scores in the writer's open transaction. After a rollback call `forget`."""

    def __init__(
        self, connection: sqlite3.Connection, interner: Interner, dirty: DirtyHours, runs: Runs
    ) -> None:
        self._connection = connection
        self._interner = interner
        self._dirty = dirty
        self._runs = runs
        self._found: list[tuple[Any, ...]] = []  # rows that are not written yet
        self._held: set[tuple[str, str]] | None = set()

    def forget(self) -> None:
        self._found = []
        rows = self._connection.execute(
            "SELECT DISTINCT project, address FROM held_scores LIMIT ?", (MAX_ADDRESSES,)
        ).fetchall()
        self._held = set(rows) if len(rows) < MAX_ADDRESSES else None

    def store(self, group: Sequence[Batch], fresh: Mapping[SpanKey, Fresh]) -> list[int]:
        """Store every score of the group; gives how many each request brought.

        Scores that stand on a span count as part of it: they are stored when the span is (`fresh`).
        """
        counts = []
        for batch in group:
            for span in batch.spans:
                if span.scores:
                    self._store_inline(span.scores, fresh.get((span.span.trace_id, span.span.span_id)))
            for score in batch.scores:
                self._store(score)
            counts.append(len(batch.scores))
        self._write()
        return counts

    def _store_inline(self, scores: Iterable[ScoreRecord], fresh: Fresh | None) -> None:
        if fresh is None:
            return
        seq, superseded_by, call = fresh
        for score in scores:
            if call is not None and score.project == call.project:
                self._put(*self._counted(seq, call.start_ns, superseded_by), score)
            else:
                self._store(score)

    def _store(self, score: ScoreRecord) -> None:
        address = address_of(score)
        targets = self._targets(score)
        for call_seq, start_ns in targets:
            self._put(call_seq, start_ns, score)
        if not targets or address.startswith("join:"):
            self.hold(score, address)

    def _put(self, call_seq: int, start_ns: int, score: ScoreRecord) -> None:
        self._found.append(
            (
                call_seq,
                self._interner.signal(score.name, score.source),
                score.kind,
                score.value,
                score.weight,
                score.time_ns,
                score.evaluator_version,
                score.label,
                score.explanation,
            )
        )
        self._dirty.mark(start_ns // HOUR_NS)

    def _write(self) -> None:
        if self._found:
            self._connection.executemany(_UPSERT, self._found)
            self._found = []

    def hold(self, score: ScoreRecord, address: str) -> None:
        fields = asdict(score)
        fields["trace_id"], fields["span_id"] = score.trace_id.hex(), score.span_id.hex()
        self._connection.execute(
            _HOLD,
            (
                score.project,
                address,
                score.name,
                score.source,
                self._dirty.now_ns,
                orjson.dumps(fields).decode(),
            ),
        )
        if self._held is not None:
            self._held.add((score.project, address))
            if len(self._held) >= MAX_ADDRESSES:
                self._held = None

    def _targets(self, score: ScoreRecord) -> list[tuple[int, int]]:
        """The calls a score is about, as (seq, start_ns): one, but for a business key, which may be on many."""
        if score.call_id:
            rows = self._calls(_BY_CALL_ID, score, score.call_id)
        elif score.span_id:
            rows = self._calls(
                _BY_SPAN, score, score.trace_id, score.span_id, self._runs.as_json(score.trace_id)
            )
        elif score.response_id:
            # Most are given within a day of the call; every run of the store is asked for the others.
            day = (score.time_ns - DAY_NS, score.time_ns + DAY_NS)
            rows = self._calls(_BY_RESPONSE_OF_A_DAY, score, score.response_id, *day)
            rows = rows or self._calls(_BY_RESPONSE, score, score.response_id)
        elif score.join_key:
            return self._joined(address_of(score), score.project)
        else:
            return []
        if not rows:
            return []
        # Of several attempts the answer that was used is meant (not its shadow), unless the score names the span.
        best = max(
            rows, key=lambda row: (row[5] == score.span_id, row[2] is None, row[6], row[3], row[4], row[0])
        )
        return [self._counted(*best[:3])]

    def _calls(self, where: str, score: ScoreRecord, *values: Any) -> list[Any]:
        return self._connection.execute(
            "SELECT c.seq, c.start_ns, c.superseded_by, k.attempt_final, c.attempt_index, c.span_id,"
            " d.purpose <> 'shadow'"
            " FROM calls c JOIN call_kinds k ON k.id = c.kind_id JOIN series d ON d.id = k.series_id"
            f" WHERE {where} AND c.project_id = (SELECT id FROM projects WHERE name = ?1)",
            (score.project, *values),
        ).fetchall()

    def _joined(self, address: str, project: str) -> list[tuple[int, int]]:
        rows = self._connection.execute(
            "SELECT c.seq, c.start_ns, c.superseded_by FROM joins j JOIN calls c ON c.seq = j.call_seq"
            " JOIN call_kinds k ON k.id = c.kind_id WHERE j.address = ? AND k.attempt_final"
            " AND c.project_id = (SELECT id FROM projects WHERE name = ?)",
            (address, project),
        ).fetchall()
        return sorted({self._counted(*row) for row in rows})

    def _counted(self, seq: int, start_ns: int, superseded_by: int | None) -> tuple[int, int]:
        """The call that counts in place of a superseded one."""
        seen = {seq}
        while superseded_by is not None and superseded_by not in seen:
            row = self._connection.execute(
                "SELECT seq, start_ns, superseded_by FROM calls WHERE seq = ?", (superseded_by,)
            ).fetchone()
            if row is None:
                break
            seq, start_ns, superseded_by = row
            seen.add(seq)
        return seq, start_ns

    def note_calls(self, calls: Iterable[tuple[int, CallRecord, Attributes]]) -> None:
        """New calls are there: keep their business keys and give them the scores that waited for them."""
        for seq, call, attributes in calls:
            addresses: list[str] = []
            if TIERLIGHT_JOIN_PREFIX in "\n".join(attributes):  # a tenth of the time of asking each name
                addresses += [f"join:{key}={value}" for key, value in _join_keys(attributes)]
                self._connection.executemany(
                    "INSERT OR IGNORE INTO joins (address, call_seq) VALUES (?, ?)",
                    [(address, seq) for address in addresses],
                )
            if self._held is not None and not self._held:
                continue
            addresses.append(f"span:{call.trace_id.hex()}/{call.span_id.hex()}")
            if call.call_id:
                addresses.append(f"call:{call.call_id}")
            if call.response_id:
                addresses.append(f"response:{call.response_id}")
            for address in addresses:
                if self._held is None or (call.project, address) in self._held:
                    self._release(call.project, address)
        self._write()

    def _release(self, project: str, address: str) -> None:
        rows = self._connection.execute(
            "SELECT id, body FROM held_scores WHERE project = ? AND address = ?", (project, address)
        ).fetchall()
        for held_id, body in rows:
            score = _score_of_json(body)
            targets = self._targets(score)
            for call_seq, start_ns in targets:
                self._put(call_seq, start_ns, score)
            if targets and not address.startswith("join:"):
                self._connection.execute("DELETE FROM held_scores WHERE id = ?", (held_id,))
                if self._held is not None:
                    self._held.discard((project, address))

    def move(self, loser_seq: int, winner_seq: int) -> None:
        """The scores of a call that gave way to another belong to that one; of two of a kind the later counts."""
        fields = "kind, value, weight, time_ns, evaluator_version, label, explanation"
        same = "FROM scores AS lost WHERE lost.call_seq = ?1 AND lost.signal_id = kept.signal_id"
        changed = self._connection.execute(
            f"UPDATE scores AS kept SET ({fields}) = (SELECT {fields} {same}) WHERE kept.call_seq = ?2"
            f" AND EXISTS (SELECT 1 {same} AND lost.time_ns > kept.time_ns)",
            (loser_seq, winner_seq),
        ).rowcount
        changed += self._connection.execute(
            "UPDATE OR IGNORE scores SET call_seq = ? WHERE call_seq = ?", (winner_seq, loser_seq)
        ).rowcount
        if changed:
            for (start_ns,) in self._connection.execute(
                "SELECT start_ns FROM calls WHERE seq IN (?, ?)", (winner_seq, loser_seq)
            ).fetchall():
                self._dirty.mark(start_ns // HOUR_NS)


def address_of(score: ScoreRecord) -> str:
    if score.call_id:
        return f"call:{score.call_id}"
    if score.span_id:
        return f"span:{score.trace_id.hex()}/{score.span_id.hex()}"
    if score.response_id:
        return f"response:{score.response_id}"
    return f"join:{score.join_key}={score.join_value}"


def _join_keys(attributes: Attributes) -> Iterator[tuple[str, str]]:
    for name, value in attributes.items():
        if name.startswith(TIERLIGHT_JOIN_PREFIX) and isinstance(value, str | int):
            yield name[len(TIERLIGHT_JOIN_PREFIX) :], str(value)


def _score_of_json(body: str) -> ScoreRecord:
    fields: dict[str, Any] = orjson.loads(body)
    fields["trace_id"], fields["span_id"] = (
        bytes.fromhex(fields["trace_id"]),
        bytes.fromhex(fields["span_id"]),
    )
    return ScoreRecord(**fields)
