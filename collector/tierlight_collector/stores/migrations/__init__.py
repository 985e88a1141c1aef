"""Numbered steps from an empty file to today's schema. A step is never edited after a release.

Each module `m<number>_<what>` has `migrate(connection)`. All steps that are missing run in one transaction; a
file with data is copied aside first.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from ...errors import SchemaTooNew
from . import m0001_first, m0002_call_failures, m0003_ids_by_run

Step = Callable[[sqlite3.Connection], None]

STEPS: Final[tuple[Step, ...]] = (m0001_first.migrate, m0002_call_failures.migrate, m0003_ids_by_run.migrate)


def version_of(connection: sqlite3.Connection) -> int:
    """The schema version of a file; 0 for an empty one."""
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'schema_version'").fetchone() is None:
        return 0
    found: int = connection.execute("SELECT ifnull(max(version), 0) FROM schema_version").fetchone()[0]
    return found


def check(connection: sqlite3.Connection, path: Path, steps: Sequence[Step] = STEPS) -> int:
    """The schema version of the file.

    Raises:
        SchemaTooNew: a newer tierlight made it.
    """
    version = version_of(connection)
    if version > len(steps):
        made_by = connection.execute(
            "SELECT app_version FROM schema_version ORDER BY version DESC LIMIT 1"
        ).fetchone()[0]
        raise SchemaTooNew(
            f"{path} has schema {version}, made by tierlight {made_by}; this one knows schemas up to"
            f" {len(steps)}: upgrade tierlight, or start with another --store"
        )
    return version


def migrate(
    connection: sqlite3.Connection,
    path: Path,
    *,
    now_ns: int,
    app_version: str,
    steps: Sequence[Step] = STEPS,
) -> int:
    """Bring the file to today's schema; gives the version it had. A step that fails leaves it as it was."""
    version = check(connection, path, steps)
    if version == len(steps):
        return version
    if version > 0:
        copies = path.parent / "backup"
        copies.mkdir(mode=0o700, exist_ok=True)
        copy = copies / f"pre-{version + 1}.db"
        copy.unlink(missing_ok=True)
        connection.execute("VACUUM INTO ?", (str(copy),))
    connection.execute("PRAGMA foreign_keys = OFF")  # a table rebuilt under cascades would lose its children
    connection.execute("BEGIN IMMEDIATE")
    try:
        for number, step in enumerate(steps[version:], version + 1):
            step(connection)
            connection.execute(
                "INSERT INTO schema_version (version, applied_ns, app_version) VALUES (?, ?, ?)",
                (number, now_ns, app_version),
            )
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    finally:
        connection.execute("PRAGMA foreign_keys = ON")
    return version
