"""Masks for what must not leave the process: keys, tokens, private keys, e-mail addresses, card numbers.

Each pattern is linear in the text: repeats are bounded, and no two of them can match the same characters.
"""

from __future__ import annotations

import re
from typing import Final

_PATTERNS: Final = (
    # A private key runs to its end line, or to the end of the text where it was cut.
    (
        "private-key",
        re.compile(
            r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z0-9 ]{0,40}-----|\Z)",
            re.S,
        ),
    ),
    ("jwt", re.compile(r"\beyJ[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]{6,}(?:\.[A-Za-z0-9_-]*)?")),
    (
        "key",
        re.compile(
            r"\b(?:sk-[A-Za-z0-9_-]{16,}"  # OpenAI, Anthropic and many that look like them
            r"|[sr]k_(?:live|test)_[A-Za-z0-9]{16,}"
            r"|AIza[A-Za-z0-9_-]{30,}"
            r"|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}|glpat-[A-Za-z0-9_-]{20,}"
            r"|(?:AKIA|ASIA)[A-Z0-9]{16}\b"
            r"|xox[abeprs]-[A-Za-z0-9-]{10,}"
            r"|hf_[A-Za-z0-9]{30,}|gsk_[A-Za-z0-9]{30,}|xai-[A-Za-z0-9]{30,}|pplx-[A-Za-z0-9]{30,}"
            r"|tl_[A-Za-z0-9]{8}_[A-Za-z0-9_-]{20,})"
        ),
    ),
    ("key", re.compile(r"\b[Bb]earer\s{1,4}[A-Za-z0-9._~+/-]{16,}={0,2}")),
    ("email", re.compile(r"[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}\b")),
)
# Without one of these in it no pattern can match; looking for them takes a fiftieth of the time.
_TRIGGERS: Final = (
    "@", "sk-", "eyJ", "earer", "k_live_", "k_test_", "AIza", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_",
    "glpat-", "AKIA", "ASIA", "xox", "hf_", "gsk_", "xai-", "pplx-", "tl_", "-----BEGIN",
)  # fmt: skip
# The look back stands after the first digit: a pattern that begins with a digit skips all other text at once.
_CARD: Final = re.compile(r"\d(?<![\d.]\d)(?:[ -]?\d){12,18}(?![\d.]?\d)")


def passes_luhn(digits: str) -> bool:
    """Whether the check digit of a card number is right.

    References:
        ISO/IEC 7812-1, annex B.

    >>> passes_luhn("4111111111111111"), passes_luhn("4111111111111112")
    (True, False)
    """
    total = 0
    for index, character in enumerate(reversed(digits)):
        digit = int(character)
        if index % 2:
            digit = digit * 2 - 9 if digit > 4 else digit * 2
        total += digit
    return total % 10 == 0


def _mask_card(match: re.Match[str]) -> str:
    found = match.group()
    return "[redacted:card]" if passes_luhn(found.replace(" ", "").replace("-", "")) else found


def redact(text: str) -> str:
    """The text with every secret replaced by a word that says what stood there.

    >>> redact("write to ada@example.org, key sk-abcdefghijklmnop1234")
    'write to [redacted:email], key [redacted:key]'
    """
    if any(map(text.__contains__, _TRIGGERS)):
        for word, pattern in _PATTERNS:
            text = pattern.sub(f"[redacted:{word}]", text)
    return _CARD.sub(_mask_card, text)
