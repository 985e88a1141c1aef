"""Which hours (and their days) have a rollup that no longer says what the raw calls say."""

from __future__ import annotations

import sqlite3


class DirtyHours:
    """The marks of the writer, in its open transaction. After a rollback call `forget`.

    Every change of a call or its scores marks the call's hour; a query reads marked hours from raw calls and
    all others from rollups, so sums are right at every moment, whatever comes late.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.now_ns = 0
        self.floor_hour = 0  # the raw calls of earlier hours are gone: their rollups stay as they are
        self._marked: set[int] = set()

    def forget(self) -> None:
        self._marked = {hour for (hour,) in self._connection.execute("SELECT hour FROM dirty_hours")}

    def mark(self, hour: int) -> None:
        if hour in self._marked or hour < self.floor_hour:
            return
        self._marked.add(hour)
        self._connection.execute(
            "INSERT OR IGNORE INTO dirty_hours (hour, since_ns) VALUES (?, ?)", (hour, self.now_ns)
        )
        self._connection.execute("INSERT OR IGNORE INTO dirty_days (day) VALUES (?)", (hour // 24,))

    def clean(self, hour: int) -> None:
        """The hour's rollup was recounted in this transaction."""
        self._marked.discard(hour)
        self._connection.execute("DELETE FROM dirty_hours WHERE hour = ?", (hour,))

    def marked(self) -> frozenset[int]:
        return frozenset(self._marked)
