"""The ends of attempts on their spans."""

from __future__ import annotations

from .. import semconv as s
from .._call import Call
from .._usage import ResponseFacts
from .validators import Verdict


def note(call: Call | None, verdicts: tuple[Verdict, ...]) -> None:
    """Put what the checks found on the span, each verdict also as a score."""
    if call is None or not verdicts:
        return
    call.annotate(
        {
            s.TIERLIGHT_VALIDATOR_NAMES: tuple(one.name for one in verdicts),
            s.TIERLIGHT_VALIDATOR_VERDICTS: tuple(one.word for one in verdicts),
        }
    )
    for verdict in verdicts:
        if verdict.passed is not None:
            value = verdict.score if verdict.score is not None else float(verdict.passed)
            call.take_score(verdict.name, value)


def end(
    call: Call | None, facts: ResponseFacts | None, verdicts: tuple[Verdict, ...], is_final: bool
) -> None:
    if call is None:
        return
    note(call, verdicts)
    call.annotate({s.TIERLIGHT_ATTEMPT_FINAL: is_final})
    call.succeed(facts)


def fail(call: Call | None, error: BaseException, is_final: bool) -> None:
    """End an attempt that failed."""
    if call is not None:
        call.annotate({s.TIERLIGHT_ATTEMPT_FINAL: is_final})
        call.fail(error)
