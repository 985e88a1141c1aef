"""The benchmark of the SDK still runs and says what it promises; its figures are for people."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[1] / "bench" / "sdk.py"


@pytest.mark.slow
def test_the_benchmark_prints_one_object_with_its_figures() -> None:
    command = [sys.executable, str(BENCH), "--json", "--calls", "200", "--rounds", "1"]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    promised = "bare_us stock_us ours_us ours_thread_us ratio_plain ratio_stream ratio_async import_s"
    assert set(promised.split()) <= set(found)
    assert found["ours_peak_bytes"] == pytest.approx(found["ours_long_stream_peak_bytes"], abs=5_000)
