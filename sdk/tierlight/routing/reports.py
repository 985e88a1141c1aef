"""What the end of an attempt means for the breaker of its target."""

from __future__ import annotations

from .breaker import BreakerBoard
from .declared import BreakerSettings, Target
from .faults import Fault


def key_of(target: Target) -> str:
    """The breaker's key: what fails together."""
    return f"{target.provider}/{target.model}"


def tell_success(board: BreakerBoard, settings: BreakerSettings, target: Target, now: float) -> None:
    """The target answered."""
    board.tell(key_of(target), now, settings, lambda breaker: breaker.succeed(now), "ok")


def tell_fault(
    board: BreakerBoard, settings: BreakerSettings, target: Target, fault: Fault, now: float
) -> None:
    """The target failed: by its own fault, by a refused key, because it asks to wait, or by nothing of its own."""
    key = key_of(target)
    match fault.kind:
        case "server" | "timeout":
            board.tell(key, now, settings, lambda breaker: breaker.fail(now), fault.kind)
        case "auth" | "not_found":
            cause = "auth" if fault.kind == "auth" else "model_gone"
            board.tell(key, now, settings, lambda breaker: breaker.trip(now), cause)
        case "rate_limit":
            wait = fault.retry_after_s if fault.retry_after_s is not None else 1.0
            board.tell(key, now, settings, lambda breaker: breaker.rest(now, wait), fault.kind)
        case _:
            board.tell(key, now, settings, lambda breaker: breaker.release(), fault.kind)
