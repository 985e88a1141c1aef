"""The channels of a configuration file: who is told of alerts, and where.

    [notify]
    dashboard_url = "https://tierlight.example"   # for links; else the server's own address
    allowed_hosts = ["hooks.internal"]            # private addresses that may be called

    [[notify.slack]]
    url = "env:SLACK_HOOK"

    [[notify.webhook]]
    url = "https://ops.example/hook"
    secret = "file:/run/secrets/hook"
    least = "page"

    [[notify.email]]
    host = "smtp.example"
    sender = "tierlight@example.com"
    to = ["oncall@example.com"]

Texts may be `env:NAME` or `file:PATH`, so that no secret stands in the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tierlight.errors import ConfigurationError
from tierlight_collector.forward import read_secret

from .analysis.drift import SEVERITY_ORDER
from .notify import Channel, Email, Slack, Webhook

_TEXT, _LIST, _NUMBER, _FLAG = str, list, int, bool
_KEYS: dict[str, dict[str, type]] = {
    "webhook": {"url": _TEXT, "secret": _TEXT, "name": _TEXT, "least": _TEXT},
    "slack": {"url": _TEXT, "name": _TEXT, "least": _TEXT},
    "email": {
        "host": _TEXT, "sender": _TEXT, "to": _LIST, "port": _NUMBER, "user": _TEXT, "password": _TEXT,
        "starttls": _FLAG, "name": _TEXT, "least": _TEXT,
    },
}  # fmt: skip
_REQUIRED = {"webhook": ("url",), "slack": ("url",), "email": ("host", "sender", "to")}


@dataclass(frozen=True, slots=True)
class Notifications:
    """The channels, and the address their links lead to ("" = the server's own)."""

    channels: tuple[Channel, ...] = ()
    dashboard_url: str = ""


def notifications_of(table: Mapping[str, Any], path: Path) -> Notifications:
    """The `[notify]` table of the configuration file at `path`.

    Raises:
        ConfigurationError: it holds a key or value that is not as expected.
        BadTarget: a secret is not where the file says.
    """
    unknown = sorted(set(table) - {"dashboard_url", "allowed_hosts", *_KEYS})
    if unknown:
        raise ConfigurationError(f"{path}: [notify] knows no {', '.join(unknown)}")
    url = expect(table.get("dashboard_url", ""), _TEXT, "dashboard_url", path)
    hosts = expect_texts(table.get("allowed_hosts", []), "allowed_hosts", path)
    channels: list[Channel] = []
    for kind in _KEYS:
        entries = expect(table.get(kind, []), _LIST, f"[[notify.{kind}]]", path)
        for number, entry in enumerate(entries, 1):
            given = _entry(kind, entry, path)
            given.setdefault("name", kind if number == 1 else f"{kind} {number}")
            channels.append(_channel(kind, given, hosts))
    names = [channel.name for channel in channels]
    if len(set(names)) < len(names):
        raise ConfigurationError(f"{path}: expected a name of its own for each channel, got {names}")
    return Notifications(tuple(channels), url)


def _channel(kind: str, given: dict[str, Any], hosts: tuple[str, ...]) -> Channel:
    if kind == "webhook":
        return Webhook(**given, allowed_hosts=hosts)
    if kind == "slack":
        return Slack(**given, allowed_hosts=hosts)
    return Email(**given)


def _entry(kind: str, entry: object, path: Path) -> dict[str, Any]:
    where = f"[[notify.{kind}]]"
    table = expect_table(entry, where, path)
    keys = _KEYS[kind]
    unknown = sorted(set(table) - set(keys))
    missing = [key for key in _REQUIRED[kind] if key not in table]
    if unknown or missing:
        wrong = f"knows no {', '.join(unknown)}" if unknown else f"needs {', '.join(missing)}"
        raise ConfigurationError(f"{path}: {where} {wrong}")
    given = {key: expect(value, keys[key], f"{where} {key}", path) for key, value in table.items()}
    if given.get("least", "page") not in SEVERITY_ORDER:
        raise ConfigurationError(
            f"{path}: expected least of {where} to be page, ticket or info, got {given['least']!r}"
        )
    if "to" in given:
        given["to"] = expect_texts(given["to"], f"{where} to", path)
    return given


def expect_table(value: object, where: str, path: Path) -> Mapping[str, Any]:
    """The value where it is a table."""
    if not isinstance(value, dict):
        raise ConfigurationError(f"{path}: expected {where} to be a table")
    return value


def expect_texts(value: object, where: str, path: Path) -> tuple[str, ...]:
    """The value where it is a list of texts."""
    return tuple(expect(text, _TEXT, where, path) for text in expect(value, _LIST, where, path))


def expect(value: Any, kind: type, where: str, path: Path) -> Any:
    """The value where it is of the kind; a text may say `env:NAME` or `file:PATH` for what is read there."""
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ConfigurationError(f"{path}: expected {where} as {kind.__name__}, got {type(value).__name__}")
    return read_secret(value) if isinstance(value, str) else value
