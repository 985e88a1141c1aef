"""The pytest plug-in. It loads with every pytest run, so it imports tierlight only where a fixture is used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tierlight.testing import Captured, FakeProvider


@pytest.fixture
def captured_calls() -> Iterator[Captured]:
    """The calls that the test made so far."""
    from tierlight.testing import capture_calls

    with capture_calls() as captured:
        yield captured


@pytest.fixture
def fake_provider() -> FakeProvider:
    """A provider without a network: give `fake_provider.transport(httpx2)` to a client."""
    from tierlight.testing import FakeProvider

    return FakeProvider()
