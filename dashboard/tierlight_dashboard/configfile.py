"""The configuration file that `--config` names: who is told of alerts, what is masked, how routes are named, and where
spans are sent on to.

    [redact]
    builtin = true                                # the patterns of the SDK: keys, tokens, e-mail, cards
    patterns = { ticket = "TCK-[0-9]{6}" }        # yours, after them

    [routes]
    keys = ["app.feature"]                        # attributes that name a route, before all that are known
    order = ["declared", "dialect", "ancestor", "agent", "prompt", "root"]
    rename = { "support-*" = "support", "worker" = "" }

    [[forward]]
    name = "tempo"
    endpoint = "http://127.0.0.1:5318"
    headers = { authorization = "env:TEMPO_TOKEN" }

The table `[notify]` is described in `channels`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tierlight.errors import ConfigurationError
from tierlight_collector.forward import ForwardTarget
from tierlight_collector.limits import MIB
from tierlight_collector.normalise import PLAIN_RULES, ROUTE_ORDER, RouteRules, route_name
from tierlight_collector.redaction import Redaction

from .channels import Notifications, expect, expect_table, expect_texts, notifications_of

_TABLES = ("notify", "redact", "routes", "forward")
_FORWARD_KEYS = (
    "name", "endpoint", "protocol", "headers", "content", "signals", "compression", "max_queue_mb", "max_age_h",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Configuration:
    """What the file says; without a file, the defaults."""

    notifications: Notifications = field(default_factory=Notifications)
    redaction: Redaction = field(default_factory=Redaction)
    rules: RouteRules = PLAIN_RULES
    targets: tuple[ForwardTarget, ...] = ()


def read_configuration(path: Path | None) -> Configuration:
    """The file's settings; the defaults when there is no file.

    Raises:
        ConfigurationError: the file cannot be read, or holds a table, key or value that is not as expected.
        BadTarget: a secret is not where the file says.
    """
    if path is None:
        return Configuration()
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"expected a TOML file at {path}: {error}") from error
    _known(data, _TABLES, f"{path}: expected the tables {', '.join(f'[{name}]' for name in _TABLES)}")
    return Configuration(
        notifications_of(expect_table(data.get("notify", {}), "[notify]", path), path),
        _redaction(expect_table(data.get("redact", {}), "[redact]", path), path),
        _rules(expect_table(data.get("routes", {}), "[routes]", path), path),
        _targets(expect(data.get("forward", []), list, "[[forward]]", path), path),
    )


def _known(table: Mapping[str, Any], keys: tuple[str, ...], where: str) -> None:
    unknown = sorted(set(table) - set(keys))
    if unknown:
        raise ConfigurationError(f"{where}, got {', '.join(unknown)}")


def _redaction(table: Mapping[str, Any], path: Path) -> Redaction:
    _known(table, ("builtin", "patterns"), f"{path}: [redact] takes builtin and patterns")
    patterns = expect_table(table.get("patterns", {}), "[redact] patterns", path)
    return Redaction(
        [
            (word, expect(pattern, str, f"[redact] patterns {word}", path))
            for word, pattern in patterns.items()
        ],
        builtin=expect(table.get("builtin", True), bool, "[redact] builtin", path),
    )


def _rules(table: Mapping[str, Any], path: Path) -> RouteRules:
    if not table:
        return PLAIN_RULES
    _known(table, ("keys", "order", "rename"), f"{path}: [routes] takes keys, order and rename")
    order = expect_texts(table.get("order", list(ROUTE_ORDER)), "[routes] order", path)
    if len(set(order)) < len(order) or not set(order) <= set(ROUTE_ORDER):
        raise ConfigurationError(
            f"{path}: expected [routes] order of {', '.join(ROUTE_ORDER)}, each at most once, got {', '.join(order)}"
        )
    renamed = expect_table(table.get("rename", {}), "[routes] rename", path)
    return RouteRules(
        expect_texts(table.get("keys", []), "[routes] keys", path),
        order,  # type: ignore[arg-type]  # checked above
        MappingProxyType(
            {
                said.lower() if "*" in said else route_name(said): route_name(
                    expect(name, str, f"[routes] rename {said}", path)
                )
                for said, name in renamed.items()
            }
        ),
    )


def _targets(entries: list[Any], path: Path) -> tuple[ForwardTarget, ...]:
    targets = [_target(expect_table(entry, "[[forward]]", path), path) for entry in entries]
    names = [target.name for target in targets]
    if len(set(names)) < len(names):
        raise ConfigurationError(f"{path}: expected a name of its own for each [[forward]], got {names}")
    return tuple(targets)


def _target(table: Mapping[str, Any], path: Path) -> ForwardTarget:
    _known(table, _FORWARD_KEYS, f"{path}: [[forward]] takes {', '.join(_FORWARD_KEYS)}")
    for key in ("name", "endpoint"):
        if key not in table:
            raise ConfigurationError(f"{path}: [[forward]] needs {key}")
    name = expect(table["name"], str, "[[forward]] name", path)
    where = f"[[forward]] {name}"
    protocol = expect(table.get("protocol", "http/protobuf"), str, f"{where} protocol", path)
    signals = expect_texts(table.get("signals", ["traces"]), f"{where} signals", path)
    compression = expect(table.get("compression", "gzip"), str, f"{where} compression", path)
    for value, allowed in (
        (protocol, ("http/protobuf", "grpc")),
        (compression, ("gzip", "none")),
        *((signal, ("traces", "logs")) for signal in signals),
    ):
        if value not in allowed:
            raise ConfigurationError(f"{path}: expected {where} {' or '.join(allowed)}, got {value!r}")
    headers = expect_table(table.get("headers", {}), f"{where} headers", path)
    return ForwardTarget(
        name,
        expect(table["endpoint"], str, f"{where} endpoint", path),
        protocol,
        # Read when forwarding starts, so that a secret stays out of what is held here.
        {key.lower(): _plain(value, f"{where} {key}", path) for key, value in headers.items()},
        content=expect(table.get("content", False), bool, f"{where} content", path),
        signals=signals,  # type: ignore[arg-type]
        compress=compression == "gzip",
        max_queue_bytes=_positive(table.get("max_queue_mb", 256), f"{where} max_queue_mb", path) * MIB,
        max_age_s=_positive(table.get("max_age_h", 24), f"{where} max_age_h", path) * 3600.0,
    )


def _plain(value: object, where: str, path: Path) -> str:
    if not isinstance(value, str):
        raise ConfigurationError(f"{path}: expected {where} as str, got {type(value).__name__}")
    return value


def _positive(value: object, where: str, path: Path) -> int:
    number: int = expect(value, int, where, path)
    if number <= 0:
        raise ConfigurationError(f"{path}: expected {where} above 0, got {number}")
    return number
