"""What an exception of a provider means for the router: try again, try elsewhere, or pass it on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from .._failure import error_class, http_status, machine_code

Kind = Literal[
    "rate_limit", "server", "timeout", "auth", "not_found", "bad_request", "too_long", "cancelled", "not_sent"
]

_TOO_LONG: Final = (
    "context_length",
    "string_above_max_length",
    "prompt is too long",
    "too many tokens",
    "context window",
    "maximum context",
)
_BY_CLASS: Final[Mapping[str, Kind]] = {
    "rate_limit": "rate_limit",
    "overloaded": "server",
    "server": "server",
    "connection": "server",
    "timeout": "timeout",
    "auth": "auth",
    "cancelled": "cancelled",
    "not_sent": "not_sent",
    "invalid_request": "bad_request",
    "content_filter": "bad_request",
}
LONGEST_RETRY_AFTER_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Fault:
    """One failed attempt. `kind` decides what follows, `retry_after_s` is what the provider asked for."""

    kind: Kind
    retry_after_s: float | None = None

    @property
    def may_retry(self) -> bool:
        """Whether the same target may be asked again."""
        return self.kind in ("rate_limit", "server")

    @property
    def may_fail_over(self) -> bool:
        """Whether another target may be asked."""
        return self.kind not in ("bad_request", "cancelled", "not_sent")

    @property
    def reason(self) -> str:
        """The word for why the next attempt is made."""
        return {"rate_limit": "fallback_rate_limit", "timeout": "fallback_timeout"}.get(
            self.kind, "fallback_error"
        )


def fault_of(error: BaseException) -> Fault:
    """Classify an exception of a provider's client, of ours or of anybody's.

    Only class, status and machine word are read, and the message only for the words of a context that is too long.
    """
    if not isinstance(error, Exception):
        return Fault("cancelled")
    status = http_status(error)
    if status in (429, 529):
        return Fault("rate_limit", retry_after(error))
    if status in (400, 413, 422) and _is_too_long(error):
        return Fault("too_long")
    if status == 404:
        return Fault("not_found")
    if status in (503, 504) and status == 503:
        return Fault("server", retry_after(error))
    if status in (408, 504):
        return Fault("timeout" if status == 408 else "server")
    return Fault(_BY_CLASS.get(error_class(error), "server"))


def retry_after(error: BaseException) -> float | None:
    """Seconds that the provider asks to wait, None where it does not say or says a date."""
    said = getattr(error, "retry_after_s", None)
    if said is None:
        headers: Any = getattr(getattr(error, "response", None), "headers", None)
        said = headers.get("retry-after") if headers is not None and hasattr(headers, "get") else None
    try:
        return max(0.0, float(said)) if said is not None else None
    except (TypeError, ValueError):
        return None


def _is_too_long(error: BaseException) -> bool:
    words = f"{machine_code(error)} {error}".lower()
    return any(word in words for word in _TOO_LONG)
