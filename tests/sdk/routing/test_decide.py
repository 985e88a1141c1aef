"""Deciding: known answers, probabilities that add up, sticky units, what happens when the choice is not to be had."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierlight.errors import NoTarget
from tierlight.routing.complexity import complexity, parse_router_word, tier_for
from tierlight.routing.decide import (
    AlwaysUp,
    Choice,
    RouteRequest,
    decide,
    safe_decision,
)
from tierlight.routing.declared import Arm, Experiment
from tierlight.routing.policy import Policy
from tierlight.routing.split import arm_of, unit_share

TARGETS = """
schema = 1
[target.nano]
provider = "openai"
model = "gpt-5-nano"
tier = "small"
fallback = ["lite"]
max_input_tokens = 1000
[target.lite]
provider = "google"
model = "gemini-2.5-flash-lite"
tier = "mid"
fallback = ["nano"]
[target.sonnet]
provider = "anthropic"
model = "claude-sonnet-4-5"
tier = "flagship"
fallback = ["gpt5"]
[target.gpt5]
provider = "openai"
model = "gpt-5"
tier = "flagship"
fallback = ["sonnet"]
[target.embed]
provider = "openai"
model = "text-embedding-3-small"
fallback = "none"
"""


@dataclass
class View:
    closed: set[str] = field(default_factory=set)
    absent: set[str] = field(default_factory=set)
    free: dict[str, float] = field(default_factory=dict)

    def is_available(self, target: str) -> bool:
        return target not in self.closed

    def free_at(self, target: str) -> float:
        return self.free.get(target, 0.0)

    def is_present(self, target: str) -> bool:
        return target not in self.absent


def policy(route: str) -> Policy:
    return Policy.from_toml(TARGETS + "[route.r]\n" + route)


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("", 0.0),
        ("Classify: where is my parcel?", 0.47),
        (
            "Compare the two contracts and explain why clause 4 is weaker:\n1. first\n2. second\n3. third",
            5.52,
        ),
    ],
)
def test_complexity_has_its_known_answers(text: str, score: float) -> None:
    assert complexity(text) == score


@given(st.text(max_size=400))
def test_complexity_stays_within_its_scale(text: str) -> None:
    assert 0 <= complexity(text) <= 10


def test_bounds_belong_to_the_stronger_tier() -> None:
    assert [tier_for(score, (3.0, 7.0)) for score in (2.99, 3.0, 6.99, 7.0)] == [
        "small",
        "mid",
        "mid",
        "flagship",
    ]


def test_units_stand_where_they_are_known_to_stand() -> None:
    assert unit_share("exp-1", "user-1") == pytest.approx(0.484563537699, abs=1e-12)
    assert unit_share("exp-1", "user-2") == pytest.approx(0.230863196909, abs=1e-12)
    assert unit_share("exp-2", "user-1") == pytest.approx(0.647174121249, abs=1e-12)
    assert sum(unit_share("exp-1", str(n)) < 0.1 for n in range(10_000)) == 1015


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        ("Moderate.", "moderate"),
        ("not trivial but COMPLEX", "trivial"),
        ("complex, trivial", "complex"),
        ("hard", ""),
    ],
)
def test_the_first_known_word_of_a_router_model_counts(answer: str, word: str) -> None:
    assert parse_router_word(answer) == word


ROUTES = {
    "task": 'target = "sonnet"\ncandidates = ["nano", "lite", "sonnet"]\nexplore = 0.3',
    "complexity": 'strategy = "complexity"\nexplore = 0.2',
    "router_model": 'strategy = "router_model"\nrouter = "nano"\nexplore = 0.1',
    "cascade": 'strategy = "cascade"\nsteps = ["nano", "sonnet"]\nvalidators = [{ kind = "json" }]\nexplore = 0.5',
    "specialty": 'strategy = "specialty"\nkind = "embeddings"',
    "learned": 'strategy = "learned"\ncandidates = ["nano", "sonnet"]\nsignal = "csat"\nexplore = 0.02',
    "experiment": 'target = "sonnet"\n[experiment.e]\nroute = "r"\narms = { a = "sonnet", b = "nano", c = "nano" }\nweights = { a = 0.5, b = 0.3, c = 0.2 }',
}


@given(
    strategy=st.sampled_from(sorted(ROUTES)),
    closed=st.sets(st.sampled_from(["nano", "lite", "sonnet", "gpt5", "embed"])),
    absent=st.sets(st.sampled_from(["nano", "lite"])),
    tokens=st.sampled_from([10, 5000]),
    text=st.sampled_from(["hi", "Compare and analyse the plan. " * 80]),
    seed=st.integers(0, 100),
    word=st.sampled_from([None, "", "trivial", "what"]),
)
def test_probabilities_add_up_whatever_is_down(
    strategy: str, closed: set[str], absent: set[str], tokens: int, text: str, seed: int, word: str | None
) -> None:
    decision = decide(
        policy(ROUTES[strategy]),
        RouteRequest("r", text, input_tokens=tokens, unit_ids={"call": str(seed)}, router_word=word),
        View(closed, absent),
        random.Random(seed),
    )
    assert math.isclose(sum(one.probability for one in decision.candidates), 1.0)
    assert all(0 <= one.probability <= 1 for one in decision.candidates)
    assert decision.act_prob == next(
        one.probability for one in decision.candidates if one.target == decision.assigned
    )
    assert decision.act_prob > 0
    if decision.explored:
        assert next(one for one in decision.candidates if one.target == decision.assigned).excluded == ""


def test_exploration_happens_as_often_as_it_is_stamped() -> None:
    explored = policy(ROUTES["task"])
    rng, draws = random.Random(7), 20_000
    shares: Counter[str] = Counter()
    stamped: dict[str, float] = {}
    for _ in range(draws):
        decision = decide(explored, RouteRequest("r", "hi"), AlwaysUp(), rng)
        shares[decision.chosen] += 1
        stamped[decision.chosen] = decision.act_prob
    assert stamped == pytest.approx({"sonnet": 0.8, "nano": 0.1, "lite": 0.1})
    for target, probability in stamped.items():
        sigma = math.sqrt(draws * probability * (1 - probability))
        assert abs(shares[target] - draws * probability) < 4 * sigma


@pytest.mark.parametrize("extra", ['latency = "interactive"', "explore = 0.0"])
def test_interactive_routes_are_not_explored(extra: str) -> None:
    fixed = policy(
        f'target = "sonnet"\ncandidates = ["nano", "sonnet"]\n{extra}\n'
        + ("" if "explore" in extra else "explore = 1.0")
    )
    decisions = [decide(fixed, RouteRequest("r"), AlwaysUp(), random.Random(n)) for n in range(50)]
    assert {(one.chosen, one.act_prob, one.explored) for one in decisions} == {("sonnet", 1.0, False)}


def test_a_unit_keeps_its_arm() -> None:
    split = Experiment("e", "r", (Arm("a", "sonnet", 0.9), Arm("b", "nano", 0.1)))
    arms = [arm_of(split, f"user-{n}") for n in range(2000)]
    assert arms == [arm_of(split, f"user-{n}") for n in range(2000)]
    assert 150 < arms.count("b") < 250


def test_an_arm_that_is_down_is_served_by_its_fallback_and_keeps_its_propensity() -> None:
    split = policy(
        'target = "sonnet"\n[experiment.e]\nroute = "r"\narms = { a = "sonnet", b = "nano" }\nweights = { a = 0.9, b = 0.1 }'
    )
    unit = next(str(n) for n in range(100) if unit_share("e", str(n)) < 0.9)
    decision = decide(split, RouteRequest("r", unit_ids={"call": unit}), View({"sonnet"}), random.Random(0))
    assert (decision.arm, decision.assigned, decision.chosen) == ("a", "sonnet", "gpt5")
    assert decision.act_prob == 0.9
    assert not decision.is_delivered
    assert decision.reason == "breaker_open"


@pytest.mark.parametrize(
    ("view", "tokens", "chosen", "reason"),
    [
        (View(), 10, "nano", "task"),
        (View({"nano"}), 10, "lite", "breaker_open"),
        (View(absent={"nano"}), 10, "lite", "device_unavailable"),
        (View(), 5000, "lite", "input_too_long"),
        (View({"nano", "lite"}, free={"nano": 9.0, "lite": 4.0}), 10, "lite", "breaker_open"),
        (View({"lite"}, absent={"nano"}), 10, "lite", "breaker_open"),
    ],
)
def test_what_is_excluded_is_replaced_and_says_why(view: View, tokens: int, chosen: str, reason: str) -> None:
    decision = decide(
        policy('target = "nano"'), RouteRequest("r", input_tokens=tokens), view, random.Random(0)
    )
    assert (decision.chosen, decision.reason) == (chosen, reason)
    assert decision.candidates[0].target == "nano"


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("hi", "nano"),
        ("Compare the two plans. " * 10, "lite"),
        ("Prove and derive:\n```\n1 + 1\n```\n" * 40, "sonnet"),
    ],
)
def test_complexity_chooses_the_tier(text: str, chosen: str) -> None:
    decision = decide(
        policy(ROUTES["complexity"].replace("0.2", "0.0")),
        RouteRequest("r", text),
        AlwaysUp(),
        random.Random(0),
    )
    assert decision.chosen == chosen


@pytest.mark.parametrize(
    ("word", "chosen", "reason"),
    [
        ("complex", "sonnet", "router_model"),
        ("trivial", "nano", "router_model"),
        ("hm", "lite", "router_unparsed"),
        ("", "sonnet", "router_timeout"),
    ],
)
def test_the_router_models_word_chooses_the_tier(word: str, chosen: str, reason: str) -> None:
    asked = policy('strategy = "router_model"\nrouter = "nano"')
    decision = decide(asked, RouteRequest("r", "x", router_word=word), AlwaysUp(), random.Random(0))
    assert (decision.chosen, decision.reason) == (chosen, reason)


def test_embeddings_go_to_a_target_that_makes_them() -> None:
    decision = decide(
        policy('target = "nano"'), RouteRequest("r", "x", "embeddings"), AlwaysUp(), random.Random(0)
    )
    assert (decision.chosen, decision.reason) == ("embed", "specialty")


def test_a_forced_target_is_taken_as_it_is() -> None:
    decision = decide(
        policy(ROUTES["task"]), RouteRequest("r", forced="gpt5"), View({"gpt5"}), random.Random(0)
    )
    assert (decision.chosen, decision.reason, decision.act_prob) == ("gpt5", "forced", 1.0)


def test_an_unknown_route_needs_a_default_target() -> None:
    with pytest.raises(NoTarget, match="no route 'other' and no default target; known routes are r"):
        decide(policy('target = "nano"'), RouteRequest("other"), AlwaysUp(), random.Random(0))
    open_policy = Policy.from_toml(TARGETS + '[defaults]\ntarget = "gpt5"')
    assert decide(open_policy, RouteRequest("other"), AlwaysUp(), random.Random(0)).reason == "default"
    assert safe_decision(open_policy, RouteRequest("other")).chosen == "gpt5"


def test_a_chooser_decides_among_the_eligible() -> None:
    class Chooser:
        def choose(self, text: str, segment: str, candidates: Sequence[str]) -> Choice:
            return Choice(candidates[0], "learned", {"nano": 0.25, "sonnet": 0.5}, 0.1, "lr1-abc")

    route = policy(ROUTES["learned"].replace("0.02", "0.0"))
    decision = decide(route, RouteRequest("r", "x"), AlwaysUp(), random.Random(0), {"r": Chooser()})
    assert (decision.chosen, decision.reason, decision.threshold, decision.router_version) == (
        "nano",
        "learned",
        0.1,
        "lr1-abc",
    )
    assert [one.score for one in decision.candidates] == [0.25, 0.5]
    down = decide(route, RouteRequest("r", "x"), View({"nano"}), random.Random(0), {"r": Chooser()})
    assert down.chosen == "sonnet"


def test_a_learned_route_without_its_artefact_stays_on_its_default() -> None:
    decision = decide(
        policy(ROUTES["learned"].replace("0.02", "0.0")), RouteRequest("r", "x"), AlwaysUp(), random.Random(0)
    )
    assert (decision.chosen, decision.reason) == ("sonnet", "router_error")
