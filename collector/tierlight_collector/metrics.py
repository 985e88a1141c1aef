"""The Prometheus text of GET /metrics: calls, tokens, cost, quality and alerts by route; queue, drops and lag.

Sums run over everything stored, so they only ever rise, across restarts too. The series are those of the routes and
models stored, whose number the store caps.

References: Prometheus text format 0.0.4.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from .decisions import Alert
from .records import Dim, Rollup, RouteInfo, StoreHealth

GROUP_BY: Final[tuple[Dim, ...]] = ("route", "provider", "model", "tier")
_SUMS: Final = (
    ("tierlight_calls_total", "Calls received.", "calls"),
    ("tierlight_call_errors_total", "Calls that ended in an error.", "errors"),
    ("tierlight_calls_unpriced_total", "Calls without a known cost.", "unpriced"),
    ("tierlight_calls_scored_total", "Calls with at least one score.", "scored"),
)
_TOKENS: Final = (
    ("input", "input_tokens"),
    ("output", "output_tokens"),
    ("cached_input", "cached_input_tokens"),
    ("cache_write_input", "cache_write_input_tokens"),
    ("reasoning", "reasoning_tokens"),
)


def prometheus_text(
    rollups: Iterable[Rollup],
    routes: Iterable[RouteInfo],
    open_alerts: Iterable[Alert],
    health: StoreHealth,
    counters: Mapping[str, int],
) -> str:
    """All metrics as text; `rollups` must be grouped by `GROUP_BY`, `counters` are those of the ingest by name."""
    lines: list[str] = []
    cells = [
        ({str(dim): value for dim, value in zip(GROUP_BY, rollup.key, strict=True)}, rollup)
        for rollup in rollups
    ]
    for name, text, field in _SUMS:
        _family(lines, name, "counter", text, ((labels, getattr(rollup, field)) for labels, rollup in cells))
    _family(
        lines,
        "tierlight_tokens_total",
        "counter",
        "Tokens of calls that say their usage; cached and cache writes are part of input, reasoning of output.",
        (
            ({**labels, "type": kind}, getattr(rollup, field))
            for labels, rollup in cells
            for kind, field in _TOKENS
        ),
    )
    _family(
        lines,
        "tierlight_cost_usd_total",
        "counter",
        "Cost of priced calls in US dollars.",
        ((labels, rollup.cost_nusd / 1_000_000_000) for labels, rollup in cells),
    )
    _family(
        lines,
        "tierlight_call_duration_seconds_sum",
        "counter",
        "Summed duration of calls whose duration is known.",
        ((labels, rollup.duration_ns / 1_000_000_000) for labels, rollup in cells),
    )
    _family(
        lines,
        "tierlight_call_duration_seconds_count",
        "counter",
        "Calls whose duration is known.",
        ((labels, rollup.calls - rollup.no_latency) for labels, rollup in cells),
    )
    _family(
        lines, "tierlight_score_sum", "counter", "Summed score values (1 is good).", _scores(cells, "sum")
    )
    _family(lines, "tierlight_score_count", "counter", "Number of scores.", _scores(cells, "n"))
    _family(
        lines,
        "tierlight_route_last_call_timestamp_seconds",
        "gauge",
        "When the newest call of the route began.",
        (({"route": info.route}, info.last_ns / 1_000_000_000) for info in routes),
    )
    open_by: dict[tuple[str, str, str], int] = {}
    for alert in open_alerts:
        key = (alert.route, alert.kind, alert.severity)
        open_by[key] = open_by.get(key, 0) + 1
    _family(
        lines,
        "tierlight_alerts_open",
        "gauge",
        "Alerts that are open or recovering.",
        (
            ({"route": route, "kind": kind, "severity": severity}, n)
            for (route, kind, severity), n in sorted(open_by.items())
        ),
    )
    _family(
        lines,
        "tierlight_store_ok",
        "gauge",
        "1 while the store takes writes.",
        [({}, int(health.state == "ok"))],
    )
    _family(lines, "tierlight_store_bytes", "gauge", "Size of the database.", [({}, health.db_bytes)])
    _family(
        lines, "tierlight_store_wal_bytes", "gauge", "Size of the write-ahead log.", [({}, health.wal_bytes)]
    )
    _family(lines, "tierlight_ingest_queue_bytes", "gauge", "Waiting for commit.", [({}, health.queue_bytes)])
    lags = (("0.5", health.commit_p50_ms), ("0.99", health.commit_p99_ms))
    _family(
        lines,
        "tierlight_ingest_lag_seconds",
        "gauge",
        "From the arrival of a request to its commit.",
        (({"quantile": q}, value / 1000) for q, value in lags if value is not None),
    )
    _family(
        lines,
        "tierlight_ingest_events_total",
        "counter",
        "What happened to requests and spans since the start, by event: accepted, duplicates, rejected, dropped.",
        (({"event": name}, n) for name, n in sorted({**health.counters, **counters}.items())),
    )
    return "\n".join(lines) + "\n"


def _scores(
    cells: Iterable[tuple[dict[str, str], Rollup]], field: str
) -> Iterator[tuple[Mapping[str, str], float]]:
    for labels, rollup in cells:
        for (name, source), sums in sorted(rollup.scores.items()):
            yield {**labels, "score": name, "source": source}, getattr(sums, field)


def _family(
    lines: list[str],
    name: str,
    kind: str,
    text: str,
    samples: Iterable[tuple[Mapping[str, str], float]],
) -> None:
    lines.append(f"# HELP {name} {text}")
    lines.append(f"# TYPE {name} {kind}")
    for labels, value in samples:
        inside = ",".join(f'{label}="{_escape(text)}"' for label, text in labels.items())
        lines.append(f"{name}{{{inside}}} {value!r}" if inside else f"{name} {value!r}")


def _escape(text: str) -> str:
    r"""A label value as the format wants it.

    >>> print(_escape('a"b\n'))
    a\"b\n
    """
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
