"""Quality signals: inline on spans, and OTLP log events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from tierlight import semconv

from ..records import LogRecord, ScoreKind, ScoreRecord, SpanRecord
from .coerce import mapping_of, number_of, text_of

MAX_NAME: Final = 100
MAX_EXPLANATION: Final = 4000

_KINDS: Final[dict[str, ScoreKind]] = {
    "validator": "validator",
    "code": "validator",
    "feedback": "feedback",
    "user": "feedback",
    "judge": "judge",
    "llm": "judge",
    "outcome": "outcome",
    "human": "human",
    "annotator": "human",
}
# tierlight.score.<one of these> says something about the score instead of being one
_ABOUT: Final = frozenset({"kind", "source", "weight", "judge.model", "judge.version"})
_LABELS: Final = {
    "pass": 1.0,
    "passed": 1.0,
    "true": 1.0,
    "yes": 1.0,
    "correct": 1.0,
    "good": 1.0,
    "fail": 0.0,
    "failed": 0.0,
    "false": 0.0,
    "no": 0.0,
    "incorrect": 0.0,
    "bad": 0.0,
}


def score_of(log: LogRecord, *, content: bool) -> ScoreRecord | None:
    """The score that a `gen_ai.evaluation.result` event carries; None for every other event and one without name.

    A failed evaluation (`error.type`) and a value that is not finite give value None: missing, not 0.
    """
    if log.event_name != semconv.EVENT_EVALUATION_RESULT:
        return None
    said = log.attributes
    name = _name(said.get(semconv.GEN_AI_EVALUATION_NAME))
    if not name:
        return None
    label = text_of(said.get(semconv.GEN_AI_EVALUATION_SCORE_LABEL))
    value = (
        None if said.get(semconv.ERROR_TYPE) else number_of(said.get(semconv.GEN_AI_EVALUATION_SCORE_VALUE))
    )
    if value is None and not said.get(semconv.ERROR_TYPE):
        value = _LABELS.get(label.lower())
    judge = text_of(said.get(semconv.TIERLIGHT_SCORE_JUDGE_MODEL))
    kind = _KINDS.get(
        text_of(said.get(semconv.TIERLIGHT_SCORE_KIND)).lower(), "judge" if judge else "validator"
    )
    join_key, join_value = _join(said)
    weight = number_of(said.get(semconv.TIERLIGHT_SCORE_WEIGHT))
    return ScoreRecord(
        name=name,
        value=value,
        source=text_of(said.get(semconv.TIERLIGHT_SCORE_SOURCE)) or (f"judge:{judge}" if judge else kind),
        kind=kind,
        time_ns=log.time_ns,
        call_id=text_of(said.get(semconv.TIERLIGHT_CALL_ID)),
        trace_id=log.trace_id,
        span_id=log.span_id,
        response_id=text_of(said.get(semconv.GEN_AI_RESPONSE_ID)),
        join_key=join_key,
        join_value=join_value,
        label=label[:MAX_NAME],
        explanation=text_of(said.get(semconv.GEN_AI_EVALUATION_EXPLANATION))[:MAX_EXPLANATION]
        if content
        else "",
        evaluator_version=text_of(said.get(semconv.TIERLIGHT_SCORE_JUDGE_VERSION)),
        weight=weight if weight is not None and weight > 0 else 1.0,
    )


def inline_scores(
    extras: Sequence[tuple[str, Any]], span: SpanRecord, call_id: str, *, content: bool
) -> tuple[ScoreRecord, ...]:
    """The scores that stand on the span itself: ours, OpenInference's evaluations, Logfire's feedback."""
    found: list[ScoreRecord] = []
    rows: dict[str, dict[str, Any]] = {}
    feedback: dict[str, Any] = {}
    for key, value in extras:
        if key.startswith(semconv.TIERLIGHT_SCORE_PREFIX):
            name = _name(key[len(semconv.TIERLIGHT_SCORE_PREFIX) :])
            number = number_of(value) if not isinstance(value, bool) else float(value)
            if name and name not in _ABOUT and number is not None:
                found.append(_inline(span, call_id, name, number, f"validator:{name}", "validator"))
        elif key.startswith("logfire.feedback."):
            feedback[key[len("logfire.feedback.") :]] = value
        elif not key.startswith(semconv.TIERLIGHT_JOIN_PREFIX):
            group, _, field = _evaluation_key(key)
            if field:
                rows.setdefault(group, {})[field] = value
            else:
                for index, row in enumerate(_listed(value)):
                    rows[f"{group}#{index}"] = dict(row)
    for _, row in sorted(rows.items()):
        score = _evaluation(row, span, call_id, content=content)
        if score is not None:
            found.append(score)
    if feedback:
        score = _logfire_feedback(feedback, span, call_id, content=content)
        if score is not None:
            found.append(score)
    return tuple(found[:100])


def _inline(
    span: SpanRecord,
    call_id: str,
    name: str,
    value: float | None,
    source: str,
    kind: ScoreKind,
    label: str = "",
    explanation: str = "",
) -> ScoreRecord:
    return ScoreRecord(
        name=name,
        value=value,
        source=source,
        kind=kind,
        time_ns=span.end_ns if span.end_ns >= span.start_ns else span.start_ns,
        call_id=call_id,
        trace_id=span.trace_id,
        span_id=span.span_id,
        label=label[:MAX_NAME],
        explanation=explanation[:MAX_EXPLANATION],
    )


def _evaluation_key(key: str) -> tuple[str, str, str]:
    """`evaluations.0.evaluation.score` -> ("evaluations.0", ".", "score"); without number the value is a list."""
    head, _, rest = (
        key.replace("trace.evaluations", "trace_evaluations")
        .replace("session.evaluations", "session_evaluations")
        .partition(".")
    )
    number, _, field = rest.partition(".")
    return f"{head}.{number}", ".", field.rpartition(".")[2] if number.isdecimal() else ""


def _listed(value: object) -> Sequence[Mapping[str, Any]]:
    if isinstance(value, (list, tuple)):
        return [row for row in map(mapping_of, value) if row]
    row = mapping_of(value)
    return [row] if row else []


def _evaluation(
    row: Mapping[str, Any], span: SpanRecord, call_id: str, *, content: bool
) -> ScoreRecord | None:
    row = {key.rpartition(".")[2]: value for key, value in row.items() if isinstance(key, str)}
    name = _name(row.get("name"))
    if not name:
        return None
    label = text_of(row.get("label"))
    value = number_of(row.get("score"))
    if value is None:
        value = _LABELS.get(label.lower())
    kind = _KINDS.get(text_of(row.get("annotator_kind")).lower(), "validator")
    source = text_of(row.get("identifier")) or kind
    explanation = text_of(row.get("explanation")) if content else ""
    return _inline(span, call_id, name, value, source, kind, label, explanation)


def _logfire_feedback(
    feedback: Mapping[str, Any], span: SpanRecord, call_id: str, *, content: bool
) -> ScoreRecord | None:
    """`logfire.feedback.name`, its value beside it (`.value`, or a key named like the feedback)."""
    name = _name(feedback.get("name"))
    if not name:
        return None
    raw = feedback.get("value", feedback.get(name))
    value = float(raw) if isinstance(raw, bool) else number_of(raw)
    label = "" if value is not None else text_of(raw)
    comment = text_of(feedback.get("comment")) if content else ""
    return _inline(span, call_id, name, value, "feedback", "feedback", label, comment)


def _name(value: object) -> str:
    """A score's name, at most 100 characters."""
    return text_of(value)[:MAX_NAME]


def _join(said: Mapping[str, Any]) -> tuple[str, str]:
    for key in sorted(said):
        if key.startswith(semconv.TIERLIGHT_JOIN_PREFIX):
            value = text_of(said[key])
            if value:
                return key[len(semconv.TIERLIGHT_JOIN_PREFIX) :][:MAX_NAME], value[:256]
    return "", ""
