"""The table from attribute keys to fields, and the walk that uses it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tierlight import semconv

from ..content import is_content_key
from . import langfuse, litellm, mlflow, openinference, otel, own, platforms, traceloop, vercel
from .coerce import unquoted
from .values import Values

DIALECTS: Final = (own, otel, openinference, vercel, litellm, traceloop, langfuse, platforms, mlflow)

_EXTRA: Final = "*"
_EXTRA_PREFIXES: Final = (
    semconv.TIERLIGHT_SCORE_PREFIX,
    semconv.TIERLIGHT_JOIN_PREFIX,
    "evaluations.",
    "annotations.",
    "trace.evaluations.",
    "session.evaluations.",
    "logfire.feedback.",
)

# key -> (field or "" or "*", rank, holds content)
_Entry = tuple[str, int, bool]


def _table() -> dict[str, _Entry]:
    table: dict[str, _Entry] = {}
    for order, dialect in enumerate(DIALECTS):
        for field, keys in dialect.SOURCES.items():
            for rank, key in enumerate(keys):
                table.setdefault(key, (field, order * 100 + rank, is_content_key(key)))
    return table


_TABLE: Final = _table()
_MAX_REMEMBERED: Final = 20_000


def _entry(key: str) -> _Entry:
    """The entry of a key that no dialect lists; remembered, as senders repeat themselves."""
    entry = (_EXTRA if key.startswith(_EXTRA_PREFIXES) else "", 0, is_content_key(key))
    if len(_TABLE) < _MAX_REMEMBERED:
        _TABLE[key] = entry
    return entry


def read(attributes: Mapping[str, Any]) -> Values:
    """The fields that the attributes speak of."""
    values = Values()
    ranks: dict[str, int] = {}
    get = _TABLE.get
    for key, value in attributes.items():
        field, rank, is_content = get(key) or _entry(key)
        if is_content and not isinstance(value, (int, float)):
            values.content_keys.append(key)
        if not field or value is None or value == "":
            continue
        if field == _EXTRA:
            values.extras.append((key, value))
            continue
        if field in ranks and ranks[field] <= rank:
            continue
        if type(value) is str and value[0] == '"':
            value = unquoted(value)
            if not value:
                continue
        ranks[field] = rank
        values[field] = value
    return values
