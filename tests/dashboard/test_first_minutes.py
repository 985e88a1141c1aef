"""The page of the first minutes says what the collector made of what was sent, also of what it refused."""

from __future__ import annotations

from collections.abc import Iterator
from html import unescape
from pathlib import Path

import httpx
import pytest

from dashboard import seed
from tierlight_dashboard.serve import Running, ServeSettings, serving_in_thread

JSON = {"content-type": "application/json"}


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    settings = ServeSettings(
        f"sqlite:///{tmp_path / 's.db'}", http_port=0, grpc_port=None, port=0, watch_every_s=0, clock=lambda: seed.NOW_NS
    )  # fmt: skip
    with serving_in_thread(settings) as running:
        yield running


@pytest.mark.parametrize(
    ("headers", "body", "told"),
    [
        ({"content-type": "text/plain"}, "x", "traces, 415: expected content type application/x-protobuf"),
        (JSON, "{", "traces, 400: "),
        (
            {**JSON, "host": "tierlight.example"},
            "{}",
            "traces, 421: this server does not answer for that host",
        ),
        ({**JSON, "content-encoding": "br"}, "{}", "traces, 415: expected content encoding"),
    ],
)
def test_the_newest_refusal_is_told_with_its_reason(
    running: Running, headers: dict[str, str], body: str, told: str
) -> None:
    with httpx.Client(trust_env=False) as client:
        before = unescape(client.get(f"{running.dashboard_url}/welcome").text)
        assert "refused" not in before
        assert "waiting for the first span" in before
        assert "Nothing after a minute?" in before
        sent = client.post(f"{running.otlp_url}/v1/traces", content=body, headers=headers)
        assert sent.status_code >= 400
        after = unescape(client.get(f"{running.dashboard_url}/welcome").text)
    assert f"refused just now: {told}" in after


def test_a_span_that_is_no_call_is_told_apart_from_silence(running: Running) -> None:
    at = str(seed.NOW_NS)
    span = {
        "traceId": "ab" * 16, "spanId": "cd" * 8, "name": "GET /", "kind": 2, "startTimeUnixNano": at, "endTimeUnixNano": at,
        "attributes": [{"key": "http.request.method", "value": {"stringValue": "GET"}}],
    }  # fmt: skip
    body = {"resourceSpans": [{"resource": {}, "scopeSpans": [{"scope": {"name": "http"}, "spans": [span]}]}]}
    with httpx.Client(trust_env=False) as client:
        assert client.post(f"{running.otlp_url}/v1/traces", json=body).status_code == 200
        page = client.get(f"{running.dashboard_url}/welcome").text
    assert "none of them is a call to a model" in page
