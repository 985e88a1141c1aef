"""Real clients of the newest versions against the fake provider: one span a call, and nothing else changed."""

from __future__ import annotations

import gc
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from google import genai
from google.genai import types as gemini_types

import tierlight
from tierlight import semconv as s
from tierlight._record import FinishedCall, FinishedScore
from tierlight._runtime import Runtime
from tierlight.testing import FakeError, FakeProvider, FakeReply, FakeToolCall

pytestmark = pytest.mark.anyio

REPLY = FakeReply(
    text="one two three four five six seven eight nine ten",
    input_tokens=100,
    output_tokens=30,
    cached_input_tokens=40,
    reasoning_tokens=12,
)
MESSAGES: Any = [{"role": "user", "content": "hello"}]


@pytest.fixture
def provider() -> FakeProvider:
    return FakeProvider(REPLY)


@pytest.fixture
def openai_client(provider: FakeProvider) -> openai.OpenAI:
    http = httpx2.Client(transport=provider.transport(httpx2))
    return tierlight.wrap(openai.OpenAI(api_key="k", http_client=http, max_retries=0))


@pytest.fixture
def async_openai_client(provider: FakeProvider) -> openai.AsyncOpenAI:
    http = httpx2.AsyncClient(transport=provider.async_transport(httpx2))
    return tierlight.wrap(openai.AsyncOpenAI(api_key="k", http_client=http, max_retries=0))


@pytest.fixture
def anthropic_client(provider: FakeProvider) -> anthropic.Anthropic:
    http = httpx2.Client(transport=provider.transport(httpx2))
    return tierlight.wrap(anthropic.Anthropic(api_key="k", http_client=http, max_retries=0))


@pytest.fixture
def async_anthropic_client(provider: FakeProvider) -> anthropic.AsyncAnthropic:
    http = httpx2.AsyncClient(transport=provider.async_transport(httpx2))
    return tierlight.wrap(anthropic.AsyncAnthropic(api_key="k", http_client=http, max_retries=0))


@pytest.fixture
def gemini_client(provider: FakeProvider) -> genai.Client:
    options = gemini_types.HttpOptions(
        httpx_client=httpx2.Client(transport=provider.transport(httpx2)),
        httpx_async_client=httpx2.AsyncClient(transport=provider.async_transport(httpx2)),
    )
    return tierlight.wrap(genai.Client(api_key="k", http_options=options))


def numbers(call: FinishedCall) -> tuple[Any, ...]:
    get = call.attributes.get
    return (
        get(s.GEN_AI_USAGE_INPUT_TOKENS),
        get(s.GEN_AI_USAGE_OUTPUT_TOKENS),
        get(s.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS),
    )


# ---- OpenAI ---------------------------------------------------------------------------------------------


def test_openai_chat_is_one_span_with_request_and_response(
    openai_client: openai.OpenAI, calls: list[FinishedCall]
) -> None:
    with tierlight.route("support", tier="small"):
        answer = openai_client.chat.completions.create(
            model="gpt-5-mini", messages=MESSAGES, max_completion_tokens=50, temperature=0.5, seed=7
        )
    assert type(answer) is openai.types.chat.ChatCompletion
    (call,) = calls
    assert call.name == "chat gpt-5-mini"
    assert numbers(call) == (100, 30, 40)
    get = call.attributes.get
    assert (get(s.TIERLIGHT_ROUTE), get(s.TIERLIGHT_TIER)) == ("support", "small")
    assert get(s.GEN_AI_PROVIDER_NAME) == "openai"
    assert get(s.SERVER_ADDRESS) == "api.openai.com"
    assert get(s.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS) == 12
    assert (get(s.GEN_AI_REQUEST_MAX_TOKENS), get(s.GEN_AI_REQUEST_TEMPERATURE)) == (50, 0.5)
    assert get(s.GEN_AI_REQUEST_SEED) == 7


def test_openai_stream_keeps_its_type_and_counts_at_its_end(
    openai_client: openai.OpenAI, calls: list[FinishedCall]
) -> None:
    stream = openai_client.chat.completions.create(
        model="gpt-5-mini", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    assert type(stream) is openai.Stream
    assert calls == []
    text = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
    assert text == REPLY.text
    (call,) = calls
    assert numbers(call) == (100, 30, 40)
    assert call.attributes[s.GEN_AI_REQUEST_STREAM] is True
    assert call.attributes[s.TIERLIGHT_STREAM_COMPLETED] is True
    assert s.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK in call.attributes


def test_a_closed_openai_stream_is_cancelled_once(
    openai_client: openai.OpenAI, calls: list[FinishedCall]
) -> None:
    with openai_client.chat.completions.create(model="gpt-5-mini", messages=MESSAGES, stream=True) as stream:
        next(stream)
    stream.close()
    del stream
    gc.collect()
    (call,) = calls
    assert call.attributes[s.TIERLIGHT_OUTCOME] == "cancelled"
    assert call.attributes[s.TIERLIGHT_STREAM_COMPLETED] is False
    assert numbers(call) == (None, None, None)


def test_an_openai_stream_that_nobody_reads_ends_when_it_is_collected(
    openai_client: openai.OpenAI, calls: list[FinishedCall]
) -> None:
    openai_client.chat.completions.create(model="gpt-5-mini", messages=MESSAGES, stream=True)
    gc.collect()
    assert [call.attributes[s.TIERLIGHT_OUTCOME] for call in calls] == ["cancelled"]


def test_openai_s_stream_helper_is_one_span(openai_client: openai.OpenAI, calls: list[FinishedCall]) -> None:
    with openai_client.chat.completions.stream(
        model="gpt-5-mini", messages=MESSAGES, stream_options={"include_usage": True}
    ) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.content == REPLY.text
    assert [numbers(call) for call in calls] == [(100, 30, 40)]


@pytest.mark.parametrize("streams", [False, True])
def test_openai_responses(openai_client: openai.OpenAI, calls: list[FinishedCall], streams: bool) -> None:
    answer = openai_client.responses.create(model="gpt-5", input="hello", stream=streams)
    if streams:
        assert list(answer)
    (call,) = calls
    assert numbers(call) == (100, 30, 40)
    assert call.attributes[s.GEN_AI_RESPONSE_FINISH_REASONS] == ("completed",)


def test_openai_embeddings(openai_client: openai.OpenAI, calls: list[FinishedCall]) -> None:
    openai_client.embeddings.create(model="text-embedding-3-small", input="hello")
    (call,) = calls
    assert call.name == "embeddings text-embedding-3-small"
    assert call.attributes[s.GEN_AI_USAGE_INPUT_TOKENS] == 100
    assert s.GEN_AI_USAGE_OUTPUT_TOKENS not in call.attributes


def test_a_failed_call_raises_the_client_s_own_error(
    openai_client: openai.OpenAI, provider: FakeProvider, calls: list[FinishedCall]
) -> None:
    provider.queue(FakeError(429, code="rate_limit_exceeded"))
    with pytest.raises(openai.RateLimitError):
        openai_client.chat.completions.create(model="gpt-5-mini", messages=MESSAGES)
    (call,) = calls
    assert call.is_error
    assert call.attributes[s.ERROR_TYPE] == "rate_limit"
    assert call.attributes[s.HTTP_RESPONSE_STATUS_CODE] == 429
    assert call.attributes[s.GEN_AI_REQUEST_MODEL] == "gpt-5-mini"
    assert numbers(call) == (None, None, None)


def test_tool_calls_of_a_stream_are_recorded(
    openai_client: openai.OpenAI, provider: FakeProvider, calls: list[FinishedCall]
) -> None:
    provider.answer = FakeReply(
        text="", finish_reason="tool", tool_calls=(FakeToolCall("look_up", {"id": 1}),)
    )
    list(openai_client.chat.completions.create(model="gpt-5-mini", messages=MESSAGES, stream=True))
    assert calls[0].attributes[s.TIERLIGHT_TOOL_CALLS] == 1
    assert calls[0].attributes[s.GEN_AI_RESPONSE_FINISH_REASONS] == ("tool_calls",)


def test_with_raw_response_is_read_too(openai_client: openai.OpenAI, calls: list[FinishedCall]) -> None:
    raw = openai_client.chat.completions.with_raw_response.create(model="gpt-5-mini", messages=MESSAGES)
    assert raw.parse().choices[0].message.content == REPLY.text
    assert [numbers(call) for call in calls] == [(100, 30, 40)]


def test_a_changed_copy_of_a_client_is_wrapped_too(
    openai_client: openai.OpenAI, calls: list[FinishedCall]
) -> None:
    openai_client.with_options(timeout=3).chat.completions.create(model="gpt-5-mini", messages=MESSAGES)
    assert len(calls) == 1


def test_wrapping_twice_records_once(openai_client: openai.OpenAI, calls: list[FinishedCall]) -> None:
    assert tierlight.wrap(openai_client) is openai_client
    openai_client.chat.completions.create(model="gpt-5-mini", messages=MESSAGES)
    assert len(calls) == 1


def test_the_host_tells_the_provider(provider: FakeProvider, calls: list[FinishedCall]) -> None:
    http = httpx2.Client(transport=provider.transport(httpx2))
    client = tierlight.wrap(
        openai.OpenAI(api_key="k", http_client=http, base_url="https://api.groq.com:8443/v1", max_retries=0)
    )
    client.chat.completions.create(model="llama-3.3-70b", messages=MESSAGES)
    get = calls[0].attributes.get
    assert (get(s.GEN_AI_PROVIDER_NAME), get(s.SERVER_ADDRESS), get(s.SERVER_PORT)) == (
        "groq",
        "api.groq.com",
        8443,
    )


async def test_async_openai(async_openai_client: openai.AsyncOpenAI, calls: list[FinishedCall]) -> None:
    client = async_openai_client
    await client.chat.completions.create(model="gpt-5-mini", messages=MESSAGES)
    stream = await client.chat.completions.create(
        model="gpt-5-mini", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    assert type(stream) is openai.AsyncStream
    assert [chunk async for chunk in stream]
    async with client.chat.completions.stream(
        model="gpt-5-mini", messages=MESSAGES, stream_options={"include_usage": True}
    ) as helper:
        await helper.get_final_completion()
    assert [numbers(call) for call in calls] == [(100, 30, 40)] * 3


# ---- Anthropic ------------------------------------------------------------------------------------------


def test_anthropic_messages(anthropic_client: anthropic.Anthropic, calls: list[FinishedCall]) -> None:
    answer = anthropic_client.messages.create(model="claude-sonnet-5", max_tokens=99, messages=MESSAGES)
    assert type(answer) is anthropic.types.Message
    (call,) = calls
    assert numbers(call) == (100, 30, 40)
    assert call.attributes[s.GEN_AI_PROVIDER_NAME] == "anthropic"
    assert call.attributes[s.GEN_AI_REQUEST_MAX_TOKENS] == 99
    assert call.attributes[s.GEN_AI_RESPONSE_FINISH_REASONS] == ("end_turn",)


def test_anthropic_raw_stream_and_manager(
    anthropic_client: anthropic.Anthropic, calls: list[FinishedCall]
) -> None:
    list(
        anthropic_client.messages.create(
            model="claude-sonnet-5", max_tokens=9, messages=MESSAGES, stream=True
        )
    )
    manager = anthropic_client.messages.stream(model="claude-sonnet-5", max_tokens=9, messages=MESSAGES)
    assert isinstance(manager, anthropic.MessageStreamManager)
    assert len(calls) == 1
    with manager as stream:
        assert type(stream) is anthropic.MessageStream
        assert "".join(stream.text_stream) == REPLY.text
        assert stream.get_final_message().usage.output_tokens == 30
    assert [numbers(call) for call in calls] == [(100, 30, 40)] * 2
    assert calls[1].attributes[s.GEN_AI_REQUEST_STREAM] is True


def test_a_cut_anthropic_stream_keeps_its_input_and_no_placeholder(
    anthropic_client: anthropic.Anthropic, calls: list[FinishedCall]
) -> None:
    with anthropic_client.messages.stream(model="claude-sonnet-5", max_tokens=9, messages=MESSAGES) as stream:
        next(iter(stream.text_stream))
    (call,) = calls
    assert numbers(call) == (100, None, 40)
    assert call.attributes[s.TIERLIGHT_USAGE_SOURCE] == "estimated"
    assert call.attributes[s.TIERLIGHT_OUTCOME] == "cancelled"


async def test_async_anthropic(
    async_anthropic_client: anthropic.AsyncAnthropic, calls: list[FinishedCall]
) -> None:
    client = async_anthropic_client
    await client.messages.create(model="claude-sonnet-5", max_tokens=9, messages=MESSAGES)
    async with client.messages.stream(model="claude-sonnet-5", max_tokens=9, messages=MESSAGES) as stream:
        assert "".join([text async for text in stream.text_stream]) == REPLY.text
    assert [numbers(call) for call in calls] == [(100, 30, 40)] * 2


# ---- Gemini ---------------------------------------------------------------------------------------------


def test_gemini_generate_stream_embed_and_chat(
    gemini_client: genai.Client, calls: list[FinishedCall]
) -> None:
    config = gemini_types.GenerateContentConfig(temperature=0.5, max_output_tokens=9)
    answer = gemini_client.models.generate_content(model="gemini-2.5-flash", contents="hello", config=config)
    assert type(answer) is gemini_types.GenerateContentResponse
    stream = gemini_client.models.generate_content_stream(model="gemini-2.5-flash", contents="hello")
    assert "".join(chunk.text or "" for chunk in stream) == REPLY.text
    gemini_client.models.embed_content(model="gemini-embedding-001", contents="hello")
    gemini_client.chats.create(model="gemini-2.5-flash").send_message("hello")

    assert [numbers(call)[:2] for call in calls] == [
        (100, 30),
        (100, 30),
        calls[2] and numbers(calls[2])[:2],
        (100, 30),
    ]
    assert [call.name for call in calls] == [
        "generate_content gemini-2.5-flash",
        "generate_content gemini-2.5-flash",
        "embeddings gemini-embedding-001",
        "generate_content gemini-2.5-flash",
    ]
    assert calls[0].attributes[s.GEN_AI_REQUEST_TEMPERATURE] == 0.5
    assert calls[0].attributes[s.GEN_AI_PROVIDER_NAME] == "gcp.gemini"
    assert calls[1].attributes[s.GEN_AI_REQUEST_STREAM] is True


async def test_async_gemini(gemini_client: genai.Client, calls: list[FinishedCall]) -> None:
    await gemini_client.aio.models.generate_content(model="gemini-2.5-flash", contents="hello")
    stream = await gemini_client.aio.models.generate_content_stream(
        model="gemini-2.5-flash", contents="hello"
    )
    assert "".join([chunk.text or "" async for chunk in stream]) == REPLY.text
    assert [numbers(call)[:2] for call in calls] == [(100, 30)] * 2


# ---- routes around --------------------------------------------------------------------------------------


def test_a_decorated_function_around_a_wrapped_client_adds_no_span(
    openai_client: openai.OpenAI, calls: list[FinishedCall]
) -> None:
    ids = []

    @tierlight.route("classify", tier="small")
    def classify(question: str) -> str | None:
        call = tierlight.current_call()
        ids.append(call.id if call else "")
        answer = openai_client.chat.completions.create(model="gpt-5-mini", messages=MESSAGES)
        return answer.choices[0].message.content

    assert classify("Where?") == REPLY.text
    (call,) = calls
    assert call.attributes[s.TIERLIGHT_ROUTE] == "classify"
    assert call.attributes[s.TIERLIGHT_CALL_ID] == ids[0]


def test_a_decorated_function_that_returns_a_wrapped_stream_adds_no_span(
    openai_client: openai.OpenAI, calls: list[FinishedCall]
) -> None:
    @tierlight.route("chat")
    def ask() -> Any:
        return openai_client.chat.completions.create(model="gpt-5-mini", messages=MESSAGES, stream=True)

    @tierlight.route("chat")
    def tell() -> Any:
        for chunk in ask():
            yield chunk.choices[0].delta.content if chunk.choices else ""

    kind = type(ask())
    gc.collect()
    assert kind is openai.Stream
    assert "".join(text or "" for text in tell()) == REPLY.text
    assert [call.attributes[s.TIERLIGHT_OUTCOME] for call in calls] == ["cancelled", "ok"]


def test_an_error_of_a_wrapped_client_is_recorded_once(
    openai_client: openai.OpenAI, provider: FakeProvider, calls: list[FinishedCall]
) -> None:
    provider.queue(FakeError(500))

    @tierlight.route("chat")
    def ask() -> None:
        openai_client.chat.completions.create(model="gpt-5-mini", messages=MESSAGES)

    with pytest.raises(openai.InternalServerError):
        ask()
    assert [call.attributes[s.ERROR_TYPE] for call in calls] == ["server"]


def test_two_calls_of_one_function_are_two_calls_of_one_trace(
    openai_client: openai.OpenAI, calls: list[FinishedCall]
) -> None:
    with tierlight.route("chat"):
        for _ in range(2):
            openai_client.chat.completions.create(model="gpt-5-mini", messages=MESSAGES)
    assert len({call.trace_id for call in calls}) == 1
    assert len({call.attributes[s.TIERLIGHT_CALL_ID] for call in calls}) == 2


def test_a_wrapped_client_just_works_before_configure(provider: FakeProvider) -> None:
    http = httpx2.Client(transport=provider.transport(httpx2))
    client = tierlight.wrap(openai.OpenAI(api_key="k", http_client=http))
    assert client.chat.completions.create(model="gpt-5-mini", messages=MESSAGES).choices[0].message.content


def test_texts_are_captured_only_when_asked_for(
    openai_client: openai.OpenAI, runtime: Runtime, provider: FakeProvider, calls: list[FinishedCall]
) -> None:
    secret: Any = [{"role": "user", "content": "my key is sk-abcdefghijklmnop1234, mail ada@example.org"}]
    openai_client.chat.completions.create(model="gpt-5-mini", messages=secret)
    assert not set(calls[0].attributes) & s.CONTENT_ATTRIBUTES

    with tierlight.route("support", content=True):
        openai_client.chat.completions.create(model="gpt-5-mini", messages=secret)
        list(openai_client.chat.completions.create(model="gpt-5-mini", messages=secret, stream=True))
    for call in calls[1:]:
        asked, said = call.attributes[s.GEN_AI_INPUT_MESSAGES], call.attributes[s.GEN_AI_OUTPUT_MESSAGES]
        assert asked == (
            '[{"role":"user","parts":[{"type":"text","content":'
            '"my key is [redacted:key], mail [redacted:email]"}]}]'
        )
        assert REPLY.text in str(said)
        assert call.attributes[s.TIERLIGHT_CONTENT_REDACTED] is True


def test_what_is_no_client_cannot_be_wrapped() -> None:
    with pytest.raises(tierlight.ConfigurationError, match="decorate the function"):
        tierlight.wrap(object())


# ---- quality, in a block --------------------------------------------------------------------------------


async def test_a_blocks_checks_and_judge_see_what_wrapped_clients_answer(
    openai_client: openai.OpenAI,
    async_openai_client: openai.AsyncOpenAI,
    provider: FakeProvider,
    calls: list[FinishedCall],
    scores: list[FinishedScore],
) -> None:
    judged: list[tuple[str, str]] = []

    def is_short(answer: Any, *, model: str, **_: Any) -> bool:
        judged.append((answer if isinstance(answer, str) else answer.choices[0].message.content, model))
        return True

    judge = tierlight.Judge(is_short, name="short", share=1.0)
    provider.queue(FakeReply(text="parcel"), FakeReply(text="no idea"), FakeReply(text="refund"))
    with tierlight.route("sort", validate=tierlight.OneOf("parcel", "refund"), judge=judge):
        openai_client.chat.completions.create(model="gpt-5-nano", messages=MESSAGES)
        list(openai_client.chat.completions.create(model="gpt-5-mini", messages=MESSAGES, stream=True))
        await async_openai_client.chat.completions.create(model="gpt-5", messages=MESSAGES)
    openai_client.chat.completions.create(model="gpt-5", messages=MESSAGES)
    assert tierlight.flush(5)
    assert [call.attributes.get(f"{s.TIERLIGHT_SCORE_PREFIX}choices") for call in calls] == [
        1.0,
        0.0,
        1.0,
        None,
    ]
    assert judged == [("parcel", "gpt-5-nano"), ("no idea", "gpt-5-mini"), ("refund", "gpt-5")]
    assert [score.span_id for score in scores] == [call.span_id for call in calls[:3]]


def test_a_block_inside_of_a_judged_function_leaves_the_judgement_to_it(
    openai_client: openai.OpenAI, calls: list[FinishedCall]
) -> None:
    judged: list[Any] = []

    @tierlight.route("outer", judge=tierlight.Judge(lambda *seen: judged.append(seen), share=1.0))
    def ask(question: str) -> str:
        with tierlight.route("inner"):
            answer = openai_client.chat.completions.create(model="gpt-5", messages=MESSAGES)
        return answer.choices[0].message.content or ""

    ask("hello")
    assert tierlight.flush(5)
    assert judged == [(REPLY.text, "hello")]
    assert [call.attributes[s.TIERLIGHT_ROUTE] for call in calls] == ["inner"]
