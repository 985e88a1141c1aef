"""Settings: what is shown how, which floors and budgets hold. Each section is a form of its own; a wrong value is told beside its field."""

from __future__ import annotations

import math
import platform
import re
import sqlite3
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Final
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import Response
from starlette.datastructures import FormData

from tierlight.semconv import TIERS
from tierlight_collector.decisions import AuditEntry
from tierlight_collector.records import HOUR_NS, Filters, StoreHealth, TimeRange
from tierlight_collector.stores.protocol import OutboxTarget, OutboxWaiting

from ..analysis.preferences import share
from .site import WHO, Panel, Site
from .urlstate import State

# A check gives the value to store, or raises ValueError with what was expected. "" always means "not set".
Check = Callable[[str], str]


def _text(most: int) -> Check:
    def check(text: str) -> str:
        if len(text) > most:
            raise ValueError(f"expected at most {most} characters")
        return text

    return check


def amount(text: str) -> str:
    """A number above 0, as it is stored."""
    try:
        value = float(text.replace(",", ""))
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and 0 < value < 1e12):
        raise ValueError("expected a number above 0, such as 2500 or 0.92")
    return repr(value)


def _share(text: str) -> str:
    value = share(text)
    if value is None:
        raise ValueError("expected a share between 0 and 1, such as 0.88 or 88%")
    return repr(value)


def _code(text: str) -> str:
    if not re.fullmatch("[A-Za-z]{3}", text):
        raise ValueError("expected a code of three letters, such as EUR")
    return text.upper()


def _date(text: str) -> str:
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise ValueError("expected a date such as 2026-11-01") from None


def _zone(text: str) -> str:
    try:
        ZoneInfo(text)
    except (OSError, ValueError, KeyError):
        raise ValueError("expected a time zone such as Europe/Berlin or UTC") from None
    return text


def _trace_url(text: str) -> str:
    if urlsplit(text).scheme not in ("http", "https") or "{trace_id}" not in text:
        raise ValueError("expected an http(s) address with {trace_id} in it")
    return text


def _days(text: str) -> str:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 36_500):
        raise ValueError("expected a number of days from 1 to 36500")
    return str(int(text))


def _choice(*allowed: str) -> Check:
    def check(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"expected one of {', '.join(allowed)}")
        return text

    return check


@dataclass(frozen=True, slots=True)
class Field:
    key: str
    label: str
    check: Check
    hint: str = ""
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Section:
    name: str
    title: str
    about: str
    fields: tuple[Field, ...]
    by_route: bool = False  # the fields hold for the route that the form names


TIERED: Final = tuple(
    Field(f"{what}:{tier}", f"{label}, {tier}", _share, hint)
    for tier in TIERS for what, label, hint in (("tier_floor", "Floor", "as for all"), ("tier_margin", "Worse by", "as for all"))
)  # fmt: skip
SECTIONS: Final = (
    Section(
        "money", "Money", "Costs are stored in US dollars and only shown in another currency.",
        (
            Field("currency.code", "Currency", _code, "USD"), Field("currency.symbol", "Symbol", _text(4), "$"),
            Field("currency.per_usd", "Units for one US dollar", amount, "1"), Field("currency.date", "Rate of", _date, "2026-11-01"),
            Field("baseline.model", "Baseline model for savings", _text(120), "the dearest flagship in use"),
            Field("budget.month_usd", "Budget a month, US $", amount, "none"),
            Field("shadow.max_spend_usd", "Most for one shadow test, US $", amount, "100"),
        ),
    ),
    Section(
        "quality", "Quality", "Floors and margins for all routes; a route's own values go first.",
        (
            Field("floor", "Quality floor", _share, "none, e.g. 88%"),
            Field("margin", "A cheaper model may be worse by", _share, "a fifth of the failure rate, at least 2 points"),
        ),
    ),
    Section("tiers", "Quality by tier", "Of the tier that the app declares for a route; a route's own values go first.", TIERED),
    Section(
        "route", "One route", "Leave a field empty to keep to the common value.",
        (
            Field("floor", "Quality floor", _share), Field("margin", "May be worse by", _share),
            Field("gate_score", "Score that decides", _text(120), "the one on most calls"), Field("owner", "Owner", _text(120)),
        ),
        by_route=True,
    ),
    Section(
        "data", "Data", "Shorter times delete what is older within a minute, for good. Sums by hour stay.",
        (
            Field("keep.contents_days", "Days to keep prompts and answers", _days, "14"),
            Field("keep.spans_days", "Days to keep raw spans", _days, "30"),
            Field("keep.calls_days", "Days to keep calls and scores", _days, "400"),
        ),
    ),
    Section(
        "view", "View", "",
        (
            Field("zone", "Time zone", _zone, "UTC"), Field("keys", "Keyboard shortcuts", _choice("on", "off"), choices=("on", "off")),
            Field("trace_url", "Link to a trace elsewhere", _trace_url, "https://…/trace/{trace_id}"),
        ),
    ),
)  # fmt: skip
BY_NAME: Final = {section.name: section for section in SECTIONS}


@dataclass(frozen=True, slots=True)
class Export:
    """One target of forwarding: how it stands, its host, and what waits for it."""

    target: OutboxTarget
    host: str
    waiting: OutboxWaiting


class Settings:
    """The page: stored values, and the values and errors of a form that was not accepted."""

    def __init__(
        self,
        site: Site,
        state: State,
        sent: Mapping[str, str] | None = None,
        errors: Mapping[str, str] | None = None,
    ) -> None:
        self.site, self.state = site, state
        self.sent, self.errors = sent or {}, errors or {}
        self.stored = site.store.settings()

    def value(self, section: Section, field: Field) -> str:
        key = f"{section.name}/{field.key}"
        if key in self.sent:
            return self.sent[key]
        return "" if section.by_route else self.stored.get(field.key, "")

    def error(self, section: Section, field: Field) -> str:
        return self.errors.get(f"{section.name}/{field.key}", "")

    def source(self, field: Field) -> str:
        """Where the value in force comes from."""
        by = self.site.settings.fixed.get(field.key)
        if by:
            days = self.site.settings.kept_days().get(field.key.removeprefix("keep."))
            return f"fixed{f' at {days}' if days is not None else ''} by {by}"
        return "saved here" if self.stored.get(field.key) else ""

    def is_fixed(self, field: Field) -> bool:
        return field.key in self.site.settings.fixed

    @cached_property
    def exports(self) -> list[Export]:
        """Where spans are sent on to, and what waits."""
        forwarder = self.site.settings.forwarder
        found = []
        for status in forwarder.status() if forwarder is not None else []:
            waiting = self.site.store.outbox_waiting(status.target.next_seq)
            host = urlsplit(status.endpoint).netloc.rpartition("@")[2]
            found.append(Export(status.target, host, waiting))
        return found

    @cached_property
    def tiers(self) -> list[tuple[str, list[str]]]:
        """The models that were called in the last 28 days, by tier."""
        now = self.site.now_ns
        when = TimeRange((now - 28 * 24 * HOUR_NS) // HOUR_NS * HOUR_NS, now // HOUR_NS * HOUR_NS + HOUR_NS)
        rows = self.site.panel(lambda: self.site.rollups(when, ("tier", "model"), Filters())).value or []
        by_tier: dict[str, set[str]] = {}
        for row in rows:
            by_tier.setdefault(row.key[0], set()).add(row.key[1] or "no model named")
        return [(tier, sorted(by_tier[tier])) for tier in (*TIERS, "") if tier in by_tier]

    @cached_property
    def versions(self) -> list[tuple[str, str, str]]:
        """(what, version, licence) of what is at work here."""
        return [
            ("tierlight", self.site.settings.version, "Apache-2.0"), ("htmx", "4.0.1", "0BSD"), ("uPlot", "1.6.32", "MIT"),
            ("Python", platform.python_version(), "PSF"), ("SQLite", sqlite3.sqlite_version, "public domain"),
        ]  # fmt: skip

    @cached_property
    def own(self) -> list[tuple[str, str, str]]:
        """(route, what, value) that were set for single routes."""
        names = {field.key: field.label for field in BY_NAME["route"].fields}
        return sorted(
            (route, names[name], value)
            for key, value in self.stored.items()
            if value and (name := key.partition(":")[0]) in names and (route := key.partition(":")[2])
        )

    @cached_property
    def health(self) -> Panel[StoreHealth]:
        return self.site.panel(self.site.store.health)

    @cached_property
    def routes(self) -> list[str]:
        return sorted(r.route for r in self.site.routes())[:500]

    @cached_property
    def audit(self) -> list[AuditEntry]:
        return self.site.store.audit(30)

    @cached_property
    def done(self) -> str:
        return {
            "saved": "Saved.",
            "sent": "Test notification handed to every target; see the log below for what came of it.",
        }.get(self.state.get("done"), "")


def read(
    section: Section, form: FormData, fixed: Collection[str] = ()
) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """A section's form: (what was sent and what is wrong, both by section/field; what to store, by key)."""
    sent = {f"{section.name}/{f.key}": str(form.get(f.key, "")).strip() for f in section.fields}
    errors: dict[str, str] = {}
    accepted: dict[str, str] = {}
    route = str(form.get("route", "")).strip()
    for f in section.fields:
        if f.key in fixed:  # by the start of the server: its field is locked
            continue
        text = sent[f"{section.name}/{f.key}"]
        try:
            accepted[f.key + (f":{route}" if section.by_route else "")] = f.check(text) if text else ""
        except ValueError as error:
            errors[f"{section.name}/{f.key}"] = str(error)
    return sent, errors, accepted


def keep(site: Site, accepted: Mapping[str, str]) -> None:
    """Store settings, those that are new, and let the server take them over."""
    stored = site.store.settings()
    changed = {key: value for key, value in accepted.items() if stored.get(key, "") != value}
    for key, value in changed.items():
        site.store.set_setting(key, value, WHO)
    if changed:
        site.settings.on_saved()


def save(site: Site, section: Section, form: FormData) -> tuple[dict[str, str], dict[str, str]]:
    """Store a section's form; gives (what was sent, errors by field) and stores nothing while there is an error."""
    sent, errors, accepted = read(section, form, site.settings.fixed)
    if section.by_route and str(form.get("route", "")).strip() not in {r.route for r in site.routes()}:
        errors[f"{section.name}/route"] = "expected a route that has calls"
    if not errors:
        keep(site, accepted)
    return sent, errors


def router(site: Site) -> APIRouter:
    pages = APIRouter()

    def show(request: Request, page: Settings, status: int = 200) -> Response:
        return site.render(
            request, "settings.html", state=page.state, page="settings", title="Settings", status=status, model={"p": page, "sections": SECTIONS}
        )  # fmt: skip

    @pages.get("/settings")
    def settings(request: Request) -> Response:
        return show(request, Settings(site, site.state(request)))

    @pages.post("/settings/test")
    async def test(request: Request) -> Response:
        await site.form(request)
        send = site.settings.send_test
        if send is None:
            raise HTTPException(422, "No notification target is configured.")
        await site.aside(send)
        return site.redirect(request, "/settings", done="sent")

    @pages.post("/settings/export")
    async def steer(request: Request) -> Response:
        form = await site.form(request)
        forwarder = site.settings.forwarder
        name, what = str(form.get("target", "")), str(form.get("do", ""))
        if forwarder is None or name not in {status.target.name for status in forwarder.status()}:
            raise HTTPException(404, "There is no such target.")
        if what not in ("pause", "resume"):
            raise HTTPException(422, "Expected pause or resume.")
        await (forwarder.pause(name) if what == "pause" else forwarder.resume(name))
        entry = AuditEntry(site.now_ns, WHO, f"{what} export", name)
        await site.aside(lambda: site.store.record_audit(entry))
        return site.redirect(request, "/settings", done="saved")

    @pages.post("/settings/{name}")
    async def change(request: Request, name: str) -> Response:
        form = await site.form(request)
        section = BY_NAME.get(name)
        if section is None:
            raise HTTPException(404)
        sent, errors = await site.aside(lambda: save(site, section, form))
        if errors:
            return await site.aside(
                lambda: show(request, Settings(site, site.state(request), sent, errors), 422)
            )
        return site.redirect(request, "/settings", done="saved")

    return pages
