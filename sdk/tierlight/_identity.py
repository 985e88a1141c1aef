"""Real clocks and random ids: unique over threads, processes and forks."""

from __future__ import annotations

import os
import random
import time


class SystemClock:
    """The clocks of the machine."""

    __slots__ = ()
    time_ns = staticmethod(time.time_ns)
    perf_ns = staticmethod(time.perf_counter_ns)


class RandomIds:
    """Ids from a generator of our own: seeding `random` in the application makes no duplicates."""

    __slots__ = ("_bits",)

    def __init__(self) -> None:
        source = random.Random()
        self._bits = source.getrandbits
        # A child would otherwise go on with its parent's sequence and repeat its ids.
        os.register_at_fork(after_in_child=source.seed)

    def trace_id(self) -> int:
        """128 random bits, never 0."""
        return self._bits(128) or 1

    def span_id(self) -> int:
        """64 random bits, never 0."""
        return self._bits(64) or 1

    def call_id(self, time_ns: int) -> str:
        """A UUID of version 7 (RFC 9562, section 5.7): milliseconds first, so that ids sort by time."""
        bits = self._bits(74)
        value = (
            ((time_ns // 1_000_000) & 0xFFFF_FFFF_FFFF) << 80
            | 0x7000 << 64
            | (bits >> 62) << 64
            | 0x8000_0000_0000_0000
            | bits & 0x3FFF_FFFF_FFFF_FFFF
        )
        text = f"{value:032x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
