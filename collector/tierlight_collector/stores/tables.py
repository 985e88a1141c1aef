"""The tables, as SQLModel. They define the schema only: rows are written by the driver's executemany.

A call is one narrow row. What repeats from call to call is interned: `call_kinds` holds everything that lists
and sums select by, `call_origins` the rest, `route_hints` what a span says of routes. Everything received shares
one arrival number (`seq`), so that a block of raw spans or contents is found by its first number and the rows
need no pointer to it.
"""

# Long because one schema in one place, each index with its reason.
from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from sqlalchemy import Index, Table, UniqueConstraint, text
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateIndex, CreateTable
from sqlmodel import Field, SQLModel

from .runs import RUN_BITS

# Which part of each id is indexed, as arguments of substr; see `has_id`.
_ID_PARTS: Final = {
    "trace_id": "-8",
    "response_id": "-8",
    "call_id": "1, 18",
    "session_id": "-8",
    "user_id": "-8",
}
_RUN: Final = f"(seq >> {RUN_BITS})"
_ALL_RUNS: Final = "SELECT +run FROM arrival_runs"


class SchemaVersion(SQLModel, table=True):
    __tablename__ = "schema_version"
    version: int = Field(primary_key=True)
    applied_ns: int
    app_version: str


class Counter(SQLModel, table=True):
    """What ingest counted since the file was made."""

    __tablename__ = "counters"
    name: str = Field(primary_key=True)
    n: int


class Project(SQLModel, table=True):
    __tablename__ = "projects"
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True)


class Series(SQLModel, table=True):
    """The dimensions that rollups are kept by; "" where absent."""

    __tablename__ = "series"
    __table_args__ = (
        UniqueConstraint("project", "env", "route", "provider", "model", "tier", "arm", "purpose"),
    )
    id: int | None = Field(default=None, primary_key=True)
    project: str
    env: str
    route: str
    provider: str
    model: str
    tier: str
    arm: str
    purpose: str


class CallKind(SQLModel, table=True):
    """What lists select by. Few rows: thousands for millions of calls. `digest` is of all other columns."""

    __tablename__ = "call_kinds"
    id: int | None = Field(default=None, primary_key=True)
    digest: bytes = Field(unique=True)
    series_id: int
    operation: str
    request_model: str
    response_model: str
    error_class: str
    finish_reason: str
    outcome: str
    attempt_reason: str
    attempt_final: bool
    is_streaming: bool | None
    experiment: str
    strategy: str
    policy_version: str
    prompt_name: str
    prompt_version: str
    segment: str
    failed: bool


class CallOrigin(SQLModel, table=True):
    """Where a call came from and how it was read; shown, not selected by."""

    __tablename__ = "call_origins"
    id: int | None = Field(default=None, primary_key=True)
    digest: bytes = Field(unique=True)
    name: str
    route_source: str
    error_type: str
    http_status: int | None
    usage_source: str
    cache_rule: str
    service_tier: str
    service_name: str
    service_instance: str
    scope: str
    dialect: str
    norm_version: int
    cost_source: str
    price_version: str
    unpriced_reason: str
    wire_cost_source: str
    flags: str


class RouteHint(SQLModel, table=True):
    """What a span says of the route of itself and of the calls below it."""

    __tablename__ = "route_hints"
    id: int | None = Field(default=None, primary_key=True)
    digest: bytes = Field(unique=True)
    declared: str
    dialect: str
    agent: str
    prompt: str
    name: str


class Call(SQLModel, table=True):
    __tablename__ = "calls"
    __table_args__ = (
        Index("ix_calls_start", "start_ns"),  # an hour's recount, retention, the newest calls
        Index("ix_calls_kind_start", "kind_id", "start_ns"),  # filtered lists
        # Calls without an id of the provider's are matched with their duplicates by time.
        Index("ix_calls_anonymous", "start_ns", sqlite_where=text("response_id IS NULL")),
        # Parts of ids take a third of an index on the whole. The last characters are the random ones, so they
        # come after the run (see `runs`). A UUIDv7 begins with its time: its entries lie together anyhow.
        Index("ix_calls_trace", text(_RUN), text("substr(trace_id, -8)")),
        Index("ix_calls_call", text("substr(call_id, 1, 18)"), sqlite_where=text("call_id IS NOT NULL")),
        *(
            Index(
                f"ix_calls_{column.removesuffix('_id')}",
                text(_RUN),
                text(f"substr({column}, -8)"),
                sqlite_where=text(f"{column} IS NOT NULL"),
            )
            for column in ("response_id", "session_id", "user_id")
        ),
    )
    seq: int = Field(primary_key=True)  # arrival number
    project_id: int
    trace_id: bytes
    span_id: bytes
    parent_span_id: bytes
    kind_id: int
    origin_id: int
    hint_id: int
    start_ns: int
    arrived_ns: int
    duration_ns: int | None
    ttft_ns: int | None
    latency_bin: int | None
    ttft_bin: int | None
    input_tokens: int | None
    output_tokens: int | None
    cached_input_tokens: int | None
    cache_write_input_tokens: int | None
    cache_write_1h_input_tokens: int | None
    reasoning_tokens: int | None
    attempt_index: int
    act_prob: float | None
    keep_prob: float | None
    cost_nusd: int | None
    cost_input_nusd: int | None
    cost_cached_nusd: int | None
    cost_cache_write_nusd: int | None
    cost_output_nusd: int | None
    wire_cost_nusd: int | None
    response_id: str | None
    call_id: str | None
    session_id: str | None
    user_id: str | None
    superseded_by: int | None  # seq of the call that counts for the same request to the provider
    taken: str | None  # names of the fields that duplicates filled in, to undo it when they are settled anew


class Span(SQLModel, table=True):
    """A received span that is no call: a parent carries routes to the calls below it."""

    __tablename__ = "spans"
    __table_args__ = (
        Index("ix_spans_trace", text(_RUN), text("substr(trace_id, -8)")),
        Index("ix_spans_start", "start_ns"),
    )
    seq: int = Field(primary_key=True)
    project_id: int
    trace_id: bytes
    span_id: bytes
    parent_span_id: bytes
    role: str
    hint_id: int
    start_ns: int
    end_ns: int


class ArrivalRun(SQLModel, table=True):
    """8,192 arrival numbers in a row, that of its first shifted by 13 bits: what indexes on ids begin with.

    `oldest_ns` and `newest_ns` are of the starts of its spans, `traces` the filter of its traces once it is full.
    """

    __tablename__ = "arrival_runs"
    # Runs by time, and all runs, without reading the filters between them.
    __table_args__ = (Index("ix_arrival_runs_time", "newest_ns", "oldest_ns"),)
    run: int = Field(primary_key=True)
    oldest_ns: int
    newest_ns: int
    traces: bytes | None


class SpanBlock(SQLModel, table=True):
    """Raw spans from `first_seq` up to the next block, compressed together; kept to read them anew."""

    __tablename__ = "span_blocks"
    first_seq: int = Field(primary_key=True)
    last_seq: int
    spans: int
    oldest_ns: int
    newest_ns: int
    body: bytes


class ContentBlock(SQLModel, table=True):
    """Captured texts, like `span_blocks` but with a shorter life."""

    __tablename__ = "content_blocks"
    first_seq: int = Field(primary_key=True)
    last_seq: int
    spans: int
    oldest_ns: int
    newest_ns: int
    body: bytes


class CallFailureRow(SQLModel, table=True):
    """What a log event told of a call's failure; its span may be there, or come later."""

    __tablename__ = "call_failures"
    __table_args__ = (Index("ix_call_failures_told", "told_ns"), {"sqlite_with_rowid": False})
    trace_id: bytes = Field(primary_key=True)
    span_id: bytes = Field(primary_key=True)
    project_id: int = Field(primary_key=True)
    error_type: str
    error_class: str
    http_status: int | None
    told_ns: int


class Signal(SQLModel, table=True):
    """One kind of score: its name and who gives it."""

    __tablename__ = "signals"
    __table_args__ = (UniqueConstraint("name", "source"),)
    id: int | None = Field(default=None, primary_key=True)
    name: str
    source: str


class Score(SQLModel, table=True):
    """A score that found its call. `seq` counts up in the order in which the two met."""

    __tablename__ = "scores"
    __table_args__ = (
        UniqueConstraint("call_seq", "signal_id"),
        Index("ix_scores_explained", "time_ns", sqlite_where=text("explanation <> ''")),
        {"sqlite_autoincrement": True},
    )
    seq: int | None = Field(default=None, primary_key=True)
    call_seq: int
    signal_id: int
    kind: str
    value: float | None
    weight: float
    time_ns: int
    evaluator_version: str
    label: str
    explanation: str


class HeldScore(SQLModel, table=True):
    """A score whose call is not there yet, or that a business key may still bring to further calls."""

    __tablename__ = "held_scores"
    __table_args__ = (
        UniqueConstraint("project", "address", "name", "source"),
        Index("ix_held_scores_time", "held_ns"),
    )
    id: int | None = Field(default=None, primary_key=True)
    project: str
    address: str  # "call:<id>", "span:<trace>/<span>", "response:<id>" or "join:<key>=<value>"
    name: str
    source: str
    held_ns: int
    body: str


class Join(SQLModel, table=True):
    """A business key of a call, for outcomes that are known later."""

    __tablename__ = "joins"
    __table_args__ = (Index("ix_joins_call", "call_seq"), {"sqlite_with_rowid": False})
    address: str = Field(primary_key=True)
    call_seq: int = Field(primary_key=True)


class _Cell(SQLModel):
    # The key comes first: SQLite 3.40's integrity_check misreads tables without rowid that are laid out otherwise.
    series_id: int = Field(primary_key=True)
    bucket: int = Field(primary_key=True)  # start_ns / 3.6e12 in hours, that / 24 in days
    calls: int
    errors: int
    fallbacks: int
    escalations: int
    retries: int
    input_tokens: int
    output_tokens: int
    cached_input_tokens: int
    cache_write_input_tokens: int
    reasoning_tokens: int
    tokens_unknown: int
    cost_nusd: int
    unpriced: int
    duration_ns: int
    no_latency: int
    scored: int
    latency: bytes
    ttft: bytes
    error_classes: str
    finish_reasons: str


class RollupHour(_Cell, table=True):
    __tablename__ = "rollup_hour"
    __table_args__ = {"sqlite_with_rowid": False}


class RollupDay(_Cell, table=True):
    __tablename__ = "rollup_day"
    __table_args__ = {"sqlite_with_rowid": False}


class _ScoreCell(SQLModel):
    series_id: int = Field(primary_key=True)
    bucket: int = Field(primary_key=True)
    signal_id: int = Field(primary_key=True)
    n: int
    sum: float
    sumsq: float


class RollupScoreHour(_ScoreCell, table=True):
    __tablename__ = "rollup_score_hour"
    __table_args__ = {"sqlite_with_rowid": False}


class RollupScoreDay(_ScoreCell, table=True):
    __tablename__ = "rollup_score_day"
    __table_args__ = {"sqlite_with_rowid": False}


class DirtyHour(SQLModel, table=True):
    """Hours whose rollup no longer (or does not yet) say what the raw calls say."""

    __tablename__ = "dirty_hours"
    hour: int = Field(primary_key=True)
    since_ns: int


class DirtyDay(SQLModel, table=True):
    __tablename__ = "dirty_days"
    day: int = Field(primary_key=True)


class RolledHour(SQLModel, table=True):
    """When an hour was last recounted, and how many calls it had: for the self-check."""

    __tablename__ = "rolled_hours"
    hour: int = Field(primary_key=True)
    rolled_ns: int
    calls: int


class CostHistory(SQLModel, table=True):
    """What a call cost before it was priced again."""

    __tablename__ = "cost_history"
    __table_args__ = (Index("ix_cost_history_call", "call_seq"),)
    id: int | None = Field(default=None, primary_key=True)
    call_seq: int
    changed_ns: int
    cost_nusd: int | None
    cost_source: str
    price_version: str
    unpriced_reason: str


class OutboxRow(SQLModel, table=True):
    """An accepted request waiting to be forwarded."""

    __tablename__ = "outbox"
    __table_args__ = {"sqlite_autoincrement": True}
    seq: int | None = Field(default=None, primary_key=True)
    signal: str
    payload: bytes
    nbytes: int
    spans: int
    created_ns: int


class OutboxTargetRow(SQLModel, table=True):
    __tablename__ = "outbox_targets"
    name: str = Field(primary_key=True)
    next_seq: int
    state: str
    attempts: int
    last_error: str
    sent: int
    dropped: int


# ---- what was concluded and decided: one JSON document a row, with the columns it is looked up by -----------


class DetectorState(SQLModel, table=True):
    __tablename__ = "detector_states"
    key: str = Field(primary_key=True)
    body: bytes


class Watermark(SQLModel, table=True):
    __tablename__ = "watermarks"
    stream: str = Field(primary_key=True)
    seq: int


class AlertRow(SQLModel, table=True):
    __tablename__ = "alerts"
    __table_args__ = (Index("ix_alerts_route", "route", "opened_ns"), {"sqlite_autoincrement": True})
    id: int | None = Field(default=None, primary_key=True)
    project: str
    route: str
    state: str
    opened_ns: int
    body: str


class MuteRow(SQLModel, table=True):
    __tablename__ = "mutes"
    project: str = Field(primary_key=True)
    route: str = Field(primary_key=True)
    signal: str = Field(primary_key=True)
    until_ns: int | None
    by: str


class RecommendationRow(SQLModel, table=True):
    __tablename__ = "recommendations"
    __table_args__ = (
        UniqueConstraint("project", "route", "candidate_model"),
        {"sqlite_autoincrement": True},
    )
    id: int | None = Field(default=None, primary_key=True)
    project: str
    route: str
    candidate_model: str
    updated_ns: int
    body: str


class ExperimentRow(SQLModel, table=True):
    __tablename__ = "experiments"
    id: str = Field(primary_key=True)
    started_ns: int
    body: str


class PolicyRow(SQLModel, table=True):
    __tablename__ = "policies"
    __table_args__ = {"sqlite_autoincrement": True}
    revision: int | None = Field(default=None, primary_key=True)
    version: str
    toml: str
    by: str
    created_ns: int
    note: str
    project: str


class SettingRow(SQLModel, table=True):
    __tablename__ = "settings"
    key: str = Field(primary_key=True)
    value: str


class AuditRow(SQLModel, table=True):
    __tablename__ = "audit"
    id: int | None = Field(default=None, primary_key=True)
    time_ns: int
    who: str
    action: str
    subject: str
    detail: str


def has_id(column: str, *values: str, runs: str = _ALL_RUNS) -> str:
    """The condition that an id of `calls` (or `spans`) equals a parameter, in the words its index answers to.

    `values` are the parameter's one or two occurrences; `runs` selects where to look, as a query or a list. The `+`
    matters: SQLite would put the value of `column = ?` into the substr of the column as well, and walk through the
    whole index for what is left; and it finds no index for a run that is compared as the integer of a column.
    """
    first, second = values[0], values[-1]
    part = _ID_PARTS[column]
    within = "" if column == "call_id" else f"{_RUN} IN ({runs}) AND "
    some = "" if column == "trace_id" else f"{column} IS NOT NULL AND "
    return f"{within}{some}substr({column}, {part}) = substr({first}, {part}) AND +{column} = {second}"


def given_runs(value: str) -> str:
    """The runs of a parameter, a JSON list, for `has_id`; where it is NULL, all."""
    return f"SELECT value FROM json_each(ifnull({value}, (SELECT json_group_array(run) FROM arrival_runs)))"  # noqa: S608


def runs_between(start: str, end: str) -> str:
    """The runs that hold spans which began between two parameters, for `has_id`."""
    return f"{_ALL_RUNS} WHERE newest_ns >= {start} AND oldest_ns <= {end}"


def table(model: type[SQLModel]) -> Table:
    """The SQLAlchemy table behind a model."""
    found: Table = SQLModel.metadata.tables[str(model.__tablename__)]
    return found


def columns(model: type[SQLModel]) -> tuple[str, ...]:
    """The names of a table's columns, in the order in which rows are written."""
    return tuple(column.name for column in table(model).columns)


def insert(model: type[SQLModel], verb: str = "INSERT") -> str:
    """The insert statement of a whole row, for the driver's executemany."""
    names = columns(model)
    return f"{verb} INTO {model.__tablename__} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"


def definitions() -> list[str]:
    """The statements that make today's schema in SQLite; the migrations must lead to exactly this."""
    dialect = sqlite.dialect()
    statements = []
    for model in _models():
        made = table(model)
        statements.append(str(CreateTable(made).compile(dialect=dialect)))
        statements += sorted(str(CreateIndex(index).compile(dialect=dialect)) for index in made.indexes)
    return [
        re.sub(r"\s+", " ", re.sub(r"\(\s+", "(", re.sub(r"\s+\)", ")", text))).strip() for text in statements
    ]


def _models() -> Iterator[type[SQLModel]]:
    for value in globals().values():
        if isinstance(value, type) and issubclass(value, SQLModel) and hasattr(value, "__table__"):
            yield value
