"""Stores of facts and decisions. `open_store` gives the one a URL names; `protocol` says what it promises."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

from tierlight._version import __version__

from ..normalise import PLAIN_RULES, RouteRules
from .files import path_of_url
from .horizons import KEEP_ALL, Retention
from .protocol import Store
from .sql import DEFAULT_RETENTION, SqliteStore

__all__ = ["KEEP_ALL", "Retention", "Store", "open_store"]


def open_store(
    url: str,
    *,
    read_only: bool = False,
    durability: Literal["normal", "full"] = "normal",
    now_ns: Callable[[], int] = time.time_ns,
    retention: Retention = DEFAULT_RETENTION,
    rules: RouteRules = PLAIN_RULES,
) -> Store:
    """The store at `sqlite:///relative.db` or `sqlite:////absolute.db`, made or upgraded where needed.

    Open it once per process and share it: it is thread-safe. Only one process may open it for writing; any
    number may read.

    Args:
        read_only: opens an existing store beside the process that writes it.
        durability: "full" syncs the disk at each commit, so that a power cut loses nothing acknowledged;
            a killed process loses nothing in either case.
        now_ns: the clock, in nanoseconds since 1970.
        retention: how long texts, raw spans and calls are kept.
        rules: how the project names its routes.

    Raises:
        StoreLocked: another process writes this store.
        SchemaTooNew: a newer tierlight made it.
        StoreDamaged: the file is not a readable database; the message says how to save what is in it.
    """
    return SqliteStore(
        path_of_url(url),
        read_only=read_only,
        durability=durability,
        app_version=__version__,
        now_ns=now_ns,
        retention=retention,
        rules=rules,
    )
