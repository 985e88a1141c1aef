"""When a move of tier is proposed, refused, offered, and when the honest answer is to wait."""

from __future__ import annotations

import csv
import gzip
import random
from dataclasses import replace
from pathlib import Path

import pytest

from tierlight_collector.records import CallEvidence, ScoreEvidence, ScoreSums
from tierlight_dashboard.analysis.comparison import Comparison
from tierlight_dashboard.analysis.gate import AdviceSettings, recompute
from tierlight_dashboard.analysis.recommend import Candidate, ModelUse, RouteFacts, recommend

DAY = 86_400_000_000_000
NOW = 1_790_000_000_000_000_000
SETTINGS = AdviceSettings(quality_margin=0.05)

MINI = Candidate("openai", "gpt-5-mini", "mid", 100_000.0, 300_000.0)


def use(model: str, tier: str, calls: int, usd: float, right: float, scored: int = 500) -> ModelUse:
    sums = ScoreSums(scored, right * scored, right * scored) if scored else None
    return ModelUse("openai", model, tier, calls, 0, round(usd * 1e9), 0, calls * 500, calls * 200, sums)


def facts(*uses: ModelUse, **changes: object) -> RouteFacts:
    base = RouteFacts("reply", 14.0, uses, "correct", down=(MINI,))
    return replace(base, **changes)  # type: ignore[arg-type]


FLAGSHIP = use("gpt-5", "flagship", 40_000, 400.0, 0.92)


def call(call_id: str, model: str, purpose: str, cost: float, at: int, **changes: object) -> CallEvidence:
    base = CallEvidence(
        seq=0,
        trace_id=b"",
        span_id=b"",
        route="reply",
        provider="openai",
        request_model=model,
        model=model,
        tier="",
        purpose=purpose,
        experiment="",
        arm="",
        prompt_version="",
        segment="",
        start_ns=at,
        error_class="",
        attempt_reason="first",
        latency_ms=900.0,
        ttft_ms=None,
        input_tokens=500,
        output_tokens=200,
        cost_nusd=round(cost * 1e9),
        act_prob=None,
        keep_prob=None,
        call_id=call_id,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def score(of: CallEvidence, value: float) -> ScoreEvidence:
    return ScoreEvidence(0, "correct", "validator:correct", "validator", value, 1.0, "", of.start_ns, of)


def shadowed(pairs: list[tuple[float, float, float, float]], days: float = 8.0) -> Comparison:
    """A comparison fed with (quality now, quality of candidate, cost now, cost of candidate) pairs."""
    comparison = Comparison("reply", "shadow", "", "gpt-5", "gpt-5-mini")
    step = int(days * DAY / max(1, len(pairs) - 1))
    for number, (now, other, cost_now, cost_other) in enumerate(pairs):
        at = NOW + number * step
        control = call(f"c{number}", "gpt-5", "production", cost_now, at)
        candidate = call(f"c{number}", "gpt-5-mini", "shadow", cost_other, at)
        for made, value in ((control, now), (candidate, other)):
            comparison.observe_call(made)
            comparison.observe_score(score(made, value))
    return comparison


def only(facts_: RouteFacts, *comparisons: Comparison, settings: AdviceSettings = SETTINGS):  # type: ignore[no-untyped-def]
    (verdict,) = recommend(facts_, comparisons, settings, NOW)
    return verdict


def test_without_a_quality_signal_no_tier_is_judged() -> None:
    verdict = only(facts(FLAGSHIP, score=None))
    assert verdict.action == "no_quality_signal"
    assert verdict.candidate_model == ""


def test_few_scores_are_said_with_the_wait() -> None:
    verdict = only(facts(use("gpt-5", "flagship", 40_000, 400.0, 0.9, scored=140)))
    assert verdict.action == "not_enough_data"
    assert "140 of 200" in verdict.sentence
    assert verdict.days_needed == pytest.approx(6.0)


def test_a_proposal_shows_the_cautious_end_first_and_the_price_of_knowing() -> None:
    verdict = only(facts(FLAGSHIP))
    assert (verdict.action, verdict.state, verdict.rung) == ("downgrade", "proposed", "none")
    assert verdict.saving_low_nusd is not None
    assert verdict.saving_high_nusd is not None
    # 80,000 calls in 28 days; today $0.01 a call, estimated 0.0001 + ratio * 0.0003
    assert verdict.saving_low_nusd == round(80_000 * (0.01 - 0.0001 - 1.6 * 0.0003) * 1e9)
    assert verdict.saving_high_nusd == round(80_000 * (0.01 - 0.0001 - 0.7 * 0.0003) * 1e9)
    assert verdict.pairs_needed == 216


def test_an_unpriced_candidate_is_never_proposed() -> None:
    verdict = only(facts(FLAGSHIP, down=(Candidate("x", "mystery", "mid", None, None),)))
    assert verdict.action == "keep"
    assert verdict.candidate_model == ""


def test_a_saving_too_small_to_test_is_kept() -> None:
    verdict = only(facts(use("gpt-5", "flagship", 400, 0.4, 0.92)))
    assert verdict.action == "keep"
    assert "not worth a test" in verdict.reason


def test_an_open_quality_alert_holds_the_tier() -> None:
    verdict = only(facts(FLAGSHIP, open_quality_alert=True, alert_cause="prompt or traffic"))
    assert verdict.action == "fix_prompt"


def test_quality_below_the_floor_proposes_the_tier_above() -> None:
    above = Candidate("openai", "gpt-5", "flagship", 1e6, 9e6)
    small = use("gpt-5-nano", "small", 40_000, 4.0, 0.70)
    verdict = only(facts(small, up=(above,), down=()), settings=replace(SETTINGS, quality_floor=0.85))
    assert (verdict.action, verdict.candidate_model) == ("upgrade", "gpt-5")
    assert verdict.saving_nusd is not None
    assert verdict.saving_nusd < 0


def test_a_dearer_and_worse_model_is_called_upside_down() -> None:
    better = use("gpt-5-mini", "mid", 5_000, 5.0, 0.97)
    verdict = only(facts(use("gpt-5", "flagship", 40_000, 400.0, 0.80), better))
    assert (verdict.action, verdict.candidate_model, verdict.rung) == (
        "downgrade",
        "gpt-5-mini",
        "observational",
    )
    assert "upside down" in verdict.sentence


def test_equal_quality_in_pairs_becomes_ready_and_the_card_recomputes() -> None:
    rng = random.Random(3)
    pairs = []
    for _ in range(600):
        now = float(rng.random() < 0.92)
        other = now if rng.random() < 0.96 else float(rng.random() < 0.5)
        pairs.append((now, other, 0.010, 0.002 + 0.001 * rng.random()))
    verdict = only(facts(FLAGSHIP), shadowed(pairs))
    assert verdict.state == "ready"
    assert verdict.saving_low_nusd is not None
    assert verdict.saving_low_nusd > 0
    assert verdict.card is not None
    assert recompute(verdict.card) == verdict.card["figures"]


def test_a_week_is_needed_however_many_pairs_there_are() -> None:
    verdict = only(facts(FLAGSHIP), shadowed([(1.0, 1.0, 0.01, 0.002)] * 600, days=2.0))
    assert verdict.state == "collecting"
    assert "days" in verdict.reason


def test_a_worse_candidate_is_refused() -> None:
    rng = random.Random(5)
    pairs = [(1.0, float(rng.random() < 0.6), 0.01, 0.002) for _ in range(300)]
    verdict = only(facts(FLAGSHIP), shadowed(pairs))
    assert verdict.action == "keep"
    assert verdict.sentence.startswith("Not OK")


def test_a_wordy_candidate_that_costs_more_is_not_recommended() -> None:
    """A third of the price per token, but 1,440 output tokens where 5 were enough, and better quality."""
    pairs = [(0.9, 1.0, 0.0010, 0.0019)] * 400
    verdict = only(facts(FLAGSHIP), shadowed(pairs))
    assert verdict.state == "collecting"
    assert "saving" in verdict.reason


def test_halves_in_any_order_make_the_same_pair() -> None:
    control = call("c1", "gpt-5", "production", 0.01, NOW)
    candidate = call("c1", "gpt-5-mini", "shadow", 0.002, NOW)
    states = []
    for order in ((control, candidate), (candidate, control)):
        comparison = Comparison("reply", "shadow", "", "gpt-5", "gpt-5-mini")
        for made in order:
            comparison.observe_call(made)
            comparison.observe_score(score(made, 1.0 if made is control else 0.0))
        states.append((comparison.signals, comparison.savings))
    assert states[0] == states[1]
    assert states[0][0]["quality:correct"].mean == -1.0


def test_a_split_with_a_changed_propensity_is_no_evidence() -> None:
    comparison = Comparison("reply", "ab", "exp", "gpt-5", "gpt-5-mini")
    for number, propensity in enumerate((0.5, 0.5, 0.01)):
        arm = {"experiment": "exp", "arm": "candidate", "act_prob": propensity}
        comparison.observe_call(call(f"c{number}", "gpt-5-mini", "production", 0.01, NOW, **arm))
    assert comparison.mixed_propensity > 0
    assert comparison.signals["errors"].n == 2


def test_a_comparison_survives_its_encoding() -> None:
    comparison = shadowed([(1.0, 0.0, 0.01, 0.002)] * 5)
    comparison.observe_call(call("half", "gpt-5", "production", 0.01, NOW))
    assert Comparison.decode(comparison.encode()) == comparison


def recorded_pairs(shared_data: Path, task: str, era: str) -> list[tuple[float, float, float, float]]:
    rows: dict[str, dict[str, tuple[float, float]]] = {"gpt-4": {}, "gpt-3.5-turbo": {}}
    with gzip.open(shared_data / "drift/llmdrift/llmdrift_scores.csv.gz", "rt") as lines:
        for row in csv.DictReader(lines):
            if row["task"] == task and row["era"] == era:
                rows[row["family"]][row["id"]] = (float(row["score"]), float(row["cost_usd"]))
    strong, weak = rows["gpt-4"], rows["gpt-3.5-turbo"]
    pairs = [(strong[key][0], weak[key][0], strong[key][1], weak[key][1]) for key in strong]
    random.Random(0).shuffle(pairs)
    return pairs


@pytest.mark.parametrize(
    ("task", "era", "expected"),
    [
        ("prime", "march", "Not OK"),
        ("prime", "june", "Ship"),
        ("opinionqa", "june", "Ship"),
    ],
)
def test_recorded_models_get_the_verdict_the_outcomes_allow(
    shared_data: Path, task: str, era: str, expected: str
) -> None:
    """GPT-3.5 for GPT-4 on the same questions, at a margin of 5 points."""
    verdict = only(facts(FLAGSHIP), shadowed(recorded_pairs(shared_data, task, era)))
    assert verdict.sentence.startswith(expected)


def test_a_close_candidate_waits_honestly(shared_data: Path) -> None:
    """3.5 points worse at a margin of 5: nothing is decided after 800 pairs, and the page says so."""
    verdict = only(facts(FLAGSHIP), shadowed(recorded_pairs(shared_data, "opinionqa", "march")[:800]))
    assert verdict.state == "collecting"
    assert verdict.sentence.startswith("Needs about")
