"""What `import tierlight` brings into the user's process, and what processes share."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys

import tierlight
from tierlight._identity import RandomIds

HEAVY = (
    "httpx",
    "httpx2",
    "requests",
    "urllib3",
    "genai_prices",
    "opentelemetry.sdk",
    "opentelemetry.exporter",
    "opentelemetry.proto",
    "google.protobuf",
    "grpc",
    "asyncio",
    "numpy",
    "tierlight.pricing",
    "tierlight._export",
)


def test_importing_loads_no_exporter_price_book_or_http_client() -> None:
    code = "import sys, tierlight; print('\\n'.join(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = ran.stdout.splitlines()
    assert "tierlight" in loaded
    assert [name for name in loaded if name.startswith(HEAVY)] == []


def test_a_decorated_call_before_configure_loads_nothing_either() -> None:
    code = (
        "import sys, threading, tierlight\n"
        "tierlight.route('r')(lambda: {'choices': []})()\n"
        "print('\\n'.join(sys.modules)); print(threading.active_count())"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *loaded, threads = ran.stdout.splitlines()
    assert [name for name in loaded if name.startswith(HEAVY)] == []
    assert threads == "1"


def test_every_public_name_is_listed_and_there() -> None:
    for name in tierlight.__all__:
        assert getattr(tierlight, name) is not None
    exported = {
        name
        for name, value in vars(tierlight).items()
        if not name.startswith("_") and getattr(value, "__module__", "").startswith("tierlight")
    }
    assert exported == set(tierlight.__all__) - {"__version__"}


def _draw(ids: RandomIds, results: multiprocessing.SimpleQueue[tuple[int, int]]) -> None:
    results.put((ids.trace_id(), ids.span_id()))


def test_forked_children_draw_other_ids_than_their_parent() -> None:
    context = multiprocessing.get_context("fork")
    ids = RandomIds()
    results = context.SimpleQueue()
    for _ in range(3):
        child = context.Process(target=_draw, args=(ids, results))
        child.start()
        child.join()
    drawn = [results.get() for _ in range(3)] + [(ids.trace_id(), ids.span_id())]
    assert len(set(drawn)) == 4
