"""Alerts, recommendations, experiments, policies, settings and the detectors' states, as SQL."""

# ruff: noqa: S608 - only names of our own tables and columns are put into statements; values are bound

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from typing import Any, TypeVar

import orjson

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

T = TypeVar("T")


class Decisions:
    """The DecisionStore half of a store. `read` opens a snapshot, `write` runs a job in a transaction."""

    def _read(self) -> AbstractContextManager[sqlite3.Connection]:
        raise NotImplementedError

    def _write(self, job: Callable[[sqlite3.Connection], T]) -> T:
        raise NotImplementedError

    def _now_ns(self) -> int:
        raise NotImplementedError

    # ---- the watch --------------------------------------------------------------------------------------

    def detector_states(self) -> Mapping[str, bytes]:
        with self._read() as connection:
            return dict(connection.execute("SELECT key, body FROM detector_states").fetchall())

    def watermarks(self) -> Mapping[str, int]:
        with self._read() as connection:
            return dict(connection.execute("SELECT stream, seq FROM watermarks").fetchall())

    def commit_watch(self, commit: WatchCommit) -> tuple[Alert, ...]:
        """Store one tick of the watch in one transaction; gives the alerts back with their ids."""

        def job(connection: sqlite3.Connection) -> tuple[Alert, ...]:
            connection.executemany(
                "INSERT INTO detector_states (key, body) VALUES (?, ?)"
                " ON CONFLICT (key) DO UPDATE SET body = excluded.body",
                commit.states.items(),
            )
            connection.executemany(
                "DELETE FROM detector_states WHERE key = ?", [(key,) for key in commit.forget_states]
            )
            connection.executemany(
                "INSERT INTO watermarks (stream, seq) VALUES (?, ?)"
                " ON CONFLICT (stream) DO UPDATE SET seq = excluded.seq",
                commit.watermarks.items(),
            )
            _drop_outdated(connection, commit.recommendations)
            for recommendation in commit.recommendations:
                _put_recommendation(connection, recommendation)
            for experiment in commit.experiments:
                _put_experiment(connection, experiment)
            connection.executemany(
                "INSERT INTO policies (revision, version, toml, by, created_ns, note, project)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                [
                    (one.revision, one.version, one.toml, one.by, one.created_ns, one.note, one.project)
                    for one in commit.policies
                ],
            )
            for entry in commit.audit:
                put_audit(connection, entry)
            return tuple(_put_alert(connection, alert) for alert in commit.alerts)

        return self._write(job)

    # ---- alerts -----------------------------------------------------------------------------------------

    def alerts(
        self, *, route: str | None = None, states: Sequence[AlertState] = (), limit: int = 200
    ) -> list[Alert]:
        """The newest first."""
        marks = ", ".join("?" * len(states))
        chosen = f"AND state IN ({marks})" if states else ""
        with self._read() as connection:
            rows = connection.execute(
                f"SELECT id, body FROM alerts WHERE (?1 IS NULL OR route = ?1) {chosen}"
                " ORDER BY opened_ns DESC, id DESC LIMIT ?2".replace("?2", str(int(limit))),
                (route, *states),
            ).fetchall()
        return [_alert(*row) for row in rows]

    def alert(self, alert_id: int) -> Alert | None:
        with self._read() as connection:
            row = connection.execute("SELECT id, body FROM alerts WHERE id = ?", (alert_id,)).fetchone()
        return _alert(*row) if row else None

    def update_alert(self, alert: Alert, who: str) -> None:
        def job(connection: sqlite3.Connection) -> None:
            _put_alert(connection, alert)
            self._audit(connection, who, "update alert", str(alert.id), alert.state)

        self._write(job)

    def mutes(self) -> list[AlertMute]:
        with self._read() as connection:
            return [
                AlertMute(route, signal, until_ns, by, project)
                for project, route, signal, until_ns, by in connection.execute(
                    "SELECT project, route, signal, until_ns, by FROM mutes ORDER BY route, signal"
                )
            ]

    def set_mute(self, mute: AlertMute) -> None:
        def job(connection: sqlite3.Connection) -> None:
            connection.execute(
                "REPLACE INTO mutes (project, route, signal, until_ns, by) VALUES (?, ?, ?, ?, ?)",
                (mute.project, mute.route, mute.signal, mute.until_ns, mute.by),
            )
            self._audit(connection, mute.by, "mute", f"{mute.route} {mute.signal}", str(mute.until_ns or ""))

        self._write(job)

    def remove_mute(self, route: str, signal: str, who: str) -> None:
        def job(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM mutes WHERE route = ? AND signal = ?", (route, signal))
            self._audit(connection, who, "unmute", f"{route} {signal}")

        self._write(job)

    # ---- recommendations and experiments ----------------------------------------------------------------

    def recommendations(self, *, route: str | None = None) -> list[Recommendation]:
        with self._read() as connection:
            rows = connection.execute(
                "SELECT id, body FROM recommendations WHERE ?1 IS NULL OR route = ?1 ORDER BY route, id",
                (route,),
            ).fetchall()
        return [_recommendation(*row) for row in rows]

    def recommendation(self, recommendation_id: int) -> Recommendation | None:
        with self._read() as connection:
            row = connection.execute(
                "SELECT id, body FROM recommendations WHERE id = ?", (recommendation_id,)
            ).fetchone()
        return _recommendation(*row) if row else None

    def update_recommendation(self, recommendation: Recommendation, who: str) -> None:
        def job(connection: sqlite3.Connection) -> None:
            _put_recommendation(connection, recommendation)
            self._audit(connection, who, "update recommendation", recommendation.route, recommendation.state)

        self._write(job)

    def experiments(self) -> list[Experiment]:
        """The newest first."""
        with self._read() as connection:
            rows = connection.execute("SELECT body FROM experiments ORDER BY started_ns DESC, id").fetchall()
        return [Experiment(**orjson.loads(body)) for (body,) in rows]

    def save_experiment(self, experiment: Experiment, who: str) -> None:
        def job(connection: sqlite3.Connection) -> None:
            _put_experiment(connection, experiment)
            self._audit(connection, who, "save experiment", experiment.id, experiment.state)

        self._write(job)

    # ---- policies, settings, audit ----------------------------------------------------------------------

    def policies(self, limit: int = 50) -> list[PolicyRevision]:
        """The newest first."""
        with self._read() as connection:
            return [
                PolicyRevision(*row)
                for row in connection.execute(
                    "SELECT revision, version, toml, by, created_ns, note, project FROM policies"
                    " ORDER BY revision DESC LIMIT ?",
                    (limit,),
                )
            ]

    def add_policy(self, toml: str, version: str, who: str, note: str) -> PolicyRevision:
        def job(connection: sqlite3.Connection) -> PolicyRevision:
            now_ns = self._now_ns()
            cursor = connection.execute(
                "INSERT INTO policies (version, toml, by, created_ns, note, project)"
                " VALUES (?, ?, ?, ?, ?, 'default')",
                (version, toml, who, now_ns, note),
            )
            self._audit(connection, who, "approve policy", version, note)
            assert cursor.lastrowid is not None
            return PolicyRevision(cursor.lastrowid, version, toml, who, now_ns, note)

        return self._write(job)

    def settings(self) -> Mapping[str, str]:
        with self._read() as connection:
            return dict(connection.execute("SELECT key, value FROM settings").fetchall())

    def set_setting(self, key: str, value: str, who: str) -> None:
        def job(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT INTO settings (key, value) VALUES (?, ?)"
                " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                (key, value),
            )
            self._audit(connection, who, "set", key)

        self._write(job)

    def audit(self, limit: int = 200) -> list[AuditEntry]:
        """The newest first."""
        with self._read() as connection:
            return [
                AuditEntry(*row)
                for row in connection.execute(
                    "SELECT time_ns, who, action, subject, detail FROM audit ORDER BY id DESC LIMIT ?",
                    (limit,),
                )
            ]

    def record_audit(self, entry: AuditEntry) -> None:
        self._write(lambda connection: put_audit(connection, entry))

    def _audit(
        self, connection: sqlite3.Connection, who: str, action: str, subject: str, detail: str = ""
    ) -> None:
        put_audit(connection, AuditEntry(self._now_ns(), who, action, subject, detail))


def put_audit(connection: sqlite3.Connection, entry: AuditEntry) -> None:
    connection.execute(
        "INSERT INTO audit (time_ns, who, action, subject, detail) VALUES (?, ?, ?, ?, ?)",
        (entry.time_ns, entry.who, entry.action, entry.subject, entry.detail),
    )


def _json(record: Any) -> str:
    return orjson.dumps(asdict(record)).decode()


def _put_alert(connection: sqlite3.Connection, alert: Alert) -> Alert:
    """Insert (id 0) or replace. An alert opened again by a replay of the same tick stays one alert."""
    cursor = connection.execute(
        "REPLACE INTO alerts (id, project, route, state, opened_ns, body) VALUES (?, ?, ?, ?, ?, ?)",
        (alert.id or None, alert.project, alert.route, alert.state, alert.opened_ns, _json(alert)),
    )
    assert cursor.lastrowid is not None
    return replace(alert, id=cursor.lastrowid)


def _alert(alert_id: int, body: str) -> Alert:
    fields = orjson.loads(body)
    for name in ("attribution", "samples_before", "samples_after"):
        fields[name] = tuple(fields[name])
    return Alert(**{**fields, "id": alert_id})


def _drop_outdated(connection: sqlite3.Connection, judged: Sequence[Recommendation]) -> None:
    """A route that was judged anew keeps no earlier proposal beside the new verdict; people's decisions stay."""
    named = {(row.project, row.route, row.candidate_model) for row in judged}
    for project, route in {(row.project, row.route) for row in judged}:
        for row_id, candidate, body in connection.execute(
            "SELECT id, candidate_model, body FROM recommendations WHERE project = ? AND route = ?",
            (project, route),
        ).fetchall():
            if (project, route, candidate) not in named and _recommendation(row_id, body).state == "proposed":
                connection.execute("DELETE FROM recommendations WHERE id = ?", (row_id,))


def _put_recommendation(connection: sqlite3.Connection, recommendation: Recommendation) -> None:
    connection.execute(
        "INSERT INTO recommendations (project, route, candidate_model, updated_ns, body) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (project, route, candidate_model)"
        " DO UPDATE SET updated_ns = excluded.updated_ns, body = excluded.body",
        (
            recommendation.project,
            recommendation.route,
            recommendation.candidate_model,
            recommendation.updated_ns,
            _json(recommendation),
        ),
    )


def _recommendation(recommendation_id: int, body: str) -> Recommendation:
    return Recommendation(**{**orjson.loads(body), "id": recommendation_id})


def _put_experiment(connection: sqlite3.Connection, experiment: Experiment) -> None:
    connection.execute(
        "INSERT INTO experiments (id, started_ns, body) VALUES (?, ?, ?)"
        " ON CONFLICT (id) DO UPDATE SET started_ns = excluded.started_ns, body = excluded.body",
        (experiment.id, experiment.started_ns, _json(experiment)),
    )
