"""Quality against cost of a replayed pair as one SVG picture, without anything to run or fetch."""

from __future__ import annotations

from html import escape
from typing import Final

import numpy as np

from tierlight_dashboard.analysis.replay import LEARNED, Curve, PairReplay

_WIDTH, _HEIGHT = 720, 440
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 210, 40, 50
_COLOURS: Final = {
    LEARNED: "#0b6e4f", "task prior": "#3366cc", "prompt length": "#b8860b", "complexity heuristic": "#8b5a9f", "oracle": "#999999",
}  # fmt: skip
_POINTS: Final = 200


def picture(pair: PairReplay) -> str:
    """The curves of the main routers, the line that random mixing gives, and the two plain choices."""
    curves = {name: curve for name, curve in pair.curves.items() if name in _COLOURS}
    is_priced = all(np.isfinite(curve.cost).all() for curve in curves.values())
    low_x, high_x = (
        (min(float(c.cost.min()) for c in curves.values()), max(float(c.cost.max()) for c in curves.values()))
        if is_priced
        else (0.0, 1.0)
    )
    low_y = min(float(curve.quality.min()) for curve in curves.values())
    high_y = max(float(curve.quality.max()) for curve in curves.values())

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - low_x) / ((high_x - low_x) or 1) * (_WIDTH - _LEFT - _RIGHT)
        up = (y - low_y) / ((high_y - low_y) or 1) * (_HEIGHT - _TOP - _BOTTOM)
        return _LEFT + across, _HEIGHT - _BOTTOM - up

    def line(curve: Curve, colour: str, width: float) -> str:
        picked = np.unique(np.linspace(0, len(curve.quality) - 1, _POINTS).round().astype(int))
        xs = curve.cost if is_priced else np.linspace(0, 1, len(curve.quality))
        points = " ".join(
            "{:.1f},{:.1f}".format(*place(float(xs[n]), float(curve.quality[n]))) for n in picked
        )
        return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="{width}"/>'

    any_curve = next(iter(curves.values()))
    ends_x = (float(any_curve.cost[0]), float(any_curve.cost[-1])) if is_priced else (0.0, 1.0)
    start, end = place(ends_x[0], pair.weak_quality), place(ends_x[1], pair.strong_quality)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" font-family="system-ui, sans-serif" font-size="12">',
        f"<title>{escape(pair.name)}: quality against cost, {pair.n} prompts</title>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
        f'<text x="{_LEFT}" y="22" font-size="14">{escape(f"{pair.name}: {pair.weak} to {pair.strong}, n {pair.n}")}</text>',
        f'<path d="M{_LEFT},{_TOP}V{_HEIGHT - _BOTTOM}H{_WIDTH - _RIGHT}" fill="none" stroke="#444444"/>',
        f'<text x="{_LEFT - 6}" y="{place(low_x, low_y)[1]:.0f}" text-anchor="end">{low_y:.3f}</text>',
        f'<text x="{_LEFT - 6}" y="{place(low_x, high_y)[1] + 4:.0f}" text-anchor="end">{high_y:.3f}</text>',
        f'<text x="{_LEFT}" y="{_HEIGHT - 28}">{low_x:.3g}</text>',
        f'<text x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 28}" text-anchor="end">{high_x:.3g}</text>',
        f'<text x="{_LEFT}" y="{_HEIGHT - 10}">{"mean cost per prompt, USD" if is_priced else "share sent to the strong model"}; upwards: mean quality</text>',
        f'<line x1="{start[0]:.1f}" y1="{start[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}" stroke="#888888" stroke-dasharray="5 4"/>',
    ]
    labels = [("random mix", "#888888")]
    for name, curve in curves.items():
        parts.append(line(curve, _COLOURS[name], 2.5 if name == LEARNED else 1.3))
        apgr = "" if curve.apgr is None else f", APGR {curve.apgr:.3f}"
        labels.append((f"{name}{apgr}", _COLOURS[name]))
    for n, (label, colour) in enumerate(labels):
        y = _TOP + 12 + 20 * n
        x = _WIDTH - _RIGHT + 12
        parts.append(
            f'<rect x="{x}" y="{y - 9}" width="10" height="10" fill="{colour}"/><text x="{x + 16}" y="{y}">{escape(label)}</text>'
        )
    return "\n".join([*parts, "</svg>", ""])
