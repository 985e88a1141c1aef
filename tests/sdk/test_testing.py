"""What tierlight.testing gives: captured calls, and a provider that the real clients take for theirs."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import httpx
import httpx2
import openai
import pytest
from google import genai

import tierlight
from tierlight import semconv as s
from tierlight.testing import (
    Captured,
    FakeError,
    FakeProvider,
    FakeReply,
    FakeToolCall,
    FrozenClock,
    SequentialIds,
    capture_calls,
)

REPLY = FakeReply(
    text="Your parcel is on its way.",
    input_tokens=120,
    output_tokens=34,
    cached_input_tokens=20,
    cache_write_input_tokens=10,
    reasoning_tokens=5,
)
MESSAGES: Any = [{"role": "user", "content": "Where is my parcel?"}]


def openai_client(provider: FakeProvider) -> openai.OpenAI:
    return openai.OpenAI(
        api_key="x", max_retries=0, http_client=httpx2.Client(transport=provider.transport(httpx2))
    )


def anthropic_client(provider: FakeProvider) -> anthropic.Anthropic:
    return anthropic.Anthropic(
        api_key="x", max_retries=0, http_client=httpx2.Client(transport=provider.transport(httpx2))
    )


@pytest.fixture
def gemini_client(fake_provider: FakeProvider) -> Iterator[genai.Client]:
    with fake_provider.serve() as url:
        client = genai.Client(api_key="x", http_options={"base_url": url})
        yield client
        client.close()


# ---- the real clients --------------------------------------------------------------------------------------


def test_openai_chat_whole_and_streamed(fake_provider: FakeProvider) -> None:
    fake_provider.answer = REPLY
    client = openai_client(fake_provider)
    answer = client.chat.completions.create(model="gpt-5-mini", messages=MESSAGES)
    assert answer.choices[0].message.content == REPLY.text
    assert answer.usage is not None
    assert answer.usage.prompt_tokens_details is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (120, 34)
    assert answer.usage.prompt_tokens_details.cached_tokens == 20

    chunks = list(
        client.chat.completions.create(
            model="gpt-5-mini", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
    )
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == REPLY.text
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 34
    assert [(r.model, r.is_streaming) for r in fake_provider.requests] == [
        ("gpt-5-mini", False),
        ("gpt-5-mini", True),
    ]
    assert fake_provider.requests[0].prompt == "Where is my parcel?"


def test_openai_stream_has_usage_only_when_it_was_asked_for(fake_provider: FakeProvider) -> None:
    chunks = list(
        openai_client(fake_provider).chat.completions.create(model="m", messages=MESSAGES, stream=True)
    )
    assert all(chunk.usage is None for chunk in chunks)


def test_openai_responses_whole_and_streamed(fake_provider: FakeProvider) -> None:
    fake_provider.answer = REPLY
    client = openai_client(fake_provider)
    answer = client.responses.create(model="gpt-5-mini", input="hi")
    assert answer.output_text == REPLY.text
    assert answer.usage is not None
    assert answer.usage.output_tokens_details.reasoning_tokens == 5
    with client.responses.stream(model="gpt-5-mini", input="hi") as events:
        assert events.get_final_response().output_text == REPLY.text


def test_openai_embeddings_are_one_vector_a_text(fake_provider: FakeProvider) -> None:
    answer = openai_client(fake_provider).embeddings.create(model="e", input=["one", "three"], dimensions=8)
    assert [len(item.embedding) for item in answer.data] == [8, 8]
    assert answer.data[0].embedding != answer.data[1].embedding


def test_anthropic_whole_and_streamed_leaves_cached_tokens_out_of_the_input(
    fake_provider: FakeProvider,
) -> None:
    fake_provider.answer = REPLY
    client = anthropic_client(fake_provider)
    answer = client.messages.create(model="claude-haiku-4-5", max_tokens=50, messages=MESSAGES)
    assert [getattr(block, "text", None) for block in answer.content] == [REPLY.text]
    usage = answer.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == (
        90,
        20,
        10,
    )
    with client.messages.stream(model="claude-haiku-4-5", max_tokens=50, messages=MESSAGES) as events:
        assert "".join(events.text_stream) == REPLY.text
        assert events.get_final_message().usage.output_tokens == 34


def test_gemini_whole_and_streamed_counts_thoughts_apart(
    fake_provider: FakeProvider, gemini_client: genai.Client
) -> None:
    fake_provider.answer = REPLY
    answer = gemini_client.models.generate_content(model="gemini-2.5-flash", contents="hi")
    assert answer.text == REPLY.text
    usage = answer.usage_metadata
    assert usage is not None
    assert (usage.prompt_token_count, usage.candidates_token_count, usage.thoughts_token_count) == (
        120,
        29,
        5,
    )
    pieces = list(gemini_client.models.generate_content_stream(model="gemini-2.5-flash", contents="hi"))
    assert "".join(piece.text or "" for piece in pieces) == REPLY.text
    assert pieces[-1].usage_metadata is not None
    assert {request.model for request in fake_provider.requests} == {"gemini-2.5-flash"}


def test_cohere_rerank_and_ollama_over_plain_httpx(fake_provider: FakeProvider) -> None:
    client = httpx.Client(transport=fake_provider.transport(httpx), base_url="http://fake")
    ranked = client.post(
        "/v2/rerank", json={"model": "rerank-v3.5", "query": "q", "documents": ["a", "b"], "top_n": 1}
    ).json()
    assert ranked["results"] == [{"index": 0, "relevance_score": 0.9}]
    assert ranked["meta"]["billed_units"] == {"search_units": 1}
    lines = client.post("/api/chat", json={"model": "llama3", "messages": MESSAGES}).text.splitlines()
    assert '"done": true' in lines[-1]
    assert '"eval_count": 3' in lines[-1]


def test_tool_calls_and_refusals_in_the_providers_own_shape(fake_provider: FakeProvider) -> None:
    called = FakeReply(tool_calls=(FakeToolCall("track", {"id": 7}),), finish_reason="tool")
    fake_provider.queue(called, called, FakeReply(refusal="I will not."))
    choice = openai_client(fake_provider).chat.completions.create(model="m", messages=MESSAGES).choices[0]
    assert choice.finish_reason == "tool_calls"
    [call] = choice.message.tool_calls or []
    assert getattr(call, "function").arguments == '{"id": 7}'  # noqa: B009  a union of call types
    answer = anthropic_client(fake_provider).messages.create(model="m", max_tokens=5, messages=MESSAGES)
    assert (answer.stop_reason, getattr(answer.content[0], "input", None)) == ("tool_use", {"id": 7})
    refused = openai_client(fake_provider).chat.completions.create(model="m", messages=MESSAGES).choices[0]
    assert refused.message.refusal == "I will not."


def test_errors_are_raised_as_the_clients_own(
    fake_provider: FakeProvider, gemini_client: genai.Client
) -> None:
    fake_provider.answer = FakeError(429, retry_after_s=2)
    with pytest.raises(openai.RateLimitError) as limited:
        openai_client(fake_provider).chat.completions.create(model="m", messages=MESSAGES)
    assert limited.value.response.headers["retry-after"] == "2"
    fake_provider.answer = FakeError(529)
    with pytest.raises(anthropic.APIStatusError) as overloaded:
        anthropic_client(fake_provider).messages.create(model="m", max_tokens=5, messages=MESSAGES)
    assert overloaded.value.status_code == 529
    fake_provider.answer = FakeError(400)
    with pytest.raises(genai.errors.ClientError) as refused:
        gemini_client.models.generate_content(model="m", contents="hi")
    assert refused.value.status == "INVALID_ARGUMENT"


def test_a_stream_can_break_off(fake_provider: FakeProvider) -> None:
    fake_provider.answer = FakeReply(text="one two three four", cut_after=2)
    heard: list[str] = []
    stream = openai_client(fake_provider).chat.completions.create(model="m", messages=MESSAGES, stream=True)
    with pytest.raises((openai.APIConnectionError, httpx2.RemoteProtocolError)):
        heard.extend(chunk.choices[0].delta.content or "" for chunk in stream)
    assert "".join(heard) == "one two "


def test_the_async_clients_and_asgi_work_too(fake_provider: FakeProvider) -> None:
    fake_provider.answer = FakeReply(text="fine")

    async def both() -> tuple[str | None, str]:
        async with httpx2.AsyncClient(transport=fake_provider.async_transport(httpx2)) as http:
            client = openai.AsyncOpenAI(api_key="x", http_client=http)
            answer = await client.chat.completions.create(model="m", messages=MESSAGES)
        asgi = httpx.ASGITransport(app=fake_provider)
        async with httpx.AsyncClient(transport=asgi, base_url="http://fake") as plain:
            raw = await plain.post(
                "/v1/chat/completions", json={"model": "m", "messages": [], "stream": True}
            )
        return answer.choices[0].message.content, raw.text

    content, raw = asyncio.run(both())
    assert content == "fine"
    assert raw.rstrip().endswith("data: [DONE]")


def test_an_answer_may_depend_on_the_request(fake_provider: FakeProvider) -> None:
    fake_provider.answer = lambda request: (
        FakeReply(text="small") if request.model == "mini" else FakeError(503)
    )
    client = openai_client(fake_provider)
    assert (
        client.chat.completions.create(model="mini", messages=MESSAGES).choices[0].message.content == "small"
    )
    with pytest.raises(openai.InternalServerError):
        client.chat.completions.create(model="big", messages=MESSAGES)


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v1/nothing", b"{}", 404),
        ("GET", "/v1/chat/completions", b"", 405),
        ("POST", "/v1/chat/completions", b"[]", 400),
        ("POST", "/v1/chat/completions", b"{", 400),
        ("GET", "/v1/models", b"", 200),
    ],
)
def test_what_is_no_call_gets_a_plain_refusal(
    fake_provider: FakeProvider, method: str, path: str, body: bytes, status: int
) -> None:
    client = httpx.Client(transport=fake_provider.transport(httpx), base_url="http://fake")
    assert client.request(method, path, content=body).status_code == status
    assert fake_provider.requests == []


def test_it_runs_as_a_program() -> None:
    command = [sys.executable, "-W", "error", "-m", "tierlight.testing.fake_provider"]
    with subprocess.Popen(
        [*command, "--port", "0", "--text", "Paid."], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        with httpx.Client(base_url=url) as client:
            for _ in range(2):  # kept alive
                answer = client.post("/v1/chat/completions", json={"model": "m", "messages": []}).json()
                assert answer["choices"][0]["message"]["content"] == "Paid."
        process.terminate()


# ---- captured calls ----------------------------------------------------------------------------------------


def test_captured_calls_are_readable(captured_calls: Captured, fake_provider: FakeProvider) -> None:
    fake_provider.answer = REPLY
    client = openai_client(fake_provider)

    @tierlight.route("support", tier="small")
    def ask() -> Any:
        return client.chat.completions.create(model="gpt-5-mini", messages=MESSAGES)

    ask()
    tierlight.score(1.0, "helpful", call=captured_calls[0].id)
    [call] = captured_calls
    assert (call.route, call.tier, call.operation, call.provider) == ("support", "small", "chat", "openai")
    assert (call.input_tokens, call.output_tokens, call.cached_input_tokens) == (120, 34, 20)
    assert (call.outcome, call.error_type, call.is_error) == ("ok", None, False)
    assert captured_calls.on("support") == [call]
    [score] = captured_calls.scores
    assert (score.name, score.value, score.call_id) == ("helpful", 1.0, call.id)


def test_a_frozen_clock_and_counted_ids_make_runs_equal() -> None:
    def run() -> list[Any]:
        clock = FrozenClock()
        capture = capture_calls(clock=clock, ids=SequentialIds())
        with capture as calls, tierlight.route("support", tier="small"):
            clock.advance(1.5)
        return [(c.id, c.trace_id, c.span_id, c.duration_ms, dict(c.attributes)) for c in calls]

    assert run() == run()
    assert run()[0][3] == 1500.0


def test_capture_ends_with_its_block() -> None:
    make: Callable[[], Any] = tierlight.route("support", tier="small")(lambda: None)
    with capture_calls() as outer:
        with capture_calls() as inner:
            make()
        make()
    make()
    assert (len(outer), len(inner)) == (1, 1)


def test_texts_are_captured_only_when_asked_for(fake_provider: FakeProvider) -> None:
    client = openai_client(fake_provider)
    ask = tierlight.route("support", tier="small")(
        lambda: client.chat.completions.create(model="m", messages=MESSAGES)
    )
    with capture_calls() as calls:
        ask()
    assert not s.CONTENT_ATTRIBUTES & set(calls[0].attributes)
