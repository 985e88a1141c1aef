"""Clients of providers over httpx, and the user's own callables, behind one interface.

A chat is asked for in OpenAI's words (messages of role and content, tools, max_tokens, temperature); Anthropic,
Gemini and Ollama get it in theirs. What comes back is the provider's own JSON, unchanged.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from ..errors import ConfigurationError, ProviderError, ProviderTimeout, ProviderUnreachable
from ._wire import WIRES, Wire
from .declared import Target
from .request import Limits, ModelRequest

if TYPE_CHECKING:
    import httpx

CONNECT_S: Final = 2.0

_KEYS: Final[Mapping[str, str]] = {
    "openai": "OPENAI_API_KEY",
    "anthropic": "ANTHROPIC_API_KEY",
    "gcp.gemini": "GEMINI_API_KEY",
    "groq": "GROQ_API_KEY",
    "deepseek": "DEEPSEEK_API_KEY",
    "mistral_ai": "MISTRAL_API_KEY",
    "x_ai": "XAI_API_KEY",
    "openrouter": "OPENROUTER_API_KEY",
    "together_ai": "TOGETHER_API_KEY",
    "cohere": "COHERE_API_KEY",
}
_ADDRESSES: Final[Mapping[str, str]] = {
    "openai": "https://api.openai.com/v1",
    "anthropic": "https://api.anthropic.com/v1",
    "gcp.gemini": "https://generativelanguage.googleapis.com/v1beta",
    "groq": "https://api.groq.com/openai/v1",
    "deepseek": "https://api.deepseek.com/v1",
    "mistral_ai": "https://api.mistral.ai/v1",
    "x_ai": "https://api.x.ai/v1",
    "openrouter": "https://openrouter.ai/api/v1",
    "together_ai": "https://api.together.xyz/v1",
    "cohere": "https://api.cohere.com/v2",
    "ollama": "http://127.0.0.1:11434",
}


class Provider(Protocol):
    """Sends requests to one provider. Each method raises what went wrong; `_failure` reads its class."""

    def send(self, target: Target, request: ModelRequest, limits: Limits) -> Any:
        """The whole answer."""

    def stream(self, target: Target, request: ModelRequest, limits: Limits) -> Iterator[Any]:
        """The answer in chunks."""

    async def asend(self, target: Target, request: ModelRequest, limits: Limits) -> Any:
        """The whole answer."""

    def astream(self, target: Target, request: ModelRequest, limits: Limits) -> AsyncIterator[Any]:
        """The answer in chunks."""


class HttpProvider:
    """A provider that is reached by HTTP.

    Args:
        api_key: None takes the usual environment variable of the provider (or the target's `api_key_env`).
        base_url: None takes the target's, else the provider's usual one.
        client, async_client: your own httpx clients, for proxies and certificates.
    """

    def __init__(
        self,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        client: httpx.Client | None = None,
        async_client: httpx.AsyncClient | None = None,
    ) -> None:
        self._key = api_key
        self._base_url = base_url
        self._client = client
        self._async_client = async_client
        # Clients of our own, by process: two workers on one inherited connection get each other's answers.
        self._made: dict[int, httpx.Client] = {}
        self._async_made: dict[int, httpx.AsyncClient] = {}

    def send(self, target: Target, request: ModelRequest, limits: Limits) -> Any:
        """The whole answer as the provider's JSON."""
        import httpx

        _, url, headers, body = self._prepare(target, request, False)
        give_up = time.monotonic() + limits.total_s
        received = bytearray()
        try:
            with self._sync().stream(
                "POST", url, headers=headers, json=body, timeout=_timeout(limits.total_s)
            ) as response:
                for piece in response.iter_bytes():
                    received += piece
                    if time.monotonic() > give_up:
                        raise ProviderTimeout(_late(target, limits.total_s))
        except httpx.HTTPError as error:
            raise _unreachable(target, error, limits.total_s) from error
        return _answer(target, response.status_code, response.headers, bytes(received))

    async def asend(self, target: Target, request: ModelRequest, limits: Limits) -> Any:
        """The whole answer as the provider's JSON."""
        import asyncio

        import httpx

        _, url, headers, body = self._prepare(target, request, False)
        try:
            async with asyncio.timeout(limits.total_s):
                response = await self._async().post(
                    url, headers=headers, json=body, timeout=_timeout(limits.total_s)
                )
        except TimeoutError as error:
            raise ProviderTimeout(_late(target, limits.total_s)) from error
        except httpx.HTTPError as error:
            raise _unreachable(target, error, limits.total_s) from error
        return _answer(target, response.status_code, response.headers, response.content)

    def stream(self, target: Target, request: ModelRequest, limits: Limits) -> Iterator[Any]:
        """The answer's chunks as the provider's JSON."""
        import httpx

        wire, url, headers, body = self._prepare(target, request, True)
        try:
            with self._sync().stream(
                "POST", url, headers=headers, json=body, timeout=_timeout(limits.first_token_s)
            ) as response:
                if response.status_code >= 400:
                    raise _refused(target, response.status_code, response.headers, response.read())
                yield from wire.chunks(response.iter_lines())
        except httpx.HTTPError as error:
            raise _unreachable(target, error, limits.first_token_s) from error

    async def astream(self, target: Target, request: ModelRequest, limits: Limits) -> AsyncIterator[Any]:
        """The answer's chunks as the provider's JSON."""
        import httpx

        wire, url, headers, body = self._prepare(target, request, True)
        client = self._async()
        try:
            async with client.stream(
                "POST", url, headers=headers, json=body, timeout=_timeout(limits.first_token_s)
            ) as response:
                if response.status_code >= 400:
                    raise _refused(target, response.status_code, response.headers, await response.aread())
                async for line in response.aiter_lines():
                    for chunk in wire.chunks([line]):
                        yield chunk
        except httpx.HTTPError as error:
            raise _unreachable(target, error, limits.first_token_s) from error

    def is_reachable(self, target: Target, timeout_s: float) -> bool:
        """Whether the server lists its models within the time; used for devices, away from any call."""
        import httpx

        base = self._address(target)
        path = "/api/tags" if target.api == "ollama" else "/models"
        try:
            return self._sync().get(base + path, timeout=timeout_s).status_code < 500
        except httpx.HTTPError:
            return False

    def close(self) -> None:
        """Let go of the connections of the client it made for synchronous calls; a later call makes another."""
        client = self._made.pop(os.getpid(), None)
        if client is not None:
            client.close()

    def _prepare(
        self, target: Target, request: ModelRequest, is_streaming: bool
    ) -> tuple[Wire, str, dict[str, str], dict[str, Any]]:
        wire = WIRES.get(target.api)
        if wire is None:
            raise ConfigurationError(
                f"target.{target.name}.api: {target.api!r} is not spoken over HTTP; give a callable for {target.provider!r}"
            )
        path, body = wire.request(target.model, request, is_streaming)
        key = self._key or os.environ.get(target.api_key_env or _KEYS.get(target.provider, ""), "")
        return wire, self._address(target) + path, wire.headers(key), body

    def _address(self, target: Target) -> str:
        base = self._base_url or target.base_url or _ADDRESSES.get(target.provider, "")
        if not base:
            raise ConfigurationError(
                f"target.{target.name}.base_url: {target.provider!r} has no usual address; write one"
            )
        return base.rstrip("/")

    def _sync(self) -> httpx.Client:
        if self._client is not None:
            return self._client
        process = os.getpid()
        client = self._made.get(process)
        if client is None:
            import httpx

            client = self._made[process] = httpx.Client()
        return client

    def _async(self) -> httpx.AsyncClient:
        if self._async_client is not None:
            return self._async_client
        process = os.getpid()
        client = self._async_made.get(process)
        if client is None:
            import httpx

            client = self._async_made[process] = httpx.AsyncClient()
        return client


class CallableProvider:
    """Your own functions as a provider: they get the target and the request, and return any response.

    Args:
        send, stream: for the router's synchronous methods.
        asend, astream: for its asynchronous ones.
    """

    def __init__(
        self,
        send: Callable[[Target, ModelRequest], Any] | None = None,
        *,
        stream: Callable[[Target, ModelRequest], Iterator[Any]] | None = None,
        asend: Callable[[Target, ModelRequest], Any] | None = None,
        astream: Callable[[Target, ModelRequest], AsyncIterator[Any]] | None = None,
    ) -> None:
        self._send, self._stream, self._asend, self._astream = send, stream, asend, astream

    def send(self, target: Target, request: ModelRequest, limits: Limits) -> Any:
        """What the function returns; its time is its own affair."""
        return _given(self._send, "send", target)(target, request)

    def stream(self, target: Target, request: ModelRequest, limits: Limits) -> Iterator[Any]:
        """What the function yields."""
        return iter(_given(self._stream, "stream", target)(target, request))

    async def asend(self, target: Target, request: ModelRequest, limits: Limits) -> Any:
        """What the function returns, cancelled at the limit."""
        import asyncio

        async with asyncio.timeout(limits.total_s):
            return await _given(self._asend, "asend", target)(target, request)

    def astream(self, target: Target, request: ModelRequest, limits: Limits) -> AsyncIterator[Any]:
        """What the function yields."""
        stream: AsyncIterator[Any] = _given(self._astream, "astream", target)(target, request)
        return stream


def _given(function: Callable[..., Any] | None, name: str, target: Target) -> Callable[..., Any]:
    if function is None:
        raise ConfigurationError(f"provider {target.provider!r}: its CallableProvider has no `{name}`")
    return function


def _timeout(total_s: float) -> httpx.Timeout:
    import httpx

    return httpx.Timeout(total_s, connect=min(CONNECT_S, total_s))


def _late(target: Target, seconds: float) -> str:
    return f"{target.provider}/{target.model} did not answer within {seconds:g} s"


def _unreachable(target: Target, error: Exception, seconds: float) -> ProviderError:
    import httpx

    if isinstance(error, httpx.TimeoutException):
        return ProviderTimeout(_late(target, seconds))
    return ProviderUnreachable(f"the connection to {target.provider} failed ({type(error).__name__})")


def _answer(target: Target, status: int, headers: Mapping[str, str], body: bytes) -> Any:
    if status >= 400:
        raise _refused(target, status, headers, body)
    try:
        return json.loads(body)
    except ValueError as error:
        raise ProviderError(
            f"{target.provider} answered something that is not JSON", status_code=502
        ) from error


def _refused(target: Target, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
    code, said = "", ""
    try:
        document = json.loads(body)
        document = document[0] if isinstance(document, Sequence) and document else document
        error = document.get("error", document)
        if isinstance(error, Mapping):
            code = str(error.get("code") or error.get("type") or error.get("status") or "")
            said = str(error.get("message") or "")
    except (ValueError, AttributeError, KeyError):
        pass  # an error page of a proxy: the status says enough
    wait = headers.get("retry-after")
    seconds = float(wait) if wait and wait.replace(".", "", 1).isdigit() else None
    return ProviderError(
        f"{target.provider}/{target.model} answered {status}{f' {code}' if code else ''}: {said[:200]}",
        status_code=status,
        code=code,
        retry_after_s=seconds,
    )
