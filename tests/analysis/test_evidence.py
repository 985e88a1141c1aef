"""Known answers of the anytime-valid tests, and their error rates."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierlight_dashboard.analysis.evidence import (
    BETS,
    ArmMeans,
    PairEvidence,
    asymptotic_radius,
    pairs_for_ties,
    sample_ratio_p,
)
from tierlight_dashboard.analysis.savings import CascadeEconomics, saving_per_call, time_to_decision

TEN = [0, 0, 1, 0, -1, 0, 0, 0, 1, 0]


def test_evidence_of_ten_pairs() -> None:
    assert PairEvidence(1.0).add(TEN).ship(0.05) == pytest.approx(1.1470085, abs=5e-8)


def test_evidence_of_a_hundred_pairs() -> None:
    pairs = PairEvidence(1.0).add(TEN * 10)
    assert pairs.ship(0.05) == pytest.approx(12.5131370, abs=5e-8)
    assert pairs.harm(0.05) == pytest.approx(0.1823022, abs=5e-8)
    assert pairs.lower() == pytest.approx(-0.0608318, abs=5e-8)


def test_only_ties_ship_after_exactly_a_hundred_pairs() -> None:
    assert PairEvidence(1.0).add([0] * 99).ship(0.05) < 20 <= PairEvidence(1.0).add([0] * 100).ship(0.05)
    assert PairEvidence(1.0).add([0] * 100).lower() == pytest.approx(-0.0495366, abs=5e-8)


@pytest.mark.parametrize(
    ("margin", "pairs"), [(0.10, 48), (0.05, 100), (0.03, 168), (0.02, 253), (0.01, 508)]
)
def test_pairs_needed_when_all_tie(margin: float, pairs: int) -> None:
    assert pairs_for_ties(margin) == pairs


differences = st.lists(st.floats(-1, 1, allow_nan=False), max_size=30)


@given(differences, differences, differences)
def test_histograms_merge_in_any_grouping(a: list[float], b: list[float], c: list[float]) -> None:
    one, two, three = (PairEvidence(1.0).add(part) for part in (a, b, c))
    assert (
        ((one + two) + three).cells
        == (one + (two + three)).cells
        == PairEvidence(1.0).add([*c, *b, *a]).cells
    )


@given(st.lists(st.floats(-1, 1, allow_nan=False), min_size=1, max_size=50))
def test_cells_never_exaggerate(values: list[float]) -> None:
    """A value inside a cell is read at the edge that argues against the claim."""
    m = (1 - 0.05) / 2
    z = (np.array(values) + 1) / 2
    exact = np.mean([np.prod(1 + bet / m * (z - m)) for bet in BETS])
    assert PairEvidence(1.0).add(values).ship(0.05) <= exact * (1 + 1e-9)


def test_json_form_is_lossless() -> None:
    pairs = PairEvidence(2.0).add([0.3, -1.7, 0.0])
    assert PairEvidence.from_json(pairs.to_json()) == pairs


def test_a_difference_out_of_bounds_is_refused() -> None:
    with pytest.raises(ValueError, match="within"):
        PairEvidence(1.0).add([1.5])
    with pytest.raises(ValueError, match="within"):
        PairEvidence(1.0).add([float("nan")])


@given(st.floats(0.05, 0.95), st.lists(st.tuples(st.booleans(), st.floats(0, 1)), max_size=20))
def test_aipw_difference_stays_within_its_bound(propensity: float, calls: list[tuple[bool, float]]) -> None:
    means = ArmMeans()
    for is_candidate, outcome in calls:
        difference = means.difference(is_candidate, outcome, propensity)
        assert abs(difference) <= 1 / min(propensity, 1 - propensity) + 1e-9
        means = means.add(is_candidate, outcome)


@pytest.mark.parametrize("propensity", [0.0, 1.0])
def test_a_propensity_of_zero_or_one_is_refused(propensity: float) -> None:
    with pytest.raises(ValueError, match="propensity"):
        ArmMeans().difference(True, 1.0, propensity)


@pytest.mark.parametrize(("n", "radius"), [(100, 0.315242), (500, 0.124285), (1000, 0.088586)])
def test_one_sided_asymptotic_radius(n: int, radius: float) -> None:
    assert asymptotic_radius(1.0, n, 500) == pytest.approx(radius, abs=5e-7)


@pytest.mark.parametrize(("n", "radius"), [(100, 0.669439), (1000, 0.106375)])
def test_two_sided_asymptotic_radius(n: int, radius: float) -> None:
    assert asymptotic_radius(1.0, n, 5000, two_sided=True) == pytest.approx(radius, abs=5e-7)


@pytest.mark.parametrize(("candidate", "control", "p"), [(1050, 950, 0.0253), (5150, 4850, 0.0027)])
def test_sample_ratio(candidate: int, control: int, p: float) -> None:
    assert sample_ratio_p(candidate, control, 0.5) == pytest.approx(p, abs=5e-5)


def ever_ships(rng: np.random.Generator, gain: float, loss: float, pairs: int, margin: float) -> int | None:
    """First pair count at which K passes 20, looking after every pair; None when it never does."""
    draws = rng.choice([1.0, -1.0, 0.0], size=pairs, p=[gain, loss, 1 - gain - loss])
    m = (1 - margin) / 2
    z = (draws + 1) / 2
    paths = np.cumsum(np.log1p(np.outer(z - m, BETS / m)), axis=0)
    k = np.exp(np.minimum(paths, 700)).mean(axis=1)
    passed = np.flatnonzero(k >= 20)
    return int(passed[0]) + 1 if passed.size else None


def test_false_ships_at_the_boundary_stay_below_alpha() -> None:
    """Exactly 5 points worse, a look after every pair up to 3,000: at most 5 % of 400 runs ship."""
    rng = np.random.default_rng(7)
    shipped = sum(ever_ships(rng, 0.10, 0.15, 3000, 0.05) is not None for _ in range(400))
    assert shipped / 400 <= 0.05


def test_equal_quality_is_found_within_three_hundred_pairs() -> None:
    rng = np.random.default_rng(11)
    needed = [ever_ships(rng, 0.036, 0.036, 3000, 0.05) or 3000 for _ in range(300)]
    assert np.median(needed) <= 300


def test_cascade_identities() -> None:
    cascade = CascadeEconomics(cheap=0.0005, check=0.0002, flagship=0.0138, accepted=0.7)
    assert cascade.break_even == pytest.approx(0.0507, abs=5e-5)
    assert cascade.saving() == pytest.approx(0.00896)
    assert cascade.quality_change(-0.03) == pytest.approx(-0.021)
    assert cascade.margin(0.02) == pytest.approx(0.0286, abs=5e-5)


def test_time_to_decision() -> None:
    assert time_to_decision(0.072, 0.05, -0.06) is None
    decision = time_to_decision(0.072, 0.05, 0.0)
    assert decision is not None
    assert (decision.n50, decision.n90) == (216, 490)


def test_savings_need_a_hundred_pairs() -> None:
    assert saving_per_call([1.0] * 99) is None


@pytest.mark.parametrize(
    ("task", "era", "mean", "capped", "low", "n"),
    [
        ("prime", "march", 0.013309, 0.013259, 0.012397, 1000),
        ("opinionqa", "march", None, None, 0.002701, 1494),
        ("prime", "june", 0.000416, 0.000416, 0.000370, 1000),
        ("opinionqa", "june", None, None, 0.003034, 1494),
    ],
)
def test_savings_of_recorded_pairs(
    shared_data: Path, task: str, era: str, mean: float | None, capped: float | None, low: float, n: int
) -> None:
    """GPT-3.5 for GPT-4, paired by question; of repeated ids the last row counts."""
    cost: dict[str, dict[str, float]] = {"gpt-4": {}, "gpt-3.5-turbo": {}}
    with gzip.open(shared_data / "drift/llmdrift/llmdrift_scores.csv.gz", "rt") as lines:
        for row in csv.DictReader(lines):
            if row["task"] == task and row["era"] == era:
                cost[row["family"]][row["id"]] = float(row["cost_usd"])
    pairs = [cost["gpt-4"][key] - cost["gpt-3.5-turbo"][key] for key in cost["gpt-4"]]
    saving = saving_per_call(pairs)
    assert saving is not None
    assert saving.n == n
    assert saving.low == pytest.approx(low, abs=5e-7)
    if mean is not None and capped is not None:
        assert saving.mean == pytest.approx(mean, abs=5e-7)
        assert saving.capped_mean == pytest.approx(capped, abs=5e-7)
