"""What becomes of an approved experiment: harm takes it back, fourteen quiet days keep it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tierlight.routing.policy import Policy
from tierlight_collector.decisions import Experiment
from tierlight_dashboard.analysis.comparison import Comparison
from tierlight_dashboard.analysis.course import HOLD_OUT, WATCHED_NS, hold_out_name, revised, turn
from tierlight_dashboard.analysis.evidence import PairEvidence
from tierlight_dashboard.analysis.gate import AdviceSettings

NOW = 1_795_000_000_000_000_000
RUNNING = Experiment("reply-mini", "reply", "ab", "gpt-5", "gpt-5-mini", 0.5, "running", NOW, None, "local")
SHIPPED = replace(RUNNING, state="shipped", shipped_ns=NOW)
POLICY = """\
schema = 1
currency = "USD"

[target.big]
provider = "openai"
model = "gpt-5"
tier = "flagship"
fallback = "none"

[target.small]
provider = "openai"
model = "gpt-5-mini"
tier = "mid"
fallback = "none"

[route."reply"]
strategy = "task"
target = "big"
"""


def comparison(differences: list[float], experiment: str = "reply-mini") -> Comparison:
    found = Comparison("reply", "ab", experiment, "gpt-5", "gpt-5-mini", bound=2.0)
    found.signals["quality:ok"] = PairEvidence(2.0).add(differences)
    return found


def decide(experiment: Experiment, found: Comparison, now_ns: int = NOW):  # type: ignore[no-untyped-def]
    return turn(experiment, [found], [], score="ok", margin=0.05, settings=AdviceSettings(), now_ns=now_ns)


def test_a_running_experiment_without_harm_goes_on() -> None:
    assert decide(RUNNING, comparison([0.0] * 200)) is None


def test_harm_ends_a_running_experiment() -> None:
    over = decide(RUNNING, comparison([-1.0] * 100))
    assert over is not None
    assert over.experiment.state == "rolled_back"
    assert "K of harm" in over.note


def test_after_shipping_less_evidence_of_harm_is_enough() -> None:
    n = next(n for n in range(1, 400) if comparison([-1.0] * n).quality("ok").harm(0.05) >= 10)
    assert comparison([-1.0] * n).quality("ok").harm(0.05) < 20, (
        "the bars must differ for this test to say anything"
    )
    assert decide(RUNNING, comparison([-1.0] * n)) is None
    over = decide(SHIPPED, comparison([-1.0] * n, hold_out_name(SHIPPED)))
    assert over is not None
    assert over.experiment.state == "rolled_back"


def test_fourteen_days_without_harm_keep_the_move() -> None:
    quiet = comparison([0.0] * 50, hold_out_name(SHIPPED))
    assert decide(SHIPPED, quiet, NOW + WATCHED_NS - 1) is None
    over = decide(SHIPPED, quiet, NOW + WATCHED_NS)
    assert over is not None
    assert over.experiment.state == "kept"


def test_the_policy_follows_the_experiment_and_comes_back() -> None:
    running = Policy.from_toml(revised(POLICY, RUNNING), is_served=True)
    assert list(running.experiments) == ["reply-mini"]
    shipped = Policy.from_toml(revised(revised(POLICY, RUNNING), SHIPPED), is_served=True)
    (hold_out,) = shipped.experiments.values()
    assert min(arm.weight for arm in hold_out.arms) == pytest.approx(HOLD_OUT)
    back = revised(revised(POLICY, SHIPPED), replace(SHIPPED, state="rolled_back"))
    assert Policy.from_toml(back, is_served=True).version == Policy.from_toml(POLICY, is_served=True).version
    kept = Policy.from_toml(revised(revised(POLICY, SHIPPED), replace(SHIPPED, state="kept")), is_served=True)
    assert kept.routes["reply"].default == "small"
    assert not kept.experiments


def test_an_upgrade_that_cannot_be_better_enough_any_more_is_stopped() -> None:
    def ended(found: Comparison, upgrade: bool):  # type: ignore[no-untyped-def]
        return turn(
            RUNNING,
            [found],
            [],
            score="ok",
            margin=0.05,
            settings=AdviceSettings(),
            now_ns=NOW,
            upgrade=upgrade,
        )

    assert ended(comparison([0.0] * 199), upgrade=True) is None
    over = ended(comparison([0.0] * 3_000), upgrade=True)
    assert over is not None
    assert (over.experiment.state, over.experiment.ended_ns) == ("stopped", NOW)
    assert "futile" in over.sentence
    assert ended(comparison([0.0] * 3_000), upgrade=False) is None
    assert ended(comparison([1.0] * 100 + [0.0] * 900), upgrade=True) is None
    other = comparison([0.0] * 3_000, "another")
    assert ended(other, upgrade=True) is None
