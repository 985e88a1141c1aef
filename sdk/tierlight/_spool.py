"""Requests that could not be sent, kept on disk until a process can send them.

A file is a magic word, then records `<u32 length><u32 crc32><request bytes>`; a wrong length or checksum ends
it (the tail of a killed process), what stands before it counts. Names tell the state:

    <pid>-<start>-<n>.open            being written
    <pid>-<start>-<n>.otlp            complete
    <pid>-<start>-<n>.sending-<pid>   claimed by a process that sends it

A process holds an advisory lock on a file as long as it writes or sends it, so a file whose lock is free was
left behind by a dead process, whatever its name says; a pid alone cannot tell (containers all have pid 1).
Sending a record twice is harmless: spans have ids.
"""

from __future__ import annotations

import os
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tierlight._encode import Signal, items_of

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_MAGIC: dict[Signal, bytes] = {"traces": b"TLSP1\n", "logs": b"TLSL1\n"}
_SIGNALS: dict[bytes, Signal] = {magic: signal for signal, magic in _MAGIC.items()}
_MAGIC_BYTES = 6
_HEAD = struct.Struct("<II")
_MAX_RECORD_BYTES = 64 * 1024 * 1024

FILE_BYTES = 4 * 1024 * 1024
MAX_BYTES = 64 * 1024 * 1024
MAX_AGE_S = 7 * 24 * 3600


@dataclass(slots=True)
class _Open:
    path: Path
    descriptor: int
    size: int


class Spool:
    """The spool folder as one process sees it. Not thread-safe: the pipeline calls it under its own lock.

    Args:
        folder: Made with mode 0700 when absent; files get 0600.
        lost: Called with a reason (`spool_full`, `expired`) and a number of spans or scores when files are
            dropped unsent.
        max_bytes: Over all files of all processes; the oldest file goes first.
        file_bytes: A file is complete at this size.
        max_age_s: Files older than this are dropped.

    Raises:
        OSError: the folder cannot be made or written to, or the system has no POSIX file locks.
    """

    def __init__(
        self,
        folder: Path,
        lost: Callable[[str, int], None],
        *,
        max_bytes: int = MAX_BYTES,
        file_bytes: int = FILE_BYTES,
        max_age_s: float = MAX_AGE_S,
    ) -> None:
        if fcntl is None:
            raise OSError("the spool needs the file locks of POSIX")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(f"the spool folder {folder} cannot be written to")
        self._folder = folder
        self._lost = lost
        self._max_bytes = max_bytes
        self._file_bytes = file_bytes
        self._max_age_s = max_age_s
        self._start = f"{os.getpid()}-{time.time_ns():x}"
        self._number = 0
        self._open: dict[Signal, _Open] = {}

    def append(self, signal: Signal, body: bytes) -> None:
        """Keep one request.

        Raises:
            OSError: it could not be written; what was written before is intact.
        """
        current = self._open.get(signal)
        if current is not None and not current.path.exists():  # someone cleared the folder
            self._let_go(signal)
            current = None
        if current is None:
            current = self._open[signal] = self._new_file(signal)
        record = _HEAD.pack(len(body), zlib.crc32(body)) + body
        try:
            written = os.write(current.descriptor, record)
            if written < len(record):
                raise OSError(28, "No space left on device")
        except OSError:
            os.ftruncate(current.descriptor, current.size)
            raise
        current.size += written
        if current.size >= self._file_bytes:
            self._complete(signal)

    def close(self) -> None:
        """Complete the files being written: from now on any process may send them."""
        for signal in tuple(self._open):
            self._complete(signal)

    def forget(self) -> None:
        """In a forked child: leave the parent's files to the parent."""
        for signal in tuple(self._open):
            self._let_go(signal)
        self._start = f"{os.getpid()}-{time.time_ns():x}"

    def wrote(self, claim: Claim) -> bool:
        """Whether the claimed file is one of this process's own."""
        return claim.name.startswith(f"{self._start}-")

    def claim(self) -> Claim | None:
        """Take the oldest file that no process holds, our own ones included; None when there is none."""
        self.close()
        for path, modified_ns, _ in self._files():
            claim = _claim(path)
            if claim is None:
                continue
            if time.time_ns() - modified_ns > self._max_age_s * 1e9:
                self._lost("expired", claim.count())
                claim.delete()
                continue
            return claim
        return None

    def _new_file(self, signal: Signal) -> _Open:
        self._make_room()
        path = self._folder / f"{self._start}-{self._number}.open"
        self._number += 1
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        _lock(descriptor)
        os.write(descriptor, _MAGIC[signal])
        return _Open(path, descriptor, _MAGIC_BYTES)

    def _make_room(self) -> None:
        """Drop the oldest files until one more fits under the cap."""
        files = self._files()
        total = sum(size for _, _, size in files)
        for path, _, size in files:
            if total + self._file_bytes <= self._max_bytes:
                return
            claim = _claim(path)
            if claim is not None:
                self._lost("spool_full", claim.count())
                claim.delete()
                total -= size

    def _complete(self, signal: Signal) -> None:
        current = self._open[signal]
        with suppress(OSError):
            os.fsync(current.descriptor)
        with suppress(OSError):
            current.path.rename(current.path.with_suffix(".otlp"))
        self._let_go(signal)

    def _let_go(self, signal: Signal) -> None:
        os.close(self._open.pop(signal).descriptor)

    def _files(self) -> list[tuple[Path, int, int]]:
        """Path, time of the last change and size of every spool file, oldest first."""
        found = []
        for path in self._folder.iterdir():
            if path.suffix in {".open", ".otlp"} or path.suffix.startswith(".sending-"):
                with suppress(OSError):  # another process has just deleted or renamed it
                    status = path.stat()
                    found.append((path, status.st_mtime_ns, status.st_size))
        return sorted(found, key=lambda file: (file[1], file[0].name))


class Claim:
    """One spool file that this process alone may send."""

    def __init__(self, path: Path, descriptor: int, signal: Signal) -> None:
        self.signal = signal
        self.name = path.name
        self._path = path
        self._descriptor = descriptor
        self._at = _MAGIC_BYTES

    def next(self) -> bytes | None:
        """The first request not yet passed, None at the end (or at a torn tail)."""
        head = os.pread(self._descriptor, _HEAD.size, self._at)
        if len(head) < _HEAD.size:
            return None
        length, checksum = _HEAD.unpack(head)
        if length > _MAX_RECORD_BYTES:
            return None
        body = os.pread(self._descriptor, length, self._at + _HEAD.size)
        if len(body) < length or zlib.crc32(body) != checksum:
            return None
        return body

    def passed(self, body: bytes) -> None:
        """The request that `next` gave is dealt with."""
        self._at += _HEAD.size + len(body)

    def count(self) -> int:
        """Spans or scores not yet passed."""
        return sum(request_size(body) for body in self._rest())

    def delete(self) -> None:
        """Every request is dealt with."""
        with suppress(OSError):
            self._path.unlink()
        os.close(self._descriptor)

    def release(self) -> None:
        """Leave the rest to a later time or another process."""
        with suppress(OSError):
            self._path.rename(self._path.with_suffix(".otlp"))
        os.close(self._descriptor)

    def abandon(self) -> None:
        """In a forked child: the claim stays the parent's."""
        os.close(self._descriptor)

    def _rest(self) -> Iterator[bytes]:
        start = self._at
        while (body := self.next()) is not None:
            yield body
            self.passed(body)
        self._at = start


def request_size(body: bytes) -> int:
    """Spans or scores in a request; 0 for bytes that are none."""
    try:
        return sum(1 for _ in items_of(body))
    except ValueError:
        return 0


def _claim(path: Path) -> Claim | None:
    """Lock and rename the file, or None when another process holds it or it is not ours to read."""
    try:
        descriptor = os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        return None
    claimed = path.with_suffix(f".sending-{os.getpid()}")
    try:
        if not _lock(descriptor) or os.fstat(descriptor).st_ino != path.stat().st_ino:
            raise OSError("held by another process")
        magic = os.pread(descriptor, _MAGIC_BYTES, 0)
        signal = _SIGNALS.get(magic)
        if signal is None and len(magic) == _MAGIC_BYTES:
            raise OSError("of another version")
        path.rename(claimed)
    except OSError:
        os.close(descriptor)
        return None
    return Claim(claimed, descriptor, signal or "traces")


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
