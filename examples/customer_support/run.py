"""What a support desk's tickets cost with a policy, beside everything on a flagship reasoning model.

    python examples/customer_support/run.py [--tickets 1000] [--send http://127.0.0.1:4318]

Nothing is sent to a provider: a local look-alike answers with fixed token counts, `prices.toml` prices them, and
every figure below is computed from the calls that were recorded. With --send the calls also go to a collector.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import httpx

import tierlight
from tierlight.pricing import PriceBook
from tierlight.routing import HttpProvider, Router, load_policy
from tierlight.routing.breaker import BreakerBoard
from tierlight.testing import FakeProvider, capture_calls

sys.path.insert(0, str(Path(__file__).parent))
from desk import SupportDesk, cost_nusd, look_alike, tickets

HERE = Path(__file__).parent
USD_PER_EUR = Decimal("1.10")  # as in prices.toml
DAYS_PER_YEAR = 365
# What the published walk-through of such a desk says, rounded as it rounds; shown beside, used for nothing.
PUBLISHED = {"answered": "~0.024", "escalated": "~0.008", "weighted": "~0.019", "flagship": "0.30"}


@dataclass(frozen=True)
class Costs:
    """Billionths of a EUR, one figure per ticket."""

    answered: tuple[int, ...]
    escalated: tuple[int, ...]

    @property
    def weighted(self) -> Decimal:
        """The mean of all tickets, in EUR."""
        return _mean((*self.answered, *self.escalated))


def _mean(costs: tuple[int, ...]) -> Decimal:
    return Decimal(sum(costs)) / len(costs) / 10**9 if costs else Decimal(0)


def desk_on(policy: str, book: PriceBook) -> SupportDesk:
    """A desk whose providers are all the local look-alike."""
    fake = FakeProvider(look_alike)
    client = httpx.Client(transport=fake.transport(httpx))
    providers = {
        name: HttpProvider(api_key="none", client=client) for name in ("openai", "anthropic", "cohere")
    }
    return SupportDesk(
        Router(load_policy(HERE / policy, prices=book), providers=providers, board=BreakerBoard())
    )


def play(policy: str, count: int) -> Costs:
    """Handle so many tickets by a policy and price what was recorded."""
    book, now_ns = PriceBook.from_toml((HERE / "prices.toml").read_bytes()), time.time_ns()
    desk = desk_on(policy, book)
    answered: list[int] = []
    escalated: list[int] = []
    for ticket in tickets(count):
        with capture_calls() as calls:
            is_answered = desk.handle(ticket)
        cost = int(cost_nusd(calls, book, now_ns) / USD_PER_EUR)
        (answered if is_answered else escalated).append(cost)
    return Costs(tuple(answered), tuple(escalated))


def send(policy: str, count: int, endpoint: str) -> bool:
    """Handle the tickets once more with the calls going to a collector; whether all arrived."""
    tierlight.configure(service_name="support-desk", endpoint=endpoint, prices=HERE / "prices.toml")
    desk = desk_on(policy, PriceBook.from_toml((HERE / "prices.toml").read_bytes()))
    for number, ticket in enumerate(tickets(count)):
        desk.handle(ticket)
        if number % 200 == 199:
            tierlight.flush()
    return tierlight.flush(10.0)


def report(routed: Costs, flagship: Costs) -> str:
    """The figures in lines of text."""
    count = len(routed.answered) + len(routed.escalated)
    weighted, baseline = routed.weighted, flagship.weighted
    saved = 1 - weighted / baseline
    daily = (baseline - weighted) * 1000
    usual = min(routed.answered) if routed.answered else 0
    lines = [
        f"{count:,} tickets: {len(routed.answered):,} answered, {len(routed.escalated):,} handed over to a person",
        "",
        f"{'EUR per ticket':22}{'measured':>12}{'published':>12}",
        f"{'answered':22}{_mean(routed.answered):>12.6f}{PUBLISHED['answered']:>12}",
        f"{'escalated':22}{_mean(routed.escalated):>12.6f}{PUBLISHED['escalated']:>12}",
        f"{'weighted':22}{weighted:>12.6f}{PUBLISHED['weighted']:>12}",
        f"{'all on the flagship':22}{baseline:>12.6f}{PUBLISHED['flagship']:>12}",
        "",
        f"saved: {saved:.1%}, at 1,000 tickets a day EUR {daily:,.2f} a day, {daily * DAYS_PER_YEAR:,.0f} a year",
        f"of the answered, {sum(cost > usual for cost in routed.answered)} cost more: their label went up the cascade",
    ]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tickets", type=int, default=1_000)
    parser.add_argument("--send", metavar="ENDPOINT", default="")
    given = parser.parse_args(arguments)
    print(report(play("policy.toml", given.tickets), play("all_flagship.toml", given.tickets)))
    if given.send and not send("policy.toml", given.tickets, given.send):
        print(f"not all calls reached {given.send}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
