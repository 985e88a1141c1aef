"""The price of a finished call, and of several attempts together, on their spans; runs on the export thread only."""

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
            _usage_of(call, usage_type),
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


def add_call_cost(call: FinishedCall, book: PriceBook, usage_type: type[Usage]) -> None:
    """Write `tierlight.call.cost.*` on the span around several attempts: their sum, router and judge included.

    Nothing is written while one of them is unknown or in another currency. The baseline is the same tokens as the
    answer's at another model's price: an estimate, for another model would have used others.
    """
    attempts, total, currencies = call.attempts or [], 0.0, set()
    for attempt in attempts:
        add_cost(attempt, book, usage_type, False)  # it may have been lost on its way here, and yet it cost
        amount = attempt.attributes.get(s.TIERLIGHT_COST_AMOUNT, 0.0 if _is_unbilled(attempt) else None)
        if not isinstance(amount, float | int):
            break
        total += amount
        currency = attempt.attributes.get(s.TIERLIGHT_COST_CURRENCY)
        currencies |= {currency} if currency else set()
    else:
        if len(currencies) == 1:
            call.attributes[s.TIERLIGHT_CALL_COST_AMOUNT] = total
            call.attributes[s.TIERLIGHT_CALL_COST_CURRENCY] = currencies.pop()
    answer = next((one for one in reversed(attempts) if _is_answer(one)), None)
    if call.baseline is not None and answer is not None:
        provider, model = call.baseline
        cost = book.price(_usage_of(answer, usage_type), provider, model, answer.start_ns)
        nusd = getattr(cost, "nusd", None)
        if nusd is not None:
            call.attributes[s.TIERLIGHT_CALL_BASELINE_COST_AMOUNT] = nusd / 1e9


def _usage_of(call: FinishedCall, usage_type: type[Usage]) -> Usage:
    attributes: dict[str, Any] = call.attributes
    get = attributes.get
    return usage_type(
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
    )


def _is_answer(attempt: FinishedCall) -> bool:
    said = attempt.attributes
    return bool(said.get(s.TIERLIGHT_ATTEMPT_FINAL)) and said.get(s.TIERLIGHT_PURPOSE) == "production"


def _is_unbilled(attempt: FinishedCall) -> bool:
    """Whether the provider refused it by a status, or never got it; after a time-out it may bill it all the same."""
    status = attempt.attributes.get(s.HTTP_RESPONSE_STATUS_CODE)
    return attempt.attributes.get(s.TIERLIGHT_OUTCOME) == "not_sent" or (
        isinstance(status, int) and status >= 400
    )
