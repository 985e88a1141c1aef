"""The database file: its lock, its connections and the pragmas of both sides."""

from __future__ import annotations

import fcntl
import os
import queue
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

from ..errors import StoreDamaged, StoreError, StoreLocked

APPLICATION_ID = 0x544C4731  # "TLG1"
READERS = 4

_NEW_FILE = (
    "PRAGMA auto_vacuum = INCREMENTAL",  # ignored once the first table exists
    f"PRAGMA application_id = {APPLICATION_ID}",
)
_WRITER = (
    "PRAGMA busy_timeout = 10000",
    "PRAGMA journal_mode = WAL",  # readers never wait for the writer
    "PRAGMA foreign_keys = ON",
    "PRAGMA journal_size_limit = 67108864",  # a WAL that grew is cut back at the next checkpoint
    "PRAGMA wal_autocheckpoint = 4000",  # 16 MiB: the same index pages are written once, not at each commit
    "PRAGMA cache_size = -16384",  # new index entries lie on the last pages, see `runs`: more gains nothing
    "PRAGMA temp_store = MEMORY",
    "PRAGMA mmap_size = 0",  # a failing disk gives an error, not SIGBUS
    "PRAGMA secure_delete = ON",  # what was purged is overwritten, not just unlinked
    "PRAGMA trusted_schema = OFF",  # a crafted file can not call functions through its schema
)
_READER = (
    "PRAGMA busy_timeout = 10000",
    "PRAGMA query_only = ON",
    "PRAGMA cache_size = -16384",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA mmap_size = 0",
    "PRAGMA trusted_schema = OFF",
)


def path_of_url(url: str) -> Path:
    """The file of `sqlite:///relative.db` or `sqlite:////absolute.db`."""
    scheme, separator, path = url.partition(":///")
    if scheme != "sqlite" or not separator or not path:
        raise StoreError(f"expected a store like sqlite:///tierlight.db, got {url!r}")
    if path == ":memory:":
        raise StoreError("a store in memory can not be shared by writer and readers: name a file")
    return Path(path).expanduser()


class DirectoryLock:
    """The right to write in one data directory; held by one process until it ends or releases it.

    SQLite up to 3.51.2 can corrupt a WAL file when two connections write or checkpoint in the same instant, so
    one connection of one process does both (https://sqlite.org/wal.html#walresetbug).
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / "tierlight.lock"
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._fd)
            raise StoreLocked(
                f"process {owner} already owns the data directory {directory}: stop it, or use its HTTP API"
            ) from error
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> DirectoryLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def connect_writer(path: Path, *, durability: str = "normal") -> sqlite3.Connection:
    """The one connection that writes. The caller holds the lock of the directory.

    `durability="full"` syncs the disk at each commit: a power cut then loses nothing that was acknowledged.
    With "normal" a power cut may lose the last commits; a killed process loses nothing either way.
    """
    is_new = not path.exists() or path.stat().st_size == 0
    if is_new:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    connection = sqlite3.connect(
        path, isolation_level=None, check_same_thread=False, cached_statements=256, timeout=10
    )
    try:
        for pragma in (*(_NEW_FILE if is_new else ()), *_WRITER):
            connection.execute(pragma)
        connection.execute(f"PRAGMA synchronous = {'FULL' if durability == 'full' else 'NORMAL'}")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        found = connection.execute("PRAGMA application_id").fetchone()[0]
        if not is_new and found != APPLICATION_ID and connection.execute("PRAGMA page_count").fetchone()[0]:
            raise StoreError(f"{path} is a SQLite file, but not one of tierlight: name another file")
    except sqlite3.DatabaseError as error:
        connection.close()
        raise damaged(path, error) from error
    except StoreError:
        connection.close()
        raise
    return connection


def connect_reader(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"file:{quote(str(path.absolute()))}?mode=ro",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
        timeout=10,
    )
    try:
        for pragma in _READER:
            connection.execute(pragma)
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.DatabaseError as error:
        connection.close()
        raise damaged(path, error) from error
    return connection


def damaged(path: Path, error: sqlite3.Error) -> StoreError:
    """The error that tells what to do about a file SQLite does not want."""
    code = getattr(error, "sqlite_errorname", "")
    if code.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return StoreDamaged(
            f"{path} is damaged ({error}). Nothing was changed. Stop tierlight and save what can be read:"
            f" sqlite3 {path} .recover | sqlite3 recovered.db, then start with --store sqlite:///recovered.db;"
            " or put a backup in its place with tierlight restore"
        )
    return StoreError(f"{path} can not be opened: {error}")


class ReaderPool:
    """At most four reading connections, opened when first needed. Each use sees one unchanging snapshot."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_closed = False
        self._slots: queue.LifoQueue[sqlite3.Connection | None] = queue.LifoQueue()
        for _ in range(READERS):
            self._slots.put(None)
        self._watch: sqlite3.Connection | None = None
        self._watching = threading.Lock()

    def version(self) -> int:
        """A number that is another one after each commit of anybody's; good only within this process."""
        with self._watching:
            if self._is_closed:
                raise StoreError("the store is closed")
            if self._watch is None:
                self._watch = connect_reader(self._path)
            found: int = self._watch.execute("PRAGMA data_version").fetchone()[0]
            return found

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """A connection inside a read transaction, which ends with the block: an open one pins the WAL."""
        connection = self._slots.get()
        try:
            if self._is_closed:
                raise StoreError("the store is closed")
            if connection is None:
                connection = connect_reader(self._path)
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                connection.execute("COMMIT")
        finally:
            self._slots.put(connection)

    def close(self) -> None:
        """Wait for the snapshots in use and close every connection. May be called again."""
        with self._watching:
            self._is_closed = True
            if self._watch is not None:
                self._watch.close()
                self._watch = None
        taken = [self._slots.get() for _ in range(READERS)]
        for connection in taken:
            if connection is not None:
                connection.close()
            self._slots.put(None)
