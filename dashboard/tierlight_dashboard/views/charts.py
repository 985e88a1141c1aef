"""Charts as SVG text, drawn on the server: no script, no inline style, colours by class.

A chart is two SVGs side by side: a gutter with the y labels and a plot whose x is in percent and whose y is in
pixels, so that text keeps its size at any width and nothing shifts. Only paths are stretched: they sit in a
nested SVG of 1000 units' width with non-scaling strokes. None is a gap, never 0.
"""

# Long because the drawing functions share scales, ticks and marks.
from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup, escape

from .fmt import UNKNOWN, visible

TIER_ORDER: Final = ("on-device", "small", "specialised", "mid", "flagship", "reasoning", "")
_PAD_TOP: Final = 16
_PAD_BOTTOM: Final = 20
_GUTTER: Final = 54

# Class -> presentation attributes, for a chart that leaves the page and its stylesheet (light scheme).
_INLINE: Final[Mapping[str, str]] = {
    "t-on-device": 'fill="#292c30"', "t-small": 'fill="#2f9ae1"', "t-specialised": 'fill="#1f7d53"',
    "t-mid": 'fill="#1637e5"', "t-flagship": 'fill="#0d0d3f"', "t-reasoning": 'fill="#b11992"',
    "t-none": 'fill="#868d9a"', "c0": 'fill="#1637e5"', "c1": 'fill="#2f9ae1"', "c2": 'fill="#b11992"',
    "c3": 'fill="#1f7d53"', "c4": 'fill="#0d0d3f"', "c5": 'fill="#868d9a"',
    "l0": 'stroke="#2f52cc" stroke-width="1.75" fill="none"', "l1": 'stroke="#868d9a" stroke-width="1.5" fill="none"',
    "l2": 'stroke="#b11992" stroke-width="1.5" fill="none"', "d0": 'fill="#2f52cc"', "d1": 'fill="#868d9a"',
    "d2": 'fill="#b11992"', "band": 'fill="#2f52cc" fill-opacity="0.14"',
    "expected": 'fill="#868d9a" fill-opacity="0.16"', "grid": 'stroke="#e3e5ea"', "axis": 'fill="#5b6270"',
    "floor": 'stroke="#b3261e" stroke-dasharray="5 4"', "floort": 'fill="#b3261e"',
    "mark": 'stroke="#7a5200" stroke-dasharray="3 3"', "mark-alert": 'stroke="#b3261e" stroke-dasharray="3 3"',
    "markt": 'fill="#7a5200"', "markt-alert": 'fill="#b3261e"', "hit": 'fill="none"', "gap": 'stroke="#ffffff"',
    "dot": 'fill="#2f52cc" fill-opacity="0.75"', "markhit": 'stroke="none"', "value": 'fill="#16181d"',
    "zero": 'stroke="#868d9a"', "span": 'stroke="#2f52cc" stroke-width="5" stroke-linecap="round"', "mid": 'fill="#16181d"',
    "step": 'fill="#2f52cc"', "lost": 'fill="#7a5200"', "rail": 'fill="#f1f2f5"', "track": 'stroke="#e3e5ea" stroke-width="2"',
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment worth a line across a chart; `at` is its place from 0 (left) to 1 (right).

    `href` leads to the record it stands for, `around` to the calls of the hours round it.
    """

    at: float
    label: str
    kind: str = "event"  # "alert" draws in the alert colour
    href: str = ""
    when: str = ""
    around: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """One bucket on the x axis: its label and the words shown when it is hovered."""

    label: str
    title: str = ""


@dataclass(frozen=True, slots=True)
class Layer:
    """One colour of a stack, bottom-up."""

    name: str
    css: str
    values: Sequence[float | None]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart, with an interval per point where there is one."""

    name: str
    values: Sequence[float | None]
    low: Sequence[float | None] = ()
    high: Sequence[float | None] = ()


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawn chart; renders itself in a template, or as a file of its own."""

    gutter: str
    plot: str
    height: int
    label: str
    gutter_width: int = _GUTTER
    legend: tuple[tuple[str, str], ...] = ()  # (class, name), for the file; a page writes its own

    def __html__(self) -> Markup:
        gutter = f'<svg class="gutter" width="{self.gutter_width}" height="{self.height}" aria-hidden="true">{self.gutter}</svg>'
        return Markup(
            f'<div class="chart{"" if self.gutter_width else " rows"}" role="img" aria-label="{escape(self.label)}">'
            f"{gutter if self.gutter_width else ''}"
            f'<svg class="plot" width="100%" height="{self.height}" aria-hidden="true">{self.plot}</svg></div>'
        )

    def standalone(self, title: str, width: int = 960) -> str:
        """The chart as one SVG file without a stylesheet, for mail and chat."""
        top = 58 if self.legend else 40
        height = self.height + top + 4
        keys, x = "", 16.0
        for css, full in self.legend:
            name = visible(full, 40)
            mark = "line" if css.startswith("l") else "rect"
            shape = 'x2="12" y1="-4" y2="-4"' if mark == "line" else 'y="-9" width="10" height="10"'
            keys += f'<g transform="translate({number(x)} 46)"><{mark} class="{css}" {shape}/><text class="axis" x="17">{escape(name)}</text></g>'
            x += 34 + 6.1 * len(name)
        body = (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
            f'font-family="system-ui, sans-serif" font-size="11"><title>{escape(title)}</title><desc>{escape(self.label)}</desc>'
            f'<rect width="{width}" height="{height}" fill="#ffffff"/>'
            f'<text x="16" y="26" font-size="14" font-weight="600" fill="#16181d">{escape(title)}</text>{keys}'
            f'<svg x="8" y="{top}" width="{self.gutter_width}" height="{self.height}">{self.gutter}</svg>'
            f'<svg x="{(8 if self.gutter_width else 16) + self.gutter_width}" y="{top}" width="{width - self.gutter_width - (24 if self.gutter_width else 32)}" height="{self.height}">{self.plot}</svg></svg>'
        )
        # What leads somewhere on the page leads nowhere from a file.
        return re.sub(r'class="([^"]*)"', _inline_classes, re.sub(r' data-href="[^"]*"', "", body))


def _inline_classes(match: re.Match[str]) -> str:
    return " ".join(_INLINE[name] for name in match.group(1).split() if name in _INLINE)


def number(x: float) -> str:
    """A coordinate, short: at most one decimal."""
    return f"{x:.1f}".removesuffix(".0")


def percent_of(x: float) -> str:
    return f"{x * 100:.2f}".rstrip("0").rstrip(".") + "%"


def nice_step(span: float, most: int = 4) -> float:
    """The smallest of 1, 2, 2.5, 5, 10 times a power of ten that needs at most `most` steps for `span` > 0.

    >>> nice_step(0.87), nice_step(930)
    (0.25, 250.0)
    """
    raw = span / most
    power = 10.0 ** math.floor(math.log10(raw))
    for factor in (1, 2, 2.5, 5, 10):
        if factor * power >= raw * (1 - 1e-9):
            return factor * power
    raise AssertionError("ten times the power always suffices")


def ticks(low: float, high: float, most: int = 4) -> list[float]:
    """Round values that enclose [low, high].

    >>> ticks(0, 930)
    [0.0, 250.0, 500.0, 750.0, 1000.0]
    """
    if not high > low:
        high = low + (abs(low) or 1.0)
    step = nice_step(high - low, most)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def _scale(low: float, high: float, height: int) -> Callable[[float], float]:
    inner = height - _PAD_TOP - _PAD_BOTTOM
    return lambda v: _PAD_TOP + inner * (1 - (min(max(v, low), high) - low) / (high - low))


def _frame(
    lines: Sequence[float], y: Callable[[float], float], show: Callable[[float], str]
) -> tuple[str, str]:
    """Gutter labels and grid lines."""
    gutter = "".join(
        f'<text class="axis" x="{_GUTTER - 8}" y="{number(y(v) + 4)}" text-anchor="end">{escape(show(v))}</text>'
        for v in lines
    )
    grid = "".join(
        f'<line class="grid" x1="0" x2="100%" y1="{number(y(v))}" y2="{number(y(v))}"/>' for v in lines
    )
    return gutter, grid


def _x_labels(columns: Sequence[Column], height: int) -> str:
    """About eight labels; every second one gives way on a narrow screen."""
    n = len(columns)
    every = max(1, math.ceil(n / 8))
    out = []
    shown = [i for i in range(n) if i % every == every // 2] if n > 1 else [0]
    for place, i in enumerate(shown):
        css = "axis opt" if place % 2 else "axis"
        x = (i + 0.5) / n
        anchor = "start" if x < 0.04 else "end" if x > 0.96 else "middle"
        out.append(
            f'<text class="{css}" x="{percent_of(x)}" y="{height - 5}" text-anchor="{anchor}">{escape(columns[i].label)}</text>'
        )
    return "".join(out)


def _hits(columns: Sequence[Column], height: int) -> str:
    n = len(columns)
    return "".join(
        f'<rect class="hit" x="{percent_of(i / n)}" width="{percent_of(1 / n)}" y="0" height="{height - _PAD_BOTTOM}">'
        f"<title>{escape(c.title)}</title></rect>"
        for i, c in enumerate(columns)
        if c.title
    )


def _marks(marks: Sequence[Mark], height: int) -> str:
    """Dashed lines with a label at the top, alerts first; a label with no room is left to the list below the chart.

    A line with calls round it leads there by the mouse (`data-href`: a picture may hold no link of its own). The
    keyboard has the same links in that list.
    """
    groups = _together(sorted((mark for mark in marks if 0 <= mark.at <= 1), key=lambda mark: mark.at))
    taken: list[tuple[float, float]] = []
    out = {}
    for here in sorted(groups, key=lambda group: not _is_alert(group)):
        mark = here[0]
        tail = "-alert" if _is_alert(here) else ""
        label = ", ".join(each.label for each in here)
        x = percent_of(mark.at)
        drawn = f'<line class="mark{tail}" x1="{x}" x2="{x}" y1="12" y2="{height - _PAD_BOTTOM}"/>'
        width = 0.02 + 0.0105 * len(label)  # of a chart of half the page
        for anchor, dx, start in (("start", 4, mark.at), ("end", -4, mark.at - width)):
            end = start + width
            if start >= 0 and end <= 1 and all(end <= low or start >= high for low, high in taken):
                drawn += f'<text class="markt{tail} opt" x="{x}" dx="{dx}" y="10" text-anchor="{anchor}">{escape(label)}</text>'
                taken.append((start, end))
                break
        if mark.around:
            drawn += f'<line class="markhit" x1="{x}" x2="{x}" y1="0" y2="{height - _PAD_BOTTOM}"/>'
            drawn = f'<g data-href="{escape(mark.around)}"><title>{escape(mark.when)} {escape(label)}: calls around it</title>{drawn}</g>'
        out[mark.at] = drawn
    return "".join(out[at] for at in sorted(out))


def _is_alert(group: Sequence[Mark]) -> bool:
    return any(mark.kind == "alert" for mark in group)


def _together(marks: Sequence[Mark]) -> list[list[Mark]]:
    """Marks that would lie on one another share a line."""
    groups: list[list[Mark]] = []
    for mark in marks:
        if groups and mark.at - groups[-1][0].at < 0.004:
            groups[-1].append(mark)
        else:
            groups.append([mark])
    return groups


def stacked(
    columns: Sequence[Column],
    layers: Sequence[Layer],
    show: Callable[[float], str],
    *,
    label: str,
    share: bool = False,
    marks: Sequence[Mark] = (),
    height: int = 180,
) -> Chart:
    """Stacked columns of `layers` (bottom-up); with `share` each column is drawn as 100 %."""
    n = len(columns)
    totals = [sum(layer.values[i] or 0 for layer in layers) for i in range(n)]
    if not any(totals):
        text = (
            f'<text class="axis" x="50%" y="{height // 2}" text-anchor="middle">nothing in this range</text>'
        )
        return Chart("", text, height, label)
    lines = [0.0, 0.25, 0.5, 0.75, 1.0] if share else ticks(0, max(totals, default=0) or 1)
    y = _scale(lines[0], lines[-1], height)
    gutter, grid = _frame(lines, y, show)
    bars = []
    for i in range(n):
        below = 0.0
        for layer in layers:
            value = (layer.values[i] or 0) / ((totals[i] or 1) if share else 1)
            if value <= 0:
                continue
            top, bottom = y(below + value), y(below)
            gap = 1 if below > 0 and bottom - top > 2 else 0  # a line of the card's colour between segments
            bars.append(
                f'<rect class="{layer.css}" x="{percent_of((i + 0.14) / n)}" width="{percent_of(0.72 / n)}" '
                f'y="{number(top)}" height="{number(max(0.5, bottom - top - gap))}"/>'
            )
            below += value
    return Chart(
        gutter,
        grid + "".join(bars) + _x_labels(columns, height) + _hits(columns, height) + _marks(marks, height),
        height,
        label,
        legend=tuple((layer.css, layer.name) for layer in reversed(layers)),
    )


def runs(values: Sequence[float | None]) -> list[list[int]]:
    """Stretches of neighbouring known values."""
    runs: list[list[int]] = []
    for i, value in enumerate(values):
        if value is None:
            continue
        if runs and runs[-1][-1] == i - 1:
            runs[-1].append(i)
        else:
            runs.append([i])
    return runs


def _points(run: Sequence[int], values: Sequence[float | None], n: int, y: Callable[[float], float]) -> str:
    return "L".join(f"{number((i + 0.5) / n * 1000)} {number(y(values[i] or 0.0))}" for i in run)


def line(
    columns: Sequence[Column],
    lines: Sequence[Line],
    show: Callable[[float], str],
    *,
    label: str,
    floor: float | None = None,
    floor_label: str = "",
    expected: tuple[float, float] | None = None,
    marks: Sequence[Mark] = (),
    from_zero: bool = True,
    most: float | None = None,
    height: int = 180,
) -> Chart:
    """Lines with their intervals, an expected band, a floor and marks. `most` bounds the axis from above."""
    n = len(columns)
    known = [v for ln in lines for seq in (ln.values, ln.low, ln.high) for v in seq if v is not None]
    known += [v for v in (floor, *(expected or ())) if v is not None]
    if not any(v is not None for ln in lines for v in ln.values):
        return Chart(
            "",
            f'<text class="axis" x="50%" y="{height // 2}" text-anchor="middle">no data in this range</text>',
            height,
            label,
        )
    grid_at = ticks(0 if from_zero else min(known), max(max(known), 0) or 1)
    if most is not None and grid_at[-1] > most:
        grid_at = (
            [v for v in grid_at if v <= most]
            if len([v for v in grid_at if v <= most]) > 1
            else [grid_at[0], most]
        )
    y = _scale(grid_at[0], grid_at[-1], height)
    gutter, grid = _frame(grid_at, y, show)
    paths, dots = [], []
    if expected:
        top, bottom = y(expected[1]), y(expected[0])
        grid += f'<rect class="expected" x="0" width="100%" y="{number(top)}" height="{number(max(1, bottom - top))}"/>'
    for k, ln in enumerate(lines):
        if ln.low and ln.high:
            for run in runs(ln.low):
                upper, lower = _points(run, ln.high, n, y), _points(run[::-1], ln.low, n, y)
                paths.append(f'<path class="band" d="M{upper}L{lower}Z"/>')
                if len(run) == 1:  # an area of one point is nothing: draw its interval
                    x = percent_of((run[0] + 0.5) / n)
                    dots.append(
                        f'<line class="l{k}" x1="{x}" x2="{x}" y1="{number(y(ln.low[run[0]] or 0))}" y2="{number(y(ln.high[run[0]] or 0))}"/>'
                    )
        for run in runs(ln.values):
            if len(run) > 1:
                paths.append(
                    f'<path class="l{k}" d="M{_points(run, ln.values, n, y)}" vector-effect="non-scaling-stroke"/>'
                )
            if len(run) == 1 or (n <= 45 and k == 0):
                dots += [
                    f'<circle class="d{k}" cx="{percent_of((i + 0.5) / n)}" cy="{number(y(ln.values[i] or 0.0))}" r="{2.5 if k == 0 else 2}"/>'
                    for i in run
                ]
    over = ""
    if floor is not None:
        over = f'<line class="floor" x1="0" x2="100%" y1="{number(y(floor))}" y2="{number(y(floor))}"/>'
        if floor_label:
            over += f'<text class="floort" x="2" y="{number(y(floor) - 4)}">{escape(floor_label)}</text>'
    stretch = f'<svg viewBox="0 0 1000 {height}" preserveAspectRatio="none" width="100%" height="{height}">{"".join(paths)}</svg>'
    return Chart(
        gutter,
        grid
        + stretch
        + "".join(dots)
        + over
        + _x_labels(columns, height)
        + _hits(columns, height)
        + _marks(marks, height),
        height,
        label,
        legend=tuple((f"l{k}", ln.name) for k, ln in enumerate(lines)),
    )


def scatter(
    points: Sequence[tuple[str, float, float, int, str]],
    show_x: Callable[[float], str],
    show_y: Callable[[float], str],
    *,
    label: str,
    height: int = 240,
) -> Chart:
    """Points (name, x > 0 on a log axis, y, weight, class); the area of a dot grows with its weight."""
    usable = [p for p in points if p[1] > 0]
    if not usable:
        return Chart(
            "",
            f'<text class="axis" x="50%" y="{height // 2}" text-anchor="middle">nothing to compare yet</text>',
            height,
            label,
        )
    low, high = math.log10(min(p[1] for p in usable)) - 0.2, math.log10(max(p[1] for p in usable)) + 0.35
    grid_at = [v for v in ticks(min(p[2] for p in usable), max(p[2] for p in usable)) if v <= 1] or [0.0, 1.0]
    if len(grid_at) < 2:
        grid_at = [grid_at[0] - 0.1, grid_at[0]]
    y = _scale(grid_at[0], grid_at[-1], height)
    gutter, body = _frame(grid_at, y, show_y)
    for power in range(math.ceil(low), math.floor(high) + 1):
        x = percent_of((power - low) / (high - low))
        body += f'<line class="grid" x1="{x}" x2="{x}" y1="{_PAD_TOP}" y2="{height - _PAD_BOTTOM}"/>'
        anchor = "end" if (power - low) / (high - low) > 0.95 else "middle"
        body += f'<text class="axis" x="{x}" y="{height - 5}" text-anchor="{anchor}">{escape(show_x(10.0**power))}</text>'
    most = max(p[3] for p in usable) or 1
    for name, cost, quality, weight, css in usable:
        at_x = (math.log10(cost) - low) / (high - low)
        radius = 3.5 + 8 * math.sqrt(weight / most)
        anchor, dx = ("end", -radius - 4) if at_x > 0.7 else ("start", radius + 4)
        body += (
            f'<circle class="{css} pt" cx="{percent_of(at_x)}" cy="{number(y(quality))}" r="{number(radius)}"/>'
            f'<text class="axis" x="{percent_of(at_x)}" dx="{number(dx)}" y="{number(y(quality) + 4)}" text-anchor="{anchor}">{escape(name)}</text>'
        )
    return Chart(gutter, body, height, label)


def place(edges: Sequence[int], ns: int) -> float:
    """Where a moment lies on an axis of equal columns: `edges` are the columns' starts and the last one's end.

    >>> place([0, 10, 20, 40], 30)
    0.8333333333333334
    """
    n = len(edges) - 1
    for i in range(n):
        if edges[i] <= ns < edges[i + 1]:
            return (i + (ns - edges[i]) / (edges[i + 1] - edges[i])) / n
    return -1.0 if ns < edges[0] else 1.0 if ns == edges[-1] else 2.0


def rows_of(columns: Sequence[Column], cells: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    """The table twin of a chart: one row a column, unknown written as such."""
    return [
        (c.title.partition(":")[0] or c.label, *(col[i] or UNKNOWN for col in cells))
        for i, c in enumerate(columns)
    ]
