"""Streams of calls through the tests of an installation: what rings, what recovers, what must not matter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import nan

import numpy as np
import pytest

from tierlight_dashboard.analysis.monitor import observe
from tierlight_dashboard.analysis.moving import Rang, Resolved
from tierlight_dashboard.analysis.reference import Learning
from tierlight_dashboard.analysis.signals import Observation
from tierlight_dashboard.analysis.standing import standings
from tierlight_dashboard.analysis.state import decode, encode
from tierlight_dashboard.analysis.streams import Policy, Stream, StreamKey

START = 1_800_000_000_000_000_000
SECOND = 1_000_000_000
HOUR = 3_600 * SECOND
SCORES = ("scores", "answer", "gpt-4", "flagship", "", "right", "check", "")


def scores(
    values: Sequence[float],
    *,
    route: str = "answer",
    segments: Sequence[str] | None = None,
    first: int = 1,
    every: int = 1,
    gap_ns: int = 60 * SECOND,
) -> list[Observation]:
    """One scored call a minute on a route."""
    return [
        Observation(
            ("scores", route, "gpt-4", "flagship", "", "right", "check", ""),
            first + i * every,
            START + (first + i * every) * gap_ns,
            (float(x), nan),
            segments[i] if segments else "",
            1.0,
            "openai/gpt-4",
        )
        for i, x in enumerate(values)
    ]


def calls(
    latency_ms: Sequence[float],
    *,
    errors: Sequence[int] | None = None,
    output: Sequence[float] | None = None,
    cost: Sequence[float] | None = None,
    gap_ns: int = HOUR // 6,
    first: int = 1,
) -> list[Observation]:
    """One call each ten minutes of one model on a route."""
    return [
        Observation(
            ("calls", "answer", "gpt-4", "flagship", ""),
            first + i,
            START + (first + i) * gap_ns,
            (
                float(errors[i]) if errors is not None else 0.0,
                float(y),
                nan,
                float(output[i]) if output is not None else 100.0,
                50.0,
                float(cost[i]) if cost is not None else 1e6,
            ),
            "",
            1.0,
            "openai/gpt-4",
        )
        for i, y in enumerate(latency_ms)
    ]


def outcomes(seed: int, *parts: tuple[int, float]) -> list[float]:
    random = np.random.default_rng(seed)
    return [float(x) for n, p in parts for x in random.random(n) < p]


def rings(observations: list[Observation], policy: Policy | None = None) -> list[Rang]:
    return [e for e in observe({}, observations, policy or Policy())[1] if isinstance(e, Rang)]


def stored(streams: dict[StreamKey, Stream]) -> dict[str, bytes]:
    parts: dict[str, bytes] = {}
    for stream in streams.values():
        fresh = replace(stream.copy(), clean_chunks=0, stored_chunks=0)
        for detector in fresh.detectors.values():
            detector.is_stored = False
        parts.update(encode(fresh)[0])
    return parts


def test_a_fall_of_quality_rings_soon_and_is_dated() -> None:
    (alarm, *_) = rings(scores(outcomes(1, (1000, 0.84), (300, 0.51))))
    assert 1000 < alarm.ordinal <= 1060
    assert abs(alarm.change_ms * 1e6 - (START + 1000 * 60 * SECOND)) < 40 * 60 * SECOND


def test_nothing_rings_while_nothing_changes() -> None:
    assert sum(len(rings(scores(outcomes(seed, (2000, 0.9))))) for seed in range(8)) <= 1


def test_a_route_says_how_much_it_has_learned() -> None:
    streams, _ = observe({}, scores(outcomes(1, (140, 0.84))), Policy())
    (standing,) = standings(next(iter(streams.values())), Policy(), START + 141 * 60 * SECOND)
    assert (standing.state, standing.learned, standing.needed) == ("learning", 140, 300)


@pytest.mark.parametrize("cuts", [[1], [299, 300, 301], [7, 650, 1010, 1011, 1030], list(range(0, 1500, 13))])
def test_cutting_a_batch_anywhere_changes_no_bit(cuts: list[int]) -> None:
    batch = scores(outcomes(4, (1000, 0.84), (200, 0.51), (300, 0.84)), segments=["a", "b", "c"] * 500)
    whole, events = observe({}, batch, Policy())
    streams: dict[StreamKey, Stream] = {}
    pieces = []
    for start, end in zip([0, *cuts], [*cuts, len(batch)], strict=True):
        touched, more = observe(streams, batch[start:end], Policy())
        streams = streams | touched
        pieces += more
    assert pieces == events
    assert isinstance(events[0], Rang)
    assert stored(streams) == stored(whole)


def everything(seed: int, n: int = 1800) -> list[Observation]:
    """Two routes of one model with errors, retries, slow hours, unknown values, segments, late and sampled calls."""
    random = np.random.default_rng(seed)
    batch = []
    for i in range(1, n + 1):
        route, bad = "ab"[int(random.integers(2))], 1200 < i < 1600
        at = START + i * 20 * 60 * SECOND - int(random.integers(0, 2 * HOUR)) * int(random.random() < 0.05)
        fails = random.random() < (0.3 if bad else 0.01)
        segment, keep = str(random.choice(["x", "y", ""])), float(random.choice([0.5, 1.0]))
        tokens_in = float(random.integers(100, 3000)) if random.random() < 0.98 else nan
        answer = random.lognormal(0, 0.4, 3) * (4.0 if bad else 1.0)
        numbers = [nan] * 4 if fails else [answer[0], answer[0] / 3, answer[1], answer[2]]
        values = (float(fails) * float(random.integers(1, 9)), *numbers[:3], tokens_in, numbers[3])
        batch.append(Observation(("calls", route, "m", "", ""), i, at, values, segment, keep, "openai/m"))
        again = (float(i > 500 and random.random() < 0.05), float(random.random() < 0.01), tokens_in)
        batch.append(Observation(("route", route), i, at, again, segment, keep, ""))
        score = (float(random.random() < (0.6 if bad else 0.9)), tokens_in)
        stream = ("scores", route, "m", "", "", "right", "check", "")
        batch.append(Observation(stream, i, at, score, segment, keep, "openai/m"))
    return batch


@pytest.mark.parametrize("longest", [1, 40, 1500])
def test_no_signal_minds_where_a_batch_is_cut(longest: int) -> None:
    policy = Policy(Learning(min_calls=250, per_bin=10, sample_rows=512))
    batch = everything(3)
    whole, events = observe({}, batch, policy)
    random, at = np.random.default_rng(longest), 0
    streams: dict[StreamKey, Stream] = {}
    seen: list[Rang | Resolved] = []
    while at < len(batch):
        size = int(random.integers(1, longest + 1))
        touched, more = observe(streams, batch[at : at + size], policy)
        streams, at = streams | touched, at + size
        seen += more
    rang = {event.test for event in events if isinstance(event, Rang)}
    assert rang >= {"errors", "quality:right", "latency", "cost", "output_tokens+"}
    assert any(event.stream[0] == "pool" for event in events)
    assert sorted(seen, key=str) == sorted(events, key=str)
    assert stored(streams) == stored(whole)


def test_states_survive_storing_to_the_bit() -> None:
    batch = scores(outcomes(4, (1000, 0.84), (120, 0.51), (300, 0.84))) + calls(
        [400.0 + i % 37 for i in range(1500)], errors=[5 * (i % 90 == 0) for i in range(1500)]
    )
    whole, events = observe({}, batch, Policy())
    states: dict[str, bytes] = {}
    seen = []
    for at in range(0, len(batch), 101):
        touched, more = observe(decode(states), batch[at : at + 101], Policy())
        seen += more
        for stream in touched.values():
            parts, forget = encode(stream)
            states |= parts
            for key in forget:
                del states[key]
    assert sorted(seen, key=str) == sorted(events, key=str)
    assert stored(decode(states)) == stored(whole)


def test_a_batch_delivered_twice_or_with_duplicates_changes_nothing() -> None:
    batch = scores(outcomes(4, (700, 0.84), (100, 0.51)))
    once, events = observe({}, batch, Policy())
    again, none = observe(once, batch, Policy())
    assert none == []
    assert stored(once | again) == stored(once)
    doubled, same = observe({}, [o for o in batch for _ in range(2)], Policy())
    assert same == events
    assert stored(doubled) == stored(once)


def test_the_streams_given_in_are_left_as_they_were() -> None:
    batch = scores(outcomes(4, (700, 0.84), (100, 0.51)))
    before, _ = observe({}, batch[:500], Policy())
    kept = stored(before)
    observe(before, batch[500:], Policy())
    assert stored(before) == kept


def test_an_incident_rings_once_and_resolves_by_its_own_evidence() -> None:
    alerts, resolved_after, early = 0, [], 0
    for seed in range(30):
        _, events = observe({}, scores(outcomes(seed, (1000, 0.84), (400, 0.51), (600, 0.84))), Policy())
        after = [e for e in events if e.ordinal > 1000]
        alerts += sum(isinstance(e, Rang) for e in after)
        ends = [e.ordinal for e in after if isinstance(e, Resolved)]
        early += bool(ends and ends[0] <= 1400)
        resolved_after.append(ends[-1] - 1400 if ends else 9999)
    assert alerts <= 1.1 * 30
    assert early <= 0.06 * 30
    assert sorted(resolved_after)[26] <= 120


def test_an_alarm_within_a_day_of_the_end_reopens_it() -> None:
    xs = outcomes(2, (1000, 0.84), (200, 0.4), (300, 0.84), (200, 0.3))
    alarms = [e for e in rings(scores(xs)) if e.ordinal > 1000]
    assert [alarm.reopens for alarm in alarms] == [False, True]


def test_a_shift_of_the_mix_of_segments_is_no_drop_of_quality() -> None:
    random = np.random.default_rng(11)
    share = [0.5] * 1000 + [0.2] * 2000
    segments = ["easy" if random.random() < p else "hard" for p in share]
    xs = [float(random.random() < (0.976 if s == "easy" else 0.704)) for s in segments]
    assert [a for a in rings(scores(xs, segments=segments)) if a.ordinal > 1000] == []


def test_a_drop_hidden_by_the_mix_rings_in_its_segment() -> None:
    random = np.random.default_rng(12)
    segments = ["prime" if random.random() < (0.5 if i < 1000 else 0.2) else "composite" for i in range(1300)]
    rate = {True: {"prime": 0.976, "composite": 0.704}, False: {"prime": 0.024, "composite": 0.998}}
    xs = [float(random.random() < rate[i < 1000][s]) for i, s in enumerate(segments)]
    alarms = [a for a in rings(scores(xs, segments=segments)) if a.ordinal > 1000]
    assert alarms[0].ordinal <= 1060
    assert "quality:right@segment:prime" in {a.test for a in alarms}


def test_a_class_of_errors_rings_under_its_own_name() -> None:
    errors = [0] * 600 + [7 if i % 3 == 0 else 0 for i in range(150)]
    alarms = rings(calls([400.0] * 750, errors=errors))
    assert {"errors"} <= {a.test for a in alarms} <= {"errors", "errors:connection"}
    assert all(a.ordinal > 600 for a in alarms)
    slow = [0] * 3000 + [6 if i % 20 == 0 else 0 for i in range(800)]
    assert rings(calls([400.0] * 3800, errors=slow))[0].ordinal > 3000


def test_latency_rings_on_a_slow_down_within_its_own_hours() -> None:
    random = np.random.default_rng(5)
    n = 3000  # ten minutes apart: three weeks
    hours = (np.arange(n + 600) // 6 + START // HOUR) % 24
    daily = 1 + 0.5 * np.sin(hours / 24 * 2 * np.pi)
    y = 800 * daily * random.lognormal(0, 0.3, n + 600)
    steady = calls(list(y[:n]))
    assert [a for a in rings(steady) if a.test == "latency"] == []
    slower = calls(list(np.concatenate([y[:n], 1.5 * y[n:]])))
    (alarm,) = [a for a in rings(slower) if a.test == "latency"]
    assert n < alarm.ordinal <= n + 250


def test_one_failing_model_shows_across_its_routes_before_each_route_alone() -> None:
    batch = []
    for at, route in enumerate(["a", "b", "c", "d", "e"]):
        xs = outcomes(at, (1000, 0.84), (200, 0.7))
        batch += scores(xs, route=route, first=1 + at, every=5)
    batch.sort(key=lambda o: o.ordinal)
    alarms = sorted((a for a in rings(batch) if a.ordinal > 5000), key=lambda a: a.ordinal)
    assert alarms[0].stream[0] == "pool"
    assert alarms[0].ordinal - 5000 <= 5 * 60


def test_scores_that_are_not_outcomes_are_tested_by_their_mean() -> None:
    random = np.random.default_rng(6)
    xs = np.concatenate([random.beta(8, 2, 1000), random.beta(4, 4, 200)])
    alarms = rings(scores(list(xs)))
    assert alarms[0].ordinal > 1000
    assert alarms[0].ordinal <= 1100


def test_learning_size_is_the_users() -> None:
    policy = Policy(learning=Learning(min_scored=200))
    streams, _ = observe({}, scores(outcomes(1, (200, 0.84))), policy)
    (standing,) = standings(next(iter(streams.values())), policy, START + 201 * 60 * SECOND)
    assert standing.state == "steady"


def test_references_are_refreshed_weekly_and_the_first_one_is_kept() -> None:
    xs = outcomes(9, (4200, 0.9))  # ten minutes apart: four weeks
    streams, events = observe({}, scores(xs, gap_ns=10 * 60 * SECOND), Policy())
    tests = streams[SCORES].detectors
    assert events == []
    assert set(tests) == {"quality:right", "quality:right@launch"}
    first, newest = tests["quality:right@launch"].reference, tests["quality:right"].reference
    assert first is not None
    assert newest is not None
    assert first.n == 1000
    assert newest.n > first.n
    assert tests["quality:right@launch"].units == 0.25
    day = 24 * HOUR
    assert newest.until_ns <= streams[SCORES].last_ns - day
    assert newest.until_ns - streams[SCORES].first_ns <= 28 * day


def test_calls_after_a_change_never_enter_the_reference() -> None:
    streams, events = observe({}, scores(outcomes(3, (1000, 0.84), (300, 0.51))), Policy())
    stream = streams[SCORES]
    assert isinstance(events[0], Rang)
    assert stream.is_frozen
    assert stream.sample()[:, 0].max() < events[0].change_ms


def test_a_route_of_one_prompt_version_is_another_epoch_than_the_next() -> None:
    old = scores(outcomes(1, (800, 0.9)))
    new = [
        replace(o, stream=(*SCORES[:4], "v2", *SCORES[5:]))
        for o in scores(outcomes(2, (200, 0.3)), first=801)
    ]
    streams, events = observe({}, old + new, Policy())
    assert events == []
    assert len([key for key in streams if key[0] == "scores"]) == 2


def test_sampled_calls_count_by_what_they_stand_for() -> None:
    # Every failure is kept and one good call in five: unweighted, the kept calls look half bad.
    random = np.random.default_rng(8)

    def kept(rate: float, n: int, first: int) -> list[Observation]:
        found = []
        for x in random.random(6 * n) < rate:
            if not x or random.random() < 0.2:
                found.append((float(x), 0.2 if x else 1.0))
        return [
            replace(o, keep_prob=keep)
            for o, (_, keep) in zip(scores([x for x, _ in found[:n]], first=first), found[:n], strict=True)
        ]

    batch = kept(0.8, 1000, 1) + kept(0.8, 1000, 1001) + kept(0.4, 400, 2001)
    alarms = rings(batch)
    assert alarms[0].ordinal > 2000
    assert alarms[0].ordinal < 2200


def test_silence_is_said_and_resolves_nothing() -> None:
    streams, _ = observe({}, scores(outcomes(1, (1000, 0.84))), Policy())
    stream = streams[SCORES]
    assert standings(stream, Policy(), stream.last_ns + 48 * HOUR)[0].state == "silent"
    broken, _ = observe({}, scores(outcomes(1, (1000, 0.84), (200, 0.2))), Policy())
    stream = broken[SCORES]
    assert standings(stream, Policy(), stream.last_ns + 48 * HOUR)[0].state == "alert"
