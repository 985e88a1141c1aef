"""A believable month of a customer-support app, in a store: through the public record types, deterministic.

One route drifts (`extract_invoice_fields`, 8 days before the end), one can be moved down, one has no price, one
has hostile names and texts. Nothing here is real.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

from tierlight.pricing import PriceBook
from tierlight_collector.costing import Costing
from tierlight_collector.decisions import Alert, Experiment, Recommendation, WatchCommit
from tierlight_collector.records import (
    HOUR_NS,
    AttributeValue,
    Batch,
    CallRecord,
    ContentRecord,
    NormalisedSpan,
    Resource,
    RouteHints,
    ScoreRecord,
    SpanRecord,
)
from tierlight_collector.stores.protocol import Store

NOW_NS = 1_795_510_800_000_000_000  # 2026-11-24 09:00:00 UTC
DAY_NS = 24 * HOUR_NS
SECOND_NS = 1_000_000_000
CHANGE_NS = NOW_NS - 8 * DAY_NS - 5 * HOUR_NS  # 16 Nov 04:00
DRIFTING = "extract_invoice_fields"

SENTINEL = "window.__xss=1"
HOSTILE_ROUTE = f'<script>{SENTINEL}</script>"><svg onload={SENTINEL}> {{{{7*7}}}}'
HOSTILE_TEXTS = (
    f"</pre><script>{SENTINEL}</script>",
    f"<img src=x onerror={SENTINEL}>",
    f'"><svg onload={SENTINEL}>',
    f"javascript:{SENTINEL}",
    "{{7*7}} ${7*7} %s%n",
    "\u202egnirts desrever\u202c and a \x00 NUL",
    '<div hx-get="/evil" hx-trigger="load">bait</div>',
    '=HYPERLINK("http://example.invalid")',
    "<b style='position:fixed;inset:0'>over everything</b>",
)


@dataclass(frozen=True, slots=True)
class Traffic:
    """How one route behaves: models with their shares, tokens and times of a usual call."""

    route: str
    per_day: int
    models: tuple[tuple[str, str, str, float], ...]  # (provider, model, tier, share)
    tokens_in: int
    tokens_out: int
    ms: float
    ttft: float | None
    quality: float | None
    errors: float
    scored: float = 0.35
    fallback: float = 0.0
    cascade: float = 0.0


OPUS = ("anthropic", "claude-opus-4-7", "flagship")
SONNET = ("anthropic", "claude-sonnet-5-5", "mid")
HAIKU = ("anthropic", "claude-haiku-5-5", "small")
MINI = ("openai", "gpt-5-mini", "small")
NANO = ("openai", "gpt-5-nano", "small")
GPT = ("openai", "gpt-5", "flagship")
FLASH = ("gcp.gemini", "gemini-3-flash-preview", "mid")
EMBED = ("openai", "text-embedding-3-small", "specialised")
TUNED = ("openai", "acme-support-ft-7", "")

ROUTES = (
    Traffic("answer_customer", 90, ((*SONNET, 0.78), (*OPUS, 0.22)), 6200, 640, 2900, 620, 0.915, 0.006, 0.5, 0.012),
    Traffic("summarize_for_agent", 40, ((*MINI, 1.0),), 3400, 310, 1400, 380, 0.902, 0.004),
    Traffic("code_review.pull_request_with_a_long_name", 6, ((*GPT, 0.7), (*MINI, 0.3)), 18000, 2600, 11200, 1900, 0.80, 0.031, 0.3, 0.05),
    Traffic(DRIFTING, 30, ((*HAIKU, 0.93), (*SONNET, 0.07)), 2400, 210, 1600, 440, 0.908, 0.011, 0.8, 0.004, 0.19),
    Traffic("translate_reply", 22, ((*FLASH, 0.97), (*MINI, 0.03)), 900, 420, 1100, 350, 0.936, 0.004, 0.4, 0.03),
    Traffic("classify_intent", 70, ((*NANO, 1.0),), 700, 12, 410, 210, 0.962, 0.002),
    Traffic("classify_urgency", 60, ((*NANO, 1.0),), 650, 10, 390, 200, 0.948, 0.003),
    Traffic("embed_kb", 80, ((*EMBED, 1.0),), 480, 0, 60, None, None, 0.0004),
    Traffic("draft_outreach", 8, ((*TUNED, 1.0),), 1200, 380, 1900, 500, None, 0.0),
)  # fmt: skip


def spans(days: int = 30, volume: float = 1.0) -> Iterator[NormalisedSpan]:
    """The month's spans, oldest first within a route."""
    rng = random.Random(20261124)
    cost = Costing(PriceBook.default())
    for traffic in ROUTES:
        for back in range(days, -1, -1):
            start_of_day = (NOW_NS // DAY_NS - back) * DAY_NS
            weekday = (start_of_day // DAY_NS + 3) % 7
            expected = traffic.per_day * volume * (0.7 if weekday >= 5 else 1.0) * (0.85 + 0.3 * rng.random())
            for _ in range(round(expected)):
                hour = min(23.99, max(0.0, rng.gauss(13.5, 4.2)))
                at = start_of_day + int(hour * HOUR_NS)
                if at < NOW_NS - 20 * SECOND_NS:
                    yield from _call(traffic, at, rng, cost)


def _call(traffic: Traffic, at: int, rng: random.Random, cost: Costing) -> Iterator[NormalisedSpan]:
    drifted = traffic.route == DRIFTING and at >= CHANGE_NS
    trace = rng.randbytes(16)
    pick, models = rng.random(), traffic.models
    provider, model, tier = models[0][:3] if pick < models[0][3] else models[-1][:3]
    quality = traffic.quality
    if quality is not None and drifted:
        quality -= 0.075
    cascaded = rng.random() < traffic.cascade
    fell_back = rng.random() < traffic.fallback
    root = rng.randbytes(8) if cascaded or fell_back else b""
    begin = at
    if cascaded or fell_back:
        first = cost(
            _record(
                traffic,
                trace,
                rng.randbytes(8),
                root,
                at,
                HAIKU if cascaded else (provider, model, tier),
                rng,
                drifted,
            )
        )
        if fell_back:
            first = replace(
                first,
                error_type="RateLimitError",
                error_class="rate_limit",
                http_status=429,
                output_tokens=0,
                outcome="error",
            )
            first = cost(replace(first, cost_nusd=None))
        else:
            first = replace(first, outcome="rejected")
        first = replace(first, attempt_final=False, call_id=root.hex())
        yield _span(first)
        at += (first.duration_ns or 0) + 2_000_000
        provider, model, tier = SONNET if cascaded else GPT
    call = cost(_record(traffic, trace, rng.randbytes(8), root, at, (provider, model, tier), rng, drifted))
    if root:
        call = replace(
            call, attempt_index=1, attempt_reason="escalation" if cascaded else "fallback", call_id=root.hex()
        )
    elif rng.random() < traffic.errors * (2 if drifted else 1):
        call = replace(
            call,
            error_type="APITimeoutError",
            error_class="timeout",
            output_tokens=None,
            cost_nusd=None,
            unpriced_reason="no_usage",
        )
    scores: tuple[ScoreRecord, ...] = ()
    if quality is not None and not call.error_type and rng.random() < traffic.scored:
        value = 1.0 if rng.random() < quality else 0.0
        scores = (
            ScoreRecord("resolved" if traffic.route == "answer_customer" else "correct", value, "validator:rules", "validator",
                        at + (call.duration_ns or 0), trace_id=trace, span_id=call.span_id),
        )  # fmt: skip
    contents = _contents(call, rng) if rng.random() < 0.2 or at > NOW_NS - DAY_NS // 2 else ()
    yield replace(_span(call), scores=scores, contents=contents)
    if root:
        end = at + (call.duration_ns or 0)
        record = SpanRecord(trace, root, b"", traffic.route, 1, begin, end, 0, "", "tierlight", "1", {"tierlight.route": traffic.route, "tierlight.span.role": "route"}, (), Resource({}, "support-app"))  # fmt: skip
        yield NormalisedSpan(record, "route", RouteHints(declared=traffic.route), None)


def _record(
    traffic: Traffic,
    trace: bytes,
    span: bytes,
    parent: bytes,
    at: int,
    target: tuple[str, str, str],
    rng: random.Random,
    drifted: bool,
) -> CallRecord:
    provider, model, tier = target
    ms = (
        traffic.ms
        * math.exp(rng.gauss(0, 0.45))
        * (1.5 if drifted else 1.0)
        * (0.45 if tier == "small" and traffic.cascade else 1.0)
    )
    read = max(1, round(traffic.tokens_in * math.exp(rng.gauss(0, 0.3))))
    return CallRecord(
        trace_id=trace, span_id=span, parent_span_id=parent, name=traffic.route, start_ns=at, arrived_ns=at + int(ms * 1e6) + 900_000_000,
        duration_ns=int(ms * 1e6), ttft_ns=None if traffic.ttft is None else int(traffic.ttft * math.exp(rng.gauss(0, 0.3)) * 1e6),
        operation="embeddings" if tier == "specialised" else "chat", provider=provider, request_model=model, response_model=model,
        route=traffic.route, route_source="declared", tier=tier, input_tokens=read,
        output_tokens=round(traffic.tokens_out * math.exp(rng.gauss(0, 0.4))),
        cached_input_tokens=round(read * 0.4) if rng.random() < 0.3 and traffic.tokens_in > 2000 else 0,
        usage_source="provider", is_streaming=traffic.ttft is not None, finish_reason="stop",
        session_id=f"s-{rng.randrange(4000):04d}", user_id=f"u-{rng.randrange(900):03d}", env="prod",
        prompt_version="v14" if at >= NOW_NS - 15 * DAY_NS else "v13", service_name="support-app", scope="tierlight", dialect="tierlight",
    )  # fmt: skip


def _span(call: CallRecord) -> NormalisedSpan:
    attributes: dict[str, AttributeValue] = {
        "gen_ai.operation.name": call.operation,
        "gen_ai.provider.name": call.provider,
        "gen_ai.request.model": call.request_model,
        "gen_ai.usage.input_tokens": call.input_tokens,
        "gen_ai.usage.output_tokens": call.output_tokens,
        "tierlight.route": call.route,
        "tierlight.attempt.index": call.attempt_index,
        "tierlight.attempt.reason": call.attempt_reason,
    }
    if call.outcome == "rejected":
        attributes |= {"tierlight.validator.names": ["schema"], "tierlight.validator.verdicts": ["rejected"]}
    record = SpanRecord(
        call.trace_id, call.span_id, call.parent_span_id, call.name, 3, call.start_ns, call.start_ns + (call.duration_ns or 0),
        2 if call.error_type else 0, call.error_type, "tierlight", "1", {k: v for k, v in attributes.items() if v is not None}, (), Resource({}, "support-app"),
    )  # fmt: skip
    return NormalisedSpan(record, "call", RouteHints(declared=call.route), call)


QUESTIONS = (
    "Where is my order? It was due on Monday.",
    "Please change the delivery address to 12 Mill Lane.",
    "The invoice shows VAT twice, can you correct it?",
    "How do I cancel my plan before it renews?",
)


def _contents(call: CallRecord, rng: random.Random) -> tuple[ContentRecord, ...]:
    ids = (call.trace_id, call.span_id)
    question = rng.choice(QUESTIONS)
    prompt = [
        {
            "role": "system",
            "parts": [
                {
                    "type": "text",
                    "content": "You answer customers of a shop.\nBe brief; never promise a date.",
                }
            ],
        },
        {"role": "user", "parts": [{"type": "text", "content": f"{question}\n\nMy mail is [email]."}]},
    ]
    answer = [{"role": "assistant", "parts": [{"type": "text", "content": "Thank you for writing.\n\nI have looked into it."}, {"type": "tool_call", "name": "lookup_order", "arguments": {"id": 4711}}]}]  # fmt: skip
    return (
        ContentRecord(*ids, "prompt", json.dumps(prompt)),
        ContentRecord(*ids, "completion", json.dumps(answer)),
    )


def hostile() -> Iterator[NormalisedSpan]:
    """Calls whose every text tries to be markup, code or a formula."""
    for i, text in enumerate(HOSTILE_TEXTS):
        ids = (bytes([0xEE] * 15 + [i]), bytes([0xEE] * 7 + [i]), b"")
        at = NOW_NS - (i + 2) * 3600 * SECOND_NS
        call = CallRecord(
            *ids, text, at, at + SECOND_NS, 900_000_000, None, "chat", text, text, text, HOSTILE_ROUTE if i < 3 else text, "declared", "small",
            input_tokens=10, output_tokens=5, error_type=text, error_class="other", finish_reason="other", session_id=text, user_id=text, prompt_version=text,
            prompt_name=text, env=text, service_name=text, unpriced_reason="unknown_model", arm=text, strategy=text, response_id=text,
        )  # fmt: skip
        span = SpanRecord(*ids, text, 3, at, at + 900_000_000, 2, text, text, text, {text: text, "hx-on:click": SENTINEL, "__proto__": text, "a.b[0]": [text]}, (), Resource({"service.name": text}, text))  # fmt: skip
        body = json.dumps(
            [
                {
                    "role": text,
                    "parts": [
                        {"type": "text", "content": text},
                        {"type": "tool_call", "name": text, "arguments": {text: text}},
                    ],
                }
            ]
        )
        contents = (ContentRecord(*ids[:2], "prompt", body), ContentRecord(*ids[:2], "completion", text))
        score = ScoreRecord(
            text, 1.0, text, "human", at, trace_id=ids[0], span_id=ids[1], label=text, explanation=text
        )
        yield NormalisedSpan(span, "call", RouteHints(declared=call.route), call, contents, (score,))


def alert(**changes: object) -> Alert:
    """An open quality alert on the drifting route, with some of it changed."""
    plain = Alert(
        id=0, kind="quality", signal="quality:correct", scope="route", route=DRIFTING, model="", severity="ticket", state="open",
        opened_ns=CHANGE_NS + 9 * HOUR_NS, resolved_ns=None, change_ns=CHANGE_NS, change_from_ns=CHANGE_NS - 2 * HOUR_NS,
        change_to_ns=CHANGE_NS + 3 * HOUR_NS, before=0.908, after=0.831, effect_low=-0.118, effect_high=-0.037, unit="share",
        calls_since_change=180, log_evidence=10.9, log_threshold=9.2,
        sentence="Quality (correct) 83.1 %, was 90.8 % (change −7.7 pt, 95 % −11.8 to −3.7, n = 180)", test_key="q",
        attribution=({"cause": "model version", "text": "the model answering changed on 16 Nov", "share": 0.8},),
    )  # fmt: skip
    return replace(plain, **changes)  # type: ignore[arg-type]


def recommendation(**changes: object) -> Recommendation:
    """A ready move down of the busiest route, with some of it changed."""
    plain = Recommendation(
        id=0, route="answer_customer", action="downgrade", state="ready", current_model=OPUS[1], current_tier="flagship",
        candidate_model=SONNET[1], candidate_tier="mid",
        sentence="Move the opus share to sonnet. Saves at least $9.10 a month; quality −0.3 pt (95 % −1.4 to +0.8), the margin of −2 pt holds. Ship.",
        reason="paired evidence through every gate", rung="shadow", saving_low_nusd=9_100_000_000, saving_nusd=10_400_000_000,
        saving_high_nusd=12_000_000_000, quality_low=-0.014, quality_diff=-0.003, quality_high=0.008, margin=0.02, pairs=1100, pairs_needed=900,
        would_change="A quality difference below −2 pt in 40 more pairs would take it back.", created_ns=NOW_NS - 2 * DAY_NS, updated_ns=NOW_NS - HOUR_NS, card={"figures": {"pairs": 1100, "saving_low_nusd": 3_700_000.0, "quality_low": -0.014}},
    )  # fmt: skip
    return replace(plain, **changes)  # type: ignore[arg-type]


def decisions() -> WatchCommit:
    """What the watch would have concluded by now."""
    return WatchCommit(
        states={}, watermarks={},
        alerts=(
            alert(),
            alert(kind="latency", signal="latency", unit="ms", before=1610.0, after=2420.0, effect_low=590.0, effect_high=1010.0, severity="page",
                  sentence="Half of the calls take over 2.4 s, was 1.6 s (95 % 2.2 to 2.6, n = 236)", test_key="l"),
            alert(kind="errors", signal="errors", route="translate_reply", severity="info", state="resolved", resolved_ns=NOW_NS - 10 * DAY_NS, test_key="e",
                  opened_ns=NOW_NS - 12 * DAY_NS, change_ns=NOW_NS - 12 * DAY_NS, before=0.004, after=0.031, effect_low=0.01, effect_high=0.05,
                  sentence="Errors 3.1 %, was 0.4 % (95 % 1.4 to 5.4, n = 60)"),
        ),
        recommendations=(
            recommendation(),
            recommendation(route="code_review.pull_request_with_a_long_name", action="downgrade", state="collecting", current_model=GPT[1], candidate_model=MINI[1],
                           candidate_tier="small", sentence="gpt-5-mini would save $4 to $9 a month if its quality holds; 38 of about 400 pairs so far.", rung="shadow",
                           pairs=38, pairs_needed=400, days_needed=61.0, saving_low_nusd=None, saving_nusd=6_500_000_000, saving_high_nusd=None,
                           quality_low=-0.21, quality_diff=-0.04, quality_high=0.13),
            recommendation(route="embed_kb", action="no_quality_signal", state="proposed", candidate_model="", candidate_tier="", rung="none",
                           sentence="No score tells whether the results are good: add one to get recommendations.", saving_low_nusd=None, saving_nusd=None,
                           saving_high_nusd=None, quality_low=None, quality_diff=None, quality_high=None, pairs=0, pairs_needed=None, would_change="A quality score."),
        ),
        experiments=(
            Experiment("exp-review-mini", "code_review.pull_request_with_a_long_name", "shadow", GPT[1], MINI[1], 0.25, "running", NOW_NS - 6 * DAY_NS, None, "local", 2),
            Experiment("exp-answer-sonnet", "answer_customer", "shadow", OPUS[1], SONNET[1], 0.3, "stopped", NOW_NS - 20 * DAY_NS, NOW_NS - 2 * DAY_NS, "local", 1),
        ),
    )  # fmt: skip


def fill(
    store: Store,
    *,
    days: int = 30,
    volume: float = 1.0,
    with_hostile: bool = False,
    with_decisions: bool = True,
) -> None:
    """Put the month into the store."""
    batch: list[NormalisedSpan] = []
    everything = [*spans(days, volume), *(hostile() if with_hostile else ())]
    for span in everything:
        batch.append(span)
        if len(batch) == 1000:
            store.append(Batch(tuple(batch), arrived_ns=NOW_NS))
            batch = []
    store.append(Batch(tuple(batch), arrived_ns=NOW_NS))
    if with_decisions:
        store.commit_watch(decisions())
        store.set_setting("floor", "0.88", "seed")
        store.set_setting("owner:answer_customer", "Support team", "seed")
