"""kill -9 while clients send: what was acknowledged is there afterwards, whole, and the sums agree with the calls."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest

from collector.test_http import JSON, call_json
from tierlight_collector.conformance import request_json
from tierlight_collector.records import Filters, TimeRange
from tierlight_collector.stores import Store, open_store

CLIENTS = 8
SPANS_A_REQUEST = 5
DAY_NS = 86_400_000_000_000


@contextmanager
def server(url: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    command = [sys.executable, str(Path(__file__).with_name("serving.py")), url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, int(process.stdout.readline())
        finally:
            process.kill()


class Client(threading.Thread):
    """Sends one request after the other until the server is gone; remembers what was acknowledged and what was not."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.port = port
        self.acknowledged: list[list[tuple[str, str]]] = []
        self.open: list[tuple[str, str]] = []

    def run(self) -> None:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            while True:
                spans = [call_json() for _ in range(SPANS_A_REQUEST)]
                self.open = [(span["traceId"], span["spanId"]) for span in spans]
                connection.request("POST", "/v1/traces", request_json(*spans), JSON)
                answer = connection.getresponse()
                answer.read()
                if answer.status == 200:
                    self.acknowledged.append(self.open)
        except (OSError, HTTPException):
            pass  # that is the kill
        finally:
            connection.close()


def is_stored(store: Store, ids: tuple[str, str]) -> bool:
    return store.call(bytes.fromhex(ids[0]), bytes.fromhex(ids[1])) is not None


def kill_under_load(url: str, after_s: float) -> list[Client]:
    with server(url) as (process, port):
        clients = [Client(port) for _ in range(CLIENTS)]
        for client in clients:
            client.start()
        deadline = time.monotonic() + 10
        while not any(client.acknowledged for client in clients) and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(after_s)
        process.send_signal(signal.SIGKILL)
        process.wait()
        for client in clients:
            client.join(timeout=15)
    return clients


def check_all(url: str, kills: int, chance: random.Random) -> None:
    acknowledged = 0
    for _ in range(kills):
        clients = kill_under_load(url, chance.uniform(0.0, 0.3))
        store = open_store(url)
        try:
            for client in clients:
                for request in client.acknowledged:
                    assert all(is_stored(store, ids) for ids in request), "an acknowledged call is lost"
                assert len({is_stored(store, ids) for ids in client.open}) == 1, "half of a request is stored"
                acknowledged += len(client.acknowledged) * SPANS_A_REQUEST
            now_ns = time.time_ns()
            (total,) = store.rollups(TimeRange(now_ns - DAY_NS, now_ns + DAY_NS), (), Filters())
            assert total.calls == store.health().calls >= acknowledged
            assert total.input_tokens == 12 * total.calls
        finally:
            store.close()
    assert acknowledged > 0


def test_nothing_acknowledged_is_lost_when_the_process_is_killed(tmp_path: Path) -> None:
    check_all(f"sqlite:///{tmp_path / 'calls.db'}", 3, random.Random(7))


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_in_24_kills(tmp_path: Path) -> None:
    check_all(f"sqlite:///{tmp_path / 'calls.db'}", 24, random.Random(24))


def test_a_stop_finishes_what_is_in_flight_and_leaves_a_clean_file(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'calls.db'}"
    with server(url) as (process, port):
        clients = [Client(port) for _ in range(3)]
        for client in clients:
            client.start()
        time.sleep(0.3)
        process.communicate(timeout=20)  # ends stdin
        for client in clients:
            client.join(timeout=15)
    assert process.returncode == 0
    store = open_store(url)
    try:
        assert all(
            is_stored(store, ids) for client in clients for request in client.acknowledged for ids in request
        )
        assert any(client.acknowledged for client in clients)
    finally:
        store.close()
