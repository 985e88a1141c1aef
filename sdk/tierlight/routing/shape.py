"""The shape of a prompt in three numbers, which its words do not tell: how long, how involved, how many figures."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from .complexity import complexity

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Matrix = NDArray[np.float32]

SIZE: Final = 3
# Of a standardised shape beside a unit vector: enough for the ridge to use it, too little to drown the words.
SHAPE_SCALE: Final = 0.15
_NUMBER: Final = re.compile(r"\d+")

Shape = tuple[float, ...]
"""Three numbers, or none where the text is not known."""


def shape_of(text: str) -> Shape:
    """Logarithms of its characters and of its numbers, and its complexity by rule.

    >>> [round(one, 2) for one in shape_of("Add 12 and 30.")]
    [2.71, 0.26, 1.1]
    """
    return math.log1p(len(text)), complexity(text), math.log1p(len(_NUMBER.findall(text)))


@dataclass(frozen=True)
class Shaping:
    """Adds the shapes of prompts to the rows of their vectors, as the ridge reads them."""

    mean: Floats
    spread: Floats

    @classmethod
    def fit(cls, shapes: Floats) -> Shaping:
        """By the shapes of the calls that are learnt from; rows of NaN are unknown."""
        import numpy as np

        known = shapes[np.isfinite(shapes).all(axis=1)]
        if not len(known):
            return cls(np.zeros(shapes.shape[1]), np.ones(shapes.shape[1]))
        spread = known.std(axis=0)
        return cls(known.mean(axis=0), np.where(spread > 0, spread, 1.0))

    def rows(self, rows: Matrix, shapes: Floats) -> Matrix:
        """The rows with the standardised shapes beside them; an unknown shape is the mean."""
        import numpy as np

        scaled = SHAPE_SCALE * np.nan_to_num((shapes - self.mean) / self.spread)
        widened: Matrix = np.hstack([rows, scaled.astype(np.float32)])
        return widened


def shape_rows(shapes: Sequence[Shape]) -> Floats:
    """Shapes as rows, NaN where unknown."""
    import numpy as np

    return np.array([one or (np.nan,) * SIZE for one in shapes], dtype=float).reshape(len(shapes), SIZE)
