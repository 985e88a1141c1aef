"""The fake provider as a real HTTP/1.1 server: small enough that a user's tests need no server package."""

from __future__ import annotations

import argparse
import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tierlight.testing._provider import Exchange, FakeProvider

_MOST_BYTES = 64 * 1024 * 1024


@contextmanager
def serving(provider: FakeProvider, host: str, port: int) -> Iterator[str]:
    """Run the provider on a thread; gives `http://host:port` and stops at the end of the block."""
    loop = asyncio.new_event_loop()
    started: list[asyncio.Server] = []
    is_up, faults = threading.Event(), list[OSError]()

    async def start() -> None:
        try:
            started.append(await _server(provider, host, port))
        except OSError as error:
            faults.append(error)
        is_up.set()

    def run_loop() -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(start())
        loop.run_forever()
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.close()

    thread = threading.Thread(target=run_loop, name="fake-provider", daemon=True)
    thread.start()
    is_up.wait()
    try:
        if faults:
            raise faults[0]
        bound = started[0].sockets[0].getsockname()[1]
        yield f"http://{host}:{bound}"
    finally:
        for server in started:
            loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


async def _server(provider: FakeProvider, host: str, port: int) -> asyncio.Server:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A client that goes away in the middle is part of the game.
        with suppress(ConnectionError, asyncio.IncompleteReadError, ValueError, asyncio.CancelledError):
            while await _serve_one(provider, reader, writer):
                pass
        writer.close()

    return await asyncio.start_server(connected, host, port)


async def _serve_one(
    provider: FakeProvider, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> bool:
    """Answer one request; False when the connection ends."""
    line = (await reader.readline()).decode("latin-1").split()
    if len(line) != 3:
        return False
    headers: dict[str, str] = {}
    while (raw := await reader.readline()) not in (b"\r\n", b"\n", b""):
        name, _, value = raw.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
    if headers.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    body = await _body(reader, headers)
    exchange = provider.exchange(line[0], line[1], headers, body)
    await _reply(exchange, writer)
    return not exchange.is_cut and headers.get("connection", "").lower() != "close"


async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if headers.get("transfer-encoding", "").lower() != "chunked":
        return await reader.readexactly(min(int(headers.get("content-length", "0")), _MOST_BYTES))
    body = b""
    while size := int((await reader.readline()).split(b";")[0], 16):
        body += await reader.readexactly(size)
        await reader.readline()
    await reader.readline()
    return body


async def _reply(exchange: Exchange, writer: asyncio.StreamWriter) -> None:
    from tierlight.testing._provider import paced

    has_length = any(name == "Content-Length" for name, _ in exchange.headers)
    head = [f"HTTP/1.1 {exchange.status} Fake", *(f"{name}: {value}" for name, value in exchange.headers)]
    if not has_length:
        head.append("Transfer-Encoding: chunked")
    is_head_sent = False
    async for piece in paced(exchange.body):
        if not is_head_sent:
            writer.write("\r\n".join(head).encode() + b"\r\n\r\n")
            is_head_sent = True
        writer.write(piece if has_length else b"%x\r\n%b\r\n" % (len(piece), piece))
        await writer.drain()
    if not is_head_sent:
        writer.write("\r\n".join(head).encode() + b"\r\n\r\n")
    if not has_length and not exchange.is_cut:
        writer.write(b"0\r\n\r\n")
    await writer.drain()


def run(arguments: list[str] | None) -> None:
    """The command line."""
    from tierlight.testing._provider import FakeProvider
    from tierlight.testing._wires.reply import FakeError, FakeReply

    parser = argparse.ArgumentParser(
        prog="python -m tierlight.testing.fake_provider",
        description="OpenAI, Anthropic, Gemini, Cohere rerank and Ollama on one port; always the same answer.",
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--text", default="All good.", help="what the model says")
    parser.add_argument("--input-tokens", type=int, default=12)
    parser.add_argument("--output-tokens", type=int, default=3)
    parser.add_argument("--latency", type=float, default=0.0, metavar="SECONDS", help="before the first byte")
    parser.add_argument(
        "--chunk-delay", type=float, default=0.0, metavar="SECONDS", help="between chunks of a stream"
    )
    parser.add_argument("--status", type=int, default=200, help="refuse every call with this HTTP status")
    parser.add_argument("--retry-after", type=float, default=None, metavar="SECONDS")
    given = parser.parse_args(arguments)
    provider = FakeProvider(
        FakeReply(
            text=given.text,
            input_tokens=given.input_tokens,
            output_tokens=given.output_tokens,
            latency_s=given.latency,
            chunk_delay_s=given.chunk_delay,
        )
        if given.status == 200
        else FakeError(given.status, retry_after_s=given.retry_after, latency_s=given.latency)
    )

    async def serve() -> None:
        server = await _server(provider, given.host, given.port)
        print(f"fake provider on http://{given.host}:{server.sockets[0].getsockname()[1]}", flush=True)
        await server.serve_forever()

    with suppress(KeyboardInterrupt):
        asyncio.run(serve())
