"""Running the user's own generators: values, exceptions and the return value pass both ways."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any, ParamSpec

from ._context import Standing, enter, leave
from ._tap import Tap

P = ParamSpec("P")


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
