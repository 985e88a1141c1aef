"""A process that stores calls and prints what was acknowledged, until it is killed. Arguments: file, first number."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

from collector.stores import build
from tierlight_collector.stores import open_store


def main(path: str, first: int) -> None:
    """Three threads of clients; each line on stdout is a call number whose append has returned."""
    store = open_store(f"sqlite:///{path}", now_ns=build.Clock())
    speak = threading.Lock()

    def client(lane: int) -> None:
        for number in range(first + lane, 10**9, 30):
            spans = [number + 3 * i for i in range(10)]
            store.append(
                build.batch(*(build.call(n, n, parent=n + 10**9, response_id=f"r{n}") for n in spans))
            )
            with speak:
                print(*spans, flush=True)

    for lane in range(3):
        threading.Thread(target=client, args=(lane,), daemon=True).start()
    threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
