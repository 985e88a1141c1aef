"""Every attribute name that tierlight writes or reads by standard, in one place.

Standard names: OpenTelemetry semantic conventions for generative AI
(https://github.com/open-telemetry/semantic-conventions-genai). The constants of the Python package
`opentelemetry.semconv` are deprecated since 0.66b2, so the names are spelled here.
Names of other dialects live with their readers in `tierlight_collector.normalise`.
"""

from __future__ import annotations

from typing import Final

SCHEMA_VERSION: Final = "1"
SCOPE: Final = "tierlight"

# OpenTelemetry
GEN_AI_OPERATION_NAME: Final = "gen_ai.operation.name"
GEN_AI_PROVIDER_NAME: Final = "gen_ai.provider.name"
GEN_AI_REQUEST_MODEL: Final = "gen_ai.request.model"
GEN_AI_RESPONSE_MODEL: Final = "gen_ai.response.model"
GEN_AI_RESPONSE_ID: Final = "gen_ai.response.id"
GEN_AI_RESPONSE_FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
GEN_AI_USAGE_INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
GEN_AI_USAGE_OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS: Final = "gen_ai.usage.cache_write.input_tokens"
GEN_AI_USAGE_CACHE_CREATION_INPUT_TOKENS: Final = "gen_ai.usage.cache_creation.input_tokens"
GEN_AI_USAGE_REASONING_OUTPUT_TOKENS: Final = "gen_ai.usage.reasoning.output_tokens"
GEN_AI_USAGE_TEXT_INPUT_TOKENS: Final = "gen_ai.usage.text.input_tokens"
GEN_AI_USAGE_TEXT_OUTPUT_TOKENS: Final = "gen_ai.usage.text.output_tokens"
GEN_AI_USAGE_IMAGE_INPUT_TOKENS: Final = "gen_ai.usage.image.input_tokens"
GEN_AI_USAGE_IMAGE_OUTPUT_TOKENS: Final = "gen_ai.usage.image.output_tokens"
GEN_AI_USAGE_AUDIO_INPUT_TOKENS: Final = "gen_ai.usage.audio.input_tokens"
GEN_AI_USAGE_AUDIO_OUTPUT_TOKENS: Final = "gen_ai.usage.audio.output_tokens"
GEN_AI_REQUEST_STREAM: Final = "gen_ai.request.stream"
GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
GEN_AI_REQUEST_MAX_TOKENS: Final = "gen_ai.request.max_tokens"
GEN_AI_REQUEST_TEMPERATURE: Final = "gen_ai.request.temperature"
GEN_AI_REQUEST_TOP_P: Final = "gen_ai.request.top_p"
GEN_AI_REQUEST_SEED: Final = "gen_ai.request.seed"
GEN_AI_CONVERSATION_ID: Final = "gen_ai.conversation.id"
GEN_AI_PROMPT_NAME: Final = "gen_ai.prompt.name"
GEN_AI_PROMPT_VERSION: Final = "gen_ai.prompt.version"
GEN_AI_AGENT_NAME: Final = "gen_ai.agent.name"
GEN_AI_WORKFLOW_NAME: Final = "gen_ai.workflow.name"
GEN_AI_INPUT_MESSAGES: Final = "gen_ai.input.messages"
GEN_AI_OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
GEN_AI_SYSTEM_INSTRUCTIONS: Final = "gen_ai.system_instructions"
GEN_AI_TOOL_DEFINITIONS: Final = "gen_ai.tool.definitions"
GEN_AI_SYSTEM: Final = "gen_ai.system"
GEN_AI_USAGE_COST_AMOUNT: Final = "gen_ai.usage.cost.amount"
GEN_AI_USAGE_COST_CURRENCY: Final = "gen_ai.usage.cost.currency"
GEN_AI_USAGE_COST_SOURCE: Final = "gen_ai.usage.cost.source"
OPENAI_REQUEST_SERVICE_TIER: Final = "openai.request.service_tier"
OPENAI_RESPONSE_SERVICE_TIER: Final = "openai.response.service_tier"
ANTHROPIC_RESPONSE_SERVICE_TIER: Final = "anthropic.response.service_tier"
ANTHROPIC_CACHE_WRITE_1H_INPUT_TOKENS: Final = "anthropic.usage.cache_creation.ephemeral_1h_input_tokens"
USER_ID: Final = "user.id"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
HTTP_RESPONSE_STATUS_CODE: Final = "http.response.status_code"
HTTP_REQUEST_RESEND_COUNT: Final = "http.request.resend_count"
ERROR_TYPE: Final = "error.type"
SERVICE_NAME: Final = "service.name"
SERVICE_INSTANCE_ID: Final = "service.instance.id"
SERVICE_VERSION: Final = "service.version"
DEPLOYMENT_ENVIRONMENT_NAME: Final = "deployment.environment.name"
TELEMETRY_SDK_NAME: Final = "telemetry.sdk.name"

# Scores: one log event each
EVENT_EVALUATION_RESULT: Final = "gen_ai.evaluation.result"
EVENT_OPERATION_EXCEPTION: Final = "gen_ai.client.operation.exception"
GEN_AI_EVALUATION_NAME: Final = "gen_ai.evaluation.name"
GEN_AI_EVALUATION_SCORE_VALUE: Final = "gen_ai.evaluation.score.value"
GEN_AI_EVALUATION_SCORE_LABEL: Final = "gen_ai.evaluation.score.label"
GEN_AI_EVALUATION_EXPLANATION: Final = "gen_ai.evaluation.explanation"

# tierlight's own
TIERLIGHT_SCHEMA: Final = "tierlight.schema"
TIERLIGHT_SPAN_ROLE: Final = "tierlight.span.role"
TIERLIGHT_CALL_ID: Final = "tierlight.call.id"
TIERLIGHT_ROUTE: Final = "tierlight.route"
TIERLIGHT_ROUTE_VERSION: Final = "tierlight.route.version"
TIERLIGHT_TIER: Final = "tierlight.tier"
TIERLIGHT_TIER_REQUESTED: Final = "tierlight.tier.requested"
TIERLIGHT_STRATEGY: Final = "tierlight.strategy"
TIERLIGHT_POLICY_ID: Final = "tierlight.policy.id"
TIERLIGHT_POLICY_VERSION: Final = "tierlight.policy.version"
TIERLIGHT_ROUTER_VERSION: Final = "tierlight.router.version"
TIERLIGHT_DECISION_CANDIDATES: Final = "tierlight.decision.candidates"
TIERLIGHT_DECISION_SCORES: Final = "tierlight.decision.scores"
TIERLIGHT_DECISION_EXCLUDED: Final = "tierlight.decision.excluded"
TIERLIGHT_DECISION_THRESHOLD: Final = "tierlight.decision.threshold"
TIERLIGHT_DECISION_CHOSEN: Final = "tierlight.decision.chosen"
TIERLIGHT_DECISION_REASON: Final = "tierlight.decision.reason"
TIERLIGHT_DECISION_DURATION_US: Final = "tierlight.decision.duration_us"
TIERLIGHT_ACT_PROB: Final = "tierlight.act_prob"
TIERLIGHT_KEEP_PROB: Final = "tierlight.keep_prob"
TIERLIGHT_EXPLORED: Final = "tierlight.explored"
TIERLIGHT_SEGMENT: Final = "tierlight.segment"
TIERLIGHT_ATTEMPT_INDEX: Final = "tierlight.attempt.index"
TIERLIGHT_ATTEMPT_REASON: Final = "tierlight.attempt.reason"
TIERLIGHT_ATTEMPT_FINAL: Final = "tierlight.attempt.final"
TIERLIGHT_ATTEMPT_TRIGGER: Final = "tierlight.attempt.trigger"
TIERLIGHT_ATTEMPT_ROLE: Final = "tierlight.attempt.role"
TIERLIGHT_ATTEMPT_ESCALATED_FROM: Final = "tierlight.attempt.escalated_from"
TIERLIGHT_ATTEMPT_BREAKER: Final = "tierlight.attempt.breaker"
TIERLIGHT_VALIDATOR_NAMES: Final = "tierlight.validator.names"
TIERLIGHT_VALIDATOR_VERDICTS: Final = "tierlight.validator.verdicts"
TIERLIGHT_CALL_ATTEMPTS: Final = "tierlight.call.attempts"
TIERLIGHT_CALL_ESCALATIONS: Final = "tierlight.call.escalations"
TIERLIGHT_CALL_FALLBACKS: Final = "tierlight.call.fallbacks"
TIERLIGHT_CALL_COST_AMOUNT: Final = "tierlight.call.cost.amount"
TIERLIGHT_CALL_COST_CURRENCY: Final = "tierlight.call.cost.currency"
TIERLIGHT_CALL_BASELINE_TARGET: Final = "tierlight.call.baseline.target"
TIERLIGHT_CALL_BASELINE_COST_AMOUNT: Final = "tierlight.call.baseline.cost.amount"
TIERLIGHT_FEATURES_V1: Final = "tierlight.features.v1"
TIERLIGHT_EXPERIMENT_ID: Final = "tierlight.experiment.id"
TIERLIGHT_EXPERIMENT_ARM: Final = "tierlight.experiment.arm"
TIERLIGHT_EXPERIMENT_DELIVERED: Final = "tierlight.experiment.delivered"
TIERLIGHT_PURPOSE: Final = "tierlight.purpose"
TIERLIGHT_OUTCOME: Final = "tierlight.outcome"
TIERLIGHT_TOOL_CALLS: Final = "tierlight.tool_calls"  # how many tool calls the answer asks for
TIERLIGHT_REFUSAL: Final = "tierlight.refusal"  # the model refused in its own words
TIERLIGHT_CACHE_HIT: Final = "tierlight.cache.hit"
TIERLIGHT_USAGE_SOURCE: Final = "tierlight.usage.source"
TIERLIGHT_COST_AMOUNT: Final = "tierlight.cost.amount"
TIERLIGHT_COST_CURRENCY: Final = "tierlight.cost.currency"
TIERLIGHT_COST_SOURCE: Final = "tierlight.cost.source"
TIERLIGHT_COST_PRICE_VERSION: Final = "tierlight.cost.price_version"
TIERLIGHT_SCORE_KIND: Final = "tierlight.score.kind"
TIERLIGHT_SCORE_SOURCE: Final = "tierlight.score.source"
TIERLIGHT_SCORE_JUDGE_MODEL: Final = "tierlight.score.judge.model"
TIERLIGHT_SCORE_JUDGE_VERSION: Final = "tierlight.score.judge.version"
TIERLIGHT_SCORE_WEIGHT: Final = "tierlight.score.weight"
TIERLIGHT_CONTENT_REDACTED: Final = "tierlight.content.redacted"
TIERLIGHT_CONTENT_DROPPED: Final = "tierlight.content.dropped"
TIERLIGHT_SDK_DROPPED: Final = "tierlight.sdk.dropped"
TIERLIGHT_SDK_DROPPED_REASON: Final = "tierlight.sdk.dropped.reason"
TIERLIGHT_INSTRUMENTATION_ERROR: Final = "tierlight.instrumentation_error"
TIERLIGHT_STREAM_COMPLETED: Final = "tierlight.stream.completed"

# Prefixes: what follows is a name of the user's
TIERLIGHT_SCORE_PREFIX: Final = "tierlight.score."
TIERLIGHT_JOIN_PREFIX: Final = "tierlight.join."

# Attributes that hold captured text; stripped unless content capture is on
CONTENT_ATTRIBUTES: Final = frozenset(
    {
        GEN_AI_INPUT_MESSAGES,
        GEN_AI_OUTPUT_MESSAGES,
        GEN_AI_SYSTEM_INSTRUCTIONS,
        GEN_AI_TOOL_DEFINITIONS,
        GEN_AI_EVALUATION_EXPLANATION,
    }
)

TIERS: Final = ("on-device", "small", "mid", "flagship", "reasoning", "specialised")
ROUTE_PATTERN: Final = r"^[a-z0-9][a-z0-9._/-]{0,79}$"
