"""Word-sized drawings for tables and lists: each stands beside its exact number and is hidden from screen readers."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from .charts import number as _n
from .charts import percent_of as _percent
from .charts import runs as _runs


def spark(values: Sequence[float | None], mark: float | None = None) -> Markup:
    """A word-sized line of its own scale from 0, decoration beside the exact number; "" under two known values."""
    if sum(v is not None for v in values) < 2:
        return Markup("")
    width, height, n = 88.0, 22.0, len(values)
    top = max((v for v in values if v is not None), default=0) or 1
    place = [
        (i / (n - 1) * (width - 4) + 2, height - 2 - (v or 0) / top * (height - 5))
        for i, v in enumerate(values)
    ]
    paths = []
    for run in _runs(values):
        points = "L".join(f"{_n(place[i][0])} {_n(place[i][1])}" for i in run)
        if len(run) > 1:
            paths.append(
                f'<path class="area" d="M{_n(place[run[0]][0])} {height}L{points}L{_n(place[run[-1]][0])} {height}Z"/>'
            )
            paths.append(f'<path class="l0" d="M{points}"/>')
    if mark is not None and 0 <= mark <= 1:
        x = _n(2 + mark * (width - 4))
        paths.append(f'<line class="mark-alert" x1="{x}" x2="{x}" y1="0" y2="22"/>')
    last = _runs(values)[-1][-1]
    paths.append(f'<circle class="d0" cx="{_n(place[last][0])}" cy="{_n(place[last][1])}" r="1.8"/>')
    return Markup(f'<svg class="spark" width="88" height="22" aria-hidden="true">{"".join(paths)}</svg>')


def interval(
    low: float | None,
    middle: float | None,
    high: float | None,
    axis: tuple[float, float],
    *,
    floor: float | None = None,
    zero: float | None = None,
    width: int = 88,
) -> Markup:
    """An estimate with its interval on a common axis, with the floor (or margin) as a tick. Decoration: the numbers stand beside it."""
    start, end = axis
    if middle is None or low is None or high is None or end <= start:
        return Markup("")

    def x(v: float) -> float:
        return 3 + (width - 6) * (min(max(v, start), end) - start) / (end - start)

    parts = [f'<line class="track" x1="3" x2="{width - 3}" y1="8" y2="8"/>']
    if zero is not None and start <= zero <= end:
        parts.append(f'<line class="zero" x1="{_n(x(zero))}" x2="{_n(x(zero))}" y1="2" y2="14"/>')
    parts.append(f'<line class="span" x1="{_n(x(low))}" x2="{_n(max(x(high), x(low) + 1))}" y1="8" y2="8"/>')
    parts.append(f'<circle class="mid" cx="{_n(x(middle))}" cy="8" r="3"/>')
    if floor is not None and start <= floor <= end:
        parts.append(f'<line class="tick" x1="{_n(x(floor))}" x2="{_n(x(floor))}" y1="1" y2="15"/>')
    return Markup(
        f'<svg class="interval" width="{width}" height="16" aria-hidden="true">{"".join(parts)}</svg>'
    )


def share_bar(parts: Sequence[tuple[str, float]]) -> Markup:
    """One horizontal bar of 100 %; `parts` are (class, share)."""
    out, x = [], 0.0
    for css, share in parts:
        if share > 0:
            out.append(f'<rect class="{css}" x="{_percent(x)}" width="{_percent(share)}" y="0" height="8"/>')
            if x > 0:
                out.append(f'<line class="gap" x1="{_percent(x)}" x2="{_percent(x)}" y1="0" y2="8"/>')
            x += share
    return Markup(f'<svg class="sharebar" width="100%" height="8" aria-hidden="true">{"".join(out)}</svg>')


def span_bar(start: float, length: float, css: str) -> Markup:
    """One span of a waterfall: `start` and `length` as parts of the whole trace. Never invisible."""
    start = min(max(start, 0.0), 0.997)
    length = min(max(length, 0.003), 1 - start)
    return Markup(
        '<svg class="spanbar" width="100%" height="14" aria-hidden="true"><line class="track" x1="0" x2="100%" y1="7" y2="7"/>'
        f'<rect class="{css}" x="{_percent(start)}" width="{_percent(length)}" y="2" height="10" rx="2"/></svg>'
    )


def meter(share: float, css: str = "d0") -> Markup:
    """How far something has come, 0 to 1; decoration beside the number."""
    return Markup(
        '<svg class="meter" width="96" height="8" aria-hidden="true"><rect class="trackfill" width="96" height="8" rx="4"/>'
        f'<rect class="{css}" width="{_n(96 * min(max(share, 0.0), 1.0))}" height="8" rx="4"/></svg>'
    )
