"""From an approved experiment to its end: on the pages, by the watch, and in the policy that is served."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from collector.stores.build import DAY_NS, Clock, call
from dashboard.conftest import Browser
from tierlight.pricing import PriceBook
from tierlight.routing.policy import Policy
from tierlight_collector.decisions import Experiment, Recommendation
from tierlight_collector.records import Batch, ScoreRecord
from tierlight_collector.stores import open_store
from tierlight_collector.stores.protocol import Store
from tierlight_dashboard.watch import Watch

BIG, SMALL = "gpt-5.4", "claude-haiku-5-5"
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
    calls: int = 0

    def play(self, count: int, good: dict[str, float], *, per_day: int = 200) -> None:
        """Calls as a router that follows the served policy would make them, each scored; then a look at them."""
        policy = Policy.from_toml(self.store.policies(limit=1)[0].toml)
        split = policy.experiment_of.get("answer")
        spans = []
        for _ in range(count):
            self.calls += 1
            self.clock.now_ns += DAY_NS // per_day
            fields: dict[str, Any] = {}
            arm = "control"
            if split is not None:
                chosen = self.rng.choices(split.arms, [one.weight for one in split.arms])[0]
                arm = chosen.name
                fields = {"experiment": split.name, "arm": arm, "act_prob": chosen.weight}
            model = SMALL if arm == "candidate" else BIG
            span = call(
                self.calls,
                1,
                start_ns=self.clock.now_ns,
                route="answer",
                request_model=model,
                response_model=f"{model}-20260901",
                cost_nusd=2_000_000 if arm == "candidate" else 20_000_000,
                **fields,
            )
            record = span.call
            assert record is not None
            value = float(self.rng.random() < good[arm])
            score = ScoreRecord(
                "right",
                value,
                "check",
                "outcome",
                self.clock.now_ns,
                trace_id=record.trace_id,
                span_id=record.span_id,
            )
            spans.append(replace(span, scores=(score,)))
        self.store.append(Batch(spans=tuple(spans), arrived_ns=self.clock.now_ns))
        self.watch.tick(self.clock.now_ns)

    def approve(self) -> None:
        """Start the experiment from its proposal, as on the page."""
        (proposal,) = self.store.recommendations()
        self.store.update_recommendation(
            replace(proposal, action="downgrade", candidate_model=SMALL, candidate_tier="mid"), "anna"
        )
        assert self.desk.post("/experiments/start", id=str(self.advice.id), kind="ab").status_code == 303

    @property
    def advice(self) -> Recommendation:
        return next(row for row in self.store.recommendations() if row.candidate_model == SMALL)

    @property
    def experiment(self) -> Experiment:
        (one,) = self.store.experiments()
        return one

    def served(self) -> str:
        return self.desk.get("/api/v1/policy").text


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Loop]:
    clock = Clock()
    store = open_store(f"sqlite:///{tmp_path / 't.db'}", now_ns=clock)
    store.add_policy(POLICY, Policy.from_toml(POLICY).version, "anna", "")
    desk = Browser(store, clock=clock)
    loop = Loop(store, clock, Watch(store, PriceBook.default()), desk, random.Random(7))
    loop.play(300, {"control": 0.9})
    loop.approve()
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


def test_a_move_that_holds_for_fourteen_days_is_kept(loop: Loop) -> None:
    while loop.advice.state != "ready" and loop.calls < 3_000:
        loop.play(200, {"control": 0.8, "candidate": 0.95})
    assert (loop.advice.state, loop.experiment.state) == ("ready", "running")  # a person confirms it
    assert loop.desk.post("/recommendations/act", id=str(loop.advice.id), do="ship").status_code == 303
    assert (loop.advice.state, loop.experiment.state) == ("shipped", "shipped")
    shipped_ns = loop.clock.now_ns
    loop.play(1_300, {"control": 0.8, "candidate": 0.95}, per_day=100)
    assert loop.experiment.state == "shipped"
    loop.watch.tick(shipped_ns + 14 * DAY_NS)  # by the clock alone
    assert (loop.experiment.state, loop.advice.state) == ("kept", "kept")
    served = Policy.from_toml(loop.served())
    assert (served.routes["answer"].default, dict(served.experiments)) == ("small", {})


def test_harm_after_shipping_brings_the_policy_before_back(loop: Loop) -> None:
    while loop.advice.state != "ready" and loop.calls < 3_000:
        loop.play(200, {"control": 0.8, "candidate": 0.95})
    loop.desk.post("/recommendations/act", id=str(loop.advice.id), do="ship")
    loop.play(600, {"control": 0.8, "candidate": 0.2})
    assert (loop.experiment.state, loop.advice.state) == ("rolled_back", "rolled_back")
    assert loop.served().strip() == POLICY.strip()


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
