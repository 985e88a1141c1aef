"""Figures that the method's description prints, to the printed digits."""

from __future__ import annotations

import numpy as np
import pytest

from tierlight_dashboard.analysis import drift, windows


def run(xs: list[float], m: float, *, error_like: bool = False, w: float = 1.0) -> list[drift.Lane]:
    lane, lanes = drift.Lane(), []
    for at, x in enumerate(xs):
        lane = drift.step(lane, x, m, drift.bets(m, error_like=error_like), at, w)
        lanes.append(lane)
    return lanes


def evidence(xs: list[float], m: float, *, error_like: bool = False, w: float = 1.0) -> list[float]:
    return [round(lane.evidence, 6) for lane in run(xs, m, error_like=error_like, w=w)]


@pytest.mark.parametrize(
    ("k", "n", "bound"),
    [
        (840, 1000, 0.8196915),
        (168, 200, 0.7911148),
        (998, 1000, 0.9937177),
        (1000, 1000, 0.9970088),
        (21, 100, 0.1452448),
        (0, 200, 0.0),
    ],
)
def test_clopper_pearson_lower_bound(k: int, n: int, bound: float) -> None:
    assert round(windows.clopper_pearson_lower(k, n), 7) == bound


def test_betting_lower_bound_of_scores() -> None:
    assert round(windows.betting_lower(np.array([0.9, 0.5, 1, 0.8, 0.3] * 100)), 7) == 0.6705455


@pytest.mark.parametrize(
    ("m", "xs", "w", "R"),
    [
        (0.84, [1, 0, 0, 1, 0], 1.0, [0.650433, 4.210295, 16.973895, 7.739309, 25.199747]),
        (0.84, [0.9, 0.5, 0.2, 1, 0], 1.0, [0.868912, 3.186000, 11.163262, 5.516423, 17.923513]),
        (0.84, [1, 0, 0, 1, 0], 0.5, [0.825216, 3.382796, 9.236705, 7.549403, 18.528167]),
        (0.21, [1, 0, 0, 0, 0], 1.0, [0.394372, 1.597584, 2.999728, 4.640198, 6.566783]),
    ],
    ids=["outcomes", "scores", "sampled", "low null"],
)
def test_evidence_after_each_call(m: float, xs: list[float], w: float, R: list[float]) -> None:
    assert evidence(xs, m, w=w) == R


def test_alternatives_of_a_low_null_fall_back_by_index() -> None:
    assert drift.alternatives(0.21) == pytest.approx(
        (0.19, 0.17, 0.14, 0.11, 0.06, 0.01, 0.0819, 0.06405, 0.0462, 0.02835, 0.0105), abs=1e-12
    )


def test_error_like_signals_use_the_burn_grid() -> None:
    assert evidence([1, 0, 1, 0], 0.998, error_like=True) == [0.939789, 55.880898, 46.086647, 4024.867930]


def test_cusum_beside_the_evidence() -> None:
    lanes = run([1, 0, 0, 1, 0], 0.84)
    means = [round(drift.mean_in_order(lane.C), 6) for lane in lanes]
    assert means == [0.650433, 2.835227, 10.501065, 3.637602, 11.834929]


def test_segments_share_one_evidence() -> None:
    null = {"a": 0.90, "b": 0.60}
    lane, R = drift.Lane(), []
    for at, (segment, x) in enumerate([("a", 1), ("b", 0), ("a", 0), ("b", 1), ("a", 0)]):
        m = null[segment]
        lane = drift.step(lane, x, m, drift.bets(m), at)
        R.append(round(lane.evidence, 6))
    assert pytest.approx([0.673737, 2.631174, 14.968857, 5.719762, 23.904945], abs=1.01e-6) == R


def test_seven_failures_in_a_row_pass_ten_thousand() -> None:
    R = evidence([0] * 7, 0.84)
    assert R[5] < 1e4 <= R[6]


def test_quantile_form() -> None:
    null = windows.tail_null(np.arange(1.0, 501.0))
    assert null.t == (251.0, 376.0, 451.0)
    assert null.k == (251, 376, 451)
    assert tuple(round(m, 7) for m in null.m) == (0.4642838, 0.7181677, 0.8773207)
    lanes = [drift.Lane() for _ in null.m]
    R = []
    for at, y in enumerate([600.0, 100.0, 600.0, 600.0, 300.0]):
        lanes = [
            drift.step(lane, x, m, drift.bets(m), at)
            for lane, x, m in zip(lanes, null.x(y), null.m, strict=True)
        ]
        R.append(round(sum(lane.evidence for lane in lanes) / 3, 6))
    assert R == [2.273032, 1.681468, 6.054453, 21.898700, 12.223868]


@pytest.mark.parametrize(
    ("m", "p1", "calls"),
    [
        (0.84, 0.51, 31.3),
        (0.84, 0.352, 15.3),
        (0.976, 0.234, 4.0),
        (0.21, 0.05, 89.0),
        (0.90, 0.85, 752.8),
        (0.95, 0.92, 1140),
        (0.866, 0.821, 1148.6),
        (0.98, 0.97, 4157.9),
    ],
)
def test_calls_a_drop_takes(m: float, p1: float, calls: float) -> None:
    assert drift.calls_to_see(p1, m) == pytest.approx(calls, abs=0.5 if calls == 1140 else 0.051)


def test_recovery_needs_its_own_evidence() -> None:
    m = 1 - (0.51 + 0.84) / 2  # on 1 - x, between the level of the incident and that of before
    assert evidence([1 - x for x in (1, 1, 0, 1, 1)], m) == [1.262525, 2.879166, 1.599540, 3.139877, 5.108827]
    R = evidence([0.0] * 19, m)
    assert R[17] < drift.RESOLVED_AT <= R[18]


def test_many_lanes_give_the_bits_of_one() -> None:
    xs = np.random.default_rng(7).random((40, 5)).round(2)
    nulls = np.array([0.84, 0.21, 0.998, 0.5, 0.6])
    lam = np.array([drift.bets(m, error_like=True) for m in nulls]).T
    lanes, plain = drift.new_lanes(5), [drift.Lane() for _ in nulls]
    for at, x in enumerate(xs):
        lanes = drift.advance(lanes, x, nulls, lam, np.full(5, float(at)), np.array([1, 1, 0.25, 1, 0.5]))
        for i, m in enumerate(nulls):
            plain[i] = drift.step(
                plain[i], x[i], m, drift.bets(m, error_like=True), at, (1, 1, 0.25, 1, 0.5)[i]
            )
    for i, lane in enumerate(plain):
        assert tuple(lanes[0, :, i]) == lane.R
        assert tuple(lanes[1, :, i]) == lane.C
        assert tuple(lanes[2, :, i]) == lane.start
        assert drift.lane_evidence(lanes)[i] == lane.evidence


def test_evidence_is_capped_and_never_overflows() -> None:
    lane = run([0.0] * 400, 0.84)[-1]
    assert lane.evidence <= drift.CAP


def test_effect_interval_narrows_around_the_mean_and_is_whole_without_calls() -> None:
    assert drift.mean_interval(0, 0) == (0.0, 1.0)
    low, high = drift.mean_interval(100, 51)
    assert 0.3 < low < 0.51 < high < 0.72
    wider = drift.mean_interval(20, 10.2)
    assert wider[0] < low
    assert wider[1] > high


def test_severity_follows_the_near_end_of_the_effect() -> None:
    assert drift.severity(0.12, 0.10, 0.0) == "page"
    assert drift.severity(0.04, 0.10, 0.0) == "ticket"
    assert drift.severity(-0.01, 0.10, 0.0) == "info"
    assert drift.severity(0.5, None, None) == "info"


def test_can_see_says_when_a_drop_is_out_of_reach() -> None:
    assert drift.can_see(0.51, 0.84, 1e4, 1000) == "a drop to 51 % takes about 31 calls, 0.8 hours"
    assert "not visible" in drift.can_see(0.97, 0.98, 1e4, 100)


def test_guard_sees_waves_and_passes_independent_calls() -> None:
    random = np.random.default_rng(3)
    steady = (random.random(5000) < 0.84).astype(float)
    level = np.repeat(np.where(np.arange(20) % 2 == 0, 0.95, 0.75), 250)
    waves = (random.random(5000) < level).astype(float)
    assert windows.excess_deviation(steady) < 0.015
    assert windows.excess_deviation(waves) == pytest.approx(0.1, abs=0.02)
    assert windows.excess_deviation(waves[:1900]) == 0.0


def test_threshold_of_one_in_forty_page_tests() -> None:
    assert drift.alarm_threshold(40, 1, 10_000, 2) == 2e5
    assert drift.alarm_threshold(1, 1, 100, 2) == 1000
