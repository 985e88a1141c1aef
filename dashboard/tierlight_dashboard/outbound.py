"""Posting to addresses that people configured, under the rules for any outbound address.

http or https, the name resolved once, no loopback, private or otherwise special address unless the configuration
allows its host, the connection made to the address that was checked, no redirects, no proxy from the environment,
5 seconds, at most 64 KiB of answer read.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit, urlunsplit

import httpx

TIMEOUT_S = 5.0
LONGEST_ANSWER = 65_536
NOTIFIER = "notify"  # who, in the audit log's entries of what became of a message
TOLD, NOT_TOLD = "told", "not told"
Resolver = Callable[[str, int], Sequence[str]]

_CGNAT = ip_network("100.64.0.0/10")
_NAT64 = (ip_network("64:ff9b::/96"), ip_network("64:ff9b:1::/48"))
_6TO4 = ip_network("2002::/16")


class OutboundRefused(Exception):
    """The address may not be called from here; the message says what was expected and how to allow it."""


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
