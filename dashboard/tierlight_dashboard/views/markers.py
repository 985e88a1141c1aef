"""What happened when: the same marks on every chart of a window, each from the record it stands for."""

from __future__ import annotations

from tierlight_collector.decisions import Alert

from . import charts, fmt
from .buckets import Buckets
from .site import Site
from .urlstate import State, route_path

KIND_WORDS = {
    "quality": "quality",
    "errors": "errors",
    "latency": "latency",
    "ttft": "first token",
    "cost": "cost",
    "tokens": "tokens",
    "escalation": "escalations",
    "failover": "failover",
    "coverage": "coverage",
    "traffic": "traffic",
    "price": "price",
}


def alert_label(alert: Alert) -> str:
    """Kind and direction in a few letters, for a chart."""
    return f"{KIND_WORDS[alert.kind]} {'↑' if alert.after > alert.before else '↓'}"


def marks(site: Site, state: State, columns: Buckets, route: str | None = None) -> list[charts.Mark]:
    """Alerts at their estimated change, experiments and policy revisions inside the window, oldest first."""
    found: list[tuple[int, charts.Mark]] = []

    def put(ns: int, label: str, href: str, kind: str = "event") -> None:
        at = charts.place(columns.edges, ns)
        if 0 <= at <= 1:
            found.append((ns, charts.Mark(at, label, kind, href, fmt.moment(ns, state.zone))))

    for alert in site.store.alerts(route=route):
        where = "" if route is not None or not alert.route else f" {fmt.visible(alert.route, 28)}"
        put(
            alert.change_ns,
            f"{alert_label(alert)}{where}",
            state.carried("/alerts") + f"#alert-{alert.id}",
            "alert",
        )
    for experiment in site.recent("experiments", site.store.experiments):
        if route not in (None, experiment.route):
            continue
        to = state.carried(f"/experiments/{experiment.id}")
        put(experiment.started_ns, f"{experiment.kind} started", to)
        if experiment.ended_ns is not None:
            put(experiment.ended_ns, f"{experiment.kind} {experiment.state.replace('_', ' ')}", to)
    for revision in site.recent("policies", site.store.policies):
        put(revision.created_ns, f"policy {revision.revision}", route_path(route) if route else "")
    return [mark for _, mark in sorted(found, key=lambda pair: pair[0])][-12:]
