"""The router: optional, small, and every decision of it on the span.

>>> from tierlight.routing import CallableProvider, Policy, Router
>>> policy = Policy.from_toml('''
... schema = 1
... [target.nano]
... provider = "openai"
... model = "gpt-5-nano"
... fallback = ["haiku"]
... [target.haiku]
... provider = "anthropic"
... model = "claude-haiku-4-5"
... fallback = ["nano"]
... [route.intent]
... target = "nano"
... ''')
>>> answer = {"model": "gpt-5-nano", "choices": [{"message": {"role": "assistant", "content": "refund"}}]}
>>> router = Router(policy, providers={"openai": CallableProvider(lambda target, request: answer)})
>>> router.chat("intent", "I want my money back").text
'refund'
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .decide import Decision
from .policy import Policy

if TYPE_CHECKING:
    from .artefact import LearnedRouter
    from .asked import Routed
    from .examples import OnDeviceClassifier
    from .providers import CallableProvider, HttpProvider
    from .request import ModelRequest
    from .router import Router
    from .source import load_policy
    from .validators import Verdict

__all__ = [
    "CallableProvider",
    "Decision",
    "HttpProvider",
    "LearnedRouter",
    "ModelRequest",
    "OnDeviceClassifier",
    "Policy",
    "Routed",
    "Router",
    "Verdict",
    "load_policy",
]

# Loaded when first used: a process that only reads a policy needs none of it.
_LAZY = {
    "CallableProvider": "providers",
    "HttpProvider": "providers",
    "LearnedRouter": "artefact",
    "ModelRequest": "request",
    "OnDeviceClassifier": "examples",
    "Routed": "asked",
    "Router": "router",
    "Verdict": "validators",
    "load_policy": "source",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_LAZY[name]}", __name__), name)
