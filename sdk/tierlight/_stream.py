"""Following a stream to its true end: exhaustion, error, cancellation, close or garbage collection, once.

A client library's stream object is kept: only the iterator inside it is replaced, so that its type, its
methods and `with` work as before. A bare iterator is returned as an iterator of ours. Added per chunk: one
list append and one generator step (0.06 us); only the first and last chunks are kept.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from types import AsyncGeneratorType, GeneratorType
from typing import Any

from ._relay import relay, relay_async
from ._tap import HEAD, Tap

# ---- provider streams: no values are sent in ------------------------------------------------------------


def tapped(source: Iterator[Any], tap: Tap) -> Generator[Any, None, None]:
    """The same chunks, with their ends kept."""
    head, keep = tap.head, tap.keep
    try:
        for chunk in source:
            if len(head) < HEAD:
                tap.begin(chunk)
            keep(chunk)
            yield chunk
    except GeneratorExit:
        tap.abandon()
        raise
    except BaseException as error:
        tap.fail(error)
        raise
    tap.complete()


async def tapped_async(source: AsyncIterator[Any], tap: Tap) -> AsyncGenerator[Any, None]:
    """The same chunks, with their ends kept."""
    head, keep = tap.head, tap.keep
    try:
        async for chunk in source:
            if len(head) < HEAD:
                tap.begin(chunk)
            keep(chunk)
            yield chunk
    except GeneratorExit:
        tap.abandon()
        raise
    except BaseException as error:
        tap.fail(error)
        raise
    tap.complete()


_closes_async: dict[type, bool] = {}  # whether `close` of a kind of stream is a coroutine function


def _hook_close(stream: Any, tap: Tap) -> None:
    """Let the stream's own `close` end the call. A weak reference: the hook must not keep the stream alive."""
    kind = type(stream)
    own = getattr(kind, "close", None)
    if own is None:
        return
    is_async = _closes_async.get(kind)
    if is_async is None:
        is_async = _closes_async[kind] = inspect.iscoroutinefunction(own)
    reference = weakref.ref(stream)
    if is_async:

        async def close_async() -> Any:
            try:
                return await own(reference())
            finally:
                tap.abandon()

        stream.close = close_async
    else:

        def close() -> Any:
            try:
                return own(reference())
            finally:
                tap.abandon()

        stream.close = close


class Passing:
    """Stands for an object that cannot be changed from inside: its type and all else pass through to it."""

    __slots__ = ("__weakref__", "_tierlight_target")

    def __init__(self, target: Any) -> None:
        object.__setattr__(self, "_tierlight_target", target)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tierlight_target, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._tierlight_target, name, value)

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(self._tierlight_target)


class IteratorProxy(Passing):
    """An iterator of chunks, also usable as a context manager where the original is one."""

    __slots__ = ("_tierlight_chunks", "_tierlight_tap")

    def __init__(self, stream: Any, tap: Tap) -> None:
        super().__init__(stream)
        object.__setattr__(self, "_tierlight_tap", tap)
        object.__setattr__(self, "_tierlight_chunks", tapped(stream, tap))

    def __iter__(self) -> Iterator[Any]:
        return self._tierlight_chunks  # type: ignore[no-any-return]

    def __next__(self) -> Any:
        return next(self._tierlight_chunks)

    def __enter__(self) -> Any:
        self._tierlight_target.__enter__()
        return self

    def __exit__(self, *exc: Any) -> Any:
        try:
            return self._tierlight_target.__exit__(*exc)
        finally:
            self._tierlight_tap.abandon()

    def close(self) -> Any:
        """Close the original and end the call."""
        try:
            return getattr(self._tierlight_target, "close", lambda: None)()
        finally:
            self._tierlight_tap.abandon()


class AsyncIteratorProxy(Passing):
    """An asynchronous iterator of chunks, also usable with `async with` where the original is."""

    __slots__ = ("_tierlight_chunks", "_tierlight_tap")

    def __init__(self, stream: Any, tap: Tap) -> None:
        super().__init__(stream)
        object.__setattr__(self, "_tierlight_tap", tap)
        object.__setattr__(self, "_tierlight_chunks", tapped_async(stream, tap))

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._tierlight_chunks  # type: ignore[no-any-return]

    async def __anext__(self) -> Any:
        return await anext(self._tierlight_chunks)

    async def __aenter__(self) -> Any:
        await self._tierlight_target.__aenter__()
        return self

    async def __aexit__(self, *exc: Any) -> Any:
        try:
            return await self._tierlight_target.__aexit__(*exc)
        finally:
            self._tierlight_tap.abandon()

    async def aclose(self) -> Any:
        """Close the original and end the call."""
        try:
            close = getattr(self._tierlight_target, "aclose", None)
            return await close() if close is not None else None
        finally:
            self._tierlight_tap.abandon()


# ---- what kind of stream is it --------------------------------------------------------------------------


def follow(stream: Any, tap: Tap) -> Any:
    """The stream to give to the user instead, None if this is no stream.

    The user's own object comes back wherever it can be followed from inside.
    """
    kind = type(stream)
    # A client's generator sends its request at its first step: the call is current then.
    inside = tap.call if tap.call.request is not None else None
    if kind is GeneratorType:
        followed: Any = relay(stream, tap, inside)
        tap.watch(followed)
        return followed
    if kind is AsyncGeneratorType:
        followed = relay_async(lambda: (stream, tap, inside))()
        tap.watch(followed)
        return followed
    if hasattr(kind, "__next__"):
        wrap, proxy = tapped, IteratorProxy
    elif hasattr(kind, "__anext__"):
        wrap, proxy = tapped_async, AsyncIteratorProxy  # type: ignore[assignment]
    else:
        return None
    if hasattr(kind, "fileno") or hasattr(kind, "readline"):
        return None  # a file is an iterator of lines, and no stream of chunks
    inner = getattr(stream, "__dict__", {}).get("_iterator")
    if inner is not None and (hasattr(inner, "__next__") or hasattr(inner, "__anext__")):
        stream._iterator = wrap(inner, tap)
        _hook_close(stream, tap)
        tap.watch(stream)
        return stream
    followed = proxy(stream, tap)
    # Not the proxy: `for chunk in call():` keeps only what `iter()` gave it.
    tap.watch(followed._tierlight_chunks)
    return followed
