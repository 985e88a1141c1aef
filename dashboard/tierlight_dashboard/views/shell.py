"""The frame round a page: navigation, range, freshness; and how numbers are written for one request."""

from __future__ import annotations

from datetime import tzinfo
from functools import cached_property
from typing import TYPE_CHECKING, Final

from fastapi import Request

from tierlight_collector.records import HOUR_NS

from . import fmt, urlstate
from .urlstate import State

if TYPE_CHECKING:
    from .site import Site

NAV: Final = (
    ("overview", "/", "Overview", "o"),
    ("routes", "/routes", "Routes", "r"),
    ("calls", "/calls", "Calls", "c"),
    ("experiments", "/experiments", "Experiments", "e"),
    ("simulate", "/simulate", "What-if", "w"),
    ("models", "/models", "Models", "m"),
    ("alerts", "/alerts", "Alerts", "a"),
    ("live", "/live", "Live", "l"),
    ("settings", "/settings", "Settings", "s"),
)


class Shell:
    """The frame of a page, worked out only where the template asks for it."""

    def __init__(self, site: Site, state: State, request: Request) -> None:
        self._site, self._state, self._request = site, state, request

    @cached_property
    def nav(self) -> list[tuple[str, str, str, str]]:
        return [(name, self._state.carried(path), label, key) for name, path, label, key in NAV]

    @cached_property
    def waiting(self) -> int:
        return len(self._site.waiting_alerts())

    @cached_property
    def routes_seen(self) -> int:
        return len(self._site.routes())

    @cached_property
    def theme(self) -> str:
        chosen = self._request.cookies.get("tierlight_theme", "")
        return chosen if chosen in ("light", "dark") else ""

    @cached_property
    def theme_links(self) -> list[tuple[str, str, bool]]:
        here = self._state.here(self._request.url.path)
        join = "&" if "?" in here else "?"
        return [
            (name, f"{here}{join}theme={name}", name == (self.theme or "system"))
            for name in ("system", "light", "dark")
        ]

    @cached_property
    def newest_ns(self) -> int | None:
        return max((r.last_ns for r in self._site.routes()), default=None)

    @property
    def until_ns(self) -> int:
        """Where the window ends for a reader: not after now."""
        return min(self._state.window.end_ns, self._site.now_ns)

    @cached_property
    def is_stale(self) -> bool:
        """Traffic stopped: the newest call is older than ten times the usual gap of the last day, at least 5 minutes."""
        newest = self.newest_ns
        if newest is None:
            return False
        routes = self._site.routes()
        calls = sum(r.calls for r in routes)
        lived = max(1, newest - min(r.first_ns for r in routes))
        usual = lived / max(1, calls)
        return self._site.now_ns - newest > max(10 * usual, HOUR_NS / 12)

    @cached_property
    def range_links(self) -> list[tuple[str, str, bool]]:
        path = self._request.url.path
        return [
            (name, self._state.here(path, range=name, from_=None, to=None), self._state.range == name)
            for name in ("24h", "7d", "30d", "90d")
        ]

    @cached_property
    def earlier(self) -> str:
        return self._state.here(
            self._request.url.path, **urlstate.shifted(self._state, self._site.now_ns, -1)
        )

    @cached_property
    def later(self) -> str:
        return self._state.here(self._request.url.path, **urlstate.shifted(self._state, self._site.now_ns, 1))

    @cached_property
    def hidden(self) -> list[tuple[str, str]]:
        """The page's own state, for the form of the global one to carry along."""
        skip = {"range", "from", "to", "tz", "env", "compare", "page", "cursor", "done", "undo"}
        return [(name, value) for name, value in self._state.query() if name not in skip]


class Formats:
    """Formatters that depend on the request: its currency, zone and moment."""

    def __init__(self, currency: fmt.Currency, zone: tzinfo, now_ns: int) -> None:
        self.currency, self.zone, self.now_ns = currency, zone, now_ns

    def money(self, nusd: float | None) -> str:
        return fmt.money(nusd, self.currency)

    def exact_money(self, nusd: float | None) -> str:
        return fmt.money_exact(nusd, self.currency)

    def per_1k(self, nusd: float | None, calls: int) -> str:
        return fmt.money(fmt.per_thousand(nusd, calls), self.currency)

    def moment(self, ns: int | None) -> str:
        return fmt.moment(ns, self.zone)

    def second(self, ns: int | None) -> str:
        return fmt.moment(ns, self.zone, seconds=True)

    def full(self, ns: int | None) -> str:
        return fmt.moment_full(ns, self.zone)

    def iso(self, ns: int | None) -> str:
        return fmt.iso(ns, self.zone)

    def ago(self, ns: int | None) -> str:
        return fmt.ago(ns, self.now_ns)
