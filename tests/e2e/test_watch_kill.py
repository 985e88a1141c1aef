"""kill -9 while the watch judges: its evidence and its alerts come out as if nothing had happened."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from collector.stores.build import EPOCH_NS, SECOND_NS, call
from tierlight_collector.decisions import Alert
from tierlight_collector.records import Batch, NormalisedSpan, ScoreRecord
from tierlight_collector.stores import open_store

CALLS, CHANGE, BATCH = 1200, 1000, 60
NOW_NS = EPOCH_NS + CALLS * 60 * SECOND_NS


def spans() -> list[NormalisedSpan]:
    """A scored call a minute; the last ones are worse and slower."""
    random = np.random.default_rng(4)
    found = []
    for number in range(1, CALLS + 1):
        bad = number > CHANGE
        start_ns = EPOCH_NS + number * 60 * SECOND_NS
        took = int(SECOND_NS * random.lognormal(0, 0.3) * (1.6 if bad else 1))
        span = call(number, 1, start_ns=start_ns, duration_ns=took, route="answer")
        assert span.call is not None
        value = float(random.random() < (0.5 if bad else 0.84))
        score = ScoreRecord("right", value, "check", "outcome", start_ns)
        score = replace(score, trace_id=span.call.trace_id, span_id=span.call.span_id)
        found.append(replace(span, scores=(score,)))
    return found


def judge(url: str, kill_after: int | None = None) -> list[str]:
    """Run the watch in another process; `kill_after` so many commits it is killed."""
    script = str(Path(__file__).with_name("watching.py"))
    command = [sys.executable, script, url, str(BATCH), str(NOW_NS)]
    lines = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.strip())
            if len(lines) == kill_after:
                process.send_signal(signal.SIGKILL)
                break
        process.wait()
    return lines


def outcome(url: str) -> tuple[dict[str, bytes], dict[str, int], list[Alert]]:
    store = open_store(url, now_ns=lambda: NOW_NS)
    try:
        alerts = sorted(store.alerts(), key=lambda alert: alert.test_key)
        return dict(store.detector_states()), dict(store.watermarks()), [replace(a, id=0) for a in alerts]
    finally:
        store.close()


@pytest.mark.parametrize("kills", [[9], pytest.param([2, 3, 4, 3, 5], marks=pytest.mark.slow)])
def test_a_watch_killed_between_batches_ends_with_the_same_bits(tmp_path: Path, kills: list[int]) -> None:
    urls = [f"sqlite:///{tmp_path}/{name}.db" for name in ("whole", "killed")]
    for url in urls:
        store = open_store(url, now_ns=lambda: NOW_NS)
        store.append(Batch(spans=tuple(spans()), arrived_ns=NOW_NS))
        store.close()
    assert judge(urls[0])[-1] == "done"
    for after in kills:
        assert "done" not in judge(urls[1], kill_after=after)
    assert judge(urls[1])[-1] == "done"
    whole, killed = (outcome(url) for url in urls)
    assert killed == whole
    assert any(alert.kind == "quality" for alert in whole[2])
