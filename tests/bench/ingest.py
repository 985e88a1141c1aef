"""How many spans the collector stores durably per second and per CPU-second, beside the ceiling of the same run.

The ceiling is what one thread of Python can do at best with the same requests: protobuf parse, a walk over the
attributes, executemany of full rows into the same tables with their indexes, the compressed block of raw attributes
that belongs to those rows, one commit a request. The collector does the same through HTTP, and normalises, prices,
finds duplicates and settles on the way. `ceiling_shortcut` is the same with a walk that takes the first field that
is not nothing: quicker, but it can not tell 0 from "" or from an array. Ratios within one run compare; absolute
figures belong to a machine.

    python tests/bench/ingest.py [--json] [--spans 20000]
    python tests/bench/ingest.py --calls 5000000      whether a span costs the same at every size of the store
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import secrets
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tierlight.pricing import PriceBook
from tierlight_collector.costing import Costing
from tierlight_collector.serve import collect_garbage_seldom, serve_collector
from tierlight_collector.stores import open_store
from tierlight_collector.stores.blocks import pack
from tierlight_collector.stores.files import connect_writer

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench import growth

SPANS_A_REQUEST = 512
ROUTES = ("classify-intent", "draft-reply", "summarise", "extract")
PROSE = "\n".join(topics.values())  # Python's own manual: 0.7 MB of English
TEXT_CHARACTERS = 700  # of the prompt and of the answer each


@dataclass(frozen=True)
class Measured:
    """One configuration: wall clock of the senders, CPU and peak memory of the server."""

    spans_per_s: float
    spans_per_cpu_s: float
    ack_p50_ms: float
    ack_p99_ms: float
    rss_mb: float
    bytes_per_call: float


def requests(spans: int, *, content: bool) -> list[bytes]:
    """Export requests with 25 attributes a span as the OpenTelemetry instrumentations send them, all ids new."""
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    for key, text in (
        ("service.name", "support"),
        ("service.instance.id", "a1"),
        ("telemetry.sdk.language", "python"),
    ):
        group.resource.attributes.append(KeyValue(key=key, value=AnyValue(string_value=text)))
    scoped = group.scope_spans.add()
    scoped.scope.name = "opentelemetry.instrumentation.openai_v2"
    chance = random.Random(1)
    for number in range(SPANS_A_REQUEST):
        span = scoped.spans.add(name="chat gpt-4o-mini", kind=3)
        said: dict[str, Any] = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": "gpt-4o-mini",
            "gen_ai.response.model": "gpt-4o-mini-2024-07-18",
            "gen_ai.response.id": f"chatcmpl-{secrets.token_hex(12)}",
            "gen_ai.request.temperature": 0.2,
            "gen_ai.request.max_tokens": 512,
            "gen_ai.request.top_p": 1.0,
            "gen_ai.request.seed": 7,
            "gen_ai.usage.input_tokens": 400 + number,
            "gen_ai.usage.output_tokens": 80 + number % 40,
            "gen_ai.usage.cache_read.input_tokens": 128,
            "gen_ai.usage.reasoning.output_tokens": 16,
            "gen_ai.response.time_to_first_chunk": 0.31,
            "gen_ai.request.stream": True,
            "gen_ai.conversation.id": f"conv-{number % 50}",
            "gen_ai.prompt.name": "triage",
            "gen_ai.prompt.version": "3",
            "openai.response.service_tier": "default",
            "server.address": "api.openai.com",
            "server.port": 443,
            "user.id": f"u-{number % 90}",
            "tierlight.route": ROUTES[number % 4],
            "tierlight.tier": "small",
            "tierlight.call.id": secrets.token_hex(8),
        }
        if content:
            said["gen_ai.input.messages"] = json.dumps([{"role": "user", "content": _text(chance)}])
            said["gen_ai.output.messages"] = json.dumps([{"role": "assistant", "content": _text(chance)}])
        for key, value in said.items():
            span.attributes.append(KeyValue(key=key, value=_value(value)))
    made: list[bytes] = []
    now = time.time_ns()
    for _ in range(max(1, spans // SPANS_A_REQUEST)):
        for span in scoped.spans:
            span.trace_id, span.span_id = secrets.token_bytes(16), secrets.token_bytes(8)
            span.start_time_unix_nano, span.end_time_unix_nano = now, now + 900_000_000
            span.attributes[4].value.string_value = f"chatcmpl-{secrets.token_hex(12)}"
            span.attributes[24].value.string_value = secrets.token_hex(8)
            now += 1_000_000
        made.append(request.SerializeToString())
    return made


def _text(chance: random.Random) -> str:
    start = chance.randrange(len(PROSE) - TEXT_CHARACTERS)
    return PROSE[start : start + TEXT_CHARACTERS]


def _value(value: Any) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    return AnyValue(double_value=value) if isinstance(value, float) else AnyValue(string_value=value)


def _walk(span: Span) -> dict[str, Any]:
    """All attributes as Python values, each asked for its kind."""
    found: dict[str, Any] = {}
    for pair in span.attributes:
        value = pair.value
        kind = value.WhichOneof("value")
        found[pair.key] = getattr(value, kind) if kind else None
    return found


def _walk_by_shortcut(span: Span) -> dict[str, Any]:
    """The same for attributes that are neither 0 nor empty nor nested."""
    found: dict[str, Any] = {}
    for pair in span.attributes:
        value = pair.value
        found[pair.key] = value.string_value or value.int_value or value.double_value or value.bool_value
    return found


def ceiling(bodies: Sequence[bytes], stored: Path, walk: Callable[[Span], dict[str, Any]]) -> float:
    """Spans per CPU-second of parse + attribute walk + insert of the same rows into the same tables, one thread.

    The rows are those that the collector made of such requests (read from `stored` beforehand), under the ids of
    these; the block of raw attributes is built from what the walk found.
    """
    path = stored.with_name("ceiling.db")
    open_store(f"sqlite:///{path}").close()
    with sqlite3.connect(stored) as source:
        names = [column[1] for column in source.execute("PRAGMA table_info(calls)")]
        rows = [list(row) for row in source.execute("SELECT * FROM calls LIMIT ?", (SPANS_A_REQUEST,))]
        block_names = [column[1] for column in source.execute("PRAGMA table_info(span_blocks)")]
    trace_at, span_at, start_at, seq_at = (names.index(n) for n in ("trace_id", "span_id", "start_ns", "seq"))
    response_at, call_at = names.index("response_id"), names.index("call_id")
    insert_call = f"INSERT INTO calls VALUES ({', '.join('?' * len(names))}) ON CONFLICT DO NOTHING"  # noqa: S608
    insert_block = f"INSERT INTO span_blocks VALUES ({', '.join('?' * len(block_names))})"  # noqa: S608
    connection = connect_writer(path)
    seq = 0
    started = time.process_time()
    for body in bodies:
        made, raw = [], []
        for resource_spans in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope_spans in resource_spans.scope_spans:
                for span, row in zip(scope_spans.spans, rows, strict=True):
                    found = walk(span)
                    seq += 1
                    row[trace_at], row[span_at] = span.trace_id, span.span_id
                    row[start_at], row[seq_at] = span.start_time_unix_nano, seq
                    row[response_at], row[call_at] = found["gen_ai.response.id"], found["tierlight.call.id"]
                    made.append(tuple(row))
                    raw.append([seq, span.name, span.kind, span.end_time_unix_nano, found])
        first_ns, last_ns = made[0][start_at], made[-1][start_at]
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(insert_call, made)
        connection.execute(insert_block, (made[0][seq_at], seq, len(raw), first_ns, last_ns, pack(raw)))
        connection.execute("COMMIT")
    spent = time.process_time() - started
    stored_rows = connection.execute("SELECT count(*) FROM calls").fetchone()[0]
    connection.close()
    for file in path.parent.glob("ceiling.db*"):
        file.unlink()
    assert stored_rows == seq, f"the ceiling stored {stored_rows} of {seq} spans"
    return seq / spent


def collector(
    bodies: Sequence[bytes], warm_up: Sequence[bytes], folder: Path, *, connections: int, content: bool
) -> Measured:
    """Post all bodies over so many connections to a collector in a process of its own; durable when answered."""
    folder.mkdir()
    command = [sys.executable, __file__, "--serve", str(folder), *(["--content"] if content else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        _post(port, warm_up, [])
        cpu_before = _cpu_s(server.pid)
        acks: list[float] = []
        started = time.perf_counter()
        threads = [
            threading.Thread(target=_post, args=(port, bodies[number::connections], acks))
            for number in range(connections)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wall = time.perf_counter() - started
        cpu = _cpu_s(server.pid) - cpu_before
        rss = _peak_rss_mb(server.pid)
        server.communicate(timeout=30)
    acks.sort()
    spans = len(bodies) * SPANS_A_REQUEST
    stored = spans + len(warm_up) * SPANS_A_REQUEST
    path = folder / "calls.db"
    with sqlite3.connect(path) as connection:
        found = connection.execute("SELECT count(*) FROM calls").fetchone()[0]
    assert found == stored, f"{stored} calls were acknowledged, {found} are stored"
    size = sum(file.stat().st_size for file in folder.iterdir() if file.name.startswith("calls.db"))
    return Measured(
        spans / wall,
        spans / cpu,
        acks[len(acks) // 2] * 1e3,
        acks[int(len(acks) * 0.99)] * 1e3,
        rss,
        size / stored,
    )


def _post(port: int, bodies: Sequence[bytes], acks: list[float]) -> None:
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    for body in bodies:
        started = time.perf_counter()
        connection.request("POST", "/v1/traces", body, {"Content-Type": "application/x-protobuf"})
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise SystemExit(f"expected 200, got {answer.status}")
        acks.append(time.perf_counter() - started)
    connection.close()


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _peak_rss_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise SystemExit("no VmHWM in /proc: this bench needs Linux")


def serve(folder: Path, *, content: bool, profile: Path | None) -> None:
    """The collector as `tierlight up` runs it, until stdin ends."""

    collect_garbage_seldom()

    async def run() -> None:
        store = open_store(f"sqlite:///{folder / 'calls.db'}")
        costing = Costing(PriceBook.default())
        async with serve_collector(
            store, http_port=0, grpc_port=None, costing=costing, content=content
        ) as running:
            print(running.http_port, flush=True)
            await asyncio.to_thread(sys.stdin.read)
        await asyncio.to_thread(store.close)

    import uvloop

    if profile is not None:
        _profile_threads(profile)
    uvloop.run(run())


def _profile_threads(path: Path) -> None:
    """Profile the decode and writer threads into `path`-<thread>; the event loop is left alone."""
    import atexit
    import cProfile

    profiles: list[tuple[str, cProfile.Profile]] = []
    run_thread = threading.Thread.run

    def run(self: threading.Thread) -> None:
        profile = cProfile.Profile(time.thread_time)
        profiles.append((self.name, profile))
        profile.runcall(run_thread, self)

    threading.Thread.run = run  # type: ignore[method-assign]

    def write() -> None:
        for name, profile in profiles:
            profile.dump_stats(f"{path}-{name}")

    atexit.register(write)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--spans", type=int, default=20_480, help="spans a configuration")
    parser.add_argument("--calls", type=int, help="instead: the cost of a span on the way to so many calls")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--content", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument(
        "--profile", type=Path, default=os.environ.get("TIERLIGHT_BENCH_PROFILE"), help=argparse.SUPPRESS
    )
    said = parser.parse_args()
    if said.serve:
        serve(said.serve, content=said.content, profile=Path(said.profile) if said.profile else None)
        return
    if said.calls:
        growth.main(said.calls, requests(SPANS_A_REQUEST, content=False)[0], as_json=said.json)
        return
    collect_garbage_seldom()
    plain, rich = requests(said.spans, content=False), requests(said.spans // 2, content=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        runs: dict[str, Measured] = {}
        ceilings: list[list[float]] = []
        for connections in (1, 4):
            for content, bodies in ((False, plain), (True, rich)):
                warm_up = requests(2 * SPANS_A_REQUEST, content=content)
                key = f"{'content' if content else 'plain'}_{connections}"
                runs[key] = collector(bodies, warm_up, folder / key, connections=connections, content=content)
                stored = folder / "plain_1" / "calls.db"
                ceilings.append([ceiling(plain, stored, walk) for walk in (_walk, _walk_by_shortcut)])
    best, shortcut = (statistics.median(found) for found in zip(*ceilings, strict=True))
    plain_4 = runs["plain_4"]
    result = {
        "ceiling_spans_per_cpu_s": round(best),
        "spans_per_cpu_s": round(plain_4.spans_per_cpu_s),
        "ratio": round(plain_4.spans_per_cpu_s / best, 3),
        "spans_per_s": round(plain_4.spans_per_s),
        "rss_mb": round(max(run.rss_mb for run in runs.values()), 1),
        "bytes_per_call": round(plain_4.bytes_per_call),
        "bytes_per_call_with_content": round(runs["content_4"].bytes_per_call),
        "ceiling_shortcut": round(shortcut),
        "ratio_to_shortcut": round(plain_4.spans_per_cpu_s / shortcut, 3),
        "ratio_1_connection": round(runs["plain_1"].spans_per_cpu_s / best, 3),
        "wire_bytes_per_span": round(sum(map(len, plain)) / (len(plain) * SPANS_A_REQUEST)),
        "runs": {
            key: {name: round(value, 1) for name, value in vars(run).items()} for key, run in runs.items()
        },
    }
    if said.json:
        print(json.dumps(result))
        return
    print(
        f"ceiling: {best:,.0f} spans per CPU-second (parse, walk, rows, block; one thread),"
        f" {shortcut:,.0f} with the shortcut walk"
    )
    for key, run in runs.items():
        print(
            f"{key:10}  {run.spans_per_cpu_s:8,.0f} spans/CPU-s ({run.spans_per_cpu_s / best:.2f} of it)  "
            f"{run.spans_per_s:8,.0f} spans/s  ack p50 {run.ack_p50_ms:.0f} p99 {run.ack_p99_ms:.0f} ms  "
            f"{run.rss_mb:.0f} MB  {run.bytes_per_call:.0f} bytes/call"
        )


if __name__ == "__main__":
    main()
