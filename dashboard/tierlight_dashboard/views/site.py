"""What every page shares: templates, static files, the state of a request, the frame round a page, forms and sessions."""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Generic, Literal, TypeVar
from urllib.parse import urlencode, urlsplit

from fastapi import HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2_fragments import render_block
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData

from tierlight._version import __version__
from tierlight.pricing import PriceBook
from tierlight_collector.decisions import Alert, AlertMute
from tierlight_collector.errors import CollectorError
from tierlight_collector.forward import Forwarder
from tierlight_collector.ingest import Refusal
from tierlight_collector.prices import OWN_PRICES, OwnPrice, as_setting, open_book, own_prices
from tierlight_collector.records import HOUR_NS, Dim, Filters, Rollup, RouteInfo, TimeRange
from tierlight_collector.stores.protocol import Store

from ..analysis.preferences import Preferences, goes_by_tier, preferences
from . import fmt, urlstate
from .assets import HERE, environment, static_files
from .charts import Chart
from .memory import Memory
from .recost import Recost
from .releases import Probes
from .shell import Formats, Shell
from .urlstate import State, route_path

log = logging.getLogger("tierlight.dashboard")

PANEL_SECONDS: Final = 2.0
WHO: Final = "local"  # who acts while there are no accounts: the person at this machine
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that the server was told at its start: what it is, and how to change it."""

    label: str
    value: str
    change: str = ""


@dataclass(frozen=True, slots=True)
class DashboardSettings:
    """How the dashboard is served. `clock` gives ns since 1970; `otlp_url` is where this machine's apps send to."""

    port: int = 4319
    otlp_url: str = "http://127.0.0.1:4318"
    names: tuple[str, ...] = ()
    clock: Callable[[], int] = time.time_ns
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    book: PriceBook | None = None  # None: as `open_book` gives it
    open_book: Callable[[Sequence[OwnPrice]], PriceBook] = lambda own: open_book(own=own)
    take_book: Callable[[PriceBook], object] = lambda book: None  # whoever else prices or judges
    cache_seconds: float = 0.25  # how long an answer of the store is good at least; 0 asks every time
    insecure: bool = False
    accept_as_normal: Callable[[int, str, int], object] | None = None  # the watch's: (alert id, who, now)
    ingest_counters: Callable[[], Mapping[str, int]] = dict  # for /health and /metrics
    last_refusal: Callable[[], Refusal | None] = lambda: None  # of the collector
    ingest_limits: Mapping[str, float] = field(default_factory=dict)
    forwarder: Forwarder | None = None  # what the command line steers
    targets: tuple[str, ...] = ()  # names of the notification targets, for the settings page
    send_test: Callable[[], object] | None = None  # tells all targets something harmless
    fixed: Mapping[str, str] = field(default_factory=dict)  # settings that the start fixes: key -> by what
    kept_days: Callable[[], Mapping[str, int]] = dict  # how long contents, spans and calls are kept now
    facts: Mapping[str, Sequence[Fact]] = field(
        default_factory=dict
    )  # what only a restart changes, by section
    on_saved: Callable[[], object] = lambda: None  # takes over settings that were just saved
    version: str = __version__


@dataclass(frozen=True, slots=True)
class Panel(Generic[T]):
    """What one part of a page shows, or why it cannot; the rest of the page is not held up by it."""

    value: T | None
    error: str = ""


class Site:
    """One store with its pages' machinery; shared by all requests and safe to use from several threads."""

    def __init__(self, store: Store, settings: DashboardSettings) -> None:
        self.store = store
        self.settings = settings
        self.panels = ThreadPoolExecutor(max_workers=8, thread_name_prefix="panel")
        self.renewing = ThreadPoolExecutor(max_workers=1, thread_name_prefix="renew")
        self._memory = Memory(self.renewing, settings.cache_seconds)
        self._book: PriceBook | None = None
        self.recost = Recost(store)
        self.probes = Probes(store)
        self.static = static_files(HERE / "static")
        self.env = environment({name: f"/static/{f.hashed}" for name, f in self.static.items()})

    def close(self) -> None:
        """Let the panels' threads go."""
        self.recost.stop()
        self.panels.shutdown(wait=False, cancel_futures=True)
        self.renewing.shutdown(wait=False, cancel_futures=True)

    @property
    def now_ns(self) -> int:
        return self.settings.clock()

    @property
    def book(self) -> PriceBook:
        """The prices in use."""
        if self._book is None:
            own = own_prices(self.store.settings())
            self._book = self.settings.book or self.settings.open_book(own)
        return self._book

    def set_prices(self, rows: Sequence[OwnPrice]) -> None:
        """Keep these as the user's own prices; what comes from now on is priced by them.

        Raises:
            ConfigurationError: they cannot be used, and nothing is changed.
        """
        book = self.settings.open_book(rows)
        self.store.set_setting(OWN_PRICES, as_setting(rows), WHO)
        self._book = book
        self.settings.take_book(book)

    # ---- the store's answers, kept a while -----------------------------------------------------------------

    def recent(self, key: str, make: Callable[[], T]) -> T:
        """`make()`, or what it gave a short while ago."""
        return self._memory.get(key, make)

    def forget(self) -> None:
        """Drop what was kept: after a person changed something they must see it."""
        self._memory.forget()

    def span(self, when: TimeRange) -> str:
        """The name of a window for `recent`: one that reaches to now is the same question a minute later."""
        return f"{when.start_ns} to {'now' if when.end_ns >= self.now_ns else when.end_ns}"

    def rollups(self, when: TimeRange, group_by: tuple[Dim, ...], where: Filters) -> list[Rollup]:
        """The store's rollups, kept a while."""
        return self.recent(
            f"rollups {when} {group_by} {where}", lambda: self.store.rollups(when, group_by, where)
        )

    def series(
        self,
        when: TimeRange,
        step: Literal["hour", "day"],
        zone: str,
        group_by: tuple[Dim, ...],
        where: Filters,
    ) -> list[tuple[datetime, Rollup]]:
        """The store's series, kept a while."""
        return self.recent(
            f"series {self.span(when)} {step} {zone} {group_by} {where}",
            lambda: self.store.series(when, step, zone, group_by, where),
        )

    def costs(
        self,
        when: TimeRange,
        step: Literal["hour", "day"],
        zone: str,
        group_by: tuple[Dim, ...],
        where: Filters,
    ) -> list[tuple[datetime, tuple[str, ...], int]]:
        """The store's costs over time, kept a while."""
        return self.recent(
            f"costs {self.span(when)} {step} {zone} {group_by} {where}",
            lambda: self.store.costs(when, step, zone, group_by, where),
        )

    def routes(self) -> list[RouteInfo]:
        return self.recent("routes", self.store.routes)

    def preferences(self) -> Preferences:
        def read() -> Preferences:
            settings = self.store.settings()
            tiers = (
                {info.route: info.declared_tier for info in self.routes()} if goes_by_tier(settings) else {}
            )
            return preferences(settings, tiers)

        return self.recent("preferences", read)

    def open_alerts(self) -> list[Alert]:
        return self.recent("alerts", lambda: self.store.alerts(states=("open", "recovering")))

    def mutes(self) -> list[AlertMute]:
        return self.recent("mutes", self.store.mutes)

    def waiting_alerts(self) -> list[Alert]:
        """Open alerts nobody has taken up and nobody muted: the number in the navigation."""
        muted = {(m.route, m.signal) for m in self.mutes() if m.until_ns is None or m.until_ns > self.now_ns}
        return [
            a for a in self.open_alerts() if a.acknowledged_ns is None and (a.route, a.signal) not in muted
        ]

    # ---- one request --------------------------------------------------------------------------------------

    def state(self, request: Request, apart: Sequence[str] = ()) -> State:
        """The state in the request's address; parameters in `apart` are the page's own to read."""
        first = self.first_ns()
        now = self.now_ns
        return urlstate.parse(
            [pair for pair in request.query_params.multi_items() if pair[0] not in apart],
            now_ns=now,
            default_range=urlstate.fitting_range(first, now),
            default_zone=self.preferences().zone,
        )

    def formats(self, state: State) -> Formats:
        """How numbers and times are written for this request."""
        prefs = self.preferences()
        return Formats(fmt.Currency(prefs.symbol, prefs.per_usd, prefs.currency), state.zone, self.now_ns)

    def svg(self, chart: Chart, title: str, name: str) -> Response:
        """A chart as a file of its own."""
        headers = {"Content-Disposition": f'inline; filename="{file_name(name)}.svg"'}
        return Response(chart.standalone(title), media_type="image/svg+xml", headers=headers)

    def first_ns(self) -> int | None:
        """When the first call that is known of was made."""
        return min((r.first_ns for r in self.routes()), default=None)

    def reaches_back(self, state: State) -> bool:
        """Whether there is data from the start of the period before: half a period compares with nothing."""
        first = self.first_ns()
        return first is not None and first <= state.previous.start_ns + 24 * HOUR_NS

    def session(self, request: Request) -> str:
        """The session of this browser, a new one where it has none yet."""
        return request.cookies.get(self._cookie) or secrets.token_urlsafe(24)

    @property
    def _cookie(self) -> str:
        return f"tierlight_{self.settings.port}"  # cookies are shared across the ports of a host

    def csrf(self, session: str) -> str:
        """The proof that a form came from a page of this session."""
        return hmac.new(self.settings.secret, session.encode(), hashlib.sha256).hexdigest()

    async def form(self, request: Request) -> FormData:
        """The fields of a form of ours.

        Raises:
            HTTPException: 403, the form did not come from a page of this session.
        """
        form = await request.form(max_files=0, max_fields=200)
        sent = form.get("csrf")
        session = request.cookies.get(self._cookie, "")
        if (
            not session
            or not isinstance(sent, str)
            or not hmac.compare_digest(sent.encode(), self.csrf(session).encode())
        ):
            raise HTTPException(
                403,
                "This form is older than the server or came from elsewhere. Reload the page and try again.",
            )
        return form

    def render(
        self,
        request: Request,
        template: str,
        *,
        state: State,
        page: str,
        title: str,
        blocks: Sequence[str] = (),
        status: int = 200,
        model: Mapping[str, Any] | None = None,
        replace_url: bool | str = True,
    ) -> Response:
        """The whole page, or the one block that htmx asked for.

        A block comes with the canonical address of what it shows, or the given one; False leaves the browser's alone.
        """
        session = self.session(request)
        prefs = self.preferences()
        context = {
            "request": request,
            "path": request.url.path,
            "state": state,
            "page": page,
            "title": title,
            "shell": Shell(self, state, request),
            "f": self.formats(state),
            "prefs": prefs,
            "csrf": self.csrf(session),
            "settings": self.settings,
            "route_path": route_path,
            **(model or {}),
        }
        block = wanted_block(request, blocks)
        headers = {"Vary": "HX-Request, HX-Target"}
        if block is None:
            body = self.env.get_template(template).render(context)
        else:
            body = render_block(self.env, template, block, context) + render_block(
                self.env, "base.html", "partials", context
            )
            if replace_url:
                kept = {name: state.values.get(name) for name in ("page", "cursor")}
                headers["HX-Replace-Url"] = (
                    replace_url if isinstance(replace_url, str) else state.here(request.url.path, **kept)
                )
        response = HTMLResponse(body, status, headers)
        self._remember(request, response, session)
        return response

    def _remember(self, request: Request, response: Response, session: str) -> None:
        if request.cookies.get(self._cookie) != session:
            response.set_cookie(self._cookie, session, httponly=True, samesite="strict", path="/")

    def redirect(self, request: Request, to: str, **done: str) -> Response:
        """See other: back to a page of ours, with a word about what was done."""
        self.forget()
        parts = urlsplit(to)
        if parts.scheme or parts.netloc or not to.startswith("/") or to.startswith("//") or "\\" in to:
            to = "/"
        if done:
            to += ("&" if "?" in to else "?") + urlencode(done)
        response = RedirectResponse(to, 303)
        self._remember(request, response, self.session(request))
        return response

    async def aside(self, do: Callable[[], T]) -> T:
        """Run a write on a worker thread: it waits for its commit."""
        return await run_in_threadpool(do)

    def panel(self, make: Callable[[], T]) -> Panel[T]:
        """The value of one panel, computed aside with its own time limit."""
        running: Future[T] = self.panels.submit(make)
        try:
            return Panel(running.result(PANEL_SECONDS))
        except FutureTimeout:
            running.cancel()
            return Panel(None, "This took too long. Narrow the range or filter by route.")
        except CollectorError as error:
            incident = secrets.token_hex(4)
            log.warning("panel failed, incident %s: %s", incident, error)
            return Panel(None, f"The store could not answer (id {incident}). Reload to try again.")


def file_name(name: str) -> str:
    """A name that is safe in a header and on every disk.

    >>> file_name('a\\r\\nSet-Cookie: x=1')
    'a-Set-Cookie-x-1'
    """
    return re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-.")[:80] or "export"


def wanted_block(request: Request, blocks: Sequence[str]) -> str | None:
    """The block htmx asked for by the id of its target; None for everybody who wants the page.

    >>> wanted_block(Request({"type": "http", "headers": [(b"hx-request", b"true")]}), ("routes",)) is None
    True
    """
    headers = request.headers
    if headers.get("HX-Request") != "true" or headers.get("HX-Request-Type") != "partial":
        return None
    if headers.get("HX-Boosted") or headers.get("HX-History-Restore-Request"):
        return None
    name = headers.get("HX-Target", "").rpartition("#")[2]
    return name if name in blocks else None
