"""Captured OTLP of other people's instrumentations: each provider call once, with the numbers that were sent.

The captures lie outside the repository (see `shared_data`). `judge` applies the corpus's own criteria, `shortfalls`
compares with what the manifest expects of a store; both leave out only what the wire did not carry.
"""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tierlight_collector.decode import decode_logs, decode_traces
from tierlight_collector.normalise import facts_of, normalise, normalise_log, resolve
from tierlight_collector.records import CallRecord, SpanRecord

BAR = 0.98
TOKENS = (
    ("input_tokens", "input_tokens"),
    ("output_tokens", "output_tokens"),
    ("cached_input_tokens", "cached_input_tokens"),
    ("reasoning_tokens", "reasoning_tokens"),
)


@pytest.fixture(scope="module")
def corpus(shared_data: Path) -> list[tuple[dict[str, Any], list[SpanRecord]]]:
    """Every case with its decoded spans."""
    folder = shared_data / "emitters"
    if not (folder / "manifest.jsonl").is_file():
        pytest.skip("no captured telemetry in the shared data folder")
    cases = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    return [(case, spans_of(folder, case)) for case in cases]


def spans_of(folder: Path, case: Mapping[str, Any]) -> list[SpanRecord]:
    spans: list[SpanRecord] = []
    for file in case["files"]:
        if file["signal"] == "traces":
            decoded = decode_traces(body_of(folder, file), media_type_of(file))
            assert not decoded.rejected
            spans += decoded.spans
    return spans


def body_of(folder: Path, file: Mapping[str, Any]) -> bytes:
    body = (folder / file["file"]).read_bytes()
    return gzip.decompress(body) if file["content_encoding"] == "gzip" else body


def media_type_of(file: Mapping[str, Any]) -> Any:
    return "json" if "json" in file["content_type"] else "protobuf"


def stored(spans: list[SpanRecord]) -> dict[str, CallRecord]:
    """What a store would hold of the spans: the calls that count, by span id."""
    normalised = {
        (each.span.trace_id, each.span.span_id): each
        for each in (normalise(span, arrived_ns=span.start_ns) for span in spans)
    }
    calls: dict[str, CallRecord] = {}
    for key, verdict in resolve([facts_of(each) for each in normalised.values()]).items():
        call = normalised[key].call
        assert call is not None
        if verdict.superseded_by is None:
            calls[key[1].hex()] = replace(
                call, route=verdict.route, route_source=verdict.route_source, **verdict.taken
            )
    return calls


def judge(case: Mapping[str, Any], calls: Mapping[str, CallRecord]) -> list[str]:
    """What is wrong with the stored calls by the corpus's own criteria."""
    bad: list[str] = []
    claimed: set[str] = set()
    for truth in case["truth"]["calls"]:
        spans = {truth["span"], *truth["duplicate_spans"]} - {None}
        hits = spans & calls.keys()
        claimed |= spans
        if not spans or (truth["absorbed_by_retry"] and not hits):
            continue
        if len(hits) != 1:
            if truth["identifiable"] or hits:
                bad.append(f"{len(hits)} of {len(spans)} spans stored for one call")
            continue
        call = calls[hits.pop()]
        sent = truth["sent"]
        if call.span_id.hex() == truth["span"] and truth["usage_on_wire"] == "exact":
            bad += [
                f"{column} {getattr(call, column)} is not {truth[name]}"
                for name, column in TOKENS
                if sent.get(name, True) and (getattr(call, column) or 0) != (truth[name] or 0)
            ]
        if truth["usage_on_wire"] == "absent" and (call.input_tokens or call.output_tokens):
            bad.append("tokens invented")
        if sent.get("error", bool(truth["error"])) and bool(truth["error"]) != bool(call.error_type):
            bad.append(f"error {call.error_type!r} is not {truth['error']!r}")
        if (
            sent.get("request_model", True)
            and call.request_model != truth["request_model"]
            and call.response_model != truth["response_model"]
        ):
            bad.append(f"model {call.request_model!r} is not {truth['request_model']!r}")
    refused = {
        span["span_id"] for span in case["non_llm_spans"] if span["role"] == "llm_span_without_http_call"
    }
    return bad + [f"{calls[span].name} is no call" for span in calls.keys() - claimed - refused]


def shortfalls(case: Mapping[str, Any], calls: Mapping[str, CallRecord]) -> list[str]:
    """Where the stored calls differ from the manifest's `expect`, as far as the wire told."""
    expect, truths = case["expect"], case["truth"]["calls"]
    found = list(calls.values())
    bad = []
    if len(found) != expect["calls"]:
        bad.append(f"{len(found)} calls, expected {expect['calls']}")
    told = [truth for truth in truths if truth["sent"].get("error", True)]
    if len(told) == len(truths) and sum(bool(call.error_type) for call in found) != expect["errors"]:
        bad.append(f"errors, expected {expect['errors']}")
    if all(truth["usage_on_wire"] != "different" for truth in truths):
        for name in ("input_tokens", "output_tokens"):
            total = sum(getattr(call, name) or 0 for call in found)
            if total != expect[name]:
                bad.append(f"{name} {total}, expected {expect[name]}")
        unknown = sum(call.input_tokens is None and call.output_tokens is None for call in found)
        if unknown != expect["tokens_unknown_calls"]:
            bad.append(f"{unknown} calls without tokens, expected {expect['tokens_unknown_calls']}")
    for name, column in (
        ("cached_input_tokens", "cached_input_tokens"),
        ("cache_creation_input_tokens", "cache_write_input_tokens"),
        ("reasoning_tokens", "reasoning_tokens"),
    ):
        # More than expected is right where the emitter hides the number in text that the manifest did not read.
        total = sum(getattr(call, column) or 0 for call in found)
        allowed = {expect[name], sum(truth[name] or 0 for truth in truths)}
        if total not in allowed:
            bad.append(f"{column} {total}, expected {expect[name]}")
    if all(truth["sent"].get("request_model", True) for truth in truths if truth["span"]):
        models = {call.request_model for call in found}
        if models != set(expect["request_models"]):
            bad.append(f"models {models}, expected {expect['request_models']}")
    if {call.operation for call in found} != set(expect["operations"]):
        bad.append(f"operations, expected {expect['operations']}")
    if "azure" not in case["scenario"] and "compat" not in case["scenario"]:
        providers = {call.provider for call in found}
        if providers != set(expect["providers"]):
            bad.append(f"providers {providers}, expected {expect['providers']}")
    return bad


Verdict = Callable[[Mapping[str, Any], Mapping[str, CallRecord]], list[str]]


@pytest.mark.parametrize("verdict", [judge, shortfalls])
def test_captured_cases_are_stored_right(
    corpus: list[tuple[dict[str, Any], list[SpanRecord]]], verdict: Verdict
) -> None:
    wrong = {case["case"]: bad for case, spans in corpus if (bad := verdict(case, stored(spans)))}
    assert len(wrong) <= (1 - BAR) * len(corpus), wrong


def test_rules_do_not_hang_on_the_names_of_scopes(
    corpus: list[tuple[dict[str, Any], list[SpanRecord]]],
) -> None:
    wrong = []
    for case, spans in corpus:
        renamed = [replace(span, scope=f"com.example.x{sum(span.scope.encode())}") for span in spans]
        calls = stored(renamed)
        if len(calls) != case["expect"]["calls"]:
            wrong.append(case["case"])
    assert len(wrong) <= 0.10 * len(corpus), wrong


def test_order_and_repetition_of_spans_change_nothing(
    corpus: list[tuple[dict[str, Any], list[SpanRecord]]],
) -> None:
    shuffler = random.Random(7)
    for case, spans in corpus:
        shuffled = [*spans, *spans]
        shuffler.shuffle(shuffled)
        assert stored(shuffled) == stored(spans), case["case"]


def test_a_stripped_span_is_read_like_the_span_that_came(
    corpus: list[tuple[dict[str, Any], list[SpanRecord]]],
) -> None:
    """Stored spans hold no content; reading them again, after an upgrade of the rules, gives the same calls."""
    for case, spans in corpus:
        for span in spans:
            first = normalise(span, arrived_ns=span.start_ns)
            again = normalise(first.span, arrived_ns=span.start_ns)
            assert (again.role, again.hints, again.call) == (first.role, first.hints, first.call), case[
                "case"
            ]


def test_no_prompt_survives_in_a_span_without_capture(
    corpus: list[tuple[dict[str, Any], list[SpanRecord]]],
) -> None:
    for case, spans in corpus:
        for span in spans:
            kept = normalise(span, arrived_ns=span.start_ns).span
            text = repr((kept.attributes, [event.attributes for event in kept.events], kept.status_message))
            assert "capital of France" not in text, (case["case"], span.name)


def test_captured_log_events_add_no_score_and_no_call(
    shared_data: Path, corpus: list[tuple[dict[str, Any], list[SpanRecord]]]
) -> None:
    folder = shared_data / "emitters"
    logs = [
        log
        for case, _ in corpus
        for file in case["files"]
        if file["signal"] == "logs"
        for log in decode_logs(body_of(folder, file), media_type_of(file)).logs
    ]
    assert logs
    assert [normalise_log(log) for log in logs] == [None] * len(logs)
