"""Checks of an answer while its call is still open: what they find is a score on its own span.

A check gives True or False, a number from 0 to 1, or None where it has no opinion: then nothing is recorded.
"""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from . import semconv as s
from ._call import Call
from ._guard import attempt
from ._messages import text_of
from ._schema import is_supported, matches_schema
from ._score import checked_name, checked_value
from ._usage import usage_from
from .errors import ConfigurationError, ScoreError

Check = Callable[[Any], float | bool | None]
Named = tuple[str, Check]

_MISSING: Final = object()


class OneOf:
    """The answer, without blanks around it, is one of these words."""

    name = "choices"

    def __init__(self, *choices: str, ignore_case: bool = False) -> None:
        self._fold: Callable[[str], str] = str.casefold if ignore_case else str
        self._choices = frozenset(map(self._fold, choices))

    def __call__(self, result: object) -> bool:
        return self._fold(_plain_text(result).strip()) in self._choices


class Matches:
    """The whole answer matches a regular expression; anchor or pad it with `.*` yourself where a part is enough."""

    name = "pattern"

    def __init__(self, pattern: str | re.Pattern[str]) -> None:
        self._pattern = re.compile(pattern)

    def __call__(self, result: object) -> bool:
        return self._pattern.fullmatch(_plain_text(result).strip()) is not None


class Schema:
    """The answer is JSON that a JSON Schema allows; a Markdown fence around it is taken off.

    Args:
        schema: of draft 2020-12: type, enum, const, properties, required, additionalProperties, items,
            prefixItems, min/max of numbers, lengths and items, pattern, uniqueItems, allOf, anyOf, oneOf, not.

    Raises:
        ConfigurationError: it uses a keyword that is not among these and would silently not be checked.
    """

    name = "schema"

    def __init__(self, schema: Mapping[str, Any]) -> None:
        unknown = is_supported(schema)
        if unknown:
            raise ConfigurationError(
                f"a schema of validate= may not use {unknown!r}: it would not be checked"
            )
        self._schema = schema

    def __call__(self, result: object) -> bool:
        value = _json_value(result)
        return value is not _MISSING and matches_schema(value, self._schema)


def _plain_text(result: object) -> str:
    if isinstance(result, enum.Enum):
        return str(result.value)
    if result is None or isinstance(result, bool | int | float):
        return json.dumps(result)
    return text_of(result)


def _json_value(result: object) -> Any:
    if isinstance(result, Mapping | list) and usage_from(result) is None:
        return result
    dump = getattr(result, "model_dump", None)
    if callable(dump) and usage_from(result) is None:
        return dump(mode="json")
    text = _plain_text(result).strip()
    if text.startswith("```"):
        text = text.partition("\n")[2].rpartition("```")[0]
    try:
        return json.loads(text)
    except ValueError:
        return _MISSING


def checks_of(validate: object) -> tuple[Named, ...]:
    """What `validate=` says, as named checks.

    Raises:
        ConfigurationError: something in it is no check.
    """
    if validate is None:
        return ()
    if isinstance(validate, Mapping):
        return tuple(_named(name, one) for name, one in validate.items())
    if isinstance(validate, Sequence) and not isinstance(validate, str) and not _are_words(validate):
        named = tuple(_named(None, one) for one in validate)
    else:
        named = (_named(None, validate),)
    names = [name for name, _ in named]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ConfigurationError(
            f"validate= has several checks named {', '.join(sorted(twice))}: give a dict"
        )
    return named


def _are_words(value: object) -> bool:
    return isinstance(value, Iterable) and bool(value) and all(isinstance(one, str) for one in value)


def _named(name: str | None, check: object) -> Named:
    if isinstance(check, re.Pattern):
        check = Matches(check)
    elif isinstance(check, Mapping):
        check = Schema(check)
    elif isinstance(check, list | tuple | set | frozenset) and _are_words(check):
        check = OneOf(*check)
    if not callable(check):
        raise ConfigurationError(
            "validate= takes functions, re.compile(...), lists of words, JSON Schemas in a dict by name, "
            f"or a list of these, got {type(check).__name__}"
        )
    word = (
        name or getattr(check, "name", None) or getattr(check, "__name__", type(check).__name__).strip("<>")
    )
    try:
        return checked_name(str(word)), check
    except ScoreError as error:
        raise ConfigurationError(f"validate=: {error}") from error


def run_checks(call: Call, result: object) -> None:
    """Put what the checks find on the call; a check that raises has no opinion."""
    for name, check in call.checks:
        is_run, verdict = attempt("run a check", check, result)
        if is_run:
            is_run, value = attempt("take a check's verdict", checked_value, verdict)
            if value is not None:
                call.take_score(name, min(1.0, max(0.0, value)))
        if not is_run:
            call.annotate({s.TIERLIGHT_INSTRUMENTATION_ERROR: f"check {name}"})
