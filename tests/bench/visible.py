"""How soon a call is seen, and what a reader costs the senders.

    python tests/bench/visible.py [--json] [--probes 40] [--calls 100000]

Both parts run `tierlight up` as a person starts it, in a process of its own.

- `visible_calls_*_ms`, `visible_overview_*_ms`: from the return of a call under the SDK with default settings to the
  answer of a page that shows it: the newest calls, and the overview. Each probe is a route of its own, begun at a random
  moment, and the pages are asked again as soon as they have answered.
- `ack_idle_p99_ms`, `ack_read_p99_ms`: from sending a request of 64 spans to its answer, twenty times a second, over a
  store with thirty days of calls; alone, and while the overview of thirty days is loaded in a loop. `ack_ratio` is the
  second by the first; `pages_per_s` is how often the reader got its page.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx

sys.path.insert(0, str(Path(__file__).parents[1]))

import tierlight
from bench.ingest import requests
from collector.stores.build import batch, call
from tierlight.testing import FakeProvider, FakeReply
from tierlight_collector.records import HOUR_NS
from tierlight_collector.stores import open_store

WAIT_S = 10.0
SPANS_A_REQUEST = 64
REQUESTS_A_SECOND = 20
ROUTES, DAYS, A_BATCH = 200, 30, 5_000
PAGES = {"calls": "/calls", "overview": "/"}


@contextlib.contextmanager
def server(file: Path) -> Iterator[tuple[str, str]]:
    """`tierlight up` over a store; gives the addresses of OTLP and dashboard."""
    http_port, grpc_port, port = free_ports(3)
    command = [
        sys.executable, "-c", "from tierlight_dashboard.cli import main; main()", "up", "--store", f"sqlite:///{file}",
        "--http-port", str(http_port), "--grpc-port", str(grpc_port), "--port", str(port),
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        try:
            for line in running.stdout:
                if line.startswith("store"):
                    break
            else:
                raise SystemExit("tierlight up did not start")
            yield f"http://127.0.0.1:{http_port}", f"http://127.0.0.1:{port}"
        finally:
            running.terminate()
            running.communicate(timeout=30)


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def seen(probes: int, folder: Path) -> dict[str, list[float]]:
    """Milliseconds from a call's end until each page shows its route, one list a page."""
    with server(folder / "seen.db") as (otlp, dashboard), contextlib.ExitStack() as stack:
        import openai

        provider = FakeProvider()
        client = openai.OpenAI(
            api_key="none",
            base_url=stack.enter_context(provider.serve()) + "/v1",
            max_retries=0,
        )
        tierlight.configure(service_name="bench", endpoint=otlp, spool=False)
        stack.callback(tierlight.shutdown)
        chance = random.Random(1)
        found: dict[str, list[float]] = {page: [] for page in PAGES}
        with httpx.Client(base_url=dashboard) as first, httpx.Client(base_url=dashboard) as second:
            for number in range(probes + 1):
                time.sleep(chance.random() * 1.5)
                route = f"probe-{number:03d}"

                @tierlight.route(route, tier="small")
                def ask() -> Any:
                    return client.chat.completions.create(
                        model="gpt-4o-mini", messages=[{"role": "user", "content": "hi"}]
                    )

                provider.queue(
                    FakeReply(input_tokens=100 * (number + 1))
                )  # the overview shows the dearest routes
                ask()
                began = time.perf_counter()
                waits: dict[str, float] = {}
                threads = [
                    threading.Thread(target=_poll, args=(reader, page, route, began, waits))
                    for reader, page in zip((first, second), PAGES, strict=True)
                ]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                if len(waits) < len(PAGES):
                    raise SystemExit(
                        f"{route} was seen only on {', '.join(waits) or 'no page'} within {WAIT_S:g} s"
                    )
                if number:  # the first one pays for what is loaded once
                    for page, wait in waits.items():
                        found[page].append(wait * 1e3)
    return found


def _poll(reader: httpx.Client, page: str, route: str, began: float, waits: dict[str, float]) -> None:
    while time.perf_counter() - began < WAIT_S:
        answer = reader.get(PAGES[page], headers={"accept": "text/html"})
        if answer.status_code >= 500:
            return
        if route in answer.text:
            waits[page] = time.perf_counter() - began
            return
        time.sleep(0.01)


def acknowledged(calls: int, seconds: float, folder: Path) -> dict[str, float]:
    """How long senders wait for an answer, alone and beside a reader of thirty days."""
    file = folder / "read.db"
    fill(file, calls)
    bodies = [
        body for whole in requests(int(seconds * 2 + 4) * REQUESTS_A_SECOND * SPANS_A_REQUEST, content=False)
        for body in _cut(whole)
    ]  # fmt: skip
    with server(file) as (otlp, dashboard):
        port = int(otlp.rpartition(":")[2])
        taken = iter(bodies)
        _send(port, taken, 2.0)  # warm
        idle = _send(port, taken, seconds)
        leave = threading.Event()
        pages: list[float] = []
        reader = threading.Thread(target=_read, args=(dashboard, leave, pages))
        reader.start()
        read = _send(port, taken, seconds)
        leave.set()
        reader.join()
    return {
        "ack_idle_p50_ms": _quantile(idle, 0.5),
        "ack_idle_p99_ms": _quantile(idle, 0.99),
        "ack_read_p50_ms": _quantile(read, 0.5),
        "ack_read_p99_ms": _quantile(read, 0.99),
        "ack_ratio": round(_quantile(read, 0.99) / _quantile(idle, 0.99), 2),
        "pages_per_s": round(len(pages) / seconds, 1),
        "page_p50_ms": _quantile(pages, 0.5),
    }


def fill(file: Path, calls: int) -> None:
    """Thirty days of calls on two hundred routes, summed up as a server has them."""
    chance = random.Random(7)
    now_ns = time.time_ns()
    length_ns = DAYS * 24 * HOUR_NS
    store = open_store(f"sqlite:///{file}")
    for first in range(0, calls, A_BATCH):
        store.append(
            batch(
                *(
                    call(
                        number + 1,
                        number + 1,
                        start_ns=now_ns - length_ns + length_ns * number // calls,
                        duration_ns=int(chance.lognormvariate(7, 0.5) * 1e6),
                        route=f"team-{number % 12}.task-{int(chance.paretovariate(0.7)) % ROUTES:03d}",
                        input_tokens=chance.randrange(200, 4_000),
                        output_tokens=chance.randrange(10, 800),
                        cost_nusd=chance.randrange(10_000, 20_000_000),
                    )
                    for number in range(first, min(first + A_BATCH, calls))
                )
            )
        )
    store.roll_up()
    store.close()


def _cut(body: bytes) -> Iterator[bytes]:
    """A request as several smaller ones."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    whole = ExportTraceServiceRequest.FromString(body)
    spans = list(whole.resource_spans[0].scope_spans[0].spans)
    for start in range(0, len(spans), SPANS_A_REQUEST):
        part = ExportTraceServiceRequest()
        part.CopyFrom(whole)
        scoped = part.resource_spans[0].scope_spans[0]
        del scoped.spans[:]
        scoped.spans.extend(spans[start : start + SPANS_A_REQUEST])
        yield part.SerializeToString()


def _send(port: int, bodies: Iterator[bytes], seconds: float) -> list[float]:
    """Milliseconds to each answer, at a constant rate; a slow answer delays no later request's due time."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    waits: list[float] = []
    began = time.perf_counter()
    for number in range(int(seconds * REQUESTS_A_SECOND)):
        due = began + number / REQUESTS_A_SECOND
        time.sleep(max(0.0, due - time.perf_counter()))
        connection.request("POST", "/v1/traces", next(bodies), {"Content-Type": "application/x-protobuf"})
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise SystemExit(f"expected 200, got {answer.status}")
        waits.append((time.perf_counter() - due) * 1e3)
    connection.close()
    return waits


def _read(dashboard: str, leave: threading.Event, pages: list[float]) -> None:
    with httpx.Client(base_url=dashboard, timeout=60) as reader:
        while not leave.is_set():
            started = time.perf_counter()
            answer = reader.get("/", params={"range": "30d"}, headers={"accept": "text/html"})
            if answer.status_code != 200:
                raise SystemExit(f"expected 200, got {answer.status_code}")
            pages.append((time.perf_counter() - started) * 1e3)


def _quantile(values: Sequence[float], q: float) -> float:
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(q * len(ordered)))], 1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    parser.add_argument("--probes", type=int, default=40, help="calls whose way to the pages is timed")
    parser.add_argument("--calls", type=int, default=100_000, help="calls in the thirty days")
    parser.add_argument("--seconds", type=float, default=10.0, help="of sending, alone and beside the reader")
    said = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        found: dict[str, Any] = {}
        for page, waits in seen(said.probes, Path(name)).items():
            found[f"visible_{page}_p50_ms"] = _quantile(waits, 0.5)
            found[f"visible_{page}_p95_ms"] = _quantile(waits, 0.95)
            found[f"visible_{page}_max_ms"] = _quantile(waits, 1.0)
        found |= acknowledged(said.calls, said.seconds, Path(name))
    if said.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:26} {value:>10}")


if __name__ == "__main__":
    main()
