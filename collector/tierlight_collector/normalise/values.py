"""What a span says, by field: one walk over its attributes with one look at a prebuilt table for each.

Every dialect module lists, per field, the keys it reads, best first. The dialects are ranked in `DIALECTS`;
of several keys for one field the best ranked wins, whatever the order of the attributes.
"""

from __future__ import annotations

from typing import Any


class Values(dict[str, Any]):
    """Field name to value; absent and empty are the same: not there."""

    __slots__ = ("content_keys", "extras", "findings")

    def __init__(self) -> None:
        super().__init__()
        self.extras: list[tuple[str, Any]] = []  # scores, joins: keys that end in the user's own word
        self.content_keys: list[str] = []
        self.findings: dict[str, Any] = {}  # what was read out of content, which is stripped afterwards

    def fill(self, field: str, value: Any) -> None:
        """Set the field unless it is known or the value says nothing."""
        if value is not None and value != "" and field not in self:
            self[field] = value

    def found(self, field: str, value: Any) -> None:
        """The same for a value that was read out of content: it is kept with the stripped span."""
        if value is not None and value != "" and field not in self:
            self[field] = self.findings[field] = value
