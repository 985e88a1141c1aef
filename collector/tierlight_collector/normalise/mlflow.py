"""MLflow: every value JSON in a string; usage in `mlflow.chat.tokenUsage`, the answer in `mlflow.spanOutputs`."""

from __future__ import annotations

from typing import Final

from ..records import Role
from .coerce import mapping_of, text_of
from .openinference import response_id_in
from .values import Values

SOURCES: Final = {
    "ml_type": ("mlflow.spanType",),
    "ml_usage": ("mlflow.chat.tokenUsage",),
    "ml_cost": ("mlflow.llm.cost",),
    "ml_inputs": ("mlflow.spanInputs",),
    "ml_outputs": ("mlflow.spanOutputs",),
    "ml_format": ("mlflow.message.format",),
    "provider": ("mlflow.llm.provider",),
    "request_model": ("model",),
    "any_model": ("mlflow.llm.model",),
    "stream": ("stream",),
    "user": ("mlflow.trace.user",),
    "session": ("mlflow.trace.session",),
}

CALL_TYPES: Final = {"CHAT_MODEL": "", "LLM": "", "EMBEDDING": "embeddings", "RERANKER": "rerank"}
OTHER_TYPES: Final[dict[str, Role]] = {
    "TOOL": "tool",
    "AGENT": "aggregate",
    "CHAIN": "aggregate",
    "WORKFLOW": "aggregate",
}


def refine(values: Values) -> None:
    """Fill what only the JSON values know."""
    usage = mapping_of(values.get("ml_usage"))
    values.fill("ml_input", usage.get("input_tokens"))
    values.fill("ml_output", usage.get("output_tokens"))
    values.fill("ml_total", usage.get("total_tokens"))
    values.fill("ml_cached", usage.get("cache_read_input_tokens"))
    values.fill("ml_written", usage.get("cache_creation_input_tokens"))
    values.fill("wire_cost", mapping_of(values.get("ml_cost")).get("total_cost"))
    if "request_model" not in values or "stream" not in values:
        inputs = mapping_of(values.get("ml_inputs"))
        values.found("request_model", inputs.get("model"))
        values.found("stream", inputs.get("stream"))
    if "ml_outputs" in values:
        outputs = mapping_of(values["ml_outputs"])
        values.found("response_id", response_id_in(values["ml_outputs"]))
        choices = outputs.get("choices")
        first = mapping_of(choices[0]) if isinstance(choices, list) and choices else {}
        values.found("finish", text_of(first.get("finish_reason") or outputs.get("stop_reason")))
    values.fill("provider", values.get("ml_format"))
