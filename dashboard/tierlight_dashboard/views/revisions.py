"""The approved policy's revisions on the pages: each can be undone, and experiments write them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import Response
from starlette.datastructures import FormData

from tierlight.errors import PolicyError
from tierlight.routing.check import summary
from tierlight.routing.policy import Policy
from tierlight_collector.decisions import AuditEntry, Experiment, PolicyRevision

from ..analysis.course import revised
from ..policybook import undo
from .site import WHO, Site

WORD: Final = {"running": "begin", "shipped": "ship"}
SHOWN: Final = 20
MOST_CHANGES: Final = 6


@dataclass(frozen=True, slots=True)
class Row:
    """One revision beside the one before it."""

    revision: PolicyRevision
    changes: tuple[str, ...]
    more_changes: int
    is_first: bool
    is_served: bool


def rows(revisions: list[PolicyRevision]) -> list[Row]:
    """The revisions (newest first) with what each changed; the oldest of them is compared only if it is the first."""
    found = []
    policies = [_policy(one) for one in revisions]
    for place, one in enumerate(revisions[:SHOWN]):
        is_first = place == len(revisions) - 1
        new, old = policies[place], None if is_first else policies[place + 1]
        lines = summary(old, new) if old is not None and new is not None else ["not readable here"]
        more = max(0, len(lines) - MOST_CHANGES)
        found.append(Row(one, tuple(lines[:MOST_CHANGES]), more, is_first, place == 0))
    return found


def _policy(revision: PolicyRevision) -> Policy | None:
    try:
        return Policy.from_toml(revision.toml, is_served=True)
    except PolicyError:
        return None  # approved by a version that knew more keys: the text is still there to go back to


def follow(site: Site, experiment: Experiment) -> None:
    """Write the revision; nothing where no policy is approved, a line in the audit where the policy can't say it."""
    newest = next(iter(site.store.policies(limit=1)), None)
    if newest is None:
        return
    try:
        toml = revised(newest.toml, experiment)
    except PolicyError as error:
        site.store.record_audit(AuditEntry(site.now_ns, WHO, "leave policy", experiment.id, str(error)))
        return
    if toml != newest.toml:
        version = Policy.from_toml(toml, is_served=True).version
        note = f"{WORD.get(experiment.state, 'end')} experiment {experiment.id}"
        site.store.add_policy(toml, version, WHO, note)


def take_back(site: Site, form: FormData) -> int:
    """Undo the revision that a form names; gives the number of the new one."""
    number = str(form.get("revision", ""))
    if not (number.isascii() and number.isdigit() and len(number) < 10):
        raise HTTPException(422, "Expected the number of a revision.")
    try:
        return undo(site.store, int(number), WHO, site.now_ns).revision
    except PolicyError as error:
        raise HTTPException(422, f"{str(error)[:1].upper()}{str(error)[1:]}.") from error


def router(site: Site) -> APIRouter:
    pages = APIRouter()

    @pages.post("/policy/undo")
    async def undo_revision(request: Request) -> Response:
        form = await site.form(request)
        await site.aside(lambda: take_back(site, form))
        return site.redirect(
            request, str(form.get("next", "/experiments")), done=f"undone.{form.get('revision')}"
        )

    return pages
