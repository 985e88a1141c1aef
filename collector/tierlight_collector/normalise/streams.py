"""Whether a call streamed, and when its first chunk came."""

from __future__ import annotations

from typing import Final

from ..records import SpanRecord
from .coerce import flag_of, number_of
from .values import Values

_FIRST_CHUNK_EVENTS: Final = frozenset(
    {
        "First Token Stream Event",
        "gen_ai.content.completion.chunk",
        "llm.content.completion.chunk",
        "ai.stream.firstChunk",
        "mlflow.chunk.item.0",
    }
)


def first_chunk(values: Values, span: SpanRecord, duration: int | None) -> tuple[int | None, bool | None]:
    """Time to the first chunk in ns, and whether the call streamed (None = not told)."""
    streaming = values.get("stream")
    if streaming is not None and type(streaming) is not bool:
        streaming = flag_of(streaming)
    ttft: int | None = None
    if "ttft_s" in values:
        seconds = number_of(values["ttft_s"])
        ttft = int(seconds * 1e9) if seconds is not None and abs(seconds) < 1e6 else None
    elif "ttft_ms" in values or "bare_ttft_ms" in values:
        ms = number_of(values.get("ttft_ms", values.get("bare_ttft_ms")))
        ttft = int(ms * 1e6) if ms is not None and abs(ms) < 1e9 else None
    for event in span.events:
        if event.name in _FIRST_CHUNK_EVENTS:
            streaming = True if streaming is None else streaming
            if ttft is None:
                ttft = event.time_ns - span.start_ns
            break
    if streaming is None:
        operation = values.get("ai_operation")
        if type(operation) is str and operation.endswith(".doStream"):
            streaming = True
    if ttft is not None and (ttft < 0 or (duration is not None and ttft > duration) or streaming is False):
        ttft = None
    return ttft, streaming
