"""An experiment on a page writes revisions of the approved policy."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tierlight.routing.policy import Policy

if TYPE_CHECKING:
    from dashboard.conftest import Browser


def target(name: str, model: str, provider: str, fallback: str) -> str:
    return f'[target.{name}]\nprovider = "{provider}"\nmodel = {json.dumps(model)}\ntier = "mid"\nfallback = ["{fallback}"]\n'


def test_starting_and_stopping_an_experiment_revises_the_policy(desk: Browser) -> None:
    ready = next(
        r for r in desk.store.recommendations() if r.route == "answer_customer" and r.state == "ready"
    )
    toml = (
        "schema = 1\n# ours\n"
        + target("now", ready.current_model, "anthropic", "next")
        + target("next", ready.candidate_model, "openai", "now")
        + '[route.answer_customer]\ntarget = "now"\n'
    )
    desk.store.add_policy(toml, Policy.from_toml(toml).version, "anna", "")
    location = desk.post("/experiments/start", id=str(ready.id), kind="ab").headers["location"]
    ident = next(
        e.id for e in desk.store.experiments() if e.recommendation_id == ready.id and e.id in location
    )
    begun = desk.store.policies(limit=1)[0]
    assert begun.note == f"begin experiment {ident}"
    assert {arm.target for arm in Policy.from_toml(begun.toml).experiments[ident].arms} == {"now", "next"}
    desk.post("/experiments/act", id=ident, do="stop")
    over = desk.store.policies(limit=1)[0]
    assert Policy.from_toml(over.toml) == Policy.from_toml(toml)
    assert "# ours" in over.toml
    desk.post("/experiments/act", id=ident, do="resume")
    assert ident in Policy.from_toml(desk.store.policies(limit=1)[0].toml).experiments
    assert len(desk.store.policies()) == 4


def test_an_experiment_that_the_policy_can_not_say_leaves_it_and_an_entry(desk: Browser) -> None:
    ready = next(
        r for r in desk.store.recommendations() if r.route == "answer_customer" and r.state == "ready"
    )
    toml = "schema = 1\n" + target("a", "x", "openai", "b") + target("b", "y", "anthropic", "a")
    desk.store.add_policy(toml, Policy.from_toml(toml).version, "anna", "")
    assert desk.post("/experiments/start", id=str(ready.id), kind="ab").status_code == 303
    assert len(desk.store.policies()) == 1
    assert "does not route it" in next(e.detail for e in desk.store.audit() if e.action == "leave policy")
