"""Our own faults in the user's process: logged once each, counted, and never raised.

Everything that tierlight does around a call runs under `guarded`; what the user's function returns or
raises never passes through it.
"""

from __future__ import annotations

import functools
import logging
from collections import Counter
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

log = logging.getLogger("tierlight")
faults: Counter[str] = Counter()


def report(place: str, error: BaseException) -> None:
    """Count a fault of ours; the first one of its place and type is logged with its traceback.

    The message of the error is left out: it may quote a prompt.
    """
    key = f"{place}:{type(error).__name__}"
    faults[key] += 1
    if faults[key] == 1:
        frames = []
        traceback = error.__traceback__
        while traceback is not None:
            code = traceback.tb_frame.f_code
            frames.append(f"{code.co_filename.rpartition('/')[2]}:{traceback.tb_lineno} {code.co_qualname}")
            traceback = traceback.tb_next
        log.warning(
            "tierlight could not %s (%s); the call itself is not affected. Raised at %s",
            place,
            type(error).__name__,
            " < ".join(reversed(frames)),
        )


def guarded(place: str) -> Callable[[Callable[P, R]], Callable[P, R | None]]:
    """Make a function of ours harmless: it gives None where it would have raised.

    Args:
        place: what it was about to do, as a verb phrase: "record the end of a call".
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R | None]:
        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> R | None:
            try:
                return function(*args, **kwargs)
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:  # noqa: BLE001  the one place where nothing may escape
                report(place, error)
                return None

        return run

    return decorate


def attempt(place: str, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> tuple[bool, R | None]:
    """Whether the function went well, and what it gave."""
    try:
        return True, function(*args, **kwargs)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001  hooks of the user's and readers of foreign objects may raise anything
        report(place, error)
        return False, None
