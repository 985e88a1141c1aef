"""The whole corpus of real captures: in whatever order, how often and by which protocol it comes, the store is the same."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import grpc
import httpx
import pytest

from collector.running import Running, running_collector
from tierlight_collector.limits import IngestLimits
from tierlight_collector.records import CallRecord, Filters, Purpose

SERVICES = {
    "traces": "trace.v1.TraceService",
    "logs": "logs.v1.LogsService",
    "metrics": "metrics.v1.MetricsService",
}
EVERYTHING = Filters(purpose=get_args(Purpose))


@dataclass(frozen=True)
class Capture:
    signal: str
    content_type: str
    encoding: str
    body: bytes

    def post(self, client: httpx.Client) -> int:
        headers = {"content-type": self.content_type}
        if self.encoding:
            headers["content-encoding"] = self.encoding
        return client.post(f"/v1/{self.signal}", content=self.body, headers=headers).status_code

    def export(self, channel: grpc.Channel) -> None:
        path = f"/opentelemetry.proto.collector.{SERVICES[self.signal]}/Export"
        body = gzip.decompress(self.body) if self.encoding == "gzip" else self.body
        channel.unary_unary(path)(body)


@pytest.fixture(scope="module")
def captures(shared_data: Path) -> list[Capture]:
    folder = shared_data / "emitters"
    if not (folder / "manifest.jsonl").is_file():
        pytest.skip("the shared data has no emitters/manifest.jsonl")
    found = []
    for line in (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines():
        for file in json.loads(line)["files"]:
            is_grpc = file["protocol"] == "grpc"
            content_type = "application/x-protobuf" if is_grpc else file["content_type"]
            body = (folder / file["file"]).read_bytes()
            found.append(Capture(file["signal"], content_type, file["content_encoding"] or "", body))
    return found


@contextmanager
def collector(folder: Path) -> Iterator[Running]:
    folder.mkdir()
    with running_collector(folder, limits=IngestLimits(horizon_days=36_500), content=True) as running:
        yield running


def stored(running: Running) -> list[tuple[CallRecord, Any]]:
    """Every call that counts, with its scores, but for when it arrived."""
    rows: list[tuple[CallRecord, Any]] = []
    cursor = None
    while True:
        page = running.store.calls(EVERYTHING, after=cursor, limit=500)
        rows += [(replace(row.call, arrived_ns=0), sorted(map(repr, row.scores))) for row in page.rows]
        cursor = page.next
        if cursor is None:
            return sorted(rows, key=lambda row: (row[0].trace_id, row[0].span_id))


@pytest.fixture(scope="module")
def expected(
    captures: list[Capture], tmp_path_factory: pytest.TempPathFactory
) -> list[tuple[CallRecord, Any]]:
    """What the store holds after the corpus came once, in order, by HTTP."""
    with (
        collector(tmp_path_factory.mktemp("corpus") / "once") as running,
        httpx.Client(base_url=running.url) as client,
    ):
        assert {capture.post(client) for capture in captures} == {200}
        return stored(running)


def differences(found: list[tuple[CallRecord, Any]], expected: list[tuple[CallRecord, Any]]) -> list[Any]:
    return [pair for pair in zip(found, expected, strict=False) if pair[0] != pair[1]][:3]


def test_the_corpus_holds_calls(expected: list[tuple[CallRecord, Any]]) -> None:
    assert len(expected) > 300
    assert sum(call.input_tokens is not None for call, _ in expected) > 250


@pytest.mark.parametrize("seed", [1, 2])
def test_twice_and_shuffled_is_the_same_as_once(
    captures: list[Capture], expected: list[tuple[CallRecord, Any]], tmp_path: Path, seed: int
) -> None:
    order = captures * 2
    random.Random(seed).shuffle(order)
    with collector(tmp_path / "twice") as running, httpx.Client(base_url=running.url) as client:
        assert {capture.post(client) for capture in order} == {200}
        found = stored(running)
    assert differences(found, expected) == []
    assert len(found) == len(expected)


def test_through_grpc_is_the_same_as_through_http(
    captures: list[Capture], expected: list[tuple[CallRecord, Any]], tmp_path: Path
) -> None:
    with (
        collector(tmp_path / "grpc") as running,
        grpc.insecure_channel(running.grpc_address) as channel,
        httpx.Client(base_url=running.url) as client,
    ):
        for capture in captures:
            if capture.content_type.startswith("application/x-protobuf"):
                capture.export(channel)
            else:
                assert capture.post(client) == 200
        found = stored(running)
    assert differences(found, expected) == []
    assert len(found) == len(expected)
