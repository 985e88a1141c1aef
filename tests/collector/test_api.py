"""The JSON API, its cursors, the scores that come in by it, and the Prometheus text."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from tierlight_collector.api import api_router
from tierlight_collector.normalise import normalise
from tierlight_collector.records import Batch, Resource, SpanRecord
from tierlight_collector.shapes import CALL_KEYS, call_json, iso_time
from tierlight_collector.stores import Store, open_store

NOW_NS = 1_795_500_000_000_000_000  # 2026-11-24
HOUR_NS = 3_600_000_000_000


def span(number: int, route: str = "triage", **attributes: Any) -> SpanRecord:
    said = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o-mini",
        "gen_ai.usage.input_tokens": 10 + number,
        "gen_ai.usage.output_tokens": 2,
        "tierlight.route": route,
        "tierlight.schema": "1",
        "tierlight.call.id": f"call-{number}",
        **attributes,
    }
    start_ns = NOW_NS - HOUR_NS + number * 1_000_000
    return SpanRecord(
        secrets.token_bytes(16),
        secrets.token_bytes(8),
        b"",
        "chat gpt-4o-mini",
        3,
        start_ns,
        start_ns + 250_000_000,
        0,
        "",
        "tierlight",
        "",
        said,
        (),
        Resource({}, "support"),
    )


def add(store: Store, *spans: SpanRecord) -> None:
    store.append(Batch(spans=tuple(normalise(each, NOW_NS) for each in spans), arrived_ns=NOW_NS))


class Api:
    """The API of one store, without a socket."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.app = FastAPI(telemetry={"tracing": False, "metrics": False, "logs": False})
        self.app.include_router(
            api_router(store, counters=lambda: {"rejected": 3}, limits={"spans": 7}, clock_ns=lambda: NOW_NS)
        )

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        async def run() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost:4319") as client:
                return await client.request(method, path, **options)

        return asyncio.run(run())

    def get(self, path: str, **params: Any) -> Any:
        answer = self.ask("GET", path, params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    store = open_store(f"sqlite:///{tmp_path / 'calls.db'}", now_ns=lambda: NOW_NS)
    yield Api(store)
    store.close()


def test_a_call_has_exactly_the_public_keys_and_unknown_is_null(api: Api) -> None:
    sent = span(1)
    add(api.store, sent)
    (call,) = api.get("/api/v1/calls")["calls"]
    assert tuple(call) == CALL_KEYS
    assert call["trace_id"] == sent.trace_id.hex()
    assert call["started_at"] == iso_time(sent.start_ns)
    assert (call["route"], call["latency_ms"], call["input_tokens"]) == ("triage", 250.0, 11)
    assert [key for key in CALL_KEYS if call[key] is None] == [
        "parent_span_id",
        "response_model",
        "cached_input_tokens",
        "cache_write_input_tokens",
        "reasoning_tokens",
        "cost_usd",
        "cost_source",
        "ttft_ms",
        "error_type",
        *(["is_streaming"] if call["is_streaming"] is None else []),
    ]
    row = api.store.call(sent.trace_id, sent.span_id)
    assert row is not None
    assert call_json(row) == call


def test_pages_follow_each_other_without_gap_or_double(api: Api) -> None:
    add(api.store, *(span(number) for number in range(25)))
    seen: list[int] = []
    cursor = ""
    while cursor is not None:
        page = api.get("/api/v1/calls", limit=10, cursor=cursor)
        seen += [call["input_tokens"] for call in page["calls"]]
        cursor = page["next"]
        if seen == [34 - n for n in range(10)]:
            add(api.store, span(99))  # a new call does not shift the pages behind it
    assert seen == [34 - n for n in range(25)]


@pytest.mark.parametrize("order", ["time", "cost", "latency"])
def test_every_order_can_be_paged(api: Api, order: str) -> None:
    add(api.store, *(span(number) for number in range(5)))
    first = api.get("/api/v1/calls", limit=3, order=order)
    second = api.get("/api/v1/calls", limit=3, order=order, cursor=first["next"])
    spans = {call["span_id"] for call in first["calls"] + second["calls"]}
    assert (len(spans), second["next"]) == (5, None)


def test_a_cursor_of_another_query_or_a_tampered_one_is_refused(api: Api) -> None:
    add(api.store, *(span(number) for number in range(5)))
    cursor = api.get("/api/v1/calls", limit=2)["next"]
    for params in (
        {"cursor": cursor, "route": "other"},
        {"cursor": cursor[:-1] + ("A" if cursor[-1] != "A" else "B")},
        {"cursor": "x"},
        {"cursor": "🙂"},
        {"cursor": cursor + "AAAA"},
    ):
        assert api.ask("GET", "/api/v1/calls", params=params).status_code == 400


def test_filters_select_and_their_values_are_literal(api: Api) -> None:
    add(api.store, span(1, "a"), span(2, "b"), span(3, "b", **{"error.type": "timeout"}))
    assert len(api.get("/api/v1/calls", route="b")["calls"]) == 2
    assert len(api.get("/api/v1/calls", route=["a", "b"])["calls"]) == 3
    assert len(api.get("/api/v1/calls", error=True)["calls"]) == 1
    assert api.get("/api/v1/calls", route="%")["calls"] == []
    assert api.get("/api/v1/calls", route="' OR 1=1--")["calls"] == []
    assert len(api.get("/api/v1/calls", q="call-2")["calls"]) == 1


@pytest.mark.parametrize(
    "query",
    [
        "order=cost;drop table calls",
        "limit=0",
        "limit=1e9",
        "limit=1001",
        "limit=5&limit=6",
        "purpose=everything",
        "from=yesterday",
        "from=2026-11-24&to=2026-11-23",
        "sort=cost",
        "route=%00",
        "q=" + "a" * 257,
        "__class__=x",
    ],
)
def test_a_query_that_means_nothing_is_a_bad_request(api: Api, query: str) -> None:
    answer = api.ask("GET", f"/api/v1/calls?{query}")
    assert answer.status_code == 400
    assert answer.json()["error"]


@pytest.mark.parametrize(
    "query",
    [
        "group_by=__class__",
        "group_by=route&group_by=route",
        "step=minute",
        "step=hour&tz=../x",
        "from=2020-01-01&to=2026-01-01",
    ],
)
def test_rollups_refuse_what_they_do_not_know(api: Api, query: str) -> None:
    assert api.ask("GET", f"/api/v1/rollups?{query}").status_code == 400


def test_one_call_is_found_by_its_ids_and_nothing_else(api: Api) -> None:
    sent = span(1)
    add(api.store, sent)
    found = api.get(f"/api/v1/calls/{sent.trace_id.hex()}/{sent.span_id.hex()}")
    assert (found["call_id"], found["is_superseded"], found["scores"]) == ("call-1", False, [])
    for path in ("../x/y", "ab/cd", f"{'0' * 32}/{'0' * 16}", f"{'١' * 32}/{'0' * 16}"):
        assert api.ask("GET", f"/api/v1/calls/{path}").status_code == 404


def test_routes_and_rollups_sum_up_the_calls(api: Api) -> None:
    add(api.store, *(span(number, "a") for number in range(3)), span(9, "b", **{"error.type": "timeout"}))
    routes = api.get("/api/v1/routes")["routes"]
    assert [(route["route"], route["calls"], route["error_rate"]) for route in routes] == [
        ("a", 3, 0.0),
        ("b", 1, 1.0),
    ]
    assert routes[0]["cost_usd"] is None
    (hour,) = api.get("/api/v1/rollups", group_by="route", step="hour", route="a")["rollups"]
    assert (hour["route"], hour["calls"], hour["input_tokens"]) == ("a", 3, 33)
    assert hour["latency_p50_ms"] == pytest.approx(250, rel=0.02)
    first = api.get("/api/v1/rollups", group_by="route", limit=1)
    second = api.get("/api/v1/rollups", group_by="route", limit=1, cursor=first["next"])
    assert [page["rollups"][0]["route"] for page in (first, second)] == ["a", "b"]


def test_empty_lists_are_lists(api: Api) -> None:
    assert api.get("/api/v1/alerts") == {"alerts": [], "next": None}
    assert api.get("/api/v1/recommendations") == {"recommendations": [], "next": None}
    assert api.get("/api/v1/routes")["routes"] == []


# ---- scores -------------------------------------------------------------------------------------------------


def test_a_score_finds_its_call_by_every_key(api: Api) -> None:
    sent = span(1, **{"gen_ai.response.id": "resp-1", "tierlight.join.ticket": "T-9"})
    add(api.store, sent)
    ids = {"trace_id": sent.trace_id.hex(), "span_id": sent.span_id.hex()}
    for name, keys in {
        "by_call": {"call_id": "call-1"},
        "by_span": ids,
        "by_response": {"response_id": "resp-1"},
        "by_join": {"join_key": "ticket", "join_value": "T-9"},
    }.items():
        answer = api.ask("POST", "/api/v1/scores", json={"name": name, "value": 0.25, **keys})
        assert (answer.status_code, answer.json()) == (200, {"accepted": 1})
    scores = api.get(f"/api/v1/calls/{ids['trace_id']}/{ids['span_id']}")["scores"]
    assert {score["name"]: score["value"] for score in scores} == dict.fromkeys(
        ("by_call", "by_span", "by_response", "by_join"), 0.25
    )


def test_a_score_may_come_before_its_call_and_a_later_one_replaces_it(api: Api) -> None:
    for value in (0.0, 1.0):
        api.ask("POST", "/api/v1/scores", json=[{"name": "csat", "value": value, "call_id": "call-4"}])
    sent = span(4)
    add(api.store, sent)
    (score,) = api.get(f"/api/v1/calls/{sent.trace_id.hex()}/{sent.span_id.hex()}")["scores"]
    assert score["value"] == 1.0


def test_a_label_that_is_a_verdict_has_a_value(api: Api) -> None:
    sent = span(4)
    add(api.store, sent)
    api.ask("POST", "/api/v1/scores", json={"name": "review", "label": "Fail", "call_id": "call-4"})
    (score,) = api.get(f"/api/v1/calls/{sent.trace_id.hex()}/{sent.span_id.hex()}")["scores"]
    assert (score["label"], score["value"]) == ("Fail", 0.0)


@pytest.mark.parametrize(
    "body",
    [
        {"value": 1, "call_id": "c"},
        {"name": "", "value": 1, "call_id": "c"},
        {"name": "n", "call_id": "c"},
        {"name": "n", "value": 1.5, "call_id": "c"},
        {"name": "n", "value": -0.1, "call_id": "c"},
        {"name": "n", "value": "1", "call_id": "c"},
        {"name": "n", "value": True, "call_id": "c"},
        {"name": "n", "value": 1},
        {"name": "n", "value": 1, "trace_id": "ab" * 16},
        {"name": "n", "value": 1, "trace_id": "zz" * 16, "span_id": "ab" * 8},
        {"name": "n", "value": 1, "join_key": "k"},
        {"name": "n", "value": 1, "call_id": "c", "admin": True},
        [{"name": "n", "value": 1, "call_id": "c"}] * 1001,
        "text",
    ],
)
def test_a_score_that_cannot_be_right_is_refused_whole(api: Api, body: Any) -> None:
    good = {"name": "n", "value": 1, "call_id": "c"}
    answer = api.ask("POST", "/api/v1/scores", json=[good, body] if isinstance(body, dict) else body)
    assert answer.status_code == 400
    assert answer.json()["error"]
    assert api.store.health().counters.get("scores", 0) == 0


def test_only_json_of_a_bounded_size_is_read(api: Api) -> None:
    assert (
        api.ask("POST", "/api/v1/scores", content=b"{}", headers={"content-type": "text/plain"}).status_code
        == 415
    )
    json_type = {"content-type": "application/json"}
    assert api.ask("POST", "/api/v1/scores", content=b"{", headers=json_type).status_code == 400
    assert api.ask("POST", "/api/v1/scores", content=bytes(1_100_000), headers=json_type).status_code == 413
    nan = b'{"name":"n","value":NaN,"call_id":"c"}'
    assert api.ask("POST", "/api/v1/scores", content=nan, headers=json_type).status_code == 400


# ---- operation ----------------------------------------------------------------------------------------------


def test_prometheus_text_counts_by_route_and_escapes_labels(api: Api) -> None:
    add(api.store, span(1, "triage"), span(2, "triage"))
    api.ask("POST", "/api/v1/scores", json={"name": 'a"b\\c', "value": 0.5, "call_id": "call-1"})
    answer = api.ask("GET", "/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    labels = 'route="triage",provider="openai",model="gpt-4o-mini",tier="mid"'
    lines = answer.text.splitlines()
    assert f"tierlight_calls_total{{{labels}}} 2" in lines
    assert f'tierlight_tokens_total{{{labels},type="input"}} 23' in lines
    assert f'tierlight_score_sum{{{labels},score="a\\"b\\\\c",source="api"}} 0.5' in lines
    assert 'tierlight_ingest_events_total{event="rejected"} 3' in lines
    assert "tierlight_store_ok 1" in lines
    assert all(line.startswith("# ") or line.rsplit(" ", 1)[1] for line in lines)


def test_health_says_state_counters_and_limits(api: Api) -> None:
    add(api.store, span(1))
    found = api.get("/health")
    assert (found["state"], found["calls"], found["limits"]) == ("ok", 1, {"spans": 7})
    assert found["counters"]["rejected"] == 3


def test_the_reference_lists_every_route_and_loads_nothing_from_elsewhere(api: Api) -> None:
    document = api.get("/api/v1/openapi.json")
    assert {
        "/api/v1/calls",
        "/api/v1/routes",
        "/api/v1/rollups",
        "/api/v1/alerts",
        "/api/v1/recommendations",
    } <= set(document["paths"])
    page = api.ask("GET", "/api").text
    assert all(path in page for path in document["paths"])
    assert "<script" not in page
    assert "http://" not in page
    assert "https://" not in page
