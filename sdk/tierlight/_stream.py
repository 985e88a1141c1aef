"""Following a stream to its true end: exhaustion, error, cancellation, close or garbage collection, once.

A client library's stream object is kept: only the iterator inside it is replaced, so that its type, its
methods and `with` work as before. A bare iterator is returned as an iterator of ours. Added per chunk: one
list append and one generator step (0.06 us); only the first and last chunks are kept.
"""

from __future__ import annotations

import atexit
import inspect
import weakref
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from types import AsyncGeneratorType, GeneratorType
from typing import Any, Final, ParamSpec

from ._call import Call
from ._chunks import facts_from_chunks
from ._content import Frozen
from ._context import Standing, enter, leave
from ._guard import attempt, guarded
from ._judge import consider
from ._messages import MAX_TEXT, text_of_chunk
from ._usage import ResponseFacts, usage_from
from ._validate import run_checks

P = ParamSpec("P")

HEAD: Final = 4  # model, id, prompt tokens and the start of a refusal
TAIL: Final = 6  # finish reason and totals, also where a helper adds events of its own


class Tap:
    """The ends of one stream, and its call."""

    __slots__ = ("__weakref__", "_characters", "_texts", "_watch", "call", "head", "keep", "tail")

    def __init__(self, call: Call) -> None:
        self.call = call
        self.head: list[object] = []
        self.tail: deque[object] = deque(maxlen=TAIL)
        self._watch: _Watch | None = None
        self._texts: list[str] = []
        self._characters = 0
        self.keep: Callable[[object], None] = self._hear if call.wants_text else self.tail.append

    def _hear(self, chunk: object) -> None:
        """Keep a chunk, and its text for those who want to look at the whole answer."""
        self.tail.append(chunk)
        if self._characters < MAX_TEXT:
            text = attempt("read a chunk's text", text_of_chunk, chunk)[1]
            if text:
                self._texts.append(text)
                self._characters += len(text)

    def _take_text(self, is_complete: bool) -> None:
        call = self.call
        if not call.wants_text:
            return
        text = "".join(self._texts)[:MAX_TEXT]
        self._texts.clear()
        if call.captures_content and text:
            call.output = Frozen([{"role": "assistant", "parts": [{"type": "text", "content": text}]}])
        if is_complete:
            if call.checks:
                run_checks(call, text)
            if call.asked is not None:
                consider(call, text)

    def begin(self, chunk: object) -> None:
        """Take one of the first chunks."""
        if not self.head:
            self.call.first_chunk()
        self.head.append(chunk)

    def take(self, chunk: object) -> None:
        """Take any chunk."""
        if len(self.head) < HEAD:
            self.begin(chunk)
        self.keep(chunk)

    def watch(self, stream: object) -> None:
        """End the call when the stream object is collected or the process ends, at the latest."""
        if not _watched:
            # At the first stream, so after the pipeline's own hook: it runs before that one.
            atexit.unregister(_abandon_all)
            atexit.register(_abandon_all)
        watch = _Watch(stream, _collected)
        watch.tap = self
        self._watch = _watched[id(watch)] = watch

    def complete(self, result: object = None) -> None:
        """The stream was read to its end."""
        self._let_go()
        self._take_text(True)
        facts = self._facts(True)
        if facts is None and result is not None:
            facts = usage_from(result)
        self.call.succeed(facts, result)

    def fail(self, error: BaseException) -> None:
        """Reading the stream raised."""
        self._let_go()
        self._take_text(False)
        self.call.fail(error, self._facts(False))

    def abandon(self) -> None:
        """Nobody reads on."""
        self._let_go()
        self._take_text(False)
        self.call.abandon(self._facts(False))

    def _let_go(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            _watched.pop(id(watch), None)

    @guarded("read the end of a stream")
    def _facts(self, is_complete: bool) -> ResponseFacts | None:
        head, tail = self.head, self.tail
        self.head, self.tail = [None], deque(maxlen=1)  # the chunks are not needed after this
        if len(head) < HEAD:
            return facts_from_chunks(head, is_complete)
        known = {id(chunk) for chunk in head}
        return facts_from_chunks([*head, *(one for one in tail if id(one) not in known)], is_complete)


class _Watch(weakref.ref[Any]):
    __slots__ = ("tap",)
    tap: Tap


# Streams under way, by the id of their watch: a stream itself need not have a hash.
# Not `weakref.finalize`, which does the same for 3 us more a stream.
_watched: dict[int, _Watch] = {}


def _collected(watch: weakref.ref[Any]) -> None:
    known = _watched.pop(id(watch), None)
    if known is not None:
        known.tap.abandon()


def _abandon_all() -> None:
    for watch in list(_watched.values()):
        watch.tap.abandon()


class WatchingTap(Tap):
    """Leaves the call open: what the stream said is only kept for the call's own end."""

    __slots__ = ()

    def complete(self, result: object = None) -> None:
        """Keep what the whole stream said."""
        self._keep(True)

    def fail(self, error: BaseException) -> None:
        """Keep what had arrived; the error goes its own way."""
        self._keep(False)

    def abandon(self) -> None:
        """Keep what had arrived."""
        self._keep(False)

    def _keep(self, is_complete: bool) -> None:
        self._let_go()
        facts = self._facts(is_complete)
        if facts is not None:
            self.call.take_facts(facts)


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


# ---- generators of the user's own: values, exceptions and the return value pass both ways ----------------


def relay(
    source: Generator[Any, Any, Any], tap: Tap | None, inside: Standing | None
) -> Generator[Any, Any, Any]:
    """Run a generator step by step, each step `inside` of a call where one is given."""
    advance: Callable[..., Any] = source.__next__
    argument: tuple[Any, ...] = ()
    try:
        while True:
            if inside is None:
                item = advance(*argument)
            else:
                token = enter(inside)
                try:
                    item = advance(*argument)
                finally:
                    leave(token)
            if tap is not None:
                tap.take(item)
            try:
                sent = yield item
            except GeneratorExit:
                source.close()
                raise
            except BaseException as error:  # noqa: BLE001  thrown in by the consumer: the generator's to handle
                advance, argument = source.throw, (error,)
            else:
                advance, argument = (source.__next__, ()) if sent is None else (source.send, (sent,))
    except GeneratorExit:
        if tap is not None:
            tap.abandon()
        raise
    except StopIteration as stop:
        if tap is not None:
            tap.complete(stop.value)
        return stop.value
    except BaseException as error:
        if tap is not None:
            tap.fail(error)
        raise


def relay_async(
    start: Callable[P, tuple[AsyncGenerator[Any, Any], Tap | None, Standing | None]],
) -> Callable[P, AsyncGenerator[Any, Any]]:
    """An asynchronous generator function that runs the generator of `start`, each step inside of its call."""

    async def run(*args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[Any, Any]:
        source, tap, inside = start(*args, **kwargs)
        advance: Callable[..., Any] = source.__anext__
        argument: tuple[Any, ...] = ()
        try:
            while True:
                if inside is None:
                    item = await advance(*argument)
                else:
                    token = enter(inside)
                    try:
                        item = await advance(*argument)
                    finally:
                        leave(token)
                if tap is not None:
                    tap.take(item)
                try:
                    sent = yield item
                except GeneratorExit:
                    await source.aclose()
                    raise
                except BaseException as error:  # noqa: BLE001  thrown in by the consumer: the generator's to handle
                    advance, argument = source.athrow, (error,)
                else:
                    advance, argument = (source.__anext__, ()) if sent is None else (source.asend, (sent,))
        except GeneratorExit:
            if tap is not None:
                tap.abandon()
            raise
        except StopAsyncIteration:
            if tap is not None:
                tap.complete()
        except BaseException as error:
            if tap is not None:
                tap.fail(error)
            raise

    return run


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
