"""The routing policy: TOML in, frozen and validated dataclasses out. No IO: files that it names come by `read`.

>>> policy = Policy.from_toml(b'''
... schema = 1
... [target.nano]
... provider = "openai"
... model = "gpt-5-nano"
... fallback = ["lite"]
... [target.lite]
... provider = "google"
... model = "gemini-2.5-flash-lite"
... fallback = ["nano"]
... [route.intent]
... target = "nano"
... ''')
>>> policy.routes["intent"].strategy, policy.targets["lite"].provider, len(policy.version)
('task', 'gcp.gemini', 12)
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Final

from ..errors import PolicyError
from ..semconv import ROUTE_PATTERN
from ._policy_reader import PolicyReader, Read
from ._table import Table
from .declared import SCHEMA, BreakerSettings, Defaults, Experiment, Route, Shadow, Target

MAX_BYTES: Final = 256 * 1024


@dataclass(frozen=True)
class Policy:
    """A validated policy. Equal meaning gives an equal `version`, whatever the order and comments of the file."""

    targets: Mapping[str, Target]
    routes: Mapping[str, Route]
    experiments: Mapping[str, Experiment] = field(default_factory=dict)
    shadows: Mapping[str, Shadow] = field(default_factory=dict)
    defaults: Defaults = field(default_factory=Defaults)
    breaker: BreakerSettings = field(default_factory=BreakerSettings)
    currency: str = "USD"
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        _validate(self)

    @classmethod
    def from_toml(cls, toml: bytes | str, *, read: Read | None = None, is_served: bool = False) -> Policy:
        """Read a policy document.

        Args:
            toml: the document, up to 256 KiB.
            read: gives the content of a file that the policy names (a schema, examples).
            is_served: it came over the network, so it may set no address, no key, no file and no code.

        Raises:
            PolicyError: the document must not be used; the message names the key.
        """
        document = toml.encode() if isinstance(toml, str) else toml
        if len(document) > MAX_BYTES:
            raise PolicyError(f"a policy has at most {MAX_BYTES} bytes, got {len(document)}")
        try:
            tables = tomllib.loads(document.decode())
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise PolicyError(f"the policy is not valid TOML: {error}") from error
        return cls(**PolicyReader(read, is_served).parts(Table(tables)))

    @cached_property
    def canonical(self) -> str:
        """The policy as JSON with sorted keys and every default filled in."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @cached_property
    def version(self) -> str:
        """12 hex digits that are the same for the same meaning."""
        return hashlib.sha256(self.canonical.encode()).hexdigest()[:12]

    def chain(self, name: str) -> tuple[str, ...]:
        """What to try after a target failed, nearest first; among equals another provider comes first."""
        return self._chains[name]

    @cached_property
    def _chains(self) -> Mapping[str, tuple[str, ...]]:
        return {name: tuple(_chain(self.targets, name)) for name in self.targets}

    @cached_property
    def experiment_of(self) -> Mapping[str, Experiment]:
        """The running experiment of each route that has one."""
        return {one.route: one for one in self.experiments.values()}


def _chain(targets: Mapping[str, Target], name: str) -> Iterator[str]:
    home = targets[name].provider
    seen, ring = {name}, [name]
    while ring:
        following = [fallback for one in ring for fallback in targets[one].fallback if fallback not in seen]
        ring = sorted(dict.fromkeys(following), key=lambda one: targets[one].provider == home)
        seen.update(ring)
        yield from ring


# ---- what must hold -------------------------------------------------------------------------------------


def _validate(policy: Policy) -> None:
    if policy.schema > SCHEMA or policy.schema < 1:
        raise PolicyError(
            f"schema: this version reads policies of schema {SCHEMA}, got {policy.schema}: upgrade tierlight"
        )
    if not policy.targets:
        raise PolicyError("target: expected at least one [target.NAME] table")
    for target in policy.targets.values():
        for name in target.fallback:
            _known(policy, name, f"target.{target.name}.fallback")
        if target.fallback and not any(policy.targets[one].is_enabled for one in policy.chain(target.name)):
            raise PolicyError(
                f"target.{target.name}.fallback: the fallbacks go in a circle that leaves no way out"
            )
    if policy.defaults.target:
        _known(policy, policy.defaults.target, "defaults.target")
    for route in policy.routes.values():
        _validate_route(policy, route)
    ends = {one: f"route.{route.name}" for route in policy.routes.values() for one in _ends(route)}
    ends |= {arm.target: f"experiment.{one.name}" for one in policy.experiments.values() for arm in one.arms}
    for name, user in ends.items():
        target = policy.targets[_known(policy, name, user)]
        others = [one for one in policy.chain(name) if policy.targets[one].provider != target.provider]
        if not others and not target.stands_alone:
            raise PolicyError(
                f"target.{name}.fallback: {user} needs a fallback at another provider than {target.provider}; "
                'name one, or write fallback = "none" to go without'
            )
    seen: dict[str, str] = {}
    for experiment in policy.experiments.values():
        where = f"experiment.{experiment.name}"
        _known_route(policy, experiment.route, where)
        if experiment.route in seen:
            raise PolicyError(
                f"{where}.route: {experiment.route!r} is already in experiment {seen[experiment.route]!r}"
            )
        seen[experiment.route] = experiment.name
        total = sum(arm.weight for arm in experiment.arms)
        if len(experiment.arms) < 2 or abs(total - 1) > 1e-9:
            raise PolicyError(
                f"{where}.weights: two arms or more whose weights sum to 1, got {len(experiment.arms)} with {total:g}"
            )
    for shadow in policy.shadows.values():
        _known_route(policy, shadow.route, f"shadow.{shadow.name}")
        _known(policy, shadow.target, f"shadow.{shadow.name}.target")


def _ends(route: Route) -> tuple[str, ...]:
    """The targets behind which nothing follows but their fallbacks; earlier steps of a cascade have the later ones."""
    return route.candidates[-1:] if route.strategy == "cascade" else (*route.candidates, route.default)


def _validate_route(policy: Policy, route: Route) -> None:
    where = f"route.{route.name}"
    if re.fullmatch(ROUTE_PATTERN, route.name) is None:
        raise PolicyError(f"{where}: a route's name is up to 80 of a-z 0-9 . _ / -")
    if not route.candidates:
        raise PolicyError(
            f"{where}: strategy {route.strategy!r} finds no target; name {_NAMED_BY[route.strategy]}"
        )
    for name in (*route.candidates, route.default, *route.by_tier.values()):
        _known(policy, name, where)
    if route.default not in route.candidates:
        raise PolicyError(f"{where}.default: {route.default!r} is not one of {', '.join(route.candidates)}")
    for key, name in (("router", route.router), ("baseline", route.baseline)):
        if name:
            _known(policy, name, f"{where}.{key}")
    for _, name in route.examples:
        if name not in route.candidates:
            raise PolicyError(
                f"{where}.examples: target {name!r} is not one of the candidates {', '.join(route.candidates)}"
            )
    for check in route.validators:
        if check.kind == "judge":
            _known(policy, check.options["target"], f"{where}.validators.judge.target")
    if route.strategy == "cascade":
        if route.is_interactive and not route.allow_cascade:
            raise PolicyError(
                f"{where}.strategy: a cascade doubles the wait of an escalated call, and this route is interactive; "
                "write allow_cascade = true if that is meant"
            )
        if not route.validators:
            raise PolicyError(
                f"{where}.validators: a cascade needs at least one, else nothing ever escalates"
            )
        if len(route.candidates) < 2:
            raise PolicyError(f"{where}.steps: a cascade has two steps or more, got {len(route.candidates)}")
    if route.strategy == "learned" and (not route.signal or len(route.candidates) < 2):
        raise PolicyError(
            f"{where}: a learned route names two candidates or more and the one signal that it learns from"
        )
    if route.strategy == "router_model" and not route.router:
        raise PolicyError(f"{where}.router: name the small target that is asked how hard a prompt is")
    if route.strategy == "embedding" and not route.examples:
        raise PolicyError(f"{where}.examples: an embedding route needs labelled examples (text, target)")


def _known(policy: Policy, name: str, where: str) -> str:
    if name not in policy.targets:
        raise PolicyError(f"{where}: unknown target {name!r}; known are {', '.join(policy.targets)}")
    return name


def _known_route(policy: Policy, name: str, where: str) -> None:
    if name not in policy.routes:
        raise PolicyError(
            f"{where}.route: unknown route {name!r}; known are {', '.join(policy.routes) or 'none'}"
        )


_NAMED_BY: Final = {
    "task": "`target` or `tier`",
    "complexity": "`tiers`, or give targets the tiers small, mid, flagship",
    "router_model": "`tiers`, or give targets the tiers small, mid, flagship",
    "cascade": "`steps`",
    "specialty": "`kind`, and give a target that `capability`",
    "embedding": "`candidates`",
    "learned": "`candidates`",
}
