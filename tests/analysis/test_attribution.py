"""What goes with a change, and that every decomposition adds up."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierlight_dashboard.analysis.alerting import measure
from tierlight_dashboard.analysis.attribution import (
    ChangePoint,
    CostPart,
    Ringing,
    change_point,
    moved_facts,
    quality_terms,
    split_cost,
    split_quality,
    verdict,
)
from tierlight_dashboard.analysis.reference import fixed_reference
from tierlight_dashboard.analysis.sentences import sentence
from tierlight_dashboard.analysis.signals import quality_signal
from tierlight_dashboard.analysis.streams import Stream, new_detector


def test_change_point_and_its_interval() -> None:
    x = np.array([1, 1, 1, 1, 1, 0] * 50 + [1, 0] * 30, dtype=float)
    assert change_point(x) == ChangePoint(299, 287, 309)
    assert change_point(x[:9]) is None


def test_quality_change_splits_into_mix_and_within() -> None:
    before = {"prime": (0.5, 0.976), "composite": (0.5, 0.704)}
    after = {"prime": (0.2, 0.024), "composite": (0.8, 0.998)}
    terms = {term.name: term.effect for term in split_quality(before, after)}
    assert {name: round(effect, 4) for name, effect in terms.items()} == {
        "mix": 0.1053,
        "within prime": -0.3332,
        "within composite": 0.1911,
    }
    assert sum(terms.values()) == pytest.approx(-0.0368, abs=1e-9)


def test_cost_change_splits_into_share_tokens_and_price() -> None:
    def parts(a: float, b: float, tokens_in: float, tokens_out: float, b_in: float) -> dict[str, CostPart]:
        return {
            "A in": CostPart(a, tokens_in, 3e-6),
            "A out": CostPart(a, tokens_out, 15e-6),
            "B in": CostPart(b, tokens_in, b_in),
            "B out": CostPart(b, tokens_out, 2e-6),
        }

    before, after = parts(0.8, 0.2, 1000, 200, 0.25e-6), parts(0.6, 0.4, 1200, 150, 0.5e-6)
    assert sum(part.cost for part in before.values()) == pytest.approx(0.00493)
    assert sum(part.cost for part in after.values()) == pytest.approx(0.00387)
    share, tokens, price = (term.effect for term in split_cost(before, after))
    assert (round(share, 10), round(tokens, 10), round(price, 10)) == (
        -0.0010279705,
        -0.0001159876,
        0.0000839581,
    )


shares = st.floats(0.01, 1)
groups = st.dictionaries(st.sampled_from("abcdef"), st.tuples(shares, st.floats(0, 1)), min_size=1)
costs = st.dictionaries(
    st.sampled_from("abcdef"),
    st.builds(CostPart, shares, st.floats(1, 1e4), st.floats(1e-8, 1e-4)),
    min_size=1,
)


@given(groups, groups)
def test_quality_terms_add_up(
    before: dict[str, tuple[float, float]], after: dict[str, tuple[float, float]]
) -> None:
    total = sum(w * q for w, q in after.values()) - sum(w * q for w, q in before.values())
    assert sum(term.effect for term in split_quality(before, after)) == pytest.approx(total, abs=1e-9)


@given(costs, costs)
def test_cost_terms_add_up(before: dict[str, CostPart], after: dict[str, CostPart]) -> None:
    total = sum(part.cost for part in after.values()) - sum(part.cost for part in before.values())
    assert sum(term.effect for term in split_cost(before, after)) == pytest.approx(total, abs=1e-8)


def test_within_terms_carry_intervals_around_their_effect() -> None:
    terms = quality_terms([("a", 1.0)] * 90 + [("a", 0.0)] * 10, [("a", 1.0)] * 30 + [("a", 0.0)] * 30)
    mix, within = terms
    assert mix.effect == pytest.approx(0)
    assert within.low is not None
    assert within.high is not None
    assert within.effect == pytest.approx(-0.4)
    assert within.low < within.effect < within.high < 0


def test_only_facts_that_moved_are_named() -> None:
    before = [("gpt-4-0314", "v1")] * 100
    after = [("gpt-4-0613", "v1")] * 20 + [("gpt-4-0314", "v1")] * 5
    (fact,) = moved_facts(before, after, {"response model": lambda c: c[0], "prompt": lambda c: c[1]})
    assert (fact.what, fact.lost, fact.gained) == ("response model", "gpt-4-0314", "gpt-4-0613")
    assert fact.moved == pytest.approx(0.8)


THIS = Ringing("answer", "openai/gpt-4", 100, 200)


@pytest.mark.parametrize(
    ("others", "kwargs", "expected"),
    [
        ([], {}, "prompt or traffic"),
        ([], {"mix": -0.08, "total": -0.1}, "traffic"),
        ([], {"model_test_rings": True}, "provider changed the model"),
        ([Ringing("draft", "openai/gpt-4", 150, 300)], {}, "provider changed the model"),
        ([Ringing("draft", "openai/gpt-4", 250, 300)], {}, "prompt or traffic"),
        ([Ringing("draft", "openai/gpt-4o", 150, 300)], {}, "provider"),
        ([Ringing("draft", "anthropic/claude", 150, 300)], {}, "prompt or traffic"),
        ([], {"judge_moved": True}, "the judge moved"),
    ],
)
def test_whose_change_it_looks_like(
    others: list[Ringing], kwargs: dict[str, float | bool], expected: str
) -> None:
    settings = {"model_test_rings": False, "steady_models_elsewhere": True, "mix": 0.0, "total": 0.0} | kwargs
    assert verdict(THIS, others, **settings) == expected  # type: ignore[arg-type]  # mixed keyword types


@pytest.mark.parametrize(("after", "worse"), [([1.0] * 40, False), ([1.0, 0.0] * 20, True)])
def test_an_effect_in_the_good_direction_is_no_fall(after: list[float], worse: bool) -> None:
    signal = quality_signal("right")
    detector = new_detector(signal, "route", 1.0, fixed_reference(0.8, 0.84))
    effect = measure(signal, detector, np.array([1.0] * 10 + after), 10)
    assert effect.got_worse is worse
    stream = Stream(("scores", "answer", "gpt-4", "", "", "right", "check", ""))
    text = sentence(signal, stream, "route", effect, "share", 0, "prompt or traffic")
    assert text.endswith("unless it rings again.") is not worse
