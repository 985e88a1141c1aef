"""Where the policy comes from: an object, a file, or a collector that is asked now and then off the calling thread.

A revision that can't be read or must not be loaded never replaces the one in use: it is counted and logged once.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from .._guard import report
from ..errors import ConfigurationError, PolicyError
from .decide import Chooser
from .declared import Route
from .policy import MAX_BYTES, Policy

if TYPE_CHECKING:
    import httpx

    from ..pricing import PriceBook

POLL_S: Final = 30.0
FIRST_S: Final = 5.0
VARIABLE: Final = "TIERLIGHT_POLICY"


def load_policy(path: str | os.PathLike[str], *, prices: PriceBook | None = None) -> Policy:
    """Read a policy file; the files that it names are looked for beside it.

    Args:
        prices: what the steps of cascades are compared by; None = list prices.

    Raises:
        PolicyError: it can't be read or must not be loaded; the message names the file or key.
    """
    file = Path(path)
    try:
        toml = file.read_bytes()
    except OSError as error:
        raise PolicyError(f"{file}: the policy can't be read: {error.strerror or error}") from error
    policy = Policy.from_toml(toml, read=lambda name: (file.parent / name).read_bytes())
    _check_cascade_prices(policy, prices)
    return policy


def _check_cascade_prices(policy: Policy, prices: PriceBook | None) -> None:
    """Prices are loaded (half a second, once) only for a policy that has cascades to check."""
    if any(route.strategy == "cascade" for route in policy.routes.values()):
        from datetime import UTC, datetime

        from ..pricing import PriceBook
        from .check import check_prices

        check_prices(policy, prices if prices is not None else PriceBook.default(), datetime.now(UTC))


class PolicySource:
    """Gives the policy in use. A file is read again when it changes, an address is polled with its ETag.

    Args:
        given: a policy, a path, an address, or "" for what TIERLIGHT_POLICY names.
        prices: as of `load_policy`.
        default: what is used until an address has served something.
        fetch: how an address is asked: (etag) -> (etag, toml), None = unchanged; for tests.
    """

    def __init__(
        self,
        given: Policy | str,
        *,
        poll_s: float = POLL_S,
        fetch: Callable[[str], tuple[str, bytes] | None] | None = None,
        default: Policy | None = None,
        prices: PriceBook | None = None,
    ) -> None:
        self._prices = prices
        self.counters: Counter[str] = Counter()
        self._folder: Path | None = None
        self._address = ""
        self._etag = ""
        self._stamp: tuple[int, int] | None = None
        self._poll_s = max(POLL_S, poll_s) if fetch is None else poll_s
        self._next = 0.0
        self._lock = threading.Lock()
        self._is_closed = threading.Event()
        self._is_forked = False
        if isinstance(given, Policy):
            self._policy = given
            return
        named = given or os.environ.get(VARIABLE, "")
        if not named:
            raise ConfigurationError(
                f"a router needs a policy: give one, or set {VARIABLE} to a file or a collector's /api/v1/policy"
            )
        if named.startswith(("http://", "https://")):
            self._address = named
            self._fetch = fetch if fetch is not None else self._get
            self._policy = self._first(named, default)
            self._start()
            _polling.add(self)
            return
        self._file = Path(named)
        self._folder = self._file.parent
        self._stamp = _stamp(self._file)
        self._policy = load_policy(self._file, prices=self._prices)

    def _first(self, address: str, default: Policy | None) -> Policy:
        """What the address serves now, or the default until it serves something."""
        try:
            found = self._fetch("")
            if found is not None:
                policy = _served(found[1], self._prices)
                self._etag = found[0]
                return policy
            why = "the collector has no approved policy yet"
        except Exception as error:  # noqa: BLE001  whatever is wrong with it, a default may stand in
            why = (
                f"{type(error).__name__}: {error}" if isinstance(error, PolicyError) else type(error).__name__
            )
            if default is not None:
                report("fetch the policy", error)
        if default is None:
            raise ConfigurationError(
                f"{address}: no policy can be had ({why}); start the collector, or give default_policy"
            )
        self.counters["policy_stale"] += 1
        return default

    def current(self) -> Policy:
        """The policy in use. Of a file it looks at most once a second whether it has changed."""
        if self._is_forked:
            self._start()
        if self._folder is not None and time.monotonic() >= self._next:
            with self._lock:
                self._next = time.monotonic() + 1.0
                self._look_again()
        return self._policy

    def refresh(self) -> None:
        """Ask the address once; on any fault the policy in use stays. A policy of no address is as new as it gets."""
        if not self._address or self._is_closed.is_set():
            return
        try:
            found = self._fetch(self._etag)
            if found is not None:
                etag, toml = found
                self._policy = _served(toml, self._prices)
                self._etag = etag
                self.counters["policy_refreshed"] += 1
        except Exception as error:  # noqa: BLE001  the last good policy is better than any fault
            if self._is_closed.is_set():
                return  # its connection was closed meanwhile
            self.counters["policy_stale"] += 1
            report("refresh the policy", error)

    def close(self) -> None:
        """Stop polling."""
        self._is_closed.set()
        client = self.__dict__.pop("_http", None)
        if client is not None:
            client.close()

    def chooser(self, route: Route) -> Chooser | None:
        """The learned router or the labelled examples that a route names.

        Raises:
            ConfigurationError: the file is missing or was changed, or an extra is not installed.
        """
        from .artefact import LearnedRouter
        from .embed import embedder
        from .examples import NearestExample

        if route.strategy == "embedding":
            return NearestExample(
                embedder(route.embedder), route.examples, route.min_similarity, route.default
            )
        if not route.artefact:
            return None
        file = (self._folder or Path()) / route.artefact
        try:
            text = file.read_bytes()
        except OSError as error:
            raise ConfigurationError(
                f"route {route.name!r}: the learned router {file} can't be read: {error.strerror}"
            ) from error
        router = LearnedRouter.from_json(text)
        return LearnedRouter.from_json(text, embedder(router.embedder)) if router.mode == "full" else router

    def _look_again(self) -> None:
        stamp = _stamp(self._file)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._policy = load_policy(self._file, prices=self._prices)
            self.counters["policy_refreshed"] += 1
        except PolicyError as error:
            self.counters["policy_stale"] += 1
            report("reload the policy", error)

    def _start(self) -> None:
        """Poll on a thread of its own.."""
        self._is_forked = False
        threading.Thread(target=self._poll, name="tierlight-policy", daemon=True).start()

    def start_afresh(self) -> None:
        """In a forked child: the thread is not there, and locks and connections are its parent's."""
        self._lock = threading.Lock()
        self.__dict__.pop("_http", None)
        if not self._is_closed.is_set():
            self._is_closed = threading.Event()
            self._is_forked = True  # a child that never routes need not poll

    def _poll(self) -> None:
        while not self._is_closed.wait(self._poll_s):
            self.refresh()

    @cached_property
    def _http(self) -> httpx.Client:
        """Kept: each new client reads the certificates of all authorities, 36 ms of the application's time."""
        import httpx

        return httpx.Client(timeout=FIRST_S)

    def _get(self, etag: str) -> tuple[str, bytes] | None:
        headers: dict[str, Any] = {"If-None-Match": etag} if etag else {}
        token = os.environ.get("TIERLIGHT_TOKEN", "")
        if token:
            headers["Authorization"] = f"Bearer {token}"
        response = self._http.get(self._address, headers=headers)
        if response.status_code in (204, 304, 404):
            return None
        response.raise_for_status()
        if len(response.content) > MAX_BYTES:
            raise PolicyError(
                f"{self._address}: a policy has at most {MAX_BYTES} bytes, got {len(response.content)}"
            )
        return response.headers.get("etag", ""), response.content


# Held weakly: a source that is thrown away costs a fork nothing.
_polling: weakref.WeakSet[PolicySource] = weakref.WeakSet()


def _start_all_afresh() -> None:
    for source in list(_polling):
        source.start_afresh()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_all_afresh)


def _served(toml: bytes, prices: PriceBook | None) -> Policy:
    policy = Policy.from_toml(toml, is_served=True)
    _check_cascade_prices(policy, prices)
    return policy


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
