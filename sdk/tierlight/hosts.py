"""Which provider answers at an address: shared by wrapped clients and the collector."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

# Ends of host names, and the canonical provider there.
_HOSTS: Final = (
    ("api.openai.com", "openai"),
    ("openai.azure.com", "azure.ai.openai"),
    ("cognitiveservices.azure.com", "azure.ai.openai"),
    ("services.ai.azure.com", "azure.ai.inference"),
    ("models.ai.azure.com", "azure.ai.inference"),
    ("inference.ai.azure.com", "azure.ai.inference"),
    ("models.inference.ai.azure.com", "azure.ai.inference"),
    ("api.anthropic.com", "anthropic"),
    ("generativelanguage.googleapis.com", "gcp.gemini"),
    ("aiplatform.googleapis.com", "gcp.vertex_ai"),
    ("api.groq.com", "groq"),
    ("api.deepseek.com", "deepseek"),
    ("openrouter.ai", "openrouter"),
    ("api.x.ai", "x_ai"),
    ("api.mistral.ai", "mistral_ai"),
    ("api.cohere.com", "cohere"),
    ("api.cohere.ai", "cohere"),
    ("api.perplexity.ai", "perplexity"),
    ("api.moonshot.ai", "moonshot_ai"),
    ("api.moonshot.cn", "moonshot_ai"),
    ("api.together.xyz", "together_ai"),
    ("api.together.ai", "together_ai"),
    ("api.fireworks.ai", "fireworks"),
    ("api.cerebras.ai", "cerebras"),
    ("huggingface.co", "huggingface"),
    ("huggingface.cloud", "huggingface"),
    ("ai-gateway.vercel.sh", "vercel"),
    ("gateway.ai.cloudflare.com", "cloudflare"),
    ("api.cloudflare.com", "cloudflare"),
    ("integrate.api.nvidia.com", "nvidia"),
    ("api.voyageai.com", "voyage"),
    ("ml.cloud.ibm.com", "ibm.watsonx.ai"),
)
# What runs on one's own machine.
_PORTS: Final = {"11434": "ollama", "1234": "lmstudio"}


@lru_cache(maxsize=4096)
def provider_at(address: str) -> str:
    """The provider that answers at a host name or URL, "" for one that nobody knows."""
    host = address.lower()
    if "://" in host:
        host = host.split("://", 1)[1]
    host = host.split("/", 1)[0].rpartition("@")[2]
    name, _, port = host.partition(":")
    for suffix, provider in _HOSTS:
        if (
            name == suffix
            or name.endswith("." + suffix)
            or (suffix.startswith("aiplatform") and suffix in name)
        ):
            return provider
    if name.startswith("bedrock") and name.endswith("amazonaws.com"):
        return "aws.bedrock"
    return _PORTS.get(port, "")
