"""The support-desk example: its figures follow from its token counts and prices, to the billionth."""

from __future__ import annotations

import importlib.util
import sys
from decimal import Decimal
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[3] / "examples" / "customer_support"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("customer_support_run", FOLDER / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def costs(example: ModuleType) -> tuple[object, object]:
    return example.play("policy.toml", 100), example.play("all_flagship.toml", 20)


def test_each_ticket_costs_the_sum_of_its_steps(costs: tuple[object, object]) -> None:
    routed, _ = costs
    steps = {
        "intent": 1600 * 50 + 50 * 400, "urgency": 1600 * 50 + 50 * 400, "retrieve": 5000 * 20, "rank": 100_000,
        "can_answer": 1000 * 800 + 50 * 4000, "reply": 5000 * 2500 + 600 * 12_500, "check": 1000 * 800 + 50 * 4000,
    }  # fmt: skip
    handed_over = (
        sum(steps[one] for one in ("intent", "urgency", "retrieve", "rank", "can_answer"))
        + 4000 * 250
        + 2000 * 2000
    )
    up_the_cascade = 1600 * 800 + 50 * 4000
    assert sum(steps.values()) == 22_400_000
    assert sorted(routed.answered) == [22_400_000] * 69 + [22_400_000 + up_the_cascade]  # type: ignore[attr-defined]
    assert routed.escalated == (6_400_000,) * 30  # type: ignore[attr-defined]
    assert handed_over == 6_400_000


def test_the_published_figures_are_met_as_far_as_they_are_rounded(
    costs: tuple[object, object], example: ModuleType
) -> None:
    routed, flagship = costs
    near = Decimal("0.002")
    assert abs(Decimal(routed.answered[0]) / 10**9 - Decimal("0.024")) <= near  # type: ignore[attr-defined]
    assert abs(Decimal(routed.escalated[0]) / 10**9 - Decimal("0.008")) <= near  # type: ignore[attr-defined]
    assert abs(routed.weighted - Decimal("0.019")) <= near  # type: ignore[attr-defined]
    assert abs(flagship.weighted - Decimal("0.30")) <= near  # type: ignore[attr-defined]
    assert 1 - routed.weighted / flagship.weighted > Decimal("0.935")  # type: ignore[attr-defined]
    text = example.report(routed, flagship)
    assert "100 tickets: 70 answered, 30 handed over" in text
    assert "saved: 94." in text
