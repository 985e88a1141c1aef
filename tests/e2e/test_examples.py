"""Every example, run as a user runs it, ends with what it promises."""

from __future__ import annotations

import csv
import os
import random
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def said(*command: str | Path, code: int = 0, environ: Mapping[str, str] | None = None) -> str:
    """What an example prints; it must end with the given code."""
    ended = subprocess.run(
        [sys.executable, *command],
        cwd=EXAMPLES.parent,
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | dict(environ or {}),
    )
    assert ended.returncode == code, ended.stdout + ended.stderr
    return ended.stdout


def rows_of(text: str, states: Sequence[str]) -> list[str]:
    """The state of each line of the A/B's story."""
    found = re.findall(rf"^day +[\d.]+  ({'|'.join(states)}) ", text, re.MULTILINE)
    return [state for number, state in enumerate(found) if not number or found[number - 1] != state]


STATES = ("proposed", "collecting", "ready", "shipped", "kept", "rolled back")


def test_a_downgrade_goes_from_proposal_to_kept() -> None:
    told = said("examples/ab_downgrade.py")
    assert rows_of(told, STATES) == ["proposed", "collecting", "ready", "shipped", "kept"]
    ready = re.search(r"ready +([\d,]+) calls, K +([\d.e+]+) of (\d+).* saves USD ([\d.]+) a call", told)
    assert ready is not None
    calls, evidence, needed, saving = (float(figure.replace(",", "")) for figure in ready.groups())
    assert calls >= 2_100  # 300 a day, and a week is asked for
    assert evidence >= needed == 20
    assert 0.002 < saving < 0.004
    assert "14 days without harm" in told
    assert "mail.sort now asks gpt-5.4 " not in told
    assert "by tierlight: kept experiment" in told
    assert "0 calls or scores lost" in told


def test_a_harmful_downgrade_takes_itself_back() -> None:
    told = said("examples/ab_downgrade.py", "--harm")
    assert rows_of(told, STATES) == ["proposed", "collecting", "rolled back"]
    assert "mail.sort now asks gpt-5.4 (no split)" in told
    assert "by tierlight: rolled back experiment" in told


def test_an_openai_app_is_seen_after_five_lines_and_not_before() -> None:
    told = said("examples/run_app.py", "openai_app")
    added = [line for line in told.splitlines() if re.match(r"\+[^+\n]", line)]
    assert len(added) == 6  # with its own first line
    assert "tierlight has       0 calls, 0 tokens in, 0 out" in told
    assert_all_arrived(told)
    intent, reply = re.findall(
        r"^  (support\.\w+) +(\S+) +(\S+) +(\d+) +\d+ +\d+ +([\d.]+) +(\d+)$", told, re.MULTILINE
    )
    assert intent[:4] == ("support.intent", "small", "gpt-5-nano", "3")
    assert reply[:4] == ("support.reply", "flagship", "gpt-5.4", "3")
    assert float(reply[4]) > float(intent[4]) > 0
    assert (intent[5], reply[5]) == ("3", "0")  # what validate= scored


@pytest.mark.parametrize(
    ("app", "models"),
    [
        ("langchain_app", {"support.intent": "gpt-5-nano", "support.reply": "gpt-5.4"}),
        ("litellm_app", {"support.intent": "gpt-5-nano", "support.reply": "claude-haiku-4-5"}),
    ],
)
def test_an_app_is_seen_through_its_own_instrumentation(app: str, models: dict[str, str]) -> None:
    variable = f"TIERLIGHT_{app.upper()}_PYTHON"
    python = os.environ.get(variable, sys.executable)
    asked = subprocess.run(
        [sys.executable, "examples/run_app.py", app, "--python", python],
        cwd=EXAMPLES.parent,
        capture_output=True,
        text=True,
        timeout=120,
    )
    if asked.returncode == 2:
        pytest.skip(f"{asked.stderr.strip()}, or set {variable} to the python of a venv with them")
    assert asked.returncode == 0, asked.stdout + asked.stderr
    assert_all_arrived(asked.stdout)
    for route, model in models.items():
        assert re.search(rf"^  {route} +\w+ +{model} +3 ", asked.stdout, re.MULTILINE)
    assert "unpriced" not in asked.stdout


def assert_all_arrived(told: str) -> None:
    """What the provider last served is what tierlight has, to the token, and it is something."""
    served, has = (
        re.findall(rf"^{who} +(\d+ calls, \d+ tokens in, \d+ out)$", told, re.MULTILINE)[-1]
        for who in ("the provider served", "tierlight has")
    )
    assert served == has
    assert served.startswith("6 calls")


def test_a_batch_goes_up_only_where_a_check_fails() -> None:
    told = said("examples/batch_cascade.py", "--invoices", "120")
    assert "120 invoices, 10 went up (8.3%)" in told
    assert told.count("complete 120") == 2


def test_the_support_desk_costs_the_sum_of_its_steps() -> None:
    told = said("examples/customer_support/run.py", "--tickets", "100")
    assert "100 tickets: 70 answered, 30 handed over" in told
    assert re.search(r"^escalated +0\.006400 ", told, re.MULTILINE)
    assert re.search(r"^saved: 94\.\d%", told, re.MULTILINE)


def test_recorded_calls_of_a_model_that_changed_raise_an_alert(tmp_path: Path) -> None:
    chance = random.Random(3)
    with (tmp_path / "recorded.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("task", "family", "era", "model", "score", "latency_s", "output_tokens", "cost_usd"))
        for era, right in (("march", 0.9), ("june", 0.4)):
            for _ in range(400):
                writer.writerow(
                    ("sums", "gpt-4", era, f"gpt-4-{era}", int(chance.random() < right), 1.0, 30, 0.001)
                )
    told = said("examples/llmdrift.py", "--data", tmp_path)
    assert "400 calls before, 0 false alarms" in told
    delay = re.search(r"alert after (\d+) calls", told)
    assert delay is not None
    assert 0 < int(delay.group(1)) < 100


def test_every_example_is_described_and_every_description_is_of_one() -> None:
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    there = {path.name for path in EXAMPLES.glob("*.py")} | {
        f"{path.name}/"
        for path in EXAMPLES.iterdir()
        if path.is_dir() and not path.name.startswith(("_", "."))
    }
    assert set(re.findall(r"^## `([^`]+)`", text, re.MULTILINE)) == there
