"""What a routing decision costs without a model call: microseconds, median and 99th percentile of one process.

    python tests/bench/decide.py [--json]

Measured are `decide` alone on each strategy, the learned router by its embedder with 1,000 stored calls, and a whole
routed call against a function that answers at once, recorded and not.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from tierlight.errors import ConfigurationError
from tierlight.routing import CallableProvider, Policy, Router
from tierlight.routing.artefact import LearnedRouter
from tierlight.routing.breaker import BreakerBoard
from tierlight.routing.decide import AlwaysUp, RouteRequest, decide
from tierlight.routing.embed import embedder
from tierlight.routing.learn import ScoredCall
from tierlight.routing.training import train
from tierlight.testing import capture_calls

POLICY = """
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
ANSWER = {
    "object": "chat.completion",
    "model": "gpt-5.4-nano",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 10, "completion_tokens": 1},
}


def timed(act: Callable[[int], object], rounds: int) -> dict[str, float]:
    """Median and 99th percentile of one call, in microseconds."""
    for n in range(min(50, rounds)):
        act(n)
    taken = []
    for n in range(rounds):
        start = time.perf_counter_ns()
        act(n)
        taken.append(time.perf_counter_ns() - start)
    taken.sort()
    return {"p50_us": taken[len(taken) // 2] / 1000, "p99_us": taken[len(taken) * 99 // 100] / 1000}


def learned(name: str, texts: list[str]) -> LearnedRouter:
    """A router that has learnt from 1,000 requests that both candidates answered."""
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


def figures() -> dict[str, dict[str, float]]:
    """Every figure by its name."""
    rng = random.Random(0)
    words = [
        "where",
        "is",
        "my",
        "parcel",
        "please",
        "prove",
        "lemma",
        "number",
        "sort",
        "return",
        "order",
        "late",
        "refund",
        "address",
        "plan",
        "compare",
    ]
    texts = [" ".join(rng.choices(words, k=12)) for _ in range(2000)]
    policy, view = Policy.from_toml(POLICY), AlwaysUp()
    found: dict[str, dict[str, float]] = {}

    def deciding(route: str, choosers: Mapping[str, Any]) -> Callable[[int], object]:
        return lambda n: decide(policy, RouteRequest(route, texts[n % 2000]), view, rng, choosers)

    for route in ("task", "complexity"):
        found[f"decide {route}"] = timed(deciding(route, {}), 5000)
    for name in ("hash1", "static1", "minilm1"):
        try:
            chooser = learned(name, texts)
        except ConfigurationError as error:
            print(f"skipped {name}: {error}", file=sys.stderr)
            continue
        rounds = 200 if name == "minilm1" else 1000
        found[f"decide learned {name}, 1,000 calls"] = timed(
            deciding("learned", {"learned": chooser}), rounds
        )
    router = Router(
        policy, providers={"openai": CallableProvider(lambda target, request: ANSWER)}, board=BreakerBoard()
    )
    found["routed call, not recorded"] = timed(lambda n: router.chat("task", texts[n % 2000]), 3000)
    with capture_calls():
        found["routed call, recorded"] = timed(lambda n: router.chat("task", texts[n % 2000]), 3000)
    return found


def main(arguments: list[str] | None = None) -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    found = figures()
    if given.json:
        print(json.dumps(found, indent=1))
    else:
        for name, one in found.items():
            print(f"{name:40} p50 {one['p50_us']:8.1f} us   p99 {one['p99_us']:8.1f} us")
    return 0


if __name__ == "__main__":
    sys.exit(main())
