"""What one span says, by field, and the plan by which it was read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .routes import RouteRules


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """How to read spans that carry one set of attribute keys; made once for each such set, equal only to itself.

    `fields` are filled from the keys that `fetch` gets, best source each; `others` are the sources to fall back on
    when the best one is empty. `fetch_shared` gets all sources of what a sender repeats in every span, `own_fields`
    and `fetch_own` are what else a call is made of: see `profiles`. `content_keys` may hold content, `extra_keys`
    end in a word of the user's.
    """

    fields: tuple[str, ...]
    fetch: Callable[[Any], tuple[Any, ...]]
    others: tuple[tuple[str, str], ...]
    fetch_shared: Callable[[Any], tuple[Any, ...]]
    own_fields: tuple[str, ...]
    fetch_own: Callable[[Any], tuple[Any, ...]]
    content_keys: tuple[str, ...]
    extra_keys: tuple[str, ...]
    is_quoting: bool  # a dialect that puts JSON quotes around its strings
    is_refined: bool  # a dialect that hides facts in JSON
    usage_row: int | None  # see `usage`
    dialect: str  # "" = told by the scope
    rules: RouteRules


class Values(dict[str, Any]):
    """Field name to value; absent and empty are the same: not there."""

    __slots__ = ("findings", "plan")

    plan: Plan
    findings: dict[str, Any]  # what was read out of content, which is stripped afterwards

    def fill(self, field: str, value: Any) -> None:
        """Set the field unless it is known or the value says nothing."""
        if value is not None and value != "" and field not in self:
            self[field] = value

    def found(self, field: str, value: Any) -> None:
        """The same for a value that was read out of content: it is kept with the stripped span."""
        if value is not None and value != "" and field not in self:
            self[field] = self.findings[field] = value
