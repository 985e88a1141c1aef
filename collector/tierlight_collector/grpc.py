"""OTLP/gRPC on port 4317, in the event loop of the HTTP server: the same ingest, other words for its answers.

Messages are taken as bytes and parsed in the decode threads, so a large one doesn't stop the loop. A client retries
RESOURCE_EXHAUSTED only with RetryInfo and UNAVAILABLE always, so a message over the limit carries none, and whatever
the store can't do now is UNAVAILABLE with the time to wait.

References: OTLP specification, "OTLP/gRPC" (https://opentelemetry.io/docs/specs/otlp/#otlpgrpc).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, NoReturn

import grpc
import grpc.aio

from .answers import Signal, export_response, unavailable_status
from .errors import BadRequest, CollectorError, StoreBusy, TooLarge
from .ingest import Ingest

logger = logging.getLogger("tierlight.collector")

_SERVICES: Final[dict[str, Signal]] = {
    "opentelemetry.proto.collector.trace.v1.TraceService": "traces",
    "opentelemetry.proto.collector.logs.v1.LogsService": "logs",
    "opentelemetry.proto.collector.metrics.v1.MetricsService": "metrics",
}
GRACE_S: Final = 10


@contextlib.asynccontextmanager
async def serve_grpc(ingest: Ingest, host: str, port: int) -> AsyncIterator[int]:
    """Serve inside the block, which gets the port bound; leaving it stops accepting and finishes what is in flight.

    `host` must have passed `guard.check_bind`; port 0 takes a free one.

    Raises:
        OSError: the port is taken or the address is not of this machine.
    """
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", ingest.limits.message_bytes),
            ("grpc.so_reuseport", 0),  # else a second process would share the port without a word
            ("grpc.max_concurrent_streams", 100),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
            ("grpc.max_metadata_size", ingest.limits.header_bytes),
        ]
    )
    for name, signal in _SERVICES.items():
        export = grpc.unary_unary_rpc_method_handler(
            _exporter(ingest, signal),
            response_serializer=lambda response: response.SerializeToString(),
        )
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, {"Export": export}),))
    address = f"[{host.strip('[]')}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        bound = server.add_insecure_port(address)
    except RuntimeError as error:
        raise OSError(f"cannot listen on {address}: the port is taken or not of this machine") from error
    await server.start()
    try:
        yield bound
    finally:
        await server.stop(GRACE_S)


def _exporter(ingest: Ingest, signal: Signal) -> Callable[[bytes, Any], Awaitable[Any]]:
    async def export(message: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        try:
            with ingest.admission.request() as lease:
                lease.grow(len(message))
                outcome = await ingest.export(signal, message, "protobuf", hops=_hops(context))
        except TooLarge as error:
            await _abort(ingest, context, signal, grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        except BadRequest as error:
            await _abort(ingest, context, signal, grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except CollectorError as error:
            wait_s = ingest.spread(error.retry_after_s if isinstance(error, StoreBusy) else 5.0)
            details = unavailable_status(str(error), wait_s).SerializeToString()
            await _abort(ingest, context, signal, grpc.StatusCode.UNAVAILABLE, str(error), details)
        except Exception:
            logger.exception("a request failed by a fault of ours")
            await _abort(ingest, context, signal, grpc.StatusCode.INTERNAL, "internal error, see the log")
        ingest.counters.add(f"grpc_{signal}_ok")
        return export_response(signal, outcome.rejected, outcome.message)

    return export


async def _abort(
    ingest: Ingest,
    context: grpc.aio.ServicerContext[Any, Any],
    signal: Signal,
    code: grpc.StatusCode,
    message: str,
    details: bytes = b"",
) -> NoReturn:
    ingest.counters.add(f"grpc_{signal}_{code.name.lower()}")
    ingest.note_refusal(signal, code.name, message)
    trailing = (("grpc-status-details-bin", details),) if details else ()
    await context.abort(code, message, trailing_metadata=trailing)
    raise AssertionError("abort always raises")


def _hops(context: grpc.aio.ServicerContext[Any, Any]) -> tuple[str, ...]:
    hops: tuple[str, ...] = ()
    for key, value in context.invocation_metadata() or ():
        if key == "x-tierlight-hop" and isinstance(value, str):
            hops += tuple(hop.strip() for hop in value.split(","))
    return hops
