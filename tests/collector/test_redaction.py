"""Secrets in the spans of any sender: masked before anything is stored or sent on, whatever key they stand under."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from collector.running import running_collector
from collector.test_http import JSON
from e2e.doubles.fake_collector import fake_collector
from tierlight.errors import ConfigurationError
from tierlight.pricing import PriceBook
from tierlight_collector.conformance import request_json, span_json
from tierlight_collector.costing import Costing
from tierlight_collector.forward import ForwardTarget
from tierlight_collector.importing import import_file
from tierlight_collector.records import EventRecord, Resource, SpanRecord
from tierlight_collector.redaction import Redaction
from tierlight_collector.stores import open_store

KEY = "sk-proj-abcdefghijklmnop1234"
MAIL = "ada@example.org"
CARD, NO_CARD = "4111 1111 1111 1111", "4111 1111 1111 1112"
SECRETS = (KEY, MAIL, CARD)
TEXT = f"I am {MAIL}, my key is {KEY}, my card {CARD}, my number {NO_CARD}"


def attributes(**said: str) -> list[dict[str, Any]]:
    return [{"key": key, "value": {"stringValue": text}} for key, text in said.items()]


def foreign(**more: Any) -> dict[str, Any]:
    """A call of an instrumentation that masks nothing, with the text wherever such senders put text."""
    return span_json(
        name=f"answer {MAIL}",
        kind=3,
        status={"code": 2, "message": f"no credit for {KEY}"},
        attributes=[
            *attributes(
                **{
                    "openinference.span.kind": "LLM",
                    "llm.model_name": "gpt-4o-mini",
                    "llm.input_messages.0.message.content": TEXT,
                    "input.value": TEXT,
                    "output.value": TEXT,
                    "metadata": json.dumps({"route": "triage", "note": TEXT}),
                    "url.full": f"https://api.openai.com/v1/chat/completions?api_key={KEY}",
                    "somebody.own": TEXT,
                    "user.id": "customer-17",
                }
            ),
            {"key": "list", "value": {"arrayValue": {"values": [{"stringValue": TEXT}]}}},
            {"key": "map", "value": {"kvlistValue": {"values": attributes(deep=TEXT)}}},
            {"key": "llm.token_count.prompt", "value": {"intValue": "4111111111111111"}},
        ],
        events=[
            {
                "name": "exception",
                "timeUnixNano": str(time.time_ns()),
                "attributes": attributes(**{"exception.type": "RateLimitError", "exception.message": TEXT}),
            }
        ],
        **more,
    )


def assert_masked(said: str) -> None:
    assert [secret for secret in SECRETS if secret in said] == []


@pytest.mark.parametrize("content", [False, True])
def test_nothing_secret_is_stored_or_sent_on(tmp_path: Path, content: bool) -> None:
    span = foreign()
    with fake_collector() as outside:
        targets = [ForwardTarget("there", outside.url, content=content)]
        with running_collector(tmp_path, content=content, targets=targets, grpc_port=None) as ours:
            httpx.post(ours.url + "/v1/traces", content=request_json(span), headers=JSON)
            outside.wait_for_spans(1)
            trace_id, span_id = bytes.fromhex(span["traceId"]), bytes.fromhex(span["spanId"])
            row = ours.store.call(trace_id, span_id)
            texts = ours.store.contents(trace_id, span_id)
            raw = ours.store.trace(trace_id)
            counters = ours.collector.ingest.counters.snapshot()
        (sent,) = outside.spans
    assert row is not None
    for said in (repr(row), repr(texts), repr(raw), str(sent)):
        assert_masked(said)
    assert bool(texts) == content
    if content:
        assert all("[redacted:card]" in text.body and NO_CARD in text.body for text in texts)
        assert "[redacted:key]" in str(sent)
    assert counters["redacted"] == 1
    assert (row.call.route, row.call.user_id, row.call.request_model) == (
        "triage",
        "customer-17",
        "gpt-4o-mini",
    )
    for file in tmp_path.iterdir():
        assert_masked(file.read_bytes().decode("latin-1"))


def test_texts_of_log_records_are_masked(tmp_path: Path) -> None:
    event = {
        "eventName": "gen_ai.evaluation.result",
        "timeUnixNano": str(time.time_ns()),
        "attributes": attributes(
            **{
                "gen_ai.evaluation.name": "helpful",
                "gen_ai.evaluation.score.label": "pass",
                "gen_ai.evaluation.explanation": TEXT,
                "gen_ai.response.id": "r-1",
            }
        ),
    }
    body = {"resourceLogs": [{"scopeLogs": [{"logRecords": [event]}]}]}
    with running_collector(tmp_path, content=True, grpc_port=None) as ours:
        httpx.post(ours.url + "/v1/logs", json=body)
        assert ours.collector.ingest.counters.snapshot()["redacted"] == 1
    for file in tmp_path.iterdir():
        assert_masked(file.read_bytes().decode("latin-1"))


def test_imported_files_are_masked_too(tmp_path: Path) -> None:
    file = tmp_path / "spans.jsonl"
    span = foreign()
    file.write_bytes(request_json(span))
    store = open_store(f"sqlite:///{tmp_path / 'data' / 'calls.db'}")
    import_file(store, file, Costing(PriceBook.default()))
    raw = store.trace(bytes.fromhex(span["traceId"]))
    store.close()
    assert len(raw) == 1
    assert_masked(repr(raw))


def record(**said: Any) -> SpanRecord:
    return SpanRecord(b"t" * 16, b"s" * 8, b"", "chat", 3, 1, 2, 0, "", "scope", "", said, (), Resource({}))


def test_a_span_without_secrets_stays_the_same_object() -> None:
    span = record(**{"gen_ai.request.model": "gpt-4o-mini", "tool.name": "look_up", "n": 4111111111111111})
    assert Redaction().spans([span], content=True) == ([span], 0)
    assert Redaction().spans([span], content=True)[0][0] is span


def test_patterns_of_ones_own_come_after_those_of_the_sdk() -> None:
    masks = Redaction([("ticket", r"TCK-\d{4}")])
    assert masks.text(f"TCK-1234 by {MAIL}") == "[redacted:ticket] by [redacted:email]"
    assert Redaction([("ticket", r"TCK-\d{4}")], builtin=False).text(f"TCK-1234 by {MAIL}") == (
        f"[redacted:ticket] by {MAIL}"
    )


@pytest.mark.parametrize(("pattern", "said"), [("(", "regular expression"), ("x*", "matches nothing at all")])
def test_a_pattern_that_cannot_be_meant_is_refused_by_its_name(pattern: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=f"'mine'.*{said}"):
        Redaction([("mine", pattern)])


def test_events_and_the_resource_are_masked_once_for_all_spans_of_it() -> None:
    resource = Resource({"process.command_args": ["serve", f"--key={KEY}"]}, "shop")
    spans = [
        SpanRecord(b"t" * 16, bytes([n] * 8), b"", "chat", 3, 1, 2, 0, "", "s", "", {},
                   (EventRecord("log", 1, {"text": MAIL}),), resource)
        for n in (1, 2)
    ]  # fmt: skip
    masked, found = Redaction().spans(spans, content=True)
    assert found == 2
    assert masked[0].resource is masked[1].resource
    assert masked[0].resource.attributes == {"process.command_args": ["serve", "--key=[redacted:key]"]}
    assert masked[1].events[0].attributes == {"text": "[redacted:email]"}
