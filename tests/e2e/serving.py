"""A collector in a process of its own, to be killed: prints its HTTP port, serves until it dies or stdin ends."""

from __future__ import annotations

import asyncio
import sys

from tierlight_collector.serve import serve_collector
from tierlight_collector.stores import open_store


async def main(url: str) -> None:
    store = open_store(url)
    async with serve_collector(store, http_port=0, grpc_port=None) as collector:
        print(collector.http_port, flush=True)
        await asyncio.to_thread(sys.stdin.read)
    await asyncio.to_thread(store.close)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
