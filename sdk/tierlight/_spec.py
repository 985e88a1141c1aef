"""What is declared of a route and known of a request, before anything is sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from . import semconv as s
from ._content import Frozen
from ._record import AttributeValue

Attributes = dict[str, AttributeValue]


@dataclass(frozen=True, slots=True)
class RouteSpec:
    """What a route declares, prepared once: `base` holds the attributes that all its calls share."""

    name: str
    base: Attributes
    provider: str = ""
    model: str = ""
    checks: tuple[tuple[str, Any], ...] = ()
    judge: Any = None
    judge_spec: RouteSpec | None = None
    needs_facts: bool = False  # no span unless a response was seen: a judge need not be a model
    captures_content: bool | None = None  # None: as configured


def base_attributes(
    route: str = "", tier: str | None = None, version: str | None = None, purpose: str = "production"
) -> Attributes:
    """The attributes of a route that do not change from call to call."""
    base: Attributes = {s.TIERLIGHT_SCHEMA: s.SCHEMA_VERSION, s.TIERLIGHT_SPAN_ROLE: "call"}
    if route:
        base[s.TIERLIGHT_ROUTE] = route
    if tier:
        base[s.TIERLIGHT_TIER] = tier
    if version:
        base[s.TIERLIGHT_ROUTE_VERSION] = version
    base[s.TIERLIGHT_ATTEMPT_INDEX] = 0
    base[s.TIERLIGHT_ATTEMPT_REASON] = "first"
    base[s.TIERLIGHT_ATTEMPT_FINAL] = True
    base[s.TIERLIGHT_PURPOSE] = purpose
    return base


# What the span around several attempts says; everything else belongs to the attempts.
ROUTE_SPAN: Final = (
    s.TIERLIGHT_SCHEMA,
    s.TIERLIGHT_ROUTE,
    s.TIERLIGHT_ROUTE_VERSION,
    s.TIERLIGHT_TIER,
    s.TIERLIGHT_PURPOSE,
)

UNROUTED: Final = RouteSpec(name="", base=base_attributes())


@dataclass(slots=True)
class Request:
    """What is known of a request before it is sent; filled by `wrap` and by the router.

    A request's span is current while it runs; what it attaches to is known, so it always has a span.
    """

    operation: str = "chat"
    provider: str = ""
    model: str = ""
    attributes: Attributes = field(default_factory=dict)
    contents: Mapping[str, Frozen] | None = None
    is_helper: bool = False  # a method of the client that calls another hooked method itself
    is_route: bool = False  # not a call but the span around several attempts at one: no usage, no cost
