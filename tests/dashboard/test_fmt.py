"""Numbers as people read them: nothing unknown becomes 0, nothing known becomes NaN."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierlight_dashboard.views import fmt

finite = st.floats(min_value=-1e15, max_value=1e15).filter(lambda x: x == 0 or abs(x) > 1e-3)
FORMATTERS = (fmt.exact, fmt.count, fmt.money, fmt.percent, fmt.points, fmt.duration, fmt.size)


@pytest.mark.parametrize("form", FORMATTERS)
@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_unknown_is_a_dash(form: object, value: float | None) -> None:
    assert callable(form)
    assert form(value) == "–"


@given(finite)
def test_every_number_is_short_and_free_of_exponents(x: float) -> None:
    for form in (fmt.count, fmt.money, fmt.percent, fmt.points, fmt.duration):
        text = form(x)
        assert "e" not in text.lower().replace("day", "") or "s" in text, text
        assert "nan" not in text.lower()
        assert "-" not in text, f"true minus signs only: {text}"
        assert len(text) < 40


@given(st.integers(min_value=1, max_value=10**18))
def test_money_is_off_by_half_a_cent_or_a_twentieth_at_most(nusd: int) -> None:
    text = fmt.money(nusd)
    shown = float(re.sub(r"[^0-9.]", "", text))
    assert shown > 0, "something is never shown as nothing"
    assert abs(shown - nusd / 1e9) <= max(0.051 * nusd / 1e9, 0.0051 if nusd >= 9_950_000 else 0)


@given(st.floats(min_value=0, max_value=1))
def test_nothing_and_almost_nothing_differ(share: float) -> None:
    text = fmt.percent(share)
    assert (text == "0%") == (share == 0)
    assert (text == "100%") == (share == 1)


@given(st.integers(min_value=0, max_value=10**13))
def test_a_count_grows_with_its_number(n: int) -> None:
    units = {"k": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
    text = fmt.count(n).replace(",", "")
    shown = float(text.rstrip("kMBT")) * units.get(text[-1], 1)
    assert abs(shown - n) <= 0.051 * n


@given(st.text())
def test_no_control_or_direction_character_reaches_the_screen(text: str) -> None:
    for shown in (fmt.visible(text), fmt.readable(text)):
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", shown)
    assert len(fmt.visible(text, 10)) <= 10 * 6 + 1


@pytest.mark.parametrize(
    ("zone", "day", "text"),
    [
        ("Europe/Berlin", datetime(2026, 10, 25, 0, 30, tzinfo=UTC), "25 Oct 02:30"),
        ("Europe/Berlin", datetime(2026, 10, 25, 1, 30, tzinfo=UTC), "25 Oct 02:30"),
        ("America/Los_Angeles", datetime(2026, 3, 8, 10, 0, tzinfo=UTC), "8 Mar 03:00"),
        ("Asia/Kolkata", datetime(2026, 11, 17, 20, 0, tzinfo=UTC), "18 Nov 01:30"),
    ],
)
def test_times_are_told_in_the_zone_asked_for(zone: str, day: datetime, text: str) -> None:
    assert fmt.moment(int(day.timestamp()) * fmt.NANO, ZoneInfo(zone)) == text


def test_another_currency_is_only_shown() -> None:
    euro = fmt.Currency("€", 0.9, "EUR")
    assert fmt.money(1_000_000_000_000, euro) == "€900"
