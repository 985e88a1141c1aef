"""What repeats from call to call, stored once: kinds, origins, route hints, series, signals, projects."""

# ruff: noqa: S608 - only names of our own tables and columns are put into statements; values are bound

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from operator import attrgetter
from typing import Any, Final

from sqlmodel import SQLModel

from ..records import CallRecord, RouteHints
from . import tables

MAX_CACHED = 50_000
MAX_ROUTES = 500  # a project's; ids in route names would make a series of every call
MAX_MODELS = 1_000
MAX_SERIES = 20_000
OVERFLOW = "other"

SERIES_FIELDS: Final = ("project", "env", "route", "provider", "model", "tier", "arm", "purpose")
_KIND_FIELDS: Final = (
    "operation",
    "request_model",
    "response_model",
    "error_class",
    "finish_reason",
    "outcome",
    "attempt_reason",
    "attempt_final",
    "is_streaming",
    "experiment",
    "strategy",
    "policy_version",
    "prompt_name",
    "prompt_version",
    "segment",
)
_ORIGIN_FIELDS: Final = (
    "name",
    "route_source",
    "error_type",
    "http_status",
    "usage_source",
    "cache_rule",
    "service_tier",
    "service_name",
    "service_instance",
    "scope",
    "dialect",
    "norm_version",
    "cost_source",
    "price_version",
    "unpriced_reason",
    "wire_cost_source",
    "flags",
)
HINT_FIELDS: Final = ("declared", "dialect", "agent", "prompt", "name")

_series_of = attrgetter(*SERIES_FIELDS)
_kind_of = attrgetter("error_type", *SERIES_FIELDS, *_KIND_FIELDS)
_origin_of = attrgetter(*_ORIGIN_FIELDS)
_hints_of = attrgetter(*HINT_FIELDS)


@dataclass(frozen=True, slots=True)
class Kind:
    """A row of `call_kinds` with its series, as readers need it."""

    series_id: int
    values: Mapping[str, Any]  # the fields of CallRecord that it fixes
    model: str
    failed: bool


def _digest(values: tuple[Any, ...]) -> bytes:
    return blake2b(repr(values).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _storable(value: Any) -> Any:
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value


class Interner:
    """Gives the writer the ids of repeating values; new ones are inserted in the open transaction.

    After a rollback call `forget`: the cache may hold ids that were taken back.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.forget()

    def forget(self) -> None:
        self._kinds: dict[tuple[Any, ...], int] = {}
        self._origins: dict[tuple[Any, ...], int] = {}
        self._hints: dict[tuple[str, ...], int] = {}
        self._series: dict[tuple[str, ...], int] = {}
        self._signals: dict[tuple[str, str], int] = {}
        self._projects: dict[str, int] = {}
        self._routes: dict[str, set[str]] = {}
        self._models: dict[str, set[str]] = {}
        self.overflowed: int = 0

    def kind(self, call: CallRecord) -> int:
        key = _kind_of(call)
        found = self._kinds.get(key)
        if found is None:
            found = self._new_kind(call)
            if len(self._kinds) >= MAX_CACHED:
                self._kinds.clear()
            self._kinds[key] = found
        return found

    def _new_kind(self, call: CallRecord) -> int:
        failed = bool(call.error_class or call.error_type)
        values = (
            self.series(tuple(_storable(value) for value in _series_of(call))),
            *(_storable(getattr(call, name)) for name in _KIND_FIELDS),
            failed,
        )
        return self._row(tables.CallKind, values)

    def origin(self, call: CallRecord) -> int:
        key = _origin_of(call)
        found = self._origins.get(key)
        if found is None:
            *values, flags = key
            found = self._row(tables.CallOrigin, (*map(_storable, values), ",".join(flags)))
            if len(self._origins) >= MAX_CACHED:
                self._origins.clear()
            self._origins[key] = found
        return found

    def hints(self, hints: RouteHints) -> int:
        key = _hints_of(hints)
        found = self._hints.get(key)
        if found is None:
            found = self._row(tables.RouteHint, tuple(map(_storable, key)))
            if len(self._hints) >= MAX_CACHED:
                self._hints.clear()
            self._hints[key] = found
        return found

    def series(self, values: tuple[str, ...]) -> int:
        found = self._series.get(values)
        if found is None:
            if not self._series:
                self._load_series()
                found = self._series.get(values)
            if found is None:
                found = self._new_series(values)
            self._series[values] = found
        return found

    def _load_series(self) -> None:
        for series_id, *row in self._connection.execute("SELECT * FROM series"):
            self._know_series(tuple(row), series_id)

    def _know_series(self, values: tuple[str, ...], series_id: int) -> None:
        self._series[values] = series_id
        project, _, route, _, model, *_ = values
        self._routes.setdefault(project, set()).add(route)
        self._models.setdefault(project, set()).add(model)

    def _new_series(self, values: tuple[str, ...]) -> int:
        project, env, route, provider, model, tier, arm, purpose = values
        routes, models = self._routes.get(project, set()), self._models.get(project, set())
        if route not in routes and len(routes) >= MAX_ROUTES:
            route = OVERFLOW
            self.overflowed += 1
        if model not in models and len(models) >= MAX_MODELS:
            model = OVERFLOW
            self.overflowed += 1
        if len(self._series) >= MAX_SERIES:
            env, route, provider, model, tier, arm = (OVERFLOW,) * 6
            self.overflowed += 1
        row = (project, env, route, provider, model, tier, arm, purpose)
        found = self._series.get(row)
        if found is None:
            found = self._insert(tables.Series, row)
            self._know_series(row, found)
        return found

    def signal(self, name: str, source: str) -> int:
        key = (name, source)
        found = self._signals.get(key)
        if found is None:
            row = self._connection.execute(
                "SELECT id FROM signals WHERE name = ? AND source = ?", (_storable(name), _storable(source))
            ).fetchone()
            found = row[0] if row else self._insert(tables.Signal, (_storable(name), _storable(source)))
            if len(self._signals) >= MAX_CACHED:
                self._signals.clear()
            self._signals[key] = found
        return found

    def project(self, name: str) -> int:
        found = self._projects.get(name)
        if found is None:
            row = self._connection.execute(
                "SELECT id FROM projects WHERE name = ?", (_storable(name),)
            ).fetchone()
            found = row[0] if row else self._insert(tables.Project, (_storable(name),))
            self._projects[name] = found
        return found

    def _row(self, model: type[SQLModel], values: tuple[Any, ...]) -> int:
        digest = _digest(values)
        row = self._connection.execute(
            f"SELECT id FROM {model.__tablename__} WHERE digest = ?",
            (digest,),
        ).fetchone()
        return row[0] if row else self._insert(model, (digest, *values))

    def _insert(self, model: type[SQLModel], values: tuple[Any, ...]) -> int:
        cursor = self._connection.execute(tables.insert(model), (None, *values))
        assert cursor.lastrowid is not None
        return cursor.lastrowid


class Dictionary:
    """The readers' side: interned rows by id. Rows never change, so a shared cache needs no invalidation."""

    def __init__(self) -> None:
        self._kinds: dict[int, Kind] = {}
        self._origins: dict[int, dict[str, Any]] = {}
        self._hints: dict[int, RouteHints] = {}
        self._series: dict[int, tuple[str, ...]] = {}
        self._signals: dict[int, tuple[str, str]] = {}

    @property
    def known_kinds(self) -> Mapping[int, Kind]:
        """The kinds loaded so far."""
        return self._kinds

    def kinds(self, connection: sqlite3.Connection) -> Mapping[int, Kind]:
        """Every kind there is in this snapshot, and perhaps newer ones."""
        newest = next(reversed(self._kinds), 0)
        series = self.series(connection)
        for kind_id, _digest, series_id, *values, failed in connection.execute(
            "SELECT * FROM call_kinds WHERE id > ?", (newest,)
        ).fetchall():
            fields = dict(zip(_KIND_FIELDS, values, strict=True))
            fields["attempt_final"] = bool(fields["attempt_final"])
            if fields["is_streaming"] is not None:
                fields["is_streaming"] = bool(fields["is_streaming"])
            dims = dict(zip(SERIES_FIELDS, series[series_id], strict=True))
            model = dims.pop("model")
            self._kinds[kind_id] = Kind(series_id, {**dims, **fields}, model, bool(failed))
        return self._kinds

    def series(self, connection: sqlite3.Connection) -> Mapping[int, tuple[str, ...]]:
        newest = next(reversed(self._series), 0)
        for series_id, *values in connection.execute(
            "SELECT * FROM series WHERE id > ?", (newest,)
        ).fetchall():
            self._series[series_id] = tuple(values)
        return self._series

    def signals(self, connection: sqlite3.Connection) -> Mapping[int, tuple[str, str]]:
        newest = next(reversed(self._signals), 0)
        for signal_id, name, source in connection.execute(
            "SELECT * FROM signals WHERE id > ?", (newest,)
        ).fetchall():
            self._signals[signal_id] = (name, source)
        return self._signals

    def origin(self, connection: sqlite3.Connection, origin_id: int) -> Mapping[str, Any]:
        found = self._origins.get(origin_id)
        if found is None:
            row = connection.execute("SELECT * FROM call_origins WHERE id = ?", (origin_id,)).fetchone()
            found = dict(zip(_ORIGIN_FIELDS, row[2:], strict=True))
            found["flags"] = tuple(filter(None, found["flags"].split(",")))
            if len(self._origins) >= MAX_CACHED:
                self._origins.clear()
            self._origins[origin_id] = found
        return found

    def hints(self, connection: sqlite3.Connection, hint_id: int) -> RouteHints:
        found = self._hints.get(hint_id)
        if found is None:
            row = connection.execute("SELECT * FROM route_hints WHERE id = ?", (hint_id,)).fetchone()
            found = RouteHints(*row[2:])
            if len(self._hints) >= MAX_CACHED:
                self._hints.clear()
            self._hints[hint_id] = found
        return found
