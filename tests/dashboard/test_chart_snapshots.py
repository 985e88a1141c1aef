"""Every chart function draws, to the letter, what was looked at when its snapshot was taken.

After a change that was looked at: `TIERLIGHT_WRITE_SNAPSHOTS=1 pytest tests/dashboard/test_chart_snapshots.py`.
"""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tierlight_dashboard.views import charts, fmt, glyphs, rowcharts

KEPT = Path(__file__).parent / "snapshots"
COLUMNS = [charts.Column(f"{d} Nov", f"{d} Nov: seen") for d in range(1, 6)]
MARKS = [
    charts.Mark(0.3, "prompt v2", href="/x", when="2 Nov 09:00", around="/calls?a=1&b=2"),
    charts.Mark(0.7, "latency ↑", "alert", "/y", "4 Nov 04:00"),
    charts.Mark(0.702, "errors ↑", "alert", "/z", "4 Nov 04:00"),
]
LAYERS = [
    charts.Layer("small", "t-small", [1, 2, 0, None, 1]),
    charts.Layer("mid", "t-mid", [3, 2, 0.004, None, 1]),
]
QUALITY = charts.Line("mean", [0.9, 0.91, None, 0.86, 0.93], [0.8, 0.85, None, 0.8, 0.9], [0.95, 0.96, None, 0.9, 0.97])  # fmt: skip
STEPS = [
    rowcharts.Step("first tries", 12_360, "12,360 calls, $3.10"),
    rowcharts.Step("accepted", 10_012, "81%"),
    rowcharts.Step("escalated", 2348, "19%, $40", is_lost=True),
    rowcharts.Step("failed", 0, "none"),
]
EFFECTS = [
    rowcharts.Estimate("price", -0.4, None, None, "−$0.40"),
    rowcharts.Estimate("tokens", 1.2, 0.8, 1.6, "+$1.20"),
]

DRAWN = {
    "stacked": charts.stacked(COLUMNS, LAYERS, fmt.count, label="Spend", marks=MARKS),
    "stacked-share": charts.stacked(COLUMNS, LAYERS, fmt.percent, label="Share", share=True, height=120),
    "stacked-empty": charts.stacked(COLUMNS, [charts.Layer("small", "t-small", [None] * 5)], fmt.count, label="Nothing"),
    "line": charts.line(COLUMNS, [QUALITY, charts.Line("p50", [0.5, 0.5, 0.6, None, 0.5])], fmt.percent, label="Quality", floor=0.88,
                        floor_label="floor 88%", expected=(0.85, 0.95), marks=MARKS, from_zero=False, most=1.0),
    "line-empty": charts.line(COLUMNS, [charts.Line("v", [None] * 5)], fmt.percent, label="Nothing"),
    "scatter": charts.scatter([("a", 0.5, 0.8, 100, "t-small"), ("b", 40, 0.95, 900, "t-flagship")], fmt.count, fmt.percent, label="Models"),
    "funnel": rowcharts.funnel(STEPS, label="Cascade"),
    "forest": rowcharts.forest(EFFECTS, label="Change", margin=-0.2),
}  # fmt: skip
GLYPHS = {
    "spark": glyphs.spark([1, 3, None, 2, 4], 0.5),
    "interval": glyphs.interval(0.8, 0.86, 0.92, (0.5, 1.0), floor=0.88, zero=0.6),
    "share-bar": glyphs.share_bar([("t-small", 0.6), ("t-mid", 0.4)]),
    "span-bar": glyphs.span_bar(0.2, 0.5, "k-attempt"),
    "meter": glyphs.meter(0.4),
}


@pytest.mark.parametrize("name", [*DRAWN, *GLYPHS])
def test_it_is_drawn_as_it_was_looked_at(name: str) -> None:
    drawn = str(DRAWN[name].__html__()) if name in DRAWN else str(GLYPHS[name])
    kept = KEPT / f"{name}.html"
    if os.environ.get("TIERLIGHT_WRITE_SNAPSHOTS"):
        KEPT.mkdir(exist_ok=True)
        kept.write_text(drawn.replace("><", ">\n<") + "\n", encoding="utf-8")
    assert drawn.replace("><", ">\n<") + "\n" == kept.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", DRAWN)
def test_as_a_file_it_is_whole_and_leads_nowhere(name: str) -> None:
    text = DRAWN[name].standalone("Title")
    ET.fromstring(text)
    assert "href" not in text
    assert "class=" not in text
    assert "style=" not in text


def test_marks_of_one_moment_share_a_line_and_say_both() -> None:
    plot = DRAWN["line"].plot
    assert plot.count('class="mark-alert"') == 1
    assert "latency ↑, errors ↑" in plot
