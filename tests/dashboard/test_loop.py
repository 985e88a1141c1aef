"""From an approved experiment to its end: on the pages, by the watch, and in the policy that is served."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from collector.stores.build import DAY_NS, Clock, call
from dashboard.conftest import Browser
from dashboard.test_notify import Receiver, webhook
from tierlight.pricing import PriceBook
from tierlight.routing.policy import Policy
from tierlight_collector.decisions import Experiment, Recommendation
from tierlight_collector.records import Batch, NormalisedSpan, ScoreRecord
from tierlight_collector.stores import open_store
from tierlight_collector.stores.protocol import Store
from tierlight_dashboard.notify import Notifier
from tierlight_dashboard.watch import Watch

BIG, SMALL = "gpt-5.4", "claude-haiku-5-5"
DATED = f"{BIG}-20260901"  # as the answers name it
POLICY = f"""\
schema = 1
# ours
[target.big]
provider = "openai"
model = "{BIG}"
tier = "flagship"
fallback = ["small"]
[target.small]
provider = "anthropic"
model = "{SMALL}"
tier = "mid"
fallback = ["big"]
[route.answer]
target = "big"
"""


@dataclass
class Loop:
    """A route that is split by the served policy, its watch, and the pages over it."""

    store: Store
    clock: Clock
    watch: Watch
    desk: Browser
    rng: random.Random
    receiver: Receiver
    notifier: Notifier
    calls: int = 0
    names_shadows: bool = True  # as the SDK does; shadows of others may come without

    def play(self, count: int, good: dict[str, float], *, per_day: int = 200, failing: float = 0.0) -> None:
        """Calls as a router that follows the served policy would make them, each scored; then a look at them.

        Args:
            good: chance of a good answer by arm; a shadow's is the candidate's.
            failing: chance of an error, whichever model answers; such a call has no score.
        """
        policy = Policy.from_toml(self.store.policies(limit=1)[0].toml)
        split = policy.experiment_of.get("answer")
        shadow = next(iter(policy.shadows.values()), None)
        usual = "candidate" if policy.routes["answer"].default == "small" else "control"
        spans: list[NormalisedSpan] = []
        for _ in range(count):
            self.calls += 1
            self.clock.now_ns += DAY_NS // per_day
            fields: dict[str, Any] = {"call_id": f"c{self.calls}"}
            arm = usual
            if split is not None:
                chosen = self.rng.choices(split.arms, [one.weight for one in split.arms])[0]
                arm = chosen.name
                fields |= {"experiment": split.name, "arm": arm, "act_prob": chosen.weight}
            if failing and self.rng.random() < failing:
                fields |= {"error_class": "server_error"}
                spans.append(self._span(1, arm, None, **fields))
                continue
            spans.append(self._span(1, arm, good[arm], **fields))
            if shadow is not None and self.rng.random() < shadow.share:
                beside = {"call_id": fields["call_id"], "purpose": "shadow", "act_prob": shadow.share}
                beside |= {"experiment": shadow.name} if self.names_shadows else {}
                spans.append(self._span(2, "candidate", good["candidate"], **beside))
        self.store.append(Batch(spans=tuple(spans), arrived_ns=self.clock.now_ns))
        self.look()

    def look(self, now_ns: int | None = None) -> None:
        """Let the watch look and tell its channels, as the server's timer does."""
        at = self.clock.now_ns if now_ns is None else now_ns
        self.notifier.tell(self.watch.tick(at), at)

    def _span(self, number: int, side: str, good: float | None, **fields: Any) -> NormalisedSpan:
        model = SMALL if side == "candidate" else BIG
        span = call(
            self.calls,
            number,
            start_ns=self.clock.now_ns,
            route="answer",
            request_model=model,
            response_model=f"{model}-20260901",
            cost_nusd=2_000_000 if side == "candidate" else 20_000_000,
            **fields,
        )
        record = span.call
        assert record is not None
        if good is None:
            return span
        value = float(self.rng.random() < good)
        score = ScoreRecord(
            "right",
            value,
            "check",
            "outcome",
            self.clock.now_ns,
            trace_id=record.trace_id,
            span_id=record.span_id,
        )
        return replace(span, scores=(score,))

    def approve(self, kind: str = "ab") -> None:
        """Start the experiment from its proposal, as on the page."""
        (proposal,) = self.store.recommendations()
        self.store.update_recommendation(
            replace(proposal, action="downgrade", candidate_model=SMALL, candidate_tier="mid"), "anna"
        )
        assert self.desk.post("/experiments/start", id=str(self.advice.id), kind=kind).status_code == 303

    @property
    def advice(self) -> Recommendation:
        return next(row for row in self.store.recommendations() if row.candidate_model == SMALL)

    @property
    def experiment(self) -> Experiment:
        (one,) = self.store.experiments()
        return one

    def served(self) -> str:
        return self.desk.get("/api/v1/policy").text

    def ship(self) -> None:
        """Let a better candidate come through every gate, and approve it on the page."""
        while self.advice.state != "ready" and self.calls < 9_000:
            self.play(200, {"control": 0.8, "candidate": 0.95})
        assert self.advice.state == "ready"
        assert self.desk.post("/recommendations/act", id=str(self.advice.id), do="ship").status_code == 303

    @property
    def ends(self) -> list[dict[str, Any]]:
        """The messages of experiments that ended."""
        bodies = [json.loads(request.content) for request in self.receiver.requests]
        return [body for body in bodies if body["event"] == "ended"]


@pytest.fixture
def loop(proposed: Loop) -> Loop:
    """An A/B experiment that was started from its proposal."""
    proposed.approve()
    return proposed


@pytest.fixture
def proposed(tmp_path: Path) -> Iterator[Loop]:
    clock = Clock()
    store = open_store(f"sqlite:///{tmp_path / 't.db'}", now_ns=clock)
    store.add_policy(POLICY, Policy.from_toml(POLICY).version, "anna", "")
    desk = Browser(store, clock=clock)
    receiver = Receiver()
    notifier = Notifier(store, [webhook(receiver)], "https://t.example")
    loop = Loop(store, clock, Watch(store, PriceBook.default()), desk, random.Random(7), receiver, notifier)
    loop.play(300, {"control": 0.9})
    yield loop
    store.close()


def test_harm_takes_an_experiment_back_by_itself(loop: Loop) -> None:
    assert (loop.experiment.state, loop.advice.state) == ("running", "collecting")
    assert loop.experiment.id in Policy.from_toml(loop.served()).experiments
    loop.play(200, {"control": 0.9, "candidate": 0.3})
    assert (loop.experiment.state, loop.advice.state) == ("rolled_back", "rolled_back")
    assert loop.experiment.ended_ns == loop.clock.now_ns
    assert loop.served().strip() == POLICY.strip()
    newest = loop.store.policies(limit=1)[0]
    assert newest.by == "tierlight"
    assert "K of harm" in newest.note
    assert any(e.who == "tierlight" and e.action == "rolled back" for e in loop.store.audit())
    assert [one.revision for one in loop.store.policies()] == [3, 2, 1]  # every one is kept
    loop.play(50, {"control": 0.9})
    assert len(loop.store.policies()) == 3
    (told,) = loop.ends
    assert (told["state"], told["experiment"]) == ("rolled_back", loop.experiment.id)
    assert f"{SMALL} was taken back from answer, {DATED} answers again: right: K of harm" in told["sentence"]
    assert told["link"] == f"https://t.example/experiments/{loop.experiment.id}"
    assert "K of harm" in loop.desk.text(f"/experiments/{loop.experiment.id}")


def test_what_was_taken_back_for_harm_is_taken_back_again_when_a_person_undoes_it(loop: Loop) -> None:
    loop.play(200, {"control": 0.9, "candidate": 0.3})
    assert loop.experiment.state == "rolled_back"
    assert loop.desk.post("/policy/undo", revision="3").status_code == 303
    assert (loop.experiment.state, loop.advice.state) == ("running", "collecting")
    assert loop.experiment.id in Policy.from_toml(loop.served()).experiments
    loop.look(loop.clock.now_ns + 1)
    assert (loop.experiment.state, loop.advice.state) == ("rolled_back", "rolled_back")
    assert loop.served().strip() == POLICY.strip()
    assert [one["state"] for one in loop.ends] == ["rolled_back", "rolled_back"]


def test_a_policy_that_is_approved_without_its_experiment_stops_it(loop: Loop) -> None:
    other = POLICY + "[defaults]\nretries = 2\n"
    answer = loop.desk.ask("POST", "/api/v1/policy?by=anna", content=other)
    assert answer.status_code == 200
    assert (loop.experiment.state, loop.experiment.ended_ns) == ("stopped", loop.clock.now_ns)
    loop.play(50, {"control": 0.9})
    assert loop.experiment.state == "stopped"
    assert loop.ends == []  # a person did it, who need not be told


def test_a_move_that_holds_for_fourteen_days_is_kept(loop: Loop) -> None:
    loop.ship()
    assert (loop.advice.state, loop.experiment.state) == ("shipped", "shipped")
    shipped_ns = loop.clock.now_ns
    loop.play(1_300, {"control": 0.8, "candidate": 0.95}, per_day=100)
    assert loop.experiment.state == "shipped"
    assert loop.ends == []
    loop.look(shipped_ns + 14 * DAY_NS)  # by the clock alone
    assert (loop.experiment.state, loop.advice.state) == ("kept", "kept")
    served = Policy.from_toml(loop.served())
    assert (served.routes["answer"].default, dict(served.experiments)) == ("small", {})
    (told,) = loop.ends
    assert f"{SMALL} is kept on answer in place of {DATED}: 14 days without harm" in told["sentence"]


def test_harm_after_shipping_brings_the_policy_before_back(loop: Loop) -> None:
    loop.ship()
    loop.play(600, {"control": 0.8, "candidate": 0.2})
    assert (loop.experiment.state, loop.advice.state) == ("rolled_back", "rolled_back")
    assert loop.served().strip() == POLICY.strip()


@pytest.mark.parametrize("fault", ["quality", "errors"])
def test_an_alert_after_shipping_brings_the_policy_before_back(loop: Loop, fault: str) -> None:
    loop.ship()
    # Whatever is wrong hits both models alike: no comparison can see it, and yet users suffer.
    for _ in range(10):
        if fault == "quality":
            loop.play(100, {"control": 0.3, "candidate": 0.3})
        else:
            loop.play(100, {"control": 0.8, "candidate": 0.95}, failing=0.5)
        if loop.experiment.state != "shipped":
            break
    assert (loop.experiment.state, loop.advice.state) == ("rolled_back", "rolled_back")
    reason = loop.advice.reason
    assert reason.startswith("alert after shipping: ")
    alert = next(a for a in loop.store.alerts() if a.sentence in reason)
    assert (alert.kind, alert.severity) == (fault, "page")
    assert loop.served().strip() == POLICY.strip()
    (told,) = loop.ends
    assert (told["state"], told["sentence"].count(alert.sentence)) == ("rolled_back", 1)


def test_a_shadow_test_goes_from_its_proposal_to_ready_and_is_shipped(proposed: Loop) -> None:
    proposed.approve("shadow")
    shadow = Policy.from_toml(proposed.served()).shadows[proposed.experiment.id]
    assert (shadow.target, shadow.share) == ("small", 0.05)
    assert (proposed.experiment.state, proposed.advice.state) == ("running", "collecting")
    while proposed.advice.state != "ready" and proposed.calls < 12_000:
        proposed.play(1_000, {"control": 0.8, "candidate": 0.95}, per_day=1_000)
    advice = proposed.advice
    assert (advice.state, advice.rung) == ("ready", "shadow")
    assert advice.pairs >= 200
    assert proposed.desk.post("/recommendations/act", id=str(advice.id), do="ship").status_code == 303
    served = Policy.from_toml(proposed.served())
    assert dict(served.shadows) == {}
    (hold_out,) = served.experiments.values()
    assert {arm.name: arm.weight for arm in hold_out.arms} == pytest.approx(
        {"candidate": 0.95, "control": 0.05}
    )
    shipped_ns = proposed.clock.now_ns
    proposed.play(600, {"control": 0.8, "candidate": 0.95})
    proposed.look(shipped_ns + 14 * DAY_NS)
    assert (proposed.experiment.state, proposed.advice.state) == ("kept", "kept")
    assert Policy.from_toml(proposed.served()).routes["answer"].default == "small"


def test_a_shadow_test_that_spent_its_budget_is_stopped(proposed: Loop) -> None:
    proposed.names_shadows = False
    proposed.store.set_setting("shadow.max_spend_usd", "0.05", "anna")
    proposed.approve("shadow")
    proposed.play(1_000, {"control": 0.8, "candidate": 0.8})
    assert proposed.experiment.state == "stopped"
    assert proposed.served().strip() == POLICY.strip()
    (told,) = proposed.ends
    assert f"The test of {SMALL} on answer was stopped, {DATED} goes on: spent" in told["sentence"]
    assert "of $0.05 without a verdict" in told["sentence"]


def test_a_revision_of_a_person_is_never_overwritten(loop: Loop) -> None:
    before = loop.store.policies()
    real = loop.store.commit_watch

    def meanwhile(commit: Any) -> Any:
        if commit.policies and len(loop.store.policies()) == len(before):
            loop.store.add_policy(POLICY + "# anna's\n", Policy.from_toml(POLICY).version, "anna", "")
        return real(commit)

    loop.store.commit_watch = meanwhile  # type: ignore[method-assign]
    with pytest.raises(Exception, match=r"(?i)unique|constraint"):
        loop.play(200, {"control": 0.9, "candidate": 0.3})
    assert [one.by for one in loop.store.policies(limit=1)] == ["anna"]
    assert [one.state for one in loop.store.experiments()] == ["running"]
    loop.watch.tick(loop.clock.now_ns)
    assert loop.experiment.state == "rolled_back"
    assert "# anna's" in loop.served()
