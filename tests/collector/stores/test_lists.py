"""Lists, single calls, traces, texts and evidence."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from collector.stores import build
from collector.stores.build import EPOCH_NS, SECOND_NS
from collector.stores.oracle import Oracle
from tierlight_collector.records import CallRow, Cursor, Filters, RouteHints, TimeRange
from tierlight_collector.stores import Store
from tierlight_collector.stores.protocol import Order

ALWAYS = TimeRange(0, 2**62)


def pages(store: Store, where: Filters, order: Order, descending: bool, limit: int = 3) -> list[CallRow]:
    rows: list[CallRow] = []
    after: Cursor | None = None
    while True:
        page = store.calls(where, after=after, limit=limit, order=order, descending=descending)
        rows += page.rows
        after = page.next
        if after is None:
            return rows


@pytest.mark.parametrize("descending", [True, False])
@pytest.mark.parametrize("order", ["time", "cost", "latency"])
def test_pages_hold_every_call_once_with_the_unknown_last(
    store: Store, order: Order, descending: bool
) -> None:
    store.append(
        build.batch(
            *(
                build.call(
                    number,
                    number,
                    start_ns=EPOCH_NS + number % 3 * SECOND_NS,
                    route=f"route-{number % 4}",
                    cost_nusd=None if number % 4 == 0 else number % 3,
                    duration_ns=None if number % 5 == 0 else number % 2,
                )
                for number in range(1, 14)
            )
        )
    )
    rows = pages(store, Filters(), order, descending)
    assert len({row.seq for row in rows}) == len(rows) == 13
    values = [
        {"time": row.call.start_ns, "cost": row.call.cost_nusd, "latency": row.call.duration_ns}[order]
        for row in rows
    ]
    known = [value for value in values if value is not None]
    assert known == sorted(known, reverse=descending)
    assert values == known + [None] * (len(values) - len(known))


def test_rows_that_arrive_between_pages_do_not_shift_them(store: Store) -> None:
    first = [build.call(n, n, start_ns=EPOCH_NS + n, route="a") for n in range(1, 6)]
    store.append(build.batch(*first, build.call(90, 90, route="b")))
    page = store.calls(Filters(route=("a",)), limit=2)
    store.append(build.batch(build.call(50, 50, start_ns=EPOCH_NS + 50, route="a")))
    rest = store.calls(Filters(route=("a",)), limit=9, after=page.next)
    seen = [row.call.span_id for row in (*page.rows, *rest.rows)]
    assert seen == [build.span_id(n) for n in (5, 4, 3, 2, 1)]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (Filters(route=("draft",)), {1, 2}),
        (Filters(error=True), {2}),
        (Filters(error=False, route=("draft",)), {1}),
        (Filters(unpriced=True), {2, 3}),
        (Filters(attempt_reason=("fallback",)), {3}),
        (Filters(prompt_version=("7",)), {1}),
        (Filters(purpose=("judge",)), {4}),
        (Filters(text="resp-1"), {1}),
        (Filters(text="session-3"), {3}),
        (Filters(text="someone"), {3}),
        (Filters(text=build.trace_id(2).hex()), {2}),
        (Filters(text=build.span_id(3).hex()), {3}),
        (Filters(text="nothing like it"), set()),
        (Filters(start_ns=EPOCH_NS + 2, end_ns=EPOCH_NS + 3), {2}),
        (Filters(project="other"), set()),
    ],
)
def test_filters_choose_calls(store: Store, where: Filters, expected: set[int]) -> None:
    store.append(
        build.batch(
            build.call(
                1,
                1,
                start_ns=EPOCH_NS + 1,
                route="draft",
                cost_nusd=0,
                response_id="resp-1",
                prompt_version="7",
            ),
            build.call(
                2, 2, start_ns=EPOCH_NS + 2, route="draft", error_type="timeout", error_class="timeout"
            ),
            build.call(
                3,
                3,
                start_ns=EPOCH_NS + 3,
                attempt_reason="fallback",
                session_id="session-3",
                user_id="someone",
            ),
            build.call(4, 4, start_ns=EPOCH_NS + 4, purpose="judge", cost_nusd=1),
        )
    )
    assert {int.from_bytes(row.call.span_id) for row in store.calls(where).rows} == expected


def test_a_call_comes_back_as_it_was_given(store: Store) -> None:
    made = build.call(
        1,
        1,
        route="draft",
        ttft_ns=7,
        input_tokens=2**53 + 1,
        output_tokens=0,
        cached_input_tokens=3,
        cache_write_input_tokens=2,
        cache_write_1h_input_tokens=1,
        reasoning_tokens=0,
        usage_source="provider",
        cache_rule="inclusive",
        is_streaming=True,
        error_type="RateLimitError",
        error_class="rate_limit",
        http_status=429,
        finish_reason="stop",
        outcome="error",
        response_id="r",
        call_id="c",
        attempt_index=2,
        attempt_reason="retry",
        attempt_final=False,
        purpose="test",
        experiment="e",
        arm="b",
        act_prob=0.5,
        keep_prob=0.25,
        strategy="cascade",
        policy_version="p",
        session_id="s",
        user_id="u",
        prompt_name="pn",
        prompt_version="pv",
        segment="vip",
        service_tier="batch",
        env="prod",
        dialect="tierlight",
        cost_nusd=1,
        cost_input_nusd=1,
        cost_cached_nusd=0,
        cost_cache_write_nusd=None,
        cost_output_nusd=2**40,
        cost_source="price_book",
        price_version="v1",
        unpriced_reason="",
        wire_cost_nusd=9,
        wire_cost_source="wire:x",
        flags=("clock_suspect", "usage_inconsistent"),
    )
    store.append(build.batch(made))
    row = store.call(build.trace_id(1), build.span_id(1))
    assert row is not None
    assert row.call == made.call
    assert store.call(build.trace_id(1), build.span_id(9)) is None


HOSTILE = ['it\'s "quoted"; DROP TABLE calls;--', "a\u202eb", "🦊" * 40, "x" * 65_536, "__proto__", "%_"]


@pytest.mark.parametrize("name", HOSTILE)
def test_any_name_is_stored_and_found_again(store: Store, name: str) -> None:
    store.append(build.batch(build.call(1, 1, provider=name, user_id=name)))
    assert store.calls(Filters(provider=(name,))).rows[0].call.provider == name
    assert store.calls(Filters(text=name)).rows[0].call.user_id == name
    assert store.rollups(ALWAYS, ("provider",))[0].key == (name,)


def test_a_nul_in_a_name_becomes_a_replacement_character(store: Store) -> None:
    store.append(build.batch(build.call(1, 1, provider="a\0b"), build.call(2, 2, provider="a\ufffdb")))
    assert store.rollups(ALWAYS, ("provider",))[0].key == ("a\ufffdb",)


def test_absurd_token_counts_do_not_break_the_sums(store: Store) -> None:
    most = 2**63 - 1
    store.append(
        build.batch(*(build.call(n, n, input_tokens=most, output_tokens=1, cost_nusd=n) for n in (1, 2, 3)))
    )
    found = store.rollups(ALWAYS)[0]
    assert (found.input_tokens, found.output_tokens, found.cost_nusd) == (3 * most, 3, 6)


def test_a_value_that_fits_no_column_fails_its_own_request_alone(store: Store) -> None:
    futures = [
        store.submit(build.batch(build.call(n, n, input_tokens=2**70 if n == 2 else n))) for n in (1, 2, 3)
    ]
    assert futures[0].result().accepted == 1
    with pytest.raises(Exception, match="can not be stored"):
        futures[1].result()
    assert futures[2].result().accepted == 1
    assert {row.call.input_tokens for row in store.calls().rows} == {1, 3}


def test_times_at_the_ends_of_the_range_are_kept(reopen: Callable[[], Store], clock: build.Clock) -> None:
    early, late = 31_536_000 * SECOND_NS, 9_183_110_400 * SECOND_NS  # 1971 and 2261
    clock.now_ns = early
    store = reopen()
    store.append(build.batch(build.call(1, 1, start_ns=late), build.call(2, 2, start_ns=early)))
    assert [row.call.start_ns for row in store.calls().rows] == [late, early]
    assert sum(found.calls for found in store.rollups(TimeRange(early, late + 1))) == 2


def test_a_trace_shows_every_span_as_received(store: Store) -> None:
    attributes = {"a": 1, "b": [True, "x", 1.5], "c": {"d": b"\x00\xff"}, "e": None}
    outer = build.span(1, 1, attributes=attributes)
    inner = build.call(1, 2, parent=1, start_ns=EPOCH_NS + 1)
    store.append(build.batch(inner))
    store.append(build.batch(outer))
    first, second = store.trace(build.trace_id(1))
    assert (first.span_id, first.resource, second) == (build.span_id(1), build.RESOURCE, inner.span)
    assert first.attributes == {**attributes, "b": (True, "x", 1.5)}
    assert store.trace(build.trace_id(1), limit=1) == [first]


def test_texts_belong_to_their_call(store: Store) -> None:
    store.append(
        build.batch(
            build.call(1, 1, contents=(("prompt", "hi"), ("completion", "ho"))),
            build.call(2, 2, contents=(("prompt", "other"),)),
            build.call(3, 3),
        )
    )
    found = store.contents(build.trace_id(1), build.span_id(1))
    assert [(each.kind, each.body) for each in found] == [("prompt", "hi"), ("completion", "ho")]
    assert store.contents(build.trace_id(3), build.span_id(3)) == []


def test_a_late_parent_gives_its_calls_their_route(store: Store, clock: build.Clock) -> None:
    store.append(build.batch(build.call(1, 2, parent=1)))
    clock.now_ns += 30 * 3600 * SECOND_NS
    store.roll_up()
    assert store.routes()[0].route == "unrouted/shop"
    store.append(build.batch(build.span(1, 1, hints=RouteHints(declared="checkout"))))
    assert [(info.route, info.calls) for info in store.routes()] == [("checkout", 1)]
    store.append(build.batch(build.call(1, 2, parent=1)))
    assert [(info.route, info.calls) for info in store.routes()] == [("checkout", 1)]


def test_one_request_seen_in_two_traces_is_one_call(store: Store) -> None:
    store.append(build.batch(build.call(1, 1, response_id="r", scope="langchain", session_id="s")))
    store.append(build.batch(build.call(2, 2, response_id="r", scope="com.anthropic.sdk.python")))
    rows = store.calls().rows
    assert [(row.call.scope, row.call.session_id) for row in rows] == [("com.anthropic.sdk.python", "s")]
    assert store.rollups(ALWAYS)[0].calls == 1


def test_no_method_gives_a_row_of_another_project(store: Store) -> None:
    store.append(build.batch(build.call(1, 1, response_id="r"), project="a"))
    store.append(build.batch(build.call(1, 1, response_id="r", contents=(("prompt", "x"),)), project="b"))
    assert store.rollups(ALWAYS) == []
    assert store.calls().rows == ()
    assert store.call(build.trace_id(1), build.span_id(1)) is None
    assert store.trace(build.trace_id(1)) == []
    assert store.contents(build.trace_id(1), build.span_id(1), project="a") == []
    assert store.contents(build.trace_id(1), build.span_id(1), project="b") != []
    assert [each.calls for each in store.rollups(ALWAYS, where=Filters(project="a"))] == [1]


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/Los_Angeles", "Asia/Kolkata"])
def test_days_are_those_of_the_zone(store: Store, clock: build.Clock, zone: str) -> None:
    oracle = Oracle()
    change = 1_792_886_400 * SECOND_NS  # 2026-10-25, the end of summer time in Europe
    made = build.batch(*(build.call(n, n, start_ns=change + (n - 40) * 1700 * SECOND_NS) for n in range(80)))
    clock.now_ns = change + 400 * 3600 * SECOND_NS
    store.append(made)
    oracle.append(made)
    for _ in range(2):
        assert [(day, found.calls) for day, found in store.series(ALWAYS, "day", zone)] == oracle.days(
            ALWAYS, zone
        )
        store.roll_up()


def test_evidence_comes_in_arrival_order_and_each_call_once(store: Store) -> None:
    store.append(build.batch(build.call(2, 2, start_ns=EPOCH_NS + 9)))
    store.append(build.batch(build.call(1, 1, start_ns=EPOCH_NS), build.span(3, 3)))
    store.append(build.batch(build.call(4, 4, purpose="judge")))
    first = store.call_evidence(0, 2)
    rest = store.call_evidence(first[-1].seq, 10)
    assert [each.span_id for each in (*first, *rest)] == [build.span_id(n) for n in (2, 1, 4)]
    assert store.call_evidence(rest[-1].seq, 10) == []


def test_routes_beyond_the_cap_share_one_name(store: Store) -> None:
    store.append(build.batch(*(build.call(n, n, route=f"route-{n}") for n in range(1, 504))))
    routes = {info.route: info.calls for info in store.routes()}
    assert len(routes) == 501
    assert routes["other"] == 3


def test_raw_spans_come_in_arrival_order_page_by_page(store: Store) -> None:
    store.append(build.batch(build.call(1, 1), build.span(2, 2), build.call(3, 3)))
    store.append(build.batch(build.call(4, 4)))
    assert [(seq, each.name) for seq, each in store.raw_spans(0, 2)] == [(1, "span 1"), (2, "span 2")]
    assert [seq for seq, _ in store.raw_spans(2, 10)] == [3, 4]
