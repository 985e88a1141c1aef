"""Whether a span costs the collector the same at ten thousand calls and at five million.

Posts spans with ids of their own to one collector in a process of its own, 20 days of traffic in the order of time,
and prints at each size what a span cost since the size before: CPU of the server (user and system), bytes it wrote
and read, and its memory; at the end the bytes a call takes on disk. Hours close and are rolled up on the way, as in a server
that has been up for 20 days.

The spans are those of tests/bench/ingest.py with the ids as SDKs make them: random trace, span, response and
conversation ids (one conversation for 8 calls), 5,000 users, call ids that begin with the time (UUIDv7), 40 routes.

    python tests/bench/ingest.py --calls 5000000 [--json]
"""

from __future__ import annotations

import json
import os
import random
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

SIZES: Final = (10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 5_000_000)
DAYS: Final = 20
CALLS_IN_ALL_DAYS: Final = 5_000_000
_TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Reached:
    """What a span cost the server from the size before up to `calls` stored ones."""

    calls: int
    cpu_us: float
    system_us: float  # the part of it that was spent in the kernel
    written_bytes: float
    read_bytes: float
    rss_mb: float


@dataclass(frozen=True)
class _Spent:
    user_s: float
    system_s: float
    written: int
    read: int


class Requests:
    """Export requests of one shape: the bytes of the first, with new ids and times put in their places."""

    def __init__(self, template: bytes, *, end_ns: int, seed: int = 1) -> None:
        message = ExportTraceServiceRequest.FromString(template)
        spans = message.resource_spans[0].scope_spans[0].spans
        self.spans = len(spans)
        self._chance = random.Random(seed)
        self._step_ns = DAYS * 86_400 * 10**9 // CALLS_IN_ALL_DAYS
        self._next_ns = end_ns - DAYS * 86_400 * 10**9
        self._session = "conv-" + "0" * 16
        for number, span in enumerate(spans):
            values = {pair.key: pair.value for pair in span.attributes}
            values["gen_ai.conversation.id"].string_value = f"conv-{number:016x}"
            values["user.id"].string_value = f"u-{number:06d}"
            values["tierlight.route"].string_value = f"route-{number % 40:02d}"
            values["tierlight.call.id"].string_value = f"{number:036d}"
        self._body = bytearray(message.SerializeToString())
        places: list[tuple[int, ...]] = []
        at = 0
        for number, span in enumerate(spans):
            values = {pair.key: pair.value for pair in span.attributes}
            places.append(
                tuple(
                    self._body.index(sought, at)
                    for sought in (
                        span.trace_id,
                        span.span_id,
                        struct.pack("<Q", span.start_time_unix_nano),
                        struct.pack("<Q", span.end_time_unix_nano),
                        values["gen_ai.response.id"].string_value.removeprefix("chatcmpl-").encode(),
                        f"conv-{number:016x}".encode(),
                        f"u-{number:06d}".encode(),
                        f"{number:036d}".encode(),
                    )
                )
            )
            at = places[-1][0]
        self._places = places

    def next(self) -> bytes:
        body, chance, pack_into = self._body, self._chance, struct.pack_into
        for number, (trace, span, start, end, response, session, user, call) in enumerate(self._places):
            now = self._next_ns
            self._next_ns += self._step_ns
            drawn = chance.randbytes(36)
            text = drawn[24:].hex().encode()
            if number % 8 == 0:
                self._session = f"conv-{text[:16].decode()}"
            body[trace : trace + 16] = drawn[:16]
            body[span : span + 8] = drawn[16:24]
            pack_into("<Q", body, start, now)
            pack_into("<Q", body, end, now + 900_000_000 + drawn[0] * 1_000_000)
            body[response : response + 24] = text
            body[session : session + 21] = self._session.encode()
            body[user : user + 8] = b"u-%06d" % (int.from_bytes(drawn[:4]) % 5_000)
            stamp = b"%012x" % (now // 1_000_000)
            body[call : call + 36] = b"%b-%b-7%b-8%b-%b" % (
                stamp[:8],
                stamp[8:],
                text[:3],
                text[3:6],
                text[6:18],
            )
        return bytes(body)


def growth(calls: int, template: bytes, report: Callable[[Reached], None]) -> tuple[float, float]:
    """Post so many calls, and report at each size on the way; gives the server's peak MB and the bytes of a call."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [sys.executable, str(Path(__file__).with_name("ingest.py")), "--serve", str(folder)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            connection = HTTPConnection("127.0.0.1", int(server.stdout.readline()), timeout=120)
            requests = Requests(template, end_ns=time.time_ns() - 3_600 * 10**9)
            before, done, since = _spent(server.pid), 0, 0
            for size in sorted({*(size for size in SIZES if size < calls), calls}):
                while done < size:
                    connection.request(
                        "POST", "/v1/traces", requests.next(), {"Content-Type": "application/x-protobuf"}
                    )
                    answer = connection.getresponse()
                    answer.read()
                    if answer.status != 200:
                        raise SystemExit(f"expected 200, got {answer.status}")
                    done += requests.spans
                now, spans = _spent(server.pid), done - since
                report(
                    Reached(
                        done,
                        1e6 * (now.user_s + now.system_s - before.user_s - before.system_s) / spans,
                        1e6 * (now.system_s - before.system_s) / spans,
                        (now.written - before.written) / spans,
                        (now.read - before.read) / spans,
                        _memory_mb(server.pid, "VmRSS"),
                    )
                )
                before, since = now, done
            connection.close()
            peak = _memory_mb(server.pid, "VmHWM")
            server.communicate(timeout=120)
        return peak, (folder / "calls.db").stat().st_size / done


def _spent(pid: int) -> _Spent:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    moved = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    return _Spent(
        int(fields[11]) * _TICK_S, int(fields[12]) * _TICK_S, int(moved["wchar"]), int(moved["rchar"])
    )


def _memory_mb(pid: int, name: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise SystemExit(f"no {name} in /proc: this bench needs Linux")


def main(calls: int, template: bytes, *, as_json: bool) -> None:
    reached: list[Reached] = []

    def show(at: Reached) -> None:
        reached.append(at)
        if not as_json:
            print(
                f"{at.calls:9,d} calls  {at.cpu_us:5.1f} us a span ({at.system_us:4.1f} in the kernel)"
                f"  wrote {at.written_bytes / 1e3:5.1f} kB, read {at.read_bytes / 1e3:5.1f} kB a span"
                f"  {at.rss_mb:4.0f} MB",
                flush=True,
            )

    peak, size = growth(calls, template, show)
    if as_json:
        print(
            json.dumps(
                {
                    "reached": [asdict(at) for at in reached],
                    "rss_mb": round(peak, 1),
                    "bytes_per_call": round(size),
                }
            )
        )
    else:
        print(f"peak memory of the server {peak:.0f} MB, {size:.0f} bytes a call")
