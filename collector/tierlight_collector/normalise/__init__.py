"""Span in, call out: which spans are calls, and what they say, in whatever dialect.

`normalise` reads one span; `resolve` settles what no span can say alone (which of several views of one call
counts, and the route that stands on a parent). Both are pure.
"""

from __future__ import annotations

from .facts import CLOCK_SLACK_NS, RESPONSE_WINDOW_NS, SpanFacts, SpanKey
from .failures import failure_of_log
from .resolve import Settled, facts_of, original, resolve
from .routes import PLAIN_RULES, ROUTE_ORDER, RouteRules, RouteSource, route_name
from .spans import NORM_VERSION, normalise, normalise_log

__all__ = [
    "CLOCK_SLACK_NS",
    "NORM_VERSION",
    "PLAIN_RULES",
    "RESPONSE_WINDOW_NS",
    "ROUTE_ORDER",
    "RouteRules",
    "RouteSource",
    "Settled",
    "SpanFacts",
    "SpanKey",
    "facts_of",
    "failure_of_log",
    "normalise",
    "normalise_log",
    "original",
    "resolve",
    "route_name",
]
