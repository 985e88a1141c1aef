"""One process for all of it: OTLP/HTTP, OTLP/gRPC, the dashboard with its API, the watch and forwarding.

Listeners are opened before anything starts, so that a taken port or a forbidden address stops the start and
leaves nothing half running. Stopping goes the other way round: no new requests, finish those in flight, commit,
close the store.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

from tierlight.pricing import PriceBook
from tierlight_collector.costing import Costing
from tierlight_collector.forward import ForwardTarget
from tierlight_collector.guard import check_bind, is_loopback
from tierlight_collector.limits import IngestLimits
from tierlight_collector.normalise import PLAIN_RULES, RouteRules
from tierlight_collector.prices import open_book, own_prices
from tierlight_collector.redaction import Redaction
from tierlight_collector.serve import collect_garbage_seldom, serve_collector
from tierlight_collector.server import listen, serve_http
from tierlight_collector.stores import KEEP_ALL, Retention, open_store
from tierlight_collector.stores.protocol import Store

from .app import create_app
from .channels import Notifications
from .notify import Notifier, described
from .views.site import DashboardSettings, Fact
from .watch import TickReport, Watch

logger = logging.getLogger("tierlight")


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """What `tierlight up` was told. Port 0 takes a free one; `watch_every_s` 0 leaves the watch to the caller.

    `clock` gives nanoseconds since 1970; another than the machine's plays calls of weeks in seconds.
    """

    store: str
    host: str = "127.0.0.1"
    http_port: int = 4318
    grpc_port: int | None = 4317
    port: int = 4319
    prices: Path | None = None
    list_prices: Path | None = None
    content: bool = False
    targets: tuple[ForwardTarget, ...] = ()
    watch_every_s: float = 5.0
    insecure: bool = False
    retention: Retention = field(default_factory=Retention)
    fixed_days: tuple[str, ...] = ()  # its fields that a saved setting does not change
    config: Path | None = None
    names: tuple[str, ...] = ()
    notifications: Notifications = field(default_factory=Notifications)
    redaction: Redaction = field(default_factory=Redaction)
    rules: RouteRules = PLAIN_RULES
    clock: Callable[[], int] = time.time_ns


@dataclass(slots=True)
class Running:
    """A started server."""

    store: Store
    watch: Watch
    otlp_url: str
    grpc_port: int | None
    dashboard_url: str
    notifier: Notifier
    clock: Callable[[], int]

    def tick(self) -> TickReport:
        """Let the watch look at everything that has arrived, and tell the channels; safe beside the timer."""
        now_ns = self.clock()
        report = self.watch.tick(now_ns)
        self.notifier.tell(report, now_ns)
        return report


@contextlib.asynccontextmanager
async def serving(settings: ServeSettings) -> AsyncIterator[Running]:
    """Run everything inside the block.

    Raises:
        InsecureBind: the address is not of this machine alone and nothing protects it.
        OSError: a port is taken.
        StoreError: the store is locked, damaged or of a newer version.
    """
    check_bind(settings.host, insecure=settings.insecure)
    book = open_book(settings.prices, settings.list_prices)
    names = settings.names if is_loopback(settings.host) else (*settings.names, settings.host)
    async with contextlib.AsyncExitStack() as stack:
        pages = listen(settings.host, settings.port)
        stack.callback(pages.close)
        store = open_store(
            # Nothing is forgotten before the saved times are known.
            settings.store,
            retention=KEEP_ALL,
            now_ns=settings.clock,
            rules=settings.rules,
        )
        stack.callback(store.close)
        reopen = partial(open_book, settings.prices, settings.list_prices)
        if own := own_prices(store.settings()):
            book = reopen(own)
        costing = Costing(book)
        kept = retention_of(settings, store.settings())
        store.keep(kept)
        collector = await stack.enter_async_context(
            serve_collector(
                store,
                host=settings.host,
                http_port=settings.http_port,
                grpc_port=settings.grpc_port,
                names=names,
                costing=costing,
                limits=IngestLimits(horizon_days=kept.calls_days),
                content=settings.content,
                redaction=settings.redaction,
                rules=settings.rules,
                targets=settings.targets,
                insecure=settings.insecure,
                clock_ns=settings.clock,
            )
        )
        port = pages.getsockname()[1]
        dashboard_url = f"http://{_shown(settings.host)}:{port}"
        told = settings.notifications
        watch = Watch(store, book)

        def take_book(new: PriceBook) -> None:
            costing.use(new)
            watch.use(new)

        def take_settings() -> None:
            now_kept = retention_of(settings, store.settings())
            store.keep(now_kept)
            ingest = collector.ingest
            ingest.limits = replace(ingest.limits, horizon_days=now_kept.calls_days)

        running = Running(
            store,
            watch,
            otlp_url=f"http://{_shown(settings.host)}:{collector.http_port}",
            grpc_port=collector.grpc_port,
            dashboard_url=dashboard_url,
            notifier=Notifier(store, told.channels, told.dashboard_url or dashboard_url),
            clock=settings.clock,
        )
        dashboard = create_app(
            store,
            DashboardSettings(
                port=port,
                names=names,
                otlp_url=running.otlp_url,
                book=book,
                open_book=reopen,
                take_book=take_book,
                clock=settings.clock,
                insecure=settings.insecure,
                accept_as_normal=running.watch.accept_as_normal,
                ingest_counters=collector.ingest.counters.snapshot,
                last_refusal=lambda: collector.ingest.last_refusal,
                ingest_limits=asdict(collector.ingest.limits),
                forwarder=collector.forwarder,
                fixed={f"keep.{name}": f"--keep-{name[:-6]}-days" for name in settings.fixed_days},
                kept_days=lambda: asdict(retention_of(settings, store.settings())),
                facts=facts_of(settings, names),
                on_saved=take_settings,
                targets=tuple(map(described, told.channels)),
                send_test=partial(_send_test, running) if told.channels else None,
            ),
        )
        await stack.enter_async_context(serve_http(dashboard, pages))
        if settings.watch_every_s:
            timer = asyncio.create_task(_watch(running, settings.watch_every_s))
            stack.push_async_callback(_stop, timer)
        yield running


def retention_of(settings: ServeSettings, stored: Mapping[str, str]) -> Retention:
    """How long things are kept: as the start fixes it, else as it was saved, else by default."""
    saved = {
        name: int(text)
        for name in asdict(settings.retention)
        if name not in settings.fixed_days and (text := stored.get(f"keep.{name}", "")).isdigit()
    }
    return replace(settings.retention, **saved)


def facts_of(settings: ServeSettings, names: Sequence[str]) -> dict[str, tuple[Fact, ...]]:
    """What the server was told at its start, by the section of the settings page; secrets stay out of it."""
    file = str(settings.config) if settings.config else "tierlight.toml, with --config tierlight.toml"
    shown = ", ".join(dict.fromkeys(["localhost", "127.0.0.1", "[::1]", *names]))
    content = "stored where an app sends them" if settings.content else "not stored"
    return {
        "data": (
            Fact("Prompts and answers", content, "start without --content" if settings.content else "start with --content"),
            Fact("Masked before storing", "; ".join(settings.redaction.words) or "nothing", f'[redact] patterns = {{ ticket = "TCK-[0-9]{{6}}" }} in {file}'),
            Fact("Store", settings.store, "--store or TIERLIGHT_STORE"),
        ),
        "money": (Fact("Price file", str(settings.prices) if settings.prices else "none", "--prices prices.toml"),),
        "notify": (Fact("Targets", "", f'[[notify.slack]] url = "env:SLACK_HOOK" in {file}'),),
        "export": (Fact("Targets", "", f'[[forward]] name = "tempo" endpoint = "http://127.0.0.1:5318" in {file}, or --forward'),),
        "access": (
            Fact("Listens on", settings.host, "--host"),
            Fact("Answers to the host names", shown, ""),
            Fact("Login", "off: open to everybody, without a login" if settings.insecure else "none: only this machine reaches it", ""),
        ),
    }  # fmt: skip


def _send_test(running: Running) -> int:
    return running.notifier.test(running.clock())


async def serve(settings: ServeSettings) -> None:
    """Serve until SIGINT or SIGTERM, saying where."""
    collect_garbage_seldom()
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    async with serving(settings) as running:
        print(f"tierlight dashboard  {running.dashboard_url}")
        print(f"OTLP/HTTP            {running.otlp_url}")
        if running.grpc_port is not None:
            print(f"OTLP/gRPC            {_shown(settings.host)}:{running.grpc_port}")
        print(f"store                {settings.store}", flush=True)
        await stopped.wait()
        print("stopping: finishing what is in flight", flush=True)


@contextlib.contextmanager
def serving_in_thread(settings: ServeSettings) -> Iterator[Running]:
    """The same for a program that does something else meanwhile, such as the demo."""
    loop = asyncio.new_event_loop()
    started: asyncio.Future[Running] = loop.create_future()
    stopped = asyncio.Event()

    async def run() -> None:
        try:
            async with serving(settings) as running:
                started.set_result(running)
                await stopped.wait()
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    ready = threading.Event()
    started.add_done_callback(lambda _: ready.set())
    thread = threading.Thread(
        target=loop.run_until_complete, args=(run(),), name="tierlight-server", daemon=True
    )
    thread.start()
    ready.wait()
    try:
        yield started.result()
    finally:
        loop.call_soon_threadsafe(stopped.set)
        thread.join(timeout=15)
        if not thread.is_alive():
            loop.close()


async def _watch(running: Running, every_s: float) -> None:
    """The watch's timer: one tick at a time, on a thread of its own; a failed tick is logged and tried again."""
    while True:
        await asyncio.sleep(every_s)
        try:
            await asyncio.to_thread(running.tick)
        except Exception:
            logger.exception("the watch failed; it looks again in %s s", every_s)


async def _stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host
