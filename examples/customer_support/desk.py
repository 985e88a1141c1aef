"""A support desk: what it asks for each ticket, on whichever models the policy names."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import tierlight
from tierlight.pricing import Cost, PriceBook, Usage
from tierlight.routing import Router
from tierlight.testing import Captured, CapturedCall, FakeReply, FakeRequest

# What each step sends and gets: input and output tokens of a typical ticket.
TOKENS = {
    "intent": (1_600, 50),
    "urgency": (1_600, 50),
    "retrieve": (5_000, 0),
    "rank": (0, 0),
    "can_answer": (1_000, 50),
    "reply": (5_000, 600),
    "handoff": (4_000, 2_000),
    "check": (1_000, 50),
}
REASONING_TOKENS = 830  # that a reasoning model thinks at each step before it answers

ARTICLES = ("How to return a parcel", "Where is my order", "Change the address", "Warranty terms")


@dataclass(frozen=True)
class Ticket:
    """One customer's question. `needs_person` is what the customer knows and the desk has to find out."""

    number: int
    text: str
    needs_person: bool


def tickets(count: int) -> list[Ticket]:
    """Tickets of which three in ten need a person and one in a hundred is hard to label."""
    made = []
    for number in range(count):
        needs_person = number % 10 in (3, 6, 9)
        subject = "my lawyer will write to you about the parcel" if needs_person else "where is my parcel"
        shout = " (urgency unclear)" if number % 100 == 50 else ""
        made.append(Ticket(number, f"Ticket {number}: {subject}{shout}", needs_person))
    return made


class SupportDesk:
    """Answers tickets in seven steps, or hands them over to a person."""

    def __init__(self, router: Router) -> None:
        self._router = router

    def handle(self, ticket: Ticket) -> bool:
        """Whether the ticket was answered; else a person takes over, with a summary."""
        ask = self._router.chat
        ask("support.intent", _messages("intent", ticket), max_tokens=60)
        ask("support.urgency", _messages("urgency", ticket), max_tokens=60)
        self._router.embed("support.retrieve", [ticket.text])
        self._router.rerank("support.rank", ticket.text, ARTICLES)
        can_answer = ask("support.can_answer", _messages("can_answer", ticket), max_tokens=60)
        if can_answer.text == "no":
            ask("support.handoff", _messages("handoff", ticket))
            return False
        reply = ask("support.reply", _messages("reply", ticket))
        verdict = ask("support.check", _messages("check", ticket), max_tokens=60)
        quality = float(verdict.text) / 10
        tierlight.score(quality, "judge", call=reply.call_id, kind="judge", judge_model=verdict.model)
        return quality >= 0.5


def _messages(step: str, ticket: Ticket) -> list[dict[str, str]]:
    return [{"role": "system", "content": f"step={step}"}, {"role": "user", "content": ticket.text}]


def look_alike(request: FakeRequest) -> FakeReply:
    """What a model would say at a step, with the step's tokens."""
    if request.operation != "chat":
        tokens_in, _ = TOKENS["retrieve" if request.operation == "embeddings" else "rank"]
        return FakeReply(input_tokens=tokens_in, output_tokens=0)
    step = request.prompt.partition("step=")[2].partition("\n")[0]
    tokens_in, tokens_out = TOKENS[step]
    text = {
        "intent": "parcel",
        "urgency": "it depends" if "unclear" in request.prompt and "nano" in request.model else "normal",
        "can_answer": "no" if "lawyer" in request.prompt else "yes",
        "reply": "Your parcel is on its way.",
        "handoff": json.dumps({"summary": "asks for a person"}),
        "check": "9",
    }[step]
    thought = REASONING_TOKENS if request.model.endswith("-pro") else 0
    return FakeReply(
        text=text, input_tokens=tokens_in, output_tokens=tokens_out + thought, reasoning_tokens=thought
    )


def cost_nusd(calls: Captured | Sequence[CapturedCall], book: PriceBook, at_ns: int) -> int:
    """What captured calls cost in billionths of a USD.

    Raises:
        ValueError: a call has no price, so the sum would be too small.
    """
    total = 0
    for call in calls:
        if call.attributes["tierlight.span.role"] != "call":
            continue
        usage = Usage(call.input_tokens, call.output_tokens, duration_ns=round(call.duration_ms * 1e6))
        cost = book.price(usage, call.provider or "", call.model or "", at_ns)
        if not isinstance(cost, Cost):
            raise ValueError(f"no price for {call.provider}/{call.model}: {cost.reason}")
        total += cost.nusd
    return total
