"""What a span says that its call cost."""

from __future__ import annotations

from .coerce import number_of, text_of
from .values import Values


def stated_cost(
    values: Values, dialect: str, usage_source: str
) -> tuple[int | None, str, str, int | None, str]:
    """Stated cost (by caller, provider or the SDK's price book), and what the emitter reckons, in nano-USD."""
    amount = number_of(values["cost"]) if "cost" in values else None
    currency = text_of(values.get("cost_currency")).upper() or "USD"
    source = text_of(values.get("cost_source"))
    is_price = amount is not None and 0 <= amount < 1e6 and currency == "USD"
    if is_price and amount is not None and source in ("caller", "provider", "price_book", "cache"):
        nano = round(amount * 1e9)
        return nano, source, text_of(values.get("price_version"))[:100], nano, f"wire:{dialect}"
    wire = number_of(values["wire_cost"]) if "wire_cost" in values else amount if currency == "USD" else None
    if wire is None or not 0 <= wire < 1e6 or (wire == 0 and usage_source == "absent"):
        return None, "", "", None, ""
    return None, "", "", round(wire * 1e9), f"wire:{dialect}"
