"""`Router`: ask by route, and let the policy say which model answers. Nothing here fails a call by a fault of its own."""

from __future__ import annotations

import asyncio
import random
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from hashlib import sha256
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, cast

from .._guard import attempt
from .._identity import SystemClock
from .._record import Clock
from ..errors import ConfigurationError
from . import engine
from .asked import NOTHING, Asked, Routed, achained, chained, enter_call, leave_call, note_first
from .breaker import SHARED, BreakerBoard
from .decide import Chooser, Decision, RouteRequest, decide, safe_decision
from .declared import Route, Target
from .devices import Devices
from .engine import Reply, Send, Sleep
from .latencies import Latencies
from .policy import Policy
from .providers import HttpProvider, Provider
from .reports import key_of
from .request import ModelRequest
from .shadow import Shadows
from .source import PolicySource
from .validators import Check

if TYPE_CHECKING:
    from ..pricing import PriceBook
    from .artefact import LearnedRouter

_ROUTER_CACHE: Final = 10_000
_ROUTER_CACHE_S: Final = 3600.0
_PLAIN_ROUTE: Final = Route(name="", strategy="task", candidates=(), default="")


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
        policy: a `Policy`, the path of a TOML file, or the address of a collector's `/api/v1/policy`; without one what
            TIERLIGHT_POLICY names.
        providers: by provider name; one that is not named is reached over HTTP with the key of its usual variable.
        choosers: learned routers (`LearnedRouter`) by route, beside those that the policy names by file.
        checks: your functions for `kind = "callable"` validators, by name.
        default_policy: used until a collector's address has answered; without it a collector that is away at the
            start is an error.
        sends_features: put the hashed words of each prompt on its span, so that a route can be learnt from calls
            without their text. Hashes of words can be guessed: treat them as content.
        prices: a price book, for shadow budgets and the order of cascades; without one shadows of priced models stop
            after their first, and cascades are compared by list prices.
        board: breakers; by default all routers of the process share theirs.
        clock, sleep, asleep, rng: for tests.
    """

    def __init__(
        self,
        policy: Policy | str = "",
        *,
        providers: Mapping[str, Provider] | None = None,
        choosers: Mapping[str, Chooser] | None = None,
        checks: Mapping[str, Check] | None = None,
        default_policy: Policy | None = None,
        sends_features: bool = False,
        prices: PriceBook | None = None,
        board: BreakerBoard | None = None,
        clock: Clock | None = None,
        sleep: Callable[[float], None] = time.sleep,
        asleep: Callable[[float], Any] = asyncio.sleep,
        rng: random.Random | None = None,
    ) -> None:
        self._source = PolicySource(policy, default=default_policy, prices=prices)
        self.sends_features = sends_features
        self._providers = dict(providers or {})
        self._given_choosers = dict(choosers or {})
        self._choosers: tuple[str, Mapping[str, Chooser]] = ("", {})
        self.checks = dict(checks or {})
        self._prices = prices
        self.board = board if board is not None else SHARED
        self.clock: Clock = clock if clock is not None else SystemClock()
        self._sleep, self._asleep = sleep, asleep
        self.rng = rng if rng is not None else random.Random()
        self._router_words: OrderedDict[bytes, tuple[float, str]] = OrderedDict()
        self._devices = Devices(self._provider)
        self.latencies = Latencies()
        self.shadows = Shadows(self._provider, prices, self.checks)

    @property
    def policy(self) -> Policy:
        """The policy in use; of a served one the last good revision."""
        return self._source.current()

    @property
    def stats(self) -> Mapping[str, int]:
        """Counters: shadows sent, dropped, skipped; policy refreshes that failed."""
        return MappingProxyType({**self.shadows.counters, **self._source.counters})

    def refresh(self) -> None:
        """Ask a served policy's address now instead of within half a minute; what fails leaves the policy in use."""
        self._source.refresh()

    def close(self) -> None:
        """Stop polling and shadows. A router that is not closed ends with the process."""
        self._source.close()
        self.shadows.close()

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
    ) -> Asked:  # fmt: skip
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
        return Asked(self, policy, declared, request, asked, is_streaming)

    def decision(self, asked: Asked, call_id: str, word: str | None) -> Decision:
        units = {**asked.request.unit_ids, "call": call_id}
        request = replace(asked.request, unit_ids=units, router_word=word)
        view = _View(asked.policy, self.board, self._devices, self.clock.perf_ns() / 1e9)
        fine, decision = attempt(
            "decide a route", decide, asked.policy, request, view, self.rng, self._choosers_of(asked.policy)
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
            choosers = {name: self._timed(one) for name, one in {**made, **self._given_choosers}.items()}
            self._choosers = (policy.version, choosers)
        return choosers

    def _timed(self, chooser: Chooser) -> Chooser:
        """A learned router with a latency goal is told how long its candidates take."""
        if getattr(chooser, "slo_ms", None) is None:
            return chooser
        return replace(
            cast("LearnedRouter", chooser),
            latency_of=lambda name: self.latencies.median_ms(name, self.clock.perf_ns() / 1e9),
        )

    def _provider(self, target: Target) -> Provider:
        found = self._providers.get(target.name) or self._providers.get(target.provider)
        if found is None:
            if target.api == "callable":
                raise ConfigurationError(
                    f"target.{target.name}: give Router(providers={{{target.provider!r}: CallableProvider(...)}})"
                )
            found = self._providers[target.provider] = HttpProvider()
        return found

    def known_word(self, text: str) -> tuple[bytes, str | None]:
        key = sha256(text.encode()).digest()
        found = self._router_words.get(key)
        if found is None or self.clock.perf_ns() / 1e9 - found[0] > _ROUTER_CACHE_S:
            return key, None
        return key, found[1]

    def keep_word(self, key: bytes, word: str) -> None:
        self._router_words[key] = (self.clock.perf_ns() / 1e9, word)
        while len(self._router_words) > _ROUTER_CACHE:
            self._router_words.popitem(last=False)

    # ---- driving ----------------------------------------------------------------------------------------

    def _run(self, asked: Asked) -> Routed:
        with asked.standing():
            return asked.routed(self._drive(asked.steps()))

    async def _arun(self, asked: Asked) -> Routed:
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
        entered = enter_call(step.call)
        try:
            provider = self._provider(step.target)
            if not step.is_streaming:
                return Reply(provider.send(step.target, step.request, step.limits))
            chunks = iter(provider.stream(step.target, step.request, step.limits))
            first = next(chunks, NOTHING)
            note_first(step.call)
            return Reply((first, chunks, step.call))
        except BaseException as error:  # noqa: BLE001  the engine decides, and raises what is not its own
            return Reply(error=error)
        finally:
            leave_call(entered)

    async def _asend(self, step: Send) -> Reply:
        entered = enter_call(step.call)
        try:
            provider = self._provider(step.target)
            if not step.is_streaming:
                return Reply(await provider.asend(step.target, step.request, step.limits))
            chunks = aiter(provider.astream(step.target, step.request, step.limits))
            async with asyncio.timeout(step.limits.first_token_s):
                first = await anext(chunks, NOTHING)
            note_first(step.call)
            return Reply((first, chunks, step.call))
        except BaseException as error:  # noqa: BLE001  the engine decides, and raises what is not its own
            return Reply(error=error)
        finally:
            leave_call(entered)

    def _stream(self, asked: Asked) -> Iterator[Any]:
        with asked.beginning():
            first, chunks, call = self._drive(asked.steps())
        return asked.followed(chained(first, chunks), call)

    async def _astream(self, asked: Asked) -> AsyncIterator[Any]:
        with asked.beginning():
            first, chunks, call = await self._adrive(asked.steps())
        async with aclosing(asked.afollowed(achained(first, chunks), call)) as followed:
            async for chunk in followed:
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
