"""What only single calls tell of a route: slices, why its cost changed, its lowest scores. From the newest calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from tierlight_collector.records import CallRow, Filters, TimeRange

from ..analysis.costchange import CostChange, cost_change
from ..analysis.preferences import Preferences
from ..analysis.slices import Slice, slices
from . import charts, fmt, rowcharts
from .routetable import RouteRow, route_rows
from .shell import Formats
from .site import Panel, Site
from .urlstate import State

MOST_CALLS = 1_000
MOST_SLICES = 16
MOST_LOW = 10
_PARTS = {
    "mix": "Which models answer",
    "tokens": "Tokens a call",
    "price": "Price of a token",
    "retries": "Tries per answer",
}


@dataclass(frozen=True, slots=True)
class SliceRow:
    """One line of the table of slices; `link` leads to its calls where they can be filtered."""

    by: str
    name: str
    row: RouteRow
    link: str


@dataclass(frozen=True, slots=True)
class Split:
    """Why the cost of an answer changed, drawn; `against` says what with."""

    change: CostChange
    against: str
    chart: charts.Chart
    rows: Sequence[tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Sample:
    """The newest calls of the range with what was made of them."""

    calls: int
    from_ns: int
    slices: list[SliceRow]
    low: list[CallRow]
    split: Split | None
    why_no_split: str = ""


class RouteSample:
    """Worked out when the page asks for it, after the page itself stands."""

    def __init__(
        self, site: Site, state: State, formats: Formats, route: str, prefs: Preferences, score: str
    ) -> None:
        self.site, self.state, self.f, self.route, self.prefs = site, state, formats, route, prefs
        self.score = score

    def _where(self, when: TimeRange) -> Filters:
        return self.state.where(route=(self.route,), start_ns=when.start_ns, end_ns=when.end_ns)

    def _newest(self, when: TimeRange) -> list[CallRow]:
        """The newest calls of a stretch of time, oldest first."""
        return list(self.site.store.calls(self._where(when), limit=MOST_CALLS).rows)[::-1]

    @cached_property
    def value(self) -> Panel[Sample]:
        key = f"sample {self.route} {self.site.span(self.state.window)} {self.state.where()} {self.state.zone_name} {self.f.currency}"
        return self.site.panel(lambda: self.site.recent(key, self.make))

    def make(self) -> Sample:
        """All of it; raises what the store raises."""
        rows = self._newest(self.state.window)
        if not rows:
            return Sample(0, self.state.window.start_ns, [], [], None)
        low = [
            (score.value, -row.call.start_ns, row.seq, row)
            for row in rows
            for score in row.scores
            if score.name == self.score and score.value is not None and score.value < 1
        ]
        split = self._split(rows)
        return Sample(
            len(rows),
            rows[0].call.start_ns,
            self._slices(rows),
            [row for *_, row in sorted(low, key=lambda each: each[:3])[:MOST_LOW]],
            split if isinstance(split, Split) else None,
            split if isinstance(split, str) else "",
        )

    def _slices(self, rows: list[CallRow]) -> list[SliceRow]:
        found = [self._line(part) for part in slices(rows)]

        def badness(line: SliceRow) -> tuple[float, float, int]:
            quality = line.row.quality
            # by the upper end: two bad answers of three say less than thirty of sixty
            return (
                1.0 if quality is None else quality.interval.high,
                -(line.row.error_rate or 0),
                -line.row.calls,
            )

        return sorted(found, key=badness)[:MOST_SLICES]

    def _line(self, part: Slice) -> SliceRow:
        sums = replace(part.sums, key=(self.route, "", part.name, ""))
        filters = {"prompt version": "version", "model": "model", "environment": "env"}
        link = ""
        if part.by in filters and part.name:
            link = self.state.calls(**{"route": self.route, filters[part.by]: part.name})
        row = route_rows([sums], self.prefs, (), ())[0]
        return SliceRow(part.by, part.name, row, link)

    def _split(self, rows: list[CallRow]) -> Split | str:
        window = self.state.window
        if self.site.reaches_back(self.state):
            against, before, after = "in the period before", self._newest(self.state.previous), rows
        else:
            first = max(window.start_ns, self.site.first_ns() or 0)
            middle = (first + min(window.end_ns, self.site.now_ns)) // 2
            against = f"before {fmt.moment(middle, self.state.zone)}"
            before = self._newest(TimeRange(first, middle))
            after = [row for row in rows if row.call.start_ns >= middle]
        change = cost_change(before, after)
        if change is None:
            return "Parts of a change are shown from 100 priced calls on either side on."
        lines = []
        for term in change.terms:
            says = f"{self._signed(term.effect)} ({self._signed(term.low)} to {self._signed(term.high)})"
            if term.effect == term.low == term.high:
                says = "unchanged"
            low, high = (None if v is None else v * 1e12 for v in (term.low, term.high))
            lines.append(rowcharts.Estimate(_PARTS[term.name], term.effect * 1e12, low, high, says))
        label = f"Change of the cost of a thousand answers by part. {change.sentence(against)}"
        cells = [
            (_PARTS[t.name], self._signed(t.effect), self._signed(t.low), self._signed(t.high))
            for t in change.terms
        ]
        return Split(change, against, rowcharts.forest(lines, label=label), cells)

    def _signed(self, usd: float | None) -> str:
        """Dollars an answer as money a thousand answers, with its sign."""
        if usd is None:
            return fmt.UNKNOWN
        text = self.f.money(usd * 1e12)
        return f"+{text}" if usd > 0 and text.strip("$€£0.") else text
