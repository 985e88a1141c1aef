"""Starts the server on a temporary store, plays the week into it with time compressed, and says what was found."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import tierlight
from tierlight_collector.stores.protocol import Store

from ..analysis.wording import money
from ..serve import ServeSettings, serving_in_thread
from .provider import SECOND_NS, Provider, SimulatedClock
from .support import DAY_S, WEEK_S, SupportDesk, arrivals

TICKETS_PER_FLUSH = 100  # the SDK's queue is bounded; a week in seconds would outrun it


def play(
    *,
    port: int = 4319,
    http_port: int = 4318,
    tickets_per_day: int = 500,
    seed: int = 7,
    once: bool = False,
    say: Callable[[str], None] = print,
) -> None:
    """Play the week and serve it until Ctrl-C; with `once`, stop when the data is in and say what was found.

    Raises:
        OSError: a port is taken.
    """
    with tempfile.TemporaryDirectory(prefix="tierlight-demo-") as folder:
        store = f"sqlite:///{Path(folder) / 'demo.db'}"
        settings = ServeSettings(
            store=store, port=port, http_port=http_port, grpc_port=None, watch_every_s=0.0 if once else 5.0
        )
        with serving_in_thread(settings) as running:
            say(f"tierlight dashboard  {running.dashboard_url}")
            say(f"playing a week of a support desk, {tickets_per_day} tickets a day ...")
            began = time.perf_counter()
            lost = send_week(running.otlp_url, tickets_per_day, seed)
            running.tick()
            took = time.perf_counter() - began
            health = running.store.health()
            say(f"{health.calls:,} calls in {took:.0f} s, {lost} lost")
            report(running.store, say)
            if once:
                return
            say(f"open {running.dashboard_url}   (Ctrl-C stops; the data is temporary)")
            try:
                while True:
                    time.sleep(3600)
            except KeyboardInterrupt:
                say("")


def send_week(endpoint: str, tickets_per_day: int, seed: int) -> int:
    """Send the week that ends now to an OTLP endpoint; gives the number of calls that were lost on the way."""
    rng = random.Random(seed)
    start_ns = time.time_ns() - WEEK_S * SECOND_NS
    clock = SimulatedClock(start_ns)
    tierlight.configure(
        service_name="support-desk",
        environment="production",
        endpoint=endpoint,
        spool=False,
        timeout_s=10.0,
        clock=clock,
    )
    desk = SupportDesk(Provider(clock, rng), clock, rng, start_ns)
    digests = 0
    try:
        for number, at in enumerate(arrivals(rng, tickets_per_day, start_ns / SECOND_NS)):
            clock.now_ns = start_ns + round(at * SECOND_NS)
            desk.answer()
            if at // DAY_S > digests:
                digests += 1
                desk.end_day()
            if number % TICKETS_PER_FLUSH == 0:
                tierlight.flush(30.0)
        tierlight.flush(30.0)
        return sum(n for name, n in tierlight.stats().items() if name.startswith("dropped"))
    finally:
        tierlight.shutdown()


def report(store: Store, say: Callable[[str], None]) -> None:
    """Alerts and recommendations as sentences."""
    alerts = store.alerts(states=("open", "recovering"))
    say(f"\nalerts ({len(alerts)} open)")
    for alert in alerts:
        say(f"  [{alert.severity}] {alert.sentence}")
    say("\nrecommendations")
    for advice in store.recommendations():
        saving = (
            "" if advice.saving_low_nusd is None else f" (at least {money(advice.saving_low_nusd)} a month)"
        )
        say(
            f"  [{advice.action}, {advice.state}] {advice.sentence}{saving if advice.state == 'ready' else ''}"
        )
