"""What is kept in memory of closed hours says at every moment what the tables say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from collector.stores import build
from collector.stores.build import DAY_NS, EPOCH_NS, SECOND_NS, Clock
from tierlight_collector.records import HOUR_NS, Batch, Filters, TimeRange
from tierlight_collector.stores import Store, open_store, stretches
from tierlight_collector.stores.stretches import Spread, Stretch, Tally
from tierlight_collector.stores.sums import FEW, Piece, SumsMemory

DAYS = TimeRange(EPOCH_NS, EPOCH_NS + 3 * DAY_NS)


def add_call(store: Store, number: int, start_ns: int) -> None:
    store.append(Batch((build.call(number, number, start_ns=start_ns, duration_ns=number * SECOND_NS),)))


def counts(store: Store, when: TimeRange = DAYS) -> tuple[int, int, list[int]]:
    """Calls, those in the histogram, and calls per day."""
    (whole,) = store.rollups(when)
    return whole.calls, sum(whole.latency.values()), [day.calls for _, day in store.series(when, "day")]


def test_a_late_call_shows_at_once_and_after_each_recount(store: Store, clock: Clock) -> None:
    add_call(store, 1, EPOCH_NS)
    add_call(store, 2, EPOCH_NS + DAY_NS)
    clock.now_ns = EPOCH_NS + 4 * DAY_NS
    store.roll_up()
    assert counts(store) == (2, 2, [1, 1])
    for number in (3, 4):  # the clock stands still: the second recount is no later than the first
        add_call(store, number, EPOCH_NS + number)
        assert counts(store) == (number, number, [number - 1, 1])
        store.roll_up()
        assert counts(store) == (number, number, [number - 1, 1])


def test_a_reader_of_another_process_sees_what_was_recounted(
    store: Store, clock: Clock, tmp_path: Path
) -> None:
    add_call(store, 1, EPOCH_NS)
    clock.now_ns = EPOCH_NS + 2 * DAY_NS
    store.roll_up()
    other = open_store(f"sqlite:///{tmp_path / 'store.db'}", read_only=True)
    try:
        assert counts(other) == (1, 1, [1])
        add_call(store, 2, EPOCH_NS + 1)
        assert counts(other) == (2, 2, [2])
        store.roll_up()
        assert counts(other) == (2, 2, [2])
    finally:
        other.close()


def test_costs_of_one_route_of_many_are_the_same_from_memory(store: Store, clock: Clock) -> None:
    for number in range(1, FEW * 2):
        start_ns = EPOCH_NS + number % 2 * DAY_NS
        call = build.call(number, number, start_ns=start_ns, route=f"r{number}", cost_nusd=number)
        store.append(Batch((call,)))
    clock.now_ns = EPOCH_NS + 3 * DAY_NS
    store.roll_up()
    wanted = Filters(route=("r3",))
    read = store.costs(DAYS, "day", "UTC", ("route",), wanted)
    store.costs(DAYS, "day", "UTC", ("route",))
    remembered = store.costs(DAYS, "day", "UTC", ("route",), wanted)
    assert remembered == read
    assert [(key, cost) for _, key, cost in read] == [(("r3",), 3)]


def test_part_of_a_closed_hour_follows_the_hour(store: Store, clock: Clock) -> None:
    half = TimeRange(EPOCH_NS, EPOCH_NS + HOUR_NS // 2)
    add_call(store, 1, EPOCH_NS)
    clock.now_ns = EPOCH_NS + 2 * DAY_NS
    store.roll_up()
    assert counts(store, half) == (1, 1, [1])
    add_call(store, 2, EPOCH_NS + 1)
    store.roll_up()
    assert counts(store, half) == (2, 2, [2])


def test_an_open_hour_is_counted_anew_after_a_commit(store: Store, clock: Clock) -> None:
    clock.now_ns = EPOCH_NS + HOUR_NS // 2
    for number in range(1, 4):
        add_call(store, number, EPOCH_NS + number)
        assert counts(store) == (number, number, [number])


def a_stretch(calls: int = 1) -> Stretch:
    row = [calls] + [0] * (len(stretches.SUMS) - 1)
    one, nothing = np.array([1]), Spread(np.empty((0, 2), np.int64), np.array([0]))
    return Stretch(one, one, np.array([row]), nothing, nothing, Tally.of(()), Tally.of(()))


def test_what_was_not_used_longest_is_forgotten_first() -> None:
    size = a_stretch().nbytes
    memory = SumsMemory(most_bytes=2 * size)
    first, second, third = (Piece("hour", n * HOUR_NS, (n + 1) * HOUR_NS) for n in range(3))
    memory.keep(first, "a", a_stretch())
    memory.keep(second, "a", a_stretch())
    assert memory.get(first, "a") is not None
    memory.keep(third, "a", a_stretch())
    assert [memory.get(piece, "a") is not None for piece in (first, second, third)] == [True, False, True]
    assert memory.get(first, "another stamp") is None


@pytest.mark.parametrize("dense", [0, 4_000_000])
def test_histograms_of_groups_add_up_in_either_way(monkeypatch: pytest.MonkeyPatch, dense: int) -> None:
    monkeypatch.setattr(stretches, "_DENSE", dense)
    single = Spread(np.array([[-1, 2], [300, 1], [300, 5], [7, 1]]), np.array([2, 0, 1, 1]))
    found = single.grouped(np.array([2, 0, 2, -1]), 3)
    assert found.pairs.tolist() == [[-1, 2], [300, 6]]
    assert found.sizes.tolist() == [0, 0, 2]


def test_sums_beyond_64_bits_stay_exact() -> None:
    wide = stretches.joined([a_stretch(2**62), a_stretch(2**62), a_stretch(2**62)]).by_series(0)
    assert wide.sums[0][0] == 3 * 2**62
