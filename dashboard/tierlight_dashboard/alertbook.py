"""The alerts of one batch: opens, measures anew, joins and resolves them, and fetches the calls they are told from.

An alert is described from the calls that were there at its alarm. For its size, and so its severity, up to 200
calls after the alarm count as well, but none from after it was resolved: whether the watch looks every few
seconds or catches up on a week, the alert says the same.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from tierlight_collector.decisions import Alert
from tierlight_collector.records import CallRow, Cursor, Filters
from tierlight_collector.stores.protocol import Store

from .analysis.alerting import belongs, describe, test_key, value
from .analysis.attribution import LONGEST_WINDOW, Ringing
from .analysis.causes import Context, cause_term
from .analysis.drift import lane_evidence, worse_of
from .analysis.incidents import as_rang, incident_of, joined, stream_of, test_of
from .analysis.moving import Event, Rang, Resolved
from .analysis.standing import RECOVERING_AT
from .analysis.streams import Detector, Stream, StreamKey

PAGE = 500
MOST_PAGES = 2 * LONGEST_WINDOW // PAGE
JUDGE_MOVED = "the judge moved"
SETTLING_CALLS = 200  # so many calls after an alarm its size, and the severity, is measured anew


class AlertBook:
    """`before` are the streams before the batch, `touched` those that it moved on, as they are after it.

    `read_calls` is the arrival number up to which calls are read, `sizes` the user's own sizes of effects.
    """

    def __init__(
        self,
        store: Store,
        before: dict[StreamKey, Stream],
        touched: dict[StreamKey, Stream],
        read_calls: int,
        sizes: Mapping[str, float],
    ) -> None:
        self._store = store
        self._before = before
        self._touched = touched
        self._streams = ChainMap(touched, before)
        self._read_calls = read_calls
        self._sizes = sizes
        self._open = {a.test_key: a for a in store.alerts(states=("open", "recovering"), limit=10_000)}
        self.changed: dict[str, Alert] = {}
        # Test keys, each once, in order.
        self.opened: dict[str, None] = {}
        self.worsened: dict[str, None] = {}
        self.resolved: dict[str, None] = {}

    def enter(self, events: Sequence[Event]) -> None:
        """Write down what happened in a batch, in its order, and measure the young alerts of its streams anew."""
        for place, event in enumerate(events):
            stream = self._streams[event.stream]
            detector = stream.detectors[event.test]
            if isinstance(event, Rang):
                self._ring(event, stream, detector, _end_of(event, events[place + 1 :]))
            else:
                self._resolve(event, stream, detector)
        for alert in list(self._open.values()):
            moved = self._touched.get(stream_of(alert))
            young = moved.detectors.get(test_of(alert)) if moved else None
            if moved is not None and young is not None and young.recovery is not None:
                self._settle(alert, moved, young, float(lane_evidence(young.recovery)[0]))

    def _put(self, alert: Alert) -> None:
        self.changed[alert.test_key] = alert
        if alert.state == "resolved":
            self._open.pop(alert.test_key, None)
        else:
            self._open[alert.test_key] = alert

    def _ring(self, rang: Rang, stream: Stream, detector: Detector, end_ns: int | None) -> None:
        key = test_key(stream, detector)
        context = self._context(stream, detector)
        alert = describe(rang, stream, detector, list(self._calls_at(rang, stream)), context)
        if end_ns is not None and alert.kind != "traffic":
            alert = _measured(alert, self._again(rang, stream, detector, context, end_ns))
        incident = incident_of(alert, self._open.values())
        if incident is not None:
            self._put(joined(incident, alert))
            if worse_of(incident.severity, alert.severity) != incident.severity:
                self.worsened[incident.test_key] = None
            return
        if rang.reopens:
            earlier = self.changed.get(key) or next(
                (a for a in self._store.alerts(route=alert.route, limit=1000) if a.test_key == key), None
            )
            if earlier is not None:
                alert = replace(
                    alert,
                    id=earlier.id,
                    opened_ns=earlier.opened_ns,
                    severity=worse_of(alert.severity, earlier.severity),
                )
        self._put(alert)
        self.opened[key] = None
        if stream.is_judge_check:
            for judged in list(self._open.values()):
                if judged.signal == alert.signal and judged.test_key != key:
                    others = (term for term in judged.attribution if term.get("kind") != "cause")
                    self._put(replace(judged, attribution=(cause_term(JUDGE_MOVED), *others)))

    def _resolve(self, event: Resolved, stream: Stream, detector: Detector) -> None:
        alert = self._open.get(test_key(stream, detector))
        if alert is not None:
            self._put(replace(alert, state="resolved", resolved_ns=event.time_ns))
            self.resolved[alert.test_key] = None

    def _settle(self, alert: Alert, stream: Stream, detector: Detector, recovery: float) -> None:
        """Measure an open alert anew while it is young; its severity may only rise."""
        fresh = replace(alert, state="recovering" if recovery >= RECOVERING_AT else "open")
        if (
            self._measured_on(stream, detector) < min(detector.rows, SETTLING_CALLS)
            and alert.kind != "traffic"
        ):
            rang = as_rang(alert, stream, detector)
            fresh = _measured(
                fresh, self._again(rang, stream, detector, self._context(stream, detector), stream.last_ns)
            )
        if fresh.severity != alert.severity and alert.test_key not in self.opened:
            self.worsened[alert.test_key] = None
        if fresh != alert:
            self._put(fresh)

    def _measured_on(self, stream: Stream, detector: Detector) -> int:
        """How many calls after the alarm its size was measured on by the batches before this one."""
        old = self._before.get(stream.key)
        known = old.detectors.get(detector.key) if old else None
        return known.rows if known is not None and known.opened_ms == detector.opened_ms else 0

    def _again(
        self, rang: Rang, stream: Stream, detector: Detector, context: Context, until_ns: int
    ) -> Alert:
        history = [*self._calls_at(rang, stream), *self._calls_after(rang, stream, detector, until_ns)]
        return describe(rang, stream, detector, history, context)

    def _context(self, stream: Stream, detector: Detector) -> Context:
        kind, model = detector.signal.kind, stream.pool or stream.model
        others = []
        for alert in self._open.values():
            other = self._streams.get(stream_of(alert))
            if alert.kind == kind and other is not None and alert.test_key != test_key(stream, detector):
                others.append(
                    Ringing(alert.route, other.pool or other.model, alert.change_from_ns, alert.change_to_ns)
                )
        ringing = {other.model for other in others}
        pool = self._streams.get(("pool", model, detector.signal.name))
        return Context(
            tuple(others),
            model_test_rings=pool.is_frozen if pool else False,
            judge_moved=kind == "quality"
            and any(
                s.is_judge_check and s.is_frozen and f"quality:{s.key[5]}" == detector.signal.name
                for s in self._streams.values()
            ),
            sizes=self._sizes,
            steady_models_elsewhere=any(
                s.kind == stream.kind and s.pool not in ringing and s.pool != model and s.detectors
                for s in self._streams.values()
            ),
        )

    # ---- the calls of an alert --------------------------------------------------------------------------

    def _calls_at(self, rang: Rang, stream: Stream) -> Iterator[CallRow]:
        """The newest calls of the stream that had begun when the alarm rang, by start time."""
        where = replace(_calls_of(stream), end_ns=rang.time_ns + 1)
        rows: list[CallRow] = []
        for row in self._read(where, stream, newest_first=True):
            rows.append(row)
            if len(rows) == LONGEST_WINDOW:
                break
        return reversed(rows)

    def _calls_after(
        self, rang: Rang, stream: Stream, detector: Detector, until_ns: int
    ) -> Iterator[CallRow]:
        """The first calls after the alarm that tell of its signal, none later than `until_ns`."""
        where = replace(_calls_of(stream), start_ns=rang.time_ns + 1, end_ns=until_ns + 1)
        told = 0
        for row in self._read(where, stream, newest_first=False):
            yield row
            told += value(detector.signal, stream, row) is not None
            if told == SETTLING_CALLS:
                return

    def _read(self, where: Filters, stream: Stream, *, newest_first: bool) -> Iterator[CallRow]:
        after: Cursor | None = None
        for _ in range(MOST_PAGES):
            page = self._store.calls(where, after=after, limit=PAGE, descending=newest_first)
            for row in page.rows:
                if row.seq <= self._read_calls and belongs(stream, row):
                    yield row
            after = page.next
            if after is None:
                return


def _calls_of(stream: Stream) -> Filters:
    if stream.is_judge_check:
        return Filters(route=(stream.route,), purpose=("judge",))
    if stream.route:
        return Filters(route=(stream.route,))
    return Filters(provider=(stream.model.partition("/")[0],))


def _end_of(rang: Rang, later: Sequence[Event]) -> int | None:
    """When the alarm was over, if that lies in the same batch."""
    for event in later:
        if isinstance(event, Resolved) and (event.stream, event.test) == (rang.stream, rang.test):
            return event.time_ns
    return None


def _measured(alert: Alert, again: Alert) -> Alert:
    """The alert dated and sized anew on more calls; its severity may only rise.

    What those calls do not show any more stays as it was told.
    """
    if again.severity == "info" and alert.severity != "info":
        return alert
    return replace(
        alert,
        change_ns=again.change_ns,
        change_from_ns=again.change_from_ns,
        change_to_ns=again.change_to_ns,
        before=again.before,
        after=again.after,
        effect_low=again.effect_low,
        effect_high=again.effect_high,
        calls_since_change=again.calls_since_change,
        sentence=again.sentence,
        severity=worse_of(alert.severity, again.severity),
        samples_before=again.samples_before,
        samples_after=again.samples_after,
    )
