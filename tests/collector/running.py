"""A collector on its own thread and ports, for tests that talk to it through sockets."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tierlight_collector.serve import Collector, serve_collector
from tierlight_collector.stores import Store, open_store


@dataclass(frozen=True, slots=True)
class Running:
    """Where the collector listens, and the store behind it."""

    url: str
    grpc_address: str
    store: Store
    collector: Collector

    @property
    def http_port(self) -> int:
        return self.collector.http_port


@contextmanager
def running_collector(folder: Path, **options: Any) -> Iterator[Running]:
    """A collector over a new store in `folder`; `options` are those of `serve_collector`."""
    store = open_store(f"sqlite:///{folder / 'calls.db'}")
    started = threading.Event()
    found: dict[str, Any] = {}

    async def serve() -> None:
        leave = asyncio.Event()
        found["leave"] = leave
        found["loop"] = asyncio.get_running_loop()
        async with serve_collector(store, **{"http_port": 0, "grpc_port": 0, **options}) as collector:
            found["collector"] = collector
            started.set()
            await leave.wait()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:  # noqa: BLE001 - handed to the test's own thread
            found["error"] = error
        finally:
            started.set()

    thread = threading.Thread(target=run, name="collector-under-test")
    thread.start()
    started.wait(timeout=20)
    try:
        if "collector" not in found:
            raise found.get("error") or RuntimeError("the collector did not start")
        collector: Collector = found["collector"]
        yield Running(
            f"http://127.0.0.1:{collector.http_port}", f"127.0.0.1:{collector.grpc_port}", store, collector
        )
    finally:
        if "collector" in found and thread.is_alive():
            found["loop"].call_soon_threadsafe(found["leave"].set)
        thread.join(timeout=20)
        store.close()
    if "error" in found:
        raise found["error"]
