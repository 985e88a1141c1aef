"""Every case of the conformance table, asked by a real client through a socket."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from collector.running import Running, running_collector
from tierlight_collector.conformance import Result, run_conformance


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_collector(tmp_path_factory.mktemp("conformance")) as collector:
        yield collector


@pytest.fixture(scope="module")
def results(running: Running) -> list[Result]:
    return run_conformance(running.url)


def test_every_case_is_answered_as_the_specification_says(results: list[Result]) -> None:
    assert [result for result in results if not result.passed] == []
    assert len(results) > 70


def test_what_was_refused_left_nothing_in_flight(running: Running, results: list[Result]) -> None:
    admission = running.collector.ingest.admission
    assert (admission.requests, admission.bytes) == (0, 0)
    assert not [name for name in running.collector.ingest.counters.snapshot() if name.endswith("_500")]


def test_a_probe_against_nothing_fails_every_case() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    assert not any(result.passed for result in run_conformance(f"http://127.0.0.1:{port}", timeout_s=0.5))


def test_probe_spans_are_no_calls(running: Running, results: list[Result]) -> None:
    assert running.store.calls().rows == ()


def test_a_listener_refuses_a_port_that_is_taken(running: Running, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="in use"), running_collector(tmp_path, http_port=running.http_port):
        pass
