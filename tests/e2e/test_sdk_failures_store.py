"""From the user's program to the stored call, over an outage: every call is in the store once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from collector.running import Running, running_collector
from e2e.doubles.program import BUDGET_S, Program
from tierlight_collector.records import CallEvidence

CALLS = """
    for _ in range(600):
        ask()
    tierlight.score(1.0, "helpful", call="00000000-0000-7000-8000-000000000001")
    report()
"""


def stored(running: Running) -> list[CallEvidence]:
    return running.store.call_evidence(0, 10_000)


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_calls_made_while_the_collector_was_down_are_stored_once_after_the_next_start(
    tmp_path: Path, protocol: str
) -> None:
    spool, data = tmp_path / "spool", tmp_path / "data"
    data.mkdir()
    program = Program("http://127.0.0.1:1", spool, {"OTEL_EXPORTER_OTLP_PROTOCOL": protocol})
    end = program.run(CALLS)
    assert end.status == 0
    assert end.exit_s < BUDGET_S
    kept = tmp_path / "kept"
    shutil.copytree(spool, kept)

    with running_collector(data) as running:
        program.endpoint = running.url if protocol == "http/protobuf" else f"http://{running.grpc_address}"
        program.run("ask(); report(delivered=tierlight.flush(5))")
        assert program.spooled_files() == []
        assert len(stored(running)) == 601

        # A process that was killed between the answer and the deletion of its file sends it all again.
        shutil.copytree(kept, spool, dirs_exist_ok=True)
        program.run("ask(); report(delivered=tierlight.flush(5))")
        assert program.spooled_files() == []
        assert len({(call.trace_id, call.span_id) for call in stored(running)}) == len(stored(running)) == 602
        assert {call.route for call in stored(running)} == {"support"}
        assert {call.input_tokens for call in stored(running)} == {9}
