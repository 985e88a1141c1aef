"""Commands that move, mend and forget what is stored, run as a person runs them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from collector.running import running_collector
from collector.told import NOW_NS, SPANS, append, chat, span
from e2e.doubles.fake_collector import fake_collector
from tierlight._encode import Encoder
from tierlight._record import FinishedCall
from tierlight._spool import Spool
from tierlight_collector.conformance import request_proto
from tierlight_collector.forward import ForwardTarget
from tierlight_collector.normalise import normalise
from tierlight_collector.payload import seal
from tierlight_collector.records import HOUR_NS, Batch, Filters
from tierlight_collector.stores import open_store
from tierlight_collector.stores.protocol import OutboxTarget, Store
from tierlight_dashboard.cli.commands import app
from tierlight_dashboard.serve import ServeSettings, serving_in_thread

Run = Callable[..., Result]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "tierlight.db"


@pytest.fixture
def run(path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("TIERLIGHT_STORE", f"sqlite:///{path}")
    monkeypatch.setenv("XDG_DATA_HOME", str(path.parent / "home"))
    runner = CliRunner()

    def invoke(*words: object, status: int = 0) -> Result:
        result = runner.invoke(app, [str(word) for word in words])
        assert result.exit_code == status, result.output
        return result

    return invoke


def opened(path: Path) -> Store:
    return open_store(f"sqlite:///{path}")


def filled(path: Path) -> None:
    store = opened(path)
    append(store, SPANS)
    store.close()


def column(path: Path, query: str) -> list[object]:
    connection = sqlite3.connect(path)
    try:
        return [row[0] for row in connection.execute(query)]
    finally:
        connection.close()


def test_export_goes_to_a_new_file_or_to_standard_output(run: Run, path: Path, tmp_path: Path) -> None:
    filled(path)
    out = tmp_path / "calls.jsonl"
    assert "5 calls" in run("export", "--out", out).output
    assert run("export").stdout_bytes == out.read_bytes()
    assert "exists" in run("export", "--out", out, status=2).output
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == 5
    assert [
        row["route"] for row in map(json.loads, run("export", "--route", "billing").output.splitlines())
    ] == ["billing"]
    assert list(tmp_path.glob(".*")) == []


def test_import_says_what_became_of_the_file(
    run: Run, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(path)
    file = tmp_path / "spans.jsonl"
    run("export", "--format", "otlp-json", "--out", file)
    with file.open("a") as more:
        more.write('{"hello": 1}\n')
    assert "0 stored, 9 were there already, 1 refused" in run("import", file).output
    other = tmp_path / "other" / "b.db"
    monkeypatch.setenv("TIERLIGHT_STORE", f"sqlite:///{other}")
    assert "9 spans (7 calls)" in run("import", file).output
    again = opened(other)
    assert len(again.calls(Filters()).rows) == 5
    again.close()
    wrong = tmp_path / "wrong"
    wrong.write_text('{"hello": 1}\n')
    run("import", wrong, status=1)
    run("import", tmp_path / "absent", status=2)


def test_a_file_that_is_not_there_is_named(run: Run, tmp_path: Path) -> None:
    missing = tmp_path / "missing.jsonl"
    refused = run("import", missing, status=2)
    assert f"tierlight: {missing}: No such file or directory" in refused.output


def test_import_is_refused_while_a_server_holds_the_store(run: Run, path: Path, tmp_path: Path) -> None:
    store = opened(path)
    file = tmp_path / "empty"
    file.write_text("")
    try:
        run("import", file, status=2)
    finally:
        store.close()


def test_renormalise_looks_unless_told_to_write(run: Run, path: Path) -> None:
    filled(path)
    assert "Every call is read as before." in run("renormalise").output
    connection = sqlite3.connect(path)
    connection.execute("UPDATE calls SET input_tokens = 7 WHERE response_id = 'r-6'")
    connection.commit()
    connection.close()
    tokens = "SELECT input_tokens FROM calls WHERE response_id = 'r-6'"
    store = opened(path)  # a look works beside a server
    assert "1 of 7 calls would change" in run("renormalise", "--dry-run").output
    store.close()
    assert column(path, tokens) == [7]
    assert "1 of 7 calls changed" in run("renormalise", "--apply").output
    assert column(path, tokens) == [1000]


def test_purged_texts_are_gone_from_the_file_and_the_audit_says_so(run: Run, path: Path) -> None:
    store = opened(path)
    texts = {"gen_ai.input.messages": '[{"role":"user","parts":[{"type":"text","content":"xyzzy plugh"}]}]'}
    spans = [
        span(1, 1, attributes={**chat("r-1"), **texts, "user.id": "user-number-1"}),
        span(
            2, 1, attributes={**chat("r-2"), **texts, "user.id": "user-number-2", "tierlight.route": "other"}
        ),
    ]
    store.append(
        Batch(spans=tuple(normalise(each, NOW_NS, content=True) for each in spans), arrived_ns=NOW_NS)
    )
    kept = [store.contents(each.trace_id, each.span_id) for each in spans]
    assert all(kept)
    store.close()

    (body,) = column(path, "SELECT body FROM content_blocks")
    assert isinstance(body, bytes)
    assert body[8:40] in path.read_bytes()
    run("purge", status=2)
    run("purge", "--span", "nonsense", "--yes", status=2)
    assert "1 calls" in run("purge", "--user", "user-number-1", "--yes").output
    assert "0 calls" in run("purge", "--route", "nowhere", "--yes").output
    store = opened(path)
    assert [store.contents(each.trace_id, each.span_id) for each in spans] == [[], kept[1]]
    assert len(store.calls(Filters()).rows) == 2
    (last, first) = store.audit()
    assert (first.action, first.subject, first.detail) == ("purge texts", "user one user", "1 calls")
    assert last.subject == "route nowhere"
    store.close()
    run("purge", "--span", f"{spans[1].trace_id.hex()}/{spans[1].span_id.hex()}", "--yes")
    assert column(path, "SELECT count(*) FROM content_blocks") == [0]
    assert all(body[8:40] not in file.read_bytes() for file in path.parent.glob("tierlight.db*"))


def test_purge_before_a_day_spares_what_came_later(run: Run, path: Path) -> None:
    filled(path)
    assert "0 calls" in run("purge", "--before", "2020-01-01", "--yes").output
    assert CliRunner().invoke(app, ["purge", "--before", "2020-01-01"], input="n\n").exit_code == 1


def waiting(path: Path) -> None:
    store = opened(path)
    store.save_outbox_target(OutboxTarget("tempo", 0, state="blocked", attempts=4, last_error="401"))
    for number in (1, 2, 3):
        store.append(Batch(spans=(normalise(span(20 + number, 1), NOW_NS - HOUR_NS),), forward=b"\npayload"))
    store.close()


def test_forwarding_is_paused_resumed_and_skipped_in_the_store(run: Run, path: Path) -> None:
    waiting(path)

    def status() -> dict[str, object]:
        (row,) = json.loads(run("forward", "status", "--format", "json").output)
        return {
            name: row[name] for name in ("state", "waiting_requests", "waiting_spans", "dropped", "attempts")
        }

    assert status() == {
        "state": "blocked",
        "waiting_requests": 3,
        "waiting_spans": 3,
        "dropped": 0,
        "attempts": 4,
    }
    run("forward", "pause", "tempo")
    assert status()["state"] == "paused"
    run("forward", "resume", "tempo")
    assert (status()["state"], status()["attempts"]) == ("ok", 0)
    assert "1 spans skipped" in run("forward", "skip", "tempo").output
    assert (status()["waiting_spans"], status()["dropped"]) == (2, 1)
    assert "2 spans skipped" in run("forward", "skip", "tempo", "--all").output
    assert (status()["waiting_spans"], status()["dropped"]) == (0, 3)
    assert "0 spans skipped" in run("forward", "skip", "tempo").output
    assert column(path, "SELECT count(*) FROM outbox") == [0]
    assert "no target of that name: tempo" in run("forward", "pause", "other", status=2).output


def test_forwarding_of_a_running_server_is_steered_through_it(run: Run, path: Path) -> None:
    settings = ServeSettings(
        f"sqlite:///{path}", http_port=0, grpc_port=None, port=0, watch_every_s=0,
        targets=(ForwardTarget("dead", "http://127.0.0.1:9"),),
    )  # fmt: skip
    with serving_in_thread(settings) as server:
        there = ("--server", server.dashboard_url)
        for number in (1, 2, 3):
            server.store.append(Batch(spans=(normalise(span(number, 1), NOW_NS),), forward=b"\npayload"))
        run("forward", "pause", "dead", *there)
        (target,) = server.store.outbox_targets()
        assert target.state == "paused"
        assert "1 spans skipped" in run("forward", "skip", "dead", *there).output
        assert "2 spans skipped" in run("forward", "skip", "dead", "--all", *there).output
        (target,) = server.store.outbox_targets()
        assert (target.state, target.dropped, server.store.outbox_waiting(0).requests) == ("paused", 3, 0)
        run("forward", "resume", "dead", *there)
        (target,) = server.store.outbox_targets()
        assert target.state == "ok"
        assert "no target of that name: dead" in run("forward", "pause", "other", *there, status=2).output
        nobody = run("forward", "pause", "dead", "--server", "http://127.0.0.1:9", status=2)
        assert "name it by --server" in nobody.output


def test_drain_delivers_what_a_stopped_server_left_and_says_what_could_not_go(run: Run, path: Path) -> None:
    store = opened(path)
    store.save_outbox_target(OutboxTarget("target-1", 0, state="paused"))
    store.append(
        Batch(spans=(normalise(span(1, 1), NOW_NS),), forward=seal((), request_proto(3).SerializeToString()))
    )
    store.close()
    assert "name every endpoint by --forward" in run("forward", "drain", status=2).output
    nobody = run("forward", "drain", "--forward", "http://127.0.0.1:9", "--timeout", 0.2, status=1)
    assert "1 spans still wait" in nobody.output
    with fake_collector() as target:
        assert "nothing waits" in run("forward", "drain", "--forward", target.url).output
        assert len(target.spans) == 3
        assert run("forward", "drain", "--forward", target.url).exit_code == 0
        assert len(target.spans) == 3
    (row,) = json.loads(run("forward", "status", "--format", "json").output)
    assert (row["state"], row["waiting_requests"], row["sent"]) == ("paused", 0, 3)


def test_drain_asks_a_running_server_to_try_blocked_targets_again(run: Run, path: Path) -> None:
    with fake_collector("401") as target:
        settings = ServeSettings(
            f"sqlite:///{path}", http_port=0, grpc_port=None, port=0, watch_every_s=0,
            targets=(ForwardTarget("there", target.url),),
        )  # fmt: skip
        with serving_in_thread(settings) as server:
            body = request_proto(2)
            body.resource_spans[0].scope_spans[0].spans[0].start_time_unix_nano = NOW_NS
            there = ("--server", server.dashboard_url, "--timeout", 5)
            server.store.append(
                Batch(spans=(normalise(span(1, 1), NOW_NS),), forward=seal((), body.SerializeToString()))
            )
            assert "1 spans still wait" in run("forward", "drain", *there[:3], 0.5, status=1).output
            target.mode = "ok"
            assert "nothing waits" in run("forward", "drain", *there).output
        assert len(target.spans) == 2


def spooled(folder: Path, *numbers: int) -> None:
    encoder = Encoder({"service.name": "shop"}, "1")
    spool = Spool(folder, lambda reason, n: pytest.fail(f"{n} lost: {reason}"))
    for number in numbers:
        said: dict[str, str | bool | int | float | tuple[str, ...]] = {
            "gen_ai.operation.name": "chat",
            "tierlight.schema": "1",
            "tierlight.span.role": "call",
        }
        call = FinishedCall(number, number, None, "chat", NOW_NS, NOW_NS + 1, said)
        spool.append("traces", encoder.request([encoder.span(call)]))
    spool.close()


def test_spool_is_delivered_once_and_stays_while_nobody_answers(
    run: Run, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = tmp_path / "spool"
    monkeypatch.setenv("TIERLIGHT_SPOOL", str(spool))
    run("spool", "import", status=2)
    spooled(spool, 1, 2, 3)
    result = run("spool", "import", "--endpoint", "http://127.0.0.1:9", status=1)
    assert "0 spans and scores delivered" in result.output
    assert len(list(spool.iterdir())) == 1
    path.parent.mkdir(parents=True)
    with running_collector(path.parent, clock_ns=lambda: NOW_NS) as running:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", running.url)
        assert "1 files, 3 spans and scores delivered, 0 refused" in run("spool", "import").output
        assert list(spool.iterdir()) == []
        spooled(spool, 1, 2, 3)
        run("spool", "import", spool)
        assert len(running.store.calls(Filters()).rows) == 3


def test_a_blocked_target_keeps_what_waits_when_it_is_paused(run: Run, path: Path) -> None:
    waiting(path)
    run("forward", "pause", "tempo")
    store = opened(path)
    (target,) = store.outbox_targets()
    assert replace(target, state="blocked") == OutboxTarget(
        "tempo", 0, state="blocked", attempts=4, last_error="401"
    )
    assert store.outbox_waiting(0).requests == 3
    store.close()
