"""Which arm of an experiment a unit belongs to: always the same one, in every process."""

from __future__ import annotations

from hashlib import blake2b

from .declared import Experiment


def unit_share(experiment: str, unit: str) -> float:
    """Where a unit stands in [0, 1) of an experiment; the same unit always at the same place.

    >>> round(unit_share("exp-1", "user-1"), 12)
    0.484563537699
    """
    digest = blake2b(f"{experiment}:{unit}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def arm_of(experiment: Experiment, unit: str) -> str:
    """The arm of a unit: arms in name order, the first whose cumulative weight lies above its share."""
    share, total = unit_share(experiment.name, unit), 0.0
    for arm in experiment.arms:
        total += arm.weight
        if share < total:
            return arm.name
    return experiment.arms[-1].name
