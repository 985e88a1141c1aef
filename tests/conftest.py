"""Shared fixtures."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples in every run: a failure is the change's, not the dice's. `--hypothesis-profile=dice` looks further.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("dice", deadline=None)
settings.load_profile("same")


def shared_data_folder() -> Path | None:
    """The folder of real captures and outcomes, kept outside the repository; None where it is absent."""
    named = os.environ.get("TIERLIGHT_SHARED_DATA")
    folder = Path(named) if named else Path(__file__).parents[2] / "shared" / "data"
    return folder if folder.is_dir() else None


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The shared data folder, or a skip that says how to point to it."""
    folder = shared_data_folder()
    if folder is None:
        pytest.skip("no shared data folder: set TIERLIGHT_SHARED_DATA to use one")
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Browser tests come last: the browser's driver keeps an event loop running in the main thread."""
    items.sort(key=lambda item: item.get_closest_marker("browser") is not None)
