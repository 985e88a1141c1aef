"""From attribute keys to fields, by a plan that is made once for every set of keys.

Every dialect module lists, per field, the keys it reads, best first; the dialects are ranked in `DIALECTS`. Of
several keys for one field the best ranked that is not empty wins, whatever the order of the attributes. Senders
repeat themselves: nearly every span has a set of keys that was seen before, and is read by one C-level fetch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final

from tierlight import semconv

from ..content import is_content_key
from . import langfuse, litellm, mlflow, openinference, otel, own, platforms, traceloop, vercel
from .coerce import unquoted
from .routes import PLAIN_RULES, RouteRules
from .usage import ROWS
from .values import Plan, Values

DIALECTS: Final = (own, otel, openinference, vercel, litellm, traceloop, langfuse, platforms, mlflow)

_EXTRA_PREFIXES: Final = (
    semconv.TIERLIGHT_SCORE_PREFIX,
    semconv.TIERLIGHT_JOIN_PREFIX,
    "evaluations",
    "annotations",
    "trace.evaluations",
    "session.evaluations",
    "logfire.feedback.",
)
# Marker fields of the dialects, in the order in which they name a span's dialect.
_DIALECT_MARKERS: Final = (
    ("schema", "tierlight"),
    ("role", "tierlight"),
    ("oi_kind", "openinference"),
    ("lf_type", "langfuse"),
    ("ai_operation", "vercel"),
    ("ml_type", "mlflow"),
    ("litellm_call", "litellm"),
    ("litellm_usage", "litellm"),
)
_REFINED: Final = frozenset(
    {
        "oi_kind",
        "lf_type",
        "ml_type",
        "litellm_call",
        "litellm_usage",
        "langwatch_metrics",
        "usage_metadata",
        "usage_raw",
        "usage_details_in",
        "usage_details_out",
        "braintrust_attributes",
        "braintrust_metadata",
        "braintrust_metrics",
        "genkit_type",
        "metadata",
        "lf_usage",
    }
)
# What differs from call to call. All else is said again in every span of a sender.
_OWN: Final = frozenset(
    {
        *(field for row in ROWS for field in row),
        "written_1h",
        "logfire_duration_s",
        "ls_completion",
        "ttft_s",
        "ttft_ms",
        "bare_ttft_ms",
        "response_id",
        "call_id",
        "session",
        "user",
        "cost",
        "wire_cost",
        "act_prob",
        "keep_prob",
    }
)
# Repeated, and read together with what is not.
_SHARED_AND_OWN: Final = frozenset(
    {"stream", "ai_operation", "usage_source", "cost_currency", "cost_source", "price_version"}
)
# Remembered plans are bounded in number and size: keys are the sender's, who may make up new ones for ever.
_MAX_PLANS: Final = 2_000
_MAX_PLAN_CHARS: Final = 6_000


def _ranked() -> dict[str, tuple[int, str]]:
    ranks: dict[str, tuple[int, str]] = {}
    for order, dialect in enumerate(DIALECTS):
        for field, keys in dialect.SOURCES.items():
            for rank, key in enumerate(keys):
                ranks.setdefault(key, (order * 100 + rank, field))
    return ranks


_RANKED: Final = _ranked()
_PLANS: Final[dict[RouteRules, dict[tuple[str, ...], Plan]]] = {}


def plan_of(keys: tuple[str, ...], rules: RouteRules = PLAIN_RULES) -> Plan:
    """The plan for spans with these attribute keys."""
    ranked = {key: (rank - len(rules.keys), "route") for rank, key in enumerate(rules.keys)}
    sources = sorted(
        (*(ranked.get(key) or _RANKED[key]), key) for key in keys if key in ranked or key in _RANKED
    )
    best: dict[str, str] = {}
    others: list[tuple[str, str]] = []
    for _, field, key in sources:
        if field in best:
            others.append((field, key))
        else:
            best[field] = key
    order = sorted(best.items())
    own = [(field, key) for field, key in order if field in _OWN or field in _SHARED_AND_OWN]
    dialect = next((name for marker, name in _DIALECT_MARKERS if marker in best), "")
    return Plan(
        fields=tuple(field for field, _ in order),
        fetch=_fetcher([key for _, key in order]),
        others=tuple(others),
        fetch_shared=_fetcher([key for _, field, key in sources if field not in _OWN]),
        own_fields=tuple(field for field, _ in own),
        fetch_own=_fetcher([key for _, key in own]),
        content_keys=tuple(key for key in keys if is_content_key(key)),
        extra_keys=tuple(key for key in keys if key.startswith(_EXTRA_PREFIXES)),
        is_quoting=dialect in ("mlflow", "langfuse"),
        is_refined=not _REFINED.isdisjoint(best),
        usage_row=next((n for n, row in enumerate(ROWS) if row[0] in best or row[1] in best), None),
        dialect=dialect,
        rules=rules,
    )


def _fetcher(keys: Sequence[str]) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
    if len(keys) > 1:
        return itemgetter(*keys)
    if not keys:
        return lambda attributes: ()
    only = keys[0]
    return lambda attributes: (attributes[only],)


def plan_for(attributes: Mapping[str, Any], rules: RouteRules = PLAIN_RULES) -> Plan:
    """The plan for these attributes, remembered within bounds."""
    keys = tuple(attributes)
    plans = _PLANS.get(rules)
    plan = plans.get(keys) if plans is not None else None
    if plan is None:
        plan = plan_of(keys, rules)
        if plans is None:
            plans = _PLANS[rules] = {}
        if len(plans) < _MAX_PLANS and sum(map(len, keys)) <= _MAX_PLAN_CHARS:
            plans[keys] = plan
    return plan


def read(plan: Plan, attributes: Mapping[str, Any]) -> Values:
    """The fields that the attributes speak of."""
    fetched = plan.fetch(attributes)
    values = _values(plan, plan.fields, fetched)
    if plan.is_quoting:
        for field, value in zip(plan.fields, fetched, strict=True):
            if type(value) is str and value[:1] == '"':
                values[field] = unquoted(value)
        fetched = tuple(values.values())
    if "" in fetched or None in fetched:
        _fall_back(values, plan, attributes)
    return values


def read_own(plan: Plan, attributes: Mapping[str, Any]) -> Values | None:
    """Only the fields that differ from span to span; None where one is empty, so that `read` must look further."""
    fetched = plan.fetch_own(attributes)
    return None if "" in fetched or None in fetched else _values(plan, plan.own_fields, fetched)


def _values(plan: Plan, fields: tuple[str, ...], fetched: tuple[Any, ...]) -> Values:
    values = Values(zip(fields, fetched))  # noqa: B905 - both are of one plan
    values.plan = plan
    values.findings = {}
    return values


def _fall_back(values: Values, plan: Plan, attributes: Mapping[str, Any]) -> None:
    """Put the next best source in the place of an empty one, or nothing."""
    for field in plan.fields:
        value = values[field]
        if value is None or value == "":
            del values[field]
    for field, key in plan.others:
        if field not in values:
            value = attributes[key]
            values.fill(field, unquoted(value) if type(value) is str else value)
