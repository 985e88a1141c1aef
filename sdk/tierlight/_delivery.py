"""Sending requests and what follows from the answers: count, keep for later, cut in two, wait, say so once."""

from __future__ import annotations

import logging
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tierlight._backlog import Backlog
from tierlight._encode import Signal, items_of, reframed
from tierlight._record import ExportSettings
from tierlight._spool import request_size
from tierlight._transport import Answer, Transport
from tierlight._transport_http import HttpTransport

log = logging.getLogger("tierlight")

_STEPS_S = (1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 60.0)  # from the third failure in a row on the circuit is open
_MAX_WAIT_S = 300.0


def open_transport(settings: ExportSettings) -> Transport:
    """The transport that `settings.protocol` names. gRPC is loaded only when asked for.

    Raises:
        ConfigurationError: the endpoint is no http(s) URL, or the certificate cannot be read.
    """
    if settings.protocol == "grpc":
        from tierlight._transport_grpc import GrpcTransport

        return GrpcTransport(settings)
    return HttpTransport(settings)


@dataclass(slots=True)
class Circuit:
    """When to try next. Pure: time and chance come in.

    Args:
        chance: a number in 0..1 that spreads the first tries of many processes (full jitter).
    """

    failures: int = 0
    until: float = 0.0
    is_told: bool = False

    def failed(self, now: float, chance: float, *, asked_s: float | None, is_denied: bool) -> None:
        """Count a failure; `asked_s` is the collector's own Retry-After and wins."""
        self.failures += 1
        wait = _STEPS_S[min(self.failures, len(_STEPS_S)) - 1]
        self.is_told = asked_s is not None
        if asked_s is not None:
            wait = min(asked_s, _MAX_WAIT_S)
        elif is_denied:
            self.failures = max(self.failures, len(_STEPS_S))
            wait = _STEPS_S[-1]
        elif self.failures < 3:
            wait = max(0.1, wait * chance)
        self.until = now + wait

    def succeeded(self) -> None:
        """Close it."""
        self.failures, self.until, self.is_told = 0, 0.0, False

    @property
    def is_open(self) -> bool:
        """Whether even a flush should not try before the time."""
        return self.failures >= 3 or self.is_told


class Delivery:
    """The way to one collector, with its backlog. Used by the export thread alone; `close` may be its last.

    Args:
        transport: None opens the one that the settings name.
        lost: called with a reason and a number of spans or scores that nobody will send any more.
    """

    def __init__(
        self, settings: ExportSettings, transport: Transport | None, lost: Callable[[str, int], None]
    ) -> None:
        self.backlog = Backlog(
            Path(settings.spool_dir) if settings.spool_dir else None, settings.max_queue_bytes, lost
        )
        self.transport = transport or open_transport(settings)
        self.circuit = Circuit()
        self.counts: Counter[str] = Counter()  # requests, failures, delivered, recovered
        self.may_probe = False  # a flush gets one try before the circuit's time
        self.send_until: float | None = None  # set at the end of the process
        self._settings = settings
        self._lost = lost
        self._is_unreachable = False
        self._refusals_logged: set[str] = set()

    @property
    def resend_at(self) -> float | None:
        """When to go on with the backlog, None when it is empty."""
        return self.circuit.until if self.backlog.may_have_more else None

    def deliver(self, signal: Signal, body: bytes, items: int) -> int | None:
        """Send a fresh request: how many of its items were delivered, or None when all must be kept."""
        return self._send(signal, body, items) if self._may_send() else None

    def send_backlog(self, is_enough: Callable[[], bool]) -> None:
        """Send what was kept, oldest first, until it is all gone, a try fails or `is_enough`."""
        while self.backlog.may_have_more and self._may_send():
            kept = self.backlog.next()
            if kept is None:
                return
            signal, body = kept
            items = request_size(body)
            delivered = self._send(signal, body, items)
            if delivered is None:
                return
            self.counts["delivered" if self.backlog.passed(items) else "recovered"] += delivered
            if is_enough():
                return

    def close(self) -> int:
        """Leave the backlog to others; returns how many items are lost because only memory held them."""
        left = self.backlog.close()
        self.transport.close()
        return left

    def _may_send(self) -> bool:
        now = time.monotonic()
        if self.send_until is not None and (now >= self.send_until or self.circuit.failures):
            return False  # at the end of the process one failure is enough
        return self.may_probe or now >= self.circuit.until

    def _send(self, signal: Signal, body: bytes, items: int) -> int | None:
        timeout_s = self._settings.timeout_s
        if self.send_until is not None:
            timeout_s = min(timeout_s, max(0.05, self.send_until - time.monotonic()))
        self.counts["requests"] += 1
        answer = self.transport.send(signal, body, timeout_s)
        if answer.kind in {"retry", "denied"}:
            self._failed(answer)
            return None
        self.circuit.succeeded()
        if self._is_unreachable:
            self._is_unreachable = False
            log.info("tierlight delivers to %s again.", _without_credentials(self._settings.endpoint))
        if answer.kind == "too_large":
            return self._send_in_halves(signal, body, items, answer)
        rejected = items if answer.kind == "refused" else min(answer.rejected, items)
        if rejected:
            self._refused(answer.message, "refused", rejected)
        return items - rejected

    def _send_in_halves(self, signal: Signal, body: bytes, items: int, answer: Answer) -> int:
        """What the collector finds too large, in two pieces; a single span that it will not take is lost."""
        parts = [bytes(item) for item in items_of(body)]
        if len(parts) < 2:
            self._refused(answer.message, "too_large", items)
            return 0
        delivered = 0
        for half in (parts[: len(parts) // 2], parts[len(parts) // 2 :]):
            piece = reframed(body, half)
            sent = self._send(signal, piece, len(half))
            if sent is None:
                self.backlog.keep(signal, piece, len(half))
            delivered += sent or 0
        return delivered

    def _failed(self, answer: Answer) -> None:
        self.counts["failures"] += 1
        self.may_probe = False
        self.circuit.failed(
            time.monotonic(), random.random(), asked_s=answer.retry_after_s, is_denied=answer.kind == "denied"
        )
        if not self._is_unreachable:
            self._is_unreachable = True
            log.warning(
                "tierlight cannot deliver to %s (%s). Calls are not affected; spans are kept %s and sent later.",
                _without_credentials(self._settings.endpoint),
                answer.message,
                self.backlog.place,
            )

    def _refused(self, message: str, reason: str, items: int) -> None:
        self._lost(reason, items)
        if message not in self._refusals_logged and len(self._refusals_logged) < 20:
            self._refusals_logged.add(message)
            log.warning(
                "The collector does not take %d spans or scores: %s", items, message or "no reason given"
            )


def _without_credentials(address: str) -> str:
    scheme, mark, rest = address.partition("://")
    return f"{scheme}{mark}{rest.rpartition('@')[2]}"


def send_spool(settings: ExportSettings) -> dict[str, int]:
    """Send now what any process has left in `settings.spool_dir`, for a command; each file is taken by one sender.

    Returns:
        Spans and scores `delivered` and `lost` (refused, expired), and `failures`: 1 = the collector could not
        be reached and the rest stays where it is.

    Raises:
        ConfigurationError: the endpoint is no URL.
    """
    lost: Counter[str] = Counter()
    delivery = Delivery(settings, None, lambda reason, items: lost.update({reason: items}))
    delivery.send_backlog(lambda: False)
    delivery.close()
    return {
        "delivered": delivery.counts["recovered"],
        "lost": sum(lost.values()),
        "failures": delivery.counts["failures"],
    }


def suppress_instrumentation() -> None:
    """Let no instrumentation of HTTP or gRPC trace what this thread sends."""
    from opentelemetry.context import (
        _SUPPRESS_HTTP_INSTRUMENTATION_KEY,
        _SUPPRESS_INSTRUMENTATION_KEY,
        attach,
        set_value,
    )

    attach(
        set_value(_SUPPRESS_HTTP_INSTRUMENTATION_KEY, True, set_value(_SUPPRESS_INSTRUMENTATION_KEY, True))
    )
