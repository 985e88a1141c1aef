"""An invoice beside what was traced: by day or month, by model where the invoice names them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from collector.stores import build
from tierlight_collector.errors import BadRequest
from tierlight_collector.reconcile import InvoiceLine, Reconciled, Traced, read_invoice, reconcile
from tierlight_collector.stores import open_store
from tierlight_dashboard.cli.commands import app

DAYS = [
    Traced("2026-10-31", "openai", "gpt-4o-mini-2024-07-18", 1, 0, 7),
    Traced("2026-11-01", "openai", "gpt-4o-mini-2024-07-18", 10, 0, 1_000),
    Traced("2026-11-02", "openai", "gpt-4o-mini", 5, 2, 500),
    Traced("2026-11-02", "openai", "gpt-5", 1, 0, 4_000),
    Traced("2026-11-02", "anthropic", "claude-sonnet-4-5", 3, 3, 0),
]


def test_a_file_with_other_names_and_signs_is_read() -> None:
    text = '﻿Provider, Month, Model, Amount, Currency\nOpenAI,2026-11,gpt-4o-mini-2024-07-18,"$1,234.5",usd\nmistral,2026-11,,0.25,\n'
    assert read_invoice(text) == [
        InvoiceLine("2026-11", "openai", "gpt-4o-mini", 1_234_500_000_000),
        InvoiceLine("2026-11", "mistral_ai", "", 250_000_000),
    ]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("provider,month\n", "columns provider, day or month, amount"),
        ("", "got none"),
        ("provider,month,amount\nopenai,November,1", "line 2: expected month as 2026-11"),
        ("provider,month,amount\nopenai,2026-11,1\nopenai,2026-11,free", "line 3: .*US dollars, got 'free'"),
        ("provider,month,amount,currency\nopenai,2026-11,1,EUR", "USD, got EUR"),
        ("provider,month,amount\n,2026-11,1", "expected a provider"),
    ],
)
def test_a_wrong_line_is_named(text: str, named: str) -> None:
    with pytest.raises(BadRequest, match=named):
        read_invoice(text)


def test_a_month_holds_its_days_and_no_others() -> None:
    assert reconcile([InvoiceLine("2026-11", "openai", "", 6_000)], DAYS) == [
        Reconciled("2026-11", "openai", "", 6_000, 5_500, 16, 2)
    ]
    (row,) = reconcile([InvoiceLine("2026-11", "openai", "", 6_000)], DAYS)
    assert row.difference_nusd == 500
    assert row.share == pytest.approx(1 / 12)


def test_snapshots_are_one_model_and_traced_models_that_were_not_billed_are_shown() -> None:
    lines = [
        InvoiceLine("2026-11", "openai", "gpt-4o-mini", 1_000),
        InvoiceLine("2026-11", "openai", "gpt-4o-mini", 400),
    ]
    assert reconcile(lines, DAYS) == [
        Reconciled("2026-11", "openai", "gpt-4o-mini", 1_400, 1_500, 15, 2),
        Reconciled("2026-11", "openai", "gpt-5", None, 4_000, 1, 0),
    ]


def test_what_was_billed_and_never_traced_is_all_difference() -> None:
    (row,) = reconcile([InvoiceLine("2026-11-02", "groq", "", 900)], DAYS)
    assert (row.traced_nusd, row.difference_nusd, row.share) == (0, 900, 1.0)


def test_the_command_counts_judges_too_and_fails_on_a_line_that_is_off(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'data' / 'calls.db'}"
    store = open_store(url, now_ns=build.Clock())
    store.append(
        build.batch(
            build.call(1, 1, cost_nusd=600_000_000),
            build.call(2, 2, cost_nusd=400_000_000, purpose="judge"),
            build.call(3, 3, cost_nusd=None),
        )
    )
    store.close()
    invoice = tmp_path / "invoice.csv"
    invoice.write_text("provider,day,amount\nopenai,2024-10-04,1.02\n")
    words = ["reconcile", str(invoice), "--store", url, "--format", "json"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    (row,) = json.loads(done.stdout)
    assert (row["billed_usd"], row["traced_usd"], row["calls"], row["unpriced"]) == (1.02, 1.0, 3, 1)
    off = CliRunner().invoke(app, [*words, "--tolerance", "0.01"])
    assert off.exit_code == 1
    assert "1 of 1 lines differ by more than 1%" in off.output
