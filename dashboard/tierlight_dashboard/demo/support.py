"""The demo's application: a customer-support desk that answers tickets with model calls of eight kinds.

Written as a user would write it: plain functions, each decorated with its route. One incident is in it: on the
fifth day the model behind `extract-order` is changed by its provider without a word, and its answers stop
matching the schema now and then, while they become shorter and cheaper.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import tierlight
from tierlight import semconv

from .provider import SECOND_NS, Answer, Model, Provider, RateLimitError, SimulatedClock

DAY_S = 86_400
DAYS = 7
# The week is a little longer than seven times 24 hours, so that what needs a whole week has one.
WEEK_S = DAYS * DAY_S + 3_600
INCIDENT_DAY = 4.55  # days after the start

INTENT = Model("openai", "gpt-5-nano", 310, 9, 0.42, right=0.965)
URGENCY = Model("openai", "gpt-5-nano", 280, 6, 0.40, right=0.95)
EMBED = Model("openai", "text-embedding-3-small", 46, 0, 0.08)
RERANK = Model("cohere", "rerank-v3.5", 0, 0, 0.14)
EXTRACT = Model("gcp.gemini", "gemini-3.8-flash", 900, 160, 1.1, right=0.975)
EXTRACT_CHANGED = EXTRACT.but(right=0.83, output_tokens=96.0)
REPLY = Model("anthropic", "claude-sonnet-5-5", 2_600, 310, 3.1, right=0.915, cached=0.55)
REPLY_SHADOW = Model("anthropic", "claude-haiku-5-5", 2_600, 330, 1.4, right=0.91, cached=0.55)
HANDOFF = Model("openai", "gpt-5-mini", 1_900, 420, 2.4, right=0.94)
JUDGE = Model("openai", "gpt-5.4-mini", 1_200, 24, 0.9)
DIGEST = Model("openai", "gpt-5.5", 14_000, 1_500, 14.0)

JUDGED_SHARE = 0.35  # of the replies: judged, and shadowed by the cheaper model


@dataclass(slots=True)
class Ticket:
    """One customer's question: how hard it is decides whether both models of a pair fail together."""

    is_hard: bool
    is_judged: bool
    call_id: str = ""


class SupportDesk:
    """The application; `rng` decides all that chance decides."""

    def __init__(self, provider: Provider, clock: SimulatedClock, rng: random.Random, start_ns: int) -> None:
        self._provider = provider
        self._clock = clock
        self._rng = rng
        self._changed_ns = start_ns + round(INCIDENT_DAY * DAY_S * SECOND_NS)

    def answer(self) -> None:
        """Answer one ticket: classify, look up, extract, then reply or hand over to a person."""
        ticket = Ticket(is_hard=self._rng.random() < 0.5, is_judged=self._rng.random() < JUDGED_SHARE)
        self._attempt(self.classify_intent)
        self._attempt(self.urgency)
        self._attempt(self.embed_question)
        self._attempt(self.rerank_articles)
        if self._rng.random() < 0.6:
            self._attempt(self.extract_order)
        if self._rng.random() < 0.3:
            self._attempt(self.summarise_for_agent)
            return
        self._attempt(lambda: self.reply(ticket))
        if ticket.is_judged and ticket.call_id:
            self._attempt(lambda: self.reply_shadow(ticket))
            self._attempt(self.judge)

    def end_day(self) -> None:
        """Sum the day up for the team."""
        self._attempt(self.daily_digest)

    @tierlight.route("support/classify-intent", tier="small", provider=INTENT.provider, model=INTENT.name)
    def classify_intent(self) -> Answer:
        return self._scored(INTENT, "label_ok")

    @tierlight.route("support/urgency", tier="small", provider=URGENCY.provider, model=URGENCY.name)
    def urgency(self) -> Answer:
        return self._scored(URGENCY, "label_ok", share=0.5)

    @tierlight.route("support/embed-question", tier="specialised", provider=EMBED.provider, model=EMBED.name)
    def embed_question(self) -> Answer:
        return self._provider.embed(EMBED)

    @tierlight.route("support/rerank", tier="specialised", provider=RERANK.provider, model=RERANK.name)
    def rerank_articles(self) -> Answer:
        return self._provider.rerank(RERANK)

    @tierlight.route("support/extract-order", tier="mid", provider=EXTRACT.provider, model=EXTRACT.name)
    def extract_order(self) -> Answer:
        changed = self._clock.now_ns >= self._changed_ns
        return self._scored(EXTRACT_CHANGED if changed else EXTRACT, "schema_ok")

    @tierlight.route("support/reply", tier="flagship", provider=REPLY.provider, model=REPLY.name)
    def reply(self, ticket: Ticket) -> Answer:
        answer, _ = self._provider.chat(REPLY)
        call = tierlight.current_call()
        ticket.call_id = call.id if call else ""
        if ticket.is_judged:
            tierlight.score(self._judged(ticket, REPLY.right), "judge_ok", kind="judge")
        return answer

    @tierlight.route(
        "support/reply",
        tier="small",
        purpose="shadow",
        provider=REPLY_SHADOW.provider,
        model=REPLY_SHADOW.name,
    )
    def reply_shadow(self, ticket: Ticket) -> Answer:
        """The same question to a cheaper model; the customer never sees this answer."""
        answer, _ = self._provider.chat(REPLY_SHADOW)
        call = tierlight.current_call()
        if call is not None:
            call.annotate({semconv.TIERLIGHT_CALL_ID: ticket.call_id})
            right = self._judged(ticket, REPLY_SHADOW.right)
            tierlight.score(right, "judge_ok", kind="judge", trace_id=call.trace_id, span_id=call.span_id)
        return answer

    @tierlight.route(
        "support/judge-reply", tier="small", purpose="judge", provider=JUDGE.provider, model=JUDGE.name
    )
    def judge(self) -> Answer:
        return self._provider.chat(JUDGE)[0]

    @tierlight.route("support/handoff-summary", tier="mid", provider=HANDOFF.provider, model=HANDOFF.name)
    def summarise_for_agent(self) -> Answer:
        return self._scored(HANDOFF, "agent_accepted", share=0.4)

    @tierlight.route("support/daily-digest", tier="flagship", provider=DIGEST.provider, model=DIGEST.name)
    def daily_digest(self) -> Answer:
        return self._provider.chat(DIGEST)[0]

    def _scored(self, model: Model, score: str, share: float = 1.0) -> Answer:
        """Ask the model; the application checks a share of the answers."""
        answer, right = self._provider.chat(model)
        if self._rng.random() < share:
            tierlight.score(right, score, kind="validator")
        return answer

    def _judged(self, ticket: Ticket, right: float) -> bool:
        """Whether the judge accepts: wrong answers come from the hard half of the questions."""
        return not ticket.is_hard or self._rng.random() < 2 * right - 1

    def _attempt(self, step: Callable[[], object]) -> None:
        """Run a step; one that hits a rate limit is tried once more a second later."""
        for _ in range(2):
            try:
                step()
            except RateLimitError:
                self._clock.advance(1.0)
            else:
                return


def arrivals(rng: random.Random, per_day: int, start_s: float) -> Iterator[float]:
    """Seconds after the start at which tickets arrive: busier by day and on weekdays, never twice the same gap.

    Args:
        start_s: Unix time of the start, so that night and weekend fall where they do in UTC.
    """
    at = 0.0
    while True:
        hour, day = (start_s + at) / 3_600 % 24, int((start_s + at) // DAY_S)
        daily = 1 + 0.75 * math.sin((hour - 9) / 24 * 2 * math.pi)
        weekend = 0.55 if day % 7 in (2, 3) else 1.0  # 1 January 1970 was a Thursday
        at += rng.expovariate(per_day / DAY_S * daily * weekend)
        if at >= WEEK_S:
            return
        yield at
