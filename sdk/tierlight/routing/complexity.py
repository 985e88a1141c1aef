"""How hard a prompt looks: by a rule, and by the word of a small model that was asked."""

from __future__ import annotations

import math
import re
from typing import Final

from .declared import WORDS

_KEYWORDS: Final = re.compile(
    r"\b(prove|derive|explain why|step by step|compare|trade-?offs?|analy[sz]e|design|optimi[sz]e|debug|refactor|plan|strategy|root cause)\b"
)
_CODE: Final = re.compile(r"```|\bdef |\bclass |\bSELECT |[{};]\s*\n|=>|->")
_MATHS: Final = re.compile(r"\\[a-z]+|[=^]\s*-?\d|\d\s*[-+*/^]\s*\d|\$[^$\n]+\$")
_ITEM: Final = re.compile(r"(?m)^\s*(?:\d+[.)]|[-*])\s")


def complexity(text: str) -> float:
    """How hard a prompt looks, 0 to 10, by its length, words, code, maths and number of questions.

    A weak signal: measured APGR .54 to .81 where random is .50 (length alone .51 to .85), and 66 to 96 % of
    prompts fall below 3. Use it where a replay on your own calls shows a gain.

    >>> complexity("Classify: where is my parcel?")
    0.47
    """
    asks = max(0, text.count("?") - 1) + len(_ITEM.findall(text))
    score = (
        2.0 * math.log10(1 + len(text) / 40)
        + 1.5 * min(2, len(set(_KEYWORDS.findall(text.lower()))))
        + 1.0 * (_CODE.search(text) is not None)
        + 1.0 * (_MATHS.search(text) is not None)
        + 0.5 * min(4, asks)
    )
    return round(min(10.0, score), 2)


def tier_for(score: float, bounds: tuple[float, float]) -> str:
    """small below the first bound, mid below the second, else flagship."""
    return "small" if score < bounds[0] else "mid" if score < bounds[1] else "flagship"


def parse_router_word(answer: str) -> str:
    """The first of trivial, moderate, complex in a router model's answer, "" where there is none."""
    lowered = answer.lower()
    found = [(lowered.find(word), word) for word in WORDS if word in lowered]
    return min(found)[1] if found else ""
