"""What a call costs: usage, provider, model and moment in; whole nano-dollars or the reason for none out.

    >>> from datetime import datetime, UTC
    >>> book = PriceBook.default()
    >>> book.price(Usage(input_tokens=120, output_tokens=34), "openai", "gpt-4o-mini", datetime(2026, 11, 24, tzinfo=UTC)).usd
    Decimal('0.000038400')

Three sources, asked in this order: the user's price file, the genai-prices package, a trimmed copy of
LiteLLM's map. An unknown price is `Unpriced`, never 0. A resolved price is kept, so that the next call of
the same model costs a look-up and a few multiplications; the first one imports genai-prices (half a
second), which is why nothing here runs on the thread of the user's call.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING

from ._prices.rates import Cost, Layer, Rate, Reason, Unpriced, Usage, usd_per_million

if TYPE_CHECKING:
    from genai_prices.data_snapshot import DataSnapshot

    from ._prices.litellm import PriceMap
    from ._prices.user import UserPrices

__all__ = ["Cost", "PriceBook", "PriceRow", "Reason", "Unpriced", "Usage", "canonical_provider"]

# Other spellings of a provider that callers use.
_ALIASES = {
    "azure": "azure.ai.openai",
    "azure_openai": "azure.ai.openai",
    "az.ai.openai": "azure.ai.openai",
    "az.ai.inference": "azure.ai.inference",
    "google": "gcp.gemini",
    "gemini": "gcp.gemini",
    "google_genai": "gcp.gemini",
    "vertex_ai": "gcp.vertex_ai",
    "vertexai": "gcp.vertex_ai",
    "bedrock": "aws.bedrock",
    "bedrock_converse": "aws.bedrock",
    "mistral": "mistral_ai",
    "mistralai": "mistral_ai",
    "xai": "x_ai",
    "x-ai": "x_ai",
    "moonshot": "moonshot_ai",
    "moonshotai": "moonshot_ai",
    "together": "together_ai",
    "fireworks_ai": "fireworks",
    "voyageai": "voyage",
    "voyage_ai": "voyage",
    "watsonx": "ibm.watsonx.ai",
}
_CONTEXTS = frozenset({"batch", "flex", "priority", "fast"})
_MOST_KEPT = 4096  # model names come from outside; more than so many different ones start afresh


def canonical_provider(name: str) -> str:
    """The OpenTelemetry name of a provider, from whatever spelling it came in."""
    lowered = name.strip().lower()
    return _ALIASES.get(lowered, lowered)


@dataclass(frozen=True, slots=True)
class PriceRow:
    """One price for a page or a list: USD per million tokens, None where there is no such price."""

    provider: str
    model: str
    input_usd: Decimal | None
    cached_usd: Decimal | None
    cache_write_usd: Decimal | None
    output_usd: Decimal | None
    valid_from: date | None  # None = since ever
    source: str  # user | genai-prices | litellm
    version: str
    is_deprecated: bool = False  # the provider still serves it but names a successor


class PriceBook:
    """Prices of models by provider, day and request context.

    Safe to share between threads: entries are only ever added, each by one assignment.
    """

    def __init__(
        self,
        *,
        user: UserPrices | None = None,
        listed: DataSnapshot | None = None,
        listed_version: str = "",
        price_map: PriceMap | None = None,
    ) -> None:
        self._user = user
        self._listed_given = listed
        self._listed_version = listed_version
        self._map_given = price_map
        self._layers: dict[tuple[str, str, str, str], Layer | Rate | Unpriced] = {}
        self._rows: tuple[PriceRow, ...] = ()

    @classmethod
    def default(cls) -> PriceBook:
        """The shared book of list prices that come with the installed packages."""
        return _default()

    @classmethod
    def from_toml(cls, toml: bytes) -> PriceBook:
        """List prices behind the user's own, read from the bytes of a `prices.toml`.

        Raises:
            ConfigurationError: the file can't be used; the message names the row and the key.
        """
        from ._prices import user

        return cls(user=user.parse(toml))

    @classmethod
    def from_sources(cls, *, user: bytes | None = None, listed: bytes | None = None) -> PriceBook:
        """The user's `prices.toml`, and newer list prices than the installed ones; each may be left out.

        Args:
            listed: The JSON that the genai-prices project publishes (`prices show` names its version `gp:<8 hex>`).

        Raises:
            ConfigurationError: one of the two can't be used; the message says which and why.
        """
        from ._prices import genai
        from ._prices import user as user_prices

        own = user_prices.parse(user) if user is not None else None
        if listed is None:
            return cls(user=own)
        return cls(user=own, listed=genai.parse(listed), listed_version=genai.version_of(listed))

    @property
    def version(self) -> str:
        """The versions of all sources in the order they are asked, such as `gp:0.2.3+ll:1.109.1`."""
        words = [self._user.version] if self._user else []
        self._listed()
        return "+".join([*words, self._listed_version, self._map().version])

    @property
    def as_of(self) -> date:
        """The day the vendored map was taken; its age says how stale the book may be."""
        return self._map().as_of

    def price(
        self,
        usage: Usage,
        provider: str,
        model: str,
        at: datetime | int,
        *,
        response_model: str = "",
        context: str = "",
    ) -> Cost | Unpriced:
        """What a call cost at that moment.

        Args:
            usage: What it used; unknown counts are None.
            provider: OpenTelemetry's name (`openai`, `gcp.gemini`, ...) or a common alias.
            model: The model asked for.
            at: When: an aware datetime, or nanoseconds since 1970 UTC.
            response_model: The model that answered. It is priced first: that is what was served.
            context: `batch`, `flex`, `priority` or `fast`; any other service tier is the standard price.
        """
        rate = self._rate(provider, model, at, response_model, context)
        return rate if isinstance(rate, Unpriced) else rate.cost(usage)

    def price_if_loaded(
        self,
        usage: Usage,
        provider: str,
        model: str,
        at: datetime | int,
        *,
        response_model: str = "",
        context: str = "",
    ) -> Cost | None:
        """The same price when it is already resolved, else None: never loads or searches anything."""
        key = (provider, model, response_model, context if context in _CONTEXTS else "")
        if key not in self._layers:
            return None
        result = self.price(usage, provider, model, at, response_model=response_model, context=context)
        return result if isinstance(result, Cost) else None

    def quote(self, provider: str, model: str, at: datetime | int, *, context: str = "") -> PriceRow | None:
        """The unit prices that hold for a model at a moment (for its shortest prompts), None if it has none."""
        rate = self._rate(provider, model, at, "", context)
        if isinstance(rate, Unpriced):
            return None
        return _row(canonical_provider(provider), model, None, rate)

    def retirement(self, provider: str, model: str) -> date | None:
        """The day the provider stops serving exactly this name, None if none is known.

        A dated snapshot may have a date where its alias has none: ask for both.
        """
        from ._prices.genai import PROVIDER_IDS

        provider = canonical_provider(provider)
        if self._user is not None:
            for name in (provider, PROVIDER_IDS.get(provider, provider)):
                day = self._user.retirements.get((name, model.lower()))
                if day is not None:
                    return day
        return self._map().retirement(provider, model)

    def disagreement(self, provider: str, model: str, at: datetime | int) -> Decimal | None:
        """How far the second list is from the first, as a share of it: 0.1 = 10 % dearer (input and output summed).

        None unless both lists have the model.
        """
        from ._prices import genai

        provider, at_ns = canonical_provider(provider), _ns(at)
        first = genai.layer(self._listed(), provider, model, "", self._listed_version)
        second = self._map().layer(provider, model, "")
        sums = []
        for source in (first, second):
            rate = source if source is None or isinstance(source, Rate) else source(at_ns)
            if rate is None or not (rate.brackets[0].input or rate.brackets[0].output):
                return None
            sums.append((rate.brackets[0].input or 0) + (rate.brackets[0].output or 0))
        return Decimal(sums[1]) / Decimal(sums[0]) - 1

    def rows(self) -> tuple[PriceRow, ...]:
        """Every price in the book, the user's first; then genai-prices; then what only the map has."""
        if not self._rows:
            self._rows = tuple(self._all_rows())
        return self._rows

    # ---- resolving ---------------------------------------------------------------------------------------

    def _all_rows(self) -> Iterator[PriceRow]:
        from ._prices import genai

        if self._user is not None:
            for own in self._user.rows:
                if own.rate is not None:
                    yield _row(own.provider, own.model, own.start, own.rate)
        listed: set[tuple[str, str]] = set()
        snapshot = self._listed()
        for provider, start, is_deprecated, rate in genai.entries(snapshot, self._listed_version):
            listed.add((provider, rate.model))
            yield replace(_row(provider, rate.model, start, rate), is_deprecated=is_deprecated)
        for provider, model, rate in self._map().entries():
            if (provider, model) not in listed:
                yield _row(provider, model, None, rate)

    def _rate(
        self, provider: str, model: str, at: datetime | int, response_model: str, context: str
    ) -> Rate | Unpriced:
        if context not in _CONTEXTS:
            context = ""
        key = (provider, model, response_model, context)
        layer = self._layers.get(key)
        if layer is None:
            layer = self._resolve(*key)
            if len(self._layers) >= _MOST_KEPT:
                self._layers.clear()
            self._layers[key] = layer
        if isinstance(layer, (Rate, Unpriced)):
            return layer
        return layer(_ns(at)) or Unpriced("unknown_model")

    def _resolve(
        self, provider: str, model: str, response_model: str, context: str
    ) -> Layer | Rate | Unpriced:
        provider = canonical_provider(provider)
        chain: list[Layer | Rate] = []
        try:
            for name in dict.fromkeys((response_model, model)):
                if not name:
                    continue
                listed = self._list_chain(provider, name, context)
                own = self._user.layer(provider, name, context, _first_of(listed)) if self._user else None
                if own is not None and not listed:
                    chain.insert(0, own)  # the user's name of a deployment says more than the model behind it
                elif own is not None:
                    chain += [own, *listed]
                else:
                    chain += listed
        except (ValueError, TypeError, AttributeError, ArithmeticError):
            return Unpriced("price_error")
        if not chain:
            return Unpriced(self._why_unknown(provider))
        return chain[0] if isinstance(chain[0], Rate) else _first_of(chain)

    def _list_chain(self, provider: str, model: str, context: str) -> list[Layer | Rate]:
        from ._prices import genai

        first = genai.layer(self._listed(), provider, model, context, self._listed_version)
        second = self._map().layer(provider, model, context)
        if isinstance(first, Rate) and first.brackets[0].is_empty:
            first, second = second, first  # it knows the model and that it has no price by the token
        return [source for source in (first, second) if source is not None]

    def _why_unknown(self, provider: str) -> Reason:
        from ._prices.genai import PROVIDER_IDS
        from ._prices.litellm import LOCAL_PROVIDERS

        if provider in LOCAL_PROVIDERS:
            return "no_unit_price"
        if provider in PROVIDER_IDS or self._map().knows(provider):
            return "unknown_model"
        return "unknown_provider"

    def _listed(self) -> DataSnapshot:
        if self._listed_given is None:
            from ._prices import genai

            self._listed_version = genai.version()
            self._listed_given = genai.load()
        return self._listed_given

    def _map(self) -> PriceMap:
        if self._map_given is None:
            from ._prices import litellm

            self._map_given = litellm.load()
        return self._map_given


@cache
def _default() -> PriceBook:
    return PriceBook()


def _ns(at: datetime | int) -> int:
    return at if isinstance(at, int) else int(at.timestamp() * 1_000_000) * 1000


def _first_of(sources: list[Layer | Rate]) -> Layer:
    """The first of several sources that has a rate for a moment."""
    layers = tuple(sources)

    def at(at_ns: int) -> Rate | None:
        for source in layers:
            rate = source if isinstance(source, Rate) else source(at_ns)
            if rate is not None:
                return rate
        return None

    return at


def _row(provider: str, model: str, start: date | None, rate: Rate) -> PriceRow:
    unit = rate.brackets[0]
    if rate.source == "user":
        source = "user"
    else:
        source = "litellm" if rate.version.startswith("ll:") else "genai-prices"
    return PriceRow(
        provider=provider,
        model=model,
        input_usd=usd_per_million(unit.input),
        cached_usd=usd_per_million(unit.cached),
        cache_write_usd=usd_per_million(unit.cache_write),
        output_usd=usd_per_million(unit.output),
        valid_from=start,
        source=source,
        version=rate.version,
    )
