"""What a page shows, read from its query string and written back; the only place that builds links.

Everything a page depends on is in its URL. A value that is unknown or impossible is dropped and named in
`notes`, so that a page always answers and always says what it left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final
from urllib.parse import quote, urlencode
from zoneinfo import ZoneInfo

from tierlight.semconv import TIERS
from tierlight_collector.records import HOUR_NS, Filters, TimeRange

from .fmt import NANO, at, visible

RANGES: Final = ("24h", "7d", "30d", "90d", "custom")
PAGE_ROWS: Final = 50
MINUTE_NS: Final = 60 * NANO
LONGEST_RANGE_DAYS: Final = 400
LONGEST_VALUE: Final = 512
MOST_VALUES: Final = 20

# name -> what it may be; None = any text. The order is the order in a canonical URL.
_CHOICES: Final[Mapping[str, tuple[str, ...] | None]] = {
    "range": RANGES,
    "from": None,
    "to": None,
    "tz": None,
    "compare": ("prev", "none"),
    "view": ("errors", "slowest", "costliest", "low_quality", "escalated", "fallback", "unpriced"),
    "status": ("alert", "saving", "needs_data", "no_signal", "ok", "error"),
    "state": ("open", "acked", "muted", "resolved", "all"),
    "purpose": ("production", "shadow", "judge", "replay", "test", "all"),
    "group": ("prefix", "none"),
    "spend": ("usd", "share"),
    "sort": (
        "route", "status", "calls", "cost", "per1k", "p50", "p95", "ttft", "quality", "errors", "fallback",
        "escalation", "time", "latency", "model", "input", "output", "seen",
    ),
    "dir": ("asc", "desc"),
    "page": None,
    "cursor": None,
    "q": None,
    "tab": ("messages", "attributes", "cost", "raw"),
    "open": None,
    "s": ("today", "proposed"),
    "undo": None,
    "done": None,
    "client": ("python", "openai", "anthropic", "otel"),
}  # fmt: skip
_MANY: Final = ("route", "model", "provider", "tier", "env", "version", "cols")
GLOBAL: Final = ("range", "from", "to", "tz", "env", "compare")
DEFAULTS: Final[Mapping[str, str]] = {
    "compare": "none",
    "spend": "usd",
    "group": "none",
    "page": "1",
    "tab": "messages",
    "state": "open",
    "purpose": "production",
}


@dataclass(frozen=True, slots=True)
class State:
    """One page's state: single values by name, filters by name, and what was dropped on reading."""

    values: Mapping[str, str] = field(default_factory=dict)
    filters: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    zone: tzinfo = UTC
    zone_name: str = "UTC"
    range: str = "30d"
    window: TimeRange = field(default_factory=lambda: TimeRange(0, 0))

    def get(self, name: str, default: str = "") -> str:
        return self.values.get(name, default or DEFAULTS.get(name, ""))

    @property
    def page(self) -> int:
        return int(self.get("page"))

    @property
    def days(self) -> float:
        return (self.window.end_ns - self.window.start_ns) / (24 * HOUR_NS)

    @property
    def step_is_hour(self) -> bool:
        """Whether a chart of the window has hours for its columns: up to three days of them."""
        return self.days <= 3.01

    @property
    def previous(self) -> TimeRange:
        """The window of the same length just before this one."""
        length = self.window.end_ns - self.window.start_ns
        end = self.window.end_ns - length
        if self.range in (
            "7d",
            "30d",
            "90d",
        ):  # whole days back, up to the same hour: like is compared with like
            length = int(self.range[:-1]) * 24 * HOUR_NS
            end = (self.window.end_ns - length) // HOUR_NS * HOUR_NS
        return TimeRange(self.window.start_ns - length, end)

    def where(self, **changes: object) -> Filters:
        """The filters that rollups understand."""
        purpose = self.get("purpose")
        chosen: dict[str, object] = {
            "env": self.filters.get("env", ()),
            "route": self.filters.get("route", ()),
            "provider": self.filters.get("provider", ()),
            "model": self.filters.get("model", ()),
            "tier": self.filters.get("tier", ()),
            "purpose": () if purpose == "all" else (purpose,),
        }
        return Filters(**{**chosen, **changes})  # type: ignore[arg-type]

    def query(self, *, only: Iterable[str] | None = None, **changes: object) -> list[tuple[str, str]]:
        """The state as query pairs in canonical order, defaults and empty values left out."""
        wanted = None if only is None else set(only) | set(changes)
        merged: dict[str, tuple[str, ...]] = {name: (value,) for name, value in self.values.items()}
        merged.update(self.filters)
        for name, value in changes.items():
            name = name.rstrip("_")  # from_ is spelled so in Python
            if value is None or value == "":
                merged.pop(name, None)
            elif isinstance(value, tuple | list):
                merged[name] = tuple(str(v) for v in value)
            else:
                merged[name] = (str(value),)
        pairs = []
        for name in (*_CHOICES, *_MANY):
            if wanted is not None and name not in wanted and f"{name}_" not in wanted:
                continue
            if name in merged and merged[name] != (DEFAULTS.get(name),):
                pairs += [(name, value) for value in merged[name] if value]
        return pairs

    def carried(self, path: str, **changes: object) -> str:
        """A link to another page: carries the global state (range, zone, environment, comparison) and `changes`."""
        return _join(path, self.query(only=GLOBAL, **changes))

    def calls(self, **changes: object) -> str:
        """A link to the calls behind a number of this page: carries its filters too, so that both count the same."""
        return _join(
            "/calls", self.query(only=(*GLOBAL, *(n for n in _MANY if n != "cols"), "purpose"), **changes)
        )

    def here(self, path: str, **changes: object) -> str:
        """A link to the same page with some of its state changed; paging starts again unless it is what changes."""
        if not {"page", "cursor"} & set(changes):
            changes = {**changes, "page": None, "cursor": None}
        changes = {"undo": None, "done": None, **changes}
        return _join(path, self.query(only=None, **changes))


def _join(path: str, pairs: list[tuple[str, str]]) -> str:
    page, mark, place = path.partition("#")
    return f"{page}?{urlencode(pairs)}{mark}{place}" if pairs else path


def route_path(route: str, tail: str = "") -> str:
    """The page of a route; any text may be a route's name, so all of it is quoted."""
    return f"/routes/{quote(route, safe='')}{tail}"


def read_time(text: str, zone: tzinfo) -> int | None:
    """A time from a URL in ns: ISO 8601 (the zone's where it names none) or Unix seconds; None when it is neither."""
    try:
        if text.replace(".", "", 1).isdigit():
            ns = int(float(text) * NANO)
        else:
            when = datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)
            ns = int((when if when.tzinfo else when.replace(tzinfo=zone)).timestamp()) * NANO
    except (ValueError, OverflowError, OSError):
        return None
    return ns if 0 <= ns < 2**62 else None


def _midnight(ns: int, zone: tzinfo, days_back: int) -> int:
    local = at(ns, zone)
    start = datetime.combine(local.date() - timedelta(days=days_back), datetime.min.time(), zone)
    return int(start.timestamp()) * NANO


def named_window(name: str, now_ns: int, zone: tzinfo) -> TimeRange:
    """The window of "24h" (23 whole hours and the running one) or of N days, today with them, up to now.

    It ends with the running minute, so that the same question is asked, and can be answered from memory, for a minute.
    """
    end = (now_ns // MINUTE_NS + 1) * MINUTE_NS
    if name == "24h":
        return TimeRange(now_ns // HOUR_NS * HOUR_NS - 23 * HOUR_NS, end)
    return TimeRange(_midnight(now_ns, zone, int(name[:-1]) - 1), end)


def fitting_range(first_ns: int | None, now_ns: int) -> str:
    """The shortest named range that shows the data, but for a day and a half at its start: six hours of data must not be two bars of a month."""
    if first_ns is None or now_ns - first_ns < 24 * HOUR_NS:
        return "24h"
    return "7d" if now_ns - first_ns < 8.5 * 24 * HOUR_NS else "30d"


def parse(
    pairs: Iterable[tuple[str, str]], *, now_ns: int, default_range: str = "30d", default_zone: str = "UTC"
) -> State:
    """The state in a query string. Never raises: what cannot be used is left out and noted."""
    values: dict[str, str] = {}
    filters: dict[str, tuple[str, ...]] = {}
    notes: list[str] = []

    def drop(name: str, value: str, why: str) -> None:
        notes.append(f"{name} “{visible(value, 40)}” {why}")

    for name, value in pairs:
        value = value.strip()
        if not value or name in ("theme", "csrf", "format"):
            continue
        if len(value) > LONGEST_VALUE:
            drop(name, value, "is too long and was ignored")
        elif name in _MANY:
            if len(filters.get(name, ())) < MOST_VALUES and value not in filters.get(name, ()):
                filters[name] = (*filters.get(name, ()), value)
        elif name not in _CHOICES:
            notes.append(f"the setting “{visible(name, 40)}” is not known here and was ignored")
        else:
            allowed = _CHOICES[name]
            if allowed is not None and value not in allowed:
                drop(name, value, f"is not one of {', '.join(allowed[:8])}; it was ignored")
            elif name in values:
                drop(name, value, "was given twice; the first counts")
            elif name == "page" and not (value.isascii() and value.isdigit() and 1 <= int(value) <= 10_000):
                drop(name, value, "is not a page number; it was ignored")
            else:
                values[name] = value

    unknown_tiers = [tier for tier in filters.get("tier", ()) if tier not in TIERS]
    for tier in unknown_tiers:
        drop("tier", tier, f"is not one of {', '.join(TIERS)}; it was ignored")
    if unknown_tiers:
        filters["tier"] = tuple(tier for tier in filters["tier"] if tier in TIERS)

    zone_name = values.get("tz", default_zone)
    try:
        zone: tzinfo = UTC if zone_name == "UTC" else ZoneInfo(zone_name)
    except (OSError, ValueError, KeyError):  # an unknown key is a KeyError, a folder an OSError
        drop("tz", zone_name, "is not a known time zone; UTC is used")
        values.pop("tz", None)
        zone, zone_name = UTC, "UTC"

    chosen, window = _window(values, zone, now_ns, default_range, notes)
    return State(values, filters, tuple(dict.fromkeys(notes))[:6], zone, zone_name, chosen, window)


def _window(
    values: dict[str, str], zone: tzinfo, now_ns: int, default_range: str, notes: list[str]
) -> tuple[str, TimeRange]:
    """The named window, or the one between `from` and `to`; mends `values` where they say nothing usable."""
    chosen = values.get("range", "custom" if "from" in values else default_range)
    if chosen == "custom":
        start = read_time(values.get("from", ""), zone)
        end = read_time(values["to"], zone) if "to" in values else (now_ns // MINUTE_NS + 1) * MINUTE_NS
        if start is not None and end is not None and start < end:
            if end - start > LONGEST_RANGE_DAYS * 24 * HOUR_NS:
                notes.append(f"the range is longer than {LONGEST_RANGE_DAYS} days; it was cut at its start")
                start = (
                    end - LONGEST_RANGE_DAYS * 24 * HOUR_NS
                ) // NANO * NANO + NANO  # whole seconds, as in the URL
                values["from"] = at(start, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            values["range"] = "custom"
            return "custom", TimeRange(start, end)
        notes.append(f"the range from and to cannot be read or is empty; the last {default_range} are shown")
        chosen = default_range
        values.pop("range", None)
    values.pop("from", None)
    values.pop("to", None)
    return chosen, named_window(chosen, now_ns, zone)


def shifted(state: State, now_ns: int, direction: int) -> dict[str, object]:
    """Changes for `here` that move the window one length earlier (-1) or later (+1), never past now."""
    length = state.window.end_ns - state.window.start_ns
    start = state.window.start_ns + direction * length
    end = state.window.end_ns + direction * length
    if end > now_ns + length // 2:
        return {"range": None, "from_": None, "to": None}
    form = "%Y-%m-%dT%H:%M:%SZ"
    return {"range": "custom", "from_": at(start, UTC).strftime(form), "to": at(end, UTC).strftime(form)}
