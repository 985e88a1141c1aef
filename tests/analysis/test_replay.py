"""Replay: the known answer, the edges, planted data that a router must find, and the real sets where they are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tierlight.errors import ConfigurationError
from tierlight.routing.embed import embedder
from tierlight_dashboard.analysis.offpolicy import (
    Estimate,
    PolicyChange,
    difference,
    doubly_robust,
    exit_code,
    paired_contributions,
    saving,
)
from tierlight_dashboard.analysis.replay import (
    LEARNED,
    Outcomes,
    curve,
    random_folds,
    replay_pair,
)
from tierlight_dashboard.analysis.replaymany import hull_area, replay_many
from tierlight_dashboard.cli.evalsets import load_sets

KNOWN = np.array([[0, 1], [0, 1], [1, 1], [1, 0], [0, 0]], dtype=float)
SCORES = np.array([0.9, 0.2, 0.5, 0.1, 0.7])
COSTS = np.array([[1.0, 10.0]] * 5)


def test_the_curve_has_its_known_answer() -> None:
    made = curve(SCORES, KNOWN, COSTS)
    assert made.pgr is not None
    assert made.pgr.tolist() == pytest.approx([0, 1, 1, 1, 2, 1])
    assert made.apgr == pytest.approx(1.1)
    assert (made.cpt(0.5), made.cpt(0.8)) == (0.2, 0.2)
    assert made.saving == pytest.approx(0.72)
    assert made.cost_apgr == pytest.approx(1.1)


def test_tiers_upside_down_have_no_pgr() -> None:
    made = curve(SCORES, KNOWN[:, ::-1], COSTS)
    assert (made.pgr, made.apgr, made.cpt(0.5), made.saving, made.cost_apgr) == (None, None, None, None, None)


def test_one_prompt_is_a_curve_of_two_points() -> None:
    made = curve(np.array([0.3]), np.array([[0.0, 1.0]]), np.array([[1.0, 2.0]]))
    assert made.apgr == 0.5
    assert made.cpt(0.8) == 1.0


def test_a_saving_can_be_negative() -> None:
    # The prompts where the weak model is dear come last: reaching the gap costs more than always-strong.
    made = curve(np.array([1.0, 0.5]), np.array([[0.0, 1.0], [0.0, 0.0]]), np.array([[1.0, 1.0], [9.0, 1.0]]))
    assert made.saving == pytest.approx(1 - 5.0 / 1.0)


def test_an_unknown_cost_has_no_saving() -> None:
    assert curve(SCORES, KNOWN, np.full((5, 2), np.nan)).saving is None


def test_ties_go_in_an_order_that_only_the_seed_decides() -> None:
    quality = np.random.default_rng(1).integers(0, 2, (200, 2)).astype(float)
    quality[:50, 1] = 1
    cost = np.ones((200, 2))
    flat = np.zeros(200)
    assert curve(flat, quality, cost, 3).apgr == curve(flat, quality, cost, 3).apgr
    runs = [curve(flat, quality, cost, seed).apgr for seed in range(200)]
    assert np.mean([run for run in runs if run is not None]) == pytest.approx(0.5, abs=0.1)
    assert len(set(runs)) > 100


def planted(shuffled: bool = False, n: int = 400) -> Outcomes:
    """Two tasks; the strong model is better by 1 in the one with a fifth of the prompts and equal elsewhere."""
    rng = np.random.default_rng(5)
    hard = np.arange(n) % 5 == 0
    texts = tuple(
        f"prove the lemma {rng.integers(900)}" if one else f"sort parcel {rng.integers(900)}" for one in hard
    )
    quality = np.stack([1.0 - hard, np.ones(n)], axis=1)
    if shuffled:
        quality = quality[rng.permutation(n)]
    cost = np.tile([1.0, 10.0], (n, 1))
    segments = tuple("maths" if one else "sorting" for one in hard)
    return Outcomes("planted", ("weak", "strong"), texts, segments, quality, cost, random_folds(n))


def test_a_planted_gap_is_found() -> None:
    outcomes = planted()
    pair = replay_pair(outcomes, embedder("hash1").matrix(outcomes.texts), "weak", "strong", resamples=50)
    for router in ("task prior", "prior + kNN", LEARNED):
        row = pair.row(router)
        assert row.apgr is not None
        assert row.apgr > 0.85
        assert row.cpt80 is not None
        assert row.cpt80 <= 0.2
    learned = pair.row(LEARNED)
    assert learned.apgr_low is not None
    assert learned.apgr_high is not None
    assert learned.apgr is not None
    assert learned.apgr_low <= learned.apgr <= learned.apgr_high
    assert learned.saving == pytest.approx(1 - (80 * 0.95 * 10 + (400 - 76)) / 4000, abs=0.01)
    assert any(verdict.startswith("simple is enough") for verdict in pair.verdicts)
    assert pair.random_apgr == pytest.approx(0.5, abs=0.02)


def test_shuffled_outcomes_show_nothing() -> None:
    outcomes = planted(shuffled=True)
    pair = replay_pair(outcomes, embedder("hash1").matrix(outcomes.texts), "weak", "strong", resamples=0)
    assert pair.row(LEARNED).apgr == pytest.approx(0.5, abs=0.15)
    oracle = pair.row("oracle").apgr
    assert oracle == pytest.approx(0.9, abs=0.01)


def test_upside_down_tiers_are_said_so() -> None:
    outcomes = planted()
    pair = replay_pair(outcomes, embedder("hash1").matrix(outcomes.texts), "strong", "weak", resamples=0)
    assert pair.verdicts == ("tiers upside down: weak 1.000, strong 0.800",)
    assert pair.row(LEARNED).apgr is None


def test_a_prompt_that_only_trains_is_not_judged() -> None:
    outcomes = planted()
    fold = np.where(np.arange(400) < 300, -1, 0)
    split = Outcomes(
        outcomes.name,
        outcomes.models,
        outcomes.texts,
        outcomes.segments,
        outcomes.quality,
        outcomes.cost,
        fold,
    )
    pair = replay_pair(split, embedder("hash1").matrix(outcomes.texts), "weak", "strong", resamples=0)
    assert pair.n == split.n == 100


def test_the_hull_ignores_a_model_that_is_dearer_and_no_better() -> None:
    points = np.array([[0.0, 0.2], [1.0, 0.6], [0.5, 0.3], [2.0, 0.5]])
    assert hull_area(points, (0.0, 2.0)) == pytest.approx((0.4 + 0.6) / 2, abs=0.001)


def test_many_models_reach_the_best_single_for_less() -> None:
    outcomes = planted()
    three = Outcomes(
        "three", ("weak", "bad", "strong"), outcomes.texts, outcomes.segments,
        np.column_stack([outcomes.quality[:, 0], np.zeros(400), outcomes.quality[:, 1]]),
        np.column_stack([outcomes.cost[:, 0], outcomes.cost[:, 0], outcomes.cost[:, 1]]), outcomes.fold,
    )  # fmt: skip
    many = replay_many(three, embedder("hash1").matrix(three.texts))
    assert many.best_single == "strong"
    assert many.aiq["oracle"] >= many.aiq["prior + kNN"] > many.zero_router_aiq
    assert many.cost_at_best_single["prior + kNN"] == pytest.approx(0.28, abs=0.01)


def test_calls_of_a_fixed_routing_can_not_say_what_another_would_do() -> None:
    n = 200
    none = doubly_robust(np.zeros(n, int), np.ones(n), np.ones(n), np.full((n, 2), 0.5), np.ones(n, int))
    assert none.value is None
    assert none.why == "not identifiable: deterministic routing"
    few = doubly_robust(
        np.arange(n) % 2,
        np.ones(n),
        np.r_[np.full(20, 0.5), np.ones(n - 20)],
        np.full((n, 2), 0.5),
        np.ones(n, int),
    )
    assert few.value is None
    assert few.identifiable_share == 0.1
    assert "effective" in few.why


def test_explored_calls_give_the_value_of_a_policy_that_was_never_run() -> None:
    rng = np.random.default_rng(2)
    n = 4000
    hard = rng.random(n) < 0.3
    probability = np.where(hard, 0.2, 0.8)  # of arm 0
    chosen = np.where(rng.random(n) < probability, 0, 1)
    truth = np.stack([np.where(hard, 0.3, 0.9), np.full(n, 0.9)], axis=1)
    scores = (rng.random(n) < truth[np.arange(n), chosen]).astype(float)
    wanted = np.where(hard, 1, 0)
    for expected in (truth, np.full((n, 2), 0.5)):  # right with a right model, and with a wrong one
        found = doubly_robust(
            chosen, scores, np.where(chosen == 0, probability, 1 - probability), expected, wanted
        )
        assert found.value is not None
        assert found.standard_error is not None
        assert abs(found.value - 0.9) < 4 * found.standard_error
        assert found.standard_error < 0.03


@pytest.mark.parametrize(
    ("low", "high", "may_ship", "effective", "code"),
    [
        pytest.param(-0.01, 0.01, True, 60, 0, id="the lower end is within the margin"),
        pytest.param(-0.05, 0.01, True, 60, 2, id="the margin lies inside the interval"),
        pytest.param(-0.09, -0.03, True, 60, 1, id="even the upper end is beyond the margin"),
        pytest.param(-0.01, 0.01, False, 60, 2, id="escalated pairs never ship"),
        pytest.param(-0.09, -0.03, False, 60, 1, id="escalated pairs may well refuse"),
        pytest.param(-0.01, 0.01, True, 49, 2, id="too few calls"),
    ],
)
def test_a_change_of_policy_gives_an_exit_code(
    low: float, high: float, may_ship: bool, effective: float, code: int
) -> None:
    change = PolicyChange(Estimate((low + high) / 2, low, high), None, "pairs", may_ship, effective)
    assert exit_code(change, 0.02, None) == code
    assert exit_code(change, None, 0.1) == 2  # the saving is unknown


def test_the_intervals_of_a_change_cover_it() -> None:
    rng = np.random.default_rng(5)
    covered = {"quality": 0, "saving": 0}
    for _ in range(400):
        hard = rng.random(300) < 0.3
        weights = np.where(hard, 1.0, 10.0)
        kept = hard | (rng.random(300) < 0.1)  # easy requests became pairs one time in ten
        weak = np.where(hard, 0.4, 0.9) + rng.normal(0, 0.1, 300)
        cost = rng.gamma(2, 1, (300, 2)) * [1, 5]
        outcomes = np.stack([weak, np.full(300, 0.9)], axis=1)
        old, new = (np.full(int(kept.sum()), side) for side in (1, 0))
        pair = [paired_contributions(outcomes[kept], weights[kept], side) for side in (new, old)]
        change = difference(*pair)
        covered["quality"] += change.low <= -0.15 <= change.high
        spent = [paired_contributions(cost[kept], weights[kept], side) for side in (new, old)]
        saved = saving(*spent)
        assert saved is not None
        covered["saving"] += saved.low <= 0.8 <= saved.high
    assert all(0.8 < share / 400 < 0.96 for share in covered.values()), covered  # 90 % between both ends


def test_json_lines_are_read_as_a_set(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    rows = [
        {"prompt": f"p{n}", "task": "t", "scores": {"a": 0, "b": 1}, "costs": {"a": 1, "b": 2}}
        for n in range(3)
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    (outcomes,) = load_sets(file)
    assert (outcomes.name, outcomes.models, outcomes.n) == ("mine", ("a", "b"), 3)
    assert outcomes.cost.tolist() == [[1, 2]] * 3
    file.write_text('{"prompt": "x"}')
    with pytest.raises(ConfigurationError, match="each line has `prompt` and `scores`"):
        load_sets(file)
    with pytest.raises(ConfigurationError, match="expected JSON lines"):
        load_sets(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "weak", "strong", "apgr", "within"),
    [
        ("llmrouter", "llama-3.1-8b-instruct", "llama-3.1-nemotron-51b-instruct", 1.344, 0.226),
        ("routellm/gsm8k", "mistralai/Mixtral-8x7B-Instruct-v0.1", "gpt-4-1106-preview", 0.595, 0.04),
        ("routellm/mmlu", "mistralai/Mixtral-8x7B-Instruct-v0.1", "gpt-4-1106-preview", 0.696, 0.01),
        ("zeroeval", "claude-3-haiku-20240307", "claude-3-5-sonnet-20241022", 0.687, 0.02),
    ],
)
def test_public_sets_give_their_known_figures(
    shared_data: Path, folder: str, weak: str, strong: str, apgr: float, within: float
) -> None:
    (outcomes,) = load_sets(shared_data / "routing" / folder)
    pair = replay_pair(outcomes, embedder("hash1").matrix(outcomes.texts), weak, strong, resamples=0)
    assert pair.row("prior + kNN").apgr == pytest.approx(apgr, abs=within)
