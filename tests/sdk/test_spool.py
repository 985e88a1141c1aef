"""The spool: what one process could not send, another one finds intact."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tierlight._encode import Encoder
from tierlight._record import FinishedCall
from tierlight._spool import Claim, Spool, request_size


def request(*span_ids: int, text: str = "") -> bytes:
    encoder = Encoder({}, "1")
    spans = [encoder.span(FinishedCall(1, span_id, None, "n", 1, 2, {"t": text})) for span_id in span_ids]
    return encoder.request(spans)


def ignore(reason: str, items: int) -> None:
    raise AssertionError(f"{items} lost: {reason}")


def drained(spool: Spool) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    while (claim := spool.claim()) is not None:
        while (body := claim.next()) is not None:
            found.append((claim.signal, body))
            claim.passed(body)
        claim.delete()
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data" / "spool"


def test_another_process_finds_every_request_once(folder: Path) -> None:
    first = Spool(folder, ignore)
    first.append("traces", request(1))
    first.append("logs", b"")
    first.append("traces", request(2, 3))
    first.close()

    second = Spool(folder, ignore)
    assert sorted(drained(second)) == [("logs", b""), ("traces", request(1)), ("traces", request(2, 3))]
    assert drained(second) == []
    assert list(folder.iterdir()) == []


def test_a_file_being_written_or_sent_belongs_to_its_process(folder: Path) -> None:
    writer, other, third = (Spool(folder, ignore) for _ in range(3))
    writer.append("traces", request(1))
    assert other.claim() is None
    writer.close()
    claim = other.claim()
    assert claim is not None
    assert third.claim() is None
    claim.release()
    again = third.claim()
    assert again is not None
    assert again.next() == request(1)


def test_what_a_killed_process_was_writing_is_found(folder: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from tierlight._spool import Spool\n"
        "spool = Spool(Path(sys.argv[1]), print); spool.append('traces', b'whole'); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", script, str(folder)], check=False)
    assert [path.suffix for path in folder.iterdir()] == [".open"]
    assert drained(Spool(folder, ignore)) == [("traces", b"whole")]


def test_what_a_killed_process_was_sending_is_found(folder: Path) -> None:
    spool = Spool(folder, ignore)
    spool.append("traces", request(1))
    spool.close()
    [path] = folder.iterdir()
    path.rename(path.with_suffix(".sending-99999999"))
    assert drained(Spool(folder, ignore)) == [("traces", request(1))]


def cut_short(data: bytes) -> bytes:
    return data[:-3]


def bit_flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def length_garbled(data: bytes) -> bytes:
    at = len(data) - len(request(2)) - 8
    return data[:at] + b"\xff\xff\xff\xff" + data[at + 4 :]


@pytest.mark.parametrize("damage", [cut_short, bit_flipped, length_garbled])
def test_a_damaged_tail_costs_only_the_tail(folder: Path, damage: Callable[[bytes], bytes]) -> None:
    spool = Spool(folder, ignore)
    spool.append("traces", request(1))
    spool.append("traces", request(2))
    spool.close()
    [path] = folder.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    assert drained(Spool(folder, ignore)) == [("traces", request(1))]


def test_an_empty_file_goes_and_a_foreign_one_stays(folder: Path) -> None:
    spool = Spool(folder, ignore)
    (folder / "1-1-0.open").write_bytes(b"")
    (folder / "1-1-1.otlp").write_bytes(b"TLSP9\nof a later version")
    (folder / "notes.txt").write_text("not ours")
    assert drained(spool) == []
    assert sorted(path.name for path in folder.iterdir()) == ["1-1-1.otlp", "notes.txt"]


def test_the_cap_drops_the_oldest_file_and_counts_its_spans(folder: Path) -> None:
    lost: Counter[str] = Counter()
    spool = Spool(
        folder, lambda reason, items: lost.update({reason: items}), file_bytes=1_000, max_bytes=4_000
    )
    for number in range(1, 31):
        spool.append("traces", request(number, 100 + number, text="x" * 300))
    spool.close()
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 5_000
    left = [body for _, body in drained(spool)]
    assert left[-1] == request(30, 130, text="x" * 300)
    assert lost["spool_full"] + sum(map(request_size, left)) == 60
    assert lost["spool_full"] > 0


def test_files_past_their_age_are_dropped_and_counted(folder: Path) -> None:
    lost: Counter[str] = Counter()
    spool = Spool(folder, lambda reason, items: lost.update({reason: items}))
    spool.append("traces", request(1, 2, 3))
    spool.close()
    [path] = folder.iterdir()
    long_ago = time.time() - 8 * 24 * 3600
    os.utime(path, (long_ago, long_ago))
    assert spool.claim() is None
    assert lost == {"expired": 3}
    assert list(folder.iterdir()) == []


def test_only_the_owner_can_read_it(folder: Path) -> None:
    spool = Spool(folder, ignore)
    spool.append("traces", request(1))
    [path] = folder.iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_claim_goes_on_after_the_last_request_that_was_passed(folder: Path) -> None:
    spool = Spool(folder, ignore)
    for number in (1, 2, 3):
        spool.append("traces", request(number))
    claim = spool.claim()
    assert isinstance(claim, Claim)
    claim.passed(claim.next() or b"")
    assert claim.count() == 2
    assert claim.next() == request(2)


def test_a_folder_emptied_by_hand_is_no_obstacle(folder: Path) -> None:
    spool = Spool(folder, ignore)
    spool.append("traces", request(1))
    for path in folder.iterdir():
        path.unlink()
    spool.append("traces", request(2))
    spool.close()
    assert drained(spool) == [("traces", request(2))]


def test_two_processes_share_the_files_without_sending_one_twice(folder: Path) -> None:
    spool = Spool(folder, ignore, file_bytes=1)
    for number in range(40):
        spool.append("traces", request(number + 1))
    script = (
        "import sys; from pathlib import Path; from tierlight._spool import Spool\n"
        "spool = Spool(Path(sys.argv[1]), print)\n"
        "while (claim := spool.claim()) is not None:\n"
        "    print(claim.next().hex()); claim.delete()\n"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", script, str(folder)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    sent = [line for process in both for line in process.communicate(timeout=20)[0].split()]
    assert sorted(sent) == sorted(request(number + 1).hex() for number in range(40))
