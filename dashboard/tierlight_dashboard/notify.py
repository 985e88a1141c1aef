"""Tells people of alerts and of experiments that ended: signed webhook, Slack-compatible webhook, e-mail.

Each alert is told once when it opens, once for each rise of its severity and once when it is resolved, to each
channel that asked for its severity; muted routes and signals are told to nobody. An experiment that the watch ended
is told once, muted or not: somebody approved it and waits for its end. What was told is kept in the store's settings,
so that a restart tells nothing twice; what became of each message is in the audit log, without addresses and texts.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import smtplib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from typing import Any, Literal, Protocol
from urllib.parse import quote, urlsplit

import httpx

from tierlight_collector.decisions import Alert, AuditEntry, Severity
from tierlight_collector.stores.protocol import Store

from .analysis.course import Turn
from .analysis.drift import SEVERITY_ORDER
from .analysis.standing import is_muted
from .outbound import NOT_TOLD, NOTIFIER, TIMEOUT_S, TOLD, OutboundRefused, Resolver, post, resolve

logger = logging.getLogger(__name__)

SIGNATURE = "X-Tierlight-Signature"
TOLD_KEY = "notify.told"
MOST_REMEMBERED = 2_000
Event = Literal["opened", "worsened", "resolved"]


def signature(secret: str, at_s: int, body: bytes) -> str:
    """`t=<unix>,v1=<hmac>`: HMAC-SHA256 in hex of "t.body", so that a receiver can refuse old and foreign bodies.

    >>> signature("k", 1, b"{}")[:8]
    't=1,v1=c'
    """
    digest = hmac.new(secret.encode(), f"{at_s}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at_s},v1={digest}"


# ---- messages ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Message:
    """One thing to tell. `key` says what it is, so that no channel hears it twice; `path` is where it is shown."""

    key: str
    severity: Severity
    heading: str
    sentence: str
    path: str
    body: Mapping[str, Any]  # of a webhook, which gets the link as well


# ---- channels -------------------------------------------------------------------------------------------


class Channel(Protocol):
    """Somewhere people read."""

    @property
    def name(self) -> str: ...

    @property
    def least(self) -> Severity: ...

    def send(self, message: Message, link: str, now_ns: int) -> None:
        """Deliver one message or raise."""


class News(Protocol):
    """The alerts that one look of the watch opened, found graver, and resolved; the experiments that it ended."""

    @property
    def opened(self) -> Sequence[Alert]: ...

    @property
    def worsened(self) -> Sequence[Alert]: ...

    @property
    def resolved(self) -> Sequence[Alert]: ...

    @property
    def ended(self) -> Sequence[Turn]: ...


@dataclass(frozen=True, slots=True)
class Webhook:
    """A JSON body per event, signed when there is a secret."""

    url: str
    secret: str = ""
    name: str = "webhook"
    least: Severity = "ticket"
    allowed_hosts: tuple[str, ...] = ()
    resolver: Resolver = resolve
    transport: httpx.BaseTransport | None = None

    def send(self, message: Message, link: str, now_ns: int) -> None:
        body = json.dumps({**message.body, "link": link}, ensure_ascii=False).encode()
        headers = {"Content-Type": "application/json"}
        if self.secret:
            headers[SIGNATURE] = signature(self.secret, now_ns // 1_000_000_000, body)
        _accepted(self.name, self._post(body, headers))

    def _post(self, body: bytes, headers: dict[str, str]) -> int:
        return post(
            self.url,
            body,
            headers,
            resolver=self.resolver,
            allowed_hosts=self.allowed_hosts,
            transport=self.transport,
        )


@dataclass(frozen=True, slots=True)
class Slack:
    """A Slack-compatible incoming webhook (Slack, Mattermost, Rocket.Chat, Zulip)."""

    url: str
    name: str = "slack"
    least: Severity = "ticket"
    allowed_hosts: tuple[str, ...] = ()
    resolver: Resolver = resolve
    transport: httpx.BaseTransport | None = None

    def send(self, message: Message, link: str, now_ns: int) -> None:
        # Route names come from telemetry: mark-up in them must stay text.
        text = f"{message.heading}\n{message.sentence}"
        for raw, safe in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
            text = text.replace(raw, safe)
        body = json.dumps({"text": f"{text}\n{link}" if link else text}, ensure_ascii=False).encode()
        status = post(
            self.url,
            body,
            {"Content-Type": "application/json"},
            resolver=self.resolver,
            allowed_hosts=self.allowed_hosts,
            transport=self.transport,
        )
        _accepted(self.name, status)


@dataclass(frozen=True, slots=True)
class Email:
    """One plain-text message per event by SMTP; the server comes from the configuration file only."""

    host: str
    sender: str
    to: tuple[str, ...]
    port: int = 587
    user: str = ""
    password: str = ""
    starttls: bool = True
    name: str = "email"
    least: Severity = "page"

    def send(self, message: Message, link: str, now_ns: int) -> None:
        mail = EmailMessage()
        mail["From"], mail["To"] = self.sender, ", ".join(self.to)
        # A line break in a route name would start another header.
        mail["Subject"] = " ".join(message.heading.split())
        mail.set_content(f"{message.sentence}\n\n{link}".rstrip() + "\n")
        with smtplib.SMTP(self.host, self.port, timeout=TIMEOUT_S) as server:
            if self.starttls:
                server.starttls()
            if self.user:
                server.login(self.user, self.password)
            server.send_message(mail)


class NotAccepted(OSError):
    """The receiver answered, and not with 2xx."""


def _accepted(name: str, status: int) -> None:
    if not 200 <= status < 300:
        raise NotAccepted(f"expected {name} to answer 2xx, got {status}")


def described(channel: Channel) -> str:
    """A channel in words: its name, where it leads and what it is told; never the address, which may be a secret.

    >>> described(Slack("https://hooks.example/T0/secret"))
    'slack: hooks.example, ticket and graver'
    """
    where = ""
    if isinstance(channel, Webhook | Slack):
        where = f"{urlsplit(channel.url).hostname or 'no host'}, "
    elif isinstance(channel, Email):
        where = f"{len(channel.to)} by {channel.host}, "
    signed = ", signed" if isinstance(channel, Webhook) and channel.secret else ""
    graver = channel.least if channel.least == "page" else f"{channel.least} and graver"
    return f"{channel.name}: {where}{graver}{signed}"


def heading(event: Event, alert: Alert) -> str:
    """The first line: what happened, to whom, how grave."""
    what = {"opened": alert.severity, "worsened": f"now {alert.severity}", "resolved": "resolved"}[event]
    return f"[tierlight {what}] {alert.signal} of {alert.route or alert.model}"


def alert_message(event: Event, alert: Alert) -> Message:
    """What is told of an alert; holds no captured content."""
    state = alert.severity if event != "resolved" else f"resolved {alert.resolved_ns}"
    body = {
        "event": event,
        "id": alert.id,
        "severity": alert.severity,
        "kind": alert.kind,
        "signal": alert.signal,
        "scope": alert.scope,
        "route": alert.route,
        "model": alert.model,
        "state": alert.state,
        "opened_ns": alert.opened_ns,
        "resolved_ns": alert.resolved_ns,
        "change_ns": alert.change_ns,
        "before": alert.before,
        "after": alert.after,
        "effect_low": alert.effect_low,
        "effect_high": alert.effect_high,
        "unit": alert.unit,
        "sentence": alert.sentence,
        "attribution": [term.get("text", "") for term in alert.attribution],
    }
    return Message(
        f"{alert.id} {state}",
        alert.severity,
        heading(event, alert),
        alert.sentence,
        f"/alerts?state=all#alert-{alert.id}",
        body,
    )


def trial_message(now_ns: int) -> Message:
    """Something harmless, to see whether it arrives."""
    sentence = "A test sent from the settings page. Alerts will look like this one."
    return Message(
        f"test {now_ns}",
        "page",
        "[tierlight test] notifications work",
        sentence,
        "/settings#notify",
        {"event": "test", "sent_ns": now_ns, "sentence": sentence},
    )


def end_message(over: Turn) -> Message:
    """What is told of an experiment that the watch ended; graver where users had the candidate's answers."""
    one = over.experiment
    word = one.state.replace("_", " ")
    body = {
        "event": "ended",
        "experiment": one.id,
        "route": one.route,
        "kind": one.kind,
        "control": one.control,
        "candidate": one.candidate,
        "state": one.state,
        "ended_ns": one.ended_ns,
        "sentence": over.sentence,
    }
    return Message(
        f"experiment {one.id} {one.state} {one.ended_ns}",
        "page" if one.state == "rolled_back" and one.shipped_ns is not None else "ticket",
        f"[tierlight {word}] experiment on {one.route}",
        over.sentence,
        f"/experiments/{quote(one.id, safe='')}",
        body,
    )


# ---- who is told what -----------------------------------------------------------------------------------


class Notifier:
    """Tells the channels what a tick of the watch found. A channel that fails is logged and tried at the next tick."""

    def __init__(self, store: Store, channels: Sequence[Channel], dashboard_url: str = "") -> None:
        self._store = store
        self._channels = channels
        self._url = dashboard_url.rstrip("/")
        stored = store.settings().get(TOLD_KEY, "[]")
        self._told: dict[str, None] = dict.fromkeys(json.loads(stored))
        self._waiting: list[Message] = []
        self._failed: set[str] = set()

    def test(self, now_ns: int) -> int:
        """Send something harmless to every channel at once, whatever it asked for; gives how many took it."""
        message = trial_message(now_ns)
        return sum(self._deliver(channel, message, now_ns) for channel in self._channels)

    def tell(self, news: News, now_ns: int) -> int:
        """Send what is new to every channel that wants it; gives the number of messages delivered."""
        if not self._channels:
            return 0
        messages = [*self._waiting, *self._messages(news, now_ns)]
        self._waiting = []
        delivered = sum(self._deliver(each, one, now_ns) for one in messages for each in self._channels)
        if delivered:
            newest = list(self._told)[-MOST_REMEMBERED:]
            self._told = dict.fromkeys(newest)
            self._store.set_setting(TOLD_KEY, json.dumps(newest), NOTIFIER)
        return delivered

    def _messages(self, news: News, now_ns: int) -> Iterator[Message]:
        events: list[tuple[Event, Alert]] = [("opened", alert) for alert in news.opened]
        events += [("worsened", alert) for alert in news.worsened]
        events += [("resolved", alert) for alert in news.resolved]
        mutes = self._store.mutes() if events else []
        yield from (alert_message(*one) for one in events if not is_muted(one[1], mutes, now_ns))
        yield from map(end_message, news.ended)

    def _deliver(self, channel: Channel, message: Message, now_ns: int) -> bool:
        if SEVERITY_ORDER[message.severity] < SEVERITY_ORDER[channel.least]:
            return False
        key = f"{channel.name} {message.key}"
        if key in self._told:
            return False
        try:
            channel.send(message, f"{self._url}{message.path}" if self._url else "", now_ns)
        except OutboundRefused as error:
            logger.error("%s was not told of %s: %s", channel.name, message.path, error)
            self._note(now_ns, channel, message, key, str(error))
            return False
        except (OSError, httpx.HTTPError, smtplib.SMTPException) as error:
            reason = str(error) if isinstance(error, NotAccepted) else type(error).__name__
            logger.warning("%s was not told of %s: %s", channel.name, message.path, reason)
            self._note(now_ns, channel, message, key, reason)
            is_test = message.body.get("event") == "test"
            if not is_test and message not in self._waiting and len(self._waiting) < 100:
                self._waiting.append(message)  # for the next tick
            return False
        self._told[key] = None
        self._failed.discard(key)
        self._store.record_audit(AuditEntry(now_ns, NOTIFIER, TOLD, channel.name, message.heading))
        return True

    def _note(self, now_ns: int, channel: Channel, message: Message, key: str, reason: str) -> None:
        """Leave an entry of a failure, once however often it is tried again."""
        if key in self._failed:
            return
        if len(self._failed) >= MOST_REMEMBERED:
            self._failed.clear()
        self._failed.add(key)
        detail = f"{message.heading}: {reason}"
        self._store.record_audit(AuditEntry(now_ns, NOTIFIER, NOT_TOLD, channel.name, detail))
