"""Tokens: one dialect's row at a time, and whether its input already holds the cached parts.

What is stored is always inclusive: input is the total, cached and written parts inside it; output is the total,
reasoning inside it. A part that contradicts its total is dropped, not guessed.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from .coerce import MAX_TOKENS, tokens_of
from .scopes import counts_cache_apart
from .values import Values

# Field names of one row each, in the order in which they are believed.
ROWS: Final = (
    ("input", "output", "cached", "written", "reasoning", "total"),
    ("oi_input", "oi_output", "oi_cached", "oi_written", "oi_reasoning", "oi_total"),
    ("lf_input", "lf_output", "lf_cached", "lf_written", "lf_reasoning", "lf_total"),
    ("ml_input", "ml_output", "ml_cached", "ml_written", "ml_reasoning", "ml_total"),
    ("bare_input", "bare_output", "bare_cached", "bare_written", "bare_reasoning", "bare_total"),
)


class Usage(NamedTuple):
    """The token columns of a call; `flags` names what was mended."""

    input: int | None = None
    output: int | None = None
    cached: int | None = None
    written: int | None = None
    written_1h: int | None = None
    reasoning: int | None = None
    rule: str = ""
    flags: tuple[str, ...] = ()


NO_USAGE: Final = Usage()


def usage_of(values: Values, scope: str) -> Usage:
    """The usage that the span reports, made inclusive; all None where it reports none."""
    planned = values.plan.usage_row
    if planned is not None and not values.plan.is_refined:
        row = ROWS[planned]
    else:
        row = next((row for row in ROWS if row[0] in values or row[1] in values), ROWS[0])
    counts = list(map(values.get, row))
    if counts[0] is None and counts[1] is None:
        return NO_USAGE
    flags: tuple[str, ...] = ()
    for index, raw in enumerate(counts):
        if raw is not None and not (type(raw) is int and 0 <= raw <= MAX_TOKENS):
            counts[index] = tokens_of(raw)
            if counts[index] is None:
                flags = ("invalid_usage",)
    total_in, total_out, cached, written, reasoning, total = counts
    written_1h = tokens_of(values["written_1h"]) if "written_1h" in values else None

    rule = ""
    if total_in is not None:
        apart = (cached or 0) + (written or 0)
        rule = "inclusive"
        if apart:
            rule = _rule(total_in, total_out, apart, total, row, values, scope)
            if rule.startswith("exclusive"):
                total_in += apart
            if apart > total_in:
                cached = written = written_1h = None
                flags = (*flags, "usage_inconsistent")
    elif cached is not None or written is not None:
        cached = written = None

    if total_out is not None:
        if reasoning is not None and reasoning > total_out:
            total_out += reasoning
            flags = (*flags, "reasoning_apart")
        elif total is not None and total_in is not None and total - total_in > total_out:
            # Gemini reports thoughts apart from the candidates; without them the total tells the difference.
            missing = total - total_in - total_out
            if reasoning is None or missing == reasoning:
                total_out += missing
                flags = (*flags, "reasoning_apart")
    else:
        reasoning = None
    if written_1h is not None and (written is None or written_1h > written):
        written_1h = None
    return Usage(total_in, total_out, cached, written, written_1h, reasoning, rule, flags)


def _rule(
    total_in: int,
    total_out: int | None,
    apart: int,
    total: int | None,
    row: tuple[str, ...],
    values: Values,
    scope: str,
) -> str:
    """Whether the cached parts lie inside the input or beside it, and what tells so."""
    if row[0] == "lf_input" and "lf_summed" in values:
        return "inclusive:buckets"
    if total_in < apart:
        return "exclusive:proof"
    if total is not None and total_out is not None and total - total_out == total_in + apart:
        return "exclusive:total"
    if row[0] == "bare_input" or counts_cache_apart(scope) or (row[0] == "lf_input" and "lf_apart" in values):
        return "exclusive:dialect"  # whose total may be no more than the sum of what is beside it
    if total is not None and total_out is not None and total - total_out == total_in:
        return "inclusive:total"
    return "inclusive"


def usage_source(values: Values, usage: Usage, scope: str, is_streaming: bool | None) -> str:
    """Where the tokens come from: the provider, the sender's own count, the bill, or nowhere."""
    if usage.input is None and usage.output is None:
        return "absent"
    said = values.get("usage_source")
    if said in ("provider", "estimated", "absent"):
        return str(said)
    # OpenLIT counts by itself when a stream brings no usage, and only then leaves the cached parts out.
    if is_streaming and scope.startswith("openlit") and usage.cached is None and usage.written is None:
        return "estimated"
    # Cohere's billed units are sent as doubles by the older convention.
    if type(values.get("input")) is float and type(values.get("output")) in (float, type(None)):
        return "billed"
    return "provider"


def believable(usage: Usage, source: str, failed: bool, klass: str, operation: str) -> tuple[Usage, str]:
    """Zeros and placeholders that mean unknown, taken out."""
    if source == "absent":
        return NO_USAGE if usage.flags == () else Usage(flags=usage.flags), source
    if failed and not usage.input and not usage.output:
        return NO_USAGE, "absent"
    if operation in ("chat", "text_completion"):
        if not usage.input and not usage.output:
            return NO_USAGE, "absent"
        if usage.input == 0:
            usage = usage._replace(input=None, cached=None, written=None, written_1h=None, rule="")
        # The opening event of an Anthropic stream says 1 output token; a cut stream never says more.
        if failed and usage.output is not None and usage.output <= 1:
            usage = usage._replace(output=None, reasoning=None)
    elif operation in ("embeddings", "rerank") and not usage.input:
        return NO_USAGE, "absent"
    return usage, source
