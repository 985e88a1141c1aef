"""The rules of alerts: from which size each kind pages or asks for a ticket, how many false alarms are accepted, who was told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import isinf
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import Response

from tierlight_collector.decisions import Alert, AuditEntry
from tierlight_collector.records import HOUR_NS

from ..analysis.drift import BUDGET, severity
from ..analysis.reference import Learning
from ..analysis.signals import (
    COST,
    COVERAGE,
    ESCALATION,
    FAILOVER,
    INPUT_TOKENS,
    LATENCY,
    TTFT,
    Signal,
    error_signal,
    quality_signal,
)
from ..outbound import NOT_TOLD, NOTIFIER, TOLD
from .settingspage import Field, Section, amount, keep, read
from .site import Panel, Site
from .urlstate import State

MONTH_NS: Final = 30 * 24 * HOUR_NS
LEVELS: Final = ("page", "ticket", "info")


def percent_size(text: str) -> str:
    """A size of an effect from a percent: "10" and "10%" are 0.1."""
    try:
        value = float(text.replace("%", "").strip()) / 100
    except ValueError:
        value = 0
    if not 0 < value <= 100:
        raise ValueError("expected a percent above 0, such as 10")
    return repr(value)


@dataclass(frozen=True, slots=True)
class Rule:
    """One kind of alert: what is compared, in points of a share or as a relative move of the median."""

    kind: str
    what: str
    signal: Signal
    in_points: bool

    @property
    def defaults(self) -> tuple[float | None, float | None]:
        return self.signal.page_at, self.signal.ticket_at


RULES: Final = (
    Rule("quality", "the mean of a score falls", quality_signal(""), True),
    Rule("errors", "the share of failed calls rises", error_signal(), True),
    Rule("latency", "the calls get slower, at the median", LATENCY, False),
    Rule("ttft", "the first token comes later, at the median", TTFT, False),
    Rule("cost", "a call gets dearer, at the median", COST, False),
    Rule("tokens", "a call takes more tokens, at the median", INPUT_TOKENS, False),
    Rule("escalation", "more calls go to the next tier", ESCALATION, True),
    Rule("failover", "more calls are answered by a stand-in", FAILOVER, True),
    Rule("coverage", "fewer calls get a score", COVERAGE, True),
)  # fmt: skip


def words(size: float | None) -> str:
    """A size as it is typed, in percent or points.

    >>> words(0.1), words(None), words(float("-inf"))
    ('10', 'never', 'any size')
    """
    if size is None:
        return "never"
    return "any size" if isinf(size) else f"{size * 100:g}"


SECTION: Final = Section(
    "rules", "Rules", "",
    tuple(
        Field(f"alert.size.{level}.{rule.kind}", f"{rule.kind}, {level} from", percent_size, words(size))
        for rule in RULES for level, size in zip(("page", "ticket"), rule.defaults, strict=True)
    )
    + tuple(Field(f"alert.budget.{level}", f"False alarms a month, {level}", amount, f"{BUDGET[level]:g}") for level in LEVELS),
)  # fmt: skip


def near_end(alert: Alert) -> float:
    """The smallest size that the interval of an alert's effect allows; relative where the alert has a unit.

    >>> from types import SimpleNamespace as A
    >>> near_end(A(effect_low=-.1, effect_high=-.04, unit="share", before=.9)), near_end(A(effect_low=50, effect_high=90, unit="ms", before=100))
    (0.04, 0.5)
    """
    if alert.effect_low <= 0 <= alert.effect_high:
        return 0.0
    least = min(abs(alert.effect_low), abs(alert.effect_high))
    if alert.unit == "share":
        return least
    return least / abs(alert.before) if alert.before else 0.0


class Rules:
    """The page: sizes and budgets, what they would have made of the alerts of the last 30 days, and the deliveries."""

    def __init__(
        self,
        site: Site,
        state: State,
        sent: Mapping[str, str] | None = None,
        errors: Mapping[str, str] | None = None,
        tried: Mapping[str, str] | None = None,
    ) -> None:
        self.site, self.state = site, state
        self.errors = errors or {}
        self.stored = site.store.settings()
        self.sent = sent
        self.tried = tried

    def value(self, key: str) -> str:
        """What stands in a field: what was typed, else the stored value as it would be typed."""
        if self.sent is not None:
            return self.sent.get(f"rules/{key}", "")
        stored = self.stored.get(key, "")
        return f"{float(stored) * 100:g}" if stored and key.startswith("alert.size.") else stored

    def error(self, key: str) -> str:
        return self.errors.get(f"rules/{key}", "")

    def fields(self, rule: Rule) -> list[tuple[str, Field]]:
        return [
            (level, f)
            for level in ("page", "ticket")
            for f in SECTION.fields
            if f.key == f"alert.size.{level}.{rule.kind}"
        ]

    @property
    def budgets(self) -> list[Field]:
        return [f for f in SECTION.fields if f.key.startswith("alert.budget.")]

    @cached_property
    def recent(self) -> Panel[list[Alert]]:
        since = self.site.now_ns - MONTH_NS
        return self.site.panel(
            lambda: [a for a in self.site.store.alerts(limit=2000) if a.opened_ns >= since]
        )

    def rang(self, rule: Rule) -> Counter[str]:
        """How often the kind rang in the last 30 days, by severity."""
        return Counter(a.severity for a in self.recent.value or [] if a.kind == rule.kind)

    def would(self, rule: Rule) -> Counter[str] | None:
        """The same with the sizes that were typed; None when nothing is tried."""
        if self.tried is None or self.errors:
            return None
        own = [self.tried.get(f"alert.size.{level}.{rule.kind}", "") for level in ("page", "ticket")]
        page, ticket = (float(text) if text else size for text, size in zip(own, rule.defaults, strict=True))
        return Counter(
            severity(near_end(a), page, ticket) for a in self.recent.value or [] if a.kind == rule.kind
        )

    @property
    def learning(self) -> Learning:
        return Learning()

    @cached_property
    def deliveries(self) -> list[AuditEntry]:
        return [e for e in self.site.store.audit(1000) if e.who == NOTIFIER and e.action in (TOLD, NOT_TOLD)][
            :30
        ]


def router(site: Site) -> APIRouter:
    pages = APIRouter()

    def show(request: Request, page: Rules, status: int = 200) -> Response:
        return site.render(
            request, "alertrules.html", state=page.state, page="alerts", title="Rules of alerts", status=status,
            model={"p": page, "rules": RULES},
        )  # fmt: skip

    @pages.get("/alerts/rules")
    def rules(request: Request) -> Response:
        return show(request, Rules(site, site.state(request)))

    @pages.post("/alerts/rules")
    async def change(request: Request) -> Response:
        form = await site.form(request)
        sent, errors, accepted = read(SECTION, form)
        if errors or form.get("do") == "preview":
            state = site.state(request)
            return await site.aside(
                lambda: show(request, Rules(site, state, sent, errors, accepted), 422 if errors else 200)
            )
        await site.aside(lambda: keep(site, accepted))
        return site.redirect(request, "/alerts/rules", done="saved")

    return pages
