"""Judges: a share of the answers, judged away from the calling thread, on a route and a bill of their own."""

from __future__ import annotations

import contextvars
import inspect
import os
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import semconv as s
from ._call import Call
from ._context import begin, enter, leave
from ._guard import attempt, report
from ._record import FinishedScore
from ._runtime import Runtime
from ._score import checked_name, checked_value
from ._spec import RouteSpec, base_attributes
from .errors import ConfigurationError

MAX_WAITING = 256


@dataclass(frozen=True, slots=True)
class Judge:
    """Says how good an answer was; given to `route(judge=...)`.

    Args:
        function: called with the result and then the arguments of the decorated function (in a `with` block,
            of the client's method), on a thread of ours; may be asynchronous. Of a stream the result is its
            text. Gives a number from 0 to 1, True or False, or None for no judgement. Calls that it makes through a wrapped client are booked on the judge's own route.
        name: of the score.
        share: which part of the answers is judged, above 0 and up to 1, drawn at random.
        route: where its own calls are booked; `<route>/judge` unless said otherwise.
        tier: of the judge's model.
        model, version: of the judge; a change opens a new baseline instead of raising an alert.
    """

    function: Callable[..., Any]
    name: str = "quality"
    share: float = 0.05
    route: str = ""
    tier: str | None = None
    model: str = ""
    version: str = ""

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise ConfigurationError(f"a judge is a function, got {type(self.function).__name__}")
        if not 0 < self.share <= 1:
            raise ConfigurationError(f"a judge's share is above 0 and up to 1, got {self.share!r}")
        checked_name(self.name)


@dataclass(slots=True)
class _Case:
    runtime: Runtime
    judge: Judge
    judge_spec: RouteSpec
    result: object
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    call_id: str
    trace_id: int
    span_id: int


def judge_spec(judge: Judge, judged: str) -> RouteSpec:
    """The route that a judge's own calls are booked on."""
    name = (judge.route or f"{judged}/judge")[:80]
    return RouteSpec(name, base_attributes(name, judge.tier, None, "judge"), needs_facts=True)


class _Bench:
    """The judges' thread and what waits for it. A forked child begins with an empty one."""

    def __init__(self) -> None:
        self.reset()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.reset)

    def reset(self) -> None:
        self.waiting: queue.Queue[_Case] = queue.Queue(MAX_WAITING)
        self.dropped = 0
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def add(self, case: _Case) -> None:
        try:
            self.waiting.put_nowait(case)
        except queue.Full:
            self.dropped += 1
            return
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="tierlight-judge", daemon=True)
                    self._thread.start()

    def _run(self) -> None:
        while True:
            case = self.waiting.get()
            try:
                # A context of its own: nothing of the thread's last case is left.
                contextvars.Context().run(_decide, case)
            except BaseException as error:  # noqa: BLE001  a judge is the user's code and may raise anything
                report("run a judge", error)
            finally:
                self.waiting.task_done()

    def drain(self, timeout_s: float) -> bool:
        """Whether all that waited was judged within the time."""
        until = time.monotonic() + timeout_s
        with self.waiting.all_tasks_done:
            while self.waiting.unfinished_tasks:
                left = until - time.monotonic()
                if left <= 0:
                    return False
                self.waiting.all_tasks_done.wait(left)
        return True


bench = _Bench()


def consider(call: Call, result: object) -> None:
    """Have the answer judged, if it is drawn."""
    if call.asked is None:
        return
    judged_by, args, kwargs = call.asked
    judge, spec = judged_by.judge, judged_by.judge_spec
    if judge is None or spec is None or call.runtime.chance() >= judge.share:
        return
    judged = call.answering()
    bench.add(
        _Case(call.runtime, judge, spec, result, args, kwargs, judged.id, judged.trace_id, judged.span_id)
    )


def _decide(case: _Case) -> None:
    standing = begin(case.runtime, case.judge_spec)
    if standing is None:
        return
    entered = enter(standing)
    is_run, verdict = attempt("run a judge", _ask, case)
    leave(entered)
    if isinstance(standing, Call):
        standing.succeed(None)
    value = checked_value(verdict) if is_run else None
    if value is None:
        return
    judge = case.judge
    attributes: dict[str, Any] = {
        s.TIERLIGHT_CALL_ID: case.call_id,
        s.GEN_AI_EVALUATION_NAME: judge.name,
        s.GEN_AI_EVALUATION_SCORE_VALUE: min(1.0, max(0.0, value)),
        s.TIERLIGHT_SCORE_KIND: "judge",
        s.TIERLIGHT_SCORE_SOURCE: f"judge:{judge.model or judge.name}",
        s.TIERLIGHT_SCORE_WEIGHT: 1 / judge.share,
    }
    if judge.model:
        attributes[s.TIERLIGHT_SCORE_JUDGE_MODEL] = judge.model
    if judge.version:
        attributes[s.TIERLIGHT_SCORE_JUDGE_VERSION] = judge.version
    case.runtime.sink.offer(
        FinishedScore(case.runtime.clock.time_ns(), attributes, case.trace_id, case.span_id)
    )


def _ask(case: _Case) -> Any:
    verdict = case.judge.function(case.result, *case.args, **case.kwargs)
    if inspect.iscoroutine(verdict):
        import asyncio

        return asyncio.run(verdict)
    return verdict
