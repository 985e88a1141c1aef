"""What is exported comes back, what others export comes in, and both may be done again."""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collector.told import COSTING, NOW_NS, SPANS, append, chat, span
from tierlight_collector import importing
from tierlight_collector.errors import BadRequest
from tierlight_collector.export import ParquetMissing, export
from tierlight_collector.importing import Imported, import_file
from tierlight_collector.records import CallRecord, CallRow, Filters, ScoreRecord
from tierlight_collector.stores import open_store
from tierlight_collector.stores.protocol import Store

SCORE = ScoreRecord(
    "helpful", 0.5, "judge:x", "judge", NOW_NS, trace_id=SPANS[5].trace_id, span_id=SPANS[5].span_id,
    label="half", evaluator_version="3", weight=2.0,
)  # fmt: skip
OWN = span(
    8, 1, scope="tierlight",
    attributes={
        **chat("r-8", model="claude-sonnet-4-5", tokens=900),
        "gen_ai.provider.name": "anthropic", "gen_ai.response.model": "claude-sonnet-4-5-20250929",
        "gen_ai.usage.cache_read.input_tokens": 300, "gen_ai.usage.cache_write.input_tokens": 100,
        "gen_ai.usage.reasoning.output_tokens": 40, "gen_ai.request.stream": True,
        "gen_ai.response.time_to_first_chunk": 0.125, "gen_ai.response.finish_reasons": ("tool_use",),
        "gen_ai.conversation.id": "session-1", "user.id": "user-1", "gen_ai.prompt.name": "greet",
        "gen_ai.prompt.version": "4", "tierlight.schema": "1", "tierlight.span.role": "call",
        "tierlight.route": "support.reply", "tierlight.tier": "mid", "tierlight.call.id": "call-8",
        "tierlight.attempt.index": 1, "tierlight.attempt.reason": "fallback", "tierlight.experiment.id": "e1",
        "tierlight.experiment.arm": "b", "tierlight.act_prob": 0.5, "tierlight.keep_prob": 0.25,
        "tierlight.strategy": "ab", "tierlight.policy.version": "7", "tierlight.segment": "short",
        "tierlight.purpose": "shadow",
    },
)  # fmt: skip
FAILED = span(
    9, 1,
    attributes={
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o-mini",
        "error.type": "RateLimitError", "http.response.status_code": 429,
    },
)  # fmt: skip
ALL = [*SPANS, OWN, FAILED]
# What an export of calls does not carry over: how and when the call was received and read.
READ = {"arrived_ns", "scope", "dialect", "cache_rule", "route_source", "flags", "wire_cost_source"}


def store_at(path: Path) -> Store:
    return open_store(f"sqlite:///{path}", now_ns=lambda: NOW_NS)


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Store]:
    opened = store_at(tmp_path / "source" / "a.db")
    append(opened, ALL)
    opened.add_scores([SCORE])
    yield opened
    opened.close()


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Store]:
    opened = store_at(tmp_path / "target" / "b.db")
    yield opened
    opened.close()


def read(store: Store, path: Path) -> Imported:
    return import_file(store, path, COSTING, clock_ns=lambda: NOW_NS)


def calls(store: Store) -> dict[bytes, CallRow]:
    return {row.call.span_id: row for row in store.calls(Filters(purpose=()), limit=1_000).rows}


def written(store: Store, path: Path, format: Any, **more: Any) -> Path:
    with path.open("wb") as file:
        export(store, file, format, **more)
    return path


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_spans_written_as_otlp_come_back_with_every_column(
    source: Store, target: Store, tmp_path: Path
) -> None:
    file = written(source, tmp_path / "spans.jsonl", "otlp-json")
    done = read(target, file)
    assert (done.spans, done.calls, done.scores, done.rejected) == (len(ALL), 9, 1, 0)
    was, came = calls(source), calls(target)
    # A wrong clock was put right when it came in, so the span that goes out has none.
    expected = {
        key: replace(row.call, flags=tuple(flag for flag in row.call.flags if flag != "clock_suspect"))
        for key, row in was.items()
    }
    assert {key: row.call for key, row in came.items()} == expected
    (score,) = came[SCORE.span_id].scores
    assert score == was[SCORE.span_id].scores[0]
    assert target.trace(SPANS[0].trace_id) == source.trace(SPANS[0].trace_id)


def test_calls_written_as_json_lines_come_back_column_by_column(
    source: Store, target: Store, tmp_path: Path
) -> None:
    done = read(target, written(source, tmp_path / "calls.jsonl", "jsonl"))
    was, came = calls(source), calls(target)
    assert (done.calls, done.rejected) == (len(was), 0)
    assert came.keys() == was.keys()
    for key, row in was.items():
        differing = {
            spec.name: (getattr(row.call, spec.name), getattr(came[key].call, spec.name))
            for spec in fields(CallRecord)
            if spec.name not in READ and getattr(row.call, spec.name) != getattr(came[key].call, spec.name)
        }
        assert differing == {}, row.call.response_id
    assert [replace(each, explanation="") for each in came[SCORE.span_id].scores] == list(
        was[SCORE.span_id].scores
    )


@pytest.mark.parametrize("format", ["otlp-json", "jsonl"])
def test_importing_again_changes_nothing(source: Store, target: Store, tmp_path: Path, format: Any) -> None:
    file = written(source, tmp_path / "out", format)
    read(target, file)
    before = calls(target)
    again = read(target, file)
    assert again.duplicates == again.spans > 0
    assert calls(target) == before
    assert read(source, file).duplicates == again.spans


def test_gzipped_file_and_one_document_over_many_lines_are_read(
    source: Store, target: Store, tmp_path: Path
) -> None:
    (line, _) = written(source, tmp_path / "out", "otlp-json").read_bytes().splitlines()
    packed, pretty = tmp_path / "out.gz", tmp_path / "pretty.json"
    packed.write_bytes(gzip.compress(line))
    pretty.write_text(json.dumps(json.loads(line), indent=2))
    assert read(target, packed).accepted == len(ALL)
    assert read(target, pretty).duplicates == len(ALL)


def test_otlp_protobuf_is_read_as_one_message_and_as_many(target: Store, tmp_path: Path) -> None:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    requests = []
    for number in (1, 2):
        request = ExportTraceServiceRequest()
        sent = request.resource_spans.add().scope_spans.add().spans.add()
        sent.trace_id, sent.span_id = number.to_bytes(16), number.to_bytes(8)
        sent.start_time_unix_nano, sent.end_time_unix_nano = NOW_NS, NOW_NS + 1
        said = sent.attributes.add(key="gen_ai.operation.name")
        said.value.string_value = "chat"
        requests.append(request.SerializeToString())
    one, many, cut = tmp_path / "one.pb", tmp_path / "many.pb", tmp_path / "cut.pb"
    one.write_bytes(requests[0])
    many.write_bytes(b"".join(len(each).to_bytes(4) + each for each in requests))
    cut.write_bytes(many.read_bytes()[:-1])
    assert (read(target, one).calls, read(target, many).duplicates) == (1, 1)
    assert read(target, cut).reasons == {"the file ends within a message": 1}
    assert len(calls(target)) == 2


def test_only_what_is_meant_is_written(source: Store, target: Store, tmp_path: Path) -> None:
    file = written(source, tmp_path / "support", "otlp-json", routes=["support"])
    assert read(target, file).spans == 3  # the whole trace: the route stands on the parent
    assert {row.call.route for row in calls(target).values()} == {"support"}
    late = written(source, tmp_path / "late", "jsonl", since_ns=NOW_NS)
    assert [json.loads(line)["response_id"] for line in late.read_text().splitlines()] == ["r-6"]


def test_csv_says_what_json_says_and_starts_no_formula(tmp_path: Path) -> None:
    store = store_at(tmp_path / "csv.db")
    append(store, [span(1, 1, attributes=chat("=1+1")), FAILED])
    try:
        out = io.BytesIO()
        assert export(store, out, "csv") == 2
    finally:
        store.close()
    first, failed = csv.DictReader(io.StringIO(out.getvalue().decode()))
    assert (first["response_id"], first["input_tokens"], first["cost_nusd"]) == ("'=1+1", "1000", "210000")
    assert (failed["error_type"], failed["input_tokens"], failed["cost_usd"]) == ("RateLimitError", "", "")


def test_parquet_has_the_columns_in_their_types(source: Store, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    table = parquet.read_table(written(source, tmp_path / "calls.parquet", "parquet"))
    rows = {row["response_id"]: row for row in table.to_pylist()}
    was = {row.call.response_id: row.call for row in calls(source).values()}
    assert {str(table.schema.field(name).type) for name in ("start_ns", "cost_nusd", "input_tokens")} == {
        "int64"
    }
    assert str(table.schema.field("act_prob").type) == "double"
    assert rows["r-8"]["cost_nusd"] == was["r-8"].cost_nusd
    assert rows["r-8"]["flags"] == list(was["r-8"].flags)
    assert rows["r-4"]["cost_nusd"] is None


def test_parquet_without_pyarrow_says_what_to_do(source: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ParquetMissing, match="pip install pyarrow"):
        export(source, io.BytesIO(), "parquet")


LITELLM = {
    "id": "chatcmpl-1", "litellm_call_id": "1f7b", "trace_id": "t-1", "call_type": "acompletion", "stream": True,
    "status": "success", "custom_llm_provider": "openai", "model": "gpt-4o-mini", "model_group": "cheap",
    "startTime": NOW_NS / 1e9, "endTime": NOW_NS / 1e9 + 2, "completionStartTime": NOW_NS / 1e9 + 0.5,
    "prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100, "response_cost": 0.0002, "end_user": "u-1",
    "metadata": {"route": "support", "usage_object": {"prompt_tokens_details": {"cached_tokens": 200}}},
    "messages": [{"role": "user", "content": "secret"}], "response": {"id": "chatcmpl-1", "model": "gpt-4o-mini-2024-07-18"},
}  # fmt: skip
LITELLM_FAILED = {
    **LITELLM, "id": "x", "litellm_call_id": "2", "status": "failure", "response": None, "response_cost": 0,
    "prompt_tokens": 0, "completion_tokens": 0,
    "metadata": {}, "error_information": {"error_class": "RateLimitError", "error_code": "429"},
}  # fmt: skip
LITELLM_SPEND = {
    "request_id": "chatcmpl-3", "call_type": "aembedding", "spend": 0.00002, "prompt_tokens": 1000, "completion_tokens": 0,
    "startTime": "2026-11-18T05:00:00Z", "endTime": "2026-11-18T05:00:01.5Z", "model": "text-embedding-3-small",
    "custom_llm_provider": "openai", "cache_hit": "False", "session_id": "s-1",
    "metadata": '{"route": "search"}',
}  # fmt: skip
LITELLM_CACHED = {
    **LITELLM,
    "id": "chatcmpl-4",
    "litellm_call_id": "4",
    "cache_hit": True,
    "response_cost": 0.0,
}


def test_litellm_logs_become_calls(target: Store, tmp_path: Path) -> None:
    done = read(
        target, lines(tmp_path / "litellm.jsonl", LITELLM, LITELLM_FAILED, LITELLM_SPEND, LITELLM_CACHED)
    )
    assert (done.calls, done.rejected) == (4, 0)
    found = {row.call.response_id: row.call for row in calls(target).values()}
    call = found["chatcmpl-1"]
    assert (call.provider, call.request_model, call.response_model) == (
        "openai",
        "gpt-4o-mini",
        "gpt-4o-mini-2024-07-18",
    )
    assert (call.input_tokens, call.output_tokens, call.cached_input_tokens) == (1000, 100, 200)
    assert (call.route, call.user_id, call.is_streaming) == ("support", "u-1", True)
    assert (call.duration_ns, call.ttft_ns) == (2_000_000_000, 500_000_000)
    assert (call.cost_source, call.wire_cost_nusd) == ("price_book", 200_000)
    failed = next(each for each in found.values() if each.error_type)
    assert (failed.error_type, failed.error_class, failed.http_status) == (
        "RateLimitError",
        "rate_limit",
        429,
    )
    assert (failed.input_tokens, failed.cost_nusd) == (None, None)
    spend = found["chatcmpl-3"]
    assert (spend.operation, spend.input_tokens, spend.session_id) == ("embeddings", 1000, "s-1")
    assert spend.route == "search"
    cached = found[""]
    assert (cached.outcome, cached.cost_nusd, cached.cost_source) == ("cache_hit", 0, "cache")
    assert "secret" not in repr([target.trace(row.call.trace_id) for row in calls(target).values()])


LANGFUSE = {
    "id": "0123456789abcdef", "traceId": "0123456789abcdef0123456789abcdef", "type": "GENERATION", "name": "answer-mail",
    "startTime": "2026-11-18T05:00:00.000Z", "endTime": "2026-11-18T05:00:02.000Z",
    "completionStartTime": "2026-11-18T05:00:00.250Z", "model": "claude-sonnet-4-5", "level": "DEFAULT",
    "usageDetails": {"input": 700, "output": 60, "input_cache_read": 300, "total": 1060},
    "costDetails": {"input": 0.001, "output": 0.002, "total": 0.003}, "promptName": "mail", "promptVersion": 3,
    "parentObservationId": "span-1", "environment": "prod", "input": "secret", "output": "secret",
}  # fmt: skip
LANGFUSE_PARENT = {**LANGFUSE, "id": "span-1", "type": "SPAN", "name": "handle-mail", "parentObservationId": None, "usageDetails": {}, "costDetails": {}, "model": None}  # fmt: skip
LANGFUSE_FAILED = {
    "id": "gen-2", "trace_id": "trace-2", "type": "GENERATION", "name": "OpenAI-generation", "level": "ERROR",
    "status_message": "Error code: 500", "start_time": "2026-11-18 05:00:00.000000", "end_time": "2026-11-18 05:00:01.000000",
    "provided_model_name": "gpt-4o-mini", "usage_details": {}, "cost_details": {}, "user_id": "u-2", "session_id": "s-2",
    "trace_name": "triage",
}  # fmt: skip
LANGFUSE_SCORE = {
    "id": "sc-1", "traceId": LANGFUSE["traceId"], "observationId": LANGFUSE["id"], "name": "correct", "value": 1,
    "dataType": "NUMERIC", "source": "EVAL", "timestamp": "2026-11-18T06:00:00Z",
}  # fmt: skip


@pytest.mark.parametrize("as_page", [False, True])
def test_langfuse_observations_and_scores_become_calls(target: Store, tmp_path: Path, as_page: bool) -> None:
    rows = [LANGFUSE_SCORE, LANGFUSE, LANGFUSE_PARENT, LANGFUSE_FAILED]
    file = tmp_path / "langfuse.json"
    file.write_text(json.dumps({"data": rows}, indent=1)) if as_page else lines(file, *rows)
    done = read(target, file)
    assert (done.spans, done.calls, done.scores, done.rejected) == (3, 2, 1, 0)
    row = calls(target)[bytes.fromhex(str(LANGFUSE["id"]))]
    call = row.call
    assert (call.provider, call.response_model, call.route) == (
        "anthropic",
        "claude-sonnet-4-5",
        "answer-mail",
    )
    assert (call.input_tokens, call.output_tokens, call.cached_input_tokens) == (1000, 60, 300)
    assert (call.duration_ns, call.ttft_ns, call.env) == (2_000_000_000, 250_000_000, "prod")
    assert (call.prompt_name, call.prompt_version, call.wire_cost_nusd) == ("mail", "3", 3_000_000)
    assert [(score.name, score.value, score.kind) for score in row.scores] == [("correct", 1.0, "judge")]
    failed = next(each.call for each in calls(target).values() if each.call.error_type)
    assert (failed.http_status, failed.route, failed.session_id, failed.user_id) == (
        500,
        "triage",
        "s-2",
        "u-2",
    )
    assert read(target, file).duplicates == 3


def test_lines_that_cannot_be_read_are_counted_and_their_neighbours_stay(
    target: Store, tmp_path: Path
) -> None:
    file = lines(
        tmp_path / "mixed.jsonl", LITELLM, {"hello": 1}, {**LITELLM, "startTime": None}, [1], LITELLM_SPEND
    )
    with file.open("a") as more:
        more.write("{broken\n")
    done = read(target, file)
    assert (done.calls, done.rejected) == (2, 4)
    assert "a line without a start" in done.reasons
    text = tmp_path / "text"
    text.write_text("{ hello\n world")
    with pytest.raises(BadRequest, match="expected JSON lines or OTLP"):
        read(target, text)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@given(st.lists(st.tuples(st.sampled_from(range(6)), st.integers(0, 60), JSON), min_size=1, max_size=20))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_value_of_a_line_stops_an_import(
    source: Store, target: Store, tmp_path: Path, changes: list[tuple[int, int, Any]]
) -> None:
    """Whatever stands in a line, it is stored or refused, and the lines beside it are stored."""
    row = json.loads(written(source, tmp_path / "own", "jsonl").read_text().splitlines()[0])
    score = {"name": "x", "value": 1, "time_ns": NOW_NS, "kind": "judge"}
    kinds: list[dict[str, Any]] = [
        {**row, "scores": [score]}, {**row, **score}, LITELLM, LITELLM_FAILED, LANGFUSE, LANGFUSE_SCORE,
    ]  # fmt: skip
    rows: list[Any] = []
    for kind, at, value in changes:
        names = list(kinds[kind])
        rows.append({**kinds[kind], names[at % len(names)]: value})
    rows.append({**LITELLM_SPEND, "request_id": "the last"})
    file = tmp_path / "lines"
    file.write_bytes(b"".join(orjson.dumps(each) + b"\n" for each in rows))
    done = read(target, file)
    assert done.spans + done.scores + done.rejected >= len(rows)
    assert len(target.calls(Filters(text="the last")).rows) == 1


def test_spans_older_than_calls_are_kept_are_refused(target: Store, tmp_path: Path) -> None:
    old = {**LITELLM_SPEND, "startTime": "2025-01-01T00:00:00Z"}
    file = lines(tmp_path / "old.jsonl", old)
    done = read(target, file)
    (reason,) = done.reasons
    assert (done.rejected, done.accepted, "400 days" in reason) == (1, 0, True)
    assert import_file(target, file, COSTING, clock_ns=lambda: NOW_NS, horizon_days=10_000).calls == 1


def test_file_of_many_batches_is_stored_in_parts(
    target: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "BATCH", 10)
    rows = [{**LITELLM_SPEND, "request_id": f"r-{number}"} for number in range(35)]
    seen: list[int] = []
    done = import_file(target, lines(tmp_path / "many", *rows), COSTING, progress=seen.append)
    assert (done.accepted, seen) == (35, [10, 20, 30, 35])
