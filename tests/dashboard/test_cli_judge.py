"""`tierlight check` and `tierlight whatif` on a store, and the configuration file of the channels."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from collector.stores.build import call
from dashboard.seed import alert
from tierlight.errors import ConfigurationError
from tierlight_collector.decisions import AlertMute, Severity, WatchCommit
from tierlight_collector.errors import CollectorError
from tierlight_collector.records import Batch
from tierlight_collector.stores import open_store
from tierlight_dashboard.cli.commands import app
from tierlight_dashboard.configfile import read_configuration
from tierlight_dashboard.notify import Email, Slack, Webhook


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def filled(folder: Path, severity: Severity = "page", mute: AlertMute | None = None) -> str:
    """100 calls on a flagship and as many embeddings, and one open alert."""
    url = f"sqlite:///{folder / 'store.db'}"
    store = open_store(url)
    now = time.time_ns() - 60_000_000_000
    spans = [
        call(
            i,
            1,
            start_ns=now - i * 1_000_000,
            route="support/reply",
            tier="flagship",
            provider="openai",
            request_model="gpt-4o",
            response_model="gpt-4o",
            input_tokens=1000,
            output_tokens=100,
            cost_nusd=3_500_000,
        )
        for i in range(1, 101)
    ]
    store.append(Batch(spans=tuple(spans), arrived_ns=now))
    store.commit_watch(
        WatchCommit(
            {}, {}, (alert(route="support/reply", severity=severity, state="open", resolved_ns=None),), ()
        )
    )
    if mute is not None:
        store.set_mute(mute)
    store.close()
    return url


def test_check_fails_on_an_open_alert_as_grave_as_asked(tmp_path: Path) -> None:
    url = filled(tmp_path, "ticket")
    assert run("check", "--store", url).exit_code == 0
    failed = run("check", "support/reply", "--fail-on", "ticket", "--store", url)
    assert failed.exit_code == 1
    assert "support/reply fails: 1 open alert." in failed.stdout
    told = json.loads(run("check", "--fail-on", "ticket", "--store", url, "--format", "json").stdout)
    assert (told[0]["passes"], len(told[0]["alerts"])) == (False, 1)


def test_check_passes_what_is_muted_and_knows_no_made_up_route(tmp_path: Path) -> None:
    url = filled(tmp_path, mute=AlertMute("support/reply", "", None, "ada"))
    assert run("check", "--store", url).exit_code == 0
    unknown = run("check", "nowhere", "--store", url)
    assert unknown.exit_code == 2
    assert "got 'nowhere'" in unknown.stderr


def test_whatif_marks_what_each_cost_rests_on(tmp_path: Path) -> None:
    url = filled(tmp_path)
    done = run("whatif", "--store", url, "--format", "json", "--flagship", "openai/gpt-4")
    assert done.exit_code == 0
    (row,) = json.loads(done.stdout)
    assert (row["route"], row["calls"], row["today_basis"], row["flagship_basis"]) == (
        "support/reply",
        100,
        "measured",
        "estimated",
    )
    assert row["today_usd"] == pytest.approx(0.35)
    assert row["flagship_usd"] == pytest.approx(100 * (1000 * 30e-6 + 100 * 60e-6))
    unpriced = json.loads(run("whatif", "--store", url, "--format", "json", "--flagship", "no/such").stdout)
    assert (unpriced[0]["flagship_usd"], unpriced[0]["flagship_basis"]) == (None, "unknown")
    assert "last 28 days: $0.35" in run("whatif", "--store", url).stdout


def test_whatif_tells_what_a_price_change_would_cost(tmp_path: Path) -> None:
    url = filled(tmp_path)
    (row,) = json.loads(
        run("whatif", "--store", url, "--price", "openai/gpt-4o=1x,2x", "--format", "json").stdout
    )
    # 1,000 in at $2.50 and 100 out at $10 per million; the answers' half of the bill doubles.
    assert (row["now_usd"], row["then_usd"]) == (pytest.approx(0.35), pytest.approx(0.45))
    assert row["basis"] == "estimated"
    wrong = run("whatif", "--store", url, "--price", "gpt-4o=twice")
    assert wrong.exit_code == 2


def test_channels_come_from_the_file_and_secrets_from_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK", "https://hooks.example/T1")
    file = tmp_path / "tierlight.toml"
    file.write_text(
        '[notify]\ndashboard_url = "https://t.example"\nallowed_hosts = ["smtp.internal"]\n'
        '[[notify.slack]]\nurl = "env:HOOK"\n[[notify.slack]]\nurl = "env:HOOK"\nleast = "info"\n'
        '[[notify.webhook]]\nurl = "https://ops.example/x"\nsecret = "s"\n'
        '[[notify.email]]\nhost = "smtp.internal"\nsender = "a@b.example"\nto = ["c@d.example"]\n'
    )
    found = read_configuration(file).notifications
    assert found.dashboard_url == "https://t.example"
    assert found.channels == (
        Webhook("https://ops.example/x", "s", allowed_hosts=("smtp.internal",)),
        Slack("https://hooks.example/T1", allowed_hosts=("smtp.internal",)),
        Slack("https://hooks.example/T1", "slack 2", "info", allowed_hosts=("smtp.internal",)),
        Email("smtp.internal", "a@b.example", ("c@d.example",)),
    )


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[notfy]", "notfy"),
        ("[[notify.slack]]\nname = 'x'", "needs url"),
        ("[[notify.slack]]\nurl = 'https://a'\nleast = 'loud'", "least"),
        ("[[notify.email]]\nhost = 'h'\nsender = 's'\nto = 'x'", "to as list"),
        ("[[notify.slack]]\nurl = 'env:NOT_SET_ANYWHERE'", "NOT_SET_ANYWHERE"),
        ("[[notify.slack]]\nurl = 'https://a'\n[[notify.webhook]]\nurl='https://b'\nname='slack'", "own"),
        ("[notify", "TOML"),
    ],
)
def test_a_wrong_file_says_what_is_wrong(tmp_path: Path, text: str, named: str) -> None:
    file = tmp_path / "tierlight.toml"
    file.write_text(text)
    with pytest.raises((ConfigurationError, CollectorError), match=named):
        read_configuration(file)
