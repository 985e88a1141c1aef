"""Which attributes hold what people wrote or a model answered, in whatever dialect.

Such attributes are kept out of the stored span unless capture is on, and are stripped before forwarding.
Numbers are never content, whatever their key: ask `is_content_key` about text, lists and maps.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from tierlight.semconv import CONTENT_ATTRIBUTES

_KEYS: Final = CONTENT_ATTRIBUTES | {
    "gen_ai.prompt",
    "gen_ai.completion",
    "gen_ai.tool.args",
    "gen_ai.tool.description",
    "ai.embedding",
    "ai.embeddings",
    "ai.schema",
    "ai.value",
    "ai.values",
    "ai.prompt.tools",
    "ai.response.files",
    "ai.response.object",
    "ai.response.reasoning",
    "ai.response.toolCalls",
    "ai.result.toolCalls",
    "ai.result.object",
    "mlflow.spanInputs",
    "mlflow.spanOutputs",
    "mlflow.chat.tools",
    "mlflow.chunk.value",
    "pydantic_ai.all_messages",
    "all_messages_events",
    "final_result",
    "events",
    "inputs",
    "tools",
    "embeddings",
    "tool_arguments",
    "tool_response",
    "request_data",
    "response_data",
    "user_prompt",
    "exception.stacktrace",
    "error.stack_trace",
    "langfuse.observation.status_message",
    "langfuse.observation.metadata.tools",
    "langfuse.observation.metadata.reasoning",
    "gcp.vertex.agent.llm_request",
    "gcp.vertex.agent.llm_response",
    "gcp.vertex.agent.tool_call_args",
    "gcp.vertex.agent.tool_response",
    "gcp.vertex.agent.data",
    "genkit:input",
    "genkit:output",
    "braintrust.input_json",
    "braintrust.output_json",
    "gen_ai.prompt_json",
    "gen_ai.completion_json",
    "spring.ai.chat.client.user.text",
    "spring.ai.chat.client.system.text",
    "reranker.query",
    "llm.prompt_template.template",
    "llm.prompt_template.variables",
    "graph.node.prompt",
}
_PREFIXES: Final = (
    "llm.input_messages.",
    "llm.output_messages.",
    "llm.prompts",
    "llm.completions",
    "llm.tools.",
    "llm.request.functions.",
    "message.",
    "embedding.embeddings.",
    "embedding.text",
    "embedding.vector",
    "retrieval.documents.",
    "reranker.input_documents.",
    "reranker.output_documents.",
    "document.",
    "input.value",
    "output.value",
)
# The last word of keys that carry text in every dialect seen, known or not.
_LAST_WORDS: Final = frozenset(
    {
        "answer",
        "arguments",
        "args",
        "body",
        "candidates",
        "choices",
        "completion",
        "content",
        "contents",
        "documents",
        "explanation",
        "generation",
        "input",
        "instructions",
        "message",
        "messages",
        "output",
        "parameters_json",
        "prompt",
        "query",
        "question",
        "reasoning_content",
        "response",
        "result",
        "stacktrace",
        "stack_trace",
        "system",
        "system_instruction",
        "system_instructions",
        "text",
        "thinking",
        "tool_calls",
        "transcript",
    }
)
# Ends in such a word, and names something.
_NO_CONTENT: Final = frozenset({"gen_ai.system", "llm.system", "db.system", "messaging.system", "rpc.system"})


@lru_cache(maxsize=16384)
def is_content_key(key: str) -> bool:
    """Whether text under this key may be content.

    >>> is_content_key("gen_ai.prompt.0.content"), is_content_key("gen_ai.prompt.name")
    (True, False)
    """
    if key in _KEYS or key.startswith(_PREFIXES):
        return True
    return key.rpartition(".")[2] in _LAST_WORDS and key not in _NO_CONTENT


def without_content(attributes: Mapping[str, object]) -> dict[str, object]:
    """The attributes that are not content; numbers and booleans stay whatever their key."""
    return {
        key: value
        for key, value in attributes.items()
        if isinstance(value, (bool, int, float)) or not is_content_key(key)
    }
