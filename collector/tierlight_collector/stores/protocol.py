"""What a store of facts and a store of decisions promise. One contract suite runs against every implementation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, Protocol

from ..decisions import (
    Alert,
    AlertMute,
    AlertState,
    AuditEntry,
    Experiment,
    PolicyRevision,
    Recommendation,
    WatchCommit,
)
from ..records import (
    Appended,
    Batch,
    CallEvidence,
    CallPage,
    CallRecord,
    CallRow,
    ContentRecord,
    CostChange,
    Cursor,
    Dim,
    Filters,
    PastCost,
    Reread,
    Rollup,
    RouteInfo,
    ScoreEvidence,
    ScoreRecord,
    SpanRecord,
    StoreHealth,
    TimeRange,
)
from .horizons import Retention

Order = Literal["time", "cost", "latency"]


class CallSink(Protocol):
    """Where ingest puts a batch."""

    def submit(self, batch: Batch) -> Future[Appended]:
        """Queue the batch; the future resolves after COMMIT. Raises StoreBusy at once when the queue is full."""

    def append(self, batch: Batch) -> Appended:
        """Store the batch; durable on return. The same batch again adds nothing."""


class RollupSource(Protocol):
    """Where pages and analysis read sums from."""

    def rollups(self, when: TimeRange, group_by: tuple[Dim, ...] = (), where: Filters = ...) -> list[Rollup]:
        """One rollup per combination of the group-by dimensions that occurs, exact at every moment."""

    def series(
        self,
        when: TimeRange,
        step: Literal["hour", "day"],
        tz: str = "UTC",
        group_by: tuple[Dim, ...] = (),
        where: Filters = ...,
    ) -> list[tuple[datetime, Rollup]]:
        """Rollups per hour or per local day of the zone `tz` (23 and 25 hour days are right), oldest first."""

    def costs(
        self,
        when: TimeRange,
        step: Literal["hour", "day"],
        tz: str = "UTC",
        group_by: tuple[Dim, ...] = (),
        where: Filters = ...,
    ) -> list[tuple[datetime, tuple[str, ...], int]]:
        """The `cost_nusd` of `series` with its key, in a fraction of the time."""


class FactStore(CallSink, RollupSource, Protocol):
    """Calls, scores, spans and contents."""

    def calls(
        self,
        where: Filters = ...,
        *,
        after: Cursor | None = None,
        limit: int = 50,
        order: Order = "time",
        descending: bool = True,
    ) -> CallPage:
        """One page by key, never by offset; unknown values of the sort column come last. Superseded rows are left out."""

    def call(self, trace_id: bytes, span_id: bytes, project: str = ...) -> CallRow | None: ...

    def trace(self, trace_id: bytes, limit: int = ..., project: str = ...) -> list[SpanRecord]:
        """The received spans of a trace by start time, LLM or not."""

    def contents(self, trace_id: bytes, span_id: bytes, project: str = ...) -> list[ContentRecord]: ...

    def routes(self, project: str = ...) -> list[RouteInfo]: ...

    def call_evidence(self, after: int, limit: int) -> list[CallEvidence]:
        """Calls with arrival number > `after`, in arrival order; all purposes, superseded ones left out."""

    def score_evidence(self, after: int, limit: int) -> list[ScoreEvidence]:
        """Scores with arrival number > `after` in the order in which they met their calls."""

    def reprice(self, changes: Sequence[CostChange]) -> int:
        """Write the new costs in one transaction, keep the old ones as history; gives the number of calls changed.

        Sums are right at once. A call that has gone meanwhile is passed over.
        """

    def cost_history(self, trace_id: bytes, span_id: bytes) -> list[PastCost]:
        """What the call was taken to cost before it was priced again, oldest first."""

    def health(self) -> StoreHealth: ...

    def roll_up(self) -> None:
        """Recount every closed hour that is due now, instead of within the next seconds. Sums never depend on it."""

    def retain(self) -> None:
        """Delete what is older than the retention now, instead of within the next minute."""

    def keep(self, retention: Retention) -> None:
        """Keep things so long from now on; what is older goes within the next minute."""

    def purge(
        self,
        *,
        span: tuple[bytes, bytes] | None = ...,
        user: str = ...,
        route: str = ...,
        before_ns: int = ...,
        who: str = ...,
        project: str = ...,
    ) -> int:
        """Delete the captured texts of the calls that fit all that is given; gives how many calls had some."""

    def raw_spans(self, after: int, limit: int) -> list[tuple[int, SpanRecord]]:
        """Raw spans with arrival number > `after`, in arrival order, as far as they are kept."""

    def renormalise(
        self,
        price: Callable[[CallRecord], CallRecord],
        *,
        after: int = ...,
        limit: int = ...,
        since_ns: int = ...,
        routes: Sequence[str] = ...,
    ) -> Reread:
        """Read the next stored spans with arrival number > `after` by today's rules, in one transaction.

        Calls that are read differently are written anew under their arrival numbers; routes and duplicates are
        settled, sums are right at once. Costs stay, unless model, usage or stated cost are read differently: then
        `price` prices the call again and the old cost is kept as history.
        """

    def backup(self, target: Path) -> None: ...

    def close(self) -> None: ...


class DecisionStore(Protocol):
    """Alerts, recommendations, experiments, policies, settings and the detectors' states."""

    def detector_states(self) -> Mapping[str, bytes]: ...

    def watermarks(self) -> Mapping[str, int]: ...

    def commit_watch(self, commit: WatchCommit) -> tuple[Alert, ...]:
        """Store one tick of the watch in one transaction; gives the alerts back with their ids."""

    def alerts(
        self, *, route: str | None = None, states: Sequence[AlertState] = (), limit: int = 200
    ) -> list[Alert]: ...

    def alert(self, alert_id: int) -> Alert | None: ...

    def update_alert(self, alert: Alert, who: str) -> None: ...

    def mutes(self) -> list[AlertMute]: ...

    def set_mute(self, mute: AlertMute) -> None: ...

    def remove_mute(self, route: str, signal: str, who: str) -> None: ...

    def recommendations(self, *, route: str | None = None) -> list[Recommendation]: ...

    def recommendation(self, recommendation_id: int) -> Recommendation | None: ...

    def update_recommendation(self, recommendation: Recommendation, who: str) -> None: ...

    def experiments(self) -> list[Experiment]: ...

    def save_experiment(self, experiment: Experiment, who: str) -> None: ...

    def policies(self, limit: int = 50) -> list[PolicyRevision]: ...

    def add_policy(self, toml: str, version: str, who: str, note: str) -> PolicyRevision: ...

    def settings(self) -> Mapping[str, str]: ...

    def set_setting(self, key: str, value: str, who: str) -> None: ...

    def audit(self, limit: int = 200) -> list[AuditEntry]: ...

    def record_audit(self, entry: AuditEntry) -> None: ...


@dataclass(frozen=True, slots=True)
class OutboxBatch:
    """One accepted request waiting to be forwarded: an OTLP protobuf export request."""

    seq: int
    signal: Literal["traces", "logs"]
    payload: bytes
    spans: int
    created_ns: int


@dataclass(frozen=True, slots=True)
class OutboxTarget:
    """Where one forwarding target stands; batches below every target's `next_seq` are deleted."""

    name: str
    next_seq: int
    state: Literal["ok", "retrying", "blocked", "paused"] = "ok"
    attempts: int = 0
    last_error: str = ""
    sent: int = 0
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class OutboxWaiting:
    """What is behind a cursor of the outbox; `last_seq` is 0 when nothing is."""

    requests: int
    spans: int
    nbytes: int
    last_seq: int


class Outbox(Protocol):
    """The durable queue of forwarding; filled in the same transaction as the calls (`Batch.forward`)."""

    def outbox_batches(self, after: int, max_bytes: int) -> list[OutboxBatch]:
        """Waiting batches with `seq >= after`, oldest first, at most `max_bytes` of payload (but at least one)."""

    def outbox_waiting(self, after: int) -> OutboxWaiting:
        """How much waits with `seq >= after`, of whatever signal."""

    def outbox_targets(self) -> list[OutboxTarget]: ...

    def save_outbox_target(self, target: OutboxTarget) -> None: ...

    def remove_outbox_target(self, name: str) -> None: ...

    def trim_outbox(self, max_bytes: int, before_ns: int) -> int:
        """Drop the oldest batches over `max_bytes` or older than `before_ns`; gives the number of spans dropped."""


class Store(FactStore, DecisionStore, Outbox, Protocol):
    """Both, in one place: what `open_store(url)` gives."""

    def add_scores(self, scores: Sequence[ScoreRecord]) -> int:
        """Store scores that came by the API; gives the number accepted. Same as `append` of a batch of scores."""
