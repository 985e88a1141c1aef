"""Serve the seeded month on a free port, for the browser tests: `serve_month.py STORE PORT_FILE`."""

from __future__ import annotations

import socket
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import uvicorn

sys.path.insert(0, str(Path(__file__).parents[2]))

from dashboard import seed
from tierlight_collector.records import Batch
from tierlight_collector.stores import open_store
from tierlight_collector.stores.protocol import Store
from tierlight_dashboard.app import create_app
from tierlight_dashboard.views.site import DashboardSettings


def trickle(store: Store) -> None:
    """A call now and then, for the live tail."""
    pattern = next(s for s in seed.spans(days=0, volume=0.05) if s.call is not None)
    for number in range(100_000):
        time.sleep(0.4)
        ids = (number + 1).to_bytes(16, "big"), (number + 1).to_bytes(8, "big")
        assert pattern.call is not None
        span = replace(pattern.span, trace_id=ids[0], span_id=ids[1], start_ns=seed.NOW_NS - 20 * seed.DAY_NS)
        call = replace(
            pattern.call,
            trace_id=ids[0],
            span_id=ids[1],
            route="live_probe",
            purpose="test",
            start_ns=span.start_ns,
        )
        store.append(Batch((replace(pattern, span=span, call=call, scores=(), contents=()),)))


def main(path: str, port_file: str) -> None:
    """Serve until terminated."""
    store = open_store(f"sqlite:///{path}", now_ns=lambda: seed.NOW_NS)
    seed.fill(store, volume=0.3, with_hostile=True)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    threading.Thread(target=trickle, args=(store,), daemon=True).start()
    app = create_app(store, DashboardSettings(port=port, clock=lambda: seed.NOW_NS, cache_seconds=0.2))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    Path(port_file).write_text(str(port))
    server.run([listener])


if __name__ == "__main__":
    main(*sys.argv[1:])
