"""The part of JSON Schema (draft 2020-12) that structured answers use. Pure.

References:
    https://json-schema.org/draft/2020-12/json-schema-validation
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence, Sized
from typing import Any, Final


def _equal(left: object, right: object) -> bool:
    """JSON equality: 1 is 1.0, and true is not 1."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_equal, left, right))
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(_equal(left[name], right[name]) for name in left)
    return left == right


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_TYPES: Final[Mapping[str, Callable[[Any], bool]]] = {
    "object": lambda value: isinstance(value, Mapping),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "number": _is_number,
    "integer": lambda value: _is_number(value) and float(value).is_integer(),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
}


def _type(value: Any, wanted: Any, schema: Mapping[str, Any]) -> bool:
    names = [wanted] if isinstance(wanted, str) else wanted
    return any(_TYPES[name](value) for name in names)


def _properties(value: Any, wanted: Mapping[str, Any], schema: Mapping[str, Any]) -> bool:
    return not isinstance(value, Mapping) or all(
        matches_schema(value[name], part) for name, part in wanted.items() if name in value
    )


def _additional(value: Any, wanted: Any, schema: Mapping[str, Any]) -> bool:
    if not isinstance(value, Mapping):
        return True
    known = schema.get("properties", {})
    return all(matches_schema(part, wanted) for name, part in value.items() if name not in known)


def _items(value: Any, wanted: Any, schema: Mapping[str, Any]) -> bool:
    if not isinstance(value, list):
        return True
    return all(matches_schema(one, wanted) for one in value[len(schema.get("prefixItems", ())) :])


def _prefix_items(value: Any, wanted: Sequence[Any], schema: Mapping[str, Any]) -> bool:
    return not isinstance(value, list) or all(map(matches_schema, value, wanted))


def _of_number(holds: Callable[[float, float], bool]) -> Callable[[Any, Any, Mapping[str, Any]], bool]:
    return lambda value, wanted, _schema: not _is_number(value) or holds(value, wanted)


def _of_length(
    kind: type[Sized], holds: Callable[[int, int], bool]
) -> Callable[[Any, Any, Mapping[str, Any]], bool]:
    return lambda value, wanted, _schema: not isinstance(value, kind) or holds(len(value), wanted)


def _at_least(left: float, right: float) -> bool:
    return left >= right


def _at_most(left: float, right: float) -> bool:
    return left <= right


_KEYWORDS: Final[Mapping[str, Callable[[Any, Any, Mapping[str, Any]], bool]]] = {
    "type": _type,
    "enum": lambda value, wanted, _schema: any(_equal(value, one) for one in wanted),
    "const": lambda value, wanted, _schema: _equal(value, wanted),
    "properties": _properties,
    "required": lambda value, wanted, _schema: (
        not isinstance(value, Mapping) or all(one in value for one in wanted)
    ),
    "additionalProperties": _additional,
    "items": _items,
    "prefixItems": _prefix_items,
    "minimum": _of_number(_at_least),
    "maximum": _of_number(_at_most),
    "exclusiveMinimum": _of_number(lambda left, right: left > right),
    "exclusiveMaximum": _of_number(lambda left, right: left < right),
    "minLength": _of_length(str, _at_least),
    "maxLength": _of_length(str, _at_most),
    "minItems": _of_length(list, _at_least),
    "maxItems": _of_length(list, _at_most),
    "minProperties": _of_length(dict, _at_least),
    "maxProperties": _of_length(dict, _at_most),
    "pattern": lambda value, wanted, _schema: (
        not isinstance(value, str) or re.search(wanted, value) is not None
    ),
    "uniqueItems": lambda value, wanted, _schema: (
        not (wanted and isinstance(value, list))
        or not any(_equal(one, other) for index, one in enumerate(value) for other in value[:index])
    ),
    "allOf": lambda value, wanted, _schema: all(matches_schema(value, one) for one in wanted),
    "anyOf": lambda value, wanted, _schema: any(matches_schema(value, one) for one in wanted),
    "oneOf": lambda value, wanted, _schema: sum(matches_schema(value, one) for one in wanted) == 1,
    "not": lambda value, wanted, _schema: not matches_schema(value, wanted),
}

_NOTES: Final = frozenset(
    {"title", "description", "default", "examples", "$schema", "$id", "$comment", "deprecated", "format"}
)


def matches_schema(value: Any, schema: Mapping[str, Any] | bool) -> bool:
    """Whether a JSON value is one that the schema allows.

    >>> matches_schema({"intent": "billing"}, {"type": "object", "required": ["intent"]})
    True
    """
    if isinstance(schema, bool):
        return schema
    return all(
        _KEYWORDS[keyword](value, wanted, schema)
        for keyword, wanted in schema.items()
        if keyword in _KEYWORDS
    )


def is_supported(schema: Any) -> str:
    """The first keyword, anywhere in the schema, that would not be checked; "" if all are."""
    if not isinstance(schema, Mapping):
        return ""
    for keyword, wanted in schema.items():
        if keyword in _NOTES:
            continue
        if keyword not in _KEYWORDS:
            return str(keyword)
        parts: Sequence[Any] = ()
        if keyword == "properties":
            parts = list(wanted.values())
        elif keyword in ("allOf", "anyOf", "oneOf", "prefixItems"):
            parts = wanted
        elif keyword in ("additionalProperties", "items", "not"):
            parts = [wanted]
        for part in parts:
            found = is_supported(part)
            if found:
                return found
    return ""
