"""One call of a router: its span, its decision, its attempts, its shadows, and the answer for the caller."""

from __future__ import annotations

import contextlib
import time
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from .. import semconv as s
from .._call import Call
from .._content import Frozen
from .._context import Entered, Unsampled, begin, enter, leave
from .._guard import attempt
from .._messages import request_contents, text_of
from .._relay import relay, relay_async
from .._runtime import active
from .._spec import Request, RouteSpec, base_attributes
from .._tap import Tap
from .._usage import usage_from
from . import engine
from .artefact import features_of
from .decide import Decision, RouteRequest
from .declared import Route, Target
from .engine import Job, Send
from .policy import Policy
from .request import Limits, ModelRequest
from .validators import Verdict

if TYPE_CHECKING:
    from .router import Router

_ROUTER_PROMPT: Final = "How hard is this request for a language model? Answer with one word: trivial, moderate or complex.\n\n{text}"


@dataclass(frozen=True, slots=True)
class Routed:
    """An answer and how it came about.

    Attributes:
        response: the provider's own JSON, or whatever your function returned.
        target: the target that answered.
        call_id: for scores of this answer, now or days later.
    """

    response: Any
    text: str
    target: str
    model: str
    call_id: str
    decision: Decision
    attempts: int = 1
    escalations: int = 0
    fallbacks: int = 0
    verdicts: tuple[Verdict, ...] = field(default=())


NOTHING: Final = object()
"""The first chunk of a stream that has none."""


class Asked:
    """One call of a router from its span's beginning to its end."""

    def __init__(
        self,
        router: Router,
        policy: Policy,
        route: Route,
        body: ModelRequest,
        request: RouteRequest,
        is_streaming: bool,
    ) -> None:
        self.router, self.policy, self.route, self.body = router, policy, route, body
        self.request, self.is_streaming = request, is_streaming
        self.call: Call | None = None
        self.job: Job | None = None
        self._is_silenced = False

    @contextlib.contextmanager
    def standing(self) -> Iterator[None]:
        """The span around all attempts, ended with them."""
        with self.beginning():
            yield
        self._close(lambda call: call.succeed(None))

    @contextlib.contextmanager
    def beginning(self) -> Iterator[None]:
        """The span around all attempts, current while they run; ended here only if they fail."""
        runtime = active()
        spec = RouteSpec(self.route.name, base_attributes(self.route.name))
        marked = Request(self.body.operation, is_route=True)
        found = begin(runtime, spec, marked) if runtime is not None else None
        self.call = found if isinstance(found, Call) else None
        if self.call is not None:
            self.call.attempts = []
        self._is_silenced = isinstance(found, Unsampled)
        entered = enter(found) if found is not None else None
        try:
            yield
        except BaseException as error:
            leave_call(entered)
            failure = error
            self._close(lambda call: call.fail(failure))
            raise
        leave_call(entered)

    def followed(self, chunks: Generator[Any, None, None], call: Call | None) -> Iterator[Any]:
        """The chunks, with the ends of the attempt's span and of the one around it kept."""
        if call is None:
            return chunks
        tap = Tap(call)
        read = self._ended(relay(chunks, tap, call))
        tap.watch(read)
        weakref.finalize(read, self._close, Call.abandon)
        return read

    def _ended(self, chunks: Iterator[Any]) -> Generator[Any, None, None]:
        try:
            yield from chunks
        except GeneratorExit:
            self._close(Call.abandon)
            raise
        except BaseException as error:
            failure = error
            self._close(lambda call: call.fail(failure))
            raise
        self._close(lambda call: call.succeed(None))

    async def afollowed(
        self, chunks: AsyncGenerator[Any, None], call: Call | None
    ) -> AsyncGenerator[Any, None]:
        """`followed`, for an asynchronous stream."""
        read = relay_async(lambda: (chunks, Tap(call), call))() if call is not None else chunks
        try:
            async for chunk in read:
                yield chunk
        except GeneratorExit:
            await read.aclose()
            self._close(Call.abandon)
            raise
        except BaseException as error:
            failure = error
            self._close(lambda call: call.fail(failure))
            raise
        self._close(lambda call: call.succeed(None))

    def steps(self) -> engine.Steps:
        """Decide, run the attempts, and queue shadows."""
        word = None
        if self.route.strategy == "router_model" and not self.request.forced:
            word = yield from self._ask_router()
        start = time.perf_counter_ns()
        call_id = self.call.id if self.call is not None else f"{self.router.rng.getrandbits(128):032x}"
        decision = self.router.decision(self, call_id, word)
        spent_us = (time.perf_counter_ns() - start) // 1000
        job = self.job = Job(
            policy=self.policy,
            route=self.route,
            request=self.body,
            decision=decision,
            clock=self.router.clock,
            rng=self.router.rng,
            board=self.router.board,
            record=self._record,
            latencies=self.router.latencies,
            checks=self.router.checks,
            is_streaming=self.is_streaming,
        )
        if self.call is not None:
            attempt("describe a decision", self._describe, self.call, decision, spent_us)
        result = yield from engine.run(job)
        attempt("queue a shadow", self._shadow, job)
        return result

    def _ask_router(self) -> engine.Steps:
        """What the router model says, from memory or from the model; "" where it failed or was late."""
        key, word = self.router.known_word(self.request.text)
        if word is not None:
            return word
        target = self.policy.targets[self.route.router]
        prompt = _ROUTER_PROMPT.format(text=self.request.text)
        asked = ModelRequest(
            messages=({"role": "user", "content": prompt},), settings={"max_tokens": 4, "temperature": 0}
        )
        attributes = {s.TIERLIGHT_ATTEMPT_ROLE: "router", s.TIERLIGHT_ATTEMPT_FINAL: False}
        call = self._record(target, "chat", attributes, "production")
        limit = self.route.router_timeout_s
        reply = yield Send(target, asked, Limits(limit, limit), call)
        assert reply is not None
        if reply.error is not None:
            if call is not None:
                call.fail(reply.error)
            if not isinstance(reply.error, Exception):
                raise reply.error
            return ""
        if call is not None:
            call.succeed(usage_from(reply.result))
        said = text_of(reply.result) or "-"
        self.router.keep_word(key, said)
        return said

    def _record(
        self, target: Target, operation: str, attributes: Mapping[str, Any], purpose: str
    ) -> Call | None:
        runtime = active()
        if runtime is None or self._is_silenced:
            return None
        spec = RouteSpec(
            self.route.name,
            base_attributes(self.route.name, target.tier, purpose=purpose),
            provider=target.provider,
            model=target.model,
        )
        said = {
            **attributes,
            s.TIERLIGHT_POLICY_VERSION: self.policy.version,
            s.TIERLIGHT_STRATEGY: self._strategy(),
        }
        if self.request.segment:
            said[s.TIERLIGHT_SEGMENT] = self.request.segment
        decision = self.job.decision if self.job is not None else None
        if decision is not None and decision.experiment and purpose == "production":
            said[s.TIERLIGHT_EXPERIMENT_ID] = decision.experiment
            said[s.TIERLIGHT_EXPERIMENT_ARM] = decision.arm
        if self.router.sends_features and purpose == "production" and self.request.text:
            said[s.TIERLIGHT_FEATURES_V1] = features_of(self.request.text)
        conversation = self.request.unit_ids.get("conversation")
        if conversation:
            said[s.GEN_AI_CONVERSATION_ID] = conversation
        # A helper: a wrapped client inside the provider must not record the same request again.
        captures = runtime.content.captures and purpose == "production"
        contents = attempt("read a request", self._contents)[1] if captures else None
        request = Request(operation, target.provider, target.model, said, contents, is_helper=True)
        found = begin(runtime, spec, request)
        if not isinstance(found, Call):
            return None
        if target.is_free:
            found.cost(0.0)
        return found

    def _contents(self) -> dict[str, Frozen]:
        body = self.body
        asked = {"messages": list(body.messages)} if body.messages else {"input": [*body.inputs]}
        return request_contents({**asked, **body.settings}, body.settings)

    def _strategy(self) -> str:
        return self.job.decision.strategy if self.job is not None else self.route.strategy

    def _describe(self, call: Call, decision: Decision, spent_us: int) -> None:
        scores = [one.score for one in decision.candidates]
        said: dict[str, Any] = {
            s.TIERLIGHT_STRATEGY: decision.strategy,
            s.TIERLIGHT_POLICY_VERSION: decision.policy_version,
            s.TIERLIGHT_ROUTER_VERSION: decision.router_version,
            s.TIERLIGHT_DECISION_CANDIDATES: tuple(one.target for one in decision.candidates),
            s.TIERLIGHT_DECISION_EXCLUDED: tuple(one.excluded for one in decision.candidates),
            s.TIERLIGHT_DECISION_CHOSEN: decision.chosen,
            s.TIERLIGHT_DECISION_REASON: decision.reason,
            s.TIERLIGHT_DECISION_DURATION_US: spent_us,
            s.TIERLIGHT_ACT_PROB: float(decision.act_prob),
            s.TIERLIGHT_EXPLORED: decision.explored,
        }
        if all(score is not None for score in scores):
            # Texts: the record's arrays hold no numbers.
            said[s.TIERLIGHT_DECISION_SCORES] = tuple(f"{score:.6g}" for score in scores)
        if decision.threshold is not None:
            said[s.TIERLIGHT_DECISION_THRESHOLD] = float(decision.threshold)
        if decision.experiment:
            said[s.TIERLIGHT_EXPERIMENT_ID] = decision.experiment
            said[s.TIERLIGHT_EXPERIMENT_ARM] = decision.arm
            said[s.TIERLIGHT_EXPERIMENT_DELIVERED] = decision.is_delivered
        if self.route.baseline:
            said[s.TIERLIGHT_CALL_BASELINE_TARGET] = self.route.baseline
            baseline = self.policy.targets[self.route.baseline]
            call.baseline = (baseline.provider, baseline.model)
        call.annotate(said)

    def _close(self, end: Callable[[Call], object]) -> None:
        call, job = self.call, self.job
        if call is None:
            return
        if job is not None:
            said: dict[str, Any] = {
                s.TIERLIGHT_CALL_ATTEMPTS: job.attempts,
                s.TIERLIGHT_CALL_ESCALATIONS: job.escalations,
                s.TIERLIGHT_CALL_FALLBACKS: job.fallbacks,
            }
            if job.answered:
                said[s.TIERLIGHT_TIER] = job.target(job.answered).tier
                if job.decision.experiment:
                    said[s.TIERLIGHT_EXPERIMENT_DELIVERED] = job.answered == job.decision.assigned
            call.annotate(said)
        end(call)

    def _shadow(self, job: Job) -> None:
        if self.is_streaming or not job.answered:
            return
        shadows = [
            (one.target, one.share, one.max_spend_per_day, one.name)
            for one in self.policy.shadows.values()
            if one.route == self.route.name
            and (
                one.allow_new_provider or self.policy.targets[one.target].provider in self._providers_in_use()
            )
        ]
        if job.accepted_step and self.route.verify_accepted:
            top = self.route.candidates[-1]
            shadows.append(
                (
                    top,
                    self.route.verify_accepted,
                    self.route.verify_max_spend_per_day,
                    f"verify:{self.route.name}",
                )
            )
        judges = {
            name: self.policy.targets[name]
            for name in (one.options["target"] for one in self.route.validators if one.kind == "judge")
        }
        for target, share, budget, name in shadows:
            if target != job.answered and self.router.rng.random() < share:
                self.router.shadows.offer(
                    name, self.policy.targets[target], self.body, self.route, budget, share, self.call, judges
                )

    def _providers_in_use(self) -> set[str]:
        names = [
            *self.route.candidates,
            *(other for one in self.route.candidates for other in self.policy.chain(one)),
        ]
        return {self.policy.targets[name].provider for name in names}

    def routed(self, response: Any) -> Routed:
        """The answer for the caller."""
        job = self.job
        assert job is not None
        return Routed(
            response=response,
            text=attempt("read an answer", text_of, response)[1] or "",
            target=job.answered,
            model=job.target(job.answered).model,
            call_id=self.call.id if self.call is not None else "",
            decision=job.decision,
            attempts=job.attempts,
            escalations=job.escalations,
            fallbacks=job.fallbacks,
            verdicts=job.verdicts,
        )


def enter_call(call: Call | None) -> Entered | None:
    """Let what runs from here on belong to an attempt, where it has a span."""
    return enter(call) if call is not None else None


def leave_call(entered: Entered | None) -> None:
    """Take back what `enter_call` set."""
    if entered is not None:
        leave(entered)


def note_first(call: Call | None) -> None:
    """The first chunk of a stream is there."""
    if call is not None:
        call.first_chunk()


def chained(first: Any, chunks: Iterator[Any]) -> Generator[Any, None, None]:
    """A stream whose first chunk was taken already."""
    if first is not NOTHING:
        yield first
        yield from chunks


async def achained(first: Any, chunks: AsyncIterator[Any]) -> AsyncGenerator[Any, None]:
    """`chained`, for an asynchronous stream."""
    if first is not NOTHING:
        yield first
        async for chunk in chunks:
            yield chunk
