"""The router as a whole: what follows on each fault, cascades, streams, deadlines, spans, shadows, its own faults."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
from collections.abc import Iterator
from contextlib import aclosing
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tierlight
from sdk.routing.fakes import POLICY, Scripted, chunk, refusal, reply
from tierlight.errors import NoTarget, ProviderError
from tierlight.pricing import PriceBook
from tierlight.routing import CallableProvider, HttpProvider, Policy, Routed, Router
from tierlight.routing.artefact import read_features
from tierlight.routing.breaker import BreakerBoard
from tierlight.routing.decide import Choice
from tierlight.routing.embed import hashed
from tierlight.routing.learn import ScoredCall
from tierlight.routing.shape import shape_of
from tierlight.routing.training import Aim, train
from tierlight.testing import Captured, CapturedCall, FakeError, FakeProvider, FakeReply, capture_calls


def routed(script: Scripted, toml: str = POLICY, **said: Any) -> Router:
    return Router(
        Policy.from_toml(toml),
        providers=dict.fromkeys(("openai", "gcp.gemini", "anthropic"), script),
        board=said.pop("board", None) or BreakerBoard(),
        clock=script.clock,
        sleep=script.sleep,
        asleep=script.asleep,
        rng=random.Random(1),
        **said,
    )


@contextlib.contextmanager
def captured(script: Scripted) -> Iterator[Captured]:
    with capture_calls(clock=script.clock) as calls:
        yield calls


def attempts(calls: Captured) -> list[CapturedCall]:
    return [call for call in calls if call.attributes["tierlight.span.role"] == "call"]


def span_around(calls: Captured) -> CapturedCall:
    (one,) = [call for call in calls if call.attributes["tierlight.span.role"] == "route"]
    return one


# ---- what follows on each fault -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "asked", "state"),
    [
        pytest.param(
            refusal(429, retry_after_s=2), ["nano", "nano"], "closed", id="rate limit that says when"
        ),
        pytest.param(
            refusal(429, retry_after_s=9), ["nano", "lite"], "closed", id="rate limit that waits too long"
        ),
        pytest.param(refusal(429), ["nano", "lite"], "closed", id="rate limit that says nothing"),
        pytest.param(refusal(529, "overloaded", 1), ["nano", "nano"], "closed", id="overloaded"),
        pytest.param(refusal(500), ["nano", "nano"], "closed", id="server"),
        pytest.param(refusal(503), ["nano", "nano"], "closed", id="unavailable"),
        pytest.param(ConnectionResetError(), ["nano", "nano"], "closed", id="connection reset"),
        pytest.param(TimeoutError(), ["nano", "lite"], "closed", id="timeout"),
        pytest.param(refusal(401), ["nano", "lite"], "open", id="auth"),
        pytest.param(refusal(403), ["nano", "lite"], "open", id="forbidden"),
        pytest.param(refusal(404, "model_not_found"), ["nano", "lite"], "open", id="model gone"),
        pytest.param(refusal(400, "context_length_exceeded"), ["nano", "lite"], "closed", id="too long"),
    ],
)
def test_a_fault_is_followed_by_a_retry_or_another_provider(
    error: Exception, asked: list[str], state: str
) -> None:
    script, board = Scripted(), BreakerBoard()
    script.tell("nano", error, reply("again"))
    answer = routed(script, board=board).chat("intent", "hi")
    assert script.asked == asked
    assert answer.text == ("again" if asked == ["nano", "nano"] else "fine")
    assert answer.attempts == 2
    assert board.state("openai/gpt-5-nano", script.clock.now_ns / 1e9) == state


@pytest.mark.parametrize(
    "error",
    [
        refusal(400, "invalid"),
        refusal(413),
        refusal(422),
        TypeError("mine"),
        asyncio.CancelledError(),
        KeyboardInterrupt(),
    ],
)
def test_what_no_other_target_would_cure_passes_unchanged(error: BaseException) -> None:
    script, board = Scripted(), BreakerBoard()
    script.tell("nano", error)
    with pytest.raises(type(error)) as caught:
        routed(script, board=board).chat("intent", "hi")
    assert caught.value is error
    assert script.asked == ["nano"]
    assert board.state("openai/gpt-5-nano", 2e9) == "closed"


def test_the_last_error_comes_unchanged_with_the_attempts_in_its_notes() -> None:
    script, last = Scripted(), refusal(500)
    script.tell("nano", refusal(500)).tell("lite", last)
    with pytest.raises(ProviderError) as caught:
        routed(script).chat("intent", "a secret prompt")
    assert caught.value is last
    assert caught.value.__notes__ == ["tierlight tried nano, nano, lite, lite on route 'intent'"]


def test_retries_wait_with_jitter_and_as_long_as_they_are_asked_to() -> None:
    script = Scripted().tell("nano", refusal(500), reply("x"))
    routed(script).chat("intent", "hi")
    assert len(script.slept) == 1
    assert 0 <= script.slept[0] <= 0.25
    polite = Scripted().tell("nano", refusal(429, retry_after_s=3), reply("x"))
    routed(polite).chat("intent", "hi")
    assert polite.slept == [3]


@settings(max_examples=60, deadline=None)
@given(
    takes_s=st.floats(0.01, 40),
    deadline_s=st.floats(1, 60),
    faults=st.lists(st.sampled_from([500, 503, 429, 404, 0]), min_size=1, max_size=6),
)
def test_the_deadline_holds_whatever_happens(takes_s: float, deadline_s: float, faults: list[int]) -> None:
    script = Scripted(takes_s=takes_s)
    answers = [refusal(one, retry_after_s=2) if one else TimeoutError() for one in faults]
    for target in ("nano", "lite"):
        script.tell(target, *answers)
    start = script.clock.now_ns
    with pytest.raises((ProviderError, TimeoutError)):
        routed(script, POLICY.replace("deadline_s = 60.0", f"deadline_s = {deadline_s!r}")).chat(
            "intent", "hi"
        )
    assert (script.clock.now_ns - start) / 1e9 <= deadline_s + 0.05


def test_a_refusal_goes_elsewhere_only_where_the_policy_says_so() -> None:
    refused = reply("I can't help with that", finish="content_filter")
    script = Scripted().tell("nano", refused)
    assert routed(script).chat("intent", "hi").target == "nano"
    script = Scripted().tell("nano", refused)
    answer = routed(
        script, POLICY.replace('target = "nano"', 'target = "nano"\non_refusal = "fallback"')
    ).chat("intent", "hi")
    assert (answer.target, answer.fallbacks) == ("lite", 1)


# ---- breakers -------------------------------------------------------------------------------------------


def test_a_target_that_fails_is_left_alone_until_it_heals() -> None:
    script, board = Scripted(), BreakerBoard()
    script.tell("nano", refusal(500))
    router = routed(script, POLICY.replace("timeout_s = 30.0", "timeout_s = 30.0\nretries = 0"), board=board)
    for _ in range(5):
        assert router.chat("intent", "hi").target == "lite"
    script.asked.clear()
    answer = router.chat("intent", "hi")
    assert script.asked == ["lite"]
    assert answer.decision.reason == "breaker_open"
    script.told["nano"] = [reply("healed")]
    script.clock.advance(31)
    assert router.chat("intent", "hi").target == "nano"
    assert board.state("openai/gpt-5-nano", script.clock.now_ns / 1e9) == "closed"


def test_routers_of_one_process_share_their_breakers() -> None:
    board, script = BreakerBoard(), Scripted().tell("nano", refusal(401))
    routed(script, board=board).chat("intent", "hi")
    other = Scripted(clock=script.clock)
    assert routed(other, board=board).chat("intent", "hi").target == "lite"


# ---- cascades -------------------------------------------------------------------------------------------


def test_an_answer_that_fails_its_check_is_escalated() -> None:
    script = Scripted().tell("nano", reply("no json")).tell("sonnet", reply('{"total": 3}'))
    with captured(script) as calls:
        answer = routed(script).chat("extract", "read this")
    assert (answer.target, answer.escalations, answer.text) == ("sonnet", 1, '{"total": 3}')
    cheap, strong = attempts(calls)
    assert cheap.attributes["tierlight.attempt.final"] is False
    assert cheap.attributes["tierlight.validator.verdicts"] == ("fail",)
    assert cheap.scores == {"json": 0.0}
    assert strong.attributes["tierlight.attempt.final"] is True
    assert strong.attributes["tierlight.attempt.reason"] == "escalation"
    assert strong.attributes["tierlight.attempt.trigger"] == "validator:json"
    assert strong.attributes["tierlight.attempt.escalated_from"] == "nano"
    assert strong.scores == {"json": 1.0}


def test_a_good_cheap_answer_is_kept() -> None:
    script = Scripted().tell("nano", reply("[]"))
    answer = routed(script).chat("extract", "read this")
    assert (script.asked, answer.escalations) == (["nano"], 0)


def test_a_rejected_answer_is_better_than_none() -> None:
    script = Scripted().tell("nano", reply("no json")).tell("sonnet", refusal(500)).tell("gpt5", refusal(500))
    with captured(script) as calls:
        answer = routed(script).chat("extract", "read this")
    assert (answer.target, answer.text) == ("nano", "no json")
    finals = [call.model for call in attempts(calls) if call.attributes["tierlight.attempt.final"]]
    assert finals == ["gpt-5-nano"]


def test_a_step_that_is_down_gives_way_to_the_next() -> None:
    script = Scripted().tell("nano", refusal(404)).tell("lite", refusal(404)).tell("sonnet", reply("{}"))
    assert routed(script).chat("extract", "read this").target == "sonnet"


def test_a_steps_fallback_is_checked_like_the_step() -> None:
    script = Scripted().tell("nano", refusal(404)).tell("lite", reply("no json")).tell("sonnet", reply("{}"))
    answer = routed(script).chat("extract", "read this")
    assert script.asked == ["nano", "lite", "sonnet"]
    assert (answer.fallbacks, answer.escalations) == (1, 1)


@pytest.mark.parametrize(("on_error", "target"), [("escalate", "sonnet"), ("accept", "nano")])
def test_a_check_that_breaks_is_handled_as_the_policy_says(on_error: str, target: str) -> None:
    toml = (
        POLICY.replace('{ kind = "json" }', '{ kind = "callable", name = "mine" }')
        + f'on_validator_error = "{on_error}"'
    )

    def broken(request: object, answer: object) -> bool:
        raise RuntimeError("mine")

    answer = routed(Scripted(), toml, checks={"mine": broken}).chat("extract", "x")
    assert answer.target == target
    assert answer.verdicts[-1].word == "error"


def test_a_judge_is_an_attempt_that_is_counted_once_and_apart() -> None:
    toml = POLICY.replace(
        '{ kind = "json" }', '{ kind = "judge", target = "lite", rubric = "is it right", value = 0.7 }'
    )
    script = Scripted().tell("lite", reply("3"), reply("9"))
    with captured(script) as calls:
        answer = routed(script, toml).chat("extract", "x")
    assert script.asked == ["nano", "lite", "sonnet", "lite"]
    assert (answer.target, answer.attempts) == ("sonnet", 2)
    assert [call.attributes["tierlight.purpose"] for call in attempts(calls)].count("judge") == 2
    judged = next(call for call in attempts(calls) if call.model == "claude-sonnet-4-5")
    assert judged.scores == {"judge": 0.9}
    assert len({call.id for call in calls}) == 1


def test_a_check_is_not_the_calls_time() -> None:
    script = Scripted(takes_s=0.5)

    def slow(request: object, answer: object) -> bool:
        script.clock.advance(3)
        return True

    toml = POLICY.replace('{ kind = "json" }', '{ kind = "callable", name = "mine" }')
    with captured(script) as calls:
        routed(script, toml, checks={"mine": slow}).chat("extract", "x")
    assert attempts(calls)[0].duration_ms == pytest.approx(500)


def test_a_learned_route_with_a_latency_goal_leaves_a_target_that_became_slow() -> None:
    script = Scripted(takes_s=0.1)

    def slow(request: object) -> object:
        script.clock.advance(3)
        return reply("late")

    calls = [
        ScoredCall(name, 1.0, {}, time_ns=n, call_id=f"c{n}", cost_usd=cost, latency_ms=100.0)
        for name, cost in (("nano", 0.001), ("sonnet", 0.01))
        for n in range(60)
    ]
    chooser = train(
        "help", calls, ["nano", "sonnet"], default="sonnet", signal="csat", now_ns=60, aim=Aim(slo_ms=1000)
    )
    toml = POLICY + '[route.help]\nstrategy = "learned"\ncandidates = ["nano", "sonnet"]\nsignal = "csat"\n'
    router = routed(script, toml, choosers={"help": chooser})
    assert [router.chat("help", "x").target for _ in range(3)] == ["nano"] * 3
    script.tell("nano", slow)
    for _ in range(4):
        router.chat("help", "x", target="nano")
    script.clock.advance(10)
    assert router.chat("help", "x").target == "sonnet"
    script.clock.advance(3700)  # of the last hour nothing is known: back to what was learnt
    assert router.chat("help", "x").target == "nano"


# ---- spans ----------------------------------------------------------------------------------------------


def test_the_span_around_the_attempts_says_how_it_was_decided_and_holds_no_usage() -> None:
    script = Scripted().tell("nano", refusal(500), refusal(500))
    with captured(script) as calls:
        answer = routed(script).chat("intent", "hi")
    around = span_around(calls)
    said = around.attributes
    assert around.name == "route intent"
    assert not [name for name in said if name.startswith("gen_ai.usage")]
    assert said["tierlight.decision.candidates"] == ("nano",)
    assert said["tierlight.decision.chosen"] == "nano"
    assert said["tierlight.decision.reason"] == "task"
    assert said["tierlight.act_prob"] == 1.0
    assert said["tierlight.call.attempts"] == 3
    assert said["tierlight.call.fallbacks"] == 1
    assert said["tierlight.policy.version"] == answer.decision.policy_version
    first, second, third = attempts(calls)
    assert [call.attributes["tierlight.attempt.reason"] for call in (first, second, third)] == [
        "first",
        "retry",
        "fallback",
    ]
    assert [call.attributes["tierlight.attempt.index"] for call in (first, second, third)] == [0, 1, 2]
    assert [call.attributes["tierlight.attempt.final"] for call in (first, second, third)] == [
        False,
        False,
        True,
    ]
    assert {call.parent_span_id for call in (first, second, third)} == {around.span_id}
    assert {call.id for call in calls} == {answer.call_id}
    assert third.provider == "gcp.gemini"
    assert third.input_tokens == 10
    assert "tierlight.act_prob" in first.attributes
    assert "tierlight.act_prob" not in third.attributes


def test_a_decorated_function_around_the_router_adds_no_span() -> None:
    script = Scripted()
    router = routed(script)

    @tierlight.route("intent")
    def classify() -> Routed:
        return router.chat("intent", "hi")

    with captured(script) as calls:
        classify()
    assert [call.attributes["tierlight.span.role"] for call in calls] == ["call", "route"]


def test_a_wrapped_client_inside_a_provider_is_not_counted_twice() -> None:
    @tierlight.route("intent")
    def own(target: object, request: object) -> dict[str, Any]:
        return reply("hi")

    with capture_calls() as calls:
        Router(Policy.from_toml(POLICY), providers={"openai": CallableProvider(own)}).chat("intent", "hi")
    assert len(attempts(calls)) == 1


def test_an_experiment_is_stamped_as_assigned_even_where_another_answers() -> None:
    toml = (
        POLICY
        + '[experiment.e]\nroute = "intent"\narms = { a = "nano", b = "sonnet" }\nweights = { a = 1.0, b = 0.0 }'
    )
    script = Scripted().tell("nano", refusal(404))
    with captured(script) as calls:
        routed(script, toml).chat("intent", "hi", user="u1")
    said = span_around(calls).attributes
    assert (said["tierlight.experiment.id"], said["tierlight.experiment.arm"]) == ("e", "a")
    assert said["tierlight.experiment.delivered"] is False
    assert all("u1" not in str(value) for call in calls for value in call.attributes.values())


def test_texts_are_captured_only_where_that_is_on_and_features_only_where_asked_for() -> None:
    script = Scripted()
    with capture_calls(clock=script.clock) as plain:
        routed(script).chat("intent", "a private word")
    assert all("private" not in str(call.attributes) for call in plain)
    with capture_calls(content=True, clock=script.clock) as calls:
        routed(script, sends_features=True).chat("intent", "a private word")
    said = attempts(calls)[0].attributes
    assert "a private word" in said["gen_ai.input.messages"]
    assert "fine" in said["gen_ai.output.messages"]
    vector, shape = read_features(said["tierlight.features.v1"])
    assert vector == pytest.approx(hashed("a private word"), abs=1e-6)
    assert shape == pytest.approx(shape_of("a private word"), abs=1e-6)


# ---- router model, learned routes, our own faults -------------------------------------------------------

ASKED = POLICY + '[route.help]\nstrategy = "router_model"\nrouter = "lite"\n'


def test_the_router_model_is_asked_once_for_the_same_prompt() -> None:
    script = Scripted().tell("lite", reply("complex"))
    router = routed(script, ASKED)
    with captured(script) as calls:
        assert router.chat("help", "prove it").target == "sonnet"
        assert router.chat("help", "prove it").target == "sonnet"
    assert script.asked == ["lite", "sonnet", "sonnet"]
    asked = next(call for call in attempts(calls) if call.model == "gemini-2.5-flash-lite")
    assert asked.attributes["tierlight.attempt.role"] == "router"


def test_a_late_router_model_leaves_the_default() -> None:
    script = Scripted().tell("lite", TimeoutError())
    answer = routed(script, ASKED).chat("help", "prove it")
    assert (answer.target, answer.decision.reason) == ("sonnet", "router_timeout")
    assert script.limits[0].total_s == 1.5


def test_a_chooser_that_breaks_gives_the_default_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def choose(self, *args: object) -> Choice:
            raise ZeroDivisionError

    toml = POLICY + '[route.help]\nstrategy = "learned"\ncandidates = ["nano", "sonnet"]\nsignal = "csat"\n'
    answer = routed(Scripted(), toml, choosers={"help": Broken()}).chat("help", "hi")
    assert (answer.target, answer.decision.reason) == ("sonnet", "router_error")


def test_a_missing_artefact_gives_the_default() -> None:
    toml = (
        POLICY
        + '[route.help]\nstrategy = "learned"\ncandidates = ["nano", "sonnet"]\nsignal = "csat"\nartefact = "gone.json"\n'
    )
    answer = routed(Scripted(), toml).chat("help", "hi")
    assert (answer.target, answer.decision.reason) == ("sonnet", "router_error")


def test_an_unknown_route_is_the_callers_mistake() -> None:
    with pytest.raises(NoTarget, match="no route 'nonsense'"):
        routed(Scripted()).chat("nonsense", "hi")


# ---- streams --------------------------------------------------------------------------------------------


def test_a_stream_fails_over_before_its_first_chunk() -> None:
    script = Scripted().tell("nano", [refusal(404)]).tell("lite", [chunk("he"), chunk("llo")])
    with captured(script) as calls:
        chunks = list(routed(script).stream("intent", "hi"))
    assert [one["choices"][0]["delta"]["content"] for one in chunks] == ["he", "llo"]
    assert [call.outcome for call in attempts(calls)] == ["error", "ok"]
    assert span_around(calls).outcome == "ok"


def test_an_error_after_the_first_chunk_passes_through() -> None:
    broken = ConnectionResetError()
    script = Scripted().tell("nano", [chunk("he"), broken])
    with captured(script) as calls:
        stream = routed(script).stream("intent", "hi")
        seen = [next(stream)]
        with pytest.raises(ConnectionResetError) as caught:
            next(stream)
    assert caught.value is broken
    assert len(seen) == 1
    assert script.asked == ["nano"]
    assert attempts(calls)[0].attributes["tierlight.stream.completed"] is False
    assert span_around(calls).outcome == "error"


def test_a_stream_that_is_left_or_never_read_still_ends_its_spans() -> None:
    script = Scripted().tell("nano", [chunk("a"), chunk("b"), chunk("c")])
    with captured(script) as calls:
        left = routed(script).stream("intent", "hi")
        next(left)
        del left
        never = routed(script).stream("intent", "hi")
        del never
        gc.collect()
    assert [call.outcome for call in calls] == ["cancelled"] * 4


# ---- asynchronous ---------------------------------------------------------------------------------------


def test_the_asynchronous_router_does_the_same() -> None:
    script = Scripted().tell("nano", refusal(500), refusal(500))
    stream = Scripted(clock=script.clock).tell("nano", [refusal(401)]).tell("lite", [chunk("a"), chunk("b")])

    async def main() -> tuple[Routed, list[Any]]:
        answer = await routed(script).achat("intent", "hi")
        return answer, [one async for one in routed(stream).astream("intent", "hi")]

    with captured(script) as calls:
        answer, chunks = asyncio.run(main())
    assert (answer.target, script.asked) == ("lite", ["nano", "nano", "lite"])
    assert len(chunks) == 2
    assert [call.attributes["tierlight.attempt.reason"] for call in attempts(calls)] == [
        "first",
        "retry",
        "fallback",
        "first",
        "fallback",
    ]


def test_an_asynchronous_stream_that_is_left_ends_its_spans() -> None:
    script = Scripted().tell("nano", [chunk("a"), chunk("b"), chunk("c")])

    async def main() -> None:
        stream = routed(script).astream("intent", "hi")
        async with aclosing(stream):  # type: ignore[type-var]  # it is a generator
            async for _ in stream:
                break

    with captured(script) as calls:
        asyncio.run(main())
    assert [call.outcome for call in calls] == ["cancelled", "cancelled"]


def test_a_cancelled_call_stops_at_once() -> None:
    async def hang(target: object, request: object) -> None:
        await asyncio.Event().wait()

    router = Router(
        Policy.from_toml(POLICY), providers={"openai": CallableProvider(asend=hang)}, board=BreakerBoard()
    )

    async def main() -> None:
        task = asyncio.create_task(router.achat("intent", "hi"))
        await asyncio.sleep(0.01)
        task.cancel()
        await task

    with capture_calls() as calls, pytest.raises(asyncio.CancelledError):
        asyncio.run(main())
    assert [call.outcome for call in calls] == ["cancelled", "cancelled"]


# ---- shadows --------------------------------------------------------------------------------------------

SHADOWED = POLICY + '[shadow.s]\nroute = "intent"\ntarget = "gpt5"\nshare = 1.0\nmax_spend_per_day = 1.0\n'


def test_a_shadow_is_recorded_apart_and_its_failure_is_invisible() -> None:
    script = Scripted().tell("gpt5", refusal(500))
    router = routed(script, SHADOWED, prices=PriceBook.from_toml(b""))
    with captured(script) as calls:
        answer = router.chat("intent", "hi")
        assert router.shadows.drain()
    assert answer.text == "fine"
    assert script.asked == ["nano", "gpt5"]
    shadow = next(call for call in calls if call.model == "gpt-5")
    assert shadow.attributes["tierlight.purpose"] == "shadow"
    assert shadow.id == answer.call_id
    assert router.stats["shadow_failed"] == 1


def test_a_shadows_answer_is_checked_and_judged_like_the_users() -> None:
    checks = '{ kind = "min_length", value = 2 }, { kind = "judge", target = "lite", rubric = "right", value = 0.7 }'
    toml = SHADOWED.replace("[route.intent]", f"[route.intent]\nvalidators = [{checks}]")
    script = Scripted().tell("lite", reply("9"), reply("4"))
    router = routed(script, toml, prices=PriceBook.from_toml(b""))
    with captured(script) as calls:
        router.chat("intent", "hi")
        assert router.shadows.drain()
    assert script.asked == ["nano", "lite", "gpt5", "lite"]
    by_model = {call.model: call for call in attempts(calls) if call.model != "gemini-2.5-flash-lite"}
    assert by_model["gpt-5-nano"].scores == {"min_length": 1.0, "judge": 0.9}
    shadow = by_model["gpt-5"]
    assert shadow.scores == {"min_length": 1.0, "judge": 0.4}
    assert shadow.attributes["tierlight.experiment.id"] == "s"
    judges = [call for call in attempts(calls) if call.model == "gemini-2.5-flash-lite"]
    assert [call.attributes["tierlight.purpose"] for call in judges] == ["judge", "judge"]
    assert len({call.id for call in calls}) == 1


def test_shadows_stop_at_their_budget_and_where_the_price_is_unknown() -> None:
    script = Scripted()
    frugal = routed(
        script,
        SHADOWED.replace("max_spend_per_day = 1.0", "max_spend_per_day = 0.00001"),
        prices=PriceBook.from_toml(b""),
    )
    blind = routed(script, SHADOWED)
    for router in (frugal, blind):
        for _ in range(4):
            router.chat("intent", "hi")
            assert router.shadows.drain()
    assert frugal.stats["shadow_sent"] == 1
    assert frugal.stats["shadow_over_budget"] == 3
    assert blind.stats["shadow_unpriced"] == 1
    assert blind.stats["shadow_sent"] == 1


def test_a_shadow_never_goes_to_a_provider_that_the_route_does_not_use() -> None:
    script = Scripted()
    router = routed(
        script, SHADOWED.replace('target = "gpt5"', 'target = "sonnet"'), prices=PriceBook.from_toml(b"")
    )
    router.chat("intent", "hi")
    assert router.shadows.drain()
    assert script.asked == ["nano"]


def test_accepted_answers_of_a_cascade_are_verified_by_the_top_step() -> None:
    script = Scripted().tell("nano", reply("{}"))
    router = routed(script, POLICY + "verify_accepted = 1.0", prices=PriceBook.from_toml(b""))
    router.chat("extract", "x")
    assert router.shadows.drain()
    assert script.asked == ["nano", "sonnet"]


# ---- over HTTP ------------------------------------------------------------------------------------------


def over_http(fake: FakeProvider) -> dict[str, Any]:
    client = httpx.Client(transport=fake.transport(httpx))
    async_client = httpx.AsyncClient(transport=fake.async_transport(httpx))
    return {
        name: HttpProvider(api_key="k", client=client, async_client=async_client)
        for name in ("openai", "anthropic", "gcp.gemini", "ollama")
    }


HTTP = (
    POLICY
    + """
[target.local]
provider = "ollama"
model = "gemma3:270m"
price = "free"
fallback = "none"
[target.vectors]
provider = "openai"
model = "text-embedding-3-small"
fallback = "none"
[target.ranker]
provider = "openai"
model = "rerank-v3.5"
fallback = "none"
"""
)


@pytest.mark.parametrize(
    ("target", "wire"), [("nano", "openai"), ("sonnet", "anthropic"), ("lite", "gemini"), ("local", "ollama")]
)
def test_every_api_is_spoken_in_its_own_words(target: str, wire: str) -> None:
    fake = FakeProvider(FakeReply(text="yes, all is well", input_tokens=21, output_tokens=4))
    router = Router(Policy.from_toml(HTTP), providers=over_http(fake), board=BreakerBoard())
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "is it?"}]
    with capture_calls() as calls:
        answer = router.chat("intent", messages, target=target, max_tokens=50, temperature=0.1)
        chunks = list(router.stream("intent", messages, target=target))
        again = asyncio.run(router.achat("intent", messages, target=target))
    assert answer.text == again.text == "yes, all is well"
    assert len(chunks) > 1
    assert [request.wire for request in fake.requests] == [wire] * 3
    assert all("be brief" in request.prompt and "is it?" in request.prompt for request in fake.requests)
    assert "50" in str(fake.requests[0].body)
    assert [(call.input_tokens, call.output_tokens) for call in attempts(calls)] == [(21, 4)] * 3
    if target == "local":
        assert attempts(calls)[0].attributes["tierlight.cost.amount"] == 0.0


def test_embeddings_and_reranking_find_their_specialists() -> None:
    fake = FakeProvider()
    router = Router(Policy.from_toml(HTTP), providers=over_http(fake), board=BreakerBoard())
    with capture_calls() as calls:
        assert router.embed("intent", ["a", "b"]).target == "vectors"
        assert router.rerank("intent", "q", ["a", "b"]).target == "ranker"
    assert [call.operation for call in attempts(calls)] == ["embeddings", "rerank"]


def test_a_refusal_over_http_says_status_code_and_wait() -> None:
    fake = FakeProvider(FakeError(429, retry_after_s=7, code="rate_limit_exceeded"))
    with pytest.raises(ProviderError) as caught:
        Router(Policy.from_toml(HTTP), providers=over_http(fake), board=BreakerBoard()).chat("intent", "hi")
    assert (caught.value.status_code, caught.value.retry_after_s) == (429, 7)
    assert {request.wire for request in fake.requests} == {"openai", "gemini"}
