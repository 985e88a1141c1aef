"""An experiment that is begun or stopped on a page writes a revision of the approved policy, which routers follow."""

from __future__ import annotations

from tierlight.errors import PolicyError
from tierlight.routing.policy import Policy
from tierlight_collector.decisions import AuditEntry, Experiment

from ..analysis.course import revised
from .site import WHO, Site

WORD = {"running": "begin", "shipped": "ship"}


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
