"""What the routing commands read first: a policy, a route of it, prices."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tierlight.errors import ConfigurationError, PolicyError
from tierlight.pricing import PriceBook
from tierlight.routing.declared import Route
from tierlight.routing.policy import Policy
from tierlight.routing.source import load_policy

from .options import fail


def policy_of(file: Path, book: PriceBook | None = None) -> Policy:
    """The policy of a file; one that must not be loaded ends the command with 2."""
    try:
        return load_policy(file, prices=book)
    except PolicyError as error:
        raise fail(error) from error


def served_policy(toml: bytes, name: str) -> Policy:
    """A policy as a collector would serve it, which may say less than a file."""
    try:
        return Policy.from_toml(toml, is_served=True)
    except PolicyError as error:
        raise fail(f"{name}: {error}") from error


def book_of(prices: Path | None) -> PriceBook:
    """Prices: the user's own before the list prices, or the list prices."""
    try:
        return PriceBook.from_toml(prices.read_bytes()) if prices is not None else PriceBook.default()
    except (ConfigurationError, OSError) as error:
        raise fail(error) from error


def route_of(policy: Policy, name: str) -> Route:
    """A route of the policy, or the end of the command with the known ones."""
    if name not in policy.routes:
        raise fail(f"the policy has no route {name!r}; known are {', '.join(policy.routes) or 'none'}")
    return policy.routes[name]


@contextmanager
def explained() -> Iterator[None]:
    """What a user can correct ends the command with its message."""
    try:
        yield
    except ConfigurationError as error:
        raise fail(error) from error
