"""What happened when: the same marks on every chart of a window, each from the record it stands for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from tierlight_collector.decisions import Alert
from tierlight_collector.records import HOUR_NS, Filters, Rollup

from . import charts, fmt, releases
from .buckets import Buckets
from .site import Site
from .urlstate import State

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
MOST_MARKS = 12
_LINK_TIME = "%Y-%m-%dT%H:%M:%SZ"


def alert_label(alert: Alert) -> str:
    """Kind and direction in a few letters, for a chart."""
    return f"{KIND_WORDS[alert.kind]} {'↑' if alert.after > alert.before else '↓'}"


def around(state: State, ns: int, route: str | None) -> str:
    """The list of calls from an hour before a moment to an hour after it."""
    low, high = (fmt.at(ns + step, UTC).strftime(_LINK_TIME) for step in (-HOUR_NS, HOUR_NS))
    return state.carried("/calls", range="custom", from_=low, to=high, route=route)


def marks(
    site: Site,
    state: State,
    columns: Buckets,
    route: str | None = None,
    used: Iterable[tuple[str, str]] = (),
    series: Sequence[tuple[datetime, Rollup]] = (),
) -> list[charts.Mark]:
    """What happened inside the window, oldest first; of more than a dozen the newest.

    Alerts at their estimated change, experiments, policy revisions, list prices of the models in `used`
    (provider, model), and on one route the first call of a prompt, model or app version; `series` are its rollups
    per column by a key that begins with the model.
    """
    found: list[tuple[int, charts.Mark]] = []

    def put(ns: int, label: str, href: str, kind: str = "event", of: str | None = route) -> None:
        at = charts.place(columns.edges, ns)
        if 0 <= at <= 1:
            when = fmt.moment(ns, state.zone)
            found.append((ns, charts.Mark(at, label, kind, href, when, around(state, ns, of))))

    for alert in site.recent(f"alerts of {route}", lambda: site.store.alerts(route=route)):
        where = "" if route is not None or not alert.route else f" {fmt.visible(alert.route, 28)}"
        put(
            alert.change_ns,
            f"{alert_label(alert)}{where}",
            state.carried("/alerts", state="all") + f"#alert-{alert.id}",
            "alert",
            alert.route or None,
        )
    for experiment in site.recent("experiments", site.store.experiments):
        if route not in (None, experiment.route):
            continue
        to = state.carried(f"/experiments/{experiment.id}")
        put(experiment.started_ns, f"{experiment.kind} started", to, of=experiment.route)
        if experiment.ended_ns is not None:
            ended = f"{experiment.kind} {experiment.state.replace('_', ' ')}"
            put(experiment.ended_ns, ended, to, of=experiment.route)
    for revision in site.recent("policies", site.store.policies):
        put(revision.created_ns, f"policy {revision.revision}", state.carried("/experiments"))
    for release in releases.prices(site.book, used, columns):
        put(release.ns, f"price of {fmt.visible(release.name, 28)}", state.carried("/models", q=release.name))
    for release in [] if route is None else _released(site, state, columns, route, series):
        put(
            release.ns,
            f"{release.what} {fmt.visible(release.name, 28)}",
            "" if release.what != "prompt" else state.carried("/calls", route=route, version=release.name),
        )
    return [mark for _, mark in sorted(found, key=lambda pair: pair[0])][-MOST_MARKS:]


def _released(
    site: Site, state: State, columns: Buckets, route: str, series: Sequence[tuple[datetime, Rollup]]
) -> list[releases.Release]:
    def where(**changes: object) -> Filters:
        return state.where(**{"route": (route,), **changes})

    def look() -> list[releases.Release]:
        return [
            *releases.releases(site.store, site.probes, columns, where),
            *releases.models(series, columns, site.store, where),
        ]

    key = f"releases {site.span(columns.window)} {columns.step} {state.zone_name} {where()}"
    return site.recent(key, look)
