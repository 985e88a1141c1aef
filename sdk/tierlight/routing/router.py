"""`Router`: ask by route, and let the policy say which model answers. Nothing here fails a call by a fault of its own."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
import weakref
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from .. import semconv as s
from .._call import Call
from .._context import Entered, Unsampled, begin, enter, leave
from .._guard import attempt
from .._identity import SystemClock
from .._messages import text_of
from .._record import Clock
from .._relay import relay, relay_async
from .._runtime import active
from .._spec import Request, RouteSpec, base_attributes
from .._tap import Tap
from .._usage import usage_from
from ..errors import ConfigurationError
from . import engine
from .breaker import SHARED, BreakerBoard
from .decide import Chooser, Decision, RouteRequest, decide, safe_decision
from .devices import Devices
from .engine import Job, Reply, Send, Sleep, key_of
from .policy import Policy, Route, Target
from .providers import HttpProvider, Limits, ModelRequest, Provider
from .shadow import Shadows
from .source import PolicySource
from .validators import Check, Verdict

if TYPE_CHECKING:
    from ..pricing import PriceBook

_ROUTER_PROMPT: Final = "How hard is this request for a language model? Answer with one word: trivial, moderate or complex.\n\n{text}"
_ROUTER_CACHE: Final = 10_000
_ROUTER_CACHE_S: Final = 3600.0
_PLAIN_ROUTE: Final = Route(name="", strategy="task", candidates=(), default="")


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


class _View:
    """What the breakers and devices say, by target."""

    def __init__(self, policy: Policy, board: BreakerBoard, devices: Devices, now: float) -> None:
        self._policy, self._board, self._devices, self._now = policy, board, devices, now

    def is_available(self, target: str) -> bool:
        return self._board.is_available(key_of(self._policy.targets[target]), self._now)

    def free_at(self, target: str) -> float:
        return self._board.free_at(key_of(self._policy.targets[target]), self._now)

    def is_present(self, target: str) -> bool:
        return self._devices.is_present(self._policy.targets[target], self._now)


class Router:
    """Sends each call where the policy says, with fallbacks, cascades, experiments and one deadline.

    Args:
        policy: a `Policy`, the path of a TOML file, or the address of a collector's `/api/v1/policy`.
        providers: by provider name; one that is not named is reached over HTTP with the key of its usual variable.
        choosers: learned routers (`LearnedRouter`) by route, beside those that the policy names by file.
        checks: your functions for `kind = "callable"` validators, by name.
        prices: a price book, for shadow budgets and the cost on the span; None leaves both to the collector.
        board: breakers; by default all routers of the process share theirs.
        clock, sleep, asleep, rng: for tests.
    """

    def __init__(
        self,
        policy: Policy | str,
        *,
        providers: Mapping[str, Provider] | None = None,
        choosers: Mapping[str, Chooser] | None = None,
        checks: Mapping[str, Check] | None = None,
        prices: PriceBook | None = None,
        board: BreakerBoard | None = None,
        clock: Clock | None = None,
        sleep: Callable[[float], None] = time.sleep,
        asleep: Callable[[float], Any] = asyncio.sleep,
        rng: random.Random | None = None,
    ) -> None:
        self._source = PolicySource(policy)
        self._providers = dict(providers or {})
        self._given_choosers = dict(choosers or {})
        self._choosers: tuple[str, Mapping[str, Chooser]] = ("", {})
        self._checks = dict(checks or {})
        self._prices = prices
        self._board = board if board is not None else SHARED
        self._clock: Clock = clock if clock is not None else SystemClock()
        self._sleep, self._asleep = sleep, asleep
        self._rng = rng if rng is not None else random.Random()
        self._router_words: OrderedDict[bytes, tuple[float, str]] = OrderedDict()
        self._devices = Devices(self._provider)
        self._shadows = Shadows(self._provider, prices)

    @property
    def policy(self) -> Policy:
        """The policy in use; of a served one the last good revision."""
        return self._source.current()

    @property
    def stats(self) -> Mapping[str, int]:
        """Counters: shadows sent, dropped, skipped; policy refreshes that failed."""
        return MappingProxyType({**self._shadows.counters, **self._source.counters})

    def close(self) -> None:
        """Stop polling and shadows. A router that is not closed ends with the process."""
        self._source.close()
        self._shadows.close()

    # ---- asking -----------------------------------------------------------------------------------------

    def chat(
        self,
        route: str,
        messages: str | Sequence[Mapping[str, Any]],
        *,
        target: str = "",
        segment: str = "",
        conversation: str = "",
        user: str = "",
        **settings: Any,
    ) -> Routed:
        """Answer a chat on a route.

        Args:
            messages: a prompt, or messages in OpenAI's form.
            target: ask this one, whatever the policy says.
            segment: a slice of the route, the task of a learned router.
            conversation, user: ids for splits that stick to them; the user's leaves the process only as a hash.
            settings: max_tokens, temperature, tools, ... by the names of OpenAI.

        Raises:
            RoutingError: no target, no time, or a provider's refusal; your own functions' exceptions come unchanged.
        """
        return self._run(self._asked(route, _chat(messages, settings), target, segment, conversation, user))

    async def achat(
        self,
        route: str,
        messages: str | Sequence[Mapping[str, Any]],
        *,
        target: str = "",
        segment: str = "",
        conversation: str = "",
        user: str = "",
        **settings: Any,
    ) -> Routed:
        """`chat`, without holding up the event loop."""
        return await self._arun(
            self._asked(route, _chat(messages, settings), target, segment, conversation, user)
        )

    def embed(self, route: str, texts: Sequence[str], *, target: str = "", **settings: Any) -> Routed:
        """Vectors of texts, from a target that makes them."""
        request = ModelRequest("embeddings", inputs=tuple(texts), settings=settings)
        return self._run(self._asked(route, request, target))

    async def aembed(self, route: str, texts: Sequence[str], *, target: str = "", **settings: Any) -> Routed:
        """`embed`, without holding up the event loop."""
        request = ModelRequest("embeddings", inputs=tuple(texts), settings=settings)
        return await self._arun(self._asked(route, request, target))

    def rerank(
        self, route: str, query: str, documents: Sequence[str], *, target: str = "", **settings: Any
    ) -> Routed:
        """Documents ranked for a query."""
        request = ModelRequest("rerank", inputs=tuple(documents), query=query, settings=settings)
        return self._run(self._asked(route, request, target))

    def stream(
        self, route: str, messages: str | Sequence[Mapping[str, Any]], *, target: str = "", segment: str = "",
        conversation: str = "", user: str = "", **settings: Any,
    ) -> Iterator[Any]:  # fmt: skip
        """The provider's chunks. Another target is tried only before the first chunk; after it an error passes through."""
        asked = self._asked(
            route, _chat(messages, settings), target, segment, conversation, user, is_streaming=True
        )
        return self._stream(asked)

    def astream(
        self, route: str, messages: str | Sequence[Mapping[str, Any]], *, target: str = "", segment: str = "",
        conversation: str = "", user: str = "", **settings: Any,
    ) -> AsyncIterator[Any]:  # fmt: skip
        """`stream`, without holding up the event loop."""
        asked = self._asked(
            route, _chat(messages, settings), target, segment, conversation, user, is_streaming=True
        )
        return self._astream(asked)

    # ---- what is the same whichever way it is driven ----------------------------------------------------

    def _asked(
        self, route: str, request: ModelRequest, target: str, segment: str = "", conversation: str = "", user: str = "",
        is_streaming: bool = False,
    ) -> _Asked:  # fmt: skip
        policy = self.policy
        known = policy.routes.get(route)
        defaults = policy.defaults
        declared = known or replace(
            _PLAIN_ROUTE,
            name=route,
            timeout_s=defaults.timeout_s,
            deadline_s=defaults.deadline_s,
            retries=defaults.retries,
        )
        texts = [text_of_message(message) for message in request.messages]
        asked = RouteRequest(
            route=route,
            text="\n".join([*texts, request.query, *request.inputs]).strip("\n"),
            operation=request.operation,
            modalities=_modalities(request.messages),
            segment=segment,
            unit_ids={"conversation": conversation, "user": user},
            forced=target,
        )
        return _Asked(self, policy, declared, request, asked, is_streaming)

    def _decision(self, asked: _Asked, call_id: str, word: str | None) -> Decision:
        units = {**asked.request.unit_ids, "call": call_id}
        request = replace(asked.request, unit_ids=units, router_word=word)
        view = _View(asked.policy, self._board, self._devices, self._clock.perf_ns() / 1e9)
        fine, decision = attempt(
            "decide a route", decide, asked.policy, request, view, self._rng, self._choosers_of(asked.policy)
        )
        if fine and decision is not None:
            return decision
        return safe_decision(asked.policy, request)

    def _choosers_of(self, policy: Policy) -> Mapping[str, Chooser]:
        version, choosers = self._choosers
        if version != policy.version:
            made: dict[str, Chooser] = {}
            for route in policy.routes.values():
                if route.strategy in ("embedding", "learned") and route.name not in self._given_choosers:
                    _, chooser = attempt(
                        f"load the chooser of route {route.name}", self._source.chooser, route
                    )
                    if chooser is not None:
                        made[route.name] = chooser
            choosers = {**made, **self._given_choosers}
            self._choosers = (policy.version, choosers)
        return choosers

    def _provider(self, target: Target) -> Provider:
        found = self._providers.get(target.name) or self._providers.get(target.provider)
        if found is None:
            if target.api == "callable":
                raise ConfigurationError(
                    f"target.{target.name}: give Router(providers={{{target.provider!r}: CallableProvider(...)}})"
                )
            found = self._providers[target.provider] = HttpProvider()
        return found

    def _known_word(self, text: str) -> tuple[bytes, str | None]:
        key = sha256(text.encode()).digest()
        found = self._router_words.get(key)
        if found is None or self._clock.perf_ns() / 1e9 - found[0] > _ROUTER_CACHE_S:
            return key, None
        return key, found[1]

    def _keep_word(self, key: bytes, word: str) -> None:
        self._router_words[key] = (self._clock.perf_ns() / 1e9, word)
        while len(self._router_words) > _ROUTER_CACHE:
            self._router_words.popitem(last=False)

    # ---- driving ----------------------------------------------------------------------------------------

    def _run(self, asked: _Asked) -> Routed:
        with asked.standing():
            return asked.routed(self._drive(asked.steps()))

    async def _arun(self, asked: _Asked) -> Routed:
        with asked.standing():
            return asked.routed(await self._adrive(asked.steps()))

    def _drive(self, steps: engine.Steps) -> Any:
        reply: Reply | None = None
        while True:
            try:
                step = steps.send(reply)
            except StopIteration as stop:
                return stop.value
            if isinstance(step, Sleep):
                self._sleep(step.seconds)
                reply = None
            else:
                reply = self._send(step)

    async def _adrive(self, steps: engine.Steps) -> Any:
        reply: Reply | None = None
        while True:
            try:
                step = steps.send(reply)
            except StopIteration as stop:
                return stop.value
            if isinstance(step, Sleep):
                await self._asleep(step.seconds)
                reply = None
            else:
                reply = await self._asend(step)

    def _send(self, step: Send) -> Reply:
        entered = _enter(step.call)
        try:
            provider = self._provider(step.target)
            if not step.is_streaming:
                return Reply(provider.send(step.target, step.request, step.limits))
            chunks = iter(provider.stream(step.target, step.request, step.limits))
            first = next(chunks, _NOTHING)
            _note_first(step.call)
            return Reply((first, chunks, step.call))
        except BaseException as error:  # noqa: BLE001  the engine decides, and raises what is not its own
            return Reply(error=error)
        finally:
            _leave(entered)

    async def _asend(self, step: Send) -> Reply:
        entered = _enter(step.call)
        try:
            provider = self._provider(step.target)
            if not step.is_streaming:
                return Reply(await provider.asend(step.target, step.request, step.limits))
            chunks = aiter(provider.astream(step.target, step.request, step.limits))
            async with asyncio.timeout(step.limits.first_token_s):
                first = await anext(chunks, _NOTHING)
            _note_first(step.call)
            return Reply((first, chunks, step.call))
        except BaseException as error:  # noqa: BLE001  the engine decides, and raises what is not its own
            return Reply(error=error)
        finally:
            _leave(entered)

    def _stream(self, asked: _Asked) -> Iterator[Any]:
        with asked.beginning():
            first, chunks, call = self._drive(asked.steps())
        return asked.followed(_chained(first, chunks), call)

    async def _astream(self, asked: _Asked) -> AsyncIterator[Any]:
        with asked.beginning():
            first, chunks, call = await self._adrive(asked.steps())
        async for chunk in asked.afollowed(_achained(first, chunks), call):
            yield chunk


_NOTHING: Final = object()


class _Asked:
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
        self._is_silenced = isinstance(found, Unsampled)
        entered = enter(found) if found is not None else None
        try:
            yield
        except BaseException as error:
            _leave(entered)
            failure = error
            self._close(lambda call: call.fail(failure))
            raise
        _leave(entered)

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

    async def afollowed(self, chunks: AsyncGenerator[Any, None], call: Call | None) -> AsyncIterator[Any]:
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
        call_id = self.call.id if self.call is not None else f"{self.router._rng.getrandbits(128):032x}"
        decision = self.router._decision(self, call_id, word)
        spent_us = (time.perf_counter_ns() - start) // 1000
        job = self.job = Job(
            policy=self.policy,
            route=self.route,
            request=self.body,
            decision=decision,
            clock=self.router._clock,
            rng=self.router._rng,
            board=self.router._board,
            record=self._record,
            checks=self.router._checks,
            is_streaming=self.is_streaming,
        )
        if self.call is not None:
            attempt("describe a decision", self._describe, self.call, decision, spent_us)
        result = yield from engine.run(job)
        attempt("queue a shadow", self._shadow, job)
        return result

    def _ask_router(self) -> engine.Steps:
        """What the router model says, from memory or from the model; "" where it failed or was late."""
        key, word = self.router._known_word(self.request.text)
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
        self.router._keep_word(key, said)
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
        conversation = self.request.unit_ids.get("conversation")
        if conversation:
            said[s.GEN_AI_CONVERSATION_ID] = conversation
        # A helper: a wrapped client inside the provider must not record the same request again.
        found = begin(runtime, spec, Request(operation, target.provider, target.model, said, is_helper=True))
        if not isinstance(found, Call):
            return None
        if target.is_free:
            found.cost(0.0)
        return found

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
        for target, share, budget, name in shadows:
            if target != job.answered and self.router._rng.random() < share:
                self.router._shadows.offer(
                    name, self.policy.targets[target], self.body, self.route, budget, share, self.call
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


# ---- small parts ----------------------------------------------------------------------------------------


def _enter(call: Call | None) -> Entered | None:
    return enter(call) if call is not None else None


def _leave(entered: Entered | None) -> None:
    if entered is not None:
        leave(entered)


def _note_first(call: Call | None) -> None:
    if call is not None:
        call.first_chunk()


def _chained(first: Any, chunks: Iterator[Any]) -> Generator[Any, None, None]:
    if first is not _NOTHING:
        yield first
        yield from chunks


async def _achained(first: Any, chunks: AsyncIterator[Any]) -> AsyncGenerator[Any, None]:
    if first is not _NOTHING:
        yield first
        async for chunk in chunks:
            yield chunk


def _chat(messages: str | Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> ModelRequest:
    asked = ({"role": "user", "content": messages},) if isinstance(messages, str) else tuple(messages)
    return ModelRequest("chat", messages=asked, settings=settings)


def text_of_message(message: Mapping[str, Any]) -> str:
    """The text of one message in OpenAI's form; its pictures and sounds say nothing."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence):
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))
    return ""


def _modalities(messages: Sequence[Mapping[str, Any]]) -> frozenset[str]:
    kinds = {
        str(part.get("type", ""))
        for message in messages
        if isinstance(message.get("content"), list)
        for part in message["content"]
        if isinstance(part, Mapping)
    }
    found = {"image" for kind in kinds if "image" in kind} | {"audio" for kind in kinds if "audio" in kind}
    return frozenset(found)
