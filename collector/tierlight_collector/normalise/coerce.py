"""What senders meant: numbers that came as text, text that was quoted twice, JSON inside strings.

None is "not there"; nothing here raises, however hostile the value.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any, Final

import orjson

MAX_JSON: Final = 64 * 1024
MAX_REPR: Final = 16 * 1024
MAX_TOKENS: Final = 1_000_000_000


def unquoted(text: str) -> str:
    """The text inside one pair of JSON quotes, else the text itself."""
    if len(text) >= 2 and text[0] == text[-1] == '"':
        loaded = loads(text)
        if isinstance(loaded, str):
            return loaded
    return text


def text_of(value: object) -> str:
    """The value where it is text or a number, as text without blanks around it; "" for anything else."""
    if type(value) is str:
        return value.strip()
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    return ""


def first_text(value: object) -> str:
    """The text, or the first text of an array or of a JSON array."""
    if type(value) is str and value[:1] == "[":
        value = loads(value)
    if isinstance(value, (list, tuple)):
        value = value[0] if value else ""
    return text_of(value)


def tokens_of(value: object) -> int | None:
    """A count of tokens: whole, not negative, at most a thousand million; digits as text and 60.0 are taken."""
    if type(value) is int:
        return value if 0 <= value <= MAX_TOKENS else None
    number = number_of(value)
    if number is None or not 0 <= number <= MAX_TOKENS or number != int(number):
        return None
    return int(number)


def number_of(value: object) -> float | None:
    """A number that sums and squares stay finite with, also from text."""
    if type(value) is float:
        return value if abs(value) < 2**63 else None  # nor NaN, which is less than nothing
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        if not 0 < len(value) <= 40:
            return None
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, int | float):
        return float(value) if abs(value) < 2**63 else None
    return None


_WORDS: Final = {"true": True, "false": False, "1": True, "0": False}


def flag_of(value: object) -> bool | None:
    """A truth value, also "true", "False", 0 and 1."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _WORDS.get(value.strip().lower())
    if isinstance(value, int):
        return bool(value) if value in (0, 1) else None
    return None


def loads(value: object) -> Any:
    """What the JSON text holds; None when it is not JSON or too long."""
    if not isinstance(value, str) or not 0 < len(value) <= MAX_JSON:
        return None
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return None


def mapping_of(value: object) -> Mapping[str, Any]:
    """A map, also from JSON text; empty for anything else."""
    if isinstance(value, str):
        value = loads(value) if value[:1] == "{" else None
    return value if isinstance(value, Mapping) else {}


def mapping_of_repr(value: object) -> Mapping[str, Any]:
    """A map from the `repr` of a Python dict of literals; empty for anything else."""
    if not isinstance(value, str) or value[:1] != "{" or len(value) > MAX_REPR:
        return {}
    try:
        loaded = ast.literal_eval(value)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return {}
    return loaded if isinstance(loaded, dict) else {}
