"""A nightly batch of invoices through a cascade: the small model reads each, the big one only what fails the checks.

    python examples/batch_cascade.py [--invoices 500]

A local look-alike stands for both providers: its small model leaves the total out of every twelfth invoice. What is
printed is computed from the recorded calls and the list prices of the day.
"""

from __future__ import annotations

import argparse
import json
import time

import httpx

from tierlight.pricing import Cost, PriceBook, Usage
from tierlight.routing import HttpProvider, Policy, Router
from tierlight.testing import Captured, FakeProvider, FakeReply, FakeRequest, capture_calls

POLICY = """
schema = 1
[target.small]
provider = "openai"
model = "gpt-5.4-nano"
fallback = ["big"]
[target.big]
provider = "anthropic"
model = "claude-sonnet-5-5"
fallback = ["small"]

[route."invoices.read"]
strategy = "cascade"
steps = ["small", "big"]
latency = "batch"
validators = [
  { kind = "finish_reason" },
  { kind = "json_schema", schema = { type = "object", required = ["number", "total"], properties = { total = { type = "number" } } } },
]

[route."invoices.big"]
target = "big"
"""


def look_alike(request: FakeRequest) -> FakeReply:
    """What the models would read from an invoice."""
    number = int(request.prompt.rpartition("invoice ")[2].partition(":")[0])
    read = {"number": number, "total": number * 1.5}
    if "nano" in request.model and number % 12 == 0:
        del read["total"]
    return FakeReply(text=json.dumps(read), input_tokens=900, output_tokens=60)


def usd(calls: Captured, book: PriceBook) -> float:
    """What the recorded calls cost."""
    total = 0
    for call in calls:
        if call.attributes["tierlight.span.role"] == "call":
            cost = book.price(
                Usage(call.input_tokens, call.output_tokens),
                call.provider or "",
                call.model or "",
                time.time_ns(),
            )
            if not isinstance(cost, Cost):
                raise SystemExit(f"no price for {call.provider}/{call.model}")
            total += cost.nusd
    return total / 1e9


def main(arguments: list[str] | None = None) -> int:
    """Read the invoices by the cascade, and by the big model alone."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--invoices", type=int, default=500)
    count = parser.parse_args(arguments).invoices
    client = httpx.Client(transport=FakeProvider(look_alike).transport(httpx))
    providers = {name: HttpProvider(api_key="none", client=client) for name in ("openai", "anthropic")}
    router, book = Router(Policy.from_toml(POLICY), providers=providers), PriceBook.default()
    complete: dict[str, int] = {}
    spent: dict[str, float] = {}
    escalated = 0
    for route in ("invoices.read", "invoices.big"):
        with capture_calls() as calls:
            answers = [router.chat(route, f"Read invoice {number}: ...") for number in range(1, count + 1)]
        spent[route] = usd(calls, book)
        complete[route] = sum("total" in json.loads(answer.text) for answer in answers)
        escalated += sum(answer.escalations for answer in answers)
    print(f"{count} invoices, {escalated} went up ({escalated / count:.1%})")
    print(f"cascade    USD {spent['invoices.read']:.4f}  complete {complete['invoices.read']}")
    print(f"big alone  USD {spent['invoices.big']:.4f}  complete {complete['invoices.big']}")
    print(f"saved      {1 - spent['invoices.read'] / spent['invoices.big']:.1%}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
