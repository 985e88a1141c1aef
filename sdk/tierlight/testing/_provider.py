"""A provider that answers what a test tells it; see `tierlight.testing.fake_provider`."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import ModuleType
from typing import Any
from urllib.parse import unquote, urlsplit

from tierlight.testing._wires import anthropic, cohere, gemini, ollama, openai
from tierlight.testing._wires.reply import Event, FakeError, FakeReply, FakeRequest

Answer = FakeReply | FakeError
Whole = Callable[[FakeRequest, FakeReply, Mapping[str, Any]], dict[str, Any]]
Stream = Callable[[FakeRequest, FakeReply, Mapping[str, Any]], Iterator[Event]]


@dataclass(frozen=True, slots=True)
class _Endpoint:
    wire: str
    operation: str
    whole: Whole
    stream: Stream | None = None
    framing: str = "sse"  # or ndjson
    streams_by_default: bool = False


_OPENAI_CHAT = _Endpoint("openai", "chat", openai.chat, openai.chat_events)
_OPENAI_RESPONSES = _Endpoint("openai", "chat", openai.response, openai.response_events)
_OPENAI_EMBEDDINGS = _Endpoint("openai", "embeddings", openai.embeddings)
_RERANK = _Endpoint("cohere", "rerank", cohere.rerank)
_OLLAMA_CHAT = _Endpoint("ollama", "chat", ollama.chat, ollama.chat_events, "ndjson", True)

_ENDPOINTS = {
    "chat/completions": _OPENAI_CHAT,
    "responses": _OPENAI_RESPONSES,
    "embeddings": _OPENAI_EMBEDDINGS,
    "messages": _Endpoint("anthropic", "chat", anthropic.message, anthropic.message_events),
    "rerank": _RERANK,
    "api/chat": _OLLAMA_CHAT,
    "api/generate": _OLLAMA_CHAT,
    "api/embed": _Endpoint("ollama", "embeddings", ollama.embeddings),
}
_GEMINI = {
    "generateContent": _Endpoint("gemini", "chat", gemini.content),
    "streamGenerateContent": _Endpoint("gemini", "chat", gemini.content, gemini.content_events),
    "embedContent": _Endpoint("gemini", "embeddings", gemini.embeddings),
    "batchEmbedContents": _Endpoint("gemini", "embeddings", gemini.embeddings),
}
_ERRORS = {
    "openai": openai.error,
    "anthropic": anthropic.error,
    "gemini": gemini.error,
    "cohere": cohere.error,
    "ollama": ollama.error,
}


@dataclass(frozen=True, slots=True)
class Exchange:
    """One HTTP answer: its head, then pairs of a pause in seconds and bytes; `is_cut` breaks the connection off."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: Iterator[tuple[float, bytes]]
    is_cut: bool = False


class FakeProvider:
    """An ASGI application, a source of transports, and a record of what it was asked.

    Args:
        answer: What to answer when nothing is queued: a reply, an error, or a function of the request.

    Attributes:
        requests: Every request so far, in order.
    """

    def __init__(self, answer: Answer | Callable[[FakeRequest], Answer] | None = None) -> None:
        self.answer = answer if answer is not None else FakeReply()
        self.requests: list[FakeRequest] = []
        self._queued: deque[Answer] = deque()
        self._number = 0
        self._lock = threading.Lock()

    def queue(self, *answers: Answer) -> None:
        """Answer the next requests with these, one each, before the standing answer holds again."""
        self._queued.extend(answers)

    def exchange(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Exchange:
        """The answer to one HTTP request; used by all the ways in."""
        url = urlsplit(target)
        endpoint, named = _find(url.path)
        if method == "GET" and url.path.rstrip("/").endswith(("/models", "/api/tags")):
            return _json(200, {"object": "list", "data": [], "models": []})
        if endpoint is None:
            failure = FakeError(404, f"The fake provider has no {url.path}")
            return _json(404, openai.error(failure))
        if method != "POST":
            return _json(405, _ERRORS[endpoint.wire](FakeError(405, "use POST")))
        try:
            sent = json.loads(body or b"{}")
            if not isinstance(sent, dict):
                raise ValueError("not an object")
        except ValueError:
            return _json(400, _ERRORS[endpoint.wire](FakeError(400, "The body is no JSON object.")))
        is_streaming = bool(
            named == "streamGenerateContent"
            if endpoint.wire == "gemini"
            else sent.get("stream", endpoint.streams_by_default)
        )
        model = str(sent.get("model") or "")
        if endpoint.wire == "gemini":
            model = unquote(url.path).rpartition("models/")[2].rpartition(":")[0] or model
        request = FakeRequest(
            endpoint.wire, endpoint.operation, model, is_streaming, url.path, dict(headers), sent
        )
        with self._lock:
            self.requests.append(request)
            self._number += 1
            number = self._number
            answer = self._queued.popleft() if self._queued else self.answer
        if not isinstance(answer, FakeReply | FakeError):
            answer = answer(request)
        if isinstance(answer, FakeError):
            wait = answer.retry_after_s
            extra = (("Retry-After", f"{wait:g}"),) if wait is not None else ()
            return _json(answer.status, _ERRORS[endpoint.wire](answer), extra, answer.latency_s)
        now = time.time_ns()
        made = {
            "number": number,
            "created": now // 1_000_000_000,
            "created_at": datetime.fromtimestamp(now / 1e9, UTC).isoformat(),
        }
        if not is_streaming or endpoint.stream is None:
            return _json(200, endpoint.whole(request, answer, made), latency_s=answer.latency_s)
        return _streamed(endpoint, request, answer, made, is_array="alt=sse" not in url.query)

    # ---- ways in -----------------------------------------------------------------------------------------

    async def __call__(
        self,
        scope: Mapping[str, Any],
        receive: Callable[[], Awaitable[Mapping[str, Any]]],
        send: Callable[[dict[str, Any]], Awaitable[None]],
    ) -> None:
        """The ASGI application."""
        if scope["type"] == "lifespan":
            while (event := await receive())["type"] != "lifespan.shutdown":
                await send({"type": f"{event['type']}.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        body = b""
        while True:
            part = await receive()
            body += part.get("body", b"")
            if not part.get("more_body"):
                break
        target = scope["path"] + (f"?{scope['query_string'].decode()}" if scope.get("query_string") else "")
        headers = {name.decode().lower(): value.decode() for name, value in scope["headers"]}
        exchange = self.exchange(scope["method"], target, headers, body)
        head = [(name.lower().encode(), value.encode()) for name, value in exchange.headers]
        await send({"type": "http.response.start", "status": exchange.status, "headers": head})
        for pause_s, piece in exchange.body:
            if pause_s:
                await asyncio.sleep(pause_s)
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        if exchange.is_cut:
            raise ConnectionResetError("the fake provider cuts this stream, as it was told")
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def transport(self, library: ModuleType) -> Any:
        """A synchronous transport for `httpx` or a library with its interface, such as `httpx2`."""
        from tierlight.testing._transports import sync_transport

        return sync_transport(self, library)

    def async_transport(self, library: ModuleType) -> Any:
        """The same for its asynchronous client."""
        from tierlight.testing._transports import async_transport

        return async_transport(self, library)

    def serve(self, host: str = "127.0.0.1", port: int = 0) -> Any:
        """A running server on a thread of its own: a context manager that gives its address, port 0 = any free one."""
        from tierlight.testing._server import serving

        return serving(self, host, port)


async def paced(body: Iterator[tuple[float, bytes]]) -> AsyncIterator[bytes]:
    """The bytes of an exchange with its pauses, without holding up the event loop."""
    for pause_s, piece in body:
        if pause_s:
            await asyncio.sleep(pause_s)
        yield piece


def _find(path: str) -> tuple[_Endpoint | None, str]:
    """The endpoint of a path, whatever stands before it (`/v1`, `/openai/deployments/x`, ...)."""
    parts = [part for part in path.split("/") if part]
    if not parts:
        return None, ""
    method = parts[-1].rpartition(":")[2]
    if ":" in parts[-1] and method in _GEMINI:
        return _GEMINI[method], method
    return _ENDPOINTS.get("/".join(parts[-2:])) or _ENDPOINTS.get(parts[-1]), ""


def _json(
    status: int,
    content: Mapping[str, Any],
    headers: tuple[tuple[str, str], ...] = (),
    latency_s: float = 0.0,
) -> Exchange:
    body = json.dumps(content).encode()
    head = (("Content-Type", "application/json"), ("Content-Length", str(len(body))), *headers)
    return Exchange(status, head, iter([(latency_s, body)]))


def _streamed(
    endpoint: _Endpoint, request: FakeRequest, reply: FakeReply, made: Mapping[str, Any], *, is_array: bool
) -> Exchange:
    assert endpoint.stream is not None
    events = list(endpoint.stream(request, reply, made))
    is_cut = reply.cut_after is not None
    if reply.cut_after is not None:
        events = _up_to(events, reply.cut_after, reply)
    if endpoint.framing == "ndjson":
        kind, pieces = "application/x-ndjson", [f"{json.dumps(data)}\n" for _, data in events]
    elif endpoint.wire == "gemini" and is_array:  # without alt=sse Gemini streams one JSON array
        kind = "application/json"
        pieces = [("[" if n == 0 else ",\r\n") + json.dumps(data) for n, (_, data) in enumerate(events)]
        pieces.append("]")
    else:
        kind, pieces = "text/event-stream", [_sse(name, data) for name, data in events]
    paused = (
        (reply.latency_s if n == 0 else reply.chunk_delay_s, piece.encode()) for n, piece in enumerate(pieces)
    )
    return Exchange(200, (("Content-Type", kind),), paused, is_cut)


def _up_to(events: list[Event], pieces: int, reply: FakeReply) -> list[Event]:
    """The events up to the given number of pieces of text."""
    texts = reply.pieces()[:pieces]
    kept: list[Event] = []
    for event in events:
        if not texts and len(kept) >= pieces:
            break
        kept.append(event)
        if texts and json.dumps(texts[0])[1:-1] in json.dumps(event[1]):
            texts.pop(0)
    return kept


def _sse(name: str, data: Mapping[str, Any] | str) -> str:
    line = data if isinstance(data, str) else json.dumps(data)
    return f"event: {name}\ndata: {line}\n\n" if name else f"data: {line}\n\n"
