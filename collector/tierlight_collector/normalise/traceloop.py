"""OpenLLMetry (Traceloop): association properties, workflows and entities around the OTel names of `otel`."""

from __future__ import annotations

from typing import Final

from ..records import Role

SOURCES: Final = {
    "tl_kind": ("traceloop.span.kind",),
    "dialect_route": (
        "traceloop.association.properties.route",
        "traceloop.association.properties.task_type",
        "traceloop.association.properties.workflow",
        "traceloop.workflow.name",
        "traceloop.entity.name",
        "gen_ai.task.name",
    ),
    "session": (
        "traceloop.association.properties.session_id",
        "traceloop.association.properties.thread_id",
        "traceloop.association.properties.conversation_id",
    ),
    "user": ("traceloop.association.properties.user_id",),
    "prompt_name": ("traceloop.prompt.key",),
    "prompt_version": ("traceloop.prompt.version",),
}

OTHER_KINDS: Final[dict[str, Role]] = {
    "tool": "tool",
    "workflow": "aggregate",
    "task": "aggregate",
    "agent": "aggregate",
}
