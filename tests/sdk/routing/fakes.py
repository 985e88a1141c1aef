"""What the router's tests share: a policy, a clock that only waits move, and a provider that does as it is told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tierlight.errors import ProviderError
from tierlight.routing.declared import Target
from tierlight.routing.request import Limits, ModelRequest
from tierlight.testing import FrozenClock

POLICY = """
schema = 1
[defaults]
deadline_s = 60.0
timeout_s = 30.0
[target.nano]
provider = "openai"
model = "gpt-5-nano"
tier = "small"
fallback = ["lite"]
[target.lite]
provider = "google"
model = "gemini-2.5-flash-lite"
tier = "small"
fallback = ["nano"]
[target.sonnet]
provider = "anthropic"
model = "claude-sonnet-4-5"
tier = "flagship"
fallback = ["gpt5"]
[target.gpt5]
provider = "openai"
model = "gpt-5"
tier = "flagship"
fallback = ["sonnet"]
[route.intent]
target = "nano"
[route.extract]
strategy = "cascade"
steps = ["nano", "sonnet"]
validators = [{ kind = "json" }]
"""


def reply(text: str, model: str = "m", finish: str = "stop") -> dict[str, Any]:
    """A chat completion in OpenAI's form."""
    return {
        "id": f"chatcmpl-{abs(hash(text)) % 999}",
        "object": "chat.completion",
        "model": model,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12},
    }


def chunk(text: str) -> dict[str, Any]:
    """One chunk of a stream in OpenAI's form."""
    return {
        "object": "chat.completion.chunk",
        "model": "m",
        "choices": [{"index": 0, "delta": {"content": text}}],
    }


def refusal(status: int, code: str = "", retry_after_s: float | None = None) -> ProviderError:
    """What a provider's client raises for a status."""
    return ProviderError(
        f"answered {status} {code}", status_code=status, code=code, retry_after_s=retry_after_s
    )


Told = dict[str, Any] | BaseException | list[Any] | Callable[[ModelRequest], Any]


@dataclass
class Scripted:
    """Answers each target with what is queued for it, taking `takes_s` of the frozen clock a time."""

    clock: FrozenClock = field(default_factory=FrozenClock)
    told: dict[str, list[Told]] = field(default_factory=dict)
    usual: Told = field(default_factory=lambda: reply("fine"))
    takes_s: float = 0.1
    asked: list[str] = field(default_factory=list)
    limits: list[Limits] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)

    def tell(self, target: str, *answers: Told) -> Scripted:
        """Queue answers for a target; the last one holds on."""
        self.told.setdefault(target, []).extend(answers)
        return self

    def _next(self, target: Target, request: ModelRequest, limits: Limits) -> Any:
        self.asked.append(target.name)
        self.limits.append(limits)
        queued = self.told.get(target.name, [])
        told = queued.pop(0) if len(queued) > 1 else queued[0] if queued else self.usual
        took = min(self.takes_s, limits.total_s)
        self.clock.advance(took)
        if took < self.takes_s:
            raise TimeoutError
        if callable(told):
            told = told(request)
        if isinstance(told, BaseException):
            raise told
        return told

    def send(self, target: Target, request: ModelRequest, limits: Limits) -> Any:
        return self._next(target, request, limits)

    async def asend(self, target: Target, request: ModelRequest, limits: Limits) -> Any:
        return self._next(target, request, limits)

    def stream(self, target: Target, request: ModelRequest, limits: Limits) -> Iterator[Any]:
        for one in self._next(target, request, limits):
            if isinstance(one, BaseException):
                raise one
            yield one

    async def astream(self, target: Target, request: ModelRequest, limits: Limits) -> AsyncIterator[Any]:
        for one in self.stream(target, request, limits):
            yield one

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.clock.advance(seconds)

    async def asleep(self, seconds: float) -> None:
        self.sleep(seconds)
