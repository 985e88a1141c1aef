"""Real exporters against the real collector: what an application's own OpenTelemetry SDK sends is stored."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry._logs import LogRecord
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import set_span_in_context
from opentelemetry.util.types import AnyValue

from collector.running import Running, running_collector

CALL: dict[str, AnyValue] = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-4o-mini",
    "gen_ai.usage.input_tokens": 12,
    "gen_ai.usage.output_tokens": 3,
}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_collector(tmp_path_factory.mktemp("clients")) as collector:
        yield collector


class Results(SpanExporter):
    """An exporter that remembers what the one inside answered."""

    def __init__(self, inner: SpanExporter) -> None:
        self.inner = inner
        self.results: list[SpanExportResult] = []

    def export(self, spans: object) -> SpanExportResult:
        result = self.inner.export(spans)  # type: ignore[arg-type]
        self.results.append(result)
        return result

    def shutdown(self) -> None:
        self.inner.shutdown()


def exporters(running: Running, name: str) -> SpanExporter:
    if name == "http":
        return HttpExporter(running.url + "/v1/traces", compression=Compression.NoCompression)
    if name == "http gzip":
        return HttpExporter(running.url + "/v1/traces", compression=Compression.Gzip)
    if name == "http deflate":
        return HttpExporter(running.url + "/v1/traces", compression=Compression.Deflate)
    import grpc

    gzip = grpc.Compression.Gzip if name == "grpc gzip" else grpc.Compression.NoCompression
    return GrpcExporter(running.grpc_address, insecure=True, compression=gzip)


@pytest.mark.parametrize("name", ["http", "http gzip", "http deflate", "grpc", "grpc gzip"])
def test_a_call_of_the_python_sdk_is_stored_whole(running: Running, name: str) -> None:
    exporter = Results(exporters(running, name))
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("my.app")
    with tracer.start_as_current_span("handle"), tracer.start_as_current_span("chat gpt-4o-mini") as span:
        span.set_attributes(CALL)
        span.add_event("gen_ai.first_chunk", {"n": 1})
    provider.shutdown()
    assert exporter.results == [SpanExportResult.SUCCESS] * 2
    assert isinstance(span, ReadableSpan)
    context = span.get_span_context()
    assert context is not None
    ids = context.trace_id.to_bytes(16, "big"), context.span_id.to_bytes(8, "big")
    row = running.store.call(*ids)
    assert row is not None
    assert (row.call.input_tokens, row.call.output_tokens, row.call.request_model) == (12, 3, "gpt-4o-mini")
    assert row.call.duration_ns == (span.end_time or 0) - (span.start_time or 0)
    assert [stored.name for stored in running.store.trace(ids[0])] == ["handle", "chat gpt-4o-mini"]


def test_a_score_of_the_python_log_exporter_finds_its_call(running: Running) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporters(running, "http")))
    with provider.get_tracer("my.app").start_as_current_span("chat gpt-4o-mini") as span:
        span.set_attributes(CALL)
    provider.shutdown()
    context = span.get_span_context()
    logs = LoggerProvider(shutdown_on_exit=False)
    logs.add_log_record_processor(SimpleLogRecordProcessor(OTLPLogExporter(running.url + "/v1/logs")))
    logs.get_logger("my.app").emit(
        LogRecord(
            timestamp=time.time_ns(),
            context=set_span_in_context(span),
            event_name="gen_ai.evaluation.result",
            attributes={"gen_ai.evaluation.name": "exact", "gen_ai.evaluation.score.value": 0.5},
        )
    )
    logs.shutdown()
    row = running.store.call(context.trace_id.to_bytes(16, "big"), context.span_id.to_bytes(8, "big"))
    assert row is not None
    assert [(score.name, score.value) for score in row.scores] == [("exact", 0.5)]


def test_an_sdk_that_also_sends_metrics_is_content(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    exporter = OTLPMetricExporter(running.url + "/v1/metrics")
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=60_000)
    provider = MeterProvider([reader], shutdown_on_exit=False)
    provider.get_meter("my.app").create_counter("gen_ai.client.calls").add(3)
    assert provider.force_flush()
    provider.shutdown()
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
    assert running.collector.ingest.counters.snapshot()["metrics_not_stored"] >= 1


NODE_SCRIPT = """
const { BasicTracerProvider, SimpleSpanProcessor } = require('@opentelemetry/sdk-trace-base');
const { OTLPTraceExporter } = require(process.argv[1]);
const exporter = new OTLPTraceExporter({ url: process.argv[2], compression: process.argv[3] });
const provider = new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] });
const span = provider.getTracer('js').startSpan('chat gpt-4o-mini', { attributes: JSON.parse(process.argv[4]) });
span.end();
const { traceId, spanId } = span.spanContext();
provider.forceFlush().then(() => provider.shutdown()).then(() => console.log(traceId, spanId));
"""


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("kind", ["http", "proto", "grpc"])
def test_a_call_of_the_javascript_sdk_is_stored(running: Running, kind: str, compression: str) -> None:
    modules = os.environ.get("TIERLIGHT_NODE_MODULES", "")
    package = f"@opentelemetry/exporter-trace-otlp-{kind}"
    if not shutil.which("node") or not (Path(modules) / package).is_dir():
        pytest.skip(f"needs node and TIERLIGHT_NODE_MODULES, a node_modules folder with {package}")
    url = f"http://{running.grpc_address}" if kind == "grpc" else running.url + "/v1/traces"
    done = subprocess.run(
        ["node", "-e", NODE_SCRIPT, package, url, compression, json.dumps(CALL)],
        env={**os.environ, "NODE_PATH": modules},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    trace_id, span_id = map(bytes.fromhex, done.stdout.split())
    row = running.store.call(trace_id, span_id)
    assert row is not None, done.stderr
    assert (row.call.input_tokens, row.call.output_tokens) == (12, 3)
