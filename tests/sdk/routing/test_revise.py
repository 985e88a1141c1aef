"""Beginning and ending an experiment in a policy's text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdk.routing.fakes import POLICY
from tierlight.errors import PolicyError
from tierlight.routing.declared import Arm
from tierlight.routing.policy import Policy
from tierlight.routing.revise import begun, ended, undone

COMMENTED = POLICY + "# the end, with a thought\n"


def test_an_experiment_is_begun_and_ended_without_touching_the_rest() -> None:
    toml = begun(
        COMMENTED,
        "intent-lite-1",
        "intent",
        kind="ab",
        control="gpt-5-nano",
        candidate="gemini-2.5-flash-lite",
        share=0.1,
    )
    assert toml.startswith(COMMENTED.rstrip())
    experiment = Policy.from_toml(toml).experiments["intent-lite-1"]
    assert experiment.arms == (Arm("candidate", "lite", 0.1), Arm("control", "nano", 0.9))
    over = ended(toml, "intent-lite-1")
    assert Policy.from_toml(over) == Policy.from_toml(POLICY)
    assert "with a thought" in over
    assert ended(over, "intent-lite-1") == over


def test_a_shadow_has_a_budget() -> None:
    toml = begun(
        POLICY, "s 1", "intent", kind="shadow", control="gpt-5-nano", candidate="openai/gpt-5", share=0.05
    )
    shadow = Policy.from_toml(toml).shadows["s 1"]
    assert (shadow.target, shadow.share, shadow.max_spend_per_day) == ("gpt5", 0.05, 5.0)
    assert Policy.from_toml(ended(toml, "s 1")) == Policy.from_toml(POLICY)


@pytest.mark.parametrize(
    ("route", "candidate", "message"),
    [("other", "gpt-5", "the policy does not route it"), ("intent", "gpt-9", "none for the model 'gpt-9'")],
)
def test_what_can_not_be_tried_is_said(route: str, candidate: str, message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        begun(POLICY, "e", route, kind="ab", control="gpt-5-nano", candidate=candidate, share=0.1)


def test_a_second_experiment_on_a_route_is_refused() -> None:
    toml = begun(POLICY, "a", "intent", kind="ab", control="gpt-5-nano", candidate="gpt-5", share=0.1)
    with pytest.raises(PolicyError, match="is already in experiment 'a'"):
        begun(toml, "b", "intent", kind="ab", control="gpt-5-nano", candidate="gpt-5", share=0.1)


STEPS = st.lists(st.tuples(st.sampled_from(["begin", "end"]), st.integers(0, 2)), min_size=1, max_size=6)


def changed(toml: str, step: tuple[str, int]) -> str:
    word, n = step
    if word == "end":
        return ended(toml, f"s{n}")
    if f"s{n}" in Policy.from_toml(toml).shadows:
        return toml
    return begun(
        toml, f"s{n}", "intent", kind="shadow", control="gpt-5-nano", candidate="gpt-5", share=0.1 + n / 10
    )


@given(STEPS)
def test_undoing_the_newest_revision_gives_the_text_before_it(steps: list[tuple[str, int]]) -> None:
    before = newest = POLICY
    for step in steps:
        before, newest = newest, changed(newest, step)
    assert undone(newest, newest, before) == before


@given(st.permutations([0, 1, 2]), st.integers(0, 2))
def test_undoing_an_older_revision_leaves_what_came_after(order: list[int], which: int) -> None:
    history = [POLICY]
    for n in order:
        history.append(changed(history[-1], ("begin", n)))
    served = Policy.from_toml(undone(history[-1], history[which + 1], history[which]))
    assert set(served.shadows) == {f"s{n}" for n in order if n != order[which]}
    assert served.routes == Policy.from_toml(POLICY).routes


def test_an_undo_of_lines_that_were_changed_again_is_refused() -> None:
    second = POLICY.replace('target = "nano"', 'target = "lite"')
    third = POLICY.replace('target = "nano"', 'target = "gpt5"')
    with pytest.raises(PolicyError, match="changed the same lines"):
        undone(third, second, POLICY)
    assert undone("# new\n" + second, second, POLICY) == "# new\n" + POLICY
