"""What a recorded call costs the user's process: bare client, the stock OpenTelemetry pipeline, ours; and a decision.

    python tests/bench/sdk.py [--json] [--calls 2000] [--rounds 3]

CPU time of the whole process, the export thread included, of calls of the openai client whose HTTP request is
replaced by a ready answer; both pipelines send to one sink in a process of its own. Every figure of ours
and of the stock pipeline comes from the same run; compare the ratios, not the microseconds of two machines.
"Added" is with minus bare. The stock pipeline is what its documentation shows: a span of 20 attributes, a
BatchSpanProcessor, the OTLP/HTTP exporter.

Then what a routing decision takes without a model call, by strategy: the median of one `decide` on the clock,
in a process of its own. The learned router has 1,000 stored calls; null where an embedder's extra is missing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from typing import Any

VARIANTS = ("bare", "stock", "ours", "sampled_out")
SHAPES = ("plain", "stream", "long_stream", "async")
CHUNKS, LONG = 100, 500
PAUSE_EVERY, PAUSE_S = 50, 0.03  # a queue that overflows would make a pipeline look cheap

COMPLETION: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1_800_000_000,
    "model": "gpt-4o-mini-2024-07-18",
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": "All good.", "refusal": None},
        }
    ],
    "usage": {
        "prompt_tokens": 1500,
        "completion_tokens": 56,
        "total_tokens": 1556,
        "prompt_tokens_details": {"cached_tokens": 1024},
        "completion_tokens_details": {"reasoning_tokens": 8},
    },
}


# ---- the work (child process) ---------------------------------------------------------------------------


class Answers:
    """The openai client with its request replaced: what is left is what its own code costs."""

    def __init__(self) -> None:
        import openai
        from openai.types.chat import ChatCompletion, ChatCompletionChunk

        self.client = openai.OpenAI(api_key="x")
        self.async_client = openai.AsyncOpenAI(api_key="x")
        self.messages: Any = [{"role": "user", "content": "Where is my parcel?"}]
        number = 0

        def completion() -> ChatCompletion:
            nonlocal number
            number += 1
            answer = ChatCompletion.model_construct(**_built(ChatCompletion.model_validate(COMPLETION)))
            answer.id = f"chatcmpl-{number}"
            return answer

        def chunk(**fields: Any) -> ChatCompletionChunk:
            head = {key: COMPLETION[key] for key in ("id", "created", "model")}
            return ChatCompletionChunk.model_validate(head | {"object": "chat.completion.chunk"} | fields)

        word = {"index": 0, "delta": {"content": "word "}, "finish_reason": None}
        last = {"index": 0, "delta": {}, "finish_reason": "stop"}
        ends = [chunk(choices=[last]), chunk(choices=[], usage=COMPLETION["usage"])]
        self.chunks = [*(chunk(choices=[word]) for _ in range(CHUNKS - 2)), *ends]
        self.long_chunks = [*(chunk(choices=[word]) for _ in range(LONG - 2)), *ends]
        self.is_long = False
        ready = completion()

        def post(*args: Any, stream: bool = False, **options: Any) -> Any:
            if not stream:
                return ready
            return iter(self.long_chunks if self.is_long else self.chunks)

        async def post_async(*args: Any, **options: Any) -> Any:
            return ready

        self.client.chat.completions._post = post
        self.async_client.chat.completions._post = post_async

    def plain(self) -> Any:
        return self.client.chat.completions.create(
            model="gpt-4o-mini", messages=self.messages, temperature=0.2
        )

    def stream(self) -> Any:
        return self.client.chat.completions.create(model="gpt-4o-mini", messages=self.messages, stream=True)

    async def plain_async(self) -> Any:
        return await self.async_client.chat.completions.create(
            model="gpt-4o-mini", messages=self.messages, temperature=0.2
        )


def _built(model: Any) -> dict[str, Any]:
    return {name: getattr(model, name) for name in type(model).model_fields}


def stock_calls(answers: Answers, endpoint: str) -> tuple[Callable[[], Any], Callable[[], Any], Any, Any]:
    """A span of 20 attributes written by hand around each call, as a careful user would."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.trace import SpanKind

    provider = TracerProvider(resource=Resource.create({"service.name": "bench"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{endpoint}/v1/traces")))
    tracer = provider.get_tracer("bench")

    def at_start(is_streaming: bool) -> dict[str, Any]:
        return {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": "gpt-4o-mini",
            "gen_ai.request.temperature": 0.2,
            "gen_ai.request.stream": is_streaming,
            "server.address": "api.openai.com",
            "server.port": 443,
            "tierlight.schema": "1",
            "tierlight.span.role": "call",
            "tierlight.route": "support",
            "tierlight.tier": "small",
            "tierlight.purpose": "production",
        }

    def at_end(span: Any, answer: Any, finish: str | None) -> None:
        usage = answer.usage
        span.set_attributes(
            {
                "gen_ai.response.id": answer.id,
                "gen_ai.response.model": answer.model,
                "gen_ai.response.finish_reasons": (finish or "",),
                "gen_ai.usage.input_tokens": usage.prompt_tokens,
                "gen_ai.usage.output_tokens": usage.completion_tokens,
                "gen_ai.usage.cache_read.input_tokens": usage.prompt_tokens_details.cached_tokens,
                "gen_ai.usage.reasoning.output_tokens": usage.completion_tokens_details.reasoning_tokens,
                "tierlight.outcome": "ok",
            }
        )

    def plain() -> None:
        with tracer.start_as_current_span(
            "chat gpt-4o-mini", kind=SpanKind.CLIENT, attributes=at_start(False)
        ) as span:
            answer = answers.plain()
            at_end(span, answer, answer.choices[0].finish_reason)

    def stream() -> None:
        with tracer.start_as_current_span(
            "chat gpt-4o-mini", kind=SpanKind.CLIENT, attributes=at_start(True)
        ) as span:
            finish, began = None, time.perf_counter()
            for chunk in answers.stream():
                if began:
                    span.set_attribute("gen_ai.response.time_to_first_chunk", time.perf_counter() - began)
                    began = 0.0
                if chunk.choices and chunk.choices[0].finish_reason:
                    finish = chunk.choices[0].finish_reason
            at_end(span, chunk, finish)

    async def plain_async() -> None:
        with tracer.start_as_current_span(
            "chat gpt-4o-mini", kind=SpanKind.CLIENT, attributes=at_start(False)
        ) as span:
            answer = await answers.plain_async()
            at_end(span, answer, answer.choices[0].finish_reason)

    return plain, stream, plain_async, provider.force_flush


def our_calls(answers: Answers, endpoint: str) -> tuple[Callable[[], Any], Callable[[], Any], Any, Any]:
    """The decorator as the manual shows it, prices included."""
    import tierlight

    tierlight.configure(service_name="bench", endpoint=endpoint, spool=False)
    plain = tierlight.route("support", tier="small")(answers.plain)
    streamed = tierlight.route("support", tier="small")(answers.stream)
    plain_async = tierlight.route("support", tier="small")(answers.plain_async)

    def stream() -> None:
        for _ in streamed():
            pass

    return plain, stream, plain_async, lambda: tierlight.flush(30)


def bare_calls(answers: Answers) -> tuple[Callable[[], Any], Callable[[], Any], Any, Any]:
    def stream() -> None:
        for _ in answers.stream():
            pass

    return answers.plain, stream, answers.plain_async, lambda: True


def child(variant: str, endpoint: str, calls: int) -> None:
    """Measure one variant in all shapes and print one JSON line."""
    answers = Answers()
    if variant == "stock":
        plain, stream, plain_async, flush = stock_calls(answers, endpoint)
    elif variant == "bare":
        plain, stream, plain_async, flush = bare_calls(answers)
    else:
        plain, stream, plain_async, flush = our_calls(answers, endpoint)

    def repeat(work: Callable[[], Any], count: int) -> None:
        for done in range(count):
            work()
            if done % PAUSE_EVERY == PAUSE_EVERY - 1:
                time.sleep(PAUSE_S)

    async def repeat_async(count: int) -> None:
        for done in range(count):
            await plain_async()
            if done % PAUSE_EVERY == PAUSE_EVERY - 1:
                await asyncio.sleep(PAUSE_S)

    found: dict[str, float] = {}
    for shape in SHAPES:
        count = calls // 4 if "stream" in shape else calls
        answers.is_long = shape == "long_stream"

        def run(count: int, shape: str = shape) -> None:
            if shape == "async":
                asyncio.run(repeat_async(count))
            else:
                repeat(stream if "stream" in shape else plain, count)

        run(PAUSE_EVERY * 2)
        flush()
        time.sleep(0.1)
        whole, own = time.process_time(), time.thread_time()
        run(count)
        found[f"{shape}_thread"] = (time.thread_time() - own) / count * 1e6
        flush()
        found[shape] = (time.process_time() - whole) / count * 1e6
    for shape, work in (("plain", plain), ("stream", stream), ("long_stream", stream)):
        answers.is_long = shape == "long_stream"
        work()
        tracemalloc.start()
        work()
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        work()
        found[f"{shape}_peak"] = tracemalloc.get_traced_memory()[1] - before
        tracemalloc.stop()
    flush()
    print(json.dumps(found))


# ---- decisions (another child) ---------------------------------------------------------------------------

EMBEDDERS = {"hash1": 1000, "static1": 1000, "minilm1": 200}  # and how often each decides
ROUTES = """
schema = 1
[target.nano]
provider = "openai"
model = "gpt-5.4-nano"
tier = "small"
fallback = ["sonnet"]
[target.sonnet]
provider = "anthropic"
model = "claude-sonnet-5-5"
tier = "flagship"
fallback = ["nano"]
[route.task]
target = "nano"
[route.complexity]
strategy = "complexity"
[route.learned]
strategy = "learned"
candidates = ["nano", "sonnet"]
signal = "csat"
[route.examples]
strategy = "embedding"
candidates = ["nano", "sonnet"]
examples = [{ text = "where is my parcel", target = "nano" }, { text = "prove the lemma", target = "sonnet" }]
"""
WORDS = (
    "where", "is", "my", "parcel", "please", "prove", "lemma", "number",
    "sort", "return", "order", "late", "refund", "address", "plan", "compare",
)  # fmt: skip


def microseconds(act: Callable[[int], object], rounds: int) -> float:
    """The median time of one."""
    taken = []
    for n in range(-50, rounds):
        began = time.perf_counter_ns()
        act(n)
        taken.append(time.perf_counter_ns() - began)
    return statistics.median(taken[50:]) / 1000


def learned(name: str, texts: list[str]) -> Any:
    """A router that has learnt from 1,000 requests that both candidates answered."""
    from tierlight.routing.artefact import LearnedRouter
    from tierlight.routing.embed import embedder
    from tierlight.routing.learn import ScoredCall
    from tierlight.routing.training import train

    maker = embedder(name)
    calls = [
        ScoredCall(
            target, float(target == "sonnet" or n % 5 > 0), maker.embed(text), time_ns=n, call_id=str(n)
        )
        for n, text in enumerate(texts[:1000])
        for target in ("nano", "sonnet")
    ]
    router = train(
        "learned",
        calls,
        ["nano", "sonnet"],
        default="sonnet",
        signal="csat",
        now_ns=1000,
        embedder=name,
        dimensions=maker.dimensions,
    )
    return LearnedRouter.from_json(router.to_json(), maker)


def decisions() -> None:
    """Measure each strategy's decision and print one JSON line."""
    from tierlight.errors import ConfigurationError
    from tierlight.routing import CallableProvider, Policy, Router
    from tierlight.routing.breaker import BreakerBoard
    from tierlight.routing.decide import AlwaysUp, RouteRequest, decide
    from tierlight.routing.embed import embedder
    from tierlight.routing.examples import NearestExample
    from tierlight.testing import capture_calls

    rng = random.Random(0)
    texts = [" ".join(rng.choices(WORDS, k=12)) for _ in range(2000)]
    policy, view = Policy.from_toml(ROUTES), AlwaysUp()

    def deciding(route: str, choosers: Mapping[str, Any]) -> Callable[[int], object]:
        return lambda n: decide(policy, RouteRequest(route, texts[n % 2000]), view, rng, choosers)

    found: dict[str, float | None] = {
        f"decide_{route}_us": microseconds(deciding(route, {}), 5000) for route in ("task", "complexity")
    }
    for name, rounds in EMBEDDERS.items():
        keys = {route: f"decide_{route}_{name}_us" for route in ("examples", "learned")}
        try:
            given = policy.routes["examples"]
            nearest = NearestExample(embedder(name), given.examples, given.min_similarity, given.default)
            choosers = {"examples": nearest, "learned": learned(name, texts)}
        except ConfigurationError as error:
            print(f"{', '.join(keys.values())}: not measured, {error}", file=sys.stderr)
            found |= dict.fromkeys(keys.values())
            continue
        found |= {key: microseconds(deciding(route, choosers), rounds) for route, key in keys.items()}
    router = Router(
        policy,
        providers={"openai": CallableProvider(lambda target, request: COMPLETION)},
        board=BreakerBoard(),
    )
    found["routed_us"] = microseconds(lambda n: router.chat("task", texts[n % 2000]), 3000)
    with capture_calls():
        found["routed_recorded_us"] = microseconds(lambda n: router.chat("task", texts[n % 2000]), 3000)
    print(json.dumps(found))


# ---- the sink (one more child) ---------------------------------------------------------------------------


async def sink() -> None:
    """Answer 200 to everything and count what came: `GET /count` tells the spans."""
    bodies: list[tuple[bytes, bool]] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            length, is_packed = 0, False
            while (header := (await reader.readline()).lower()) not in (b"\r\n", b""):
                if header.startswith(b"content-length:"):
                    length = int(header.split(b":")[1])
                is_packed |= header.startswith(b"content-encoding: gzip")
            body = await reader.readexactly(length)
            content = b""
            if line.startswith(b"GET"):
                content = str(_count(bodies)).encode()
            else:
                bodies.append((body, is_packed))
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: %d\r\n\r\n"
                % len(content)
                + content
            )
            await writer.drain()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def _count(bodies: list[tuple[bytes, bool]]) -> int:
    import gzip

    from tierlight._encode import items_of

    spans = sum(len(list(items_of(gzip.decompress(body) if packed else body))) for body, packed in bodies)
    bodies.clear()
    return spans


# ---- the comparison -------------------------------------------------------------------------------------


@contextmanager
def running_sink() -> Any:
    with subprocess.Popen([sys.executable, __file__, "--sink"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.terminate()


def measure(variant: str, endpoint: str, calls: int) -> dict[str, float]:
    """One variant in a process of its own; fails when spans went missing on the way."""
    from urllib.request import urlopen

    environ = {
        name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "TIERLIGHT_"))
    }
    if variant == "sampled_out":
        environ["OTEL_TRACES_SAMPLER"] = "always_off"
    command = [sys.executable, __file__, "--child", variant, "--endpoint", endpoint, "--calls", str(calls)]
    with tempfile.TemporaryDirectory() as home:
        out = subprocess.run(
            command, check=True, stdout=subprocess.PIPE, text=True, env=environ | {"HOME": home}
        ).stdout
    with urlopen(f"{endpoint}/count") as answer:
        arrived = int(answer.read())
    expected = calls * 2 + calls // 4 * 2 + PAUSE_EVERY * 8 + 9 if variant in ("stock", "ours") else 0
    if arrived != expected:
        raise SystemExit(f"{variant}: {arrived} of {expected} spans arrived; the figures would not compare")
    return dict(json.loads(out))


def import_seconds() -> float:
    """What `import tierlight` takes, without the start of the interpreter."""

    def best(statement: str) -> float:
        taken = []
        for _ in range(5):
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", statement], check=True)
            taken.append(time.perf_counter() - began)
        return min(taken)

    return best("import tierlight") - best("pass")


def decided() -> dict[str, float | None]:
    """What decisions take, measured in a process of their own."""
    command = [sys.executable, __file__, "--decisions"]
    return dict(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout))


def compare(calls: int, rounds: int) -> dict[str, float | None]:
    """All variants, round by round, and the medians as one flat object."""
    with running_sink() as endpoint:
        seen = [{variant: measure(variant, endpoint, calls) for variant in VARIANTS} for _ in range(rounds)]

    def median(variant: str, key: str) -> float:
        return statistics.median(one[variant][key] for one in seen)

    def added(variant: str, key: str) -> float:
        return statistics.median(one[variant][key] - one["bare"][key] for one in seen)

    def ratio(key: str) -> float:
        return statistics.median(
            (one["ours"][key] - one["bare"][key]) / (one["stock"][key] - one["bare"][key]) for one in seen
        )

    return {
        "bare_us": median("bare", "plain"),
        "stock_us": added("stock", "plain"),
        "ours_us": added("ours", "plain"),
        "ours_thread_us": added("ours", "plain_thread"),
        "stock_thread_us": added("stock", "plain_thread"),
        "ratio_plain": ratio("plain"),
        "ratio_stream": ratio("stream"),
        "ratio_async": ratio("async"),
        "bare_stream_us": median("bare", "stream"),
        "stock_stream_us": added("stock", "stream"),
        "ours_stream_us": added("ours", "stream"),
        "stock_async_us": added("stock", "async"),
        "ours_async_us": added("ours", "async"),
        "ours_chunk_us": (added("ours", "long_stream_thread") - added("ours", "stream_thread"))
        / (LONG - CHUNKS),
        "sampled_out_us": added("sampled_out", "plain"),
        "ours_peak_bytes": added("ours", "plain_peak"),
        "ours_stream_peak_bytes": added("ours", "stream_peak"),
        "ours_long_stream_peak_bytes": added("ours", "long_stream_peak"),
        "import_s": import_seconds(),
        **decided(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("--sink", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--decisions", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--endpoint", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.sink:
        asyncio.run(sink())
    elif given.decisions:
        decisions()
    elif given.child:
        child(given.child, given.endpoint, given.calls)
    else:
        found = compare(given.calls, given.rounds)
        if given.json:
            plain = {name: None if value is None else round(value, 4) for name, value in found.items()}
            print(json.dumps(plain))
        else:
            for name, value in found.items():
                print(f"{name:28}{'not measured' if value is None else format(value, '12.3f')}")


if __name__ == "__main__":
    main()
