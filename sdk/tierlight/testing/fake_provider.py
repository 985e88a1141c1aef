"""A provider that answers what a test tells it: OpenAI, Anthropic, Gemini, Cohere rerank and Ollama on one address.

Give a client one of its transports and nothing leaves the process:

    provider = FakeProvider(FakeReply(text="Paid.", input_tokens=120, output_tokens=2))
    client = openai.OpenAI(api_key="x", http_client=httpx2.Client(transport=provider.transport(httpx2)))

or start it as a server and point any program to it:

    python -m tierlight.testing.fake_provider --port 8080 --text "Paid." --latency 0.2
"""

from __future__ import annotations

from tierlight.testing._provider import Exchange, FakeProvider
from tierlight.testing._server import run
from tierlight.testing._wires.reply import FakeError, FakeReply, FakeRequest, FakeToolCall

__all__ = ["Exchange", "FakeError", "FakeProvider", "FakeReply", "FakeRequest", "FakeToolCall", "main"]


def main(arguments: list[str] | None = None) -> None:
    """Run the fake provider until it is interrupted."""
    run(arguments)


if __name__ == "__main__":
    main()
