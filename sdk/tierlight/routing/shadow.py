"""The same request sent to another target after the user has his answer: one worker, a bounded queue, a daily budget."""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from .. import semconv as s
from .._call import Call
from .._guard import report
from .._runtime import active
from .._spec import Attributes, Request, RouteSpec, base_attributes
from .._usage import ResponseFacts, usage_from
from .policy import Route, Target
from .providers import Limits, ModelRequest, Provider

if TYPE_CHECKING:
    from ..pricing import PriceBook

MOST_WAITING: Final = 64
_DAY_S: Final = 86_400


@dataclass(frozen=True, slots=True)
class _Waiting:
    name: str
    target: Target
    request: ModelRequest
    route: Route
    budget: float
    share: float
    beside: Call | None


class Shadows:
    """Sends shadow requests on a thread of its own. Nothing it does reaches the caller.

    A shadow whose price is unknown stops: a budget that can't be counted can't be kept.
    """

    def __init__(self, provider: Callable[[Target], Provider], prices: PriceBook | None) -> None:
        self._provider = provider
        self._prices = prices
        self._queue: queue.Queue[_Waiting | None] = queue.Queue(MOST_WAITING)
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._spent: dict[tuple[str, int], float] = {}
        self._stopped: set[str] = set()
        self.counters: Counter[str] = Counter()

    def offer(
        self,
        name: str,
        target: Target,
        request: ModelRequest,
        route: Route,
        budget: float,
        share: float,
        beside: Call | None,
    ) -> None:
        """Queue one shadow; a full queue drops it and counts."""
        if name in self._stopped or self._spent.get((name, _today()), 0.0) >= budget:
            self.counters["shadow_over_budget"] += 1
            return
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._work, name="tierlight-shadow", daemon=True)
                self._thread.start()
        try:
            self._queue.put_nowait(_Waiting(name, target, request, route, budget, share, beside))
        except queue.Full:
            self.counters["shadow_dropped"] += 1

    def drain(self, timeout_s: float = 5.0) -> bool:
        """Wait until everything queued was sent; for tests and orderly ends."""
        deadline = time.monotonic() + timeout_s
        while self._queue.unfinished_tasks and time.monotonic() < deadline:
            time.sleep(0.002)
        return not self._queue.unfinished_tasks

    def close(self) -> None:
        """Leave what waits unsent and stop the thread."""
        while True:
            try:
                self._queue.get_nowait()
                self._queue.task_done()
            except queue.Empty:
                break
        if self._thread is not None and self._thread.is_alive():
            self._queue.put(None)

    def _work(self) -> None:
        while True:
            waiting = self._queue.get()
            try:
                if waiting is None:
                    return
                self._send(waiting)
            except Exception as error:  # noqa: BLE001  a shadow's fault is nobody's
                self.counters["shadow_failed"] += 1
                report("send a shadow", error)
            finally:
                self._queue.task_done()

    def _send(self, waiting: _Waiting) -> None:
        target, route = waiting.target, waiting.route
        if self._spent.get((waiting.name, _today()), 0.0) >= waiting.budget:
            self.counters["shadow_over_budget"] += 1
            return
        call = _begin(waiting)
        start_ns = time.time_ns()
        try:
            response = self._provider(target).send(
                target, waiting.request, Limits(route.timeout_s, route.first_token_timeout_s)
            )
        except Exception as error:  # noqa: BLE001  whatever the provider raises is only noted
            self.counters["shadow_failed"] += 1
            if call is not None:
                call.fail(error)
            return
        facts = usage_from(response)
        if call is not None:
            call.succeed(facts)
        self.counters["shadow_sent"] += 1
        cost = self._cost(target, facts, start_ns)
        if cost is None:
            self._stopped.add(waiting.name)
            self.counters["shadow_unpriced"] += 1
        else:
            key = (waiting.name, _today())
            self._spent[key] = self._spent.get(key, 0.0) + cost

    def _cost(self, target: Target, facts: ResponseFacts | None, at_ns: int) -> float | None:
        if target.is_free:
            return 0.0
        if self._prices is None or facts is None or not facts.has_usage:
            return None
        from ..pricing import Cost, Usage

        usage = Usage(
            facts.input_tokens, facts.output_tokens, facts.cached_input_tokens, facts.cache_write_input_tokens
        )
        cost = self._prices.price(usage, target.provider, target.model, at_ns, response_model=facts.model)
        return cost.nusd / 1e9 if isinstance(cost, Cost) else None


def _today() -> int:
    return int(time.time()) // _DAY_S


def _begin(waiting: _Waiting) -> Call | None:
    """The shadow's span beside the call's: the same trace and the same call id."""
    runtime, beside, target = active(), waiting.beside, waiting.target
    if runtime is None or beside is None:
        return None
    spec = RouteSpec(
        waiting.route.name,
        base_attributes(waiting.route.name, target.tier, purpose="shadow"),
        provider=target.provider,
        model=target.model,
    )
    attributes: Attributes = {
        s.TIERLIGHT_ATTEMPT_ROLE: "shadow",
        s.TIERLIGHT_ATTEMPT_REASON: "shadow",
        s.TIERLIGHT_ATTEMPT_FINAL: False,
        s.TIERLIGHT_ACT_PROB: waiting.share,
        s.TIERLIGHT_EXPERIMENT_ID: waiting.name,
    }
    request = Request(waiting.request.operation, target.provider, target.model, attributes)
    call = Call(runtime, spec, None, beside.trace_id, beside.span_id, request)
    call.id = beside.id
    if runtime.joined is not None:
        runtime.joined.start(call)
    return call
