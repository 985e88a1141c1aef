"""Which tier a model belongs to, and which models one tier down or up could be tried instead.

    >>> tier_of("openai", "gpt-5-mini"), tier_of("anthropic", "claude-opus-4-5-20251101"), tier_of("ollama", "gemma3:4b")
    ('mid', 'flagship', 'on-device')

The default map goes by the well-known names of 2023 to 2026 and by the size in the name of open models. It
is a starting point: what a team counts as small is its own decision, said in `overrides`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from datetime import UTC, date, datetime
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from .semconv import TIERS

if TYPE_CHECKING:
    from .pricing import PriceBook, PriceRow

__all__ = ["TIERS", "Capability", "adjacent", "candidates", "capability_of", "tier_of"]

Capability = Literal["chat", "embeddings", "rerank", "image", "audio", "moderation", "documents"]
Direction = Literal["down", "up"]

LADDER = ("on-device", "small", "mid", "flagship", "reasoning")
"""The tiers that follow one another; `specialised` stands beside them."""

LOCAL_PROVIDERS = frozenset(
    {"ollama", "lm_studio", "lmstudio", "vllm", "hosted_vllm", "llama_cpp", "llamacpp", "llamafile", "mlx"}
    | {"tgi", "sglang", "lemonade", "local", "localai", "jan", "onnxruntime", "transformers", "webllm"}
)

_CAPABILITIES: tuple[tuple[Capability, re.Pattern[str]], ...] = (
    ("rerank", re.compile(r"rerank|ranker|reranking")),
    ("embeddings", re.compile(r"embed|^voyage-|(^|/)(bge|gte|e5|minilm|nomic)-|text-similarity|marengo")),
    ("moderation", re.compile(r"moderation|guard|safeguard|shieldgemma")),
    ("documents", re.compile(r"(^|[-_])ocr($|[-_])|textract")),
    (
        "image",
        re.compile(
            r"dall-e|gpt-image|imagen|stable-diffusion|sdxl|flux|(^|-)image($|-)|nano-banana|veo-|sora"
        ),
    ),
    (
        "audio",
        re.compile(
            r"whisper|(^|-)tts($|-)|audio|realtime|transcribe|speech|voxtral|(^|-)(live|voice)($|-)|sonic|orpheus"
        ),
    ),
)

# The first pattern that is found decides. `specialised` here: chat models made for code, pictures or search.
_TIERS: tuple[tuple[str, str], ...] = (
    # made for one thing
    (
        r"codestral|devstral|codex|code(r|llama|gemma|qwen)?($|[-:/@_\d])|starcoder|kimi-.*-code",
        "specialised",
    ),
    (r"vision|(^|[-_])vl($|[-_:\d])|qwen\d?\.?\d?-?vl|pixtral|llava|moondream|glm-\d(\.\d)?v", "specialised"),
    (r"search-(api|preview)|computer-use|robotics|-cyber|rosalind|saba", "specialised"),
    # think before they answer
    (
        r"(^|/)o[134](-|:|$)|deep-research|thinking|reasoner|(?<!non-)reasoning|(^|[-/.])r1($|[-_:])",
        "reasoning",
    ),
    (
        r"magistral|qwq|r1-1776|gpt-[56](\.\d)?-pro|claude-(fable|mythos)|gpt-6-astra|gemini.*deep-think",
        "reasoning",
    ),
    # OpenAI
    (r"gpt-[456](\.\d)?-nano|gpt-\d(\.\d)?-luna", "small"),
    (r"gpt-(4o|4\.1|[56](\.\d)?)-mini|gpt-3\.5|gpt-\d(\.\d)?-terra", "mid"),
    (r"gpt-4|chatgpt-4o|gpt-chat|gpt-[56](\.\d)?-sol|gpt-[56](\.\d)?($|[-@:])", "flagship"),
    (r"(^|/)(ada|babbage|curie)(-\d+)?$", "small"),
    (r"(text-)?davinci", "flagship"),
    # Anthropic
    (r"claude-haiku-[5-9]", "small"),
    (r"haiku|claude-instant", "mid"),
    (r"claude", "flagship"),
    # Google
    (r"gemini.*flash-lite|gemini.*flash-?.*-8b|gemini-nano|gemma-?3n", "small"),
    (r"gemini.*flash", "mid"),
    (r"gemini-(1\.0-)?pro$|gemini.*(pro|ultra)|gemini-[4-9]", "flagship"),
    # Mistral
    (r"ministral|mistral-(tiny|small|7b|nemo)|open-mistral-7b", "small"),
    (r"mistral-medium|mixtral-8x7b", "mid"),
    (r"mistral-large|mixtral-8x22b", "flagship"),
    # DeepSeek, Cohere, xAI, Amazon, Moonshot, Zhipu, MiniMax, Perplexity
    (r"deepseek.*(v4-pro|v[5-9]-pro)", "flagship"),
    (r"deepseek-(chat|flash|v\d)", "mid"),
    (r"command-(light|r7b)", "small"),
    (r"command-(r-plus|a)($|-)", "flagship"),
    (r"command-r($|-)|(^|/)command($|-)|aya", "mid"),
    (r"grok.*(mini|fast)", "mid"),
    (r"grok", "flagship"),
    (r"nova-(micro|lite|2-lite)|titan-text-lite", "small"),
    (r"nova-pro|titan-text", "mid"),
    (r"nova-premier", "flagship"),
    (r"kimi-k[3-9]|glm-[4-9](\.\d)?-x($|-)|glm-5([.-]\d)?$", "flagship"),
    (r"glm.*(flash|air($|-))|minimax-?m\d.*flash", "small"),
    (r"kimi|moonshot-v1|glm-[4-9]|minimax", "mid"),
    (r"sonar-pro", "flagship"),
    (r"sonar", "mid"),
    # open models by their size or generation
    (r"llama-?4-scout", "mid"),
    (r"llama-?4-maverick", "mid"),
    (r"phi-?\d|smollm|tinyllama", "small"),
    (r"qwen.*(max)", "flagship"),
    (r"qwen.*(plus)", "mid"),
    (r"qwen.*(turbo|flash)", "small"),
)
_PATTERNS = tuple((re.compile(pattern), tier) for pattern, tier in _TIERS)
_OPEN = re.compile(
    r"llama|qwen|gemma|gpt-oss|nemotron|granite|falcon|yi-|olmo|hermes|mistral|mixtral|glm|deepseek"
)
# Generations that a newer one of the same provider replaced: still priced, never proposed.
_REPLACED = re.compile(
    r"(^|[./])((text-)?(ada|babbage|curie|davinci)|ft:|gpt-3\.5|gpt-4($|-(32k|turbo|0|1|vision))|gpt-4\.5|chatgpt-4o"
    r"|o1-(mini|preview)|claude-(v?[12]|3|instant)|gemini-(1|pro($|-1)|flash-1)|palm|command($|-(light|nightly)))"
    r"|\.ft-|:extended|mixtral|mistral-(tiny|7b)"
)
_SIZE = re.compile(r"(?<![a-z\d.])(\d+(?:\.\d+)?)(b|m)(?![a-z\d])")
_VENDOR = re.compile(r"^((us|eu|apac|jp|au|ca|global|us-gov)\.)?(?P<vendor>[a-z0-9]+)\.(?=[a-z])")


def tier_of(provider: str, model: str, overrides: Mapping[str, str] | None = None) -> str | None:
    """The tier of a model, or None when its name says nothing.

    Args:
        provider: OpenTelemetry's name of the provider; models on local servers are `on-device`.
        model: The name asked for or served; region, vendor prefix and date do not matter.
        overrides: Own decisions, pattern to tier: `{"openai/gpt-5-mini": "small", "my-gateway/*": "mid"}`.
            A pattern matches `provider/model` or the model alone; the first that matches decides.
    """
    lowered = model.lower()
    for pattern, tier in (overrides or {}).items():
        wanted = pattern.lower()
        if fnmatchcase(f"{provider}/{lowered}", wanted) or fnmatchcase(lowered, wanted):
            return tier
    return _default_tier(provider.lower(), lowered)


def capability_of(model: str) -> Capability:
    """What a model is for, by its name; `chat` unless the name says otherwise.

    >>> capability_of("text-embedding-3-small"), capability_of("rerank-v3.5"), capability_of("gpt-5")
    ('embeddings', 'rerank', 'chat')
    """
    lowered = model.lower()
    return next((kind for kind, pattern in _CAPABILITIES if pattern.search(lowered)), "chat")


def adjacent(tier: str, direction: Direction) -> str | None:
    """The tier one step down or up, None at an end of the ladder and for `specialised`.

    >>> adjacent("mid", "down"), adjacent("on-device", "down"), adjacent("specialised", "up")
    ('small', None, None)
    """
    if tier not in LADDER:
        return None
    step = LADDER.index(tier) + (1 if direction == "up" else -1)
    return LADDER[step] if 0 <= step < len(LADDER) else None


def candidates(
    provider: str,
    model: str,
    direction: Direction,
    book: PriceBook,
    at: datetime,
    *,
    providers: Collection[str] = (),
    overrides: Mapping[str, str] | None = None,
) -> list[PriceRow]:
    """Models worth trying one tier down or up, cheapest first.

    They have the same capability and a price on that day, are not deprecated, and stay in service for at
    least 30 days. Down the ladder only cheaper ones count. Empty when the model's tier is unknown or has no
    neighbour.

    Args:
        providers: Where to look; by default only at the model's own provider, as another one is a question
            of data protection that a price can't answer.
        overrides: As in `tier_of`.
    """
    from ._prices.genai import PROVIDER_IDS
    from .pricing import canonical_provider

    tier = tier_of(provider, model, overrides)
    wanted = adjacent(tier, direction) if tier else None
    if wanted is None:
        return []
    here = canonical_provider(provider)
    named = [canonical_provider(name) for name in providers] or [here]
    where = {PROVIDER_IDS.get(name, name): name for name in named}  # several names share one list
    capability = capability_of(model)
    now = book.quote(provider, model, at)
    ceiling = _blend(now) if now is not None and direction == "down" else None
    day = at.astimezone(UTC).date()

    found: dict[tuple[str, str], PriceRow] = {}
    for row in book.rows():
        seller = where.get(PROVIDER_IDS.get(row.provider, row.provider))
        if seller is None or row.source == "litellm" or row.is_deprecated or (seller, row.model) in found:
            continue
        if "*" in row.model or row.input_usd is None or row.output_usd is None:
            continue
        if (seller, row.model) == (here, model.lower()) or capability_of(row.model) != capability:
            continue
        if tier_of(seller, row.model, overrides) != wanted or not _is_offered(book, seller, row.model, day):
            continue
        quote = book.quote(seller, row.model, at)
        if quote is None or quote.output_usd is None:
            continue
        if ceiling is None or _blend(quote) < ceiling:
            found[seller, row.model] = quote
    return sorted(found.values(), key=lambda row: (_blend(row), row.provider, row.model))


def _blend(row: PriceRow) -> float:
    """One figure to rank by: three tokens read for one written, which is common; never used as a price."""
    return float(3 * (row.input_usd or 0) + (row.output_usd or 0))


def _is_offered(book: PriceBook, provider: str, model: str, day: date) -> bool:
    lowered = model.lower()
    if _REPLACED.search(lowered):
        return False
    if (provider == "openai" and "gpt-oss" in lowered) or (provider == "gcp.gemini" and "claude" in lowered):
        return False  # in the price list, but sold by others: open weights, Vertex AI
    end = book.retirement(provider, model)
    return end is None or (end - day).days >= 30


@lru_cache(maxsize=4096)
def _default_tier(provider: str, model: str) -> str | None:
    if capability_of(model) != "chat":
        return "specialised"
    if provider in LOCAL_PROVIDERS:
        return "on-device"
    name = _VENDOR.sub("", model.rsplit("/", 1)[-1])
    for pattern, tier in _PATTERNS:
        if pattern.search(name):
            return tier
    return _by_size(name)


def _by_size(name: str) -> str | None:
    """Open models by total parameters: below 24 billion small, below 200 mid, else flagship."""
    sizes = [float(number) * (1 if unit == "b" else 0.001) for number, unit in _SIZE.findall(name)]
    if not sizes:
        return None
    return "small" if max(sizes) < 24 else "mid" if max(sizes) < 200 else "flagship"
