"""The charts of one route: quality, latency, cost, errors, models, first tries; each with its table and its numbers."""

# Long because each chart is a few lines of figures, words and file, and all share their columns and marks.
from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from fastapi import HTTPException

from tierlight_collector.decisions import Alert, Recommendation
from tierlight_collector.records import HOUR_NS, Filters, Rollup
from tierlight_collector.rollup import percentile, total

from ..analysis.usual import usual_range
from ..analysis.verdict import quality_of
from . import charts, fmt, markers, rowcharts
from .buckets import Buckets, buckets
from .csvout import Cell
from .routesample import RouteSample
from .routetable import RouteRow, rate, route_rows
from .shell import Formats
from .site import Panel, Site
from .urlstate import State

CHARTS = ("quality", "latency", "cost", "errors", "mix", "hourly", "cascade", "costchange")


@dataclass(frozen=True, slots=True)
class Drawn:
    """A chart with its table twin and what it is called."""

    title: str
    chart: charts.Chart
    heads: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    note: str = ""
    file_heads: tuple[str, ...] = ()
    file_rows: Sequence[tuple[Cell, ...]] = ()  # the same as numbers, for a file


class RouteCharts:
    """The figures of one route and the charts drawn from them, each worked out when it is asked for."""

    def __init__(self, site: Site, state: State, formats: Formats, route: str) -> None:
        self.site, self.state, self.f, self.route = site, state, formats, route
        self.prefs = site.preferences()
        self.floor = self.prefs.floor_of(route)

    def _where(self) -> Filters:
        return self.state.where(route=(self.route,))

    @cached_property
    def _parts(self) -> list[Rollup]:
        return self.site.rollups(self.state.window, ("route", "provider", "model", "tier"), self._where())

    @cached_property
    def row(self) -> RouteRow | None:
        rows = route_rows(self._parts, self.prefs, self.open_alerts, self.recommendations)
        return rows[0] if rows else None

    @cached_property
    def open_alerts(self) -> list[Alert]:
        return [a for a in self.site.open_alerts() if a.route == self.route]

    @cached_property
    def recommendations(self) -> list[Recommendation]:
        rank = {"ready": 0, "shipped": 1, "collecting": 2, "proposed": 3}
        return sorted(
            self.site.store.recommendations(route=self.route), key=lambda r: (rank.get(r.state, 9), r.id)
        )

    @cached_property
    def sample(self) -> RouteSample:
        """What single calls tell; read only where the page asks for it (`open=slices`)."""
        score = self.row.quality.score if self.row is not None and self.row.quality is not None else ""
        return RouteSample(self.site, self.state, self.f, self.route, self.prefs, score)

    # ---- series ------------------------------------------------------------------------------------------

    @cached_property
    def buckets(self) -> Buckets:
        return buckets(self.state, self.site.first_ns())

    @cached_property
    def _found(self) -> list[tuple[datetime, Rollup]]:
        """Rollups by (model, tier) of each column's time."""
        return self.site.series(
            self.buckets.window, self.buckets.step, self.state.zone_name, ("model", "tier"), self._where()
        )

    @cached_property
    def _series(self) -> dict[tuple[str, str], list[Rollup | None]]:
        """Rollups per bucket of each (model, tier)."""
        found = self._found
        keys = {(r.key[0], r.key[1]) for _, r in found}
        return {
            key: self.buckets.place((when, r) for when, r in found if (r.key[0], r.key[1]) == key)
            for key in sorted(keys)
        }

    @cached_property
    def _columns(self) -> list[Rollup | None]:
        """All models of a bucket together."""
        stacks = list(self._series.values())
        merged: list[Rollup | None] = []
        for i in range(len(self.buckets.starts)):
            here = [stack[i] for stack in stacks]
            known = [r for r in here if r is not None]
            merged.append(total(known) if known else None)
        return merged

    def _values(self, make: Callable[[Rollup], float | None]) -> list[float | None]:
        return [None if r is None else make(r) for r in self._columns]

    @cached_property
    def marks(self) -> list[charts.Mark]:
        used = [(part.key[1], part.key[2]) for part in self._parts]
        return markers.marks(self.site, self.state, self.buckets, self.route, used, self._found)

    @cached_property
    def marks_list(self) -> list[charts.Mark]:
        """The marks for the list below the charts; empty where they cannot be had, which the charts say then."""
        return self.site.panel(lambda: self.marks).value or []

    def _steady(self, values: Sequence[float | None]) -> tuple[float, float] | None:
        """The usual range before the first open alert's change, of all buckets where there is none."""
        change = min((a.change_ns for a in self.open_alerts), default=self.buckets.end)
        return usual_range(
            [v for v, start in zip(values, self.buckets.starts, strict=True) if start < change]
        )

    @cached_property
    def quality(self) -> Panel[Drawn]:
        return self.site.panel(self.draw_quality)

    @cached_property
    def latency(self) -> Panel[Drawn]:
        return self.site.panel(self.draw_latency)

    @cached_property
    def cost(self) -> Panel[Drawn]:
        return self.site.panel(self.draw_cost)

    @cached_property
    def errors(self) -> Panel[Drawn]:
        return self.site.panel(self.draw_errors)

    @cached_property
    def mix(self) -> Panel[Drawn]:
        return self.site.panel(self.draw_mix)

    def draw(self, name: str) -> Drawn:
        drawn: Drawn = getattr(self, f"draw_{name}")()
        return drawn

    def draw_quality(self) -> Drawn:
        score = self.prefs.gate_scores.get(self.route, "")
        if not score and self.row is not None and self.row.quality is not None:
            score = self.row.quality.score
        per = [None if r is None else quality_of(r, score) for r in self._columns]
        intervals = [None if q is None or q.score != score else q.interval for q in per]
        mean = [None if i is None else i.mean for i in intervals]
        low = [None if i is None else i.low for i in intervals]
        high = [None if i is None else i.high for i in intervals]
        n = [0 if i is None else i.n for i in intervals]

        def says(i: int) -> str:
            return (
                "nothing scored"
                if not n[i]
                else f"{fmt.percent(mean[i])} (95 % {fmt.percent(low[i])} to {fmt.percent(high[i])}, n = {n[i]})"
            )

        finding = (
            ""
            if self.row is None or self.row.quality is None
            else f" {fmt.percent(self.row.quality.interval.mean)} over the range."
        )
        alerts = [a for a in self.open_alerts if a.kind == "quality"]
        if alerts:
            finding += f" Open alert: {alerts[0].sentence}."
        chart = charts.line(
            self.buckets.columns(says),
            [charts.Line("mean", mean, low, high)],
            lambda v: fmt.percent(v, 0),
            label=f"Quality ({score or 'no score'}) with 95 % interval.{finding}",
            floor=self.floor,
            floor_label="" if self.floor is None else f"floor {fmt.percent(self.floor)}",
            marks=self.marks,
            from_zero=False,
            most=1.0,
        )
        cells = [
            [fmt.percent(v) for v in mean],
            [fmt.percent(v) for v in low],
            [fmt.percent(v) for v in high],
            [fmt.exact(v) for v in n],
        ]
        heads = ("When", "Mean", "95 % from", "to", "Scored calls")
        file = ("start", "score_mean", "low_95", "high_95", "scored_calls"), self._file(mean, low, high, n)
        return Drawn(f"Quality: {score or 'no score'}", chart, heads, self._twin(says, cells), "", *file)

    def draw_latency(self) -> Drawn:
        p95 = self._values(lambda r: percentile(r.latency, 0.95))
        p50 = self._values(lambda r: percentile(r.latency, 0.5))
        ttft = self._values(lambda r: percentile(r.ttft, 0.5))

        def says(i: int) -> str:
            return (
                f"p95 {fmt.duration(p95[i])}, p50 {fmt.duration(p50[i])}, first token {fmt.duration(ttft[i])}"
            )

        lines = [charts.Line("p95", p95), charts.Line("p50", p50)]
        if any(v is not None for v in ttft):
            lines.append(charts.Line("first token, p50", ttft))
        known = [v for v in p95 if v is not None]
        finding = (
            f" p95 between {fmt.duration(min(known))} and {fmt.duration(max(known))}."
            if known
            else " No data."
        )
        chart = charts.line(
            self.buckets.columns(says),
            lines,
            fmt.duration,
            label=f"Latency.{finding}",
            expected=self._steady(p95),
            marks=self.marks,
        )
        cells = [[fmt.duration(v) for v in seq] for seq in (p95, p50, ttft)]
        heads = ("When", "p95", "p50", "First token, p50")
        file = ("start", "p95_ms", "p50_ms", "ttft_p50_ms"), self._file(p95, p50, ttft)
        return Drawn("Latency", chart, heads, self._twin(says, cells), "", *file)

    def draw_cost(self) -> Drawn:
        per_1k = self._values(lambda r: fmt.per_thousand(r.cost_nusd, r.calls - r.unpriced))
        spent = self._values(lambda r: None if r.unpriced == r.calls else float(r.cost_nusd))

        def says(i: int) -> str:
            return f"{self.f.money(per_1k[i])} per 1,000 calls, {self.f.money(spent[i])} in all"

        chart = charts.line(
            self.buckets.columns(says),
            [charts.Line("per 1,000 calls", per_1k)],
            lambda v: self.f.money(v).removesuffix(".00"),
            label="Cost per 1,000 priced calls.",
            expected=self._steady(per_1k),
            marks=self.marks,
        )
        cells = [[self.f.money(v) for v in per_1k], [self.f.money(v) for v in spent]]
        title = f"Cost per 1,000 calls ({self.f.currency.code})"
        usd = [[None if v is None else v / fmt.NANO for v in seq] for seq in (per_1k, spent)]
        file = ("start", "usd_per_1k_calls", "usd"), self._file(*usd)
        return Drawn(title, chart, ("When", "Per 1,000 calls", "In all"), self._twin(says, cells), "", *file)

    def draw_errors(self) -> Drawn:
        errors = self._values(lambda r: rate(r.errors, r.calls))
        fallbacks = self._values(lambda r: rate(r.fallbacks, r.calls))
        escalations = self._values(lambda r: rate(r.escalations, r.calls))

        def says(i: int) -> str:
            return f"errors {fmt.percent(errors[i])}, fallback {fmt.percent(fallbacks[i])}, escalated {fmt.percent(escalations[i])}"

        chart = charts.line(
            self.buckets.columns(says),
            [
                charts.Line("errors", errors),
                charts.Line("fallback", fallbacks),
                charts.Line("escalated", escalations),
            ],
            lambda v: fmt.percent(v, 0 if v == 0 or v >= 0.02 else 1),
            label="Share of calls that failed, fell back or were escalated.",
            marks=self.marks,
            most=1.0,
        )
        cells = [[fmt.percent(v) for v in seq] for seq in (errors, fallbacks, escalations)]
        heads = ("When", "Errors", "Fallback", "Escalated")
        file = (
            ("start", "error_rate", "fallback_rate", "escalation_rate"),
            self._file(errors, fallbacks, escalations),
        )
        return Drawn("Errors, fallbacks, escalations", chart, heads, self._twin(says, cells), "", *file)

    def draw_mix(self) -> Drawn:
        calls = {
            key: [None if r is None else float(r.calls) for r in column]
            for key, column in self._series.items()
        }
        order = sorted(calls, key=lambda key: -sum(v or 0 for v in calls[key]))
        layers = [
            charts.Layer(key[0] or "unknown model", f"c{min(k, 5)}", calls[key])
            for k, key in enumerate(order[:5])
        ]
        if len(order) > 5:
            rest = [sum(calls[key][i] or 0 for key in order[5:]) for i in range(len(self.buckets.starts))]
            layers.append(charts.Layer("other", "c5", rest))

        def says(i: int) -> str:
            parts = [
                f"{fmt.visible(layer.name, 40)} {fmt.exact(layer.values[i])}"
                for layer in layers
                if layer.values[i]
            ]
            return ", ".join(parts) or "no calls"

        chart = charts.stacked(
            self.buckets.columns(says),
            layers,
            lambda v: fmt.percent(v, 0),
            label="Share of calls by model.",
            share=True,
            marks=self.marks,
        )
        cells = [[fmt.exact(v) for v in layer.values] for layer in layers]
        heads = ("When", *(fmt.visible(layer.name, 40) for layer in layers))
        names = ("start", *(f"{layer.name} calls" for layer in layers))
        file = names, self._file(*(layer.values for layer in layers))
        return Drawn("Models, share of calls", chart, heads, self._twin(says, cells), "", *file)

    @cached_property
    def cascade(self) -> Panel[Drawn] | None:
        """What became of first tries; None where every call was one."""
        row = self.row
        tries = 0 if row is None else row.sums.escalations + row.sums.fallbacks + row.sums.retries
        return self.site.panel(self.draw_cascade) if tries else None

    def draw_cascade(self) -> Drawn:
        sums = total(self._parts)
        later = {
            "retried": sums.retries,
            "escalated": sums.escalations,
            "sent elsewhere after a failure": sums.fallbacks,
        }
        first = max(0, sums.calls - sum(later.values()))
        stayed = max(0, first - sum(later.values()))
        wasted = self._unused_nusd(sum(later.values()))
        steps = [
            rowcharts.Step("First tries", first, f"{fmt.exact(first)}, to {self._names(lambda p: p.calls - _later(p))}"),
            rowcharts.Step("Answered by the first try", stayed, f"{fmt.exact(stayed)}, {fmt.percent(rate(stayed, first))}"),
        ]  # fmt: skip
        counts: dict[str, Callable[[Rollup], int]] = {
            "retried": lambda p: p.retries,
            "escalated": lambda p: p.escalations,
            "sent elsewhere after a failure": lambda p: p.fallbacks,
        }
        for word, n in later.items():
            if n:
                to = self._names(counts[word])
                steps.append(
                    rowcharts.Step(
                        word.capitalize(),
                        n,
                        f"{fmt.exact(n)}, {fmt.percent(rate(n, first))}, to {to}",
                        is_lost=True,
                    )
                )
        found = f"{fmt.percent(rate(stayed, first))} of first tries were enough"
        if wasted is not None:
            found += f"; tries whose answer was not used cost about {self.f.money(wasted)} of {self.f.money(sums.cost_nusd)}"
        chart = rowcharts.funnel(steps, label=f"{found}.")
        rows = [(step.name, fmt.exact(step.count), fmt.percent(rate(step.count, first))) for step in steps]
        file = ("step", "calls"), [(step.name, step.count) for step in steps]
        heads = ("Step", "Calls", "Of first tries")
        return Drawn("First tries and what came after", chart, heads, rows, f"{found}.", *file)

    def _unused_nusd(self, unused: int) -> float | None:
        """About what the tries cost whose answer was not used: at the mean price of a first try."""
        mean = [
            (part.cost_nusd / (part.calls - part.unpriced), part.calls - _later(part))
            for part in self._parts
            if part.calls > part.unpriced and part.calls > _later(part)
        ]
        tries = sum(n for _, n in mean)
        return sum(cost * n for cost, n in mean) / tries * unused if tries else None

    def _names(self, count: Callable[[Rollup], int]) -> str:
        """The models with the most of something, as words."""
        by_model: Counter[str] = Counter()
        for part in self._parts:
            by_model[part.key[2]] += count(part)
        names = [fmt.visible(name, 24) or "unknown model" for name, n in by_model.most_common() if n > 0]
        if not names:
            return "no model"
        return names[0] + (f" and {fmt.plural(len(names) - 1, 'other')}" if len(names) > 1 else "")

    def draw_hourly(self) -> Drawn:
        """The zoomable chart's figures for a file and for a page without script."""
        window = self.buckets.window
        edges = tuple(range(window.start_ns // HOUR_NS * HOUR_NS, window.end_ns, HOUR_NS))
        columns = Buckets(edges, edges[-1] + HOUR_NS, self.state.zone, "hour")
        found = self.site.series(window, "hour", self.state.zone_name, (), self._where())
        parts = columns.place(found)
        series = [[None if r is None else percentile(r.latency, q) for r in parts] for q in (0.95, 0.5)]
        name = (
            columns.label
            if self.buckets.step == "hour"
            else lambda i: fmt.day(fmt.at(edges[i], self.state.zone))
        )
        chart = charts.line(
            [charts.Column(name(i)) for i in range(len(edges))],
            [charts.Line("p95", series[0]), charts.Line("p50", series[1])],
            fmt.duration,
            label="Latency by hour: p95 and p50.",
            marks=self.marks,
        )
        times = [fmt.iso(edge, self.state.zone) for edge in edges]
        rows = list(zip(times, *series, strict=True))
        return Drawn("Latency by hour", chart, (), [], "", ("start", "p95_ms", "p50_ms"), rows)

    def draw_costchange(self) -> Drawn:
        split = self.sample.make().split
        if split is None:
            raise HTTPException(404, "There are too few priced calls to split a change of cost.")
        file = (
            ("part", "usd_per_1k_answers", "low_95", "high_95"),
            [
                (t.name, *(None if v is None else v * 1000 for v in (t.effect, t.low, t.high)))
                for t in split.change.terms
            ],
        )
        return Drawn("Change of the cost of a thousand answers", split.chart, (), split.rows, "", *file)

    @cached_property
    def legend(self) -> list[tuple[str, str]]:
        return [(head, f"c{min(k, 5)}") for k, head in enumerate((self.mix.value or _NOTHING).heads[1:])]

    def _twin(self, says: Callable[[int], str], cells: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
        return charts.rows_of(self.buckets.columns(says), cells)

    def _file(self, *series: Sequence[float | None]) -> list[tuple[Cell, ...]]:
        times = [fmt.iso(start, self.state.zone) for start in self.buckets.starts]
        return list(zip(times, *series, strict=True))

    def hourly(self) -> dict[str, Any]:
        """p50 and p95 per hour for the zoomable chart, which asks for them when it is there."""
        found = self.site.series(self.buckets.window, "hour", self.state.zone_name, (), self._where())
        return {
            "zone": self.state.zone_name,
            "t": [int(when.timestamp()) for when, _ in found],
            "p95": [_tenths(percentile(r.latency, 0.95)) for _, r in found],
            "p50": [_tenths(percentile(r.latency, 0.5)) for _, r in found],
        }


_NOTHING = Drawn("", charts.Chart("", "", 0, ""), (), [])


def _later(part: Rollup) -> int:
    """Calls that were not the first try of an answer."""
    return part.escalations + part.fallbacks + part.retries


def _tenths(ms: float | None) -> float | None:
    return None if ms is None else round(ms, 1)
