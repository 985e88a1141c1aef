"""The watch in a process of its own, to be killed: judges what a store holds in small batches, a line after each.

Usage: watching.py STORE_URL BATCH NOW_NS
"""

from __future__ import annotations

import sys

from tierlight_collector.decisions import Alert, WatchCommit
from tierlight_collector.stores import open_store
from tierlight_dashboard import watch


def main(url: str, batch: int, now_ns: int) -> None:
    watch.BATCH = batch
    store = open_store(url, now_ns=lambda: now_ns)
    store_it = store.commit_watch

    def told(commit: WatchCommit) -> tuple[Alert, ...]:
        stored = store_it(commit)
        print("committed", flush=True)
        return stored

    store.commit_watch = told  # type: ignore[method-assign]
    watch.Watch(store).tick(now_ns)
    store.close()
    print("done", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
