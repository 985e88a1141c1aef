"""Who was asked: one canonical name per provider, from the name, the host or the model."""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

from tierlight.hosts import provider_at

from .models import ROUTERS, family

# What dialects say -> canonical. "" = a framework's name, which says nothing about the provider.
_ALIASES: Final = {
    **{
        name: name
        for name in (
            "openai",
            "anthropic",
            "azure.ai.openai",
            "azure.ai.inference",
            "gcp.gemini",
            "gcp.vertex_ai",
            "gcp.gen_ai",
            "aws.bedrock",
            "cohere",
            "mistral_ai",
            "x_ai",
            "moonshot_ai",
            "perplexity",
            "deepseek",
            "groq",
            "ollama",
            "ibm.watsonx.ai",
            "openrouter",
            "huggingface",
            "together_ai",
            "fireworks",
            "cerebras",
            "cloudflare",
            "databricks",
            "replicate",
            "voyage",
            "jina_ai",
            "nvidia",
            "sambanova",
            "vercel",
            "lmstudio",
            "vllm",
            "ai21",
        )
    },
    "az.ai.openai": "azure.ai.openai",
    "azure": "azure.ai.openai",
    "azure_openai": "azure.ai.openai",
    "azure-openai": "azure.ai.openai",
    "azureopenai": "azure.ai.openai",
    "azure openai": "azure.ai.openai",
    "az.ai.inference": "azure.ai.inference",
    "az.ai.agents": "azure.ai.inference",
    "azure.ai.agents": "azure.ai.inference",
    "microsoft.agents": "azure.ai.inference",
    "azure-ai-inference": "azure.ai.inference",
    "azureml": "azure.ai.inference",
    "azure_ai": "azure.ai.inference",
    "azure_ai_inference": "azure.ai.inference",
    "google": "gcp.gemini",
    "gemini": "gcp.gemini",
    "google_genai": "gcp.gemini",
    "google-genai": "gcp.gemini",
    "googleai": "gcp.gemini",
    "google-ai-studio": "gcp.gemini",
    "google_ai": "gcp.gemini",
    "google-gla": "gcp.gemini",
    "google_ai_studio": "gcp.gemini",
    "google generative ai": "gcp.gemini",
    "genai": "gcp.gemini",
    "google.generative-ai": "gcp.gemini",
    "vertex_ai": "gcp.vertex_ai",
    "vertexai": "gcp.vertex_ai",
    "vertex-ai": "gcp.vertex_ai",
    "vertex": "gcp.vertex_ai",
    "google-vertex-ai": "gcp.vertex_ai",
    "google_vertex": "gcp.vertex_ai",
    "google-vertex": "gcp.vertex_ai",
    "google_vertexai": "gcp.vertex_ai",
    "google.vertex": "gcp.vertex_ai",
    "bedrock": "aws.bedrock",
    "bedrock_converse": "aws.bedrock",
    "amazon_bedrock": "aws.bedrock",
    "amazon-bedrock": "aws.bedrock",
    "amazon bedrock": "aws.bedrock",
    "aws bedrock": "aws.bedrock",
    "aws_bedrock": "aws.bedrock",
    "aws": "aws.bedrock",
    "amazon": "aws.bedrock",
    "sagemaker": "aws.bedrock",
    "mistral": "mistral_ai",
    "mistralai": "mistral_ai",
    "mistral-ai": "mistral_ai",
    "mistral ai": "mistral_ai",
    "xai": "x_ai",
    "x-ai": "x_ai",
    "x.ai": "x_ai",
    "grok": "x_ai",
    "moonshot": "moonshot_ai",
    "moonshotai": "moonshot_ai",
    "watsonx": "ibm.watsonx.ai",
    "ibm": "ibm.watsonx.ai",
    "together": "together_ai",
    "togetherai": "together_ai",
    "together-ai": "together_ai",
    "fireworks_ai": "fireworks",
    "fireworks-ai": "fireworks",
    "fireworksai": "fireworks",
    "hugging_face": "huggingface",
    "hugging face": "huggingface",
    "hf": "huggingface",
    "workers-ai": "cloudflare",
    "voyageai": "voyage",
    "voyage_ai": "voyage",
    "gateway": "vercel",
    "vercel_ai_gateway": "vercel",
    **dict.fromkeys(
        (
            "langchain",
            "langgraph",
            "llamaindex",
            "llama_index",
            "crewai",
            "haystack",
            "spring_ai",
            "strands-agents",
            "strands",
            "autogen",
            "agno",
            "dspy",
            "smolagents",
            "semantic_kernel",
            "pydantic_ai",
            "litellm",
            "litellm_proxy",
            "openai_agents",
            "microsoft.agent_framework",
            "agent_framework",
            "openai.agents",
            "gcp.vertex.agent",
            "google_adk",
            "vercel_ai_sdk",
            "ai",
            "mcp",
            "_other",
            "other",
            "custom",
            "custom_openai",
            "unknown",
            "none",
            "null",
            "openai_compatible",
            "openai-compatible",
        ),
        "",
    ),
}

_MODELS: Final = (
    (
        ("gpt-", "o1", "o3", "o4", "text-embedding-3", "text-embedding-ada", "chatgpt-", "davinci", "dall-e"),
        "openai",
    ),
    (("claude-",), "anthropic"),
    (("gemini-", "models/gemini-", "gemma-"), "gcp.gemini"),
    (
        ("command-", "rerank-v", "rerank-english", "rerank-multilingual", "embed-english", "embed-multi"),
        "cohere",
    ),
    (
        ("us.", "eu.", "apac.", "global.", "amazon.", "anthropic.claude", "meta.llama", "mistral."),
        "aws.bedrock",
    ),
    (("mistral-", "codestral", "ministral", "magistral", "open-mistral", "open-mixtral"), "mistral_ai"),
    (("deepseek-chat", "deepseek-reasoner"), "deepseek"),
    (("grok-",), "x_ai"),
    (("sonar",), "perplexity"),
    (("voyage-",), "voyage"),
    (("kimi-", "moonshot-"), "moonshot_ai"),
)


@lru_cache(maxsize=4096)
def canonical(name: str) -> str:
    """The provider's canonical name; an unknown one in lower case, a framework's as "".

    >>> canonical("openai.chat"), canonical("azure.ai.openai"), canonical("LangChain")
    ('openai', 'azure.ai.openai', '')
    """
    low = name.strip().lower()
    known = _ALIASES.get(low)
    if known is not None:
        return known
    # "openai.chat", "google.generative-ai.x": cut at the last dots while what is left is a provider.
    head = low
    while "." in head:
        head = head.rpartition(".")[0]
        known = _ALIASES.get(head)
        if known:
            return known
    return low[:80] if low.isprintable() else ""


@lru_cache(maxsize=4096)
def provider_of_model(model: str) -> str:
    """The provider that a model's name alone points to, "" where it points to none."""
    low = model.lower()
    prefix, slash, _ = low.partition("/")
    if slash and _ALIASES.get(prefix):
        return _ALIASES[prefix]
    for prefixes, provider in _MODELS:
        if low.startswith(prefixes):
            return provider
    return ""


@lru_cache(maxsize=1024)
def provider_of_scope(scope: str) -> str:
    """The provider in the last words of an instrumentation's name: `openlit.instrumentation.anthropic`."""
    for word in reversed(scope.lower().replace("/", ".").replace("-", ".").split(".")):
        known = _ALIASES.get(word) or _ALIASES.get(word.removesuffix("_v2").removeprefix("instrumentation_"))
        if known and word not in ("google", "amazon", "aws", "vertex"):
            return known
    return ""


class Identity(NamedTuple):
    """Who was asked for what, and what answered; "" where it is not told."""

    provider: str
    request_model: str
    response_model: str
    is_suspect: bool  # the client's name beside a model that its provider does not have


@lru_cache(maxsize=8192)
def identify(
    said: str, host: str, hinted: str, scope: str, name: str, request: str, response: str
) -> Identity:
    """Provider and models of a call in one spelling.

    The host is believed before the name where the name is only the client's: every instrumentation of the OpenAI
    client says `openai`. `hinted` is a second name for the provider, or `provider/model`.
    """
    provider = canonical(said)
    model = response or request
    if not provider or provider == "openai":
        at_host = provider_at(host) if host else ""
        if provider:
            provider = at_host or provider
        else:
            provider = (
                (provider_of_model(hinted) if "/" in hinted else canonical(hinted))
                or (provider_of_model(model) if "/" in model else "")
                or at_host
                or provider_of_scope(scope)
                or provider_of_model(model)
                or _provider_in_name(name)
            )
    is_suspect = False
    if provider == "openai" and model:
        is_suspect = provider_of_model(model) not in ("", "openai") or family(model).startswith(_OPEN_WEIGHTS)
    request = bare_model(request, provider) if request else ""
    response = bare_model(response, provider) if response else ""
    return Identity(provider, (request or response)[:200], response[:200], is_suspect)


# Models that OpenAI does not serve under its own name.
_OPEN_WEIGHTS: Final = ("llama", "qwen", "mixtral", "phi-", "glm-", "yi-", "deepseek")


def _provider_in_name(name: str) -> str:
    """The provider that a class name begins with or ends in: `OpenAIChatGenerator.run`, `ChatAnthropic`."""
    low = name.lower().removeprefix("async").removeprefix("chat")
    for word in (
        "azureopenai",
        "openai",
        "anthropic",
        "cohere",
        "mistral",
        "gemini",
        "ollama",
        "groq",
        "bedrock",
    ):
        if low.startswith(word):
            return _ALIASES[word]
    return ""


@lru_cache(maxsize=4096)
def bare_model(model: str, provider: str) -> str:
    """The model without the prefix that only names its provider.

    >>> bare_model("openai/gpt-4o-mini", "openai"), bare_model("openai/gpt-5", "openrouter")
    ('gpt-4o-mini', 'openai/gpt-5')
    """
    model = model.strip()
    if model.startswith("models/"):
        return model[7:]
    prefix, slash, rest = model.partition("/")
    if not slash or not rest:
        return model
    known = _ALIASES.get(prefix.lower())
    if not known:
        return model
    if provider in ROUTERS and known != provider:
        return model
    return rest
