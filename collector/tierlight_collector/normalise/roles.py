"""What a span is: a call, something that sums calls, a tool, plain HTTP, or nothing of ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final, NamedTuple

from ..records import Operation, Role
from . import langfuse, litellm, mlflow, openinference, platforms, traceloop, vercel
from .values import Values

OPERATIONS: Final[dict[str, Operation]] = {
    **dict.fromkeys(
        (
            "chat",
            "generate_content",
            "completion",
            "completions",
            "acompletion",
            "responses",
            "aresponses",
            "response",
            "responses.create",
            "response.create",
            "chat.completion",
            "chat.completions",
            "chat.completions.create",
            "chat.streaming_completions",
            "chat.stream",
            "chat_stream",
            "streaming_chat",
            "chat_completion",
            "chat_completions",
            "message",
            "messages",
            "messages.create",
            "anthropic_messages",
            "converse",
            "converse_stream",
            "stream",
            "generate",
            "generate_text",
            "text_generation",
            "generate_content_stream",
            "stream_generate_content",
            "inference",
            "llm",
            "llm_call",
            "call_llm",
            "tool_selection",
        ),
        "chat",
    ),
    **dict.fromkeys(
        ("text_completion", "text.completions", "text.streaming_completions", "text_completions", "atext_completion"),
        "text_completion",
    ),
    **dict.fromkeys(("embeddings", "embedding", "aembedding", "embed", "embed_content", "embeddings.create"), "embeddings"),
    **dict.fromkeys(("rerank", "arerank", "reranker", "reranking"), "rerank"),
    **dict.fromkeys(("image", "image_generation", "aimage_generation", "generate_image"), "image"),
    **dict.fromkeys(
        ("audio", "transcription", "atranscription", "speech", "aspeech", "text_to_speech"), "audio"
    ),
}  # fmt: skip
_NO_CALLS: Final[dict[str, Role]] = {
    "invoke_agent": "aggregate",
    "create_agent": "other",
    "invoke_workflow": "aggregate",
    "execute_tool": "tool",
    "plan": "aggregate",
    "orchestrate_tools": "aggregate",
    "agent_step": "aggregate",
    "execute_task": "aggregate",
    "model_step": "aggregate",
    "model_chunk": "other",
    "model.step": "aggregate",
    "model.chunk": "other",
    "agent.run": "aggregate",
    "workflow.run": "aggregate",
    "workflow.step": "aggregate",
    "tool.execute": "tool",
    "agent_call": "aggregate",
    "schedule_tool_calls": "aggregate",
    "user_prompt": "aggregate",
    "retrieval": "other",
    "retrieve": "other",
    "framework": "aggregate",
    "agent": "aggregate",
    "chain": "aggregate",
    "workflow": "aggregate",
    "task": "aggregate",
    "tool": "tool",
    "tool_call": "tool",
    "vectordb": "other",
    "publish": "other",
    "handoff": "other",
    "guardrail": "other",
    "count_tokens": "other",
}

_CALL_NAME: Final = re.compile(r"(chat|completion|embeddings|text_completion|generate_content|rerank) (\S+)")
_SCOPE_WORDS: Final = frozenset(
    [
        "openai",
        "anthropic",
        "cohere",
        "mistral",
        "mistralai",
        "gemini",
        "genai",
        "google_genai",
        "vertexai",
        "bedrock",
        "groq",
        "ollama",
        "together",
        "litellm",
        "langchain",
        "llm",
        "llms",
        "gen_ai",
        "openai_v2",
    ]
)


class Reading(NamedTuple):
    """A span's role; `operation` and `model` are set as far as the role's marker tells them.

    `weak`: nothing says "call" but a model with usage; it counts only while no call is known below it.
    """

    role: Role
    operation: str = ""
    model: str = ""
    weak: bool = False


_OTHER: Final = Reading("other")
_HTTP: Final = Reading("http")
_CALL: Final = Reading("call")


def role_of(values: Values, name: str, kind: int, scope: str) -> Reading:
    """The role, by the first marker that the span carries (most specific dialect first)."""
    own = values.get("role")
    if own == "call" or own == "route":
        return Reading("call" if own == "call" else "route", _word(values))
    if values.get("logfire_type") == "pending_span":
        return _OTHER  # announces a span that will follow whole
    marked = values.get("oi_kind")
    if marked is not None:
        return _by(str(marked).upper(), openinference.CALL_KINDS, openinference.OTHER_KINDS, values)
    marked = values.get("lf_type")
    if marked is not None:
        return _by(str(marked), langfuse.CALL_TYPES, langfuse.OTHER_TYPES, values)
    marked = values.get("ai_operation")
    if marked is not None:
        operation = vercel.CALL_SUFFIXES.get(str(marked).rpartition(".")[2])
        if operation:
            return Reading("call", operation)
        return Reading("tool" if marked == "ai.toolCall" else "aggregate")
    marked = values.get("ml_type")
    if marked is not None:
        return _by(str(marked), mlflow.CALL_TYPES, mlflow.OTHER_TYPES, values)
    marked = values.get("span_type")
    if type(marked) is str and (marked in platforms.CALL_TYPES or marked in platforms.OTHER_TYPES):
        return _by(marked, platforms.CALL_TYPES, platforms.OTHER_TYPES, values)
    if "braintrust_attributes" in values:
        marked = platforms.braintrust_type(values)
        if marked:
            return Reading("call", _word(values)) if marked == "llm" else _OTHER
    marked = values.get("genkit_type")
    if marked is not None:
        kind_of_action = str(marked)
        return Reading(
            platforms.GENKIT_ROLES.get(kind_of_action, "other"),
            platforms.GENKIT_OPERATIONS.get(kind_of_action, ""),
        )
    word = _word(values)
    if word:
        operation = OPERATIONS.get(word)
        if operation:
            return Reading("call", operation)
        role = _NO_CALLS.get(word)
        if role:
            return Reading(role)
    request_type = values.get("request_type")
    if type(request_type) is str and request_type.lower() in OPERATIONS and name != litellm.RAW_REQUEST:
        return Reading("call", OPERATIONS[request_type.lower()])
    marked = values.get("tl_kind")
    if marked is not None:
        return Reading(traceloop.OTHER_KINDS.get(str(marked), "other"))
    if "attempt" in values or ("LLM" in (values.get("logfire_tags") or ()) and "request_model" in values):
        return _CALL
    if ("request_model" in values or "response_model" in values) and "bare_input" not in values:
        if "input" in values or "output" in values:
            return Reading("call", weak=True)
        if kind == 3 and "error_type" in values and "provider" in values:
            return Reading("call", weak=True)
    named = _CALL_NAME.fullmatch(name)
    if named and named[2] == values.get("request_model"):
        return Reading("call", named[1], named[2])
    if "http_method" in values:
        return _HTTP
    if named and is_llm_scope(scope):
        return Reading("call", named[1], named[2])
    return _OTHER


def _word(values: Values) -> str:
    word = values.get("operation")
    return word.lower() if type(word) is str else ""


def _by(marked: str, calls: Mapping[str, str], others: Mapping[str, Role], values: Values) -> Reading:
    """The role by one dialect's own words; its operation, where the word leaves it open, by the standard one."""
    operation = calls.get(marked)
    if operation is not None:
        return Reading("call", operation or _word(values))
    return Reading(others.get(marked, "other"))


def operation_of(word: str, values: Values, name: str) -> Operation:
    """The operation in the six words that are stored; `chat` where nothing tells."""
    known = OPERATIONS.get(word)
    if known:
        return known
    said = OPERATIONS.get(str(values.get("request_type") or "").lower())
    if said:
        return said
    low = name.lower()
    if "embed" in low:
        return "embeddings"
    if "rerank" in low:
        return "rerank"
    return "chat"


@lru_cache(maxsize=1024)
def is_llm_scope(scope: str) -> bool:
    """Whether an instrumentation's name has a word of the trade in it."""
    return not _SCOPE_WORDS.isdisjoint(scope.lower().replace("-", ".").replace("/", ".").split("."))
