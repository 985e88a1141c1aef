"""The watch: reads what arrived since it last looked, moves the tests on, opens and resolves alerts.

One tick reads the store's evidence from the stored watermark in bounded batches; each batch's states,
watermarks and alerts are stored in one transaction, and at the tick's end the verdicts on all routes. So a
kill between two batches, a replay or another cutting of the same calls changes nothing, and the work of a
tick grows with the new calls only.
"""

from __future__ import annotations

import contextlib
import gc
import json
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from tierlight.pricing import PriceBook
from tierlight_collector.decisions import Alert, AuditEntry, Recommendation, Severity, WatchCommit
from tierlight_collector.records import CallEvidence, ScoreEvidence
from tierlight_collector.stores.protocol import Store

from .advice import Advisor
from .alertbook import AlertBook
from .analysis.course import Turn
from .analysis.coverage import RouteCoverage, is_expected, touched_routes
from .analysis.incidents import stream_of
from .analysis.learning import new_normal
from .analysis.monitor import observe
from .analysis.preferences import Preferences, preferences
from .analysis.prices import FrozenPrices, price_alert
from .analysis.signals import Observation, observe_call, observe_score
from .analysis.standing import (
    CheckResult,
    Standing,
    check_result,
    standings,
    units_by_level,
)
from .analysis.state import decode, encode, keys_of
from .analysis.streams import Policy, Stream, StreamKey, threshold
from .analysis.windows import DAY_NS

BATCH = 5_000
BUDGET_KEY = "budget"
PRICES_KEY = "frozen prices"
COVERAGE_PREFIX = "coverage "


@dataclass(frozen=True, slots=True)
class TickReport:
    """What one tick read and concluded.

    `opened` holds new and reopened alerts, `worsened` those of a higher severity, `ended` the experiments that it ended.
    """

    calls: int = 0
    scores: int = 0
    opened: tuple[Alert, ...] = ()
    worsened: tuple[Alert, ...] = ()
    resolved: tuple[Alert, ...] = ()
    recommendations: tuple[Recommendation, ...] = ()
    ended: tuple[Turn, ...] = ()


class Watch:
    """Keeps the tests' states between ticks. Safe to call from several threads: ticks run one after another."""

    def __init__(self, store: Store, book: PriceBook | None = None, policy: Policy | None = None) -> None:
        self._store = store
        self._book = book
        self._configured = policy or Policy()
        self._policy = self._configured
        self._lock = threading.Lock()
        self._loaded = False
        self._streams: dict[StreamKey, Stream] = {}
        self._watermarks: dict[str, int] = {}
        self._advisor: Advisor | None = None
        self._is_judged = False
        self._prices = FrozenPrices()
        self._budget_day: int | None = None
        self._coverage: dict[str, RouteCoverage] = {}
        self._preferences = Preferences()

    def tick(self, now_ns: int) -> TickReport:
        """Read everything that has arrived, judge it, store the outcome; gives what is new."""
        with self._lock:
            report = TickReport()
            try:
                self._load()
                self._heed()
                while True:
                    calls = self._store.call_evidence(self._watermarks.get("calls", 0), BATCH)
                    scores = self._store.score_evidence(self._watermarks.get("scores", 0), BATCH)
                    if not calls and not scores:
                        report = replace(report, recommendations=self._judge(now_ns))
                        return replace(report, ended=tuple(self._settle(now_ns)))
                    if len(calls) == BATCH:
                        scores = _up_to(calls[-1].seq, scores)
                    parts = list(self._by_day(calls, scores, now_ns))
                    for number, (day, some_calls, some_scores) in enumerate(parts, 1):
                        if day is not None:
                            self._spread_budget(day)
                        more = number == len(parts) and len(scores) == BATCH
                        with _collector_paused():
                            report = _both(report, self._batch(some_calls, some_scores, now_ns, more))
            except BaseException:
                self._loaded = False  # nothing was stored: start again from what is
                raise

    def _by_day(
        self, calls: list[CallEvidence], scores: list[ScoreEvidence], now_ns: int
    ) -> Iterator[tuple[int | None, list[CallEvidence], list[ScoreEvidence]]]:
        """The evidence cut where a call begins a new day, each part with that day, None for a day that goes on."""
        newest = -1 if self._budget_day is None else self._budget_day
        opening: int | None = None
        first = 0
        for place, call in enumerate(calls):
            day = min(call.start_ns, now_ns) // DAY_NS  # a clock that runs ahead brings no day forward
            if day <= newest:
                continue
            if place > first:
                early = _up_to(calls[place - 1].seq, scores)
                yield opening, calls[first:place], early
                scores = scores[len(early) :]
            newest = opening = day
            first = place
        yield opening, calls[first:], scores

    def use(self, book: PriceBook) -> None:
        """Judge by another price book from the next tick on."""
        with self._lock:
            self._book = book
            if self._advisor is not None:
                self._advisor.use(book)

    def standings(self, now_ns: int) -> list[Standing]:
        """How every test stands, for pages and `tierlight check`."""
        with self._lock:
            self._load()
            return [
                row for stream in self._streams.values() for row in standings(stream, self._policy, now_ns)
            ]

    def accept_as_normal(self, alert_id: int, who: str, now_ns: int) -> Alert:
        """Resolve an alert because its level is how things shall be: its tests learn a new reference.

        KeyError when there is no such alert.
        """
        with self._lock:
            self._load()
            alert = self._store.alert(alert_id)
            if alert is None:
                raise KeyError(f"expected the id of an alert, got {alert_id}")
            key = stream_of(alert)
            done = replace(alert, state="resolved", resolved_ns=now_ns, note=f"new normal, {who}")
            states: dict[str, bytes] = {}
            forget: list[str] = []
            stream = self._streams.get(key)
            if stream is not None:
                forget = keys_of(stream)
                stream = new_normal(stream)
                states = encode(stream)[0]
            alerts = [done]
            for other in self._store.alerts(states=("open", "recovering"), limit=1000):
                if other.id != alert.id and stream_of(other) == key:
                    alerts.append(replace(other, state="resolved", resolved_ns=now_ns, note=done.note))
            self._store.commit_watch(
                WatchCommit(
                    states, {}, tuple(alerts), forget_states=tuple(k for k in forget if k not in states)
                )
            )
            self._store.record_audit(AuditEntry(now_ns, who, "new normal", str(alert_id), alert.test_key))
            if stream is not None:
                self._streams[key] = stream
            return done

    # ---- inside one tick --------------------------------------------------------------------------------

    def _load(self) -> None:
        if self._loaded:
            return
        states = self._store.detector_states()
        self._streams = decode(states)
        self._watermarks = dict(self._store.watermarks())
        self._advisor = Advisor(self._book, states) if self._book else None
        self._is_judged = False
        self._prices = FrozenPrices.decode(states.get(PRICES_KEY, b""))
        self._coverage = {
            key.removeprefix(COVERAGE_PREFIX): RouteCoverage.decode(state)
            for key, state in states.items()
            if key.startswith(COVERAGE_PREFIX)
        }
        self._policy, self._budget_day = self._configured, None
        if BUDGET_KEY in states:
            budget = json.loads(states[BUDGET_KEY])
            self._budget_day = budget["day"]
            self._policy = replace(self._configured, units=budget["units"])
        self._loaded = True

    def _heed(self) -> None:
        """Take over what people set: sizes hold for alerts from now on, a budget for the thresholds of the next day."""
        self._preferences = preferences(self._store.settings())
        own = self._preferences.alert_budget
        budget = {level: own.get(level, accepted) for level, accepted in self._configured.budget.items()}
        if budget != self._policy.budget:
            self._policy = replace(self._policy, budget=budget)

    def _spread_budget(self, day: int) -> None:
        """Once a day of the calls' own time share the accepted false alarms among the tests that are open.

        By the calls' time, not by the clock: catching up on a month gives the thresholds that watching it gave.
        """
        first = self._budget_day is None
        units = dict(self._policy.units)
        streams = {}
        if not first:
            counted = units_by_level(self._streams.values(), day * DAY_NS)
            units = {level: max(n, self._configured.units[level]) for level, n in counted.items()}
            policy = replace(self._policy, units=units)
            for key, old in self._streams.items():
                streams[key] = stream = old.copy()
                for detector in stream.detectors.values():
                    detector.threshold = threshold(stream, detector, policy)
        states = {BUDGET_KEY: json.dumps({"day": day, "units": units}).encode()}
        for stream in streams.values():
            states |= encode(stream)[0]
        self._store.commit_watch(WatchCommit(states, {}))
        self._streams |= streams
        self._policy = replace(self._policy, units=units)
        self._budget_day = day

    def _batch(
        self,
        calls: Sequence[CallEvidence],
        scores: Sequence[ScoreEvidence],
        now_ns: int,
        more_scores: bool,
    ) -> TickReport:
        watermarks = dict(self._watermarks)
        if calls:
            watermarks["calls"] = calls[-1].seq
        if scores:
            watermarks["scores"] = scores[-1].seq
        prices = self._prices.copy()
        coverage = {
            route: self._coverage[route].copy() if route in self._coverage else RouteCoverage()
            for route in sorted(touched_routes(calls, scores))
        }
        told: list[Alert] = []
        touched, events = observe(
            self._streams,
            self._observations(calls, scores, prices, coverage, told, more_scores),
            self._policy,
        )
        sizes = self._preferences.alert_sizes
        book = AlertBook(self._store, self._streams, touched, watermarks.get("calls", 0), sizes)
        book.enter(events)
        states: dict[str, bytes] = {}
        forget: list[str] = []
        for stream in touched.values():
            parts, gone = encode(stream)
            states |= parts
            forget += gone
        states |= {COVERAGE_PREFIX + route: young.encode() for route, young in coverage.items()}
        if prices != self._prices:
            states[PRICES_KEY] = prices.encode()
        if self._advisor is not None:
            states |= self._advisor.feed(self._store, calls, scores, now_ns)
        self._is_judged = False
        stored = self._store.commit_watch(
            WatchCommit(
                states,
                watermarks,
                (*book.changed.values(), *told),
                forget_states=tuple(forget),
            )
        )
        self._streams |= touched
        self._watermarks, self._prices = watermarks, prices
        self._coverage |= coverage
        by_key = {alert.test_key: alert for alert in stored}
        return TickReport(
            len(calls),
            len(scores),
            tuple(by_key[key] for key in book.opened) + stored[len(book.changed) :],
            tuple(by_key[key] for key in book.worsened if key not in book.opened),
            tuple(by_key[key] for key in book.resolved),
        )

    def _judge(self, now_ns: int) -> tuple[Recommendation, ...]:
        """The verdicts on all routes, once for all the batches of a tick and once after a start."""
        if self._advisor is None or self._is_judged:
            return ()
        recommendations = self._advisor.advise(self._store, now_ns)
        if recommendations:
            self._store.commit_watch(WatchCommit({}, {}, recommendations=recommendations))
        self._is_judged = True
        return recommendations

    def _settle(self, now_ns: int) -> Iterator[Turn]:
        """End the experiments that end by themselves, each with its revision of the policy in one transaction."""
        while self._advisor is not None and (settled := self._advisor.settle(self._store, now_ns)):
            over, commit = settled
            self._store.commit_watch(commit)
            yield over

    def _observations(
        self,
        calls: Sequence[CallEvidence],
        scores: Sequence[ScoreEvidence],
        prices: FrozenPrices,
        coverage: Mapping[str, RouteCoverage],
        told: list[Alert],
        more_scores: bool,
    ) -> Iterable[Observation]:
        lag_ns = int(self._policy.coverage_lag_hours * 3_600_000_000_000)
        for call in calls:
            changed = prices.see(call)
            if changed is not None:
                told.append(price_alert(changed, call))
            yield from observe_call(call, prices.cost(call))
            if is_expected(call):
                coverage[call.route].add_call(call, lag_ns)
        for score in scores:
            yield from observe_score(score)
            if is_expected(score.call):
                coverage[score.call.route].add_score(score, lag_ns)
        if not more_scores:  # else a call might be judged before its score is read
            for route, young in coverage.items():
                yield from young.mature(route)


def tick(store: Store, now_ns: int, policy: Policy | None = None) -> TickReport:
    """One look at a store without a running watch, such as by the command line or an example."""
    return Watch(store, policy=policy).tick(now_ns)


def _up_to(seq: int, scores: list[ScoreEvidence]) -> list[ScoreEvidence]:
    """The scores before the first one of a call that is not yet read.

    Scores are fewer than calls: catching up, they would run days ahead of them, and an alarm would be dated and
    measured on calls from long before it.
    """
    ahead = next((at for at, score in enumerate(scores) if score.call.seq > seq), len(scores))
    return scores[:ahead]


def check(
    store: Store, route: str, fail_on: Severity, now_ns: int, policy: Policy | None = None
) -> CheckResult:
    """Whether a route ("" = every route) has an open alert of `fail_on` or graver, for `tierlight check`."""
    return check_result(
        store.alerts(route=route or None, states=("open", "recovering"), limit=1000),
        store.mutes(),
        Watch(store, policy=policy).standings(now_ns),
        route,
        fail_on,
        now_ns,
    )


@contextlib.contextmanager
def _collector_paused() -> Iterator[None]:
    """No cycle collection while a batch makes its many short-lived objects: it took a third of a tick.

    Measured with tests/bench/watch.py, 3,000 calls a tick: 1.15 s of processor time with it, .77 s without.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _both(a: TickReport, b: TickReport) -> TickReport:
    return TickReport(
        a.calls + b.calls,
        a.scores + b.scores,
        a.opened + b.opened,
        a.worsened + b.worsened,
        a.resolved + b.resolved,
        b.recommendations or a.recommendations,
        a.ended + b.ended,
    )
