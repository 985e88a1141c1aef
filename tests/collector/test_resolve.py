"""Which of several views of one call counts, what it takes from the others, and under which route."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tierlight_collector.normalise import SpanFacts, original, resolve
from tierlight_collector.records import CallRecord, Role, RouteHints

START = 1_764_000_000_000_000_000
MS = 1_000_000
NATIVE = "com.anthropic.sdk.python"


def ident(name: str) -> bytes:
    return name.encode().ljust(8, b".")


def fact(
    name: str,
    parent: str = "",
    *,
    trace: str = "t",
    role: Role = "call",
    scope: str = "lib.a",
    hints: RouteHints = RouteHints(),
    at_ms: int = 0,
    for_ms: int = 100,
    **fields: Any,
) -> SpanFacts:
    trace_id, span_id = trace.encode().ljust(16, b"."), ident(name)
    parent_id = ident(parent) if parent else b""
    call = None
    if role == "call":
        made: dict[str, Any] = {
            "provider": "anthropic",
            "request_model": "claude-sonnet-4-5",
            "response_model": "",
            "tier": "flagship",
            "input_tokens": 100,
            "output_tokens": 20,
            "usage_source": "provider",
            "service_name": "shop",
            "outcome": "error" if fields.get("error_type") else "ok",
        } | fields
        call = CallRecord(
            trace_id=trace_id,
            span_id=span_id,
            parent_span_id=parent_id,
            name=name,
            start_ns=START + at_ms * MS,
            arrived_ns=START,
            duration_ns=for_ms * MS,
            ttft_ns=None,
            operation="chat",
            route="",
            route_source="",
            scope=scope,
            **made,
        )
    return SpanFacts(trace_id, span_id, parent_id, role, scope, hints, call)


def counted(*facts: SpanFacts) -> set[str]:
    """The names of the calls that count."""
    names = {each.key: each.span_id.decode().rstrip(".") for each in facts}
    return {names[key] for key, verdict in resolve(facts).items() if verdict.superseded_by is None}


def route_of(name: str, *facts: SpanFacts) -> tuple[str, str]:
    found = next(v for key, v in resolve(facts).items() if key[1] == ident(name))
    return found.route, found.route_source


def test_a_lone_call_counts() -> None:
    assert counted(fact("a")) == {"a"}


def test_of_nested_views_the_innermost_counts() -> None:
    assert counted(
        fact("outer"), fact("inner", "outer", scope="lib.b"), fact("http", "inner", role="http")
    ) == {"inner"}


def test_other_spans_between_two_views_do_not_part_them() -> None:
    assert counted(
        fact("outer"), fact("mid", "outer", role="other"), fact("inner", "mid", scope="lib.b")
    ) == {"inner"}


def test_a_call_behind_a_tool_or_an_agent_is_another_call() -> None:
    for role in ("tool", "aggregate"):
        between = fact("mid", "outer", role=role)
        assert counted(fact("outer"), between, fact("inner", "mid", scope="lib.b")) == {"outer", "inner"}


def test_a_failed_call_inside_never_supersedes_a_successful_one() -> None:
    chat = fact("chat", response_id="msg_1")
    attempt = fact("attempt", "chat", request_model="gpt-4o", provider="openai", error_type="RateLimitError")
    native = fact("native", "chat", scope=NATIVE, response_id="msg_1")
    assert counted(chat, attempt, native) == {"attempt", "native"}


def test_a_call_of_another_model_inside_is_another_call() -> None:
    assert counted(fact("outer"), fact("inner", "outer", request_model="claude-haiku-4-5")) == {
        "outer",
        "inner",
    }


def test_a_call_drawn_around_several_gives_way_to_all() -> None:
    facts = [
        fact("outer", input_tokens=200, output_tokens=40),
        fact("one", "outer"),
        fact("two", "outer", at_ms=50),
    ]
    assert counted(*facts) == {"one", "two"}


def test_a_span_that_only_seems_a_call_gives_way_to_any_call_below() -> None:
    weak = fact("weak", flags=("weak_role",))
    assert counted(weak) == {"weak"}
    tool = fact("tool", "weak", role="tool")
    assert counted(weak, tool, fact("real", "tool", request_model="gpt-4o")) == {"real"}


def test_equal_response_ids_are_one_call_across_traces() -> None:
    facts = [
        fact("a", response_id="msg_1"),
        fact("b", trace="u", scope=NATIVE, response_id="msg_1", for_ms=40),
        fact("c", trace="v", scope=NATIVE, response_id="msg_2"),
    ]
    assert counted(*facts) == {"b", "c"}


def test_an_id_that_a_server_gives_to_every_answer_joins_only_what_overlaps() -> None:
    outer = [fact(f"o{n}", trace=f"o{n}", response_id="same", at_ms=1000 * n) for n in range(3)]
    inner = [
        fact(f"i{n}", trace=f"i{n}", response_id="same", at_ms=1000 * n + 1, for_ms=90, scope=NATIVE)
        for n in range(3)
    ]
    assert counted(*outer, *inner) == {"i0", "i1", "i2"}


def test_the_same_id_at_another_sender_or_much_later_is_another_call() -> None:
    a = fact("a", response_id="msg_1")
    assert counted(a, fact("b", trace="u", scope="lib.b", response_id="msg_1", service_name="other")) == {
        "a",
        "b",
    }
    assert counted(a, fact("b", trace="u", scope="lib.b", response_id="msg_1", at_ms=601_000)) == {"a", "b"}


def test_without_ids_a_unique_fit_in_time_is_one_call() -> None:
    wrapper = fact("a", input_tokens=None, output_tokens=61)
    native = fact(
        "b",
        trace="u",
        scope=NATIVE,
        response_id="msg_1",
        at_ms=5,
        for_ms=80,
        input_tokens=1620,
        output_tokens=61,
    )
    assert counted(wrapper, native) == {"b"}


def test_parallel_calls_of_one_library_stay_apart() -> None:
    assert counted(fact("a"), fact("b", trace="u")) == {"a", "b"}


def test_an_ambiguous_fit_in_time_keeps_both_and_says_so() -> None:
    facts = [
        fact("a"),
        fact("b", trace="u", scope="lib.b", at_ms=10),
        fact("c", trace="v", scope="lib.b", at_ms=10),
    ]
    assert counted(*facts) == {"a", "b", "c"}
    assert resolve(facts)[facts[0].key].flags == ("dup_suspect",)


def test_a_stated_cost_outranks_the_native_span_and_the_native_span_the_rest() -> None:
    ours = fact("ours", dialect="tierlight")
    native = fact("native", "ours", scope=NATIVE)
    assert counted(ours, native) == {"native"}
    stated = fact("ours", dialect="tierlight", cost_source="caller", cost_nusd=5)
    assert counted(stated, native) == {"ours"}


def test_the_winner_takes_what_only_the_others_know() -> None:
    ours = fact(
        "ours",
        dialect="tierlight",
        tier="mid",
        call_id="c-1",
        attempt_reason="escalation",
        session_id="s-1",
        finish_reason="stop",
        experiment="e-1",
    )
    native = fact("native", "ours", scope=NATIVE, session_id="own")
    verdict = resolve([ours, native])[native.key]
    assert verdict.taken == {
        "tier": "mid",
        "call_id": "c-1",
        "attempt_reason": "escalation",
        "finish_reason": "stop",
        "experiment": "e-1",
    }


def test_usage_is_taken_only_where_the_winner_has_none_and_did_not_fail() -> None:
    silent: dict[str, Any] = {"input_tokens": None, "output_tokens": None, "usage_source": "absent"}
    inner = fact("inner", "outer", scope="lib.b", **silent)
    taken = resolve([fact("outer"), inner])[inner.key].taken
    assert (taken["input_tokens"], taken["output_tokens"], taken["usage_source"]) == (100, 20, "provider")
    failed = fact("inner", "outer", scope="lib.b", error_type="cut", **silent)
    assert "input_tokens" not in resolve([fact("outer", error_type="cut"), failed])[failed.key].taken


def test_taken_fields_can_be_put_back() -> None:
    ours = fact("ours", dialect="tierlight", tier="mid", call_id="c-1", finish_reason="stop")
    native = fact("native", "ours", scope=NATIVE)
    assert native.call is not None
    taken = resolve([ours, native])[native.key].taken
    merged = replace(native.call, **taken)
    restored = original(merged, taken)
    assert replace(restored, tier="") == replace(native.call, tier="")
    again = replace(native, call=restored)
    assert resolve([ours, again])[native.key].taken == taken


def test_the_strongest_word_on_a_route_wins() -> None:
    root = fact("root", role="other", hints=RouteHints(name="nightly"))
    agent = fact("agent", "root", role="aggregate", hints=RouteHints(agent="solver"))
    declared = fact("top", role="other", hints=RouteHints(declared="rag"))
    assert route_of("a", fact("a")) == ("unrouted/shop", "unrouted")
    assert route_of("a", fact("a", "root"), root) == ("nightly", "root")
    assert route_of("a", fact("a", "agent"), agent, root) == ("solver", "agent")
    assert route_of("a", fact("a", "agent"), replace(agent, parent_span_id=ident("top")), declared) == (
        "rag",
        "ancestor",
    )
    own = RouteHints(declared="own", dialect="key")
    assert route_of("a", fact("a", "root", hints=own), root) == ("own", "declared")


def test_the_route_of_a_superseded_view_goes_to_the_one_that_counts() -> None:
    wrapper = fact("a", response_id="m", hints=RouteHints(declared="refunds"))
    native = fact("b", trace="u", scope=NATIVE, response_id="m")
    assert route_of("b", wrapper, native) == ("refunds", "declared")


def test_parents_in_a_circle_end_the_search() -> None:
    assert counted(fact("a", "b"), fact("b", "a", role="other")) == {"a"}
    assert len(counted(fact("a", "b"), fact("b", "a", scope="lib.b"))) == 1


def test_a_long_chain_of_views_is_one_call() -> None:
    chain = [fact(f"{n}", f"{n - 1}" if n else "", scope=f"lib.{n % 3}") for n in range(1000)]
    assert counted(*chain) == {"999"}


def test_in_a_crowd_without_ids_nobody_is_taken_for_another() -> None:
    crowd = [fact(f"{n}", trace=f"t{n}", scope=f"lib.{n % 3}") for n in range(300)]
    assert len(counted(*crowd)) == 300


@st.composite
def some_facts(draw: st.DrawFn) -> list[SpanFacts]:
    names = "abcdefg"[: draw(st.integers(1, 7))]
    roles: list[Role] = ["call", "call", "call", "tool", "aggregate", "other", "http"]
    return [
        fact(
            name,
            draw(st.sampled_from(["", *names])),
            trace=draw(st.sampled_from("tu")),
            role=draw(st.sampled_from(roles)),
            scope=draw(st.sampled_from(["lib.a", "lib.b", NATIVE])),
            hints=RouteHints(
                declared=draw(st.sampled_from(["", "x", "y"])), agent=draw(st.sampled_from(["", "z"]))
            ),
            at_ms=draw(st.integers(0, 3)) * 40,
            for_ms=draw(st.integers(1, 3)) * 60,
            response_id=draw(st.sampled_from(["", "m1", "m2"])),
            error_type=draw(st.sampled_from(["", "", "RateLimitError"])),
            dialect=draw(st.sampled_from(["otel", "tierlight"])),
            usage_source=draw(st.sampled_from(["provider", "absent", "estimated"])),
            finish_reason=draw(st.sampled_from(["", "stop", "length"])),
            session_id=draw(st.sampled_from(["", "s"])),
            request_model=draw(
                st.sampled_from(["claude-sonnet-4-5", "claude-sonnet-4-5-20250929", "gpt-4o", ""])
            ),
        )
        for name in names
    ]


@settings(max_examples=400, deadline=None)
@given(some_facts(), st.randoms(use_true_random=False))
def test_the_order_of_facts_does_not_matter(facts: list[SpanFacts], shuffler: Any) -> None:
    shuffled = list(facts)
    shuffler.shuffle(shuffled)
    assert resolve(shuffled) == resolve(facts)


@settings(max_examples=400, deadline=None)
@given(some_facts())
def test_what_supersedes_counts_itself(facts: list[SpanFacts]) -> None:
    settled = resolve(facts)
    assert settled.keys() == {each.key for each in facts if each.call is not None}
    for verdict in settled.values():
        if verdict.superseded_by is not None:
            assert settled[verdict.superseded_by].superseded_by is None
            assert verdict.taken == {}
    if settled:
        assert any(verdict.superseded_by is None for verdict in settled.values())


@settings(max_examples=300, deadline=None)
@given(some_facts(), st.randoms(use_true_random=False))
def test_arriving_one_by_one_ends_where_arriving_together_does(facts: list[SpanFacts], shuffler: Any) -> None:
    """A store that settles after every span, on facts restored from its rows, ends with the same rows."""
    arriving = list(facts)
    shuffler.shuffle(arriving)
    rows: dict[Any, tuple[SpanFacts, frozenset[str]]] = {}
    for each in arriving:
        rows[each.key] = (each, frozenset())
        known = [
            row if row.call is None else replace(row, call=original(row.call, names))
            for row, names in rows.values()
        ]
        for key, verdict in resolve(known).items():
            row, names = rows[key]
            assert row.call is not None
            kept = original(row.call, names)
            rows[key] = (replace(row, call=replace(kept, **verdict.taken)), frozenset(verdict.taken))
    together = resolve(facts)
    for key, (row, names) in rows.items():
        if row.call is not None:
            assert names == together[key].taken.keys()
            assert all(getattr(row.call, name) == value for name, value in together[key].taken.items())
