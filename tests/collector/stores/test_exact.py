"""Whatever comes, in whatever order, split and repeated: the store says what counting from scratch says."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from collector.stores import build
from collector.stores.build import DAY_NS, EPOCH_NS, SECOND_NS, Clock
from collector.stores.oracle import Oracle
from tierlight_collector.records import (
    HOUR_NS,
    Batch,
    Filters,
    NormalisedSpan,
    Role,
    Rollup,
    RouteHints,
    ScoreRecord,
    TimeRange,
)
from tierlight_collector.rollup import EMPTY, add
from tierlight_collector.stores import Store, open_store

ALWAYS = TimeRange(0, 2**62)
HOURS = (0, 1, 26, 49)
unknown_or = st.one_of(st.none(), st.integers(0, 5_000))


@st.composite
def spans(draw: st.DrawFn, number: int) -> NormalisedSpan:
    trace = draw(st.integers(1, 4))
    hour = draw(st.sampled_from(HOURS))
    start_ns = EPOCH_NS + hour * HOUR_NS + number * 50 * SECOND_NS
    # Calls with one id lie within the time in which they are compared; a real id does not come back next day.
    response = draw(st.sampled_from(("", "r1", "r2", "r3")))
    parent = draw(st.one_of(st.just(0), st.integers(1, number)))
    if draw(st.integers(0, 3)) == 0:
        hints = RouteHints(
            declared=draw(st.sampled_from(("", "late-route"))), agent=draw(st.sampled_from(("", "helper")))
        )
        roles: tuple[Role, ...] = ("route", "aggregate", "tool", "http")
        role = draw(st.sampled_from(roles))
        return build.span(trace, number, role=role, parent=parent, start_ns=start_ns, hints=hints)
    return build.call(
        trace,
        number,
        parent=parent,
        start_ns=start_ns,
        duration_ns=draw(st.sampled_from((None, 0, 1, 40_000_000, 2 * SECOND_NS))),
        route=draw(st.sampled_from(("", "classify", "draft"))),
        scope=draw(st.sampled_from(("scope.a", "scope.b"))),
        response_id=f"{response}-{hour}" if response else "",
        response_model=draw(st.sampled_from(("", "gpt-5-mini", "claude-sonnet-4-5"))),
        ttft_ns=draw(st.sampled_from((None, 300_000_000))),
        input_tokens=draw(unknown_or),
        output_tokens=draw(unknown_or),
        usage_source=draw(st.sampled_from(("provider", "absent"))),
        cost_nusd=draw(st.one_of(st.none(), st.integers(0, 2**40))),
        error_type=draw(st.sampled_from(("", "", "timeout"))),
        finish_reason=draw(st.sampled_from(("", "stop"))),
        attempt_reason=draw(st.sampled_from(("first", "retry", "fallback"))),
        purpose=draw(st.sampled_from(("production", "production", "judge"))),
        attributes={"tierlight.join.ticket": draw(st.sampled_from(("T1", "T2")))},
    )


@st.composite
def scores(draw: st.DrawFn, number: int) -> ScoreRecord:
    value = draw(st.one_of(st.none(), st.sampled_from((0.0, 0.25, 1.0))))
    time_ns = EPOCH_NS + number
    name = draw(st.sampled_from(("quality", "helpful")))
    if draw(st.integers(0, 4)) == 0:
        return build.score(
            f"join {name}", value, join_value=draw(st.sampled_from(("T1", "T2"))), time_ns=time_ns
        )
    target = {"trace": draw(st.integers(1, 4)), "number": draw(st.integers(1, 10))}
    return build.score(name, value, time_ns=time_ns, **target)


def project_of(item: NormalisedSpan | ScoreRecord) -> str:
    trace = item.span.trace_id if isinstance(item, NormalisedSpan) else item.trace_id
    return "other" if trace == build.trace_id(4) else "default"


@st.composite
def streams(draw: st.DrawFn) -> list[Batch | int]:
    """Requests, and whole hours that pass between them with the rollup job running at their end."""
    count = draw(st.integers(1, 10))
    items: list[NormalisedSpan | ScoreRecord] = [draw(spans(number)) for number in range(1, count + 1)]
    items += [draw(scores(number)) for number in range(draw(st.integers(0, 6)))]
    items = draw(st.permutations(items))
    steps: list[Batch | int] = []
    while items:
        size = draw(st.integers(1, 6))
        part, items = items[:size], items[size:]
        part += draw(st.lists(st.sampled_from(part), max_size=2))
        for project in ("default", "other"):
            chosen = [item for item in part if project_of(item) == project]
            if chosen:
                steps.append(build.batch(*chosen, project=project))
        if draw(st.booleans()):
            steps.append(draw(st.sampled_from((1, 30, 80))))
    repeated = [step for step in steps if isinstance(step, Batch)]
    return steps + draw(st.permutations(repeated))[:2]


@contextmanager
def fresh_store(clock: Clock) -> Iterator[Store]:
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(f"sqlite:///{Path(folder) / 'store.db'}", now_ns=clock)
        try:
            yield store
        finally:
            store.close()


def check(store: Store, oracle: Oracle) -> None:
    cut = TimeRange(EPOCH_NS + 90 * 60 * SECOND_NS, EPOCH_NS + 49 * HOUR_NS + 4 * 60 * SECOND_NS)
    for project in ("default", "other"):
        everything = Filters(project=project, purpose=())
        for when in (ALWAYS, cut):
            assert store.rollups(when, ("route", "model"), everything) == oracle.rollups(
                when, ("route", "model"), everything
            )
        production = Filters(project=project)
        assert store.rollups(ALWAYS, (), production) == oracle.rollups(ALWAYS, (), production)
        assert store.costs(cut, "day", "Asia/Kolkata", ("route",), production) == [
            (day, found.key, found.cost_nusd)
            for day, found in store.series(cut, "day", "Asia/Kolkata", ("route",), production)
        ]
        listed = store.calls(everything, limit=100).rows
        assert {(row.call.trace_id, row.call.span_id): row.call.route for row in listed} == {
            key: call.route for key, call in oracle.calls(project).items()
        }


@settings(max_examples=40, deadline=None, derandomize=True)
@given(streams())
def test_sums_equal_a_recount_after_every_step(stream: list[Batch | int]) -> None:
    clock = Clock()
    oracle = Oracle()
    with fresh_store(clock) as store:
        for step in stream:
            if isinstance(step, int):
                clock.now_ns += step * HOUR_NS
                store.roll_up()
            else:
                oracle.append(step)
                store.append(step)
            check(store, oracle)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(streams(), st.randoms(use_true_random=False))
def test_order_and_grouping_of_requests_do_not_matter(stream: list[Batch | int], chance: object) -> None:
    batches = [step for step in stream if isinstance(step, Batch)]
    # Scores of one address differ in time, so the latest wins in any order.
    pieces = [replace(each, spans=(span,), scores=()) for each in batches for span in each.spans]
    pieces += [replace(each, spans=(), scores=(score,)) for each in batches for score in each.scores]
    with fresh_store(Clock()) as one, fresh_store(Clock(EPOCH_NS + 80 * HOUR_NS)) as other:
        for each in batches:
            one.append(each)
        for piece in reversed(pieces):
            other.append(piece)
            other.roll_up()
        everything = Filters(purpose=())
        assert one.rollups(ALWAYS, ("route", "model", "tier"), everything) == other.rollups(
            ALWAYS, ("route", "model", "tier"), everything
        )


@settings(max_examples=20, deadline=None, derandomize=True)
@given(streams(), st.lists(st.integers(0, 75 * 3600), max_size=4))
def test_a_range_is_the_sum_of_its_pieces(stream: list[Batch | int], seconds: list[int]) -> None:
    clock = Clock()
    with fresh_store(clock) as store:
        for step in stream:
            if isinstance(step, Batch):
                store.append(step)
        clock.now_ns += 40 * HOUR_NS
        store.roll_up()
        edges = sorted({EPOCH_NS, *(EPOCH_NS + each * SECOND_NS for each in seconds), EPOCH_NS + 4 * DAY_NS})
        whole = EMPTY
        for start_ns, end_ns in pairwise(edges):
            for piece in store.rollups(TimeRange(start_ns, end_ns)):
                whole = add(piece, whole)
        assert [whole] == (store.rollups(ALWAYS) or [EMPTY])


def test_an_empty_store_has_no_sums(store: Store) -> None:
    assert store.rollups(ALWAYS) == []
    assert store.series(ALWAYS, "day") == []
    assert store.costs(ALWAYS, "day") == []
    assert store.calls().rows == ()
    assert store.routes() == []


def test_zero_is_neutral_in_addition() -> None:
    some = Rollup(calls=2, latency={3: 2}, error_classes={"timeout": 1}, cost_nusd=7)
    assert add(some, EMPTY) == some == add(EMPTY, some)
