"""A page's state survives its URL; what cannot be used is dropped and said."""

from __future__ import annotations

from datetime import date, timedelta
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.seed import NOW_NS
from tierlight_collector.records import HOUR_NS
from tierlight_dashboard.views import urlstate
from tierlight_dashboard.views.buckets import buckets
from tierlight_dashboard.views.urlstate import State, parse, route_path

words = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=20).filter(str.strip)
pairs = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["range", "sort", "dir", "view", "tab", "page", "compare", "spend"]), st.sampled_from(["24h", "7d", "cost", "asc", "errors", "raw", "3", "prev", "share", "x"])),
        st.tuples(st.sampled_from(["route", "model", "q", "env", "tier", "cursor", "tz", "from", "to"]), words),
        st.tuples(words, words),
    ),
    max_size=8,
)  # fmt: skip


def reread(link: str) -> State:
    return parse(parse_qsl(urlsplit(link).query), now_ns=NOW_NS)


@given(pairs)
def test_state_survives_its_own_link(given_pairs: list[tuple[str, str]]) -> None:
    state = parse(given_pairs, now_ns=NOW_NS)
    again = reread(state.here("/x", page=state.values.get("page"), cursor=state.values.get("cursor")))
    assert again.query() == state.query()
    assert again.window == state.window
    assert not again.notes, "a link of ours holds nothing that has to be dropped"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("range", "10^12d"), ("sort", "cost;drop table calls"), ("page", "-1"), ("page", "1e9"), ("tz", "Mars/Base"), ("tz", "../../etc/passwd"),
        ("tier", "__class__"), ("nonsense", "1"), ("q", "x" * 600), ("from", "yesterday"),
    ],
)  # fmt: skip
def test_a_bad_value_is_dropped_and_named(name: str, value: str) -> None:
    state = parse([(name, value)], now_ns=NOW_NS)
    assert state.notes
    assert name not in state.values
    assert name not in state.filters or not state.filters[name]


def test_a_range_is_cut_to_what_can_be_answered() -> None:
    state = parse([("from", "1990-01-01"), ("to", "2026-11-24")], now_ns=NOW_NS)
    assert state.days <= urlstate.LONGEST_RANGE_DAYS
    assert state.notes


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/Los_Angeles", "Asia/Kolkata", "UTC"])
@pytest.mark.parametrize("day", ["2026-03-29", "2026-10-25", "2026-03-08", "2026-11-01"])
def test_days_of_23_and_25_hours_stay_days(zone: str, day: str) -> None:
    end = date.fromisoformat(day) + timedelta(days=4)
    state = parse([("from", f"{day}T00:00"), ("to", f"{end}T00:00"), ("tz", zone)], now_ns=NOW_NS)
    found = buckets(state)
    assert found.step == "day"
    assert len(found.starts) == 4
    lengths = {(b - a) // HOUR_NS for a, b in zip(found.edges, found.edges[1:], strict=False)}
    assert lengths <= {23, 24, 25}
    assert found.edges[0] <= state.window.start_ns < found.edges[1]


def test_any_text_can_be_a_route_in_a_path() -> None:
    assert route_path("a/b?c#d%2e é") == "/routes/a%2Fb%3Fc%23d%252e%20%C3%A9"
