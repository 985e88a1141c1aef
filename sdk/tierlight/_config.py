"""`configure()` and what acts on everything that was recorded: `flush`, `stats`, `shutdown`.

Nothing heavy is imported before `configure()` runs: exporter and HTTP client load there or on the export
thread, prices on the export thread only.
"""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import unquote

from . import semconv as s
from ._content import ContentSettings
from ._guard import attempt, faults
from ._identity import RandomIds, SystemClock
from ._judge import bench
from ._record import AttributeValue, Clock, ExportSettings, Ids
from ._runtime import Runtime, activate, active
from ._version import __version__
from .errors import ConfigurationError

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

log = logging.getLogger("tierlight")

_TRUE: Final = ("1", "true", "yes", "on")
_FALSE: Final = ("0", "false", "no", "off")


def configure(
    *,
    service_name: str | None = None,
    service_version: str | None = None,
    environment: str | None = None,
    endpoint: str | None = None,
    headers: Mapping[str, str] | None = None,
    protocol: Literal["http/protobuf", "grpc"] | None = None,
    provider: Literal["global"] | TracerProvider | None = None,
    spool: bool | str | os.PathLike[str] = True,
    timeout_s: float | None = None,
    exit_timeout_s: float = 2.0,
    prices: str | os.PathLike[str] | Literal[False] | None = None,
    emit_draft_cost: bool = False,
    content: bool | None = None,
    max_content_bytes: int = 64 * 1024,
    redact: Callable[[str], str] | None = None,
    open_join_keys: Iterable[str] = (),
    join_salt: str = "",
    clock: Clock | None = None,
    ids: Ids | None = None,
) -> None:
    """Start recording: until this is called, routes and wrapped clients only run what they stand around.

    An argument comes before the environment, the environment before the default. Read are
    OTEL_SDK_DISABLED, OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, OTEL_EXPORTER_OTLP_* (endpoint, headers,
    protocol, timeout in seconds, compression, certificate; also with TRACES_ and LOGS_), OTEL_TRACES_SAMPLER
    with _ARG, OTEL_BSP_SCHEDULE_DELAY, OTEL_BSP_MAX_QUEUE_SIZE, OTEL_BSP_MAX_EXPORT_BATCH_SIZE,
    TIERLIGHT_SPOOL and TIERLIGHT_DATA_DIR. Calling it again replaces what was configured.

    Args:
        service_name: resource attribute `service.name`; service_version and environment likewise.
        endpoint: base URL of the collector, http://127.0.0.1:4318 unless said otherwise.
        headers: sent with each request, for a collector that asks for a token.
        provider: "global" or a `TracerProvider` sends the spans where the application's own go; by default a
            pipeline of our own is used. The global provider is never replaced.
        spool: False keeps nothing on disk; a path says where to.
        timeout_s: of one request, 1 by default; raise it for a collector far away.
        exit_timeout_s: all that the end of the process may be held up.
        prices: path of your own price file; False leaves pricing to the collector.
        content: capture messages (or OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT); off by default.
            Keys, tokens, e-mail addresses and card numbers are masked before anything leaves the process.
        max_content_bytes: of one captured attribute.
        redact: your own mask, run on each text after ours and off the calling thread; if it raises, the
            texts of that call are dropped and its numbers kept.
        open_join_keys: business keys whose values may leave as they are; of others only a hash is sent.
        join_salt: a secret that the hashes are made with; the same wherever scores are sent from.
        clock: what tells the time (`time_ns`, `perf_ns`) instead of the machine's clocks: for replaying
            recorded calls.
        ids: what gives trace, span and call ids instead of chance: for a run that comes out the same each time.
        emit_draft_cost: write the draft names `gen_ai.usage.cost.*` beside our own.

    Raises:
        ConfigurationError: an argument that is not usable. A variable that is not usable is reported in the
            log and ignored, as OpenTelemetry has it.
    """
    environ = os.environ
    previous = active()
    if _is_off(environ):
        activate(None)
    else:
        settings = export_settings(
            environ,
            service_name=service_name,
            service_version=service_version,
            environment=environment,
            endpoint=endpoint,
            headers=headers,
            protocol=protocol,
            spool=spool,
            timeout_s=timeout_s,
            exit_timeout_s=exit_timeout_s,
            prices=prices,
            emit_draft_cost=emit_draft_cost,
        )
        sample, follows_parent = sampler(environ)
        from ._export import Pipeline  # with its own imports, 20 ms: not for a process that only decorates

        joined = None
        if provider is not None:
            if provider != "global" and not hasattr(provider, "get_tracer"):
                raise ConfigurationError(
                    f'provider is "global" or a TracerProvider, got {type(provider).__name__}'
                )
            from ._joined import JoinedSpans

            joined = JoinedSpans(None if provider == "global" else provider)
        activate(
            Runtime(
                joined=joined,
                sink=Pipeline(settings),
                sample=sample,
                follows_parent=follows_parent,
                content=ContentSettings(
                    captures=captures_content(environ) if content is None else content,
                    max_bytes=max_content_bytes,
                    redactor=redact,
                ),
                open_join_keys=frozenset(open_join_keys),
                join_salt=join_salt.encode(),
                clock=clock or SystemClock(),
                ids=ids or RandomIds(),
            )
        )
    if previous is not None:
        previous.sink.shutdown(1.0)


def _is_off(environ: Mapping[str, str]) -> bool:
    return (
        environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
        or environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none"
    )


def captures_content(environ: Mapping[str, str]) -> bool:
    """What OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT says of span attributes; events are not ours."""
    said = environ.get("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "").strip().lower()
    return said in ("true", "1", "span_only", "span_and_event")


# ---- settings from arguments and environment ------------------------------------------------------------


def export_settings(
    environ: Mapping[str, str],
    *,
    service_name: str | None = None,
    service_version: str | None = None,
    environment: str | None = None,
    endpoint: str | None = None,
    headers: Mapping[str, str] | None = None,
    protocol: str | None = None,
    spool: bool | str | os.PathLike[str] = True,
    timeout_s: float | None = None,
    exit_timeout_s: float = 2.0,
    prices: str | os.PathLike[str] | bool | None = None,
    emit_draft_cost: bool = False,
) -> ExportSettings:
    """What the pipeline needs to know, from the arguments of `configure` and an environment."""
    protocol = protocol or _first(environ, "PROTOCOL") or "http/protobuf"
    if protocol not in ("http/protobuf", "grpc"):
        if protocol != "http/json":
            raise ConfigurationError(f"protocol is http/protobuf or grpc, got {protocol!r}")
        log.warning("tierlight sends http/protobuf where OTEL_EXPORTER_OTLP_PROTOCOL says http/json")
        protocol = "http/protobuf"
    if endpoint is not None and not endpoint.startswith(("http://", "https://")):
        raise ConfigurationError(f"endpoint is a URL with http:// or https://, got {endpoint!r}")
    for name, number in (("timeout_s", timeout_s), ("exit_timeout_s", exit_timeout_s)):
        if number is not None and not 0 < number <= 3600:
            raise ConfigurationError(f"{name} is a number of seconds above 0, got {number!r}")
    default = "http://127.0.0.1:4317" if protocol == "grpc" else "http://127.0.0.1:4318"
    base = endpoint or environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip() or default
    # An endpoint said in code means both signals; the variables of one signal are for those said outside.
    own = {} if endpoint else environ
    return ExportSettings(
        endpoint=base.rstrip("/"),
        traces_endpoint=own.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "").strip(),
        logs_endpoint=own.get("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "").strip(),
        protocol=protocol,
        headers=dict(headers) if headers is not None else parse_pairs(_first(environ, "HEADERS"), "HEADERS"),
        compression=_first(environ, "COMPRESSION") or "auto",
        certificate=_first(environ, "CERTIFICATE"),
        client_certificate=_first(environ, "CLIENT_CERTIFICATE"),
        client_key=_first(environ, "CLIENT_KEY"),
        timeout_s=timeout_s or _number(_first(environ, "TIMEOUT"), "OTEL_EXPORTER_OTLP_TIMEOUT", 1.0),
        exit_timeout_s=exit_timeout_s,
        schedule_delay_s=_number(environ.get("OTEL_BSP_SCHEDULE_DELAY"), "OTEL_BSP_SCHEDULE_DELAY", 1000.0)
        / 1000,
        max_queue_records=int(
            _number(environ.get("OTEL_BSP_MAX_QUEUE_SIZE"), "OTEL_BSP_MAX_QUEUE_SIZE", 8192)
        ),
        max_batch_records=int(
            _number(environ.get("OTEL_BSP_MAX_EXPORT_BATCH_SIZE"), "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 256)
        ),
        spool_dir=spool_folder(environ, spool),
        resource=resource_attributes(environ, service_name, service_version, environment),
        price=prices is not False,
        price_file=os.fspath(prices) if prices is not None and not isinstance(prices, bool) else "",
        draft_cost=emit_draft_cost,
    )


def _first(environ: Mapping[str, str], name: str) -> str:
    """A variable of the exporter: the one of traces before the general one."""
    value = environ.get(f"OTEL_EXPORTER_OTLP_TRACES_{name}", "").strip()
    return value or environ.get(f"OTEL_EXPORTER_OTLP_{name}", "").strip()


def _number(value: str | None, name: str, default: float) -> float:
    if not value:
        return default
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if not 0 < number < 1e9:
        log.warning("%s is not a number above 0; %s is used instead", name, default)
        return default
    return number


def parse_pairs(value: str, name: str) -> dict[str, str]:
    """`key=value,key=value` with percent-encoding, as the OTEL_* variables spell maps."""
    pairs: dict[str, str] = {}
    for part in value.split(","):
        key, equals, text = part.partition("=")
        if not equals or not key.strip():
            if part.strip():
                log.warning("a part of OTEL_*_%s is not key=value and is ignored", name)
            continue
        pairs[unquote(key.strip())] = unquote(text.strip())
    return pairs


def resource_attributes(
    environ: Mapping[str, str], service_name: str | None, service_version: str | None, environment: str | None
) -> dict[str, AttributeValue]:
    """The resource of all spans: who sends them."""
    named: dict[str, AttributeValue] = dict(
        parse_pairs(environ.get("OTEL_RESOURCE_ATTRIBUTES", ""), "RESOURCE_ATTRIBUTES")
    )
    service = service_name or environ.get("OTEL_SERVICE_NAME", "").strip()
    if service:
        named[s.SERVICE_NAME] = service
    named.setdefault(s.SERVICE_NAME, "unknown_service")
    if service_version:
        named[s.SERVICE_VERSION] = service_version
    if environment:
        named[s.DEPLOYMENT_ENVIRONMENT_NAME] = environment
    named.setdefault(s.SERVICE_INSTANCE_ID, str(uuid.uuid4()))
    named["telemetry.sdk.language"] = "python"
    named[s.TELEMETRY_SDK_NAME] = "tierlight"
    named["telemetry.sdk.version"] = __version__
    return named


def spool_folder(environ: Mapping[str, str], spool: bool | str | os.PathLike[str]) -> str:
    """Where unsent requests are kept; "" for nowhere."""
    said = environ.get("TIERLIGHT_SPOOL", "").strip()
    if spool is False or said.lower() in _FALSE:
        return ""
    if not isinstance(spool, bool):
        return os.fspath(spool)
    if said and said.lower() not in _TRUE:
        return said
    data = environ.get("TIERLIGHT_DATA_DIR", "").strip()
    if data:
        return str(Path(data) / "spool")
    home = environ.get("XDG_DATA_HOME", "").strip()
    try:
        return str((Path(home) if home else Path.home() / ".local" / "share") / "tierlight" / "spool")
    except RuntimeError:  # no home directory
        return ""


# ---- sampling -------------------------------------------------------------------------------------------

_SCALE: Final = 1 << 64


def sampler(environ: Mapping[str, str]) -> tuple[Callable[[int], bool] | None, bool]:
    """What OTEL_TRACES_SAMPLER says: a decision by trace id (None = keep), and whether a parent's comes first.

    References:
        OpenTelemetry specification, "TraceIdRatioBased": the lower 64 bits below the ratio are kept.
    """
    name = environ.get("OTEL_TRACES_SAMPLER", "").strip().lower() or "parentbased_always_on"
    follows_parent = name.startswith("parentbased_")
    kind = name.removeprefix("parentbased_")
    if kind == "always_on":
        return None, follows_parent
    if kind == "always_off":
        return (lambda _trace_id: False), follows_parent
    if kind == "traceidratio":
        said = environ.get("OTEL_TRACES_SAMPLER_ARG", "").strip()
        try:
            ratio = float(said) if said else 1.0
        except ValueError:
            ratio = -1.0
        if 0 <= ratio <= 1:
            bound = round(ratio * _SCALE)
            return (lambda trace_id: (trace_id & (_SCALE - 1)) < bound), follows_parent
        log.warning("OTEL_TRACES_SAMPLER_ARG is not a number from 0 to 1; all calls are kept")
        return None, follows_parent
    log.warning("OTEL_TRACES_SAMPLER names a sampler that tierlight does not have; all calls are kept")
    return None, True


# ---- acting on what was recorded ------------------------------------------------------------------------


def flush(timeout_s: float = 5.0) -> bool:
    """Whether everything recorded so far was delivered within the time; True where nothing is configured.

    Never call it once per request: it waits for the collector.
    """
    runtime = active()
    if runtime is None:
        return True
    began = time.monotonic()
    judged = bench.drain(timeout_s)
    left = max(0.0, timeout_s - (time.monotonic() - began))
    return attempt("flush", lambda: runtime.sink.flush(left)) == (True, True) and judged


async def aflush(timeout_s: float = 5.0) -> bool:
    """`flush` for an event loop, which goes on meanwhile."""
    import asyncio

    return await asyncio.to_thread(flush, timeout_s)


def stats() -> dict[str, int]:
    """Counters since `configure()`: what was offered, delivered, spooled and dropped, by reason; and our own faults."""
    runtime = active()
    counted: dict[str, int] = {}
    if runtime is not None:
        counted.update(attempt("count", lambda: runtime.sink.stats())[1] or {})
    counted["judge.dropped"] = bench.dropped
    counted["faults"] = sum(faults.values())
    return counted


def shutdown(timeout_s: float = 2.0) -> bool:
    """Stop recording: flush, keep on disk what could not be sent. It happens by itself at the end of the process."""
    runtime = activate(None)
    if runtime is None:
        return True
    return attempt("shut down", lambda: runtime.sink.shutdown(timeout_s)) == (True, True)
