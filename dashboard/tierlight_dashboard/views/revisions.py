"""An experiment that is begun or stopped on a page writes a revision of the approved policy, which routers follow."""

from __future__ import annotations

from tierlight.errors import PolicyError
from tierlight.routing.policy import Policy
from tierlight.routing.revise import begun, ended
from tierlight_collector.decisions import AuditEntry, Experiment

from .site import WHO, Site


def follow(site: Site, experiment: Experiment) -> None:
    """Write the revision; nothing where no policy is approved, a line in the audit where the policy can't say it."""
    newest = next(iter(site.store.policies(limit=1)), None)
    if newest is None:
        return
    begins = experiment.state == "running"
    try:
        toml = ended(newest.toml, experiment.id)
        if begins:
            toml = begun(
                toml,
                experiment.id,
                experiment.route,
                kind=experiment.kind,
                control=experiment.control,
                candidate=experiment.candidate,
                share=experiment.share,
            )
    except PolicyError as error:
        site.store.record_audit(AuditEntry(site.now_ns, WHO, "leave policy", experiment.id, str(error)))
        return
    if toml != newest.toml:
        version = Policy.from_toml(toml, is_served=True).version
        note = f"{'begin' if begins else 'end'} experiment {experiment.id}"
        site.store.add_policy(toml, version, WHO, note)
