"""The batch example: what fails its check goes up, nothing is lost, and less is spent."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest


def test_only_what_fails_its_check_goes_up(capsys: pytest.CaptureFixture[str]) -> None:
    spec = importlib.util.spec_from_file_location(
        "batch_cascade", Path(__file__).parents[3] / "examples/batch_cascade.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.main(["--invoices", "60"]) == 0
    said = capsys.readouterr().out
    assert "60 invoices, 5 went up (8.3%)" in said
    assert said.count("complete 60") == 2
    assert float(said.rpartition("saved")[2].strip().rstrip("%\n")) > 50
