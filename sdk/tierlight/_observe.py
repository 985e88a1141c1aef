"""For code that neither returns the provider's response nor uses a wrapped client."""

from __future__ import annotations

import contextvars
import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

from . import semconv as s
from ._call import Call
from ._context import current_call
from ._guard import attempt, guarded
from ._stream import follow
from ._tap import WatchingTap
from ._usage import usage_from

P = ParamSpec("P")
R = TypeVar("R")


def observe(response: R, *, call: Call | None = None) -> R:
    """Let the call know its response; gives back what is to be used on, which for a stream may be an iterator of ours.

    Args:
        response: a provider's response or stream, or the dict that an HTTP call of your own gave.
        call: the current one unless said otherwise.
    """
    call = call or current_call()
    if call is None or not call.is_recorded:
        return response
    replaced = _observe(response, call)
    return response if replaced is None else cast("R", replaced)


@guarded("observe a response")
def _observe(response: object, call: Call) -> object:
    is_read, facts = attempt("read a response", usage_from, response)
    if not is_read:
        call.annotate({s.TIERLIGHT_INSTRUMENTATION_ERROR: "read a response"})
    if facts is None:
        return follow(response, WatchingTap(call))
    call.take_facts(facts)
    return None


def carry(function: Callable[P, R]) -> Callable[P, R]:
    """The same function, run in the context of here: for threads and pools, which start without one.

    >>> from concurrent.futures import ThreadPoolExecutor
    >>> with ThreadPoolExecutor() as pool:
    ...     pool.submit(carry(len), "abc").result()
    3
    """
    context = contextvars.copy_context()

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        # A copy each time: one context cannot be entered twice at once.
        return context.copy().run(function, *args, **kwargs)

    return run
