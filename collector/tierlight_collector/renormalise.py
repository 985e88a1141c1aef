"""Read a whole store again by today's rules: after an upgrade that reads some sender's spans better.

A look first, as with prices: `look` does the work on a copy and says what would change, also beside a running server.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from .costing import Costing
from .normalise import PLAIN_RULES, RouteRules
from .stores import KEEP_ALL, open_store
from .stores.backup import back_up
from .stores.protocol import FactStore

CHUNK: Final = 500  # spans of one transaction: ingest waits that long at the most
Progress = Callable[[int], None]


@dataclass(slots=True)
class RenormaliseReport:
    """What reading again came to. `columns` counts the calls that differ by column; `gone` spans are kept no longer."""

    applied: bool = False
    spans: int = 0
    calls: int = 0
    changed: int = 0
    gone: int = 0
    columns: Counter[str] = field(default_factory=Counter)


def apply(
    store: FactStore,
    costing: Costing,
    *,
    since_ns: int = 0,
    routes: Sequence[str] = (),
    progress: Progress | None = None,
) -> RenormaliseReport:
    """Read the stored spans again and write what they say differently; a second time changes nothing.

    Interrupted, it has done a part; run it again for the rest.

    Args:
        since_ns: Only spans that began at or after this.
        routes: Only traces with a call that stands under one of these routes today; empty = all.
        progress: Called after each chunk with the number of spans looked at.
    """
    report = RenormaliseReport(applied=True)
    after = 0
    while True:
        done = store.renormalise(costing, after=after, limit=CHUNK, since_ns=since_ns, routes=routes)
        if done.last_seq is None:
            return report
        after = done.last_seq
        report.spans += done.spans
        report.calls += done.calls
        report.changed += done.changed
        report.gone += done.gone
        report.columns.update(done.columns)
        if progress is not None:
            progress(report.spans)


def look(
    path: Path,
    costing: Costing,
    *,
    since_ns: int = 0,
    routes: Sequence[str] = (),
    rules: RouteRules = PLAIN_RULES,
) -> RenormaliseReport:
    """What `apply` would change in the store at `path`, found out on a copy beside it that is deleted again.

    Raises:
        StoreError: there is no store, or no room for a copy of it.
    """
    with tempfile.TemporaryDirectory(prefix=".tierlight-look-", dir=path.absolute().parent) as folder:
        copy = Path(folder) / "copy.db"
        back_up(path, copy)
        store = open_store(f"sqlite:///{copy}", retention=KEEP_ALL, rules=rules)
        try:
            report = apply(store, costing, since_ns=since_ns, routes=routes)
        finally:
            store.close()
    report.applied = False
    return report
