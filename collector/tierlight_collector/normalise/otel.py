"""OpenTelemetry's conventions for generative AI, the registry's names first, then what they replaced.

The older names are still sent by OpenLLMetry (Traceloop), OpenLIT, Semantic Kernel, Spring AI and Strands.
"""

from __future__ import annotations

from typing import Final

from tierlight import semconv

SOURCES: Final = {
    "operation": (semconv.GEN_AI_OPERATION_NAME,),
    "provider": (semconv.GEN_AI_PROVIDER_NAME, semconv.GEN_AI_SYSTEM, "gen_ai.model.provider"),
    "request_model": (semconv.GEN_AI_REQUEST_MODEL, "gen_ai.model_name"),
    "response_model": (semconv.GEN_AI_RESPONSE_MODEL,),
    "response_id": (semconv.GEN_AI_RESPONSE_ID,),
    "finish": (
        semconv.GEN_AI_RESPONSE_FINISH_REASONS,
        "gen_ai.response.finish_reason",
        "gen_ai.response.stop_reason",
        "anthropic.message.stop_reason",
        "llm.response.finish_reason",
        "llm.response.stop_reason",
        "gen_ai.completion.0.finish_reason",
        "llm.finish_reason",
    ),
    "input": (
        semconv.GEN_AI_USAGE_INPUT_TOKENS,
        "gen_ai.usage.prompt_tokens",
        "llm.usage.prompt_tokens",
        "gen_ai.response.prompt_tokens",
        "gen_ai.response.input_tokens",
    ),
    "output": (
        semconv.GEN_AI_USAGE_OUTPUT_TOKENS,
        "gen_ai.usage.completion_tokens",
        "llm.usage.completion_tokens",
        "gen_ai.response.completion_tokens",
        "gen_ai.response.output_tokens",
    ),
    "cached": (
        semconv.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS,
        "gen_ai.usage.cache_read_input_tokens",
        "gen_ai.usage.cache_read_tokens",
        "gen_ai.usage.cached_tokens",
        "gen_ai.usage.input_tokens.cached",
        "gen_ai.usage.prompt_tokens_details.cached_tokens",
        "gen_ai.usage.cached_input_tokens",
        "gen_ai.usage.details.cache_read_tokens",
        "gen_ai.usage.details.cache_read_input_tokens",
        "gen_ai.usage.details.cached_tokens",
        "llm.usage.cache_read_input_tokens",
    ),
    "written": (
        semconv.GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS,
        semconv.GEN_AI_USAGE_CACHE_CREATION_INPUT_TOKENS,
        "gen_ai.usage.cache_creation_input_tokens",
        "gen_ai.usage.cache_write_input_tokens",
        "gen_ai.usage.cache_creation_tokens",
        "gen_ai.usage.cache_write_tokens",
        "gen_ai.usage.details.cache_write_tokens",
        "gen_ai.usage.details.cache_creation_input_tokens",
        "llm.usage.cache_creation_input_tokens",
    ),
    "written_1h": ("anthropic.usage.cache_creation.ephemeral_1h_input_tokens",),
    "reasoning": (
        semconv.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS,
        "gen_ai.usage.reasoning_tokens",
        "gen_ai.usage.output_tokens.reasoning",
        "gen_ai.usage.completion_tokens_details.reasoning_tokens",
        "llm.usage.reasoning_tokens",
        "gen_ai.usage.details.reasoning_tokens",
        "gen_ai.usage.details.thoughts_tokens",
    ),
    "total": ("gen_ai.usage.total_tokens", "llm.usage.total_tokens"),
    "stream": (semconv.GEN_AI_REQUEST_STREAM, "gen_ai.is_streaming", "llm.is_streaming"),
    "ttft_s": (
        semconv.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK,
        "gen_ai.client.operation.time_to_first_chunk",
        "gen_ai.response.time_to_first_token",
        "gen_ai.server.time_to_first_token",
        "gen_ai.server.ttft",
        "gen_ai.latency.time_to_first_token",
    ),
    "session": (semconv.GEN_AI_CONVERSATION_ID, "session.id"),
    "user": (semconv.USER_ID, "gen_ai.user", "gen_ai.request.user", "llm.user", "enduser.id"),
    "prompt_name": (semconv.GEN_AI_PROMPT_NAME,),
    "prompt_version": (semconv.GEN_AI_PROMPT_VERSION,),
    "agent": (semconv.GEN_AI_AGENT_NAME, semconv.GEN_AI_WORKFLOW_NAME),
    "service_tier": (
        semconv.OPENAI_RESPONSE_SERVICE_TIER,
        "gen_ai.openai.response.service_tier",
        semconv.ANTHROPIC_RESPONSE_SERVICE_TIER,
    ),
    "host": (semconv.SERVER_ADDRESS, "gen_ai.openai.api_base", "url.full", "http.url", "net.peer.name"),
    "port": (semconv.SERVER_PORT,),
    "http_method": ("http.request.method", "http.method"),
    "http_route": ("http.route",),
    "http_status": (semconv.HTTP_RESPONSE_STATUS_CODE, "http.status_code", "error.code"),
    "error_type": (semconv.ERROR_TYPE,),
    "request_type": ("llm.request.type",),
    "wire_cost": (
        "gen_ai.usage.cost",
        "gen_ai.usage.total_cost",
        "gen_ai.client.estimated_cost",
        "operation.cost",
        "llm.cost.total",
    ),
    "usage_raw": ("gen_ai.usage.raw", "usage"),
    "usage_details_in": ("gen_ai.usage.input_token_details",),
    "usage_details_out": ("gen_ai.usage.output_token_details",),
    "env": (semconv.DEPLOYMENT_ENVIRONMENT_NAME, "deployment.environment"),
}
