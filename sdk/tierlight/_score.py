"""Quality signals: one log record each, tied to its call by id, span, response or a business key."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Final, Literal

from . import semconv as s
from ._call import Call
from ._content import Preparation
from ._context import current_call
from ._guard import guarded
from ._join import join_attributes
from ._record import AttributeValue, FinishedScore
from ._runtime import Runtime, active
from .errors import ScoreError

ScoreKind = Literal["validator", "feedback", "judge", "outcome", "human"]

_KINDS: Final = ("validator", "feedback", "judge", "outcome", "human")
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def checked_name(name: str) -> str:
    """The name, if a score may have it."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ScoreError(f"a score's name is up to 64 of A-Z a-z 0-9 . _ -, got {name!r}")
    return name


def checked_value(value: object) -> float | None:
    """The value as a number; None where the judgement abstains."""
    if value is None:
        return None
    if isinstance(value, bool):
        return float(value)
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise ScoreError(f"a score is a finite number, True, False or None for no judgement, got {value!r}")
    return float(value)


def score(
    value: float | bool | None,
    name: str = "quality",
    *,
    call: Call | str | None = None,
    response_id: str | None = None,
    join: Mapping[str, str] | None = None,
    kind: ScoreKind = "feedback",
    label: str | None = None,
    explanation: str | None = None,
    source: str | None = None,
    judge_model: str | None = None,
    judge_version: str | None = None,
    weight: float | None = None,
    trace_id: int | None = None,
    span_id: int | None = None,
) -> None:
    """Say how good a call's answer was: at once, days later, or from another process.

    Args:
        value: 1 = good, 0 = bad, anything between; True and False are 1 and 0. None abstains: nothing is
            recorded, which is not the same as 0.
        name: what was judged: "helpful", "resolved".
        call: the call, or its id (`call.id`), kept wherever you keep the answer. Without call, response_id and
            join, the call that the running code belongs to is meant.
        response_id: the provider's own id of the answer, if that is all you have.
        join: business key of the answer, such as {"ticket": "T-17"}, set on the call by `call.join`.
        kind: feedback of a user, outcome of the business, human review, judge, validator.
        explanation: text; sent only where content capture is on.
        source: who judged, where several do: one score per call, name, kind and source counts, the last one.
        judge_model, judge_version: a change opens a new baseline instead of raising an alert.
        weight: 1 / probability, where only a chosen share was judged.

    Raises:
        ScoreError: a value that is not finite, a name that no score may have, an unknown kind.
    """
    checked_name(name)
    number = checked_value(value)
    if kind not in _KINDS:
        raise ScoreError(f"a score's kind is one of {', '.join(_KINDS)}, got {kind!r}")
    runtime = active()
    if runtime is None or number is None:
        return
    attributes: dict[str, AttributeValue] = {
        s.GEN_AI_EVALUATION_NAME: name,
        s.GEN_AI_EVALUATION_SCORE_VALUE: number,
        s.TIERLIGHT_SCORE_KIND: kind,
    }
    for attribute, text in (
        (s.GEN_AI_EVALUATION_SCORE_LABEL, label),
        (s.TIERLIGHT_SCORE_SOURCE, source),
        (s.TIERLIGHT_SCORE_JUDGE_MODEL, judge_model),
        (s.TIERLIGHT_SCORE_JUDGE_VERSION, judge_version),
        (s.GEN_AI_RESPONSE_ID, response_id),
    ):
        if text:
            attributes[attribute] = text
    if weight is not None:
        attributes[s.TIERLIGHT_SCORE_WEIGHT] = float(weight)
    _offer(runtime, attributes, call, response_id, join, explanation, trace_id or 0, span_id or 0)


@guarded("record a score")
def _offer(
    runtime: Runtime,
    attributes: dict[str, AttributeValue],
    call: Call | str | None,
    response_id: str | None,
    join: Mapping[str, str] | None,
    explanation: str | None,
    trace_id: int,
    span_id: int,
) -> None:
    if call is None and response_id is None and not join and not trace_id:
        call = current_call()
        if call is None:
            return  # sampled out, or no call to speak of
    if isinstance(call, Call):
        if not call.is_recorded:
            return
        attributes[s.TIERLIGHT_CALL_ID] = call.id
        trace_id = trace_id or call.trace_id
    elif call:
        attributes[s.TIERLIGHT_CALL_ID] = call
    if join:
        attributes.update(join_attributes(runtime, join))
    record = FinishedScore(runtime.clock.time_ns(), attributes, trace_id, span_id)
    if explanation and runtime.content.captures:
        attributes[s.GEN_AI_EVALUATION_EXPLANATION] = explanation[: runtime.content.max_bytes]
        record.prepare = Preparation(runtime.content, {}, (s.GEN_AI_EVALUATION_EXPLANATION,))
    runtime.sink.offer(record)
