"""One hour of two real services in their real order: uneven, wandering, and no fault of any model."""

from __future__ import annotations

from pathlib import Path

from analysis.azure import alerts_of, hour_of


def test_conversations_that_shift_are_told_as_traffic_and_wake_nobody(
    shared_data: Path, tmp_path: Path
) -> None:
    alerts = alerts_of(hour_of("conv", shared_data / "drift"), tmp_path)
    assert {alert.severity for alert in alerts} == {"info"}
    assert any(alert.sentence.startswith("Traffic changed on conv") for alert in alerts)
    assert all(alert.kind in ("traffic", "tokens") for alert in alerts)


def test_an_hour_of_code_completions_raises_next_to_nothing(shared_data: Path, tmp_path: Path) -> None:
    alerts = alerts_of(hour_of("code", shared_data / "drift"), tmp_path)
    assert len(alerts) <= 2
    assert all(alert.severity == "info" for alert in alerts)
