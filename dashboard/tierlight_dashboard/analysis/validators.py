"""How well a route's validators tell bad answers from good ones, by what became known of the answers later."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

LEAST_KNOWN: Final = 30
BAD_BELOW: Final = 0.5
Answer = TypeVar("Answer", bound=Hashable)  # whatever names one answer


@dataclass(frozen=True, slots=True)
class ValidatorQuality:
    """Counts of one validator: its verdicts, and among those whose answer was judged otherwise, the bad answers."""

    name: str
    failed: int
    passed: int
    failed_known: int = 0
    failed_bad: int = 0
    passed_known: int = 0
    passed_bad: int = 0

    @property
    def is_known(self) -> bool:
        """Whether enough answers of both verdicts were judged."""
        return min(self.failed_known, self.passed_known) >= LEAST_KNOWN

    @property
    def precision(self) -> float | None:
        """The share of bad answers among those that it fails; None below 30 known ones of either verdict."""
        return self.failed_bad / self.failed_known if self.is_known else None

    @property
    def recall(self) -> float | None:
        """The share of the bad answers that it fails; None below 30 known ones of either verdict, or without a bad one.

        Rejected answers are judged more often than accepted ones, so the two shares of bad answers are weighed by how
        often the validator says each, not by how often the truth was found out.

        >>> round(ValidatorQuality("json", 100, 900, 100, 80, 90, 5).recall, 3)  # 80 of 80 + 50
        0.615
        """
        if not self.is_known:
            return None
        caught = self.failed * self.failed_bad / self.failed_known
        missed = self.passed * self.passed_bad / self.passed_known
        return caught / (caught + missed) if caught + missed else None


def validator_qualities(
    verdicts: Iterable[tuple[Answer, str, bool]], truth: Mapping[Answer, float]
) -> list[ValidatorQuality]:
    """One row for each validator, by name.

    Args:
        verdicts: which answer, which validator, whether it passed.
        truth: what the answers turned out to be worth, 0..1; below 0.5 is bad.
    """
    counts: dict[str, dict[bool, list[int]]] = {}
    for answer, name, passed in verdicts:
        row = counts.setdefault(name, {True: [0, 0, 0], False: [0, 0, 0]})[passed]
        row[0] += 1
        if answer in truth:
            row[1] += 1
            row[2] += truth[answer] < BAD_BELOW
    return [
        ValidatorQuality(name, row[False][0], row[True][0], *row[False][1:], *row[True][1:])
        for name, row in sorted(counts.items())
    ]
