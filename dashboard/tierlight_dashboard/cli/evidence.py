"""Stored calls of a route as scored calls to learn and to replay from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from tierlight import semconv as s
from tierlight.pricing import canonical_provider
from tierlight.routing.artefact import read_features
from tierlight.routing.declared import Route
from tierlight.routing.embed import Embedder, Vector
from tierlight.routing.learn import ScoredCall
from tierlight.routing.policy import Policy
from tierlight.routing.shape import Shape, shape_of
from tierlight_collector.records import CallEvidence, ScoreEvidence
from tierlight_collector.stores.protocol import Store
from tierlight_dashboard.analysis.validators import ValidatorQuality, validator_qualities

_PAGE: Final = 1000


@dataclass(frozen=True, slots=True)
class RouteEvidence:
    """What the store knows of one route and signal.

    `without_text` calls have neither captured text nor hashed words: they count for their task only. `shadows` has
    the chance with which a request got its shadow, by call id.
    """

    calls: tuple[ScoredCall, ...]
    texts: tuple[str, ...]
    unknown_targets: int
    without_text: int
    shadows: Mapping[str, float]


Names = Mapping[tuple[str, str], str]
"""Targets by provider and model."""


def names_of(policy: Policy, route: Route) -> Names:
    """The candidates of a route."""
    return {(policy.targets[name].provider, policy.targets[name].model): name for name in route.candidates}


def evidence_of(
    store: Store, by_model: Names, route: str, signal: str, since_ns: int, embedder: Embedder
) -> RouteEvidence:
    """The scored calls of a route's candidates, newest score per call, in the order of their arrival.

    A shadow call has the text of the call that it stands beside.
    """
    newest: dict[tuple[bytes, bytes], ScoreEvidence] = {}
    for score in _scores(store):
        call = score.call
        if (
            call.route == route
            and score.name == signal
            and call.start_ns >= since_ns
            and 0 <= score.value <= 1
        ):
            newest[call.trace_id, call.span_id] = score
    calls: list[ScoredCall] = []
    texts: list[str] = []
    unknown, shadows = 0, {}
    for score in newest.values():
        call = score.call
        target = by_model.get((canonical_provider(call.provider), call.request_model)) or by_model.get(
            (canonical_provider(call.provider), call.model)
        )
        if target is None:
            unknown += 1
            continue
        if call.purpose == "shadow" and call.call_id:
            shadows[call.call_id] = call.act_prob or 1.0
        text, vector, shape = _prompt_of(store, call, embedder)
        texts.append(text)
        calls.append(
            ScoredCall(
                target=target,
                score=score.value,
                vector=vector,
                segment=call.segment,
                act_prob=call.act_prob,
                keep_prob=call.keep_prob,
                time_ns=call.start_ns,
                call_id=call.call_id,
                cost_usd=None if call.cost_nusd is None else call.cost_nusd / 1e9,
                latency_ms=call.latency_ms,
                shape=shape,
            )
        )
    prompts = {
        one.call_id: (text, one.vector, one.shape)
        for one, text in zip(calls, texts, strict=True)
        if one.vector and one.call_id
    }
    for place, one in enumerate(calls):
        if not one.vector and one.call_id in prompts:
            texts[place], vector, shape = prompts[one.call_id]
            calls[place] = replace(one, vector=vector, shape=shape)
    without = sum(not one.vector for one in calls)
    return RouteEvidence(tuple(calls), tuple(texts), unknown, without, shadows)


def validators_of(store: Store, route: Route, signal: str, since_ns: int) -> list[ValidatorQuality]:
    """How a route's validators did against the signal, on every answer that has both."""
    bounds = {one.kind: float(one.options["value"]) for one in route.validators if one.kind == "judge"}
    verdicts: dict[tuple[bytes, bytes, str], bool] = {}
    truth: dict[tuple[bytes, bytes], float] = {}
    for score in _scores(store):
        call = score.call
        if call.route != route.name or call.start_ns < since_ns or call.purpose == "judge":
            continue
        if score.name == signal:
            truth[call.trace_id, call.span_id] = score.value
        elif score.kind == "validator":
            passed = score.value >= bounds.get(score.name, 0.5)
            verdicts[call.trace_id, call.span_id, score.name] = passed
    return validator_qualities((((t, s), name, passed) for (t, s, name), passed in verdicts.items()), truth)


def changed_of(store: Store, names: Names, route: str) -> dict[str, int]:
    """When the quality of a candidate changed on a route, by candidate, where an alert on that is open."""
    changed: dict[str, int] = {}
    for alert in store.alerts(route=route, states=("open", "recovering"), limit=1000):
        for (_, model), name in names.items():
            is_its = alert.model == model or alert.model.startswith(f"{model}-2")  # a dated version of it
            if alert.kind == "quality" and alert.severity != "info" and is_its:
                changed[name] = max(changed.get(name, 0), alert.change_ns)
    return changed


def _scores(store: Store) -> Iterator[ScoreEvidence]:
    after = 0
    while page := store.score_evidence(after, _PAGE):
        yield from page
        after = page[-1].seq


def _prompt_of(store: Store, call: CallEvidence, embedder: Embedder) -> tuple[str, Vector, Shape]:
    """The prompt's text, vector and shape where it was captured, else its hashed words where those were sent."""
    bodies = {one.kind: one.body for one in store.contents(call.trace_id, call.span_id)}
    text = "\n".join(part for kind in ("system", "prompt") if kind in bodies for part in _texts(bodies[kind]))
    if text:
        return text, embedder.embed(text), shape_of(text)
    if embedder.id == "hash1":
        for span in store.trace(call.trace_id, 200):
            packed = span.attributes.get(s.TIERLIGHT_FEATURES_V1) if span.span_id == call.span_id else None
            if isinstance(packed, str):
                return "", *read_features(packed)
    return "", {}, ()


def _texts(body: str) -> Iterator[str]:
    try:
        document = json.loads(body)
    except ValueError:
        yield body
        return
    yield from _inner_texts(document)


def _inner_texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for one in value:
            yield from _inner_texts(one)
    elif isinstance(value, Mapping):
        for key in ("parts", "content"):
            if key in value:
                yield from _inner_texts(value[key])
