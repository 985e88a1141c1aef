"""The configuration file: what it says is done, and what it cannot mean is named."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from collector.told import NOW_NS, chat, span
from e2e.doubles.fake_collector import fake_collector
from tierlight.errors import ConfigurationError
from tierlight_collector.conformance import request_json, span_json
from tierlight_collector.forward import ForwardTarget
from tierlight_collector.limits import MIB
from tierlight_collector.normalise import RouteRules, normalise, resolve
from tierlight_collector.normalise.resolve import facts_of
from tierlight_collector.records import Batch, Filters, SpanRecord
from tierlight_collector.stores import open_store
from tierlight_dashboard.cli.commands import app
from tierlight_dashboard.configfile import read_configuration
from tierlight_dashboard.serve import ServeSettings, serving_in_thread


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tierlight.toml"


def test_without_a_file_the_sdks_patterns_mask_and_nothing_is_sent_on() -> None:
    said = read_configuration(None)
    assert said.redaction.text("ada@example.org") == "[redacted:email]"
    assert (said.targets, said.notifications.channels) == ((), ())


def test_targets_have_all_that_the_command_line_has_and_more(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEMPO_TOKEN", "secret")
    file.write_text(
        '[[forward]]\nname = "tempo"\nendpoint = "http://127.0.0.1:5318"\nprotocol = "grpc"\ncontent = true\n'
        'headers = { Authorization = "env:TEMPO_TOKEN" }\nsignals = ["traces", "logs"]\ncompression = "none"\n'
        'max_queue_mb = 8\nmax_age_h = 2\n[[forward]]\nname = "jaeger"\nendpoint = "https://jaeger.example"\n'
    )
    tempo, jaeger = read_configuration(file).targets
    assert tempo == ForwardTarget(
        "tempo",
        "http://127.0.0.1:5318",
        "grpc",
        {"authorization": "env:TEMPO_TOKEN"},
        content=True,
        signals=("traces", "logs"),
        compress=False,
        max_queue_bytes=8 * MIB,
        max_age_s=7200.0,
    )
    assert jaeger == ForwardTarget("jaeger", "https://jaeger.example")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[redact]\npattern = 1", "builtin and patterns, got pattern"),
        ("[redact]\npatterns = { x = '(' }", "'x'.*regular expression"),
        ("[redact]\nbuiltin = 'yes'", "builtin as bool, got str"),
        ("[routes]\nkey = []", "keys, order and rename, got key"),
        ("[routes]\norder = ['declared', 'span']", "order of declared, dialect.*got declared, span"),
        ("[routes]\norder = ['agent', 'agent']", "at most once"),
        ("[routes]\nrename = { a = 1 }", "rename a as str, got int"),
        ("[[forward]]\nname = 'x'", "needs endpoint"),
        ("[[forward]]\nname = 'x'\nendpoint = 'http://a'\nprotocol = 'udp'", "grpc, got 'udp'"),
        ("[[forward]]\nname = 'x'\nendpoint = 'http://a'\nmax_age_h = 0", "max_age_h above 0, got 0"),
        ("[[forward]]\nname='x'\nendpoint='http://a'\n[[forward]]\nname='x'\nendpoint='http://b'", "own"),
    ],
)  # fmt: skip
def test_what_the_file_cannot_mean_is_named(file: Path, text: str, named: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=named):
        read_configuration(file)


# ---- names of routes ----------------------------------------------------------------------------------------


def call(number: int = 1, parent: int = 0, **said: Any) -> SpanRecord:
    return span(1, number, parent=parent, attributes=chat(f"r-{number}", **said))


def routes_of(rules: RouteRules, *spans: SpanRecord) -> list[tuple[str, str]]:
    read = [normalise(each, NOW_NS, rules=rules) for each in spans]
    settled = resolve([facts_of(each) for each in read], rules.order)
    return [(verdict.route, verdict.route_source) for _, verdict in sorted(settled.items())]


def rules_of(file: Path, text: str) -> RouteRules:
    file.write_text(f"[routes]\n{text}")
    return read_configuration(file).rules


FLOW: dict[str, Any] = {"tenant.flow": "x", "app.feature": "y"}
AGENT: dict[str, Any] = {"gen_ai.agent.name": "Research Agent"}


def test_own_keys_come_before_all_that_are_known(file: Path) -> None:
    one = call(route="triage", **{**FLOW, "tenant.flow": ""})
    rules = rules_of(file, 'keys = ["tenant.flow", "app.feature"]')
    assert routes_of(rules, one) == [("y", "declared")]
    assert routes_of(rules, call(1, **FLOW)) == [("x", "declared")]
    assert routes_of(rules, call(route="triage")) == [("triage", "declared")]


def test_sources_are_believed_in_the_order_of_the_file(file: Path) -> None:
    one = call(route="triage", **AGENT)
    assert routes_of(rules_of(file, 'order = ["agent", "declared"]'), one) == [("research-agent", "agent")]
    only_root = rules_of(file, 'order = ["root"]')
    assert routes_of(only_root, one) == [("unrouted/shop", "unrouted")]
    parent = span(1, 9, name="nightly report")
    child = call(parent=9, route="triage")
    assert routes_of(only_root, parent, child) == [("nightly-report", "root")]


def test_names_are_renamed_exactly_and_by_pattern_and_some_are_none(file: Path) -> None:
    rules = rules_of(
        file,
        'rename = { "Support Answer" = "support", "tenant-*" = "Tenant", worker = "", "tenant-1" = "one" }',
    )
    said = ["support answer", "tenant-17", "tenant-1", "worker", "billing"]
    assert [routes_of(rules, call(route=name))[0][0] for name in said] == [
        "support", "tenant", "one", "unrouted/shop", "billing",
    ]  # fmt: skip
    assert routes_of(rules, call(route="worker", **AGENT)) == [("research-agent", "agent")]


def test_stored_calls_take_the_new_names_when_they_are_read_again(file: Path, tmp_path: Path) -> None:
    path = tmp_path / "data" / "calls.db"
    url = f"sqlite:///{path}"
    store = open_store(url)
    calls = [call(route="tenant-17"), call(2, route="triage", **AGENT)]
    store.append(Batch(spans=tuple(normalise(each, NOW_NS) for each in calls), arrived_ns=NOW_NS))
    store.close()
    file.write_text('[routes]\norder = ["agent", "declared"]\nrename = { "tenant-*" = "tenant" }\n')
    runner = CliRunner()

    def stored() -> list[str]:
        store = open_store(url, read_only=True)
        routes = sorted(row.call.route for row in store.calls(Filters()).rows)
        store.close()
        return routes

    words = ["renormalise", "--store", url, "--config", str(file), "--format", "json"]
    looked = runner.invoke(app, words)
    assert {row["column"] for row in json.loads(looked.stdout)} == {"route", "route_source"}
    assert stored() == ["tenant-17", "triage"]
    assert runner.invoke(app, [*words, "--apply"]).exit_code == 0
    assert stored() == ["research-agent", "tenant"]


def test_a_server_masks_names_and_sends_on_as_the_file_says(file: Path, tmp_path: Path) -> None:
    with fake_collector() as outside:
        file.write_text(
            f'[redact]\npatterns = {{ ticket = "TCK-[0-9]+" }}\n[routes]\nrename = {{ old = "new" }}\n'
            f'[[forward]]\nname = "there"\nendpoint = "{outside.url}"\n'
        )
        said = read_configuration(file)
        settings = ServeSettings(
            f"sqlite:///{tmp_path / 'data' / 'calls.db'}", http_port=0, grpc_port=None, port=0, watch_every_s=0,
            redaction=said.redaction, rules=said.rules, targets=said.targets,
        )  # fmt: skip
        told = {
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": "gpt-4o-mini",
            "route": "old",
            "note": "TCK-1",
        }
        sent = span_json(
            attributes=[{"key": key, "value": {"stringValue": text}} for key, text in told.items()]
        )
        with serving_in_thread(settings) as server:
            httpx.post(
                server.otlp_url + "/v1/traces",
                content=request_json(sent),
                headers={"content-type": "application/json"},
            )
            outside.wait_for_spans(1)
            (row,) = server.store.calls(Filters()).rows
            (raw,) = server.store.trace(row.call.trace_id)
    assert row.call.route == "new"
    assert raw.attributes["note"] == "[redacted:ticket]"
    assert "TCK-1" not in str(outside.spans[0])
    assert sqlite3.connect(tmp_path / "data" / "calls.db").execute(
        "SELECT count(*) FROM outbox"
    ).fetchone() == (0,)
