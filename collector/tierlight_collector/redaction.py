"""Masks what must be neither stored nor sent on: keys, tokens, e-mail addresses, card numbers, and patterns of yours.

The SDK masks before it sends; other senders don't, so the texts of every span and log record are masked here again,
before anything is kept. Looked at is whatever may be free text: prompts and answers, tool arguments, metadata, URLs,
exception and status messages, names, resource attributes, unknown attributes. Left alone are numbers, the ids that
senders set on purpose (`user.id`, `session.id`), and what a convention defines as a name, an id or a word.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, Final

from tierlight._redact import redact
from tierlight.errors import ConfigurationError

from .content import is_content_key
from .records import EventRecord, LogRecord, Resource, SpanRecord

_SHORTEST: Final = 6  # of what the SDK's patterns match: a@b.de
_REMEMBERED_CHARS: Final = 120
# What conventions define as a name, an id, a word or a number.
_STRUCTURED: Final = (
    "gen_ai.request.",
    "gen_ai.response.",
    "gen_ai.usage.",
    "gen_ai.operation.",
    "gen_ai.provider.",
    "gen_ai.system",
    "gen_ai.output.type",
    "gen_ai.evaluation.name",
    "llm.token_count.",
    "llm.usage.",
    "llm.model_name",
    "llm.provider",
    "llm.system",
    "llm.request.type",
    "openinference.span.kind",
    "traceloop.span.kind",
    "langfuse.observation.type",
    "ai.operationId",
    "ai.model.",
    "ai.usage.",
    "ai.response.model",
    "ai.response.finishReason",
    "server.",
    "http.request.method",
    "http.response.status_code",
    "telemetry.sdk.",
    "service.name",
    "service.version",
    "tierlight.",
)
_IDENTIFIERS: Final = frozenset(
    {"id", "user", "user_id", "userId", "session_id", "sessionId", "thread_id", "threadId", "conversation_id"}
)


@lru_cache(maxsize=16384)
def may_hold_secrets(key: str) -> bool:
    """Whether text under this key is looked at.

    >>> may_hold_secrets("gen_ai.request.model"), may_hold_secrets("user.id"), may_hold_secrets("url.query")
    (False, False, True)
    """
    if is_content_key(key):
        return True
    return not key.startswith(_STRUCTURED) and key.rpartition(".")[2] not in _IDENTIFIERS


class Redaction:
    """The patterns of the SDK, and your own after them as (word, regular expression) pairs. Safe to use from any thread.

    Raises:
        ConfigurationError: an expression does not compile, or matches nothing at all.
    """

    def __init__(self, patterns: Sequence[tuple[str, str]] = (), *, builtin: bool = True) -> None:
        self._builtin = builtin
        self._own = tuple((f"[redacted:{word}]", _compiled(word, pattern)) for word, pattern in patterns)
        self._shortest = 1 if patterns else _SHORTEST
        self._short = lru_cache(maxsize=4096)(self._masked)

    @property
    def words(self) -> tuple[str, ...]:
        """What is looked for, in words: the patterns of the SDK as one, then your own by their names."""
        own = tuple(mark.removeprefix("[redacted:").removesuffix("]") for mark, _ in self._own)
        return ("keys and tokens, mail addresses, card numbers", *own) if self._builtin else own

    def text(self, text: str) -> str:
        """The text with what may not be kept replaced by a word that says what stood there."""
        if len(text) < self._shortest:
            return text
        return self._short(text) if len(text) <= _REMEMBERED_CHARS else self._masked(text)

    def spans(self, spans: Iterable[SpanRecord], *, content: bool) -> tuple[list[SpanRecord], int]:
        """The spans masked, and how many of them held something. Without `content` captured texts are not looked at:
        they are not kept either."""
        masked: list[SpanRecord] = []
        found = 0
        resources: dict[int, Resource] = {}  # one object is shared by many spans
        for span in spans:
            resource = resources.get(id(span.resource))
            if resource is None:
                resource = resources[id(span.resource)] = self._resource(span.resource)
            attributes = self.attributes(span.attributes, content=content)
            name = self.text(span.name)
            message = self.text(span.status_message) if span.status_message else ""
            events = self._events(span.events, content=content) if span.events else span.events
            if (
                attributes is span.attributes
                and resource is span.resource
                and events is span.events
                and name == span.name
                and message == span.status_message
            ):
                masked.append(span)
                continue
            found += 1
            masked.append(
                replace(
                    span,
                    name=name,
                    status_message=message,
                    attributes=attributes,
                    events=events,
                    resource=resource,
                )
            )
        return masked, found

    def logs(self, logs: Iterable[LogRecord], *, content: bool) -> tuple[list[LogRecord], int]:
        """The log records masked, and how many of them held something."""
        masked: list[LogRecord] = []
        found = 0
        for log in logs:
            attributes = self.attributes(log.attributes, content=content)
            if attributes is not log.attributes:
                log = replace(log, attributes=attributes)
                found += 1
            masked.append(log)
        return masked, found

    def attributes(self, attributes: Mapping[str, Any], *, content: bool = True) -> Mapping[str, Any]:
        """The attributes masked; the same object when nothing had to be."""
        changed: dict[str, Any] | None = None
        for key in _looked_at(tuple(attributes), content):
            value = attributes[key]
            if type(value) is str:
                masked: Any = self.text(value)
            elif isinstance(value, (str, int, float, bytes)) or value is None:
                continue
            else:
                masked = self.value(value)
            if masked is not value and masked != value:
                if changed is None:
                    changed = dict(attributes)
                changed[key] = masked
        return attributes if changed is None else changed

    def value(self, value: Any) -> Any:
        """A value of any shape with every text in it masked."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {key: self.value(inner) for key, inner in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(self.value(inner) for inner in value)
        return value

    def _events(self, events: tuple[EventRecord, ...], *, content: bool) -> tuple[EventRecord, ...]:
        masked = tuple(
            event if attributes is event.attributes else replace(event, attributes=attributes)
            for event in events
            for attributes in (self.attributes(event.attributes, content=content),)
        )
        return events if all(new is old for new, old in zip(masked, events, strict=True)) else masked

    def _resource(self, resource: Resource) -> Resource:
        attributes = self.attributes(resource.attributes)
        return resource if attributes is resource.attributes else replace(resource, attributes=attributes)

    def _masked(self, text: str) -> str:
        if self._builtin:
            text = redact(text)
        for word, pattern in self._own:
            text = pattern.sub(word, text)
        return text


def _compiled(word: str, pattern: str) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ConfigurationError(
            f"redaction pattern {word!r}: expected a regular expression: {error}"
        ) from error
    if compiled.search(""):
        raise ConfigurationError(
            f"redaction pattern {word!r} matches nothing at all, so it would mask everywhere"
        )
    return compiled


@lru_cache(maxsize=2_048)
def _looked_at(keys: tuple[str, ...], content: bool) -> tuple[str, ...]:
    return tuple(key for key in keys if may_hold_secrets(key) and (content or not is_content_key(key)))
