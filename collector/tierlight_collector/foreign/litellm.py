"""LiteLLM's logs as the spans that its OTel callback would have sent."""

from __future__ import annotations

from typing import Final

from tierlight import semconv as s

from ..records import AttributeValue, SpanRecord
from .parts import Line, mapping_of, pick, span_of, status_of, text_of, time_ns

_OPERATIONS: Final = {
    "embedding": "embeddings",
    "text_completion": "text_completion",
    "rerank": "rerank",
    "image_generation": "image_generation",
    "transcription": "transcription",
    "speech": "speech",
}


def litellm_call(line: Line) -> SpanRecord:
    """A `StandardLoggingPayload`, or a row of the proxy's spend logs.

    References:
        https://docs.litellm.ai/docs/proxy/logging_spec
    """
    metadata = mapping_of(line.get("metadata"))
    error = mapping_of(line.get("error_information")) or mapping_of(metadata.get("error_information"))
    usage = mapping_of(metadata.get("usage_object"))
    prompt = mapping_of(usage.get("prompt_tokens_details"))
    completion = mapping_of(usage.get("completion_tokens_details"))
    response = mapping_of(line.get("response"))
    call_type = text_of(line.get("call_type")).removeprefix("a")
    failed = line.get("status") == "failure" or bool(error.get("error_class"))
    start_ns = time_ns(line.get("startTime"))
    first_ns, end_ns = time_ns(line.get("completionStartTime")), time_ns(line.get("endTime"))
    is_streaming = line.get("stream")
    is_cached = (
        str(line.get("cache_hit")).lower() == "true"
    )  # nobody was asked: the proxy's own cache answered
    identity = text_of(pick(line, "litellm_call_id", "id", "request_id"))
    if is_cached:  # under the id of the answer that was kept
        identity = f"{identity}@{start_ns}" if identity else ""
    said: dict[str, AttributeValue] = {
        "litellm.call_id": identity,
        s.GEN_AI_OPERATION_NAME: _OPERATIONS.get(call_type, "chat"),
        s.GEN_AI_PROVIDER_NAME: text_of(line.get("custom_llm_provider")),
        s.GEN_AI_REQUEST_MODEL: text_of(line.get("model")),
        s.GEN_AI_RESPONSE_MODEL: text_of(response.get("model")),
        s.GEN_AI_RESPONSE_ID: ""
        if is_cached
        else text_of(pick(response, "id") or pick(line, "id", "request_id")),
        s.GEN_AI_USAGE_INPUT_TOKENS: line.get("prompt_tokens"),
        s.GEN_AI_USAGE_OUTPUT_TOKENS: line.get("completion_tokens"),
        s.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS: pick(prompt, "cached_tokens")
        or usage.get("cache_read_input_tokens"),
        s.GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS: usage.get("cache_creation_input_tokens"),
        s.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS: completion.get("reasoning_tokens"),
        "gen_ai.cost.total_cost": pick(line, "response_cost", "spend"),
        "litellm.model_group": text_of(line.get("model_group")),
        "litellm.metadata.route": text_of(
            metadata.get("route") or mapping_of(metadata.get("requester_metadata")).get("route")
        ),
        s.USER_ID: text_of(line.get("end_user") or metadata.get("user_api_key_end_user_id")),
        s.GEN_AI_CONVERSATION_ID: text_of(line.get("session_id") or metadata.get("session_id")),
        s.SERVER_ADDRESS: text_of(line.get("api_base")),
        s.ERROR_TYPE: text_of(error.get("error_class")) or ("error" if failed else ""),
        s.HTTP_RESPONSE_STATUS_CODE: status_of(error.get("error_code")),
    }
    if isinstance(is_streaming, bool):
        said[s.GEN_AI_REQUEST_STREAM] = is_streaming
    if is_streaming and start_ns is not None and first_ns is not None:
        said[s.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK] = (first_ns - start_ns) / 1e9
    if is_cached:
        said |= {s.TIERLIGHT_SCHEMA: s.SCHEMA_VERSION, s.TIERLIGHT_CACHE_HIT: True}
    return span_of(
        trace=pick(line, "trace_id") or identity,
        span=identity,
        parent=None,
        name="litellm_request",
        start_ns=start_ns,
        end_ns=end_ns,
        said=said,
        failed=failed,
        scope="litellm",
        service="litellm",
    )
