"""Sends every accepted span on to other OTLP backends, from the outbox that was filled in the same COMMIT.

One task and one cursor a target: a slow or dead target stops neither the others nor ingest. At least once: a crash
between a delivery and its cursor sends again, and OTLP backends know a span by its ids. Order is kept within a target.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

from .errors import BadTarget, StoreError
from .limits import MIB
from .payload import ForwardSignal, count, halves, strip_content, unseal
from .stores.protocol import Outbox, OutboxBatch, OutboxTarget
from .transport import Delivery, GrpcTransport, HttpTransport, Transport

logger = logging.getLogger("tierlight.forward")

MAX_REQUEST_BYTES: Final = 4 * MIB
MAX_REQUEST_SPANS: Final = 512
FIRST_WAIT_S: Final = 1.0
LONGEST_WAIT_S: Final = 60.0
BLOCKED_WAIT_S: Final = 300.0
IDLE_S: Final = 0.5
STORE_WAIT_S: Final = 1.0
TRIM_EVERY_S: Final = 30.0
DRAIN_LOOK_S: Final = 0.05
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class ForwardTarget:
    """Another OTLP backend. Header values may be `env:NAME` or `file:PATH`: secrets are read at start, never stored."""

    name: str
    endpoint: str
    protocol: Literal["http/protobuf", "grpc"] = "http/protobuf"
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bool = False
    signals: tuple[ForwardSignal, ...] = ("traces",)
    compress: bool = True
    max_queue_bytes: int = 256 * MIB
    max_age_s: float = 24 * 3600.0


def check_target(target: ForwardTarget, own_ports: Iterable[int] = ()) -> None:
    """Refuse a target that can't work or that is this collector itself.

    Raises:
        BadTarget: the message names the target and what was expected.
    """
    parts = urlsplit(target.endpoint)
    try:
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)
    except ValueError:
        port = 0
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or not port:
        raise BadTarget(
            f"forward target {target.name!r}: expected an endpoint such as http://host:4318, got another form"
        )
    if parts.username or parts.password:
        raise BadTarget(
            f"forward target {target.name!r}: credentials belong into a header read by env: or file:, not into the URL"
        )
    is_here = parts.hostname in ("localhost", "0.0.0.0", "::", "::1") or parts.hostname.startswith("127.")
    if is_here and port in set(own_ports):
        raise BadTarget(f"forward target {target.name!r} is this collector itself")


def read_secret(value: str, environ: Mapping[str, str] = os.environ) -> str:
    """A header's value: the text itself, or what `env:NAME` or `file:PATH` holds.

    Raises:
        BadTarget: the variable or file is missing; the message never holds the value.
    """
    kind, _, place = value.partition(":")
    if kind == "env":
        if place not in environ:
            raise BadTarget(f"environment variable {place} is not set")
        return environ[place]
    if kind == "file":
        try:
            return Path(place).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise BadTarget(f"header file {place} can't be read") from error
    return value


@dataclass(frozen=True, slots=True)
class TargetStatus:
    """Where a target stands, for the command line and the settings page."""

    target: OutboxTarget
    endpoint: str


class Forwarder:
    """The senders of all targets. `run` serves until it is cancelled; the other methods may be called meanwhile."""

    def __init__(
        self,
        store: Outbox,
        targets: Sequence[ForwardTarget],
        *,
        instance_id: str,
        clock_ns: Callable[[], int] = time.time_ns,
        first_wait_s: float = FIRST_WAIT_S,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._store = store
        self._targets = {target.name: target for target in targets}
        self._headers = {
            target.name: {name: read_secret(value, environ) for name, value in target.headers.items()}
            for target in targets
        }
        self._instance_id = instance_id
        self._clock_ns = clock_ns
        self._first_wait_s = first_wait_s
        self._random = random.Random()
        self._states: dict[str, OutboxTarget] = {}
        self._woken = {target.name: asyncio.Event() for target in targets}
        self._stopping = asyncio.Event()
        self.trimmed = 0

    @property
    def wants_content(self) -> bool:
        """Whether captured text must be kept in the outbox; else ingest strips it before it is written."""
        return any(target.content for target in self._targets.values())

    async def run(self, *, forget_others: bool = True) -> None:
        """Deliver until `stop`. Stored targets that are not ours any more are forgotten, with what waits for them."""
        stored = {state.name: state for state in await asyncio.to_thread(self._store.outbox_targets)}
        for name in stored.keys() - self._targets.keys() if forget_others else ():
            await asyncio.to_thread(self._store.remove_outbox_target, name)
        for name in self._targets:
            self._states[name] = stored.get(name, OutboxTarget(name, 0))
            await asyncio.to_thread(self._store.save_outbox_target, self._states[name])
        async with asyncio.TaskGroup() as tasks:
            for target in self._targets.values():
                tasks.create_task(self._serve(target))
            tasks.create_task(self._trim())

    async def drain(self, timeout_s: float) -> int:
        """Deliver what waits, then stop; gives the number of spans that still wait when the time is over.

        For a program of its own, in the place of `run`: other targets and what waits for them stay as they are.
        Paused targets are sent to as well, and are paused again afterwards.
        """
        paused = [
            target.name
            for target in await asyncio.to_thread(self._store.outbox_targets)
            if target.name in self._targets and target.state == "paused"
        ]
        serving = asyncio.create_task(self.run(forget_others=False))
        deadline = time.monotonic() + timeout_s
        try:
            while len(self._states) < len(self._targets) and not serving.done():
                await asyncio.sleep(DRAIN_LOOK_S)
            for name in paused:
                await self.resume(name)
            while (left := await self._left()) and time.monotonic() < deadline and not serving.done():
                await asyncio.sleep(DRAIN_LOOK_S)
        finally:
            self.stop()
            await serving
        for name in paused:
            await self.pause(name)
        return left

    async def _left(self) -> int:
        """Spans that wait for any of the targets; one that waits for two is counted twice."""
        waiting = [
            await asyncio.to_thread(self._store.outbox_waiting, state.next_seq)
            for state in self._states.values()
        ]
        return sum(each.spans for each in waiting)

    def stop(self) -> None:
        """Finish the deliveries in flight; what waits stays in the outbox."""
        self._stopping.set()
        self.wake()

    def wake(self) -> None:
        """Look into the outbox now."""
        for event in self._woken.values():
            event.set()

    def status(self) -> list[TargetStatus]:
        return [TargetStatus(state, self._targets[name].endpoint) for name, state in self._states.items()]

    async def pause(self, name: str) -> None:
        await self._change(name, state="paused")

    async def resume(self, name: str) -> None:
        """Try again now, whatever the state."""
        await self._change(name, state="ok", attempts=0)

    async def skip(self, name: str, *, everything: bool = False) -> int:
        """Give up the oldest request that waits for the target, or all of them; gives the spans given up."""
        next_seq, spans = await asyncio.to_thread(
            skipped, self._store, self._states[name], everything=everything
        )
        state = self._states[name]  # what was delivered meanwhile is passed, not skipped
        if next_seq > state.next_seq:
            await self._change(name, next_seq=next_seq, attempts=0, dropped=state.dropped + spans)
        return spans

    async def _serve(self, target: ForwardTarget) -> None:
        kind = GrpcTransport if target.protocol == "grpc" else HttpTransport
        transport: Transport = kind(target.endpoint, self._headers[target.name], compress=target.compress)
        try:
            while not self._stopping.is_set():
                try:
                    wait_s = await self._step(target, transport)
                except StoreError as error:  # a full disk or a busy writer passes; nothing was marked as sent
                    logger.warning("forward target %s waits for the store: %s", target.name, error)
                    wait_s = STORE_WAIT_S
                if wait_s:
                    await self._sleep(target.name, wait_s)
        finally:
            await transport.close()

    async def _step(self, target: ForwardTarget, transport: Transport) -> float:
        """Deliver what may go into one request; gives the time to wait before the next."""
        state = self._states[target.name]
        if state.state == "paused":
            return IDLE_S
        waiting = await asyncio.to_thread(self._store.outbox_batches, state.next_seq, MAX_REQUEST_BYTES)
        if not waiting:
            return IDLE_S
        batches = _joined(waiting, target)
        if not batches:  # nothing of a signal that this target takes
            await self._change(target.name, next_seq=waiting[-1].seq + 1)
            return 0.0
        passed = batches[-1].seq + 1
        signal = batches[0].signal
        hops, _ = unseal(batches[0].payload)
        payload = b"".join(unseal(batch.payload)[1] for batch in batches)
        if self.wants_content and not target.content:
            payload = strip_content(signal, payload)
        path = f"{hops},{self._instance_id}" if hops else self._instance_id
        delivery, sent, dropped = await self._deliver(transport, signal, payload, path)
        state = self._states[target.name]  # it may have been paused meanwhile
        if delivery.verdict in ("retry", "blocked"):
            is_blocked = delivery.verdict == "blocked"
            attempts = state.attempts + 1
            await self._change(
                target.name,
                state=state.state if state.state == "paused" else "blocked" if is_blocked else "retrying",
                attempts=attempts,
                last_error=delivery.message,
            )
            return BLOCKED_WAIT_S if is_blocked else self._wait_s(attempts, delivery.retry_after_s)
        if dropped:
            logger.warning(
                "forward target %s took %d spans never: %s", target.name, dropped, delivery.message
            )
        await self._change(
            target.name,
            next_seq=max(state.next_seq, passed),
            state=state.state if state.state == "paused" else "ok",
            attempts=0,
            last_error=delivery.message,
            sent=state.sent + sent,
            dropped=state.dropped + dropped,
        )
        return 0.0

    async def _deliver(
        self, transport: Transport, signal: ForwardSignal, payload: bytes, hops: str
    ) -> tuple[Delivery, int, int]:
        """Send, in halves where the target says it is too much; gives the last word and the spans sent and dropped.

        A retry in the middle sends the first halves again: a target knows them by their ids.
        """
        delivery = await transport.send(signal, payload, hops)
        spans = count(signal, payload)
        if delivery.verdict == "sent":
            return delivery, spans - delivery.rejected, delivery.rejected
        if delivery.verdict == "too_large" and (parts := halves(signal, payload)):
            sent = dropped = 0
            for part in parts:
                delivery, sent_here, dropped_here = await self._deliver(transport, signal, part, hops)
                sent, dropped = sent + sent_here, dropped + dropped_here
                if delivery.verdict in ("retry", "blocked"):
                    break
            return delivery, sent, dropped
        if delivery.verdict in ("retry", "blocked"):
            return delivery, 0, 0
        return delivery, 0, spans

    def _wait_s(self, attempts: int, said: float | None) -> float:
        """Exponential with full jitter, unless the target said when."""
        if said is not None:
            return said
        longest = min(LONGEST_WAIT_S, self._first_wait_s * 2.0 ** min(attempts - 1, 16))
        return longest * self._random.random()

    async def _change(self, name: str, **columns: object) -> None:
        state = replace(self._states[name], **columns)  # type: ignore[arg-type]
        self._states[name] = state
        await asyncio.to_thread(self._store.save_outbox_target, state)
        if columns.get("attempts") == 0:
            self._woken[name].set()

    async def _sleep(self, name: str, seconds: float) -> None:
        event = self._woken[name]
        event.clear()
        if not self._stopping.is_set():
            await _wait(event, seconds)

    async def _trim(self) -> None:
        """Drop the oldest of what no target took for too long."""
        most = max(target.max_queue_bytes for target in self._targets.values())
        longest_s = max(target.max_age_s for target in self._targets.values())
        last_said = 0.0
        while not self._stopping.is_set():
            before_ns = self._clock_ns() - int(longest_s * 1e9)
            try:
                dropped = await asyncio.to_thread(self._store.trim_outbox, most, before_ns)
            except StoreError as error:
                logger.warning("the forwarding queue was not trimmed: %s", error)
                dropped = 0
            self.trimmed += dropped
            if dropped and (not last_said or time.monotonic() - last_said > 3600):
                last_said = time.monotonic()
                logger.error("the forwarding queue is over its limit: %d spans were dropped", dropped)
            await _wait(self._stopping, TRIM_EVERY_S)


def skipped(store: Outbox, target: OutboxTarget, *, everything: bool) -> tuple[int, int]:
    """Where the cursor stands and how many spans are given up when the oldest waiting request, or all, is skipped."""
    oldest = store.outbox_batches(target.next_seq, 1)
    if not oldest:
        return target.next_seq, 0
    if not everything:
        return oldest[0].seq + 1, oldest[0].spans
    waiting = store.outbox_waiting(target.next_seq)
    return waiting.last_seq + 1, waiting.spans


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass  # that was the wait


def _joined(waiting: Sequence[OutboxBatch], target: ForwardTarget) -> list[OutboxBatch]:
    """The first batches that may share a request: one signal, one way here, not too many spans."""
    taken: list[OutboxBatch] = []
    spans = 0
    for batch in waiting:
        if batch.signal not in target.signals:
            continue
        if taken and (
            batch.signal != taken[0].signal
            or unseal(batch.payload)[0] != unseal(taken[0].payload)[0]
            or spans + batch.spans > MAX_REQUEST_SPANS
        ):
            break
        taken.append(batch)
        spans += batch.spans
    return taken
