"""Route names: one spelling for what the dialects say, and the names that say nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

from ..records import RouteHints

MAX_ROUTE: Final = 80
NO_HINTS: Final = RouteHints()
RouteSource: TypeAlias = Literal["declared", "dialect", "ancestor", "agent", "prompt", "root"]
# From the strongest statement about a call's route to the weakest; without any it is `unrouted/<service>`.
ROUTE_ORDER: Final[tuple[RouteSource, ...]] = ("declared", "dialect", "ancestor", "agent", "prompt", "root")

_PLAIN: Final = re.compile(r"[a-z0-9][a-z0-9._/-]{0,79}")
_OTHER: Final = re.compile(r"[^a-z0-9._/-]+")


@lru_cache(maxsize=4096)
def route_name(said: str) -> str:
    """The route as it is stored: lower case, `a-z 0-9 . _ / -`, at most 80 characters; "" for nothing usable.

    >>> route_name("Support Answer")
    'support-answer'
    """
    if _PLAIN.fullmatch(said):
        return said
    return _OTHER.sub("-", said.lower()).lstrip("._/-")[:MAX_ROUTE].rstrip("._/-")


@dataclass(frozen=True, slots=True, eq=False)
class RouteRules:
    """How a project names its routes where that differs from what senders say. Equal only to itself.

    `keys` are attributes that name a route, asked before all that are known. `order` says which source is believed
    before which; one that is left out is never believed. `rename` maps names, or patterns with `*`, to the name that
    is stored, and "" to none, as if the sender had not said it.
    """

    keys: tuple[str, ...] = ()
    order: tuple[RouteSource, ...] = ROUTE_ORDER
    rename: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def name(self, said: str) -> str:
        """The route that is stored for what a sender says."""
        name = route_name(said)
        if not self.rename or not name:
            return name
        exact = self.rename.get(name)
        if exact is not None:
            return exact
        for pattern, target in self.rename.items():
            if "*" in pattern and fnmatchcase(name, pattern):
                return target
        return name


PLAIN_RULES: Final = RouteRules()


@lru_cache(maxsize=1024)
def unrouted(service_name: str) -> str:
    """The route of a call that nobody named: a to-do per service, never mixed with real routes."""
    return f"unrouted/{route_name(service_name) or 'unknown'}"[:MAX_ROUTE]


def own_route(
    hints: RouteHints, service_name: str, order: tuple[RouteSource, ...] = ROUTE_ORDER
) -> tuple[str, str]:
    """Route and its source from what a call's own span says; final where the call has no relatives."""
    for source in order:
        if source != "ancestor" and source != "root":  # a call's own name says nothing
            route = getattr(hints, source)
            if route:
                return route, source
    return unrouted(service_name), "unrouted"


# Names that libraries give their spans by themselves; as routes they would mix everything.
_GENERIC: Final = frozenset(
    {
        "agent workflow",
        "agent",
        "agent run",
        "asyncchatcompletion",
        "asynccompletions",
        "asyncmessages.create",
        "answer",
        "assistant",
        "call_llm",
        "call_model",
        "chain",
        "chat",
        "chatanthropic",
        "chatcompletion",
        "chatopenai",
        "chatprompttemplate",
        "completion",
        "completions",
        "createembeddings",
        "default",
        "embeddings",
        "execute_event_loop_cycle",
        "generate",
        "generatecontent",
        "invocation",
        "langgraph",
        "litellm_request",
        "llm",
        "main",
        "messages.create",
        "model",
        "openai-embedding",
        "openai-generation",
        "openai.chat",
        "pipeline",
        "pipeline.run",
        "raw_gen_ai_request",
        "request",
        "response",
        "responses",
        "root",
        "run",
        "runnablelambda",
        "runnableparallel",
        "runnablepassthrough",
        "runnablesequence",
        "runnablewithfallbacks",
        "span",
        "stroutputparser",
        "task",
        "tools",
        "trace",
        "workflow",
    }
)
_METHODS: Final = frozenset({"get", "post", "put", "patch", "delete", "head", "options", "http"})
_OWN_NAME_VERBS: Final = frozenset(
    {"chat", "embeddings", "text_completion", "generate_content", "rerank", "execute_tool", "responses"}
)


@lru_cache(maxsize=4096)
def is_generic(name: str) -> bool:
    """Whether a name is a library's own, such as `ChatCompletion`, `POST` or `chat gpt-5-mini`.

    >>> is_generic("RunnableSequence"), is_generic("support-answer")
    (True, False)
    """
    low = name.strip().lower()
    if not low or low in _GENERIC or low.startswith("ai."):
        return True
    verb, blank, rest = low.partition(" ")
    if not blank:
        return low in _METHODS
    if verb in _METHODS:
        return not rest.startswith("/")
    return verb in _OWN_NAME_VERBS


@lru_cache(maxsize=4096)
def http_route_name(said: str) -> str:
    """A server span's route or name without method and parameters: `POST /api/chat` gives `api/chat`."""
    verb, _, rest = said.strip().partition(" ")
    path = rest if verb.lower() in _METHODS else said
    return route_name(path.partition("?")[0].strip().lstrip("/")) if path.strip("/ ") else ""
