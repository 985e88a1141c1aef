"""A recording runtime for tests of the SDK: what was finished lands in two lists."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from tierlight._record import FinishedCall, FinishedScore, Record
from tierlight._runtime import Runtime, activate


class KeepingSink:
    """Prepares records as the export thread does, and keeps them."""

    def __init__(self) -> None:
        self.calls: list[FinishedCall] = []
        self.scores: list[FinishedScore] = []

    def offer(self, record: Record) -> None:
        if record.prepare is not None:
            record.prepare(record)  # type: ignore[arg-type]
        if isinstance(record, FinishedCall):
            self.calls.append(record)
        else:
            self.scores.append(record)

    def flush(self, timeout_s: float) -> bool:
        return True

    def stats(self) -> Mapping[str, int]:
        return {"offered": len(self.calls) + len(self.scores)}

    def shutdown(self, timeout_s: float) -> bool:
        return True


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    """The runtime in use during the test; its sink keeps what it is offered."""
    used = Runtime(sink=KeepingSink())
    previous = activate(used)
    yield used
    activate(previous)


@pytest.fixture
def calls(runtime: Runtime) -> list[FinishedCall]:
    """The calls that were recorded, in the order in which they ended."""
    assert isinstance(runtime.sink, KeepingSink)
    return runtime.sink.calls


@pytest.fixture
def scores(runtime: Runtime) -> list[FinishedScore]:
    """The scores that were recorded."""
    assert isinstance(runtime.sink, KeepingSink)
    return runtime.sink.scores


@pytest.fixture
def anyio_backend() -> str:
    """Coroutine tests (`pytest.mark.anyio`) run on asyncio."""
    return "asyncio"
