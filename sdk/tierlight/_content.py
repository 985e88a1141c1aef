"""Captured texts: off unless asked for, frozen on the calling thread, redacted and cut off it.

The calling thread only walks the structure (strings are shared, not copied); masks, cuts and JSON are made
where the record is prepared for export.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from . import semconv as s
from ._record import FinishedCall, FinishedScore
from ._redact import redact
from ._usage import fields

MAX_NODES: Final = 5_000  # of one message list; a longer one is cut
MAX_DEPTH: Final = 12

Redactor = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class ContentSettings:
    """What may be captured, and how it leaves.

    Args:
        captures: whether messages are captured where a route does not say.
        max_bytes: of one attribute in UTF-8, after redaction.
        redactor: the user's own mask, run after ours on every text; if it raises, the texts are dropped.
    """

    captures: bool = False
    max_bytes: int = 64 * 1024
    redactor: Redactor | None = None

    def mask(self, text: str) -> str:
        """The text as it may leave."""
        masked = redact(text)
        if self.redactor is None:
            return masked
        own = self.redactor(masked)
        if not isinstance(own, str):
            raise TypeError(f"a redactor gives text, got {type(own).__name__}")
        return own


# ---- on the calling thread ------------------------------------------------------------------------------


class Frozen:
    """Plain data that a later change of the original does not reach, and its rough size in bytes."""

    __slots__ = ("nbytes", "nodes", "value")

    def __init__(self, original: object) -> None:
        self.nodes = 0
        self.nbytes = 0
        self.value = self._freeze(original, 0)

    def _freeze(self, value: Any, depth: int) -> Any:
        self.nodes += 1
        if isinstance(value, str):
            self.nbytes += len(value) + 2
            return value
        if value is None or isinstance(value, bool | int | float):
            self.nbytes += 8
            return value
        if isinstance(value, bytes | bytearray | memoryview):
            return f"<{len(value)} bytes>"
        if depth >= MAX_DEPTH or self.nodes > MAX_NODES:
            return "<cut>"
        if isinstance(value, list | tuple):
            return [self._freeze(one, depth + 1) for one in value[:MAX_NODES]]
        named = fields(value)
        if named:
            return {
                str(name): self._freeze(one, depth + 1)
                for name, one in list(named.items())
                if one is not None and not str(name).startswith("_")
            }
        return f"<{type(value).__name__}>" if not isinstance(value, dict) else {}


# ---- off the calling thread -----------------------------------------------------------------------------


def masked(value: Any, mask: Redactor) -> Any:
    """The same structure with every text masked, names of fields included."""
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, list):
        return [masked(one, mask) for one in value]
    if isinstance(value, dict):
        return {mask(name): masked(one, mask) for name, one in value.items()}
    return value


def _cut_texts(value: Any, left: int) -> tuple[Any, int]:
    if left <= 0:
        return None, left
    if isinstance(value, str):
        encoded = value.encode("utf-8", "replace")
        if len(encoded) <= left:
            return value, left - len(encoded)
        return encoded[:left].decode("utf-8", "ignore") + "…", 0
    if isinstance(value, list):
        kept = []
        for one in value:
            if left <= 0:
                break
            cut, left = _cut_texts(one, left - 2)
            kept.append(cut)
        return kept, left
    if isinstance(value, dict):
        kept_fields = {}
        for name, one in value.items():
            if left <= 0:
                break
            kept_fields[name], left = _cut_texts(one, left - len(name.encode("utf-8", "replace")) - 6)
        return kept_fields, left
    return value, left - 8


def rendered(value: Any, max_bytes: int) -> str:
    """JSON of at most about `max_bytes`, still valid where it had to be cut: texts end in "…"."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if len(text.encode("utf-8", "replace")) <= max_bytes:
        return text
    cut, _ = _cut_texts(value, max_bytes)
    return json.dumps(cut, ensure_ascii=False, separators=(",", ":"))


class Preparation:
    """What a record still needs before it may leave: its texts masked and written out.

    Args:
        contents: frozen texts by attribute.
        texts: names of attributes that hold words of the user's, such as metadata.
    """

    __slots__ = ("_contents", "_settings", "_texts")

    def __init__(
        self, settings: ContentSettings, contents: Mapping[str, Frozen], texts: tuple[str, ...] = ()
    ) -> None:
        self._settings = settings
        self._contents = contents
        self._texts = texts

    @property
    def nbytes(self) -> int:
        """Rough size of what will be written out."""
        return sum(frozen.nbytes for frozen in self._contents.values())

    def __call__(self, record: FinishedCall | FinishedScore) -> None:
        """Mask and write out. Where a mask raises, nothing unmasked stays behind."""
        attributes = record.attributes
        written: dict[str, str] = {}
        changed = False
        try:
            for name, frozen in self._contents.items():
                clean = masked(frozen.value, self._settings.mask)
                changed = changed or clean != frozen.value
                written[name] = rendered(clean, self._settings.max_bytes)
            for name in self._texts:
                text = attributes.get(name)
                if isinstance(text, str):
                    attributes[name] = self._settings.mask(text)
                    changed = changed or attributes[name] != text
            if isinstance(record, FinishedCall) and record.message:
                message = self._settings.mask(record.message)[:1024]
                changed = changed or message != record.message
                record.message = message
        except BaseException:
            for name in self._texts:
                attributes.pop(name, None)
            if isinstance(record, FinishedCall):
                record.message = ""
            raise
        attributes.update(written)
        if changed:
            attributes[s.TIERLIGHT_CONTENT_REDACTED] = True
