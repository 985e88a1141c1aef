"""What the hot path works with: one object that `configure()` builds and a test replaces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any, Protocol

from ._content import ContentSettings
from ._identity import RandomIds, SystemClock
from ._record import Clock, FinishedCall, Ids, Sink

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span


class ApplicationSpans(Protocol):
    """The tracer provider of the application, where `configure(provider=...)` joined it."""

    def is_recorded_outside(self) -> bool:
        """Whether an instrumentation around us records this very call."""

    def start(self, call: Any) -> None:
        """Begin the span of a `Call`."""

    def finish(self, record: FinishedCall, span: Span | None, context: Context | None) -> None:
        """End the span with what the record says."""


@dataclass(slots=True)
class Runtime:
    """Everything a call needs at its start and end.

    Args:
        sample: decides for a call without a parent, by its trace id; None keeps all.
        follows_parent: whether a call below a span keeps that span's decision instead.
        joined: the application's own spans, where `configure(provider=...)` joined them.
        open_join_keys: business keys whose values may leave as they are; of others only a hash is sent.
        chance: where judges draw their share from.
    """

    sink: Sink
    clock: Clock = field(default_factory=SystemClock)
    ids: Ids = field(default_factory=RandomIds)
    sample: Callable[[int], bool] | None = None
    follows_parent: bool = True
    content: ContentSettings = field(default_factory=ContentSettings)
    joined: ApplicationSpans | None = None
    open_join_keys: frozenset[str] = frozenset()
    join_salt: bytes = b""
    chance: Callable[[], float] = field(default_factory=lambda: Random().random)


_active: Runtime | None = None


def active() -> Runtime | None:
    """The runtime in use; None before `configure()` and after it was switched off: every call then just runs."""
    return _active


def activate(runtime: Runtime | None) -> Runtime | None:
    """Put a runtime to use and give the one that was; calls that are under way end in the one they began in."""
    global _active
    previous, _active = _active, runtime
    return previous
