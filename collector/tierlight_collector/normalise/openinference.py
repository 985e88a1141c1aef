"""OpenInference: `openinference.span.kind`, `llm.token_count.*`, and JSON in `llm.invocation_parameters`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ..records import Role
from .coerce import loads, mapping_of, text_of
from .values import Values

SOURCES: Final = {
    "oi_kind": ("openinference.span.kind",),
    "provider": ("llm.provider", "llm.system"),
    "request_model": ("llm.request.model_name",),
    "response_model": ("llm.response.model_name",),
    "any_model": ("llm.model_name", "embedding.model_name", "reranker.model_name"),
    "oi_input": ("llm.token_count.prompt",),
    "oi_output": ("llm.token_count.completion",),
    "oi_cached": (
        "llm.token_count.prompt_details.cache_read",
        "llm.token_count.prompt_details.cache_input",
    ),
    "oi_written": ("llm.token_count.prompt_details.cache_write",),
    "oi_reasoning": ("llm.token_count.completion_details.reasoning",),
    "oi_total": ("llm.token_count.total",),
    "oi_parameters": ("llm.invocation_parameters", "embedding.invocation_parameters"),
    "metadata": ("metadata",),
    "oi_output_value": ("output.value",),
    "prompt_name": ("prompt.id",),
    "prompt_version": ("llm.prompt_template.version",),
    "wire_cost": ("llm.cost.total",),
    "agent": ("agent.name",),
}

CALL_KINDS: Final = {"LLM": "", "EMBEDDING": "embeddings", "RERANKER": "rerank"}
OTHER_KINDS: Final[dict[str, Role]] = {"TOOL": "tool", "AGENT": "aggregate", "CHAIN": "aggregate"}


def refine(values: Values) -> None:
    """Fill what only JSON inside the attributes knows."""
    parameters = mapping_of(values.get("oi_parameters"))
    values.fill("request_model", parameters.get("model") or parameters.get("model_name"))
    values.fill("stream", parameters.get("stream"))
    if "oi_output_value" in values and "response_id" not in values:
        values.found("response_id", response_id_in(values["oi_output_value"]))


def response_id_in(output: object) -> str:
    """The provider's response id inside a captured answer, "" where there is none.

    It stands at the top (OpenAI, Anthropic), as `responseId` (Gemini), or in the message that LangChain and
    Haystack wrap around it. Ids that a framework invents (`lc_run--...`, `run-...`) are no provider's.
    """
    body = loads(output)
    if body is None and isinstance(output, str) and output.startswith('{"id":'):
        return _usable(output[6:200].split('"')[1:2])
    if isinstance(body, list):
        body = body[0] if body else None
    if not isinstance(body, dict):
        return ""
    for candidate in (body, *_wrapped(body)):
        if isinstance(candidate, dict):
            own = _usable([candidate.get("id"), candidate.get("response_id"), candidate.get("responseId")])
            if own:
                return own
    return ""


def _wrapped(body: dict[str, object]) -> list[object]:
    """The places inside a framework's answer where the provider's own may lie."""
    found: list[object] = []
    generations = body.get("generations")
    while isinstance(generations, list) and generations:
        generations = generations[0]
    if isinstance(generations, dict):
        message = generations.get("message")
        message = mapping_of(message)
        kwargs = mapping_of(message.get("kwargs"))
        found += [
            mapping_of(kwargs.get("response_metadata")),
            kwargs,
            message.get("response_metadata"),
            message,
        ]
        found.append(mapping_of(generations.get("generation_info")))
    found += [
        body.get("llm_output"),
        body.get("response_metadata"),
        body.get("message"),
        body.get("response"),
    ]
    replies = body.get("replies")
    if isinstance(replies, list) and replies:
        found += [mapping_of(replies[0]).get("meta"), mapping_of(replies[0]).get("_meta")]
    return found


def _usable(candidates: Sequence[object]) -> str:
    for candidate in candidates:
        text = text_of(candidate)
        if text and not text.startswith(("lc_run-", "run-", "lc_")) and len(text) <= 200:
            return text
    return ""
