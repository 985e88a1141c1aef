"""Whether an A/B test gave each side the share of calls that was agreed; a broken split decides nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from .comparison import Comparison
from .evidence import sample_ratio_p
from .wording import percent

BROKEN_BELOW: Final = 0.001


@dataclass(frozen=True, slots=True)
class Split:
    """Calls of both sides against the agreed share of the candidate; `p` of the chi-square test."""

    candidate: int
    control: int
    share: float
    p: float

    @property
    def holds(self) -> bool:
        return self.p > BROKEN_BELOW

    @property
    def sentence(self) -> str:
        """What was agreed, what came, what follows."""
        total = self.candidate + self.control
        seen = (
            f"{self.candidate:,} of {total:,} calls ({percent(self.candidate / total)}) went to the candidate"
        )
        if self.holds:
            return f"Sample ratio: {seen}, {percent(self.share)} was agreed. The split holds."
        return (
            f"Sample ratio: {seen}, but {percent(self.share)} was agreed. The split is broken, so nothing is decided:"
            " look for calls that are dropped or retried on one side."
        )


def split_of(card: Mapping[str, Any] | None) -> Split | None:
    """The split of the A/B test in an evidence card; None for a shadow test, where both sides answer every call."""
    given = (card or {}).get("given")
    if given is None:
        return None
    comparison = Comparison.decode(given["comparison"].encode())
    candidate, control = comparison.calls["candidate"], comparison.calls["control"]
    if comparison.kind != "ab" or comparison.share is None or not candidate + control:
        return None
    return Split(candidate, control, comparison.share, sample_ratio_p(candidate, control, comparison.share))
