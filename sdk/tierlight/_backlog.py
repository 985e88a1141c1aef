"""Encoded requests that wait for the collector to come back: on disk where possible, else in memory."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from pathlib import Path

from tierlight._encode import Signal
from tierlight._spool import Claim, Spool, request_size

log = logging.getLogger("tierlight")


class Backlog:
    """Requests to send again, oldest first. Used by the export thread alone.

    Args:
        folder: The spool; None keeps everything in memory, as does a folder that cannot be written to.
        memory_bytes: Bound of what memory holds; over it the oldest request is lost.
        lost: Called with a reason and a number of spans or scores that nobody will send any more.
    """

    def __init__(self, folder: Path | None, memory_bytes: int, lost: Callable[[str, int], None]) -> None:
        self._spool = _open_spool(folder, lost)
        self._memory_bytes = memory_bytes
        self._lost = lost
        self._held: deque[tuple[Signal, bytes]] = deque()
        self._held_bytes = 0
        self._claim: Claim | None = None
        self.may_have_more = self._spool is not None  # another process may have left something
        self.waiting = 0  # spans and scores of this process that wait here

    @property
    def place(self) -> str:
        """Where things are kept, for a log line."""
        return "on disk" if self._spool is not None else "in memory"

    def keep(self, signal: Signal, body: bytes, items: int) -> None:
        """Take a request in; nothing is raised, the last resort is to drop the oldest and count it."""
        self.may_have_more = True
        self.waiting += items
        if self._spool is not None:
            try:
                self._spool.append(signal, body)
                return
            except OSError as error:
                log.warning("The spool cannot be written to (%s); spans wait in memory.", error.strerror)
        self._held.append((signal, body))
        self._held_bytes += len(body)
        while self._held_bytes > self._memory_bytes:
            dropped = self._held.popleft()[1]
            self._held_bytes -= len(dropped)
            items = request_size(dropped)
            self.waiting -= items
            self._lost("queue_full", items)

    def next(self) -> tuple[Signal, bytes] | None:
        """The oldest request, which stays until `passed`; None when nothing is left that is ours to send."""
        if self._held:
            return self._held[0]
        while self._spool is not None:
            if self._claim is None:
                self._claim = self._spool.claim()
                if self._claim is None:
                    break
            body = self._claim.next()
            if body is not None:
                return self._claim.signal, body
            self._claim.delete()
            self._claim = None
        self.may_have_more = False
        self.waiting = 0  # what is not here any more, another process has taken over
        return None

    def passed(self, items: int) -> int:
        """The request that `next` gave is dealt with; returns how many of its items were this process's own."""
        if self._held:
            body = self._held.popleft()[1]
            self._held_bytes -= len(body)
        elif self._claim is not None:
            body = self._claim.next() or b""
            self._claim.passed(body)
            if not self._spool_wrote(self._claim):
                return 0
        self.waiting = max(0, self.waiting - items)
        return items

    def close(self) -> int:
        """Complete the files, let go of the claim; returns how many items memory still held and lose now."""
        if self._claim is not None:
            self._claim.release()
            self._claim = None
        if self._spool is not None:
            while self._held:  # the disk may have room again
                signal, body = self._held[0]
                try:
                    self._spool.append(signal, body)
                except OSError:
                    break
                self._held.popleft()
            self._spool.close()
        left = sum(request_size(body) for _, body in self._held)
        self._held.clear()
        return left

    def forget(self) -> None:
        """In a forked child: everything here is the parent's."""
        if self._claim is not None:
            self._claim.abandon()
            self._claim = None
        if self._spool is not None:
            self._spool.forget()
        self._held.clear()
        self._held_bytes = self.waiting = 0

    def _spool_wrote(self, claim: Claim) -> bool:
        return self._spool is not None and self._spool.wrote(claim)


def _open_spool(folder: Path | None, lost: Callable[[str, int], None]) -> Spool | None:
    if folder is None:
        return None
    try:
        return Spool(folder, lost)
    except OSError as error:
        log.debug("No spool at %s (%s): spans wait in memory.", folder, error)
        return None
