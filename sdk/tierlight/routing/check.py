"""What is doubtful about a policy that may be loaded, and what a new one changes.

Nothing here reads a clock or a file: prices, the moment and what the store knows are passed in.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from ..errors import PolicyError
from ..semconv import TIERS
from .declared import Route
from .policy import Policy

if TYPE_CHECKING:
    from ..pricing import PriceBook

RETIRES_WITHIN_DAYS: Final = 60
MANY_CLEVER_ROUTES: Final = 20


@dataclass(frozen=True, slots=True)
class Warning:
    """One doubt, by its code, the key that it is about, and what to do."""

    code: str
    key: str
    message: str

    def __str__(self) -> str:
        return f"{self.code} {self.key}: {self.message}"


@dataclass(frozen=True, slots=True)
class Difference:
    """One key whose value a new policy changes; None = absent. `lowers_tier` asks for evidence first."""

    key: str
    before: Any
    after: Any
    lowers_tier: bool = False


def check_prices(policy: Policy, book: PriceBook, at: datetime) -> None:
    """Refuse cascades whose steps do not rise in list price, where all the prices are known.

    Raises:
        PolicyError: the tiers are upside down; the message names the route and the two steps.
    """
    for route in policy.routes.values():
        if route.strategy != "cascade":
            continue
        prices = [_price(policy, name, book, at) for name in route.candidates]
        for (first, low), (second, high) in zip(
            zip(route.candidates, prices, strict=True),
            list(zip(route.candidates, prices, strict=True))[1:],
            strict=False,
        ):
            if low is not None and high is not None and low > high:
                raise PolicyError(
                    f"route.{route.name}.steps: tiers are upside down: {first} costs more than {second} "
                    f"(USD {low:g} against {high:g} per million tokens, three read for one written); turn the steps around"
                )


def warnings(
    policy: Policy,
    *,
    book: PriceBook | None = None,
    at: datetime | None = None,
    scored_signals: Mapping[str, Collection[str]] | None = None,
    advised_routes: Collection[str] = (),
) -> list[Warning]:
    """Every doubt about the policy, in the order of their codes.

    Args:
        book, at: prices and the moment they are asked for; without them W002 and W003 are not judged.
        scored_signals: signals of the last 30 days by route; without it W005 is not judged.
        advised_routes: routes with an open recommendation.
    """
    found = [*_lonely(policy)]
    if book is not None and at is not None:
        found += [*_unpriced(policy, book, at), *_retiring(policy, book, at)]
    clever = [route for route in policy.routes.values() if route.strategy in ("learned", "cascade")]
    if len(clever) > MANY_CLEVER_ROUTES:
        found.append(
            Warning(
                "W004",
                "route",
                f"{len(clever)} routes are learned or cascades; keep the simple ones on a fixed target",
            )
        )
    if scored_signals is not None:
        found += _unscored(policy, scored_signals)
    shadowed = {one.route for one in policy.shadows.values()} | set(policy.experiment_of)
    for name in sorted(advised_routes):
        route = policy.routes.get(name)
        if route is not None and not route.explore and name not in shadowed and not route.verify_accepted:
            found.append(
                Warning(
                    "W006",
                    f"route.{name}",
                    "it is always decided the same way: nothing can be learnt without explore, a shadow or an experiment",
                )
            )
    return found


def _lonely(policy: Policy) -> Iterator[Warning]:
    for target in policy.targets.values():
        if not any(policy.targets[name].provider != target.provider for name in policy.chain(target.name)):
            yield Warning(
                "W001",
                f"target.{target.name}",
                f"no fallback at another provider than {target.provider}: its outage is yours",
            )


def _unpriced(policy: Policy, book: PriceBook, at: datetime) -> Iterator[Warning]:
    for target in policy.targets.values():
        if not target.is_free and book.quote(target.provider, target.model, at) is None:
            yield Warning(
                "W002",
                f"target.{target.name}",
                f"no price for {target.provider}/{target.model}: its calls cost an unknown amount",
            )


def _retiring(policy: Policy, book: PriceBook, at: datetime) -> Iterator[Warning]:
    today = at.astimezone(UTC).date()
    for target in policy.targets.values():
        day = book.retirement(target.provider, target.model)
        if day is not None and (day - today).days <= RETIRES_WITHIN_DAYS:
            yield Warning(
                "W003",
                f"target.{target.name}",
                f"{target.model} is retired on {day.isoformat()}: choose its successor",
            )


def _unscored(policy: Policy, signals: Mapping[str, Collection[str]]) -> Iterator[Warning]:
    for route in policy.routes.values():
        known = signals.get(route.name, ())
        if route.strategy in ("learned", "embedding") and not (
            route.signal in known if route.signal else known
        ):
            what = f"signal {route.signal!r}" if route.signal else "quality signal"
            yield Warning(
                "W005",
                f"route.{route.name}",
                f"no {what} in the last 30 days: nobody knows whether its choices are good",
            )


def _price(policy: Policy, name: str, book: PriceBook, at: datetime) -> float | None:
    target = policy.targets[name]
    if target.is_free:
        return 0.0
    row = book.quote(target.provider, target.model, at)
    if row is None or row.input_usd is None or row.output_usd is None:
        return None
    return float(3 * row.input_usd + row.output_usd) / 4


# ---- difference -----------------------------------------------------------------------------------------


def difference(before: Policy, after: Policy) -> list[Difference]:
    """The keys whose meaning differs, sorted; a route that goes to a lower tier is marked."""
    old, new = _flat(json.loads(before.canonical)), _flat(json.loads(after.canonical))
    lowered = {
        name
        for name in before.routes.keys() & after.routes.keys()
        if _rank(after, name) < _rank(before, name)
    }
    found = []
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            names = key.split("\0")
            is_choice = (
                len(names) > 2
                and names[0] == "routes"
                and names[2] in ("default", "candidates", "strategy", "by_tier")
            )
            marks = is_choice and names[1] in lowered
            found.append(Difference(".".join(names), old.get(key), new.get(key), marks))
    return found


def summary(before: Policy, after: Policy) -> list[str]:
    """What differs in a line for each table: which is new, which is gone, which keys have another value."""
    said = []
    for word in ("targets", "routes", "experiments", "shadows"):
        old, new = getattr(before, word), getattr(after, word)
        for name in sorted(old.keys() | new.keys()):
            if name not in old or name not in new:
                said.append(f"{word[:-1]} {name} {'added' if name in new else 'removed'}")
            elif old[name] != new[name]:
                said.append(f"{word[:-1]} {name}: {_changed(old[name], new[name])}")
    said += [
        f"{word}: {_changed(getattr(before, word), getattr(after, word))}"
        for word in ("defaults", "breaker")
        if getattr(before, word) != getattr(after, word)
    ]
    if before.currency != after.currency:
        said.append(f"currency {before.currency} → {after.currency}")
    return said


def _changed(old: Any, new: Any) -> str:
    pairs = ((one.name, getattr(old, one.name), getattr(new, one.name)) for one in fields(old))
    return ", ".join(
        f"{name} {was} → {now}" if isinstance(now, str | int | float | None) else f"{name} changed"
        for name, was, now in pairs
        if was != now
    )


def _rank(policy: Policy, name: str) -> int:
    route: Route = policy.routes[name]
    return TIERS.index(policy.targets[route.default].tier)


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        return {path: value}
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat |= _flat(inner, f"{path}\0{key}" if path else key)
    return flat
