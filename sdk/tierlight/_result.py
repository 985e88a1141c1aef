"""What a call's function returned, turned into the call's end: a response, a stream, an awaitable, or none of these."""

from __future__ import annotations

from collections.abc import Awaitable
from types import CoroutineType
from typing import Any, Final, TypeVar, cast

from . import semconv as s
from ._call import Call
from ._content import Frozen
from ._context import enter, leave
from ._guard import attempt, guarded
from ._judge import consider
from ._messages import answer_messages
from ._stream import follow
from ._tap import Tap
from ._usage import ResponseFacts, usage_from
from ._validate import run_checks

R = TypeVar("R")

_PLAIN: Final = (str, bytes, int, float, bool, type(None), list, tuple, set)


def end_with(call: Call, result: R) -> R:
    """End the call with what its function returned; gives what to return to the user."""
    replaced = _take_result(call, result)
    return result if replaced is None else cast("R", replaced)


@guarded("read what a call returned")
def _take_result(call: Call, result: Any) -> Any:
    if call.is_known_inside(result):
        if not call.pass_on_checks():
            _judge(call, result)
        call.succeed(None, result)
        return None
    if type(result) in _PLAIN:
        _judge(call, result)
        call.succeed(None, result)
        return None
    facts = read_response(call, result)
    if facts is None:
        if type(result) is CoroutineType:
            return _awaited(result, call)
        followed = follow(result, Tap(call))
        if followed is not None:
            call.tell_outer(followed)
            return followed
    elif call.captures_content:
        call.output = attempt("capture an answer", lambda: Frozen(answer_messages(result)))[1]
    _judge(call, result)
    call.succeed(facts, result)
    return None


def read_response(call: Call, result: object) -> ResponseFacts | None:
    """What a result says, None if it is no response; a fault of ours is noted on the span."""
    is_read, facts = attempt("read a response", usage_from, result)
    if facts is None and type(result).__name__ == "LegacyAPIResponse":
        # `with_raw_response`: the parsed answer, which the object keeps for the user's own `parse()`
        is_read, facts = attempt("read a raw response", lambda: usage_from(cast("Any", result).parse()))
    if not is_read:
        call.annotate({s.TIERLIGHT_INSTRUMENTATION_ERROR: "read a response"})
    return facts


def _judge(call: Call, result: object) -> None:
    if call.checks:
        run_checks(call, result)
    if call.asked is not None:
        consider(call, result)


async def _awaited(pending: Awaitable[Any], call: Call) -> Any:
    entered = enter(call)
    try:
        result = await pending
    except BaseException as error:
        leave(entered)
        call.fail(error)
        raise
    leave(entered)
    return end_with(call, result)
