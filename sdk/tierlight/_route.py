"""`route("name")`: one object that decorates functions and opens `with` blocks.

What the decorated function returns or raises reaches the caller as it is; everything of ours around it is
guarded.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Literal, ParamSpec, TypeVar, cast

from . import semconv as s
from ._call import Call, IdleCall
from ._context import Entered, Standing, begin, enter, innermost, leave
from ._judge import Judge, judge_spec
from ._relay import relay, relay_async
from ._result import end_with
from ._runtime import active
from ._spec import RouteSpec, base_attributes
from ._tap import Tap
from ._validate import Check, checks_of
from .errors import ConfigurationError

P = ParamSpec("P")
R = TypeVar("R")

Tier = Literal["on-device", "small", "mid", "flagship", "reasoning", "specialised"]
Checks = Check | re.Pattern[str] | Sequence[Any] | set[str] | Mapping[str, Any] | None
Purpose = Literal["production", "shadow", "judge", "replay", "test"]

_ROUTE_NAME: Final = re.compile(s.ROUTE_PATTERN)
_PURPOSES: Final = ("production", "shadow", "judge", "replay", "test")


class Route:
    """A declared kind of call. Build it with `route()`; it may be shared between threads and tasks."""

    __slots__ = ("_open", "_spec")

    def __init__(self, spec: RouteSpec) -> None:
        self._spec = spec
        self._open: dict[int, tuple[Standing, Entered]] = {}

    @property
    def name(self) -> str:
        """The declared name."""
        return self._spec.name

    def __repr__(self) -> str:
        return f"route({self.name!r})"

    # ---- as a decorator ---------------------------------------------------------------------------------

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """The same function, recorded: sync or async, returning a response, a stream or a generator.

        Raises:
            ConfigurationError: it is not a function (`@route` goes below `@classmethod`, not above it).
        """
        if not callable(function):
            raise ConfigurationError(
                f"@route({self.name!r}) decorates a function, got {type(function).__name__}: "
                "put it below @classmethod and @property"
            )
        if inspect.isgeneratorfunction(function):
            return cast("Callable[P, R]", _around_generator(function, self._spec))
        if inspect.isasyncgenfunction(function):
            return cast("Callable[P, R]", _around_async_generator(function, self._spec))
        if inspect.iscoroutinefunction(function):
            return cast("Callable[P, R]", _around_coroutine(function, self._spec))
        return _around(function, self._spec)

    # ---- as a context manager ---------------------------------------------------------------------------

    def __enter__(self) -> Call:
        """The call of this block; calls of wrapped or instrumented clients inside take its route."""
        runtime = active()
        standing = begin(runtime, self._spec) if runtime is not None else None
        if standing is None:
            return IdleCall(self._spec)
        if isinstance(standing, Call):
            standing.is_block, standing.checks = True, ()
        # Keyed by what stands in the context: blocks of one route may be open in many threads and tasks.
        self._open[id(standing)] = (standing, enter(standing))
        return standing if isinstance(standing, Call) else IdleCall(self._spec)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        block = self._open.pop(id(innermost()), None)
        if block is None:
            if not self._open:
                return
            # The block is left in another context than it was entered in (a fixture, a dependency that yields).
            block = self._open.popitem()[1]
        standing, entered = block
        leave(entered)
        if isinstance(standing, Call):
            if error is not None:
                standing.fail(error)
            else:
                standing.succeed(None)

    async def __aenter__(self) -> Call:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)


# ---- decorated functions --------------------------------------------------------------------------------


def _begin(spec: RouteSpec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Standing | None:
    runtime = active()
    if runtime is None:
        return None
    call = begin(runtime, spec)
    if spec.judge is not None and isinstance(call, Call):
        call.asked = (spec, args, kwargs)
    return call


def _around(function: Callable[P, R], spec: RouteSpec) -> Callable[P, R]:
    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        call = _begin(spec, args, kwargs)
        if call is None:
            return function(*args, **kwargs)
        entered = enter(call)
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            leave(entered)
            if isinstance(call, Call):
                call.fail(error)
            raise
        leave(entered)
        return end_with(call, result) if isinstance(call, Call) else result

    return run


def _around_coroutine(function: Callable[P, Awaitable[R]], spec: RouteSpec) -> Callable[P, Awaitable[R]]:
    @functools.wraps(function)
    async def run(*args: P.args, **kwargs: P.kwargs) -> R:
        call = _begin(spec, args, kwargs)
        if call is None:
            return await function(*args, **kwargs)
        entered = enter(call)
        try:
            result = await function(*args, **kwargs)
        except BaseException as error:
            leave(entered)
            if isinstance(call, Call):
                call.fail(error)
            raise
        leave(entered)
        return end_with(call, result) if isinstance(call, Call) else result

    return run


def _around_generator(
    function: Callable[P, Generator[Any, Any, R]], spec: RouteSpec
) -> Callable[P, Generator[Any, Any, R]]:
    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> Generator[Any, Any, R]:
        call = _begin(spec, args, kwargs)
        source = function(*args, **kwargs)
        if call is None:
            return (yield from source)
        result = yield from relay(source, Tap(call) if isinstance(call, Call) else None, call)
        return cast("R", result)

    return run


def _around_async_generator(
    function: Callable[P, AsyncGenerator[Any, Any]], spec: RouteSpec
) -> Callable[P, AsyncGenerator[Any, Any]]:
    def start(
        *args: P.args, **kwargs: P.kwargs
    ) -> tuple[AsyncGenerator[Any, Any], Tap | None, Standing | None]:
        call = _begin(spec, args, kwargs)
        return function(*args, **kwargs), Tap(call) if isinstance(call, Call) else None, call

    return functools.wraps(function)(relay_async(start))


# ---- declaring ------------------------------------------------------------------------------------------


def route(
    name: str,
    *,
    tier: Tier | None = None,
    version: str | None = None,
    provider: str | None = None,
    model: str | None = None,
    purpose: Purpose = "production",
    prompt: str | None = None,
    prompt_version: str | None = None,
    segment: str | None = None,
    validate: Checks = None,
    judge: Judge | None = None,
    content: bool | None = None,
) -> Route:
    """Declare what kind of call something is: a decorator and a context manager in one object.

    Args:
        name: the route, up to 80 of `a-z0-9._/-`; a handful of names, never an id in it.
        tier: tier of the model used here.
        version: a new one opens a new baseline for drift.
        provider, model: said for responses that do not say them; what a wrapped client knows comes first.
        purpose: only `production` enters the route's figures.
        prompt, prompt_version: name and version of the prompt in use: a candidate for "what changed".
        validate: checks of the answer, each a score on its span: a function of the result, `re.compile(...)`
            for the whole text, a list of allowed words, a JSON Schema; one, a list, or a dict by name.
        judge: who judges a share of the answers later, off the calling thread. In a `with` block both see what
            wrapped clients answer inside.
        content: capture texts on this route, or not, whatever `configure(content=...)` says.
        segment: a slice of the route that is judged by itself, such as a language.

    Raises:
        ConfigurationError: a name that no route may have, an unknown tier or purpose.
    """
    if not isinstance(name, str) or not _ROUTE_NAME.fullmatch(name):
        raise ConfigurationError(
            f"a route's name is up to 80 of a-z 0-9 . _ / - and starts with a letter or digit, got {name!r}"
        )
    if tier is not None and tier not in s.TIERS:
        raise ConfigurationError(f"route {name!r}: tier is one of {', '.join(s.TIERS)}, got {tier!r}")
    if purpose not in _PURPOSES:
        raise ConfigurationError(f"route {name!r}: purpose is one of {', '.join(_PURPOSES)}, got {purpose!r}")
    base = base_attributes(name, tier, version, purpose)
    for attribute, value in (
        (s.GEN_AI_PROMPT_NAME, prompt),
        (s.GEN_AI_PROMPT_VERSION, prompt_version),
        (s.TIERLIGHT_SEGMENT, segment),
    ):
        if value:
            base[attribute] = value
    return Route(
        RouteSpec(
            name=name,
            base=base,
            provider=provider or "",
            model=model or "",
            checks=checks_of(validate),
            judge=judge,
            judge_spec=judge_spec(judge, name) if judge is not None else None,
            captures_content=content,
        )
    )
