"""What an exception says about a call: its class in the words of every dashboard, and the HTTP status."""

from __future__ import annotations

from typing import Final

_BY_STATUS: Final = {
    400: "invalid_request",
    401: "auth",
    403: "auth",
    404: "invalid_request",
    408: "timeout",
    413: "invalid_request",
    422: "invalid_request",
    429: "rate_limit",
    503: "overloaded",
    504: "timeout",
    529: "overloaded",
}

# First fragment found in the lower-cased name of the exception or one of its bases.
_BY_NAME: Final = (
    ("cancel", "cancelled"),
    ("generatorexit", "cancelled"),
    ("timeout", "timeout"),
    ("ratelimit", "rate_limit"),
    ("resourceexhausted", "rate_limit"),
    ("overloaded", "overloaded"),
    ("authentication", "auth"),
    ("permission", "auth"),
    ("contentfilter", "content_filter"),
    ("safety", "content_filter"),
    ("connect", "connection"),
    ("remoteprotocol", "connection"),
    ("badrequest", "invalid_request"),
    ("notfounderror", "invalid_request"),
    ("contextlength", "invalid_request"),
    ("unprocessable", "invalid_request"),
    ("internalserver", "server"),
    ("servererror", "server"),
)

# Raised by a client library before anything was sent, or by the user's own code around the call.
_NOT_SENT: Final = (TypeError, ValueError, AttributeError, LookupError, NameError, AssertionError)


def http_status(error: BaseException) -> int | None:
    """The HTTP status that a provider's exception carries, under any of the names in use; None without one."""
    for name in ("status_code", "code", "http_status", "status"):
        value = getattr(error, name, None)
        if isinstance(value, int) and not isinstance(value, bool) and 100 <= value < 600:
            return int(value)
    value = getattr(getattr(error, "response", None), "status_code", None)
    return value if isinstance(value, int) and 100 <= value < 600 else None


def error_class(error: BaseException) -> str:
    """One of rate_limit, overloaded, auth, invalid_request, server, timeout, connection, content_filter, cancelled, not_sent, unknown."""
    status = http_status(error)
    if status is not None and status >= 400:
        known = _BY_STATUS.get(status)
        return known or ("server" if status >= 500 else "invalid_request")
    for base in type(error).__mro__[:-1]:
        name = base.__name__.lower()
        for fragment, word in _BY_NAME:
            if fragment in name:
                return word
    return "not_sent" if isinstance(error, _NOT_SENT) else "unknown"


def machine_code(error: BaseException) -> str:
    """The provider's own short word for the failure (`model_not_found`), "" without one; never free text."""
    for name in ("code", "type"):
        value = getattr(error, name, None)
        if (
            isinstance(value, str)
            and 0 < len(value) <= 64
            and value.replace("_", "").replace(".", "").isalnum()
        ):
            return value
    return ""
