"""The price of a finished call, written on its span; runs on the export thread only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tierlight import semconv as s
from tierlight._record import FinishedCall

if TYPE_CHECKING:
    from tierlight.pricing import PriceBook, Usage


def add_cost(call: FinishedCall, book: PriceBook, usage_type: type[Usage], draft_names: bool) -> None:
    """Write `tierlight.cost.*` on a call that has none yet; nothing where the price or the usage is unknown.

    Args:
        draft_names: whether a cost is written once more as `gen_ai.usage.cost.*`
            (https://github.com/open-telemetry/semantic-conventions-genai/pull/443).
    """
    attributes: dict[str, Any] = call.attributes
    get = attributes.get
    if s.TIERLIGHT_COST_AMOUNT not in attributes:
        model = get(s.GEN_AI_REQUEST_MODEL)
        if model is None or get(s.TIERLIGHT_SPAN_ROLE) != "call" or get(s.TIERLIGHT_OUTCOME) == "not_sent":
            return
        cost = book.price(
            usage_type(
                get(s.GEN_AI_USAGE_INPUT_TOKENS),
                get(s.GEN_AI_USAGE_OUTPUT_TOKENS),
                get(s.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS),
                get(s.GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS),
                None,
                get(s.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS),
                get(s.GEN_AI_USAGE_AUDIO_INPUT_TOKENS),
                get(s.GEN_AI_USAGE_AUDIO_OUTPUT_TOKENS),
                get(s.GEN_AI_USAGE_IMAGE_INPUT_TOKENS),
                get(s.GEN_AI_USAGE_IMAGE_OUTPUT_TOKENS),
                duration_ns=call.end_ns - call.start_ns,
            ),
            get(s.GEN_AI_PROVIDER_NAME, ""),
            model,
            call.start_ns,
            response_model=get(s.GEN_AI_RESPONSE_MODEL, ""),
            context=get(s.OPENAI_RESPONSE_SERVICE_TIER)
            or get(s.ANTHROPIC_RESPONSE_SERVICE_TIER)
            or get(s.OPENAI_REQUEST_SERVICE_TIER)
            or "",
        )
        nusd = getattr(cost, "nusd", None)
        if nusd is None:
            return
        attributes[s.TIERLIGHT_COST_AMOUNT] = nusd / 1e9
        attributes[s.TIERLIGHT_COST_CURRENCY] = cost.currency  # type: ignore[union-attr]
        attributes[s.TIERLIGHT_COST_SOURCE] = "price_book"
        attributes[s.TIERLIGHT_COST_PRICE_VERSION] = cost.price_version  # type: ignore[union-attr]
    if draft_names:
        attributes[s.GEN_AI_USAGE_COST_AMOUNT] = attributes[s.TIERLIGHT_COST_AMOUNT]
        for draft, own in (
            (s.GEN_AI_USAGE_COST_CURRENCY, s.TIERLIGHT_COST_CURRENCY),
            (s.GEN_AI_USAGE_COST_SOURCE, s.TIERLIGHT_COST_SOURCE),
        ):
            if own in attributes:
                attributes[draft] = attributes[own]
