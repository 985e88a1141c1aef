"""Alerts that belong together: one incident is told once, whatever tests of it ring."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from tierlight_collector.decisions import Alert

from .drift import worse_of
from .moving import Rang
from .streams import Detector, Stream, StreamKey


def stream_of(alert: Alert) -> StreamKey:
    key, _, _ = alert.test_key.rpartition("] ")
    return tuple(json.loads(key + "]")) if key else ()


def test_of(alert: Alert) -> str:
    return alert.test_key.rpartition("] ")[2]


def incident_of(alert: Alert, open_alerts: Iterable[Alert]) -> Alert | None:
    """An open alert of the same signal that this one belongs to: same route or same model, and the same time."""
    for other in open_alerts:
        same_place = other.route == alert.route if alert.route and other.route else other.model in alert.model
        if (
            other.signal == alert.signal
            and (alert.scope != "route" or other.scope != "route")
            and same_place
            and other.change_from_ns <= alert.opened_ns
            and alert.change_from_ns <= max(other.change_to_ns, other.opened_ns)
        ):
            return other
    return None


def joined(incident: Alert, alert: Alert) -> Alert:
    term: dict[str, Any] = {"kind": "joined", "scope": alert.scope, "text": alert.sentence}
    cause = next((dict(t) for t in alert.attribution if t["kind"] == "cause"), None)
    attribution = [*incident.attribution, term]
    if alert.scope == "model" and cause is not None:
        attribution = [cause, *(t for t in attribution if t["kind"] != "cause")]
    return replace(
        incident, severity=worse_of(incident.severity, alert.severity), attribution=tuple(attribution)
    )


def as_rang(alert: Alert, stream: Stream, detector: Detector) -> Rang:
    return Rang(
        stream.key,
        detector.key,
        stream.ordinal,
        alert.opened_ns if detector.opened_ms is None else int(detector.opened_ms * 1e6),
        alert.change_ns / 1e6,
        alert.log_evidence,
        alert.log_threshold,
        False,
        detector.resolved_ms,
    )
