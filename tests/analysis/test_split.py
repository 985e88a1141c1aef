"""A split that is not the agreed one is named; a shadow test has none."""

from __future__ import annotations

from typing import Literal

from tierlight_dashboard.analysis.comparison import Comparison
from tierlight_dashboard.analysis.split import split_of


def card(candidate: int, control: int, kind: Literal["ab", "shadow"] = "ab") -> dict[str, object]:
    comparison = Comparison(
        "r", kind, "e", "big", "small", share=0.5, calls={"candidate": candidate, "control": control}
    )
    return {"given": {"comparison": comparison.encode().decode()}}


def test_a_fair_split_holds() -> None:
    split = split_of(card(1010, 990))
    assert split is not None
    assert split.sentence == (
        "Sample ratio: 1,010 of 2,000 calls (50.5 %) went to the candidate, 50.0 % was agreed. The split holds."
    )


def test_a_broken_split_says_that_nothing_is_decided() -> None:
    split = split_of(card(1150, 850))
    assert split is not None
    assert not split.holds
    assert "nothing is decided" in split.sentence


def test_there_is_no_split_where_both_sides_answer_every_call() -> None:
    assert split_of(card(500, 500, "shadow")) is None
    assert split_of(None) is None
    assert split_of({"figures": {}}) is None
    assert split_of(card(0, 0)) is None
