"""Charts with a named row for each thing: a funnel of steps, a forest of intervals. Same rules as `charts`.

A row is a line of words with its drawing below, so that both fit on a phone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import escape

from .charts import Chart, percent_of

_ROW = 38


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a funnel: its name, how many came so far, what is written beside it."""

    name: str
    count: int
    says: str
    is_lost: bool = False  # drawn as what went wrong


@dataclass(frozen=True, slots=True)
class Estimate:
    """One row of a forest: an estimate with its interval where there is one, and the words beside it."""

    name: str
    value: float
    low: float | None
    high: float | None
    says: str


def funnel(steps: Sequence[Step], *, label: str) -> Chart:
    """How many get how far: one bar a step, all on the scale of the largest."""
    most = max((step.count for step in steps), default=0) or 1
    body = ""
    for i, step in enumerate(steps):
        body += _words(i, step.name, step.says)
        body += f'<rect class="rail" x="0" width="100%" y="{i * _ROW + 18}" height="10" rx="2"/>'
        if step.count:
            css, width = "lost" if step.is_lost else "step", percent_of(max(step.count / most, 0.004))
            body += f'<rect class="{css}" x="0" width="{width}" y="{i * _ROW + 18}" height="10" rx="2"/>'
    return Chart("", body, _height(steps), label, gutter_width=0)


def forest(rows: Sequence[Estimate], *, label: str, margin: float | None = None) -> Chart:
    """Estimates with their intervals on one axis that holds zero, and a margin as a dashed line where there is one."""
    ends = [0.0, *(v for row in rows for v in (row.value, row.low, row.high) if v is not None)]
    ends += [] if margin is None else [margin]
    room = (max(ends) - min(ends) or 1.0) * 0.04
    low, high = min(ends) - room, max(ends) + room

    def x(value: float) -> str:
        return percent_of((value - low) / (high - low))

    body = ""
    for i, row in enumerate(rows):
        y = i * _ROW + 24
        body += _words(i, row.name, row.says)
        body += f'<line class="track" x1="0" x2="100%" y1="{y}" y2="{y}"/>'
        body += f'<line class="zero" x1="{x(0)}" x2="{x(0)}" y1="{y - 6}" y2="{y + 6}"/>'
        if margin is not None:
            body += f'<line class="floor" x1="{x(margin)}" x2="{x(margin)}" y1="{y - 6}" y2="{y + 6}"/>'
        if row.low is not None and row.high is not None:
            body += f'<line class="span" x1="{x(row.low)}" x2="{x(row.high)}" y1="{y}" y2="{y}"/>'
        body += f'<circle class="mid" cx="{x(row.value)}" cy="{y}" r="3.5"/>'
    return Chart("", body, _height(rows), label, gutter_width=0)


def _words(i: int, name: str, says: str) -> str:
    y = i * _ROW + 12
    return (
        f'<text class="axis" x="0" y="{y}">{escape(name)}</text>'
        f'<text class="value" x="100%" y="{y}" text-anchor="end">{escape(says)}</text>'
    )


def _height(rows: Sequence[object]) -> int:
    return max(1, len(rows)) * _ROW
