"""Unit prices from the genai-prices package (MIT), resolved once per model and set of active conditions.

Its own `calc_price` takes 90 to 560 us; here a model's conditions (start dates, hours of the day) are
checked as integers and the resolved prices kept, so that a price is a few multiplications.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

from ..errors import ConfigurationError
from .rates import Layer, Rate, UnitPrices, per_million

if TYPE_CHECKING:
    from genai_prices.data_snapshot import DataSnapshot
    from genai_prices.types import ModelInfo, ModelPrice

# What our providers are called there. A name that is not here is never passed on: genai-prices would take
# `azure.ai.openai` for `openai`.
PROVIDER_IDS: Mapping[str, str] = {
    "openai": "openai",
    "anthropic": "anthropic",
    "azure.ai.openai": "azure",
    "azure.ai.inference": "azure",
    "gcp.gemini": "google",
    "gcp.gen_ai": "google",
    "gcp.vertex_ai": "google",
    "aws.bedrock": "aws",
    "mistral_ai": "mistral",
    "x_ai": "x-ai",
    "deepseek": "deepseek",
    "groq": "groq",
    "cohere": "cohere",
    "perplexity": "perplexity",
    "moonshot_ai": "moonshotai",
    "openrouter": "openrouter",
    "cerebras": "cerebras",
    "fireworks": "fireworks",
    "databricks": "databricks",
    "cloudflare": "cloudflare",
    "together_ai": "together",
    "voyage": "voyageai",
    "baseten": "baseten",
    "novita": "novita",
    "minimax": "minimax",
    "ovhcloud": "ovhcloud",
    "zai": "zai",
    "huggingface_cerebras": "huggingface_cerebras",
    "huggingface_fireworks": "huggingface_fireworks-ai",
    "huggingface_groq": "huggingface_groq",
    "huggingface_hyperbolic": "huggingface_hyperbolic",
    "huggingface_nebius": "huggingface_nebius",
    "huggingface_novita": "huggingface_novita",
    "huggingface_nscale": "huggingface_nscale",
    "huggingface_ovhcloud": "huggingface_ovhcloud",
    "huggingface_publicai": "huggingface_publicai",
    "huggingface_sambanova": "huggingface_sambanova",
    "huggingface_together": "huggingface_together",
}

# The only request contexts its data knows. An unknown key is silently ignored there and gives the full price.
CONTEXTS: Mapping[str, Mapping[str, str]] = {
    "": {},
    "batch": {"processing": "batch"},
    "flex": {"service_tier": "flex"},
    "priority": {"service_tier": "priority"},
    "fast": {"service_tier": "fast", "speed": "fast"},
}

_UNITS: Mapping[str, str] = {  # our unit -> its price key, per million
    "input": "input_mtok",
    "cached": "cache_read_mtok",
    "cache_write": "cache_write_mtok",
    "cache_write_1h": "cache_write_1h_mtok",
    "output": "output_mtok",
    "reasoning": "output_reasoning_mtok",
    "audio_input": "input_audio_mtok",
    "audio_output": "output_audio_mtok",
    "image_input": "input_image_mtok",
    "image_output": "output_image_mtok",
}
_UNITS_BY_THOUSAND: Mapping[str, str] = {
    "query": "rerank_searches_kcount",
    "web_search": "web_searches_kcount",
    "request": "requests_kcount",
}

_BEDROCK_REGION = re.compile(r"(us|eu|apac|jp|au|ca|sa|us-gov|global|regional)\.", re.IGNORECASE)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_NS = 86_400_000_000_000


def load() -> DataSnapshot:
    """The prices compiled into the installed package; importing them takes about half a second."""
    from genai_prices.data_snapshot import get_snapshot

    return get_snapshot()


def version() -> str:
    """The version word of these prices, such as `gp:0.2.3`."""
    from genai_prices import __version__

    return f"gp:{__version__}"


def parse(payload: bytes) -> DataSnapshot:
    """Prices from the JSON that the genai-prices project publishes.

    Raises:
        ConfigurationError: not that JSON, or of a form that the installed package can't read.
    """
    from genai_prices import types
    from genai_prices.data_snapshot import DataSnapshot

    try:
        raw = json.loads(payload)
        if not isinstance(raw, list):
            raise ValueError(f"expected an array of providers, got {type(raw).__name__}")
        providers = types._providers_from_raw(raw)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigurationError(
            f"the list prices can't be read by genai-prices {version()}: {first_line}; fetch them again or upgrade it"
        ) from error
    return DataSnapshot(providers, from_auto_update=False)


def version_of(payload: bytes) -> str:
    """The version word of downloaded prices: the first 8 hex digits of their SHA-256."""
    return f"gp:{hashlib.sha256(payload).hexdigest()[:8]}"


def layer(
    snapshot: DataSnapshot, provider: str, model: str, context: str, version: str
) -> Layer | Rate | None:
    """Prices of one model at one provider: a rate when it holds for ever, else a function of time, else None."""
    provider_id = PROVIDER_IDS.get(provider)
    if provider_id is None:
        return None
    if provider_id == "aws" and not _BEDROCK_REGION.match(model):
        # Without a region it is sold at the global price; there the bare id matches the dearer regional one.
        model = "global." + model
    try:
        owner, info = snapshot.find_provider_model(model, None, provider_id, None)
    except LookupError:
        return None
    # Models lent by another provider have that provider's list price, without its special contexts.
    is_own = any(info is own for own in owner.models)
    return _model_layer(info, CONTEXTS[context] if is_own else {}, version)


def _model_layer(info: ModelInfo, context: Mapping[str, str], version: str) -> Layer | Rate | None:
    prices = info.prices if isinstance(info.prices, list) else []
    conditions = [entry.constraint for entry in prices]
    if context:
        conditions += [variant.constraint for variant in info.price_variants or ()]
    checks = tuple(_check(condition) for condition in conditions if condition is not None)
    if not checks:
        return _rate(info.id, info.get_prices(_EPOCH, context), version)

    rates: dict[tuple[bool, ...], Rate] = {}

    def at(at_ns: int) -> Rate:
        active = tuple(check(at_ns) for check in checks)
        if active not in rates:
            moment = _EPOCH + timedelta(microseconds=at_ns // 1000)
            rates[active] = _rate(info.id, info.get_prices(moment, context), version)
        return rates[active]

    return at


def _check(condition: object) -> Callable[[int], bool]:
    """A condition as a comparison of integers. One of a kind unknown here is asked itself."""
    from genai_prices.types import StartDateConstraint, TimeOfDateConstraint

    if isinstance(condition, StartDateConstraint):
        start_ns = _date_ns(condition.start_date)
        return lambda at_ns: at_ns >= start_ns
    if isinstance(condition, TimeOfDateConstraint):
        first, last = _time_ns(condition.start_time), _time_ns(condition.end_time)
        if last < first:
            return lambda at_ns: not last <= at_ns % _DAY_NS < first
        return lambda at_ns: first <= at_ns % _DAY_NS < last
    is_active: Callable[[datetime], bool] = condition.active  # type: ignore[attr-defined]
    return lambda at_ns: is_active(_EPOCH + timedelta(microseconds=at_ns // 1000))


def _date_ns(day: date) -> int:
    return (datetime(day.year, day.month, day.day, tzinfo=UTC) - _EPOCH).days * _DAY_NS


def _time_ns(moment: time) -> int:
    if moment.tzinfo is not None:
        moment = datetime.combine(date(1970, 1, 2), moment).astimezone(UTC).time()
    return (
        moment.hour * 3600 + moment.minute * 60 + moment.second
    ) * 1_000_000_000 + moment.microsecond * 1000


def _rate(model: str, prices: ModelPrice, version: str) -> Rate:
    from genai_prices.types import TieredPrices

    values = {name: value for name, value in vars(prices).items() if value is not None}
    starts = sorted({tier.start for v in values.values() if isinstance(v, TieredPrices) for tier in v.tiers})

    def price(key: str, start: int | None) -> int | None:
        value = values.get(key)
        if value is None:
            return None
        if isinstance(value, Decimal):
            return per_million(value)
        held = value.base
        for tier in value.tiers:
            if start is not None and tier.start <= start:
                held = tier.price
        return per_million(held)

    def unit_prices(start: int | None) -> UnitPrices:
        found = {unit: price(key, start) for unit, key in _UNITS.items()}
        for unit, key in _UNITS_BY_THOUSAND.items():
            thousand = price(key, start)
            found[unit] = None if thousand is None else thousand * 1000
        return UnitPrices(**found)

    brackets = tuple(unit_prices(start) for start in (None, *starts))
    return Rate(brackets, "price_book", version, model, tuple(starts))


def entries(snapshot: DataSnapshot, version: str) -> Iterator[tuple[str, date | None, bool, Rate]]:
    """Every standard price: provider (our name), the day it starts (None = always), deprecated or not, the rate."""
    names: dict[str, str] = {}
    for ours, theirs in PROVIDER_IDS.items():
        names.setdefault(theirs, ours)
    for provider in snapshot.providers:
        if provider.id not in names:
            continue
        for info in provider.models:
            for start, rate in _dated_rates(info, version):
                yield names[provider.id], start, bool(info.deprecated), rate


def _dated_rates(info: ModelInfo, version: str) -> Iterator[tuple[date | None, Rate]]:
    if isinstance(info.prices, list):
        dated = [(getattr(entry.constraint, "start_date", None), entry.prices) for entry in info.prices]
    else:
        dated = [(None, info.prices)]
    for start, prices in dated:
        rate = _rate(info.id, prices, version)
        if not rate.brackets[0].is_empty:
            yield start, rate
