"""The Vercel AI SDK: `ai.operationId` tells the inner call (`.doGenerate`) from the outer one that sums."""

from __future__ import annotations

from typing import Final

SOURCES: Final = {
    "ai_operation": ("ai.operationId",),
    "ai_name": ("operation.name",),
    "provider": ("ai.model.provider",),
    "request_model": ("ai.model.id",),
    "response_model": ("ai.response.model",),
    "response_id": ("ai.response.id",),
    "finish": ("ai.response.finishReason", "ai.finishReason"),
    "input": ("ai.usage.inputTokens", "ai.usage.promptTokens", "ai.usage.tokens"),
    "output": ("ai.usage.outputTokens", "ai.usage.completionTokens"),
    "cached": ("ai.usage.inputTokenDetails.cacheReadTokens", "ai.usage.cachedInputTokens"),
    "written": ("ai.usage.inputTokenDetails.cacheWriteTokens",),
    "reasoning": ("ai.usage.outputTokenDetails.reasoningTokens", "ai.usage.reasoningTokens"),
    "total": ("ai.usage.totalTokens",),
    "ttft_ms": ("ai.response.msToFirstChunk",),
    "dialect_route": (
        "ai.telemetry.metadata.route",
        "ai.telemetry.functionId",
        "resource.name",
    ),
    "user": ("ai.telemetry.metadata.userId",),
    "session": ("ai.telemetry.metadata.sessionId", "ai.telemetry.metadata.threadId"),
}

CALL_SUFFIXES: Final = {
    "doGenerate": "chat",
    "doStream": "chat",
    "doEmbed": "embeddings",
    "doRerank": "rerank",
    "doTranscribe": "audio",
    "doSpeak": "audio",
}
