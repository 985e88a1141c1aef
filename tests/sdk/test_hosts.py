"""Who answers at an address."""

from __future__ import annotations

import pytest

from tierlight.hosts import provider_at


@pytest.mark.parametrize(
    ("address", "provider"),
    [
        ("https://api.openai.com/v1", "openai"),
        ("my-team.openai.azure.com", "azure.ai.openai"),
        ("https://europe-west1-aiplatform.googleapis.com/v1", "gcp.vertex_ai"),
        ("https://user:secret@API.Groq.com:443/openai/v1", "groq"),
        ("bedrock-runtime.eu-central-1.amazonaws.com", "aws.bedrock"),
        ("http://127.0.0.1:11434/v1", "ollama"),
        ("127.0.0.1:1234", "lmstudio"),
    ],
)
def test_an_address_tells_its_provider(address: str, provider: str) -> None:
    assert provider_at(address) == provider


@pytest.mark.parametrize(
    "address", ["", "example.com", "api.openai.com.example.com", "s3.amazonaws.com", "127.0.0.1:8000"]
)
def test_an_address_that_nobody_knows_tells_nothing(address: str) -> None:
    assert provider_at(address) == ""
