"""Second source: a trimmed copy of LiteLLM's price map (MIT), for models that genai-prices has not.

The map has no history: a price from it is marked estimated for calls before the day it was taken.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cache
from importlib.resources import files

from .rates import Layer, Rate, UnitPrices, per_one

# What our providers are called in the map, by the field `litellm_provider`; others have the same name.
# A name there may go on after a dash: `vertex_ai-anthropic_models`.
_NAMES: Mapping[str, tuple[str, ...]] = {
    "openai": ("openai", "text-completion-openai"),
    "azure.ai.openai": ("azure", "azure_text"),
    "azure.ai.inference": ("azure_ai", "azure"),
    "gcp.gemini": ("gemini",),
    "gcp.vertex_ai": ("vertex_ai",),
    "gcp.gen_ai": ("gemini", "vertex_ai"),
    "aws.bedrock": ("bedrock", "bedrock_converse"),
    "cohere": ("cohere", "cohere_chat"),
    "mistral_ai": ("mistral", "codestral"),
    "x_ai": ("xai",),
    "moonshot_ai": ("moonshot",),
    "fireworks": ("fireworks_ai",),
    "ibm.watsonx.ai": ("watsonx",),
}
# Run by the user on a machine paid by the hour: the map's zeros are not their price.
LOCAL_PROVIDERS = frozenset(
    {
        "ollama",
        "lm_studio",
        "lmstudio",
        "vllm",
        "hosted_vllm",
        "llama_cpp",
        "llamacpp",
        "tgi",
        "sglang",
        "lemonade",
    }
)
_CONTEXT_SUFFIX = {"": "", "batch": "_batches", "flex": "_flex", "priority": "_priority"}
_ABOVE = re.compile(r"_above_(\d+)k_tokens")
_SNAPSHOT = re.compile(r"[-@](20\d{2}-?\d{2}-?\d{2}|\d{2}-20\d{2}|\d{3,4}|latest|preview-\d{2}-\d{2,4})$")

Entry = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class PriceMap:
    """The map as vendored: its version word (`ll:1.109.1`), the day it was taken, its entries."""

    version: str
    as_of: date
    models: Mapping[str, Entry]

    def find(self, provider: str, model: str) -> tuple[str, Entry] | None:
        """The entry of exactly that model at that provider, with its key."""
        names = _NAMES.get(provider, (provider,))
        for key in (model, *(f"{name}/{model}" for name in names)):
            entry = self.models.get(key)
            if entry is not None and any(_is_of(str(entry["litellm_provider"]), name) for name in names):
                return key, entry
        return None

    def knows(self, provider: str) -> bool:
        """True when the map has any model of that provider."""
        names = _NAMES.get(provider, (provider,))
        words = {str(entry["litellm_provider"]) for entry in self.models.values()}
        return any(_is_of(word, name) for word in words for name in names)

    def layer(self, provider: str, model: str, context: str) -> Layer | Rate | None:
        """Its price of that model, or else of the model it is a dated snapshot of."""
        if provider in LOCAL_PROVIDERS:
            return None
        model = model.lower()
        found = self.find(provider, model) or self.find(provider, undated(model))
        if found is None:
            return None
        rate = self._rate(*found, context)
        if rate is None:
            return None
        day = self.as_of
        start_ns = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1_000_000_000
        earlier = Rate(rate.brackets, rate.source, rate.version, rate.model, rate.starts, estimated=True)
        return lambda at_ns: rate if at_ns >= start_ns else earlier

    def retirement(self, provider: str, model: str) -> date | None:
        """The day the provider stops serving exactly this name, None if the map has none."""
        found = self.find(provider, model.lower())
        day = found[1].get("deprecation_date") if found else None
        return date.fromisoformat(str(day)) if day else None

    def entries(self) -> Iterator[tuple[str, str, Rate]]:
        """Every standard price of the map: provider (our name where we have one), model, the rate."""
        ours: dict[str, str] = {}
        for name, theirs in _NAMES.items():
            for word in theirs:
                ours.setdefault(word, name)
        for key, entry in self.models.items():
            rate = self._rate(key, entry, "")
            if rate is not None:
                name = str(entry["litellm_provider"])
                if name.startswith("vertex_ai-"):
                    name = "vertex_ai"
                yield ours.get(name, name), key.removeprefix(f"{name}/"), rate

    def _rate(self, key: str, entry: Entry, context: str) -> Rate | None:
        suffix = _CONTEXT_SUFFIX.get(context, "")
        steps = {1000 * int(match[1]) for name in entry if (match := _ABOVE.search(name))}

        def price(field: str, step: int) -> int | None:
            above = f"_above_{step // 1000}k_tokens" if step else ""
            for name in (field + above + suffix, field + above, field + suffix, field):
                value = entry.get(name)
                if isinstance(value, int | Decimal):
                    return per_one(Decimal(value))
            return None

        def unit_prices(step: int) -> UnitPrices:
            return UnitPrices(
                input=price("input_cost_per_token", step),
                cached=price("cache_read_input_token_cost", step),
                cache_write=price("cache_creation_input_token_cost", step),
                cache_write_1h=price("cache_creation_input_token_cost_above_1hr", step),
                output=price("output_cost_per_token", step),
                reasoning=price("output_cost_per_reasoning_token", 0),
                audio_input=price("input_cost_per_audio_token", 0),
                audio_output=price("output_cost_per_audio_token", 0),
                image_input=price("input_cost_per_image_token", 0),
                image_output=price("output_cost_per_image_token", 0),
                query=price("input_cost_per_query", 0),
                request=price("input_cost_per_request", 0),
            )

        starts = tuple(sorted(steps))
        brackets = tuple(unit_prices(step) for step in (0, *starts))
        base = brackets[0]
        # Zero for tokens says "not sold by the token", not "free": rerank by the query, images by the piece.
        if not base.input and not base.output:
            if not base.query and not base.request:
                return None
            brackets, starts = (UnitPrices(query=base.query, request=base.request),), ()
        elif entry.get("mode") == "embedding":
            brackets = tuple(UnitPrices(input=unit.input, image_input=unit.image_input) for unit in brackets)
        return Rate(brackets, "price_book", self.version, key, starts)


def undated(model: str) -> str:
    """The family of a dated snapshot: the name without its date, `-latest` or preview stamp.

    >>> undated("gpt-4o-mini-2024-07-18"), undated("claude-haiku-4-5-20251001"), undated("gpt-5")
    ('gpt-4o-mini', 'claude-haiku-4-5', 'gpt-5')
    """
    return _SNAPSHOT.sub("", model)


def _is_of(word: str, name: str) -> bool:
    return word == name or word.startswith(name + "-")


@cache
def load() -> PriceMap:
    """The vendored map; takes about 50 ms once."""
    packed = files("tierlight._prices").joinpath("litellm.json.gz").read_bytes()
    document = json.loads(gzip.decompress(packed), parse_float=Decimal)
    models = {key.lower(): entry for key, entry in document["models"].items()}
    return PriceMap(
        version=f"ll:{document['version']}", as_of=date.fromisoformat(document["as_of"]), models=models
    )
