"""The tables of a policy document as dataclasses, key by key."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import PolicyError
from ..pricing import canonical_provider
from ..semconv import TIERS
from ..tiers import capability_of, tier_of
from ._table import Table
from .declared import (
    APIS,
    CAPABILITIES,
    SCHEMA,
    STRATEGIES,
    VALIDATORS,
    Arm,
    BreakerSettings,
    Defaults,
    Experiment,
    Route,
    Shadow,
    Target,
    ValidatorSpec,
)

Read = Callable[[str], bytes]
"""Gives the content of a file that a policy names."""


class PolicyReader:
    """Turns the tables of one document into dataclasses."""

    def __init__(self, read: Read | None, is_served: bool) -> None:
        self._read = read
        self._is_served = is_served

    def parts(self, top: Table) -> dict[str, Any]:
        """The fields of a `Policy`."""
        schema = top.integer("schema", SCHEMA, low=1)
        if schema > SCHEMA:  # before its keys are judged by the rules of an older one
            raise PolicyError(
                f"schema: this version reads policies of schema {SCHEMA}, got {schema}: upgrade tierlight"
            )
        currency = top.word("currency", "USD")
        defaults = self._defaults(top.table("defaults"))
        settings = self._breaker(top.table("breaker"))
        targets = {name: self._target(name, table) for name, table in top.tables("target")}
        parts: dict[str, Any] = {
            "targets": targets,
            "routes": {
                name: self._route(name, table, targets, defaults) for name, table in top.tables("route")
            },
            "experiments": {name: self._experiment(name, table) for name, table in top.tables("experiment")},
            "shadows": {name: self._shadow(name, table) for name, table in top.tables("shadow")},
            "defaults": defaults,
            "breaker": settings,
            "currency": currency,
            "schema": schema,
        }
        top.finish()
        return parts

    def _defaults(self, table: Table) -> Defaults:
        return table.finish(
            Defaults(
                timeout_s=table.number("timeout_s", 30.0, low=0.1),
                first_token_timeout_s=table.number("first_token_timeout_s", 10.0, low=0.1),
                deadline_s=table.number("deadline_s", 60.0, low=0.1),
                retries=table.integer("retries", 1, high=10),
                explore=table.number("explore", 0.0, high=1),
                target=table.word("target", ""),
            )
        )

    def _breaker(self, table: Table) -> BreakerSettings:
        return table.finish(
            BreakerSettings(
                window_s=table.number("window_s", 60.0, low=1),
                min_requests=table.integer("min_requests", 10, low=1),
                failure_rate=table.number("failure_rate", 0.5, low=0.01, high=1),
                consecutive=table.integer("consecutive", 5, low=1),
                cooldown_s=table.number("cooldown_s", 30.0, low=0.1),
                cooldown_max_s=table.number("cooldown_max_s", 300.0, low=0.1),
            )
        )

    def _target(self, name: str, table: Table) -> Target:
        written = table.word("provider")
        provider, model = canonical_provider(written), table.word("model")
        if self._is_served:
            table.forbid(
                "base_url",
                "api_key_env",
                reason="a served policy sets no address and no key: set them in the application",
            )
        tier = table.word("tier", tier_of(provider, model) or "", among=TIERS)
        if not tier:
            raise PolicyError(
                f"target.{name}.tier: the name {model!r} does not tell its tier; write one of {', '.join(TIERS)}"
            )
        fallback = table.take("fallback", (str, list), [])
        if isinstance(fallback, str) and fallback != "none":
            raise PolicyError(f'target.{name}.fallback: a list of targets or "none", got {fallback!r}')
        capability = table.take("capability", (str, list), capability_of(model))
        named = (capability,) if isinstance(capability, str) else tuple(map(str, capability))
        for one in named:
            if one not in CAPABILITIES:
                raise PolicyError(f"target.{name}.capability: one of {', '.join(CAPABILITIES)}, got {one!r}")
        usual = {"anthropic": "anthropic", "gcp.gemini": "gemini", "ollama": "ollama"}.get(provider, "openai")
        return table.finish(
            Target(
                name=name,
                provider=provider,
                model=model,
                tier=tier,
                capabilities=named,
                fallback=() if isinstance(fallback, str) else tuple(map(str, fallback)),
                stands_alone=fallback == "none",
                base_url=table.word("base_url", ""),
                api=table.word("api", usual, among=APIS),
                api_key_env=table.word("api_key_env", ""),
                is_free=table.word("price", "", among=("free",)) == "free",
                max_input_tokens=table.integer("max_input_tokens", None, low=1),
                is_enabled=table.flag("enabled", True),
            )
        )

    def _route(self, name: str, table: Table, targets: Mapping[str, Target], defaults: Defaults) -> Route:
        strategy = table.word("strategy", "task", among=STRATEGIES)
        if self._is_served:
            table.forbid(
                "artefact", reason="a served policy names no file: load the learned router in the application"
            )
        capability = table.word("kind", "", among=CAPABILITIES)
        by_tier = self._by_tier(strategy, table, targets)
        candidates, usual = self._candidates(name, strategy, capability, table, targets, by_tier)
        latency = table.word("latency", "", among=("interactive", "batch"))
        sensitive = table.flag("latency_sensitive", latency == "interactive")
        if latency and sensitive != (latency == "interactive"):
            raise PolicyError(
                f"route.{name}.latency_sensitive: it says the opposite of latency = {latency!r}; keep one"
            )
        default = usual if strategy == "task" else table.word("default", usual)
        bounds = [float(bound) for bound in table.take("bounds", (list,), [3.0, 7.0])]
        if len(bounds) != 2 or not 0 <= bounds[0] <= bounds[1] <= 10:
            raise PolicyError(f"route.{name}.bounds: two rising numbers from 0 to 10, got {bounds}")
        return table.finish(
            Route(
                name=name,
                strategy=strategy,
                candidates=candidates,
                default=default,
                is_interactive=sensitive,
                allow_cascade=table.flag("allow_cascade", False),
                capability=capability,
                validators=tuple(
                    self._validator(f"route.{name}.validators[{n}]", one)
                    for n, one in enumerate(table.take("validators", (list,), []))
                ),
                on_validator_error="accept"
                if table.word("on_validator_error", "escalate", among=("escalate", "accept")) == "accept"
                else "escalate",
                on_refusal="fallback"
                if table.word("on_refusal", "return", among=("return", "fallback")) == "fallback"
                else "return",
                verify_accepted=table.number("verify_accepted", 0.0, high=1),
                verify_max_spend_per_day=table.number("verify_max_spend_per_day", 1.0),
                by_tier=by_tier,
                bounds=(bounds[0], bounds[1]),
                router=table.word("router", ""),
                router_timeout_s=table.number("router_timeout_s", 1.5, low=0.05),
                examples=self._examples(name, table),
                min_similarity=table.number("min_similarity", 0.35, low=-1, high=1),
                embedder=table.word("embedder", "hash1", among=("hash1", "static1", "minilm1")),
                artefact=table.word("artefact", ""),
                signal=table.word("signal", ""),
                target_pgr=table.number("target_pgr", None, low=0.01, high=2),
                strong_share=table.number("strong_share", None, high=1),
                cost_weight=table.number("cost_weight", 0.1, high=10),
                latency_weight=table.number("latency_weight", 0.1, high=10),
                slo_ms=table.number("slo_ms", None, low=1),
                explore=table.number("explore", defaults.explore, high=1),
                explores_interactive=table.flag("explore_interactive", False),
                baseline=table.word("baseline", ""),
                timeout_s=table.number("timeout_s", defaults.timeout_s, low=0.1),
                first_token_timeout_s=table.number(
                    "first_token_timeout_s", defaults.first_token_timeout_s, low=0.1
                ),
                deadline_s=table.number("deadline_s", defaults.deadline_s, low=0.1),
                retries=table.integer("retries", defaults.retries, high=10),
            )
        )

    def _by_tier(self, strategy: str, table: Table, targets: Mapping[str, Target]) -> Mapping[str, str]:
        if strategy not in ("complexity", "router_model"):
            return {}
        given = table.take("tiers", (dict,), {})
        found = {
            target.tier: name
            for name, target in reversed(list(targets.items()))
            if "chat" in target.capabilities
        }
        return {
            tier: str(given.get(tier) or found[tier])
            for tier in ("small", "mid", "flagship")
            if given.get(tier) or tier in found
        }

    def _candidates(
        self,
        name: str,
        strategy: str,
        capability: str,
        table: Table,
        targets: Mapping[str, Target],
        by_tier: Mapping[str, str],
    ) -> tuple[tuple[str, ...], str]:
        """The candidates, and the one that is used when nothing else decides."""
        if strategy == "specialty":
            able = tuple(one for one, target in targets.items() if capability in target.capabilities)
            return able, able[0] if able else ""
        if strategy in ("complexity", "router_model"):
            found = tuple(dict.fromkeys(by_tier.values()))
        else:
            found = tuple(
                map(str, table.take("steps" if strategy == "cascade" else "candidates", (list,), []))
            )
        if strategy != "task":
            return found, found[-1] if found else ""
        tier = table.word("tier", "", among=TIERS)
        of_tier = next(
            (one for one, target in targets.items() if target.tier == tier and target.is_enabled), ""
        )
        chosen = table.word("target", of_tier)
        if tier and not chosen:
            raise PolicyError(f"route.{name}.tier: no target has the tier {tier!r}")
        return tuple(dict.fromkeys([*found, chosen])) if chosen else (), chosen

    def _validator(self, where: str, value: object) -> ValidatorSpec:
        if not isinstance(value, dict):
            raise PolicyError(
                f'{where}: expected a table such as {{ kind = "json" }}, got {type(value).__name__}'
            )
        table = Table(value, where)
        kind = table.word("kind", among=tuple(VALIDATORS))
        options: dict[str, Any] = {key: table.take(key, (object,)) for key in VALIDATORS[kind]}
        schema = options.get("schema")
        if isinstance(schema, str):
            options["schema"] = self._json_file(f"{where}.schema", schema)
        if kind == "regex":
            try:
                re.compile(options["pattern"])
            except (re.error, TypeError) as error:
                raise PolicyError(f"{where}.pattern: not a regular expression: {error}") from error
        if kind == "callable" and self._is_served:
            raise PolicyError(f"{where}.kind: a served policy runs no code of the application")
        return table.finish(ValidatorSpec(kind, options))

    def _examples(self, name: str, table: Table) -> tuple[tuple[str, str], ...]:
        where = f"route.{name}.examples"
        given = table.take("examples", (str, list), [])
        if isinstance(given, str):
            try:
                given = [
                    json.loads(line)
                    for line in self._file(where, given).decode().splitlines()
                    if line.strip()
                ]
            except ValueError as error:
                raise PolicyError(f"{where}: the file is not JSON lines: {error}") from error
        try:
            return tuple((str(one["text"]), str(one["target"])) for one in given)
        except (KeyError, TypeError) as error:
            raise PolicyError(f"{where}: each example has `text` and `target`") from error

    def _json_file(self, where: str, name: str) -> Any:
        try:
            return json.loads(self._file(where, name))
        except ValueError as error:
            raise PolicyError(f"{where}: the file {name!r} is not JSON: {error}") from error

    def _file(self, where: str, name: str) -> bytes:
        if self._is_served or self._read is None:
            raise PolicyError(
                f"{where}: a policy without a folder names no file; write the content in place of {name!r}"
            )
        try:
            return self._read(name)
        except OSError as error:
            raise PolicyError(
                f"{where}: the file {name!r} can't be read: {error.strerror or error}"
            ) from error

    def _experiment(self, name: str, table: Table) -> Experiment:
        arms, weights = table.take("arms", (dict,)), table.take("weights", (dict,))
        if set(arms) != set(weights):
            raise PolicyError(
                f"experiment.{name}.weights: one weight per arm of {', '.join(sorted(arms))}, got {', '.join(sorted(weights))}"
            )
        unit = table.word("unit", "call", among=("call", "conversation", "user"))
        return table.finish(
            Experiment(
                name=name,
                route=table.word("route"),
                arms=tuple(
                    Arm(arm, str(arms[arm]), _share(f"experiment.{name}.weights.{arm}", weights[arm]))
                    for arm in sorted(arms)
                ),
                unit=unit,  # type: ignore[arg-type]  # `among` has checked it
            )
        )

    def _shadow(self, name: str, table: Table) -> Shadow:
        return table.finish(
            Shadow(
                name=name,
                route=table.word("route"),
                target=table.word("target"),
                share=table.number("share", None, high=1, required=True) or 0.0,
                max_spend_per_day=table.number("max_spend_per_day", None, required=True) or 0.0,
                allow_new_provider=table.flag("allow_new_provider", False),
            )
        )


def _share(where: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise PolicyError(f"{where}: a number from 0 to 1, got {value!r}")
    return float(value)
