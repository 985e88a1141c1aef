"""What is usual for a figure, for a band behind its line: descriptive, never a test."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def usual_range(values: Sequence[float | None]) -> tuple[float, float] | None:
    """The range that holds the middle four fifths of the known values; None below 5 of them.

    >>> usual_range([10.0, 11.0, None, 12.0, 13.0, 14.0])
    (10.4, 13.6)
    """
    known = [v for v in values if v is not None]
    if len(known) < 5:
        return None
    low, high = np.quantile(known, (0.1, 0.9))
    return round(float(low), 6), round(float(high), 6)
