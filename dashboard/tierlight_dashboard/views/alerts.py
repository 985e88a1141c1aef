"""The inbox of alerts: what changed, how sure, what to do; acknowledge, resolve, mute, snooze, accept as new normal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC
from functools import cached_property
from html import escape
from typing import Any, Final
from zoneinfo import ZoneInfo, available_timezones

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import Response
from starlette.datastructures import FormData

from tierlight_collector.decisions import Alert, AlertMute

from . import fmt
from .csvout import Cell, csv_response, json_response
from .site import WHO, Panel, Site
from .urlstate import State, read_time

STATES: Final = (
    ("open", "Open"),
    ("acked", "Acknowledged"),
    ("muted", "Muted"),
    ("resolved", "Resolved"),
    ("all", "All"),
)
SNOOZES: Final = (("1", "1 day"), ("7", "7 days"), ("30", "30 days"), ("0", "for good"))
DONE: Final = {
    "ack": "Acknowledged.",
    "unack": "Acknowledgement taken back.",
    "resolve": "Resolved. It opens again by itself if the signal gets worse.",
    "reopen": "Opened again.",
    "mute": "Muted: no notification, not counted; also what rings of the same route and signal.",
    "unmute": "No longer muted.",
    "normal": "Accepted as the new normal: a new reference is being built.",
}
UNDO: Final = {"ack": "unack", "resolve": "reopen", "mute": "unmute"}
HEADS = (
    "id", "kind", "signal", "route", "model", "severity", "state", "since", "opened", "resolved", "before", "after", "effect_low", "effect_high", "unit",
    "calls_since_change", "log_evidence", "log_threshold", "sentence", "acknowledged_by", "note",
)  # fmt: skip


class Inbox:
    """The alerts of one state, by route."""

    def __init__(self, site: Site, state: State) -> None:
        self.site, self.state = site, state

    @cached_property
    def _all(self) -> Panel[list[Alert]]:
        routes = self.state.filters.get("route", ())
        return self.site.panel(lambda: self.site.store.alerts(route=routes[0] if routes else None, limit=500))

    @property
    def error(self) -> str:
        return self._all.error

    @cached_property
    def muted(self) -> dict[tuple[str, str], AlertMute]:
        now = self.site.now_ns
        return {(m.route, m.signal): m for m in self.site.mutes() if m.until_ns is None or m.until_ns > now}

    def state_of(self, alert: Alert) -> str:
        if alert.state == "resolved":
            return "resolved"
        if (alert.route, alert.signal) in self.muted:
            return "muted"
        return "open" if alert.acknowledged_ns is None else "acked"

    @cached_property
    def counts(self) -> dict[str, int]:
        counts = dict.fromkeys((name for name, _ in STATES), 0)
        for alert in self._all.value or []:
            counts[self.state_of(alert)] += 1
            counts["all"] += 1
        return counts

    @cached_property
    def shown(self) -> list[Alert]:
        wanted = self.state.get("state")
        rank = {"page": 0, "ticket": 1, "info": 2}
        kept = [a for a in self._all.value or [] if wanted in ("all", self.state_of(a))]
        return sorted(kept, key=lambda a: (rank[a.severity], -a.opened_ns))[:100]

    @cached_property
    def by_route(self) -> dict[str, list[Alert]]:
        groups: dict[str, list[Alert]] = {}
        for alert in self.shown:
            groups.setdefault(alert.route, []).append(alert)
        return groups

    @cached_property
    def done(self) -> tuple[str, str, list[str]]:
        """(words, undoing action, alert ids) of what was just done, by the address it came back to."""
        what, *idents = self.state.get("done").split(".")
        known = [ident for ident in idents if ident.isascii() and ident.isdigit()]
        words = DONE.get(what, "")
        if words and len(known) > 1:
            words = f"{len(known)} alerts. {words}"
        return words, UNDO.get(what, "") if known else "", known

    def cells(self) -> Iterator[tuple[Cell, ...]]:
        for a in self._all.value or []:
            yield (
                a.id, a.kind, a.signal, a.route, a.model, a.severity, self.state_of(a), fmt.iso(a.change_ns), fmt.iso(a.opened_ns), fmt.iso(a.resolved_ns),
                a.before, a.after, a.effect_low, a.effect_high, a.unit, a.calls_since_change, a.log_evidence, a.log_threshold, a.sentence,
                a.acknowledged_by, a.note,
            )  # fmt: skip


def hints(alert: Alert) -> list[str]:
    """What may have caused it, most likely first, in words."""
    return [words for part in alert.attribution if (words := _words(part))]


def _words(part: Mapping[str, Any]) -> str:
    for key in ("sentence", "text", "words", "what"):
        if part.get(key):
            return str(part[key])
    return ", ".join(
        f"{str(k).replace('_', ' ')} {v}" for k, v in part.items() if isinstance(v, str | int | float)
    )


def level(alert: Alert, value: float) -> str:
    """A level of an alert in its unit."""
    if alert.unit == "share":
        return fmt.percent(value)
    if alert.unit == "ms":
        return fmt.duration(value)
    return f"${fmt.significant(abs(value), 3)}" if alert.unit == "usd" else f"{fmt.count(value)} tokens"


def act(site: Site, form: FormData) -> tuple[str, list[str]]:
    """Do what the form asks with its alerts; gives the word for it and their ids.

    A button of one alert sends `one` as "<what>.<id>", the bar above the list `do` with the `id` of each that is ticked.

    Raises:
        HTTPException: 404 for an alert that does not exist; 422 for an action nobody knows, no alert, or a time that has passed.
    """
    what, _, ident = str(form.get("one", "")).partition(".")
    if what:
        idents = [ident]
    else:
        what, idents = str(form.get("do", "")), [str(each) for each in form.getlist("id")]
    if not idents:
        raise HTTPException(422, "No alert is ticked. Go back, tick one or more, and choose again.")
    found = [_alert(site, each) for each in dict.fromkeys(idents)]
    until = _until(site, form) if what == "mute" else None
    note = str(form.get("note", "")).strip()[:200]
    for alert in found:
        _act_on(site, alert, what, note, until)
    return what, [str(alert.id) for alert in found]


def _alert(site: Site, ident: str) -> Alert:
    alert = site.store.alert(int(ident)) if ident.isascii() and ident.isdigit() and len(ident) < 18 else None
    if alert is None:
        raise HTTPException(404, "There is no such alert.")
    return alert


def _until(site: Site, form: FormData) -> int | None:
    """When a mute ends: at the moment that is given, else after the days that are chosen; None is never."""
    text = str(form.get("until", "")).strip()
    if text:
        zone = str(form.get("zone", "")) or site.preferences().zone
        moment = read_time(text, ZoneInfo(zone) if zone in available_timezones() else UTC)
        if moment is None or moment <= site.now_ns:
            raise HTTPException(
                422, f"Expected a time to come, such as 2027-01-31T09:00, got “{fmt.visible(text, 40)}”."
            )
        return moment
    days = str(form.get("days", "7"))
    return (
        None
        if days == "0"
        else site.now_ns + (int(days) if days in ("1", "7", "30") else 7) * 86_400 * fmt.NANO
    )


def _act_on(site: Site, alert: Alert, what: str, note: str, until: int | None) -> None:
    now, store = site.now_ns, site.store
    kept = note or alert.note
    if what == "ack":
        store.update_alert(replace(alert, acknowledged_by=WHO, acknowledged_ns=now, note=kept), WHO)
    elif what == "unack":
        store.update_alert(replace(alert, acknowledged_by="", acknowledged_ns=None), WHO)
    elif what == "resolve":
        store.update_alert(replace(alert, state="resolved", resolved_ns=now, note=kept), WHO)
    elif what == "reopen":
        store.update_alert(replace(alert, state="open", resolved_ns=None), WHO)
    elif what == "mute":
        store.set_mute(AlertMute(alert.route, alert.signal, until, WHO))
        if note:
            store.update_alert(replace(alert, note=note), WHO)
    elif what == "unmute":
        store.remove_mute(alert.route, alert.signal, WHO)
    elif what == "normal" and site.settings.accept_as_normal is not None:
        site.settings.accept_as_normal(alert.id, WHO, now)
    else:
        raise HTTPException(422, "Expected one of ack, resolve, mute or normal and their opposites.")


def atom(site: Site) -> str:
    """The newest alerts as a feed."""
    base = f"http://127.0.0.1:{site.settings.port}"
    entries = "".join(
        f"<entry><id>{base}/alerts#alert-{a.id}</id><title>{escape(fmt.visible(f'{a.kind}: {a.route or a.model}', 120))}</title>"
        f'<updated>{fmt.iso(a.resolved_ns or a.opened_ns)}</updated><link href="{base}/alerts?state=all#alert-{a.id}"/>'
        f"<summary>{escape(fmt.visible(a.sentence, 400))} ({a.state})</summary></entry>"
        for a in site.store.alerts(limit=50)
    )
    return (
        '<?xml version="1.0" encoding="utf-8"?><feed xmlns="http://www.w3.org/2005/Atom"><title>tierlight alerts</title>'
        f"<id>{base}/alerts.atom</id><updated>{fmt.iso(site.now_ns)}</updated>{entries}</feed>"
    )


def router(site: Site) -> APIRouter:
    pages = APIRouter()

    @pages.get("/alerts")
    def alerts(request: Request) -> Response:
        state = site.state(request)
        model = {
            "p": Inbox(site, state),
            "states": STATES,
            "snoozes": SNOOZES,
            "hints": hints,
            "level": level,
        }
        return site.render(
            request, "alerts.html", state=state, page="alerts", title="Alerts", blocks=("inbox",), model=model
        )

    @pages.get("/alerts.csv")
    def as_csv(request: Request) -> Response:
        return csv_response("alerts", HEADS, Inbox(site, site.state(request)).cells())

    @pages.get("/alerts.json")
    def as_json(request: Request) -> Response:
        return json_response(HEADS, Inbox(site, site.state(request)).cells())

    @pages.get("/alerts.atom")
    def feed() -> Response:
        return Response(atom(site), media_type="application/atom+xml")

    @pages.post("/alerts/act")
    async def change(request: Request) -> Response:
        form = await site.form(request)
        what, idents = await site.aside(lambda: act(site, form))
        to = str(form.get("next", "/alerts"))
        if to.split("?")[0] != "/alerts":
            return site.redirect(request, to)
        return site.redirect(request, to, done=".".join([what, *idents]))

    return pages
