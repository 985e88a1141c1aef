"""The same request sent to another target after the user has his answer: one worker, a bounded queue, a daily budget."""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from .. import semconv as s
from .._call import Call
from .._guard import report
from .._runtime import active
from .._spec import Attributes, Request, RouteSpec, base_attributes
from .._usage import ResponseFacts, usage_from
from .declared import Route, Target
from .providers import Provider
from .request import Limits, ModelRequest
from .spans import note
from .validators import Answer, Check, Verdict, check, judge_request, judge_verdict

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
    judges: Mapping[str, Target]  # the targets that the route's judges ask, by name


class Shadows:
    """Sends shadow requests on a thread of its own. Nothing it does reaches the caller.

    Its answer goes through the route's own validators and judge, so that it can be compared with the one that the
    user had. A shadow whose price is unknown stops: a budget that can't be counted can't be kept.
    """

    def __init__(
        self,
        provider: Callable[[Target], Provider],
        prices: PriceBook | None,
        checks: Mapping[str, Check] | None = None,
    ) -> None:
        self._provider = provider
        self._prices = prices
        self._checks = checks if checks is not None else {}
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
        judges: Mapping[str, Target],
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
            self._queue.put_nowait(_Waiting(name, target, request, route, budget, share, beside, judges))
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
        target = waiting.target
        if self._spent.get((waiting.name, _today()), 0.0) >= waiting.budget:
            self.counters["shadow_over_budget"] += 1
            return
        call = _begin(waiting, target, "shadow", waiting.share)
        asked = self._ask(waiting, target, waiting.request, call)
        if asked is None:
            self.counters["shadow_failed"] += 1
            return
        response, facts = asked
        note(call, self._verdicts(waiting, response))
        if call is not None:
            call.succeed(facts)
        self.counters["shadow_sent"] += 1

    def _ask(
        self, waiting: _Waiting, target: Target, request: ModelRequest, call: Call | None
    ) -> tuple[Any, ResponseFacts | None] | None:
        """The answer, with its cost counted; None where the provider failed, which ends the span."""
        route, start_ns = waiting.route, time.time_ns()
        try:
            limits = Limits(route.timeout_s, route.first_token_timeout_s)
            response = self._provider(target).send(target, request, limits)
        except Exception as error:  # noqa: BLE001  whatever the provider raises is only noted
            if call is not None:
                call.fail(error)
            return None
        if call is not None:
            call.answer_arrived()
        facts = usage_from(response)
        cost = self._cost(target, facts, start_ns)
        if cost is None:
            self._stopped.add(waiting.name)
            self.counters["shadow_unpriced"] += 1
        else:
            key = (waiting.name, _today())
            self._spent[key] = self._spent.get(key, 0.0) + cost
        return response, facts

    def _verdicts(self, waiting: _Waiting, response: Any) -> tuple[Verdict, ...]:
        """What the route's checks say, in the order and up to the failure where a user's answer is checked."""
        answer, found = Answer.of(response), []
        for spec in sorted(waiting.route.validators, key=lambda one: one.kind == "judge"):
            if spec.kind != "judge":
                found.append(check(spec, waiting.request, answer, self._checks))
            else:
                judge = waiting.judges[spec.options["target"]]
                call = _begin(waiting, judge, "judge", None)
                asked = self._ask(waiting, judge, judge_request(spec, waiting.request, answer), call)
                if asked is None:
                    break
                if call is not None:
                    call.succeed(asked[1])
                found.append(judge_verdict(spec, asked[0]))
            if not found[-1].passed:
                break
        return tuple(found)

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


def _begin(waiting: _Waiting, target: Target, role: str, share: float | None) -> Call | None:
    """The span of a shadow, or of its judge, beside the call's: the same trace and the same call id."""
    runtime, beside = active(), waiting.beside
    if runtime is None or beside is None:
        return None
    spec = RouteSpec(
        waiting.route.name,
        base_attributes(waiting.route.name, target.tier, purpose=role),
        provider=target.provider,
        model=target.model,
    )
    attributes: Attributes = {
        s.TIERLIGHT_ATTEMPT_ROLE: role,
        s.TIERLIGHT_ATTEMPT_REASON: "shadow",
        s.TIERLIGHT_ATTEMPT_FINAL: False,
        s.TIERLIGHT_EXPERIMENT_ID: waiting.name,
    }
    if share is not None:
        attributes[s.TIERLIGHT_ACT_PROB] = share
    request = Request(waiting.request.operation, target.provider, target.model, attributes)
    call = Call(runtime, spec, None, beside.trace_id, beside.span_id, request)
    call.id = beside.id
    if runtime.joined is not None:
        runtime.joined.start(call)
    return call
