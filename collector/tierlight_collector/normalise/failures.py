"""Errors: one class for the many spellings of one failure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from tierlight import semconv

from ..records import CallFailure, EventRecord, LogRecord, SpanRecord
from .coerce import flag_of, text_of, tokens_of
from .values import Values

# Raised before anything was sent: the caller's own mistake, no call to any provider.
NOT_SENT_TYPES: Final = frozenset(
    {"type_error", "value_error", "attribute_error", "key_error", "validation_error"}
)

MAX_ERROR_TYPE: Final = 200
_LOGFIRE_ERROR: Final = 17  # its levels are those of OTLP logs

_STATUS: Final = re.compile(
    r"(?:[Ee]rror code|status_code|status code|HTTP(?: status)?)\W{0,3}\s*(\d{3})\b|^\s*([45]\d\d)(?=$|:? [A-Z{])"
)
# Names of errors in a message: `google.api_core.exceptions.ResourceExhausted`, `RESOURCE_EXHAUSTED`.
_NAMED: Final = re.compile(
    r"\b(?:[A-Z][A-Za-z]{2,40}(?:Error|Exception|Timeout|Exhausted)|[A-Z]{3,20}(?:_[A-Z]{2,20}){1,3})\b"
)
_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")

_BY_STATUS: Final = {
    408: "timeout",
    429: "rate_limit",
    401: "auth",
    403: "auth",
    503: "overloaded",
    529: "overloaded",
    504: "timeout",
}
_BY_WORD: Final = (
    ("rate_limit", "rate_limit"),
    ("ratelimit", "rate_limit"),
    ("too_many_requests", "rate_limit"),
    ("throttl", "rate_limit"),
    ("quota", "rate_limit"),
    ("resource_exhausted", "rate_limit"),
    ("overloaded", "overloaded"),
    ("service_unavailable", "overloaded"),
    ("auth", "auth"),
    ("permission", "auth"),
    ("forbidden", "auth"),
    ("access_denied", "auth"),
    ("content_filter", "content_filter"),
    ("content_policy", "content_filter"),
    ("safety", "content_filter"),
    ("timeout", "timeout"),
    ("timed_out", "timeout"),
    ("deadline_exceeded", "timeout"),
    ("bad_request", "invalid_request"),
    ("not_found", "invalid_request"),
    ("context_length", "invalid_request"),
    ("context_window", "invalid_request"),
    ("invalid_request", "invalid_request"),
    ("unprocessable", "invalid_request"),
    ("validation_exception", "invalid_request"),
    ("cancelled", "cancelled"),
    ("canceled", "cancelled"),
    ("abandoned_stream", "cancelled"),
    ("generator_exit", "cancelled"),
    ("connection", "connection"),
    ("connect_error", "connection"),
    ("remote_protocol", "connection"),
    ("read_error", "connection"),
    ("internal_server", "server"),
    ("model_server", "server"),
    ("server_error", "server"),
    ("bad_gateway", "server"),
    ("api_error", "server"),
)

# How providers begin the messages that libraries hand on without a status.
_BEGINNINGS: Final = (
    ("rate limit", "rate_limit"),
    ("too many requests", "rate_limit"),
    ("you exceeded your current quota", "quota"),
    ("overloaded", "overloaded"),
    ("the model is overloaded", "overloaded"),
    ("the server is overloaded", "overloaded"),
    ("request timed out", "timeout"),
    ("timed out", "timeout"),
    ("the operation was aborted due to timeout", "timeout"),
    ("connection error", "connection"),
    ("incorrect api key", "auth"),
    ("invalid api key", "auth"),
)


@lru_cache(maxsize=4096)
def error_word(error_type: str) -> str:
    """The last part of an exception's name in snake case.

    >>> error_word("<class 'openai.RateLimitError'>")
    'rate_limit_error'
    """
    name = error_type.strip().removeprefix("<class '").removesuffix("'>").rpartition(".")[2]
    return _CAMEL.sub("_", name).lower()[:100]


def status_in(text: str) -> int | None:
    """An HTTP status that a message quotes; only its beginning is read."""
    found = _STATUS.search(text[:500]) if text else None
    if not found:
        return None
    status = int(found[1] or found[2])
    return status if 100 <= status <= 599 else None


def word_in(text: str) -> str:
    """The first word of a message that names a known kind of error, "" where none does; only its beginning is read."""
    for named in _NAMED.findall(text[:500]) if text else ():
        word = named.lower() if "_" in named else error_word(named)
        if error_class(word, None) != "unknown":
            return word
    begin = text[:60].lower()
    return next((word for beginning, word in _BEGINNINGS if begin.startswith(beginning)), "")


@lru_cache(maxsize=4096)
def error_class(word: str, status: int | None) -> str:
    """The class of an error by its HTTP status, else by the word of its type."""
    if status is not None and status >= 400:
        by_status = _BY_STATUS.get(status)
        if by_status:
            return by_status
        if status >= 500:
            return "server"
        return (
            "content_filter"
            if "content" in word and ("filter" in word or "policy" in word)
            else "invalid_request"
        )
    for part, known in _BY_WORD:
        if part in word:
            return known
    return "unknown"


def exception_of(events: Iterable[EventRecord]) -> tuple[str, str]:
    """Type and message of the last recorded exception, ("", "") where there is none."""
    kind = message = ""
    for event in events:
        if event.name == "exception":
            kind = text_of(event.attributes.get("exception.type")) or kind or "exception"
            message = text_of(event.attributes.get("exception.message")) or message
    return kind, message


def outline(message: str) -> str:
    """The start of an error message up to where it may begin to quote what was sent."""
    for mark in (" - ", "{", '"', "\n", ": '", "`"):
        message = message.partition(mark)[0]
    return message[:120].rstrip(" '(:")


def failure_of(values: Values, span: SpanRecord) -> tuple[str, str, int | None]:
    """Error type as sent ("" = none), its class, and the HTTP status, also of a call that went well."""
    status = tokens_of(values.get("http_status", values.get("bare_status")))
    if status is not None and not 100 <= status <= 599:
        status = None
    said = values.get("error_type")
    failed = (
        span.status_code == 2
        or said is not None
        or (status is not None and status >= 400)
        or values.get("lf_level") == "ERROR"
        or (tokens_of(values.get("logfire_level")) or 0) >= _LOGFIRE_ERROR
        or ("success" in values and flag_of(values["success"]) is False)
    )
    kind = message = ""
    if span.events:
        kind, message = exception_of(span.events)
        kind = kind[:MAX_ERROR_TYPE]
    if not failed and not (kind and span.status_code != 1):
        return "", "", status
    error_type = text_of(said)[:MAX_ERROR_TYPE]
    if error_type.isdecimal() and len(error_type) == 3:
        status = status or int(error_type)
    if status is None:
        text = text_of(values.get("error_text")) or message
        status = status_in(span.status_message) or status_in(text)
        if status is not None:
            values.findings["http_status"] = status
    word = error_word(error_type) if error_type else ""
    if kind and (
        not error_type or error_class(word, None) == "unknown" != error_class(error_word(kind), None)
    ):
        # The span's own word is vague ("AI_APICallError", "_OTHER"); the exception's is better.
        word = error_word(kind)
        error_type = error_type or kind
    if not error_type:
        leading = (
            outline(span.status_message or text_of(values.get("error_text")))
            .partition("(")[0]
            .partition(":")[0]
        )
        error_type = leading if leading.isidentifier() else ""
        word = word or error_word(error_type)
        error_type = error_type or (str(status) if status is not None else "error")
    klass = error_class(word, status)
    if klass == "unknown":
        named = text_of(values.get("error_word")) or word_in(span.status_message) or word_in(message)
        if named:  # "ClientError", "RetryError" say nothing; what they wrap does
            values.findings["error_word"] = named
            klass = error_class(named, None)
    if klass == "unknown" and word in NOT_SENT_TYPES:
        klass = "not_sent"
    return error_type[:MAX_ERROR_TYPE], klass, status


def failure_of_log(log: LogRecord) -> CallFailure | None:
    """The failure that a `gen_ai.client.operation.exception` event tells of its span; None for every other event."""
    if log.event_name != semconv.EVENT_OPERATION_EXCEPTION or not (log.trace_id and log.span_id):
        return None
    said = log.attributes
    kind = text_of(said.get("exception.type")) or text_of(said.get(semconv.ERROR_TYPE)) or "exception"
    status = tokens_of(said.get(semconv.HTTP_RESPONSE_STATUS_CODE))
    if status is None or not 100 <= status <= 599:
        status = status_in(text_of(said.get("exception.message")))
    return CallFailure(
        log.trace_id, log.span_id, kind[:MAX_ERROR_TYPE], error_class(error_word(kind), status), status
    )
