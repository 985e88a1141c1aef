"""What a policy declares: targets, routes, experiments, shadows and the words that they are written in. Data alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

SCHEMA: Final = 1
STRATEGIES: Final = ("task", "complexity", "cascade", "specialty", "embedding", "router_model", "learned")
CAPABILITIES: Final = (
    "chat", "embeddings", "rerank", "vision", "voice", "code", "image", "audio", "moderation", "documents",
)  # fmt: skip
APIS: Final = ("openai", "anthropic", "gemini", "ollama", "callable")
WORDS: Final = ("trivial", "moderate", "complex")
VALIDATORS: Final[Mapping[str, tuple[str, ...]]] = {
    "json": (),
    "json_schema": ("schema",),
    "regex": ("pattern",),
    "max_length": ("value",),
    "min_length": ("value",),
    "one_of": ("labels",),
    "not_refusal": (),
    "finish_reason": (),
    "tool_call": ("tools",),
    "min_margin": ("value",),
    "min_logprob": ("value",),
    "callable": ("name",),
    "judge": ("target", "rubric", "value"),
}


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds for every route that does not say otherwise. Times in seconds.

    `deadline_s` covers all attempts of one call together; `retries` are on the same target, before failover;
    `target` answers routes that the policy does not name ("" = such a call is refused).
    """

    timeout_s: float = 30.0
    first_token_timeout_s: float = 10.0
    deadline_s: float = 60.0
    retries: int = 1
    explore: float = 0.0
    target: str = ""


@dataclass(frozen=True, slots=True)
class BreakerSettings:
    """When a target that fails is left alone, and for how long. Times in seconds."""

    window_s: float = 60.0
    min_requests: int = 10
    failure_rate: float = 0.5
    consecutive: int = 5
    cooldown_s: float = 30.0
    cooldown_max_s: float = 300.0


@dataclass(frozen=True, slots=True)
class Target:
    """One model at one provider. `is_free` is a declared price of zero; without a price the cost is unknown."""

    name: str
    provider: str
    model: str
    tier: str
    capabilities: tuple[str, ...] = ("chat",)
    fallback: tuple[str, ...] = ()
    stands_alone: bool = False  # `fallback = "none"` was written
    base_url: str = ""
    api: str = "openai"
    api_key_env: str = ""
    is_free: bool = False
    max_input_tokens: int | None = None
    is_enabled: bool = True


@dataclass(frozen=True, slots=True)
class ValidatorSpec:
    """One check of an answer, with its options; a schema that was a file is the file's content here."""

    kind: str
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Route:
    """How one route is decided. `candidates` are the targets that it may choose, cheapest first."""

    name: str
    strategy: str
    candidates: tuple[str, ...]
    default: str
    is_interactive: bool = False
    allow_cascade: bool = False
    capability: str = ""  # of a specialty route
    validators: tuple[ValidatorSpec, ...] = ()
    on_validator_error: Literal["escalate", "accept"] = "escalate"
    on_refusal: Literal["return", "fallback"] = "return"
    verify_accepted: float = 0.0
    verify_max_spend_per_day: float = 1.0
    by_tier: Mapping[str, str] = field(default_factory=dict)  # small, mid, flagship -> target
    bounds: tuple[float, float] = (3.0, 7.0)
    router: str = ""  # target that is asked how hard a prompt is
    router_timeout_s: float = 1.5
    examples: tuple[tuple[str, str], ...] = ()  # text, target
    min_similarity: float = 0.35
    embedder: str = "hash1"
    artefact: str = ""  # file of the learned router
    signal: str = ""
    target_pgr: float | None = None
    strong_share: float | None = None
    cost_weight: float = 0.1  # of a learned route with three candidates or more, or a latency goal
    latency_weight: float = 0.1
    slo_ms: float | None = None  # goal for the median latency of a learned route's answers
    explore: float = 0.0
    explores_interactive: bool = False
    baseline: str = ""
    timeout_s: float = 30.0
    first_token_timeout_s: float = 10.0
    deadline_s: float = 60.0
    retries: int = 1


@dataclass(frozen=True, slots=True)
class Arm:
    """One side of an experiment and its share of the units."""

    name: str
    target: str
    weight: float


@dataclass(frozen=True, slots=True)
class Experiment:
    """An A/B split of a route, sticky by unit. `arms` are in the order of their names."""

    name: str
    route: str
    arms: tuple[Arm, ...]
    unit: Literal["call", "conversation", "user"] = "call"


@dataclass(frozen=True, slots=True)
class Shadow:
    """The same request sent to another target after the user has his answer. Spend in the policy's currency."""

    name: str
    route: str
    target: str
    share: float
    max_spend_per_day: float
    allow_new_provider: bool = False
