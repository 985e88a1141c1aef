"""The file: its owner, its schema, its copies, and what becomes of it when things go wrong."""

from __future__ import annotations

import random
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from collector.stores import build, killed_writer
from collector.stores.build import DAY_NS
from tierlight_collector.errors import (
    SchemaTooNew,
    StoreBusy,
    StoreDamaged,
    StoreError,
    StoreLocked,
)
from tierlight_collector.records import HOUR_NS, TimeRange
from tierlight_collector.stores import Store, migrations, open_store, tables
from tierlight_collector.stores.backup import restore
from tierlight_collector.stores.files import connect_writer
from tierlight_collector.stores.retention import shrink
from tierlight_collector.stores.space import SpaceGuard
from tierlight_collector.stores.sql import SqliteStore

ALWAYS = TimeRange(0, 2**62)


def url(folder: Path) -> str:
    return f"sqlite:///{folder / 'store.db'}"


def test_migrations_lead_to_the_schema_of_the_tables(tmp_path: Path, store: Store) -> None:
    with sqlite3.connect(tmp_path / "store.db") as connection:
        made = [sql for (sql,) in connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")]
    connection.close()
    made = [sql for sql in made if not sql.startswith("CREATE TABLE sqlite_sequence")]
    assert sorted(made) == sorted(tables.definitions())


def test_only_one_process_writes_a_directory(tmp_path: Path, store: Store) -> None:
    code = f"from tierlight_collector.stores import open_store; open_store({url(tmp_path)!r})"
    second = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert second.returncode != 0
    assert "StoreLocked" in second.stderr
    with pytest.raises(StoreLocked, match=r"process \d+ already owns"):
        open_store(url(tmp_path))


def test_readers_beside_the_writer_see_what_is_committed(tmp_path: Path, store: Store) -> None:
    store.append(build.batch(build.call(1, 1, route="a")))
    reader = open_store(url(tmp_path), read_only=True)
    assert [each.calls for each in reader.rollups(ALWAYS)] == [1]
    store.append(build.batch(build.call(2, 2, route="b")))
    assert [info.route for info in reader.routes()] == ["a", "b"]
    with pytest.raises(StoreError, match="open for reading only"):
        reader.append(build.batch(build.call(3, 3)))
    reader.close()


def test_a_reader_of_nothing_is_told_how_to_start(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no store at"):
        open_store(url(tmp_path), read_only=True)


@pytest.mark.parametrize("bad", ["store.db", "sqlite:///:memory:", "oracle:///x", "sqlite:///"])
def test_an_url_of_another_kind_is_refused(bad: str) -> None:
    with pytest.raises(StoreError):
        open_store(bad)


def test_a_newer_schema_is_refused(tmp_path: Path, reopen: Callable[[], Store]) -> None:
    reopen().close()
    with sqlite3.connect(tmp_path / "store.db") as connection:
        connection.execute("INSERT INTO schema_version VALUES (99, 0, '9.9.9')")
    connection.close()
    for read_only in (False, True):
        with pytest.raises(SchemaTooNew, match=r"made by tierlight 9\.9\.9"):
            open_store(url(tmp_path), read_only=read_only)


def test_a_step_that_fails_leaves_the_file_as_it_was(tmp_path: Path, reopen: Callable[[], Store]) -> None:
    reopen().append(build.batch(build.call(1, 1)))
    reopen().close()
    path = tmp_path / "store.db"

    def adds_a_table(connection: sqlite3.Connection) -> None:
        connection.execute("CREATE TABLE extra (id INTEGER)")

    def fails(connection: sqlite3.Connection) -> None:
        connection.execute("DROP TABLE calls")
        raise RuntimeError("no")

    connection = connect_writer(path)
    released = len(migrations.STEPS)
    steps = (*migrations.STEPS, adds_a_table, fails)
    with pytest.raises(RuntimeError):
        migrations.migrate(connection, path, now_ns=0, app_version="x", steps=steps)
    assert migrations.version_of(connection) == len(migrations.STEPS)
    assert migrations.migrate(connection, path, now_ns=0, app_version="x", steps=steps[:-1]) == released
    assert migrations.version_of(connection) == released + 1
    connection.close()
    with sqlite3.connect(tmp_path / "backup" / f"pre-{released + 1}.db") as copy:
        assert copy.execute("SELECT count(*) FROM calls").fetchone() == (1,)
    copy.close()


def test_a_damaged_header_is_reported_and_nothing_is_changed(
    tmp_path: Path, reopen: Callable[[], Store]
) -> None:
    reopen().append(build.batch(build.call(1, 1)))
    reopen().close()
    path = tmp_path / "store.db"
    broken = b"not a database!!" + path.read_bytes()[16:]
    path.write_bytes(broken)
    for read_only in (False, True):
        with pytest.raises(StoreDamaged, match=r"\.recover"):
            open_store(url(tmp_path), read_only=read_only)
    assert path.read_bytes() == broken


def test_a_file_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "store.db") as connection:
        connection.execute("CREATE TABLE theirs (id)")
    connection.close()
    with pytest.raises(StoreError, match="not one of tierlight"):
        open_store(url(tmp_path))


def test_files_are_for_their_owner_only(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    store = open_store(url(folder))
    store.append(build.batch(build.call(1, 1)))
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.name: path.stat().st_mode & 0o077 for path in folder.iterdir()} == {
        "store.db": 0,
        "store.db-wal": 0,
        "store.db-shm": 0,
        "tierlight.lock": 0,
    }
    store.close()


def test_a_backup_is_whole_and_can_be_restored(tmp_path: Path, reopen: Callable[[], Store]) -> None:
    store = reopen()
    store.append(build.batch(build.call(1, 1, contents=(("prompt", "hello"),))))
    copy = tmp_path / "copy.db"
    store.backup(copy)
    with pytest.raises(StoreError, match="never overwrites"):
        store.backup(copy)
    store.append(build.batch(build.call(2, 2)))
    with pytest.raises(StoreLocked):
        restore(copy, tmp_path / "store.db")
    store.close()
    aside = restore(copy, tmp_path / "store.db")
    assert aside is not None
    assert aside.exists()
    store = reopen()
    assert [row.call.span_id for row in store.calls().rows] == [build.span_id(1)]
    assert store.contents(build.trace_id(1), build.span_id(1))[0].body == "hello"


def test_numbers_never_come_again_after_a_restart(reopen: Callable[[], Store]) -> None:
    first = reopen()
    first.append(build.batch(*(build.call(n, n) for n in range(1, 4))))
    second = reopen()
    second.append(build.batch(build.call(9, 9), build.call(1, 1)))
    assert [each.seq for each in second.call_evidence(0, 10)] == [1, 2, 3, 4]


def test_an_open_reader_does_not_stop_the_writer(tmp_path: Path, store: Store) -> None:
    pinned = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
    pinned.execute("BEGIN")
    pinned.execute("SELECT count(*) FROM calls").fetchone()
    for number in range(20):
        store.append(build.batch(build.call(number, number)))
    assert pinned.execute("SELECT count(*) FROM calls").fetchone() == (0,)
    pinned.execute("COMMIT")
    pinned.close()
    assert store.health().calls == 20


def test_what_is_queued_at_close_is_committed(reopen: Callable[[], Store]) -> None:
    store = reopen()
    futures = [store.submit(build.batch(build.call(n, n))) for n in range(50)]
    store.close()
    assert sum(future.result().accepted for future in futures) == 50
    assert reopen().health().calls == 50
    with pytest.raises(StoreBusy):
        store.submit(build.batch(build.call(1, 1)))


def test_a_clock_that_goes_back_opens_no_closed_hour(store: Store, clock: build.Clock) -> None:
    store.append(build.batch(build.call(1, 1)))
    clock.now_ns += 30 * HOUR_NS
    store.append(build.batch(build.call(2, 2, start_ns=clock.now_ns)))
    clock.now_ns -= 40 * HOUR_NS
    store.roll_up()
    assert store.rollups(ALWAYS)[0].calls == 2


# ---- kill -9 ------------------------------------------------------------------------------------------------


def kill_and_check(folder: Path, kills: int) -> None:
    path = folder / "store.db"
    chance = random.Random(7)
    acknowledged: set[int] = set()
    for round_number in range(kills):
        process = subprocess.Popen(
            [sys.executable, killed_writer.__file__, str(path), str(round_number * 10_000_000 + 1)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        acknowledged.update(map(int, process.stdout.readline().split()))
        time.sleep(chance.random() * 0.1)
        process.kill()
        for line in process.stdout:
            if line.endswith("\n"):
                acknowledged.update(map(int, line.split()))
        process.stdout.close()
        process.wait()
    store = open_store(f"sqlite:///{path}", now_ns=build.Clock(build.EPOCH_NS + 30 * HOUR_NS))
    try:
        stored = {int.from_bytes(each.span_id) for each in store.call_evidence(0, 10**7)}
        assert acknowledged <= stored
        assert len(stored) % 10 == 0, "a request is stored whole or not at all"
        before = store.rollups(ALWAYS)
        store.roll_up()
        assert store.rollups(ALWAYS) == before
        assert before[0].calls == len(stored)
    finally:
        store.close()
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_nothing_acknowledged_is_lost_by_a_kill(tmp_path: Path) -> None:
    kill_and_check(tmp_path, kills=3)


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_by_24_kills(tmp_path: Path) -> None:
    kill_and_check(tmp_path, kills=24)


# ---- retention ----------------------------------------------------------------------------------------------


def test_texts_spans_and_calls_go_at_their_own_age_and_sums_stay(store: Store, clock: build.Clock) -> None:
    old = build.call(1, 1, contents=(("prompt", "old words"),), cost_nusd=5)
    new = build.call(
        2, 2, start_ns=build.EPOCH_NS + 10 * DAY_NS, contents=(("prompt", "new words"),), cost_nusd=7
    )
    store.append(build.batch(old, new, build.score(trace=1, number=1, explanation="because")))
    ids = build.trace_id(1), build.span_id(1)
    whole = store.rollups(ALWAYS)

    clock.now_ns += 20 * DAY_NS
    store.retain()
    assert store.contents(*ids) == []
    assert store.contents(build.trace_id(2), build.span_id(2))[0].body == "new words"
    assert store.calls().rows[-1].scores[0].explanation == ""
    assert len(store.trace(ids[0])) == 1

    clock.now_ns += 12 * DAY_NS
    store.retain()
    assert store.trace(ids[0]) == []
    assert len(store.trace(build.trace_id(2))) == 1

    clock.now_ns += 373 * DAY_NS
    store.retain()
    assert [row.call.span_id for row in store.calls().rows] == [build.span_id(2)]
    assert store.rollups(ALWAYS) == whole

    assert store.append(build.batch(old)).accepted == 0
    assert store.health().counters["expired"] == 1
    store.append(build.batch(build.score("again", trace=1, number=1)))
    store.roll_up()
    assert store.rollups(ALWAYS) == whole


def test_purging_removes_the_texts_from_the_file_and_nothing_else(tmp_path: Path, store: Store) -> None:
    word = "xylophone-secret"
    store.append(
        build.batch(
            build.call(1, 1, user_id="u1", contents=(("prompt", word * 3),)),
            build.call(2, 2, user_id="u2", contents=(("prompt", "harmless"),)),
        )
    )
    before = store.rollups(ALWAYS)
    assert store.purge(user="u1", who="me") == 1
    assert store.contents(build.trace_id(1), build.span_id(1)) == []
    assert store.contents(build.trace_id(2), build.span_id(2))[0].body == "harmless"
    assert (store.rollups(ALWAYS), len(store.calls().rows)) == (before, 2)
    assert [(entry.who, entry.action) for entry in store.audit()] == [("me", "purge texts")]
    assert store.purge(before_ns=2**62) == 1
    with pytest.raises(StoreError, match="say what to purge"):
        store.purge()


def test_small_blocks_are_joined_without_losing_a_span(tmp_path: Path, store: Store) -> None:
    for n in range(1, 301):
        store.submit(build.batch(build.call(n, n, contents=(("prompt", f"text {n}"),))))
        if n % 3 == 0:
            store.health()
    store.append(build.batch(build.call(301, 301)))
    store.retain()
    with sqlite3.connect(tmp_path / "store.db") as connection:
        assert connection.execute("SELECT count(*) FROM span_blocks").fetchone()[0] < 5
    connection.close()
    for n in (1, 150, 300):
        assert store.contents(build.trace_id(n), build.span_id(n))[0].body == f"text {n}"
        assert len(store.trace(build.trace_id(n))) == 1
    assert [seq for seq, _ in store.raw_spans(0, 1_000)] == list(range(1, 302))


def test_free_pages_go_back_to_the_disk_many_at_once(tmp_path: Path) -> None:
    connection = connect_writer(tmp_path / "x.db")
    connection.execute("CREATE TABLE t (body)")
    connection.execute("BEGIN")
    connection.executemany("INSERT INTO t VALUES (zeroblob(4000))", [()] * 600)
    connection.execute("COMMIT")
    connection.execute("DELETE FROM t")
    free = connection.execute("PRAGMA freelist_count").fetchone()[0]
    shrink(connection, 500)
    assert connection.execute("PRAGMA freelist_count").fetchone()[0] == free - 500
    connection.close()


# ---- disk ---------------------------------------------------------------------------------------------------


class Disk:
    """A disk whose free room a test sets."""

    free = 10**12

    def __call__(self, folder: Path) -> int:
        return self.free


def run_guard(store: Store, guard: SpaceGuard) -> None:
    assert isinstance(store, SqliteStore)

    def job(connection: sqlite3.Connection) -> None:
        while guard.run(connection, 0):
            pass

    store._writing().ask(job, in_transaction=False).result()


def test_a_nearly_full_disk_refuses_calls_until_there_is_room(tmp_path: Path, store: Store) -> None:
    assert isinstance(store, SqliteStore)
    disk = Disk()
    guard = SpaceGuard(store._writing(), store.path, floor_bytes=10**8, free=disk)
    store.append(build.batch(build.call(1, 1, contents=(("prompt", "x"),))))
    run_guard(store, guard)
    assert (tmp_path / "ballast.bin").stat().st_size == 32 * 1024 * 1024
    disk.free = 10**7
    run_guard(store, guard)
    run_guard(store, guard)
    assert store.health().state == "low"
    with pytest.raises(StoreBusy, match="nearly full") as refused:
        store.append(build.batch(build.call(2, 2)))
    assert refused.value.retry_after_s == 60
    assert store.contents(build.trace_id(1), build.span_id(1)) == [], "the oldest texts made room"
    assert store.health().calls == 1
    disk.free = 12 * 10**7
    run_guard(store, guard)
    assert store.health().state == "low", "no flicker around the floor"
    disk.free = 10**12
    run_guard(store, guard)
    assert store.append(build.batch(build.call(2, 2))).accepted == 1


def test_a_write_that_finds_no_room_is_refused_whole_and_recovers(tmp_path: Path, store: Store) -> None:
    assert isinstance(store, SqliteStore)
    writer = store._writing()
    store.append(build.batch(build.call(1, 1)))
    ask = writer.ask
    pages = ask(lambda c: c.execute("PRAGMA page_count").fetchone()[0], in_transaction=False).result()
    ask(lambda c: c.execute(f"PRAGMA max_page_count = {pages}").fetchall(), in_transaction=False).result()
    with pytest.raises(StoreBusy, match="disk is full"):
        store.append(build.batch(*(build.call(n, n, attributes={"a": "x" * n}) for n in range(2, 900))))
    assert store.health().state == "full"
    assert [row.call.span_id for row in store.calls().rows] == [build.span_id(1)]
    ask(lambda c: c.execute("PRAGMA max_page_count = 1000000").fetchall(), in_transaction=False).result()
    guard = SpaceGuard(writer, store.path, floor_bytes=10**8, free=Disk())
    run_guard(store, guard)
    assert store.append(build.batch(build.call(2, 2))).accepted == 1


def test_statements_of_the_schema_name_no_function_of_ours() -> None:
    assert not [sql for sql in tables.definitions() if re.search(r"tierlight_\w+\(", sql)]
