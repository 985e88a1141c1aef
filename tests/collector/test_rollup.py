"""The bins of latencies: one answer, by whichever of the two ways."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from tierlight_collector.rollup import GROWTH, bin_of_ms, bin_of_ns


@given(st.integers(-10, 10**14))
@example(0)
@example(1_000_000)
@example(1_000_001)
@example(2**63 - 1)
def test_nanoseconds_fall_into_the_bin_of_their_milliseconds(ns: int) -> None:
    assert bin_of_ns(ns) == bin_of_ms(ns / 1e6)


def test_both_ways_agree_at_every_border() -> None:
    for number in range(420):
        border = round(GROWTH**number * 1e6)
        for ns in range(border - 40, border + 40):
            assert bin_of_ns(ns) == bin_of_ms(ns / 1e6)
