"""Which call the running code belongs to, and what begins below it."""

from __future__ import annotations

from contextvars import ContextVar, Token
from typing import Final

from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    TraceFlags,
    get_current_span,
    set_span_in_context,
)

from ._call import Call
from ._guard import guarded
from ._runtime import Runtime
from ._spec import UNROUTED, Request, RouteSpec


class Unsampled:
    """Stands in the context for a call that is not recorded, so that the calls below it are not either."""

    __slots__ = ()


Standing = Call | Unsampled
Entered = tuple[Token[Standing | None], Token[Context] | None]

_current: ContextVar[Standing | None] = ContextVar("tierlight_call", default=None)
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)


@guarded("begin a call")
def begin(runtime: Runtime, spec: RouteSpec | None, request: Request | None = None) -> Standing | None:
    """Start recording a call below what is current; None = leave it alone, somebody else records it.

    Args:
        spec: None takes the route from the context.
    """
    outer = _current.get()
    if isinstance(outer, Unsampled):
        return Unsampled()
    if outer is not None and outer.request is not None and outer.request.is_helper:
        return None
    parent = get_current_span().get_span_context()
    trace_id, parent_span_id = parent.trace_id, parent.span_id or None
    joined = runtime.joined
    if joined is not None:
        # The provider's own sampler decides, when its span is made.
        if request is not None and joined.is_recorded_outside():
            return None
        trace_id = trace_id or (outer.trace_id if outer is not None else runtime.ids.trace_id())
    elif trace_id:
        if runtime.follows_parent:
            if not parent.trace_flags & 1:
                return Unsampled()
        elif runtime.sample is not None and not runtime.sample(trace_id):
            return Unsampled()
    elif outer is not None:
        trace_id = outer.trace_id
    else:
        trace_id = runtime.ids.trace_id()
        if runtime.sample is not None and not runtime.sample(trace_id):
            return Unsampled()
    if spec is None:
        spec = outer.spec if outer is not None else UNROUTED
    call = Call(runtime, spec, outer, trace_id, parent_span_id, request)
    if joined is not None:
        joined.start(call)
    elif request is not None:
        own = SpanContext(trace_id, call.span_id, False, _SAMPLED, parent.trace_state)
        call.context = set_span_in_context(NonRecordingSpan(own))
    return call


def enter(standing: Standing) -> Entered:
    """Let the code that runs from here on belong to it."""
    token = _current.set(standing)
    if isinstance(standing, Call) and standing.request is not None and standing.context is not None:
        return token, attach(standing.context)
    return token, None


def leave(entered: Entered) -> None:
    """Take back what `enter` set; harmless where the code has moved to another context meanwhile."""
    token, attached = entered
    try:  # noqa: SIM105  `suppress` costs 0.4 us here, on every call
        _current.reset(token)
    except ValueError:
        pass
    if attached is not None:
        detach(attached)


def innermost() -> Standing | None:
    """What stands in the context."""
    return _current.get()


def current_call() -> Call | None:
    """The call that the running code belongs to; None outside of any route, and where it is sampled out."""
    call = _current.get()
    return call if isinstance(call, Call) else None
