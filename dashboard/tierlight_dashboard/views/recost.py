"""Pricing stored calls again from the page: first a look, then the deed; with progress, and a way to stop."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import Literal

from tierlight.pricing import PriceBook
from tierlight_collector.errors import CollectorError
from tierlight_collector.records import Filters
from tierlight_collector.reprice import RepriceLine, apply, plan
from tierlight_collector.stores.protocol import FactStore


class _Stopped(Exception):
    pass


@dataclass(frozen=True, slots=True)
class Course:
    """Where a run stands. `total` is what it changes, or would change; None until it has ended well."""

    model: str = ""  # "" = all models
    does: bool = False  # writes; else it only looks
    state: Literal["idle", "running", "done", "stopped", "failed"] = "idle"
    seen: int = 0
    total: RepriceLine | None = None
    error: str = ""


class Recost:
    """At most one run at a time."""

    def __init__(self, store: FactStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._wanted = threading.Event()
        self._thread: threading.Thread | None = None
        self.course = Course()

    def start(self, book: PriceBook, model: str, *, does: bool) -> bool:
        """Begin a run over the calls of a model, "" for all; False while another one is going on."""
        with self._lock:
            if self.course.state == "running":
                return False
            self._wanted.clear()
            self.course = Course(model, does, "running")
            self._thread = threading.Thread(target=self._run, args=(book,), name="recost", daemon=True)
            self._thread.start()
            return True

    def stop(self) -> None:
        """End the run after its present page; what it has written stays, and can be gone on with."""
        self._wanted.set()

    def wait(self, seconds: float) -> None:
        """Until the run has ended, at most so long: a short one is shown with its outcome at once."""
        if self._thread is not None:
            self._thread.join(seconds)

    def _run(self, book: PriceBook) -> None:
        model, does = self.course.model, self.course.does
        where = Filters(purpose=(), model=(model,) if model else ())
        try:
            report = (apply if does else plan)(self._store, book, where, progress=self._progress)
        except _Stopped:
            self._change(state="stopped")
        except CollectorError as error:
            self._change(state="failed", error=str(error))
        else:
            self._change(state="done", total=report.total)

    def _progress(self, seen: int) -> None:
        self._change(seen=seen)
        if self._wanted.is_set():
            raise _Stopped

    def _change(self, **changes: object) -> None:
        self.course = replace(self.course, **changes)  # type: ignore[arg-type]
