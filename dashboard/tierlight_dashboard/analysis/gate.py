"""The gate a move of tier must pass, and the evidence card from which its figures can be computed again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .comparison import Comparison
from .evidence import ALPHA, PairEvidence, sample_ratio_p
from .savings import saving_per_call
from .wording import money, points


@dataclass(frozen=True, slots=True)
class AdviceSettings:
    """What people set; shares 0..1, money in nano-dollars a month."""

    quality_margin: float | None = None  # None: max(2 pt, a fifth of the current failure rate)
    error_margin: float = 0.02
    latency_margin: float = 0.05
    quality_floor: float | None = None
    alpha: float = ALPHA
    min_scored: int = 200
    min_pairs: int = 200
    min_days: float = 7.0
    worth_nusd: int = 5_000_000_000
    shadow_share: float = 0.05
    protected_segments: tuple[str, ...] = ()  # each must hold on its own, at twice the margin

    def margin(self, quality: float) -> float:
        """The non-inferiority margin at a mean quality."""
        if self.quality_margin is not None:
            return self.quality_margin
        return max(0.02, 0.2 * (1 - quality))


@dataclass(frozen=True, slots=True)
class Check:
    """One condition of the gate; `passed` is None while it is open."""

    name: str
    passed: bool | None
    text: str


@dataclass(frozen=True, slots=True)
class Gate:
    """All conditions of a move down (or up), each at its own alpha: the move needs every one of them."""

    checks: tuple[Check, ...]
    harmed: bool
    futile: bool
    log_scale: Mapping[str, float]

    @property
    def ready(self) -> bool:
        return all(check.passed for check in self.checks)


def gate(
    comparison: Comparison, score: str, margin: float, settings: AdviceSettings, *, upgrade: bool = False
) -> Gate:
    """Judge one comparison as it stands; may be asked after every call."""
    needed = 1 / settings.alpha
    quality = comparison.quality(score)
    # To move up is to be better by the margin or more; to move down, not to be worse by it.
    ship = quality.superior(margin) if upgrade else quality.ship(margin)
    checks = [
        Check(
            f"quality:{score}",
            ship >= needed or None,
            f"{points(quality.lower(settings.alpha))} to {points(quality.upper(settings.alpha))} "
            f"against a margin of {points(margin if upgrade else -margin)}",
        )
    ]
    for segment in settings.protected_segments:
        inside = comparison.quality(f"{score}@{segment}")
        text = f"{points(inside.lower(settings.alpha))} or better in {segment}, n = {inside.n}"
        checks.append(Check(f"segment:{segment}", inside.ship(2 * margin) >= needed or None, text))
    for signal, allowed in (("errors", settings.error_margin), ("latency", settings.latency_margin)):
        pairs = comparison.signals.get(signal, PairEvidence(comparison.bound))
        text = f"at least {points(pairs.lower(settings.alpha))} against {points(-allowed)}"
        passed: bool | None = pairs.ship(allowed) >= needed or None
        if pairs.harm(allowed) >= needed:
            passed = False
        checks.append(Check(signal, passed, text))
    saving = saving_per_call(comparison.savings, settings.alpha)
    if not upgrade:
        text = "fewer than 100 priced pairs" if saving is None else f"at least {money(saving.low)} a call"
        checks.append(Check("saving", None if saving is None else saving.low > 0 or None, text))
    checks.append(
        Check("pairs", quality.n >= settings.min_pairs or None, f"{quality.n} of {settings.min_pairs}")
    )
    covered = comparison.days >= settings.min_days
    checks.append(
        Check("days", covered or None, f"{comparison.days:.1f} of {settings.min_days:g} days covered")
    )
    if comparison.kind == "ab" and comparison.share is not None:
        p = sample_ratio_p(comparison.calls["candidate"], comparison.calls["control"], comparison.share)
        checks.append(
            Check("sample ratio", p > 0.001, "the split is as agreed" if p > 0.001 else "broken split")
        )
    if comparison.mixed_propensity:
        checks.append(Check("propensity", False, "the split was changed without a new experiment version"))
    return Gate(
        tuple(checks),
        harmed=quality.harm(margin) >= needed,
        futile=quality.n >= settings.min_pairs
        and quality.upper(settings.alpha) < (margin if upgrade else -margin),
        log_scale={"ship": ship, "harm": quality.harm(margin)},
    )


def evidence_card(
    comparison: Comparison, score: str, margin: float, settings: AdviceSettings, *, upgrade: bool = False
) -> dict[str, Any]:
    """Everything needed to compute the verdict's figures again, and the figures. See `recompute`."""
    given = {
        "comparison": comparison.encode().decode(),
        "score": score,
        "margin": margin,
        "alpha": settings.alpha,
        "upgrade": upgrade,
    }
    return {"given": given, "figures": _figures(comparison, score, margin, settings.alpha, upgrade)}


def recompute(card: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of a stored card from what it holds; equal to the stored ones to the last digit."""
    given = card["given"]
    comparison = Comparison.decode(given["comparison"].encode())
    return _figures(comparison, given["score"], given["margin"], given["alpha"], given["upgrade"])


def _figures(
    comparison: Comparison, score: str, margin: float, alpha: float, upgrade: bool
) -> dict[str, Any]:
    quality = comparison.quality(score)
    saving = saving_per_call(comparison.savings, alpha)
    return {
        "pairs": quality.n,
        "ship_k": quality.superior(margin) if upgrade else quality.ship(margin),
        "harm_k": quality.harm(margin),
        "quality_low": quality.lower(alpha),
        "quality_mean": quality.mean,
        "quality_high": quality.upper(alpha),
        "saving_low_nusd": None if saving is None else saving.low,
        "saving_mean_nusd": None if saving is None else saving.mean,
        "days": comparison.days,
    }
