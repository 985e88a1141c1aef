"""A move to a cheaper model from proposal to kept, over the real parts: collector, watch, dashboard, router.

    python examples/ab_downgrade.py [--harm]

A local look-alike stands for the provider; its cheaper model is as often right as the dear one, with --harm clearly
less often, and then the experiment takes itself back. A person's part (approve the policy, start the experiment,
ship it) goes through the pages and the API of a running dashboard. Time is simulated: the app, the collector and
the watch share a clock that runs weeks in seconds; nothing else is, and no figure below is typed in.
"""

from __future__ import annotations

import argparse
import random
import re
import tempfile
import time
from typing import Any

import httpx

import tierlight
from tierlight.routing import HttpProvider, Router
from tierlight.routing.breaker import BreakerBoard
from tierlight.testing import FakeProvider, FakeReply, FakeRequest, FrozenClock, SequentialIds
from tierlight_dashboard.serve import Running, ServeSettings, serving_in_thread

ROUTE = "mail.sort"
LABELS = ("parcel", "refund", "address")
DEAR = "gpt-5.4"
RIGHT = 0.75  # share of the mails that the dear model sorts right, and the cheap one without --harm
HARMFUL = 0.6  # the cheap one's with --harm
MOST_MAILS, LASTS_DAYS = 20_000, 60
DAY_NS = 86_400_000_000_000
POLICY = f"""\
schema = 1
[target.dear]
provider = "openai"
model = "{DEAR}"
fallback = "none"
[route."{ROUTE}"]
target = "dear"
"""
CHEAP_TARGET = """\
[target.cheap]
provider = "openai"
model = "{model}"
fallback = "none"
"""


class MailRoom:
    """An app that sorts mails by a routed model call; later a person says what each mail really was."""

    def __init__(self, running: Running, clock: FrozenClock, cheap_is_right: float) -> None:
        self._clock, self._rng = clock, random.Random(7)
        self._cheap_is_right = cheap_is_right
        self.mails = 0
        tierlight.configure(
            service_name="mail-room",
            endpoint=running.otlp_url,
            spool=False,
            timeout_s=10.0,
            clock=clock,
            ids=SequentialIds(),  # an arm is chosen by the id of the call: the same run each time
        )
        client = httpx.Client(transport=FakeProvider(self._answer).transport(httpx))
        self.router = Router(
            f"{running.dashboard_url}/api/v1/policy",
            providers={"openai": HttpProvider(api_key="none", client=client)},
            board=BreakerBoard(),
            clock=clock,
            rng=random.Random(11),
        )

    def _answer(self, request: FakeRequest) -> FakeReply:
        is_dear = request.model == DEAR
        self._clock.advance(self._rng.uniform(0.8, 1.6) * (1.0 if is_dear else 0.5))
        number = int(request.prompt.rpartition(" ")[2])
        is_right = self._rng.random() < (RIGHT if is_dear else self._cheap_is_right)
        label = LABELS[(number + (not is_right)) % 3]
        return FakeReply(text=label, input_tokens=self._rng.randint(900, 1_500), output_tokens=2)

    def sort(self, count: int, a_day: int) -> None:
        """So many mails, spread evenly over their days."""
        for _ in range(count):
            self.mails += 1
            self._clock.advance(86_400 / a_day)
            answer = self.router.chat(ROUTE, f"parcel, refund or address? Mail {self.mails}")
            is_right = answer.text == LABELS[self.mails % 3]
            tierlight.score(is_right, "right", call=answer.call_id, kind="outcome")
            if self.mails % 200 == 0:
                tierlight.flush(30.0)
        tierlight.flush(30.0)


class Desk:
    """A person at the dashboard: reads the public API, sends the forms of the pages."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=30.0)

    def approve(self, toml: str, note: str) -> None:
        """What `tierlight policy approve` sends."""
        answer = self._http.post("/api/v1/policy", params={"by": "anna", "note": note}, content=toml)
        answer.raise_for_status()

    def policy(self) -> str:
        """The policy that is served."""
        return self._http.get("/api/v1/policy").raise_for_status().text

    def advice(self) -> dict[str, Any]:
        """The recommendation on the route."""
        answer = self._http.get("/api/v1/recommendations", params={"route": ROUTE}).raise_for_status()
        return next(iter(answer.json()["recommendations"]))

    def press(self, path: str, **fields: str) -> None:
        """Send a form as its page would."""
        page = self._http.get("/experiments").raise_for_status().text
        found = re.search(r'name="csrf" value="([0-9a-f]+)"', page)
        if found is None:
            raise SystemExit("the experiments page has no form")
        answer = self._http.post(path, data={"csrf": found.group(1), **fields})
        if answer.status_code != 303:
            raise SystemExit(f"{path} answered {answer.status_code}")


class Play:
    """The story of one experiment, told as it happens."""

    def __init__(self, running: Running, clock: FrozenClock, cheap_is_right: float) -> None:
        self._running, self._clock, self._began_ns = running, clock, clock.now_ns
        self._desk = Desk(running.dashboard_url)
        self._desk.approve(POLICY, "the mail room's first policy")
        self._room = MailRoom(running, clock, cheap_is_right)

    def propose(self) -> dict[str, Any]:
        """Ordinary calls, until the watch proposes a cheaper model."""
        advice = self._work(400, a_day=300)
        self._say(advice["state"], advice["sentence"])
        return advice

    def try_out(self, proposal: dict[str, Any]) -> dict[str, Any]:
        """A person starts the experiment; it runs until the evidence decides."""
        cheap = CHEAP_TARGET.format(model=proposal["candidate_model"])
        self._desk.approve(POLICY + cheap, "a target for the candidate")
        self._desk.press("/experiments/start", id=str(proposal["id"]), kind="ab")
        advice = self._decided("start")
        while advice["state"] == "collecting":
            if self._room.mails > MOST_MAILS:
                raise SystemExit(f"{self._room.mails:,} mails settled nothing")
            advice = self._work(300, a_day=300)
            self._say(advice["state"], figures(advice))
        return advice

    def ship(self, advice: dict[str, Any]) -> dict[str, Any]:
        """A person ships it; for 14 days a part of the calls stays with the dear model, so that harm would show."""
        self._desk.press("/recommendations/act", id=str(advice["id"]), do="ship")
        advice = self._decided("ship")
        while advice["state"] == "shipped":
            advice = self._work(100, a_day=50)
        return advice

    def end(self, advice: dict[str, Any]) -> None:
        """How it ended, and what the router asks from now on."""
        self._say(advice["state"], advice["reason"])
        self._room.router.refresh()
        policy = self._room.router.policy
        target = policy.targets[policy.routes[ROUTE].default]
        splits = ", ".join(policy.experiments) or "no split"
        print(f"\n{ROUTE} now asks {target.model} ({splits}). Revisions of the policy, all kept:")
        for one in reversed(self._running.store.policies()):
            print(f"  {one.revision} by {one.by}: {one.note}")
        print(f"{self._room.mails:,} mails, {tierlight.stats()['dropped']} calls or scores lost on the way")
        self._room.router.close()

    def _work(self, mails: int, a_day: int) -> dict[str, Any]:
        """Mails are sorted, then the watch looks; gives where the recommendation stands."""
        self._room.sort(mails, a_day)
        self._running.tick()
        self._room.router.refresh()
        return self._desk.advice()

    def _decided(self, what: str) -> dict[str, Any]:
        """The router takes up what a person decided."""
        self._room.router.refresh()
        (split,) = self._room.router.policy.experiments.values()
        arms = " and ".join(f"{arm.weight:.0%} to {arm.target}" for arm in split.arms)
        advice = self._desk.advice()
        self._say(advice["state"], f"a person pressed {what}; the router splits {arms}")
        return advice

    def _say(self, state: str, text: str) -> None:
        day = (self._clock.now_ns - self._began_ns) / DAY_NS
        print(f"day {day:4.1f}  {state.replace('_', ' '):12}{text}", flush=True)


def figures(advice: dict[str, Any]) -> str:
    """What a verdict rests on, from its evidence card: K is the evidence that the move costs less than the margin."""
    found, given = advice["card"]["figures"], advice["card"]["given"]
    low, high = (100 * found[end] for end in ("quality_low", "quality_high"))
    saving = found["saving_mean_nusd"]
    saved = "not known yet" if saving is None else f"USD {saving / 1e9:.6f} a call"
    return (
        f"{found['pairs']:>5,} calls, K {found['ship_k']:8.3g} of {1 / given['alpha']:.0f}, of harm {found['harm_k']:8.3g}, "
        f"quality {low:+5.1f} to {high:+4.1f} pt (margin {-100 * given['margin']:.1f}), saves {saved}"
    )


def main(arguments: list[str] | None = None) -> int:
    """Play it; 0 when it ended as it should: kept, or with --harm rolled back."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--harm", action="store_true", help="the cheaper model is worse")
    harms = parser.parse_args(arguments).harm
    clock = FrozenClock(time.time_ns() - LASTS_DAYS * DAY_NS)
    with tempfile.TemporaryDirectory() as folder:
        settings = ServeSettings(
            store=f"sqlite:///{folder}/mails.db", http_port=0, grpc_port=None, port=0, watch_every_s=0, clock=clock.time_ns
        )  # fmt: skip
        print("Time is simulated: calls, collector, watch and dashboard share one clock.\n")
        with serving_in_thread(settings) as running:
            play = Play(running, clock, HARMFUL if harms else RIGHT)
            advice = play.try_out(play.propose())
            if advice["state"] == "ready":
                advice = play.ship(advice)
            play.end(advice)
            tierlight.shutdown()
    return 0 if advice["state"] == ("rolled_back" if harms else "kept") else 1


if __name__ == "__main__":
    raise SystemExit(main())
