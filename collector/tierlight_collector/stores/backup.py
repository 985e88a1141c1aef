"""A copy of a running store in one file, and the way back."""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path

from ..errors import StoreDamaged, StoreError
from . import migrations
from .files import DirectoryLock, connect_reader


def back_up(source: Path, target: Path) -> None:
    """Write a consistent, compact copy of the store to `target`, while others read and write it.

    `VACUUM INTO` reads one snapshot. The stepwise backup API starts again whenever another connection writes and
    never ends under load. The copy appears under its name only when it is whole and on disk.

    Raises:
        StoreError: the target exists, or its disk has less room than the store takes.
    """
    target = target.absolute()
    if target.exists():
        raise StoreError(f"{target} exists: name a new file, a backup never overwrites one")
    if not target.parent.is_dir():
        raise StoreError(f"there is no folder {target.parent}")
    needed, free = source.stat().st_size, shutil.disk_usage(target.parent).free
    if free < needed:
        raise StoreError(f"a copy of {source} needs {needed} bytes, {target.parent} has {free} free")
    partial = target.with_name(f".{target.name}.partial")
    partial.unlink(missing_ok=True)
    connection = connect_reader(source)
    try:
        connection.execute("PRAGMA query_only = OFF")  # the copy is written; the source stays open read-only
        connection.execute("VACUUM INTO ?", (str(partial),))
        os.chmod(partial, 0o600)
        _sync(partial)
        os.rename(partial, target)
        _sync(target.parent)
    except sqlite3.Error as error:
        raise StoreError(f"no backup was made: {error}") from error
    finally:
        connection.close()
        partial.unlink(missing_ok=True)


def restore(copy: Path, path: Path) -> Path | None:
    """Put a backup in the place of the store at `path`; gives where the old file was moved, None without one.

    Raises:
        StoreLocked: tierlight runs on that directory.
        StoreDamaged: the backup is not whole.
        SchemaTooNew: a newer tierlight made it.
    """
    copy, path = copy.absolute(), path.absolute()
    connection = connect_reader(copy)
    try:
        verdict = connection.execute("PRAGMA quick_check").fetchone()[0]
        if verdict != "ok":
            raise StoreDamaged(f"{copy} is damaged ({verdict}): use another backup")
        migrations.check(connection, copy)
    finally:
        connection.close()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with DirectoryLock(path.parent):
        arriving = path.with_name(f".{path.name}.arriving")
        shutil.copyfile(copy, arriving)
        os.chmod(arriving, 0o600)
        _sync(arriving)
        aside = None
        if path.exists():
            aside = _free_name(path)
            for suffix in ("-wal", "-shm"):
                beside = path.with_name(path.name + suffix)
                if beside.exists():
                    os.rename(beside, aside.with_name(aside.name + suffix))
            os.rename(path, aside)
        os.rename(arriving, path)
        _sync(path.parent)
    return aside


def _free_name(path: Path) -> Path:
    number = 1
    while (name := path.with_name(f"{path.name}.before-restore-{number}")).exists():
        number += 1
    return name


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
