"""What was concluded and decided, and the queue of forwarding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from collector.stores import build
from tierlight_collector.decisions import (
    Alert,
    AlertMute,
    AuditEntry,
    Experiment,
    Recommendation,
    WatchCommit,
)
from tierlight_collector.stores import Store
from tierlight_collector.stores.protocol import OutboxTarget

ALERT = Alert(
    id=0,
    kind="quality",
    signal="quality:json valid",
    scope="route",
    route="draft",
    model="gpt-5-mini",
    severity="page",
    state="open",
    opened_ns=5,
    resolved_ns=None,
    change_ns=4,
    change_from_ns=3,
    change_to_ns=5,
    before=0.9,
    after=0.5,
    effect_low=-0.5,
    effect_high=-0.3,
    unit="share",
    calls_since_change=40,
    log_evidence=9.0,
    log_threshold=8.0,
    sentence="Quality of draft fell.",
    attribution=({"segment": "vip", "share": 0.7},),
    samples_before=("aa/bb",),
    samples_after=("cc/dd", "ee/ff"),
    test_key="draft|quality",
)
ADVICE = Recommendation(
    id=0,
    route="draft",
    action="downgrade",
    state="proposed",
    current_model="gpt-5",
    current_tier="flagship",
    candidate_model="gpt-5-mini",
    candidate_tier="small",
    sentence="Try the small one.",
    reason="enough pairs",
    rung="shadow",
    card={"pairs": [1, 2], "margin": 0.02},
)


def test_one_tick_is_stored_whole_and_read_back(reopen: Callable[[], Store]) -> None:
    store = reopen()
    trial = Experiment(
        "e1", "draft", "ab", "gpt-5", "gpt-5-mini", 0.1, "running", 1, None, "me", card={"a": 1}
    )
    commit = WatchCommit(
        states={"k": b"\x00\x01", "old": b"x"},
        watermarks={"calls": 7, "scores": 2},
        alerts=(ALERT,),
        recommendations=(ADVICE,),
        experiments=(trial,),
    )
    (alert,) = store.commit_watch(commit)
    store = reopen()
    assert store.alerts() == [replace(ALERT, id=alert.id)] == [store.alert(alert.id)]
    assert store.detector_states() == {"k": b"\x00\x01", "old": b"x"}
    assert store.watermarks() == {"calls": 7, "scores": 2}
    assert store.experiments() == [trial]
    (advice,) = store.recommendations()
    assert advice == replace(ADVICE, id=advice.id) == store.recommendation(advice.id)
    store.commit_watch(WatchCommit(states={}, watermarks={"calls": 9}, forget_states=("old",)))
    assert (dict(store.detector_states()), store.watermarks()["calls"]) == ({"k": b"\x00\x01"}, 9)


def test_an_alert_keeps_its_number_and_is_found_by_route_and_state(store: Store) -> None:
    first, second = store.commit_watch(
        WatchCommit(states={}, watermarks={}, alerts=(ALERT, replace(ALERT, route="classify", opened_ns=9)))
    )
    store.update_alert(replace(first, state="resolved", resolved_ns=10, note="rolled back"), "me")
    assert [alert.id for alert in store.alerts()] == [second.id, first.id]
    assert [alert.id for alert in store.alerts(states=("open", "recovering"))] == [second.id]
    assert [alert.note for alert in store.alerts(route="draft", states=("resolved",), limit=1)] == [
        "rolled back"
    ]
    assert store.alerts(route="draft", states=("open",)) == []
    assert store.alert(99) is None


def test_a_recommendation_is_one_row_per_route_and_candidate(store: Store) -> None:
    for pairs in (10, 20):
        store.commit_watch(
            WatchCommit(states={}, watermarks={}, recommendations=(replace(ADVICE, pairs=pairs),))
        )
    (advice,) = store.recommendations(route="draft")
    assert advice.pairs == 20
    store.update_recommendation(replace(advice, state="dismissed"), "me")
    assert [each.state for each in store.recommendations()] == ["dismissed"]
    assert store.recommendations(route="other") == []


def test_what_people_do_is_in_the_audit(store: Store, clock: build.Clock) -> None:
    store.set_mute(AlertMute("draft", "errors", None, "ann"))
    assert store.mutes() == [AlertMute("draft", "errors", None, "ann")]
    store.remove_mute("draft", "errors", "bob")
    store.set_setting("currency", "EUR", "ann")
    revision = store.add_policy("[x]", "v1", "ann", "first")
    store.record_audit(AuditEntry(1, "cli", "backup", "file"))
    assert store.mutes() == []
    assert store.settings() == {"currency": "EUR"}
    assert store.policies() == [revision]
    assert revision.created_ns == clock.now_ns
    assert [entry.who for entry in store.audit()] == ["cli", "ann", "ann", "bob", "ann"]


def test_a_request_to_forward_waits_until_every_target_has_it(store: Store) -> None:
    for number in range(1, 4):
        made = build.batch(build.call(number, number))
        store.append(replace(made, forward=b"x" * 10 * number))
    waiting = store.outbox_batches(0, 10**6)
    assert [(each.seq, len(each.payload), each.spans) for each in waiting] == [
        (1, 10, 1),
        (2, 20, 1),
        (3, 30, 1),
    ]
    assert [each.seq for each in store.outbox_batches(2, 1)] == [2]
    store.save_outbox_target(OutboxTarget("b", 2, state="blocked", last_error="401"))
    store.save_outbox_target(OutboxTarget("a", 3, sent=2))
    assert [each.seq for each in store.outbox_batches(0, 10**6)] == [2, 3]
    assert [target.state for target in store.outbox_targets()] == ["ok", "blocked"]
    store.remove_outbox_target("b")
    assert [each.seq for each in store.outbox_batches(0, 10**6)] == [3]


def test_a_queue_over_its_size_or_age_drops_the_oldest_and_counts_them(
    store: Store, clock: build.Clock
) -> None:
    for number in range(1, 5):
        store.append(
            replace(build.batch(build.call(number, number), build.span(number, 90)), forward=b"x" * 100)
        )
        clock.now_ns += 10
    assert store.trim_outbox(1_000, build.EPOCH_NS) == 0
    assert store.trim_outbox(250, build.EPOCH_NS) == 4
    assert store.trim_outbox(1_000, build.EPOCH_NS + 25) == 2
    assert [each.seq for each in store.outbox_batches(0, 10**6)] == [4]


def test_a_request_that_was_already_stored_is_not_forwarded_again(store: Store) -> None:
    made = replace(build.batch(build.call(1, 1)), forward=b"x")
    store.append(made)
    store.append(made)
    assert len(store.outbox_batches(0, 10**6)) == 1
