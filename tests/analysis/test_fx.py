"""Amounts in another currency: the rate of the day, never a later one, never a guess."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest

from tierlight.errors import ConfigurationError
from tierlight_dashboard.analysis.fx import FxTable

TABLE = FxTable.from_toml(
    b'[[rate]]\ndate = 2026-11-01\nfrom = "USD"\nto = "EUR"\nrate = 0.90\nsource = "ECB"\n'
    b'[[rate]]\ndate = 2026-10-01\nfrom = "USD"\nto = "EUR"\nrate = 0.80\n'
    b'[[rate]]\ndate = 2026-10-01\nfrom = "GBP"\nto = "USD"\nrate = 1.25\n'
)


@pytest.mark.parametrize(
    ("day", "currency", "amount", "shown_in"),
    [
        (date(2026, 10, 1), "EUR", "8", "EUR"),
        (date(2026, 10, 31), "EUR", "8", "EUR"),
        (date(2026, 11, 1), "EUR", "9", "EUR"),
        (date(2027, 1, 1), "EUR", "9", "EUR"),
        (date(2026, 9, 30), "EUR", "10", "USD"),
        (date(2026, 11, 1), "GBP", "8", "GBP"),
        (date(2026, 11, 1), "JPY", "10", "USD"),
    ],
)
def test_amount_is_shown_at_the_latest_rate_on_or_before_its_day(
    day: date, currency: str, amount: str, shown_in: str
) -> None:
    shown = TABLE.show(10_000_000_000, currency, day)
    assert (shown.amount, shown.currency) == (Decimal(amount), shown_in)
    assert (shown.rate is None) == (shown_in == "USD")


def test_total_converts_each_day_at_its_own_rate() -> None:
    shown = TABLE.total({date(2026, 11, 2): 10_000_000_000, date(2026, 10, 2): 10_000_000_000}, "EUR")
    assert (shown.amount, shown.currency) == (Decimal(17), "EUR")
    assert shown.rate is not None
    assert (shown.rate.day, shown.rate.source) == (date(2026, 11, 1), "ECB")


def test_total_with_a_day_without_rate_stays_in_dollars() -> None:
    shown = TABLE.total({date(2026, 11, 2): 1_000_000_000, date(2026, 1, 2): 1_000_000_000}, "EUR")
    assert (shown.amount, shown.currency, shown.rate) == (Decimal(2), "USD", None)


ROW = '[[rate]]\ndate = 2026-11-01\nfrom = "USD"\nto = "EUR"\n'


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        ("[[rate", "not TOML"),
        ("[rates]", r"\[\[rate\]\] only"),
        (ROW, r"1: rate must be a number above 0"),
        (ROW + "rate = 0", "above 0"),
        (ROW + "rate = 0.9\nbank = 'x'", "unknown key 'bank'"),
        (ROW.replace("EUR", "euro") + "rate = 1", "three letters"),
        (ROW.replace('"USD"', '"CHF"') + "rate = 1", "must be USD"),
        (ROW.replace("2026-11-01", "'2026-11-01'") + "rate = 1", "without quotes"),
    ],
)
def test_rate_file_that_cannot_be_right_names_its_row(toml: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        FxTable.from_toml(toml.encode())
