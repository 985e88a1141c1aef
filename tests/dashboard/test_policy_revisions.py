"""Experiments write revisions of the approved policy, and a person can undo each of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tierlight.routing.policy import Policy
from tierlight.routing.source import PolicySource

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


def approved(desk: Browser) -> str:
    """A policy that routes answer_customer between the two models of its ready recommendation."""
    ready = next(
        r for r in desk.store.recommendations() if r.route == "answer_customer" and r.state == "ready"
    )
    toml = (
        "schema = 1\n# ours\n"
        + target("now", ready.current_model, "anthropic", "next")
        + target("next", ready.candidate_model, "openai", "now")
        + '[route.answer_customer]\ntarget = "now"\n'
    )
    desk.store.add_policy(toml, Policy.from_toml(toml).version, "anna", "the first one")
    return toml


def started(desk: Browser) -> str:
    ready = next(
        r for r in desk.store.recommendations() if r.route == "answer_customer" and r.state == "ready"
    )
    before = {one.id for one in desk.store.experiments()}
    desk.post("/experiments/start", id=str(ready.id), kind="ab")
    return next(one.id for one in desk.store.experiments() if one.id not in before)


def state_of(desk: Browser, ident: str) -> str:
    return next(one.state for one in desk.store.experiments() if one.id == ident)


def test_undoing_a_revision_ends_its_experiment_and_undoing_that_lets_it_go_on(desk: Browser) -> None:
    toml = approved(desk)
    ident = started(desk)
    page = desk.text("/experiments")
    assert f"experiment {ident} added" in page
    assert 'aria-label="Undo revision 2"' in page
    assert 'aria-label="Undo revision 1"' not in page  # nothing was served before it
    answer = desk.post("/policy/undo", revision="2", next="/experiments")
    assert answer.status_code == 303
    assert "done=undone.2" in answer.headers["location"]
    assert desk.get("/api/v1/policy").text == toml
    assert state_of(desk, ident) == "stopped"
    assert [one.revision for one in desk.store.policies()] == [3, 2, 1]
    assert desk.store.policies(limit=1)[0].note == "undo revision 2"
    desk.post("/policy/undo", revision="3")
    assert ident in Policy.from_toml(desk.get("/api/v1/policy").text).experiments
    assert state_of(desk, ident) == "running"


def test_an_older_revision_is_undone_and_later_changes_stay(desk: Browser) -> None:
    toml = approved(desk)
    ident = started(desk)
    kept = desk.store.policies(limit=1)[0].toml + "\n[defaults]\nretries = 2\n"
    desk.store.add_policy(kept, Policy.from_toml(kept).version, "ben", "more patience")
    assert desk.post("/policy/undo", revision="2").status_code == 303
    served = Policy.from_toml(desk.get("/api/v1/policy").text)
    assert (dict(served.experiments), served.defaults.retries) == ({}, 2)
    assert state_of(desk, ident) == "stopped"
    again = desk.post("/policy/undo", revision="2")
    assert again.status_code == 422
    assert "later revisions changed the same lines" in again.text
    assert desk.post("/policy/undo", revision="1").status_code == 422
    assert desk.post("/policy/undo", revision="77").status_code == 422
    assert desk.post("/policy/undo", revision="x").status_code == 422
    assert len(desk.store.policies()) == 4
    assert toml in kept


def test_an_undo_needs_a_form_of_this_session(desk: Browser) -> None:
    approved(desk)
    started(desk)
    assert desk.ask("POST", "/policy/undo", data={"revision": "2"}).status_code == 403
    assert len(desk.store.policies()) == 2


def test_undoing_the_shipping_takes_the_experiment_and_its_advice_back(desk: Browser) -> None:
    approved(desk)
    ident = started(desk)
    ready = next(r for r in desk.store.recommendations() if r.route == "answer_customer")
    desk.post("/recommendations/act", id=str(ready.id), do="ship")
    assert state_of(desk, ident) == "shipped"
    desk.post("/policy/undo", revision="3")
    after = desk.store.recommendation(ready.id)
    assert (state_of(desk, ident), after.state if after else "") == ("running", "ready")


def test_the_interface_approves_and_undoes_and_a_router_follows(desk: Browser) -> None:
    toml = approved(desk)

    def fetch(etag: str) -> tuple[str, bytes] | None:
        answer = desk.get("/api/v1/policy", **{"if-none-match": etag} if etag else {})
        return (answer.headers["etag"], answer.content) if answer.status_code == 200 else None

    source = PolicySource("http://collector/api/v1/policy", poll_s=3600, fetch=fetch)
    cheaper = toml.replace('target = "now"', 'target = "next"')
    posted = desk.ask("POST", "/api/v1/policy?by=ci&note=cheaper", content=cheaper)
    assert posted.json()["revision"] == 2
    source.refresh()
    assert source.current().routes["answer_customer"].default == "next"
    undone = desk.ask("POST", "/api/v1/policy/undo?by=ci").json()
    assert (undone["revision"], undone["note"]) == (3, "undo revision 2")
    source.refresh()
    assert source.current().routes["answer_customer"].default == "now"
    assert source.counters["policy_refreshed"] == 2
    source.refresh()
    assert source.counters["policy_refreshed"] == 2
    source.close()
    refused = desk.ask("POST", "/api/v1/policy?by=ci", content=toml + "bogus = 1\n")
    assert refused.status_code == 422
    assert "bogus" in refused.json()["error"]
    assert desk.ask("POST", "/api/v1/policy/undo").status_code == 400
    assert desk.ask("POST", "/api/v1/policy/undo?by=ci", headers={"Origin": "http://evil"}).status_code == 403
    assert [one.by for one in desk.store.policies()] == ["ci", "ci", "anna"]
