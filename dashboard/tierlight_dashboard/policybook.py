"""The approved policy and its revisions: approve one, take one back, with the experiments that it begins or ends.

Both write a new revision in one transaction; none is ever changed or deleted, so an undo can be undone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from tierlight.errors import PolicyError
from tierlight.routing.policy import Policy
from tierlight.routing.revise import undone
from tierlight_collector.decisions import (
    AuditEntry,
    Experiment,
    PolicyRevision,
    Recommendation,
    WatchCommit,
)
from tierlight_collector.errors import StoreBusy
from tierlight_collector.stores.protocol import Store

from .analysis.course import followed

MOST_KEPT_IN_VIEW = 10_000
_TRIES = 3
# The text of a new revision, its policy and its note, from the newest revision there is.
_Make = Callable[[PolicyRevision | None], tuple[str, Policy, str]]


def approve(store: Store, toml: str, who: str, note: str, now_ns: int) -> PolicyRevision:
    """Make a policy the one that is served.

    Raises:
        PolicyError: it must not be served; the message names the key.
        StoreError: it could not be stored.
    """
    policy = Policy.from_toml(toml, is_served=True)
    return _add(store, lambda newest: (toml, policy, note), "approve policy", who, now_ns)


def undo(store: Store, revision: int | None, who: str, now_ns: int) -> PolicyRevision:
    """Take back what one revision (None = the newest) changed; later changes of other lines stay.

    Raises:
        PolicyError: there is no such revision, none before it, or later ones changed the same lines.
        StoreError: it could not be stored.
    """

    def taken_back(newest: PolicyRevision | None) -> tuple[str, Policy, str]:
        if newest is None:
            raise PolicyError("no policy has been approved yet, so there is nothing to undo")
        wanted = newest.revision if revision is None else revision
        history = {one.revision: one for one in store.policies(limit=MOST_KEPT_IN_VIEW)}
        if wanted not in history:
            raise PolicyError(f"there is no revision {wanted}; the newest is {newest.revision}")
        earlier = [one for one in history if one < wanted]
        if not earlier:
            raise PolicyError(f"revision {wanted} is the first: approve another policy in its place")
        try:
            toml = undone(newest.toml, history[wanted].toml, history[max(earlier)].toml)
        except PolicyError as error:
            raise PolicyError(f"revision {wanted} can not be undone: {error}") from error
        return toml, Policy.from_toml(toml, is_served=True), f"undo revision {wanted}"

    return _add(store, taken_back, "undo policy", who, now_ns)


def _add(store: Store, make: _Make, action: str, who: str, now_ns: int) -> PolicyRevision:
    """Store what `make` makes of the newest revision, under the next number; again when somebody was faster."""
    for left in reversed(range(_TRIES)):
        newest = next(iter(store.policies(limit=1)), None)
        toml, policy, note = make(newest)
        before = None if newest is None else Policy.from_toml(newest.toml, is_served=True)
        number = 1 if newest is None else newest.revision + 1
        added = PolicyRevision(number, policy.version, toml, who, now_ns, note)
        moved = [
            after
            for one in store.experiments()
            if (after := followed(one, before, policy, now_ns)) is not one
        ]
        audit = [AuditEntry(now_ns, who, action, policy.version, note)]
        audit += [AuditEntry(now_ns, who, "save experiment", one.id, one.state) for one in moved]
        commit = WatchCommit(
            {},
            {},
            recommendations=_advice(store, moved, now_ns),
            experiments=tuple(moved),
            policies=(added,),
            audit=tuple(audit),
        )
        try:
            store.commit_watch(commit)
        except StoreBusy:
            if not left or next(iter(store.policies(limit=1)), None) == newest:
                raise
        else:
            return added
    raise AssertionError("the last try returns or raises")


def _advice(store: Store, moved: Sequence[Experiment], now_ns: int) -> tuple[Recommendation, ...]:
    """The advice of the routes whose experiments move, as it stands then."""
    after = {(one.route, one.candidate): one.state for one in moved}
    rows = [row for route in {one.route for one in moved} for row in store.recommendations(route=route)]
    return tuple(
        _follow(row, after[row.route, row.candidate_model], now_ns)
        if (row.route, row.candidate_model) in after
        else row
        for row in rows
    )


def _follow(row: Recommendation, experiment: str, now_ns: int) -> Recommendation:
    if experiment == "shipped":
        return replace(row, state="shipped", updated_ns=now_ns)
    if row.state in ("shipped", "kept"):
        return replace(row, state="ready", updated_ns=now_ns)
    if row.state in ("rolled_back", "proposed") and experiment == "running":
        return replace(row, state="collecting", updated_ns=now_ns)
    return row
