"""A server that is killed in the middle of ingest: everything it acknowledged is there when it starts again."""

from __future__ import annotations

import json
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tierlight_collector.records import Filters, TimeRange
from tierlight_collector.stores import open_store

SENDERS = 4
SPANS = 20


def free_ports(n: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [listener.getsockname()[1] for listener in held]
    for listener in held:
        listener.close()
    return ports


@contextmanager
def server(url: str, http_port: int, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """`tierlight up`, ready to take spans."""
    command = (
        "import sys; from tierlight_dashboard.cli import main; sys.argv[0] = 'tierlight'; main()",
        "up",
        *("--store", url, "--http-port", str(http_port), "--port", str(port), "--grpc-port", "0"),
    )
    process = subprocess.Popen([sys.executable, "-c", *command], stdout=subprocess.DEVNULL)
    try:
        for _ in range(200):
            try:
                if httpx.get(f"http://127.0.0.1:{http_port}/readyz").status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.05)
        else:
            pytest.fail("the server did not start within 10 s")
        yield process
    finally:
        process.kill()
        process.wait()


def request(batch: int, sender: int) -> tuple[bytes, list[str]]:
    """One OTLP/JSON request of calls and the ids of its spans."""
    start = time.time_ns()
    ids = [f"{sender + 1:02x}{batch:08x}{n:06x}" for n in range(SPANS)]  # an id of zeros is refused
    spans = [
        {
            "traceId": f"{span_id:0>32}",
            "spanId": span_id,
            "name": "chat gpt-4o-mini",
            "kind": 3,
            "startTimeUnixNano": str(start),
            "endTimeUnixNano": str(start + 5_000_000),
            "attributes": [
                {"key": "gen_ai.operation.name", "value": {"stringValue": "chat"}},
                {"key": "gen_ai.provider.name", "value": {"stringValue": "openai"}},
                {"key": "gen_ai.request.model", "value": {"stringValue": "gpt-4o-mini"}},
                {"key": "gen_ai.usage.input_tokens", "value": {"intValue": "120"}},
                {"key": "gen_ai.usage.output_tokens", "value": {"intValue": "34"}},
                {"key": "tierlight.route", "value": {"stringValue": "killed"}},
            ],
        }
        for span_id in ids
    ]
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}).encode(), ids


class Sender(threading.Thread):
    """Posts batches until the connection breaks; keeps the ids that were answered 200."""

    def __init__(self, url: str, number: int, first_batch: int) -> None:
        super().__init__(daemon=True)
        self.acknowledged: list[str] = []
        self._url, self._number, self._batch = url, number, first_batch

    def run(self) -> None:
        with httpx.Client() as client:
            while True:
                body, ids = request(self._batch, self._number)
                self._batch += 1
                try:
                    answer = client.post(
                        self._url, content=body, headers={"Content-Type": "application/json"}
                    )
                except httpx.TransportError:
                    return
                if answer.status_code == 200:
                    self.acknowledged += ids


def kill_and_recover(tmp_path: Path, kills: int) -> None:
    url = f"sqlite:///{tmp_path / 'killed.db'}"
    rng = random.Random(5)
    acknowledged: list[str] = []
    for attempt in range(kills):
        http_port, port = free_ports(2)
        with server(url, http_port, port) as process:
            senders = [
                Sender(f"http://127.0.0.1:{http_port}/v1/traces", number, attempt * 1_000_000)
                for number in range(SENDERS)
            ]
            for sender in senders:
                sender.start()
            time.sleep(rng.uniform(0.2, 0.9))
            process.send_signal(signal.SIGKILL)
            process.wait()
            for sender in senders:
                sender.join(timeout=10)
                acknowledged += sender.acknowledged
    assert acknowledged, "nothing was acknowledged before the kills: the test proved nothing"
    store = open_store(url)
    try:
        (total,) = store.rollups(TimeRange(0, 2**62), (), Filters())
        missing = [
            span_id
            for span_id in acknowledged
            if store.call(bytes.fromhex(f"{span_id:0>32}"), bytes.fromhex(span_id)) is None
        ]
        stored = store.health().calls
    finally:
        store.close()
    assert missing == []
    assert total.calls == stored, "sums must equal a recount after a crash"
    assert total.input_tokens == 120 * stored


def test_acknowledged_spans_survive_a_kill(tmp_path: Path) -> None:
    kill_and_recover(tmp_path, 2)


@pytest.mark.slow
def test_acknowledged_spans_survive_twenty_four_kills(tmp_path: Path) -> None:
    kill_and_recover(tmp_path, 24)
