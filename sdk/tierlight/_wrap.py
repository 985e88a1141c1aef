"""`wrap(client)`: the client's own methods record their calls; nothing else about it changes.

Hooks sit on the methods of one client object, never on classes and never on HTTP types, which change from
one major version to the next.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from . import semconv as s
from ._call import Call
from ._content import Frozen
from ._context import Standing, Unsampled, begin, enter, innermost, leave
from ._guard import attempt, guarded
from ._messages import request_contents
from ._result import end_with
from ._runtime import Runtime, active
from ._spec import Attributes, Request
from ._stream import Passing
from .errors import ConfigurationError
from .hosts import provider_at

C = TypeVar("C")

# Methods by the path of their resource, and the operation that each performs.
_METHODS: Final[tuple[tuple[str, Mapping[str, str]], ...]] = (
    # OpenAI, and clients that look like it
    ("chat.completions", {"create": "chat", "parse": "chat"}),
    ("beta.chat.completions", {"create": "chat", "parse": "chat"}),
    ("completions", {"create": "text_completion"}),
    ("responses", {"create": "chat", "parse": "chat"}),
    ("embeddings", {"create": "embeddings"}),
    ("images", {"generate": "image", "edit": "image"}),
    ("audio.transcriptions", {"create": "audio"}),
    ("audio.translations", {"create": "audio"}),
    # Anthropic
    ("messages", {"create": "chat", "parse": "chat"}),
    ("beta.messages", {"create": "chat", "parse": "chat"}),
    # Gemini
    ("models", _GEMINI := {
        "generate_content": "generate_content",
        "generate_content_stream": "generate_content",
        "embed_content": "embeddings",
    }),
    ("aio.models", _GEMINI),
)  # fmt: skip

# Methods that return a manager: the request is sent when it is entered.
_MANAGERS: Final = ("chat.completions", "beta.chat.completions", "responses", "messages", "beta.messages")

_PACKAGES: Final = {"openai": "openai", "anthropic": "anthropic", "google": "gcp.gemini", "groq": "groq"}

_SETTINGS: Final = (
    ("max_tokens", s.GEN_AI_REQUEST_MAX_TOKENS),
    ("max_completion_tokens", s.GEN_AI_REQUEST_MAX_TOKENS),
    ("max_output_tokens", s.GEN_AI_REQUEST_MAX_TOKENS),
    ("temperature", s.GEN_AI_REQUEST_TEMPERATURE),
    ("top_p", s.GEN_AI_REQUEST_TOP_P),
    ("seed", s.GEN_AI_REQUEST_SEED),
)


def wrap(client: C) -> C:
    """The same client, whose calls are recorded from now on, streaming and not.

    Inside of `with route(...)` or a decorated function the calls take that route; outside they have none.
    A call through a wrapped client is the one span of it: a decorated function around it adds no second.

    Args:
        client: of `openai`, `anthropic` or `google-genai` (sync or async, this major version or the one
            before), or one with the same methods.

    Raises:
        ConfigurationError: it has none of the methods that send a call.
    """
    provider, address = _endpoint_of(client)
    found = 0
    for path, methods in _METHODS:
        resource = _resource(client, path)
        if resource is None:
            continue
        for name, operation in methods.items():
            found += _hook(resource, name, _Sender(provider, address, operation))
        if path in _MANAGERS:
            found += _hook(resource, "stream", _Sender(provider, address, "chat", is_manager=True))
    if not found and not getattr(client, "_tierlight_wrapped", False):
        raise ConfigurationError(
            f"wrap() takes a client of openai, anthropic or google-genai, got {type(client).__name__}: "
            "decorate the function that calls it with @route(...) instead"
        )
    for name in ("copy", "with_options"):
        _hook_copy(client, name)
    return client


def _resource(client: object, path: str) -> Any:
    place: Any = client
    for name in path.split("."):
        place = getattr(place, name, None)
        if place is None:
            return None
    return place


def _endpoint_of(client: object) -> tuple[str, Attributes]:
    """The provider behind a client, and its address as attributes."""
    options = getattr(getattr(client, "_api_client", None), "_http_options", None)
    url = getattr(client, "base_url", None) or getattr(options, "base_url", None)
    scheme, _, rest = str(url or "").partition("://")
    authority = rest.partition("/")[0].rpartition("@")[2]
    host, colon, port = authority.rpartition(":")
    if not colon or not port.isdigit():
        host, port = authority, ""
    host = host.lower()
    provider = provider_at(authority)
    if not provider:
        names = {base.__module__.partition(".")[0] for base in type(client).__mro__}
        provider = next((word for package, word in _PACKAGES.items() if package in names), "")
        if getattr(client, "vertexai", None) is True:
            provider = "gcp.vertex_ai"
    address: Attributes = {}
    if host:
        address[s.SERVER_ADDRESS] = host
        if port or scheme == "http":
            address[s.SERVER_PORT] = int(port) if port else 80
    return provider, address


class _Sender:
    """What is the same for all calls of one method."""

    __slots__ = ("_address", "_operation", "_provider", "is_manager")

    def __init__(self, provider: str, address: Attributes, operation: str, is_manager: bool = False) -> None:
        self._provider = provider
        self._address = address
        self._operation = operation
        self.is_manager = is_manager

    def begin(self, runtime: Runtime, kwargs: Mapping[str, Any]) -> Standing | None:
        """Start the call that is about to be sent with these arguments."""
        outer = innermost()
        captures = runtime.content.captures
        if isinstance(outer, Call):
            captures = outer.captures_content
        _, request = attempt("read a request", self._request, kwargs, captures)
        if request is None:
            request = Request(self._operation, self._provider, is_helper=self.is_manager)
        standing = begin(runtime, None, request)
        if isinstance(outer, Call) and outer.is_block and isinstance(standing, Call):
            standing.answer_for(outer, kwargs)
        return standing

    def _request(self, kwargs: Mapping[str, Any], captures: bool) -> Request:
        attributes = self._address.copy()
        config = kwargs.get("config")
        settings = kwargs
        if config is not None:
            settings = config if isinstance(config, Mapping) else getattr(config, "__dict__", kwargs)
        for name, attribute in _SETTINGS:
            value = settings.get(name)
            if isinstance(value, int | float) and not isinstance(value, bool):
                attributes[attribute] = value
        service_tier = kwargs.get("service_tier")
        if isinstance(service_tier, str):
            attributes[s.OPENAI_REQUEST_SERVICE_TIER] = service_tier
        if kwargs.get("stream") is True or self.is_manager:
            attributes[s.GEN_AI_REQUEST_STREAM] = True
        model = kwargs.get("model")
        contents: dict[str, Frozen] | None = request_contents(kwargs, settings) if captures else None
        return Request(
            self._operation,
            self._provider,
            model.removeprefix("models/") if isinstance(model, str) else "",
            attributes,
            contents,
            self.is_manager,
        )


@guarded("hook a client's method")
def _install(resource: Any, name: str, hook: Callable[..., Any]) -> bool:
    setattr(resource, name, hook)
    return True


def _hook(resource: Any, name: str, sender: _Sender) -> bool:
    method = getattr(resource, name, None)
    if not callable(method) or hasattr(method, "_tierlight_hook"):
        return hasattr(method, "_tierlight_hook")
    hook = _managed(method, sender) if sender.is_manager else _sending(method, sender)
    hook._tierlight_hook = True  # type: ignore[attr-defined]
    return bool(_install(resource, name, hook))


def _sending(method: Callable[..., Any], sender: _Sender) -> Callable[..., Any]:
    @functools.wraps(method)
    def send(*args: Any, **kwargs: Any) -> Any:
        runtime = active()
        call = sender.begin(runtime, kwargs) if runtime is not None else None
        if not isinstance(call, Call):
            return method(*args, **kwargs)
        entered = enter(call)
        try:
            result = method(*args, **kwargs)
        except BaseException as error:
            leave(entered)
            call.fail(error)
            raise
        leave(entered)
        return end_with(call, result)

    return send


def _managed(method: Callable[..., Any], sender: _Sender) -> Callable[..., Any]:
    @functools.wraps(method)
    def manage(*args: Any, **kwargs: Any) -> Any:
        if active() is None:
            return method(*args, **kwargs)
        # An asynchronous client makes its request's coroutine here already: it is the manager's, not a call.
        entered = enter(Unsampled())
        try:
            manager = method(*args, **kwargs)
        finally:
            leave(entered)
        return _Manager(manager, sender, kwargs)

    return manage


class _Manager(Passing):
    """A stream manager whose call begins when it is entered."""

    __slots__ = ("_tierlight_kwargs", "_tierlight_sender")

    def __init__(self, manager: Any, sender: _Sender, kwargs: Mapping[str, Any]) -> None:
        super().__init__(manager)
        object.__setattr__(self, "_tierlight_sender", sender)
        object.__setattr__(self, "_tierlight_kwargs", kwargs)

    def _tierlight_begin(self) -> Standing | None:
        runtime = active()
        return self._tierlight_sender.begin(runtime, self._tierlight_kwargs) if runtime is not None else None

    def __enter__(self) -> Any:
        call = self._tierlight_begin()
        if not isinstance(call, Call):
            return self._tierlight_target.__enter__()
        entered = enter(call)
        try:
            stream = self._tierlight_target.__enter__()
        except BaseException as error:
            leave(entered)
            call.fail(error)
            raise
        leave(entered)
        return end_with(call, stream)

    def __exit__(self, *exc: Any) -> Any:
        return self._tierlight_target.__exit__(*exc)

    async def __aenter__(self) -> Any:
        call = self._tierlight_begin()
        if not isinstance(call, Call):
            return await self._tierlight_target.__aenter__()
        entered = enter(call)
        try:
            stream = await self._tierlight_target.__aenter__()
        except BaseException as error:
            leave(entered)
            call.fail(error)
            raise
        leave(entered)
        return end_with(call, stream)

    async def __aexit__(self, *exc: Any) -> Any:
        return await self._tierlight_target.__aexit__(*exc)


def _hook_copy(client: Any, name: str) -> None:
    """A changed copy of a wrapped client is wrapped too."""
    method = getattr(client, name, None)
    if not callable(method) or hasattr(method, "_tierlight_hook"):
        return

    @functools.wraps(method)
    def copied(*args: Any, **kwargs: Any) -> Any:
        made = method(*args, **kwargs)
        is_wrapped, again = attempt("wrap a copy of a client", wrap, made)
        return again if is_wrapped else made

    copied._tierlight_hook = True  # type: ignore[attr-defined]
    _install(client, name, copied)
