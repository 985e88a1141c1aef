"""The parts of a change of cost: they add up, and each finds what it is named for."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from dashboard import seed
from tierlight_collector.records import CallRow
from tierlight_dashboard.analysis.attribution import Term
from tierlight_dashboard.analysis.costchange import CostChange, cost_change
from tierlight_dashboard.analysis.slices import slices

PRICE_IN, PRICE_OUT = 2_000, 10_000  # nano-dollars a token


def calls(
    n: int, *, tokens: float = 1.0, price: float = 1.0, dear: float = 0.0, escalated: float = 0.0
) -> list[CallRow]:
    """Calls of a cheap and a ten times dearer model; `escalated` is the share whose first answer was refused."""
    rng = random.Random(5)
    plain = next(s.call for s in seed.spans(days=0, volume=0.05) if s.call is not None)
    rows: list[CallRow] = []
    for i in range(n):
        model, factor = ("dear", 10.0) if rng.random() < dear else ("cheap", 1.0)
        size = tokens * rng.uniform(0.5, 1.5)
        read, written = round(1000 * size), round(200 * size)
        unit = price * factor
        one = replace(
            plain, start_ns=i, request_model=model, response_model=model, input_tokens=read, output_tokens=written,
            cached_input_tokens=0, cache_write_input_tokens=0, cost_input_nusd=round(read * PRICE_IN * unit),
            cost_output_nusd=round(written * PRICE_OUT * unit), cost_cached_nusd=0, cost_cache_write_nusd=0, attempt_final=True,
            cost_nusd=round(read * PRICE_IN * unit) + round(written * PRICE_OUT * unit),
        )  # fmt: skip
        if rng.random() < escalated:
            rows.append(CallRow(len(rows), replace(one, attempt_final=False), False))
        rows.append(CallRow(len(rows), one, False))
    return rows


@pytest.mark.parametrize(
    ("after", "name"),
    [
        ({"tokens": 1.5}, "tokens"),
        ({"price": 0.5}, "price"),
        ({"dear": 0.4}, "mix"),
        ({"escalated": 0.3}, "retries"),
    ],
)
def test_what_changed_is_the_part_that_is_named(after: dict[str, float], name: str) -> None:
    change = cost_change(calls(600), calls(600, **after))
    assert change is not None
    assert change.before + sum(t.effect for t in change.terms) == pytest.approx(change.after)
    main = max(change.terms, key=lambda term: abs(term.effect))
    assert main.name == name
    assert abs(main.effect) > 0.9 * abs(change.after - change.before)
    assert main.low is not None
    assert main.high is not None
    assert main.low * main.high > 0, "the interval leaves out zero"


def test_no_change_says_so() -> None:
    change = cost_change(calls(400), calls(400)[:390])
    assert change is not None
    assert "no part moved by more than chance" in change.sentence("before")


def test_a_model_that_only_one_side_knows_is_mix() -> None:
    change = cost_change(calls(300), calls(300, dear=1.0))
    assert change is not None
    found = {t.name: t.effect for t in change.terms}
    assert found["mix"] == pytest.approx(change.after - change.before, rel=0.01)


def test_few_calls_give_no_parts() -> None:
    assert cost_change(calls(99), calls(500)) is None


def test_the_sentence_names_the_largest_part() -> None:
    change = CostChange(
        0.001, 0.002, (Term("tokens", 0.0012, 0.001, 0.0014), Term("price", -0.0002, -0.0003, 0.0))
    )
    assert change.sentence("before") == (
        "A thousand answers cost $2.00, before $1.00. The largest part is tokens a call, up $1.20."
    )


def test_slices_cut_only_by_what_differs_and_cover_all_calls() -> None:
    rows = calls(50, dear=0.5, tokens=2.0)
    found = slices(rows)
    assert {s.by for s in found} == {"model", "input length"}
    for by in ("model", "input length"):
        assert sum(s.sums.calls for s in found if s.by == by) == 50
        assert sum(s.sums.cost_nusd for s in found if s.by == by) == sum(r.call.cost_nusd or 0 for r in rows)
