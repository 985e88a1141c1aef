"""The ends and births of processes: exit, fork, multiprocessing children, SIGTERM.

Hooks are registered once a process, at the first pipeline. A pipeline is held weakly, so one that is thrown
away costs nothing.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable
from types import FrameType
from typing import Protocol


class _Pipeline(Protocol):
    def shutdown(self, timeout_s: float | None = None) -> bool: ...

    def flush(self, timeout_s: float) -> bool: ...

    def start_afresh(self) -> None: ...


_live: weakref.WeakSet[_Pipeline] = weakref.WeakSet()
_is_hooked = False
_finalized_in = 0
_FORK_WAIT_S = 5.0


class Imports:
    """Held by the export thread while it imports. A fork waits for it: a child that is born in the middle of
    an import finds a module that is half there and stays so for ever.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._lock.release()

    def before_fork(self) -> None:
        """Wait for the import under way, though not for ever."""
        self._is_held = self._lock.acquire(timeout=_FORK_WAIT_S)

    def after_fork(self) -> None:
        """Let imports go on, in the parent as in the child."""
        if self._is_held:
            self._lock.release()
        else:
            self._lock = threading.Lock()


imports = Imports()


def watch(pipeline: _Pipeline) -> None:
    """Shut the pipeline down when the process ends, and give it a fresh start in a forked child."""
    global _is_hooked
    if not _is_hooked:
        _is_hooked = True
        atexit.register(_shut_down_all)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=_before_fork,
                after_in_parent=imports.after_fork,
                after_in_child=_start_all_afresh,
            )
    _live.add(pipeline)


def watch_worker() -> None:
    """Workers that end by `os._exit` run no `atexit`: have those of multiprocessing and of Celery send what is queued.

    Called when the export thread starts, since a child clears the finalizers it was born with.
    """
    _watch_child_of_multiprocessing()
    _watch_workers_of_celery()


def _watch_workers_of_celery() -> None:
    """Its signal comes in a worker of the prefork pool that ends, recycled (`max_tasks_per_child`) or shut down.

    Connected before a fork as well: a worker may end before its export thread has run for the first time.
    """
    ending = getattr(sys.modules.get("celery.signals"), "worker_process_shutdown", None)
    if ending is not None:
        ending.connect(_end_worker, weak=False, dispatch_uid="tierlight")


def _end_worker(**_: object) -> None:
    _shut_down_all()


def _before_fork() -> None:
    _watch_workers_of_celery()
    imports.before_fork()


def _watch_child_of_multiprocessing() -> None:
    """Such a child runs only its own finalizers: add one."""
    global _finalized_in
    process = sys.modules.get("multiprocessing.process")
    if process is None or process.parent_process() is None or _finalized_in == os.getpid():
        return
    from multiprocessing.util import Finalize

    _finalized_in = os.getpid()
    Finalize(None, _shut_down_all, exitpriority=10)


def install_signal_flush(signals: tuple[int, ...] = (signal.SIGTERM,), timeout_s: float = 2.0) -> None:
    """Send what is queued when one of these signals comes, then do what would have been done without us.

    Without this, the default action of SIGTERM ends the process with up to a second of calls unsent. A
    handler that was there before is called afterwards; with the default action the process ends by the same
    signal, so its parent sees what it would have seen. Workers of uvicorn end that way. Call it from the main thread, after any other handler
    is installed.

    Args:
        timeout_s: longest wait; what is not sent by then is in the spool.

    Raises:
        ValueError: not called from the main thread.
    """
    for number in signals:
        before = signal.getsignal(number)
        signal.signal(number, _handler(before, timeout_s))


def _handler(
    before: Callable[[int, FrameType | None], object] | int | None, timeout_s: float
) -> Callable[[int, FrameType | None], None]:
    def flush_first(number: int, frame: FrameType | None) -> None:
        if before is signal.SIG_DFL:
            for pipeline in tuple(_live):
                pipeline.shutdown(timeout_s)
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        for pipeline in tuple(_live):
            pipeline.flush(timeout_s)
        if callable(before):
            before(number, frame)

    return flush_first


def _shut_down_all() -> None:
    for pipeline in tuple(_live):
        pipeline.shutdown()


def _start_all_afresh() -> None:
    imports.after_fork()
    for pipeline in tuple(_live):
        pipeline.start_afresh()
