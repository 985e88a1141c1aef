"""The policy file that a what-if amounts to: the served one with its routes moved, or a first one."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from tierlight.errors import PolicyError
from tierlight.routing.policy import Policy
from tierlight.routing.revise import moved
from tierlight.semconv import ROUTE_PATTERN, TIERS


@dataclass(frozen=True, slots=True)
class Move:
    """One route from the model that answers it to another; both as (provider, model, tier)."""

    route: str
    control: tuple[str, str, str]
    candidate: tuple[str, str, str]
    accepted: float = (
        1.0  # below 1 the candidate is meant to be tried first, which needs a check of its answers
    )


def policy_text(served: str, moves: Sequence[Move]) -> str:
    """A policy as TOML, valid as soon as one route was moved; what could not be written stands as a comment at its top.

    Args:
        served: the policy that is served now, "" where there is none.
    """
    done, left = _revised(served, moves) if served else _first(moves)
    head = [
        "# What-if as a policy. Read it before you approve it: nothing here says that answers stay as good."
    ]
    head += [f"# Not written: {reason}" for reason in left]
    return "\n".join(head) + "\n" + done


def _revised(served: str, moves: Sequence[Move]) -> tuple[str, list[str]]:
    left = []
    for move in moves:
        if move.accepted < 1:
            left.append(_cascade(move))
            continue
        try:
            served = moved(served, move.route, control=move.control[1], candidate=move.candidate[1])
        except PolicyError as error:
            left.append(_one_line(str(error)))
    return served, left


def _first(moves: Sequence[Move]) -> tuple[str, list[str]]:
    """A policy of the moved routes alone; calls of all others go on as they are."""
    targets: dict[str, str] = {}
    routes, left = [], []
    for move in moves:
        if move.accepted < 1:
            left.append(_cascade(move))
        elif not re.fullmatch(ROUTE_PATTERN, move.route):
            left.append(
                f"{_one_line(move.route)}: a policy's routes are of the letters a-z, digits and . _ / -"
            )
        else:
            provider, model, tier = move.candidate
            targets[model] = _target(provider, model, tier)
            routes.append(f"[route.{json.dumps(move.route)}]\ntarget = {json.dumps(model)}\n")
    if not routes:
        return "schema = 1\n", left or ["no route was moved"]
    text = "schema = 1\n\n" + "\n".join(sorted(targets.values())) + "\n" + "\n".join(sorted(routes))
    try:
        Policy.from_toml(text, is_served=True)
    except PolicyError as error:
        return "schema = 1\n", [*left, _one_line(str(error))]
    return text, left


def _target(provider: str, model: str, tier: str) -> str:
    lines = [
        f"[target.{json.dumps(model)}]",
        f"provider = {json.dumps(provider)}",
        f"model = {json.dumps(model)}",
        *([f"tier = {json.dumps(tier)}"] if tier in TIERS else []),
        'fallback = "none"   # name another target here, so that an outage does not stop the route',
    ]
    return "\n".join(lines) + "\n"


def _cascade(move: Move) -> str:
    return (
        f"{_one_line(move.route)}: {_one_line(move.candidate[1])} first and today's model for what is refused needs"
        ' strategy = "cascade" with a check of the answers, which only you can name'
    )


def _one_line(text: str) -> str:
    """Foreign text inside a comment: no line break may end it."""
    return re.sub(r"[\x00-\x1f\x7f\u0085\u2028\u2029]+", " ", text)[:300]
