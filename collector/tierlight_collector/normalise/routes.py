"""Route names: one spelling for what the dialects say, and the names that say nothing."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from ..records import RouteHints

MAX_ROUTE: Final = 80
NO_HINTS: Final = RouteHints()

_PLAIN: Final = re.compile(r"[a-z0-9][a-z0-9._/-]{0,79}")
_OTHER: Final = re.compile(r"[^a-z0-9._/-]+")


@lru_cache(maxsize=4096)
def route_name(said: str) -> str:
    """The route as it is stored: lower case, `a-z 0-9 . _ / -`, at most 80 characters; "" for nothing usable.

    >>> route_name("Support Answer")
    'support-answer'
    """
    if _PLAIN.fullmatch(said):
        return said
    return _OTHER.sub("-", said.lower()).lstrip("._/-")[:MAX_ROUTE].rstrip("._/-")


@lru_cache(maxsize=1024)
def unrouted(service_name: str) -> str:
    """The route of a call that nobody named: a to-do per service, never mixed with real routes."""
    return f"unrouted/{route_name(service_name) or 'unknown'}"[:MAX_ROUTE]


def own_route(hints: RouteHints, service_name: str) -> tuple[str, str]:
    """Route and its source from what a call's own span says; final where the call has no relatives."""
    if hints.declared:
        return hints.declared, "declared"
    if hints.dialect:
        return hints.dialect, "dialect"
    if hints.agent:
        return hints.agent, "agent"
    if hints.prompt:
        return hints.prompt, "prompt"
    return unrouted(service_name), "unrouted"
