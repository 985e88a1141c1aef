"""A policy's text with an experiment or a shadow begun or ended: the rest of it, comments included, stays as it is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from difflib import SequenceMatcher
from typing import Literal

from ..errors import PolicyError
from .declared import Target
from .policy import Policy

Kind = Literal["ab", "shadow"]


def begun(
    toml: str,
    name: str,
    route: str,
    *,
    kind: Kind,
    control: str,
    candidate: str,
    share: float,
    max_spend_per_day: float = 5.0,
) -> str:
    """The policy with an experiment on a route.

    Args:
        control, candidate: models; the policy's targets for them are used. The candidate gets `share` of the calls.
        max_spend_per_day: of a shadow, in the policy's currency.

    Raises:
        PolicyError: the policy has no such route or no target for a model, or would not be valid.
    """
    policy = Policy.from_toml(toml, is_served=True)
    if route not in policy.routes:
        raise PolicyError(f"route.{route}: the policy does not route it, so nothing can be tried on it")
    tried, told = _target_for(policy, candidate), json.dumps(name)
    if kind == "shadow":
        block = (
            f"[shadow.{told}]\nroute = {json.dumps(route)}\ntarget = {json.dumps(tried)}\nshare = {share!r}\n"
            f"max_spend_per_day = {max_spend_per_day!r}\n"
        )
    else:
        usual = _target_for(policy, control)
        block = (
            f"[experiment.{told}]\nroute = {json.dumps(route)}\n"
            f"arms = {{ candidate = {json.dumps(tried)}, control = {json.dumps(usual)} }}\n"
            f"weights = {{ candidate = {share!r}, control = {1 - share!r} }}\n"
        )
    return _valid(f"{toml.rstrip()}\n\n{block}")


def ended(toml: str, name: str) -> str:
    """The policy without the experiment or shadow of that name; the same text where it has none.

    Raises:
        PolicyError: the policy would not be valid without it.
    """
    heads = {
        f"[{kind}.{written}]" for kind in ("experiment", "shadow") for written in (json.dumps(name), name)
    }
    kept = [block for head, block in _blocks(toml) if head not in heads]
    return _valid("".join(kept)) if len(kept) < sum(1 for _ in _blocks(toml)) else toml


def moved(toml: str, route: str, *, control: str, candidate: str) -> str:
    """The policy with a route's fixed target changed from one model's to another's.

    Raises:
        PolicyError: the route does not name the control's target as its own, or there is none for a model.
    """
    policy = Policy.from_toml(toml, is_served=True)
    usual, tried = _target_for(policy, control), _target_for(policy, candidate)
    line = re.compile(rf"^(\s*target\s*=\s*){re.escape(json.dumps(usual))}", re.MULTILINE)
    heads = {f"[route.{json.dumps(route)}]", f"[route.{route}]"}
    changed, kept = 0, []
    for head, block in _blocks(toml):
        if head in heads:
            block, found = line.subn(lambda match: match[1] + json.dumps(tried), block, count=1)
            changed += found
        kept.append(block)
    if not changed:
        raise PolicyError(
            f"route.{route}: expected target = {json.dumps(usual)} there to change it; write {json.dumps(tried)} yourself"
        )
    return _valid("".join(kept))


def undone(newest: str, revision: str, before: str) -> str:
    """The newest text without what one revision changed in the text before it; later changes elsewhere stay.

    Raises:
        PolicyError: later revisions changed the same lines, or what is left would not be valid.
    """
    base, now = revision.splitlines(keepends=True), newest.splitlines(keepends=True)
    old = before.splitlines(keepends=True)
    kept = SequenceMatcher(None, base, now, autojunk=False).get_matching_blocks()
    changes = SequenceMatcher(None, base, old, autojunk=False).get_opcodes()
    for word, start, end, old_start, old_end in reversed(changes):
        if word == "equal":
            continue
        place = next((b.b - b.a for b in kept if b.a <= start and end <= b.a + b.size and b.size), None)
        if place is None:
            raise PolicyError(
                "later revisions changed the same lines: undo those first, newest first, or approve a policy in its place"
            )
        now[start + place : end + place] = old[old_start:old_end]
    return _valid("".join(now))


_DATE = re.compile(r"-(\d{8}|\d{4}-\d{2}-\d{2})$")
_HEAD = re.compile(r"^\s*(\[[^\[\]]+\])\s*(#.*)?$")


def _blocks(toml: str) -> Iterator[tuple[str, str]]:
    """The document cut before each table's head."""
    head = ""
    lines: list[str] = []
    for line in toml.splitlines(keepends=True):
        match = _HEAD.match(line.rstrip("\n"))
        if match is not None:
            yield head, "".join(lines)
            head, lines = match[1], []
        lines.append(line)
    yield head, "".join(lines)


def _target_for(policy: Policy, model: str) -> str:
    bare = model.rpartition("/")[2]
    undated = _DATE.sub("", bare)  # answers name the dated version of the model that was asked
    found: list[Target] = [
        one
        for names in ((model, bare), (undated,))
        for one in policy.targets.values()
        if one.model in names or one.name == model
    ]
    if not found:
        raise PolicyError(f"target: the policy has none for the model {model!r}; add one before it is tried")
    return found[0].name


def _valid(toml: str) -> str:
    Policy.from_toml(toml, is_served=True)
    return toml
