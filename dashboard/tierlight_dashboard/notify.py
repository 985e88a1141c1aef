"""Tells people of alerts: signed webhook, Slack-compatible webhook, e-mail.

Each alert is told once when it opens, once for each rise of its severity and once when it is resolved, to each
channel that asked for its severity; muted routes and signals are told to nobody. What was told is kept in the
store's settings, so that a restart tells nothing twice.

Webhooks go out under the rules for any outbound address: http or https, the name resolved once, no loopback,
private or otherwise special address unless the configuration allows its host, the connection made to the
address that was checked, no redirects, no proxy from the environment, 5 seconds, at most 64 KiB of answer read.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import smtplib
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit, urlunsplit

import httpx

from tierlight_collector.decisions import Alert, Severity
from tierlight_collector.stores.protocol import Store

from .analysis.drift import SEVERITY_ORDER
from .analysis.standing import is_muted

logger = logging.getLogger(__name__)

TIMEOUT_S = 5.0
LONGEST_ANSWER = 65_536
SIGNATURE = "X-Tierlight-Signature"
TOLD_KEY = "notify.told"
MOST_REMEMBERED = 2_000
Event = Literal["opened", "worsened", "resolved"]
Resolver = Callable[[str, int], Sequence[str]]

_CGNAT = ip_network("100.64.0.0/10")
_NAT64 = (ip_network("64:ff9b::/96"), ip_network("64:ff9b:1::/48"))
_6TO4 = ip_network("2002::/16")


class OutboundRefused(Exception):
    """The address may not be called from here; the message says what was expected and how to allow it."""


# ---- addresses ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Target:
    """A URL whose host was resolved and checked: connect to `address`, speak to `host`."""

    url: str  # with the address in place of the host
    host: str
    header: str  # the Host header
    address: str


def resolve(host: str, port: int) -> Sequence[str]:
    """The addresses of a host by the system's resolver."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def checked_target(url: str, resolver: Resolver = resolve, allowed_hosts: Iterable[str] = ()) -> Target:
    """The URL, checked and with its host resolved once.

    Raises OutboundRefused for another scheme, for a user name in the URL, for a name that does not resolve, and
    when any of its addresses is special and the host is not in `allowed_hosts`.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise OutboundRefused(f"expected an http or https URL, got the scheme {parts.scheme!r}")
    if parts.username is not None or parts.password is not None:
        raise OutboundRefused("expected a URL without a user name or password in it: use a header instead")
    host = parts.hostname
    if not host:
        raise OutboundRefused("expected a URL with a host")
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        addresses = resolver(host, port)
    except (OSError, ValueError) as error:
        raise OutboundRefused(f"expected a host that resolves, {host} does not: {error}") from error
    if not addresses:
        raise OutboundRefused(f"expected a host that resolves, {host} has no address")
    if host not in set(allowed_hosts):
        for text in addresses:
            if is_special(text):
                raise OutboundRefused(
                    f"expected a public address, {host} is {text}: add the host to allowed_hosts of the"
                    " configuration file if it is meant"
                )
    address = addresses[0].partition("%")[0]
    shown = f"[{address}]" if ":" in address else address
    return Target(
        urlunsplit((parts.scheme, f"{shown}:{port}", parts.path or "/", parts.query, "")),
        host,
        parts.netloc,
        address,
    )


def is_special(text: str) -> bool:
    """Whether an address is anything but a public unicast one; IPv4 inside IPv6 counts as the IPv4."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return True
    if isinstance(address, IPv6Address):
        inner = _embedded(address)
        if inner is not None:
            return is_special(str(inner))
    return (
        not address.is_global
        or address.is_loopback
        or address.is_private
        or address.is_link_local
        or address.is_multicast
        or address.is_reserved
        or address.is_unspecified
        or address in _CGNAT
    )


def _embedded(address: IPv6Address) -> IPv4Address | None:
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if any(address in network for network in _NAT64):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    if address in _6TO4:
        return IPv4Address((int(address) >> 80) & 0xFFFFFFFF)
    return None


def post(
    url: str,
    body: bytes,
    headers: dict[str, str],
    *,
    resolver: Resolver = resolve,
    allowed_hosts: Iterable[str] = (),
    transport: httpx.BaseTransport | None = None,
) -> int:
    """Post to a checked address; gives the status. Raises OutboundRefused or httpx.HTTPError."""
    target = checked_target(url, resolver, allowed_hosts)
    # trust_env off: no proxy and no .netrc from the environment. A redirect is an answer, not an order.
    with (
        httpx.Client(
            trust_env=False, follow_redirects=False, timeout=TIMEOUT_S, transport=transport
        ) as client,
        client.stream(
            "POST",
            target.url,
            content=body,
            headers={**headers, "Host": target.header},
            extensions={"sni_hostname": target.host},
        ) as response,
    ):
        read = 0
        for chunk in response.iter_bytes():
            read += len(chunk)
            if read > LONGEST_ANSWER:
                break
        return response.status_code


def signature(secret: str, at_s: int, body: bytes) -> str:
    """`t=<unix>,v1=<hmac>`: HMAC-SHA256 in hex of "t.body", so that a receiver can refuse old and foreign bodies.

    >>> signature("k", 1, b"{}")[:8]
    't=1,v1=c'
    """
    digest = hmac.new(secret.encode(), f"{at_s}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at_s},v1={digest}"


# ---- channels -------------------------------------------------------------------------------------------


class Channel(Protocol):
    """Somewhere people read."""

    @property
    def name(self) -> str: ...

    @property
    def least(self) -> Severity: ...

    def send(self, event: Event, alert: Alert, link: str, now_ns: int) -> None:
        """Deliver one message or raise."""


class News(Protocol):
    """The alerts that one look of the watch opened, found graver, and resolved."""

    @property
    def opened(self) -> Sequence[Alert]: ...

    @property
    def worsened(self) -> Sequence[Alert]: ...

    @property
    def resolved(self) -> Sequence[Alert]: ...


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

    def send(self, event: Event, alert: Alert, link: str, now_ns: int) -> None:
        body = json.dumps(payload(event, alert, link), ensure_ascii=False).encode()
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

    def send(self, event: Event, alert: Alert, link: str, now_ns: int) -> None:
        # Route names come from telemetry: mark-up in them must stay text.
        text = f"{heading(event, alert)}\n{alert.sentence}"
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

    def send(self, event: Event, alert: Alert, link: str, now_ns: int) -> None:
        message = EmailMessage()
        message["From"], message["To"] = self.sender, ", ".join(self.to)
        # A line break in a route name would start another header.
        message["Subject"] = " ".join(heading(event, alert).split())
        message.set_content(f"{alert.sentence}\n\n{link}".rstrip() + "\n")
        with smtplib.SMTP(self.host, self.port, timeout=TIMEOUT_S) as server:
            if self.starttls:
                server.starttls()
            if self.user:
                server.login(self.user, self.password)
            server.send_message(message)


def _accepted(name: str, status: int) -> None:
    if not 200 <= status < 300:
        raise OSError(f"expected {name} to answer 2xx, got {status}")


def heading(event: Event, alert: Alert) -> str:
    """The first line: what happened, to whom, how grave."""
    what = {"opened": alert.severity, "worsened": f"now {alert.severity}", "resolved": "resolved"}[event]
    return f"[tierlight {what}] {alert.signal} of {alert.route or alert.model}"


def payload(event: Event, alert: Alert, link: str) -> dict[str, Any]:
    """The body of a webhook; holds no captured content."""
    return {
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
        "link": link,
    }


# ---- who is told what -----------------------------------------------------------------------------------


class Notifier:
    """Tells the channels what a tick of the watch found. A channel that fails is logged and tried at the next tick."""

    def __init__(self, store: Store, channels: Sequence[Channel], dashboard_url: str = "") -> None:
        self._store = store
        self._channels = channels
        self._url = dashboard_url.rstrip("/")
        stored = store.settings().get(TOLD_KEY, "[]")
        self._told: dict[str, None] = dict.fromkeys(json.loads(stored))
        self._waiting: list[tuple[Event, Alert]] = []

    def tell(self, news: News, now_ns: int) -> int:
        """Send what is new to every channel that wants it; gives the number of messages delivered."""
        if not self._channels:
            return 0
        events: list[tuple[Event, Alert]] = [*self._waiting]
        events += [("opened", alert) for alert in news.opened]
        events += [("worsened", alert) for alert in news.worsened]
        events += [("resolved", alert) for alert in news.resolved]
        self._waiting = []
        if not events:
            return 0
        mutes = self._store.mutes()
        delivered = 0
        for event, alert in events:
            if is_muted(alert, mutes, now_ns):
                continue
            for channel in self._channels:
                delivered += self._deliver(channel, event, alert, now_ns)
        if delivered:
            newest = list(self._told)[-MOST_REMEMBERED:]
            self._told = dict.fromkeys(newest)
            self._store.set_setting(TOLD_KEY, json.dumps(newest), "notify")
        return delivered

    def _deliver(self, channel: Channel, event: Event, alert: Alert, now_ns: int) -> bool:
        if SEVERITY_ORDER[alert.severity] < SEVERITY_ORDER[channel.least]:
            return False
        state = f"{alert.severity}" if event != "resolved" else f"resolved {alert.resolved_ns}"
        key = f"{channel.name} {alert.id} {state}"
        if key in self._told:
            return False
        try:
            channel.send(
                event, alert, f"{self._url}/alerts?state=all#alert-{alert.id}" if self._url else "", now_ns
            )
        except OutboundRefused as error:
            logger.error("%s was not told of alert %d: %s", channel.name, alert.id, error)
            return False
        except (OSError, httpx.HTTPError, smtplib.SMTPException) as error:
            logger.warning(
                "%s was not told of alert %d, trying again: %s", channel.name, alert.id, type(error).__name__
            )
            if (event, alert) not in self._waiting and len(self._waiting) < 100:
                self._waiting.append((event, alert))
            return False
        self._told[key] = None
        return True
