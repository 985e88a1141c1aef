"""One fresh store per test, on a clock that the test sets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from collector.stores.build import Clock
from tierlight_collector.stores import open_store

if TYPE_CHECKING:
    from tierlight_collector.stores import Store


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def reopen(tmp_path: Path, clock: Clock) -> Iterator[Callable[[], Store]]:
    """Opens the test's store, closing it first where it is open."""
    opened: list[Store] = []

    def open_anew() -> Store:
        while opened:
            opened.pop().close()
        opened.append(open_store(f"sqlite:///{tmp_path / 'store.db'}", now_ns=clock))
        return opened[-1]

    yield open_anew
    while opened:
        opened.pop().close()


@pytest.fixture
def store(reopen: Callable[[], Store]) -> Store:
    return reopen()
