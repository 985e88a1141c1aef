"""Transports that hand a client's requests to a `FakeProvider` in the same process.

The clients of 2026 use httpx2, older ones httpx; both have the same interface, so the classes are made from
whichever module is given and nothing is imported here.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tierlight.testing._provider import Exchange, FakeProvider


def sync_transport(provider: FakeProvider, library: ModuleType) -> Any:
    """A `library.BaseTransport` that asks the provider."""

    class Body(library.SyncByteStream):  # type: ignore[misc, name-defined]
        def __init__(self, exchange: Exchange, request: Any) -> None:
            self._exchange, self._request = exchange, request

        def __iter__(self) -> Iterator[bytes]:
            for pause_s, piece in self._exchange.body:
                if pause_s:
                    time.sleep(pause_s)
                yield piece
            if self._exchange.is_cut:
                raise library.RemoteProtocolError("peer closed connection", request=self._request)

    class Transport(library.BaseTransport):  # type: ignore[misc, name-defined]
        def handle_request(self, request: Any) -> Any:
            exchange = provider.exchange(
                request.method, str(request.url), dict(request.headers), request.read()
            )
            return library.Response(
                exchange.status, headers=list(exchange.headers), stream=Body(exchange, request)
            )

    return Transport()


def async_transport(provider: FakeProvider, library: ModuleType) -> Any:
    """A `library.AsyncBaseTransport` that asks the provider."""
    from tierlight.testing._provider import paced

    class Body(library.AsyncByteStream):  # type: ignore[misc, name-defined]
        def __init__(self, exchange: Exchange, request: Any) -> None:
            self._exchange, self._request = exchange, request

        async def __aiter__(self) -> AsyncIterator[bytes]:
            async for piece in paced(self._exchange.body):
                yield piece
            if self._exchange.is_cut:
                raise library.RemoteProtocolError("peer closed connection", request=self._request)

    class Transport(library.AsyncBaseTransport):  # type: ignore[misc, name-defined]
        async def handle_async_request(self, request: Any) -> Any:
            exchange = provider.exchange(
                request.method, str(request.url), dict(request.headers), await request.aread()
            )
            return library.Response(
                exchange.status, headers=list(exchange.headers), stream=Body(exchange, request)
            )

    return Transport()
