"""Langfuse's exports as the spans that its SDK would have sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ..errors import InvalidRecord
from ..records import AttributeValue, ScoreKind, ScoreRecord, SpanRecord
from .parts import MAX_NAME, Line, identity, iso_of, mapping_of, number_of, pick, span_of, text_of, time_ns

_SOURCES: Final[Mapping[str, ScoreKind]] = {"EVAL": "judge", "ANNOTATION": "human", "API": "feedback"}


def langfuse_observation(line: Line) -> SpanRecord:
    """An observation, as the API, the page's export (camel case) or the blob storage export (snake case) gives it.

    References:
        https://langfuse.com/docs/api-and-data-platform/features/blob-storage-export-fields
    """
    usage = pick(line, "usageDetails", "usage_details") or _old_usage(mapping_of(line.get("usage")))
    cost = pick(line, "costDetails", "cost_details")
    total = pick(line, "totalCost", "total_cost", "calculatedTotalCost", "calculated_total_cost")
    if not mapping_of(cost) and total is not None:
        cost = {"total": total}
    level = text_of(line.get("level"))
    metadata = mapping_of(line.get("metadata"))
    prefix = "langfuse.observation"
    said: dict[str, AttributeValue] = {
        f"{prefix}.type": text_of(line.get("type")).lower(),
        f"{prefix}.model.name": text_of(
            pick(line, "providedModelName", "provided_model_name", "model", "internalModel")
        ),
        f"{prefix}.usage_details": mapping_of(usage) or None,
        f"{prefix}.cost_details": mapping_of(cost) or None,
        f"{prefix}.level": level,
        f"{prefix}.status_message": text_of(pick(line, "statusMessage", "status_message")),
        f"{prefix}.completion_start_time": iso_of(pick(line, "completionStartTime", "completion_start_time")),
        f"{prefix}.prompt.name": text_of(pick(line, "promptName", "prompt_name")),
        f"{prefix}.prompt.version": text_of(pick(line, "promptVersion", "prompt_version")),
        f"{prefix}.metadata.route": text_of(metadata.get("route")),
        "langfuse.trace.name": text_of(pick(line, "traceName", "trace_name")),
        "langfuse.session.id": text_of(pick(line, "sessionId", "session_id")),
        "langfuse.user.id": text_of(pick(line, "userId", "user_id")),
    }
    return span_of(
        trace=pick(line, "traceId", "trace_id"),
        span=line.get("id"),
        parent=pick(line, "parentObservationId", "parent_observation_id"),
        name=text_of(line.get("name")) or "LLM",
        start_ns=time_ns(pick(line, "startTime", "start_time")),
        end_ns=time_ns(pick(line, "endTime", "end_time")),
        said=said,
        failed=level == "ERROR",
        scope="langfuse-sdk",
        service="langfuse",
        environment=text_of(line.get("environment")),
    )


def _old_usage(usage: Line) -> Line:
    """The API's older `usage` object: what it is counted in, and up to three counts."""
    return {name: usage[name] for name in ("input", "output", "total") if usage.get(name) is not None}


def langfuse_score(line: Line) -> ScoreRecord:
    """A score of an observation; one of a whole trace belongs to no call."""
    observation = pick(line, "observationId", "observation_id")
    if observation is None:
        raise InvalidRecord("a Langfuse score of a whole trace: only scores of an observation have a call")
    source = text_of(line.get("source"))
    return ScoreRecord(
        name=text_of(line.get("name"))[:MAX_NAME] or "score",
        value=number_of(line.get("value")),
        source=f"langfuse:{source.lower()[:MAX_NAME] or 'api'}",
        kind=_SOURCES.get(source, "feedback"),
        time_ns=time_ns(pick(line, "timestamp", "createdAt", "created_at")) or 0,
        trace_id=identity(pick(line, "traceId", "trace_id"), 16),
        span_id=identity(observation, 8),
        label=text_of(pick(line, "stringValue", "string_value"))[:MAX_NAME],
    )
