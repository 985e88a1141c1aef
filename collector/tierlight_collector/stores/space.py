"""Room on the disk: say no while there still is some, and get going again by ourselves."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final

from . import retention
from .writer import Writer

log = logging.getLogger(__name__)

FLOOR_BYTES: Final = 256 * 1024 * 1024
BALLAST_BYTES: Final = 32 * 1024 * 1024
_EMERGENCY_BLOCKS: Final = 200


def free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


class SpaceGuard:
    """A chore: "low" below a floor (ingest answers 503), "full" when a write failed, "ok" well above the floor.

    On a full disk SQLite can neither delete nor checkpoint. The ballast file is the room to do it in: it is given
    up first, then the oldest texts, then the oldest raw spans; calls are never deleted to make room.
    """

    def __init__(
        self,
        writer: Writer,
        path: Path,
        *,
        floor_bytes: int = FLOOR_BYTES,
        free: Callable[[Path], int] = free_bytes,
    ) -> None:
        self._writer = writer
        self._path = path
        self._ballast = path.with_name("ballast.bin")
        self._floor = floor_bytes
        self._free = free

    def run(self, connection: sqlite3.Connection, _now_ns: int) -> bool:
        writer = self._writer
        if writer.state == "damaged":
            return False
        wal = self._path.with_name(self._path.name + "-wal")
        floor = max(self._floor, 2 * wal.stat().st_size if wal.exists() else 0)
        free = self._free(self._path.parent)
        if writer.state == "ok":
            if free < floor:
                writer.state = "low"
                writer.last_error = f"{free} bytes free in {self._path.parent}, {floor} are wanted"
                log.error("the disk is nearly full, ingest answers 503: %s", writer.last_error)
            elif not self._ballast.exists() and free > 2 * floor:
                self._lay_ballast()
            return False
        if free >= floor * 3 // 2:
            writer.state, writer.last_error = "ok", ""
            log.warning("there is room on the disk again, ingest goes on")
            return False
        if writer.state == "full":
            self._ballast.unlink(missing_ok=True)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        gone = writer.in_transaction(_drop_oldest)
        retention.shrink(connection, 10_000)
        if gone:
            log.warning("%d blocks of old texts or raw spans were deleted to make room", gone)
        return gone > 0

    def _lay_ballast(self) -> None:
        fd = os.open(self._ballast, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, BALLAST_BYTES)
        except OSError as error:
            log.warning("no ballast file: %s", error)
        finally:
            os.close(fd)


def _drop_oldest(connection: sqlite3.Connection) -> int:
    for table in retention.BLOCK_TABLES:
        gone = connection.execute(
            f"DELETE FROM {table} WHERE first_seq IN (SELECT first_seq FROM {table} ORDER BY first_seq LIMIT ?)",  # noqa: S608
            (_EMERGENCY_BLOCKS,),
        ).rowcount
        if gone:
            return gone
    return 0
