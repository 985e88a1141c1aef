"""Scores: checks on the span, judges beside it, feedback and outcomes later."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from typing import Any

import httpx2
import openai
import pytest

import tierlight
from tierlight import semconv as s
from tierlight._config import flush
from tierlight._content import ContentSettings
from tierlight._join import hashed_join_value
from tierlight._record import FinishedCall, FinishedScore
from tierlight._runtime import Runtime
from tierlight.testing import FakeProvider, FakeReply

MESSAGES: Any = [{"role": "user", "content": "hello"}]


def answering(text: str) -> dict[str, Any]:
    return {"model": "gpt-5-mini", "choices": [{"finish_reason": "stop", "message": {"content": text}}]}


def found(call: FinishedCall) -> dict[str, Any]:
    prefix = s.TIERLIGHT_SCORE_PREFIX
    return {
        name.removeprefix(prefix): value for name, value in call.attributes.items() if name.startswith(prefix)
    }


# ---- checks ---------------------------------------------------------------------------------------------


def test_each_kind_of_check_is_a_score_on_the_span(calls: list[FinishedCall]) -> None:
    checks = {
        "known": ["billing", "shipping"],
        "short": re.compile(r"[a-z]{1,8}"),
        "long": re.compile(r"[a-z]{20,}"),
        "sure": lambda answer: 0.75,
        "unsure": lambda answer: None,
        "broken": lambda answer: 1 / 0,
    }
    tierlight.route("r", validate=checks)(lambda: answering("billing"))()
    (call,) = calls
    assert found(call) == {"known": 1.0, "short": 1.0, "long": 0.0, "sure": 0.75}
    assert call.attributes[s.TIERLIGHT_INSTRUMENTATION_ERROR] == "check broken"


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ('{"intent": "billing", "confidence": 0.9}', 1.0),
        ('```json\n{"intent": "billing", "confidence": 1}\n```', 1.0),
        ('{"intent": "weather", "confidence": 0.9}', 0.0),
        ('{"intent": "billing"}', 0.0),
        ('{"intent": "billing", "confidence": 2}', 0.0),
        ('{"intent": "billing", "confidence": 0.9, "more": 1}', 0.0),
        ("billing", 0.0),
    ],
)
def test_a_json_schema_is_checked(calls: list[FinishedCall], text: str, verdict: float) -> None:
    schema = tierlight.Schema(
        {
            "type": "object",
            "properties": {
                "intent": {"enum": ["billing", "shipping"]},
                "confidence": {"type": "number", "minimum": 0, "maximum": 1},
            },
            "required": ["intent", "confidence"],
            "additionalProperties": False,
        }
    )
    tierlight.route("r", validate=schema)(lambda: answering(text))()
    assert found(calls[0]) == {"schema": verdict}


def test_a_schema_that_would_not_be_checked_is_refused() -> None:
    with pytest.raises(tierlight.ConfigurationError, match="dependentRequired"):
        tierlight.Schema({"properties": {"a": {"dependentRequired": {}}}})


def test_two_checks_of_one_name_are_refused() -> None:
    with pytest.raises(tierlight.ConfigurationError, match="several checks"):
        tierlight.route("r", validate=[re.compile("a"), re.compile("b")])


def test_what_the_function_makes_of_the_answer_is_checked(calls: list[FinishedCall]) -> None:
    tierlight.route("r", validate={"intent": ["billing"]})(lambda: "billing ")()
    assert found(calls[0]) == {"intent": 1.0}


def test_a_stream_s_whole_text_is_checked_at_its_end(calls: list[FinishedCall]) -> None:
    @tierlight.route("r", validate=tierlight.OneOf("billing"))
    def ask() -> Iterator[dict[str, Any]]:
        for piece in ("bill", "ing"):
            yield {"choices": [{"index": 0, "delta": {"content": piece}}]}

    list(ask())
    assert found(calls[0]) == {"choices": 1.0}


@pytest.fixture
def client() -> openai.OpenAI:
    provider = FakeProvider(FakeReply(text="billing"))
    http = httpx2.Client(transport=provider.transport(httpx2))
    return tierlight.wrap(openai.OpenAI(api_key="k", http_client=http))


@pytest.mark.parametrize("streams", [False, True])
def test_checks_of_a_route_go_on_the_span_of_the_wrapped_call(
    client: openai.OpenAI, calls: list[FinishedCall], streams: bool
) -> None:
    @tierlight.route("r", validate=["billing"])
    def ask() -> Any:
        return client.chat.completions.create(model="gpt-5-mini", messages=MESSAGES, stream=streams)

    answer = ask()
    if streams:
        assert calls == []
        list(answer)
    assert [found(call) for call in calls] == [{"choices": 1.0}]


def test_of_several_wrapped_calls_the_last_one_gets_the_scores(
    client: openai.OpenAI, calls: list[FinishedCall]
) -> None:
    @tierlight.route("r", validate={"intent": ["billing"]})
    def ask() -> str | None:
        for _ in range(3):
            answer = client.chat.completions.create(model="gpt-5-mini", messages=MESSAGES)
        return answer.choices[0].message.content

    ask()
    assert [found(call) for call in calls] == [{}, {}, {"intent": 1.0}]


# ---- judges ---------------------------------------------------------------------------------------------


def test_a_judge_scores_from_another_thread_and_books_its_calls_on_its_own_route(
    client: openai.OpenAI, calls: list[FinishedCall], scores: list[FinishedScore]
) -> None:
    threads = []

    def is_helpful(answer: Any, question: str) -> float:
        threads.append(threading.current_thread())
        assert question == "Where?"
        client.chat.completions.create(model="gpt-5", messages=MESSAGES)
        return 0.5

    judge = tierlight.Judge(
        is_helpful, name="helpful", share=1.0, model="gpt-5", version="3", tier="flagship"
    )

    @tierlight.route("answer", judge=judge)
    def answer(question: str) -> dict[str, Any]:
        return answering("there")

    answer("Where?")
    assert flush(5)

    assert threads[0] is not threading.current_thread()
    by_route = {call.attributes[s.TIERLIGHT_ROUTE]: call for call in calls}
    assert sorted(map(str, by_route)) == ["answer", "answer/judge"]
    judged, judging = by_route["answer"], by_route["answer/judge"]
    assert judging.attributes[s.TIERLIGHT_PURPOSE] == "judge"
    assert judging.attributes[s.TIERLIGHT_TIER] == "flagship"
    (score,) = scores
    assert score.trace_id == judged.trace_id
    assert score.attributes == {
        "tierlight.call.id": judged.attributes[s.TIERLIGHT_CALL_ID],
        "gen_ai.evaluation.name": "helpful",
        "gen_ai.evaluation.score.value": 0.5,
        "tierlight.score.kind": "judge",
        "tierlight.score.source": "judge:gpt-5",
        "tierlight.score.judge.model": "gpt-5",
        "tierlight.score.judge.version": "3",
        "tierlight.score.weight": 1.0,
    }


def test_a_judge_that_abstains_or_raises_leaves_no_score(
    calls: list[FinishedCall], scores: list[FinishedScore]
) -> None:
    async def abstain(answer: Any) -> None:
        return None

    def fail(answer: Any) -> float:
        raise RuntimeError("judge down")

    for function in (abstain, fail):
        tierlight.route("r", judge=tierlight.Judge(function, share=1.0))(lambda: answering("x"))()
    assert flush(5)
    assert scores == []
    assert [call.attributes[s.TIERLIGHT_ROUTE] for call in calls] == ["r", "r"]


def test_only_the_drawn_share_is_judged(runtime: Runtime, scores: list[FinishedScore]) -> None:
    draws = iter([0.1, 0.3, 0.2, 0.9])
    runtime.chance = lambda: next(draws)
    ask = tierlight.route("r", judge=tierlight.Judge(lambda answer: True, share=0.25))(lambda: answering("x"))
    for _ in range(4):
        ask()
    assert flush(5)
    assert [score.attributes[s.TIERLIGHT_SCORE_WEIGHT] for score in scores] == [4.0, 4.0]


# ---- feedback and outcomes ------------------------------------------------------------------------------


def test_a_score_reaches_its_call_by_id_from_anywhere(scores: list[FinishedScore]) -> None:
    tierlight.score(True, "helpful", call="01a20c55-ece1-78ac-ba01-0c9c6d1379cd", label="up")
    (score,) = scores
    assert score.attributes == {
        "gen_ai.evaluation.name": "helpful",
        "gen_ai.evaluation.score.value": 1.0,
        "gen_ai.evaluation.score.label": "up",
        "tierlight.score.kind": "feedback",
        "tierlight.call.id": "01a20c55-ece1-78ac-ba01-0c9c6d1379cd",
    }


def test_without_a_call_the_current_one_is_meant(
    calls: list[FinishedCall], scores: list[FinishedScore]
) -> None:
    with tierlight.route("r") as call:
        tierlight.score(0.4, "helpful")
    assert scores[0].attributes[s.TIERLIGHT_CALL_ID] == call.id == calls[0].attributes[s.TIERLIGHT_CALL_ID]


def test_abstaining_records_nothing(scores: list[FinishedScore]) -> None:
    tierlight.score(None, "helpful", call="x")
    assert scores == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "good"])
def test_a_score_that_is_no_number_is_refused(value: Any) -> None:
    with pytest.raises(tierlight.ScoreError, match="finite number"):
        tierlight.score(value, "helpful", call="x")


def test_a_business_key_leaves_hashed_unless_it_is_allow_listed(
    runtime: Runtime, calls: list[FinishedCall], scores: list[FinishedScore]
) -> None:
    runtime.open_join_keys = frozenset({"region"})
    with tierlight.route("r") as call:
        call.join(ticket="T-17", region="eu")
    tierlight.score(0.0, "resolved", join={"ticket": "T-17"}, kind="outcome")
    hashed = hashed_join_value("ticket", "T-17")
    assert "T-17" not in hashed
    assert (
        calls[0].attributes["tierlight.join.ticket"]
        == hashed
        == scores[0].attributes["tierlight.join.ticket"]
    )
    assert calls[0].attributes["tierlight.join.region"] == "eu"


def test_an_explanation_is_sent_only_with_content_on_and_masked(
    runtime: Runtime, scores: list[FinishedScore]
) -> None:
    tierlight.score(0.0, "helpful", call="x", explanation="ada@example.org says no")
    runtime.content = ContentSettings(captures=True)
    tierlight.score(0.0, "helpful", call="x", explanation="ada@example.org says no")
    assert s.GEN_AI_EVALUATION_EXPLANATION not in scores[0].attributes
    assert scores[1].attributes[s.GEN_AI_EVALUATION_EXPLANATION] == "[redacted:email] says no"


def test_a_caller_s_own_cost_comes_with_its_source(calls: list[FinishedCall]) -> None:
    with tierlight.route("r") as call:
        call.cost(0.002, "EUR")
    get = calls[0].attributes.get
    assert (get(s.TIERLIGHT_COST_AMOUNT), get(s.TIERLIGHT_COST_CURRENCY), get(s.TIERLIGHT_COST_SOURCE)) == (
        0.002,
        "EUR",
        "caller",
    )
