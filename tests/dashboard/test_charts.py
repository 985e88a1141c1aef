"""Charts as text: gaps stay gaps, names are escaped, a file of its own needs no stylesheet."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from tierlight_dashboard.views import charts, fmt, glyphs

COLUMNS = [charts.Column(f"{d} Nov", f"{d} Nov: x") for d in range(1, 6)]


def drawn(values: list[float | None]) -> str:
    line = charts.Line("v", values)
    return charts.line(
        COLUMNS, [line], fmt.percent, label="Quality", floor=0.88, from_zero=False, most=1.0
    ).plot


def test_an_unknown_value_is_a_gap_and_not_zero() -> None:
    plot = drawn([0.9, 0.91, None, 0.92, 0.93])
    assert len(re.findall(r'class="l0"', plot)) == 2, "two stretches"
    assert plot.count("<circle") == 4


def test_nothing_known_says_so() -> None:
    assert "no data in this range" in drawn([None] * 5)


def test_a_stack_adds_up_and_shares_fill_the_column() -> None:
    layers = [
        charts.Layer("small", "t-small", [1, 2, 0, None, 1]),
        charts.Layer("mid", "t-mid", [3, 2, 0, None, 1]),
    ]
    plot = charts.stacked(COLUMNS, layers, fmt.percent, label="x", share=True, height=180).plot
    heights = [float(h) for h in re.findall(r'class="t-\w+"[^>]*height="([\d.]+)"', plot)]
    assert len(heights) == 6
    assert heights[0] + heights[1] == pytest.approx(144, abs=1.5)


def test_names_cannot_leave_their_place() -> None:
    evil = '"><script>alert(1)</script>'
    chart = charts.stacked(
        [charts.Column(evil, evil)],
        [charts.Layer(evil, "t-mid", [1])],
        fmt.count,
        label=evil,
        marks=[charts.Mark(0.5, evil)],
    )
    for text in (str(chart.__html__()), chart.standalone(evil)):
        assert "<script" not in text
    ET.fromstring(chart.standalone(evil))


def test_a_chart_of_its_own_has_colours_and_no_classes() -> None:
    text = charts.line(
        COLUMNS, [charts.Line("v", [1, 2, 3, 4, 5], [0, 1, 2, 3, 4], [2, 3, 4, 5, 6])], fmt.count, label="x"
    ).standalone("Title")
    assert "class=" not in text
    assert 'stroke="#2f52cc"' in text


@pytest.mark.parametrize(("low", "high"), [(0, 0.87), (0, 930), (0.4, 1.0), (5, 5), (0, 1e-9), (-3, 7)])
def test_ticks_are_few_and_enclose_the_values(low: float, high: float) -> None:
    ticks = charts.ticks(low, high)
    assert ticks[0] <= low + 1e-12
    assert ticks[-1] >= high - 1e-12
    assert 2 <= len(ticks) <= 6


def test_a_moment_lies_where_its_column_says() -> None:
    edges = [0, 10, 20, 40]
    assert [charts.place(edges, t) for t in (0, 5, 20, 40)] == pytest.approx([0, 1 / 6, 2 / 3, 1])
    assert charts.place(edges, -1) < 0
    assert charts.place(edges, 41) > 1


def test_one_point_is_no_line() -> None:
    assert glyphs.spark([None, 3.0]) == ""
    assert glyphs.interval(None, 0.5, 1.0, (0, 1)) == ""
