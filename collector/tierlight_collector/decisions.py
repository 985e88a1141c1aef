"""What tierlight concluded and what people decided: alerts, recommendations, experiments, policies.

Stored in SQL tables beside the facts. These are records, not judgement: the numbers are made in
`tierlight_dashboard.analysis`, and the sentences with them, so that page, message and export say the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Severity = Literal["page", "ticket", "info"]
AlertState = Literal["open", "recovering", "resolved"]
AlertKind = Literal[
    "quality",
    "errors",
    "latency",
    "ttft",
    "cost",
    "tokens",
    "escalation",
    "failover",
    "coverage",
    "traffic",
    "price",
]
Action = Literal["keep", "downgrade", "upgrade", "fix_prompt", "not_enough_data", "no_quality_signal"]
RecommendationState = Literal[
    "proposed", "collecting", "ready", "shipped", "kept", "rolled_back", "dismissed", "stale"
]


@dataclass(frozen=True, slots=True)
class Alert:
    """One stored drift signal. Levels are in `unit`; `effect_*` is level after minus level before, same unit."""

    id: int  # 0 before it is stored
    kind: AlertKind
    signal: str  # "quality:<score name>", "errors", "errors:<class>", "latency", ...
    scope: str  # "route", "segment:<name>", "model"
    route: str  # "" for a model-level alert
    model: str
    severity: Severity
    state: AlertState
    opened_ns: int
    resolved_ns: int | None
    change_ns: int  # estimated time of the change, and its interval
    change_from_ns: int
    change_to_ns: int
    before: float
    after: float
    effect_low: float
    effect_high: float
    unit: Literal["share", "ms", "usd", "tokens"]
    calls_since_change: int
    log_evidence: float  # ln R
    log_threshold: float  # ln A
    sentence: str
    attribution: tuple[Mapping[str, Any], ...] = ()
    samples_before: tuple[str, ...] = ()  # "<trace hex>/<span hex>"
    samples_after: tuple[str, ...] = ()
    test_key: str = ""  # the detector's key, one open alert each
    acknowledged_by: str = ""
    acknowledged_ns: int | None = None
    note: str = ""
    project: str = "default"


@dataclass(frozen=True, slots=True)
class AlertMute:
    """No notification and no open-alert badge for (route, signal) until `until_ns` (None = for good)."""

    route: str
    signal: str
    until_ns: int | None
    by: str
    project: str = "default"


@dataclass(frozen=True, slots=True)
class Recommendation:
    """One row per route and candidate. Savings are per month of 28 days, in nano-dollars; shares are 0..1."""

    id: int  # 0 before it is stored
    route: str
    action: Action
    state: RecommendationState
    current_model: str
    current_tier: str
    candidate_model: str  # "" when there is none
    candidate_tier: str
    sentence: str
    reason: str
    rung: Literal["none", "observational", "cascade", "ab", "shadow"]
    saving_low_nusd: int | None = None
    saving_nusd: int | None = None
    saving_high_nusd: int | None = None
    quality_low: float | None = None
    quality_diff: float | None = None
    quality_high: float | None = None
    margin: float | None = None
    pairs: int = 0
    pairs_needed: int | None = None
    days_needed: float | None = None
    would_change: str = ""
    card: Mapping[str, Any] | None = None  # the evidence card: everything needed to recompute the figures
    created_ns: int = 0
    updated_ns: int = 0
    dismissed_reason: str = ""
    dismissed_until_ns: int | None = None  # then it is judged anew; None = for good
    project: str = "default"


@dataclass(frozen=True, slots=True)
class Experiment:
    """One approved A/B or shadow run of a candidate on a route."""

    id: str
    route: str
    kind: Literal["ab", "shadow"]
    control: str
    candidate: str
    share: float
    state: Literal["running", "stopped", "shipped", "kept", "rolled_back"]
    started_ns: int
    ended_ns: int | None
    by: str
    recommendation_id: int | None = None
    card: Mapping[str, Any] | None = None
    project: str = "default"
    shipped_ns: int | None = None  # since when the candidate answers all but the hold-out


@dataclass(frozen=True, slots=True)
class PolicyRevision:
    """One revision of the routing policy; the newest approved one is served to the SDKs."""

    revision: int
    version: str
    toml: str
    by: str
    created_ns: int
    note: str
    project: str = "default"


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Who did what, when; never holds content."""

    time_ns: int
    who: str
    action: str
    subject: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class WatchCommit:
    """Everything one tick of the watch concluded; stored in one transaction, so that a replay changes nothing.

    `states` are the detectors' serialised states by key (only those that changed), `watermarks` the arrival
    numbers read so far by stream name ("calls", "scores").
    """

    states: Mapping[str, bytes]
    watermarks: Mapping[str, int]
    alerts: tuple[Alert, ...] = ()  # id 0 = new, else replaces the row of that id
    recommendations: tuple[Recommendation, ...] = ()  # in place of all proposals of their routes
    experiments: tuple[Experiment, ...] = ()
    forget_states: tuple[str, ...] = ()
    # Under the very numbers they bear: when a person's revision took one meanwhile, nothing is stored.
    policies: tuple[PolicyRevision, ...] = ()
    audit: tuple[AuditEntry, ...] = ()
