"""Precision and recall of validators, from answers that were judged in other ways too."""

from __future__ import annotations

import random

import pytest

from tierlight_dashboard.analysis.validators import validator_qualities


def test_recall_does_not_depend_on_which_verdicts_the_truth_is_known_of() -> None:
    rng = random.Random(4)
    bad = [rng.random() < 0.2 for _ in range(20_000)]
    passed = [rng.random() < (0.3 if one else 0.95) for one in bad]
    verdicts = [(n, "json", one) for n, one in enumerate(passed)]
    everything = {n: float(not one) for n, one in enumerate(bad)}
    (whole,) = validator_qualities(verdicts, everything)
    assert whole.recall == pytest.approx(0.7, abs=0.02)
    assert whole.precision == pytest.approx(0.2 * 0.7 / (0.2 * 0.7 + 0.8 * 0.05), abs=0.03)
    # The rejected answers are all judged, of the accepted ones one in twenty.
    some = {n: value for n, value in everything.items() if not passed[n] or rng.random() < 0.05}
    (part,) = validator_qualities(verdicts, some)
    assert part.recall == pytest.approx(0.7, abs=0.06)
    assert part.precision == whole.precision


def test_nothing_is_said_before_thirty_answers_of_each_verdict_are_known() -> None:
    verdicts = [(n, "regex", n >= 30) for n in range(60)]
    truth = {n: float(n >= 30) for n in range(60)}
    (known,) = validator_qualities(verdicts, truth)
    assert (known.precision, known.recall) == (1.0, 1.0)
    del truth[59]
    (unknown,) = validator_qualities(verdicts, truth)
    assert (unknown.precision, unknown.recall) == (None, None)
    assert (unknown.failed, unknown.passed, unknown.passed_known) == (30, 30, 29)
    assert validator_qualities(verdicts, dict.fromkeys(range(60), 1.0))[0].recall is None
    assert validator_qualities([], {}) == []
