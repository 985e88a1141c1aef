"""How long things are kept, and the moments that follow from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from .sums import DAY_NS


@dataclass(frozen=True, slots=True)
class Retention:
    """How long things are kept, in days. Rollups stay for good."""

    contents_days: int = 14  # captured texts and explanations of scores
    spans_days: int = 30  # raw spans, and those that are no calls
    calls_days: int = 400  # calls and their scores


KEEP_ALL: Final = Retention(
    36_500, 36_500, 36_500
)  # for commands that open a store: forgetting is the server's


@dataclass(frozen=True, slots=True)
class Horizons:
    """The oldest moments that are still kept; what is older is not taken in either."""

    contents_ns: int = 0
    spans_ns: int = 0
    calls_ns: int = 0

    @classmethod
    def at(cls, now_ns: int, policy: Retention) -> Horizons:
        """Calls end at a whole day, so that no hour is left half."""
        return cls(
            contents_ns=now_ns - policy.contents_days * DAY_NS,
            spans_ns=now_ns - policy.spans_days * DAY_NS,
            calls_ns=(now_ns // DAY_NS - policy.calls_days) * DAY_NS,
        )
