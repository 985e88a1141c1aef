"""Scores find their calls, whichever comes first."""

from __future__ import annotations

from collector.stores import build
from collector.stores.build import EPOCH_NS
from tierlight_collector.records import HOUR_NS, ScoreSums, TimeRange
from tierlight_collector.stores import Store

ALWAYS = TimeRange(0, 2**62)
QUALITY = ("quality", "judge:a")


def sums(store: Store) -> dict[tuple[str, str], ScoreSums]:
    found = store.rollups(ALWAYS)
    return dict(found[0].scores) if found else {}


def test_a_score_that_comes_first_waits_for_its_call(store: Store) -> None:
    store.append(build.batch(build.score(value=0.5, trace=1, number=1)))
    assert store.score_evidence(0, 10) == []
    store.append(build.batch(build.call(1, 1, cost_nusd=3)))
    assert sums(store) == {QUALITY: ScoreSums(1, 0.5, 0.25)}
    assert [each.call.cost_nusd for each in store.score_evidence(0, 10)] == [3]


def test_each_address_finds_the_call(store: Store) -> None:
    made = build.call(1, 1, call_id="c-1", response_id="resp-1", attributes={"tierlight.join.ticket": "T7"})
    store.append(build.batch(made))
    for name, address in (
        ("a", {"call_id": "c-1"}),
        ("b", {"trace": 1, "number": 1}),
        ("c", {"response_id": "resp-1"}),
        ("d", {"join_value": "T7"}),
    ):
        store.append(build.batch(build.score(name, **address)))
    assert [score.name for score in store.calls().rows[0].scores] == ["a", "b", "c", "d"]


def test_a_later_score_of_one_rater_replaces_the_earlier(store: Store) -> None:
    late = build.score(value=0.25, trace=1, number=1, time_ns=EPOCH_NS + 9)
    early = build.score(value=1.0, trace=1, number=1, time_ns=EPOCH_NS + 1)
    store.append(build.batch(build.call(1, 1), late))
    store.append(build.batch(early))
    assert sums(store) == {QUALITY: ScoreSums(1, 0.25, 0.0625)}
    assert [each.value for each in store.score_evidence(0, 10)] == [0.25]


def test_a_failed_evaluation_is_kept_but_counts_nowhere(store: Store) -> None:
    store.append(build.batch(build.call(1, 1), build.score(value=None, trace=1, number=1)))
    assert (sums(store), store.rollups(ALWAYS)[0].scored) == ({}, 0)
    assert store.calls().rows[0].scores[0].value is None
    assert store.score_evidence(0, 10) == []


def test_a_business_key_scores_every_call_that_carries_it(store: Store) -> None:
    key = {"tierlight.join.ticket": "T7"}
    store.append(build.batch(build.call(1, 1, attributes=key)))
    store.append(build.batch(build.score(value=0.0, join_value="T7")))
    store.append(build.batch(build.call(2, 2, attributes=key)))
    assert sums(store)[QUALITY].n == 2


def test_a_score_by_call_id_is_about_the_attempt_that_was_used(store: Store) -> None:
    store.append(
        build.batch(
            build.call(1, 1, call_id="c", attempt_final=False, error_type="timeout"),
            build.call(1, 2, call_id="c", attempt_index=1, attempt_reason="fallback", response_id="b"),
            build.score(call_id="c"),
        )
    )
    assert store.score_evidence(0, 10)[0].call.span_id == build.span_id(2)


def test_a_score_of_a_superseded_call_counts_for_its_successor(store: Store) -> None:
    store.append(build.batch(build.call(1, 1, response_id="r"), build.score(value=0.5, trace=1, number=1)))
    store.append(build.batch(build.call(1, 2, parent=1, response_id="r", scope="scope.b")))
    assert store.rollups(ALWAYS)[0].calls == 1
    assert sums(store) == {QUALITY: ScoreSums(1, 0.5, 0.25)}
    assert store.score_evidence(0, 10)[0].call.span_id == build.span_id(2)


def test_a_late_score_reaches_an_hour_that_was_rolled_up(store: Store, clock: build.Clock) -> None:
    store.append(build.batch(build.call(1, 1)))
    clock.now_ns += 30 * HOUR_NS
    store.roll_up()
    store.append(build.batch(build.score(value=1.0, trace=1, number=1)))
    assert sums(store)[QUALITY].n == 1
    store.roll_up()
    assert sums(store)[QUALITY].n == 1


def test_scores_that_stand_on_a_span_are_stored_once(store: Store) -> None:
    made = build.call(1, 1, scores=(build.score("json valid", 1.0, trace=1, number=1),))
    assert store.append(build.batch(made)).accepted == 1
    assert store.append(build.batch(made)).accepted == 0
    assert store.rollups(ALWAYS)[0].scored == 1
