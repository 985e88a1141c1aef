"""`tierlight policy`, `learn` and `replay` from the command line, on stored calls and on sets."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from sdk.routing.fakes import POLICY, reply
from tierlight import configure, flush, score, shutdown
from tierlight.routing import CallableProvider, LearnedRouter, Policy, Router
from tierlight.routing.breaker import BreakerBoard
from tierlight_dashboard.cli.commands import app
from tierlight_dashboard.serve import ServeSettings, serving_in_thread

LEARNED = """
[route.help]
strategy = "learned"
candidates = ["nano", "sonnet"]
signal = "csat"
explore = 0.5
strong_share = 0.2
"""


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(one) for one in arguments])


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    file = tmp_path / "policy.toml"
    file.write_text(POLICY + LEARNED)
    return file


def test_check_says_what_is_doubtful_and_refuses_what_is_wrong(policy: Path, tmp_path: Path) -> None:
    fine = run("policy", "check", policy)
    assert fine.exit_code == 0
    assert "W003 target.nano" in fine.stdout
    assert f"version {Policy.from_toml(policy.read_text()).version}" in fine.stdout
    assert run("policy", "check", policy, "--strict").exit_code == 1
    wrong = tmp_path / "wrong.toml"
    wrong.write_text(POLICY.replace('steps = ["nano", "sonnet"]', 'steps = ["sonnet", "nano"]'))
    refused = run("policy", "check", wrong)
    assert refused.exit_code == 2
    assert "route.extract.steps: tiers are upside down" in refused.stderr
    assert run("policy", "check", tmp_path / "gone.toml").exit_code == 2


def test_diff_compares_files_and_what_is_approved(policy: Path, tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'calls.db'}"
    cheaper = tmp_path / "cheaper.toml"
    cheaper.write_text(policy.read_text() + '[route.reply]\ntarget = "nano"\n')
    dearer = tmp_path / "dearer.toml"
    dearer.write_text(policy.read_text() + '[route.reply]\ntarget = "sonnet"\n')
    lowered = run("policy", "diff", dearer, cheaper)
    assert "routes.reply.default" in lowered.stdout
    assert "A lower tier starts as an experiment" in lowered.stdout
    assert "The same policy" in run("policy", "diff", policy, policy).stdout
    approved = run("policy", "approve", dearer, "--store", store, "--by", "anna", "--note", "start")
    assert "revision 1 is approved" in approved.stdout
    assert "A lower tier" in run("policy", "diff", "approved", cheaper, "--store", store).stdout
    keyed = tmp_path / "keyed.toml"
    keyed.write_text(policy.read_text().replace('model = "gpt-5"', 'model = "gpt-5"\nbase_url = "http://x"'))
    assert "sets no address" in run("policy", "approve", keyed, "--store", store, "--by", "anna").stderr


def test_a_revision_is_undone_and_the_one_before_is_served_again(policy: Path, tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'calls.db'}"
    assert "nothing to undo" in run("policy", "undo", "--store", store).stderr
    run("policy", "approve", policy, "--store", store)
    assert "is the first" in run("policy", "undo", "--store", store).stderr
    other = tmp_path / "other.toml"
    other.write_text(policy.read_text() + '[route.reply]\ntarget = "nano"\n')
    run("policy", "approve", other, "--store", store)
    undone = run("policy", "undo", "2", "--store", store, "--by", "anna")
    assert "revision 3 is approved: undo revision 2" in undone.stdout
    assert "The same policy" in run("policy", "diff", "approved", policy, "--store", store).stdout
    assert run("policy", "undo", "9", "--store", store).exit_code == 2


def test_a_running_server_approves_and_undoes_for_the_command_line(policy: Path, tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'calls.db'}"
    other = tmp_path / "other.toml"
    other.write_text(policy.read_text() + '[route.reply]\ntarget = "nano"\n')
    with serving_in_thread(ServeSettings(store=store, http_port=0, grpc_port=None, port=0)) as running:
        server = ("--server", running.dashboard_url)
        assert "revision 1" in run("policy", "approve", policy, "--store", store, *server).stdout
        assert (
            "revision 2" in run("policy", "approve", other, "--store", store, *server, "--by", "ben").stdout
        )
        assert "undo revision 2" in run("policy", "undo", "--store", store, *server).stdout
        assert "is the first" in run("policy", "undo", "1", "--store", store, *server).stderr
        assert running.store.policies()[0].toml == policy.read_text()
        nobody = run("policy", "approve", policy, "--store", store, "--server", "http://127.0.0.1:9")
        assert nobody.exit_code == 2
        assert "another process holds the store" in nobody.stderr


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Calls of one explored route: the small model fails at a fifth of the prompts."""
    store = f"sqlite:///{tmp_path_factory.mktemp('replay') / 'calls.db'}"
    answers = {
        name: CallableProvider(lambda target, request: reply("ok", target.model))
        for name in ("openai", "anthropic")
    }
    router = Router(
        Policy.from_toml(POLICY + LEARNED),
        providers=answers,
        board=BreakerBoard(),
        rng=random.Random(4),
        sends_features=True,
    )
    with serving_in_thread(ServeSettings(store=store, http_port=0, grpc_port=None, port=0)) as running:
        configure(service_name="test", endpoint=running.otlp_url, spool=False, prices=False)
        for n in range(300):
            is_hard = n % 5 == 0
            answer = router.chat("help", f"prove lemma {n % 40}" if is_hard else f"sort parcel {n % 40}")
            score(not (is_hard and answer.target == "nano"), "csat", call=answer.call_id)
        assert flush(10)
        shutdown()
    return store


def test_a_route_is_learnt_from_its_stored_calls(stored: str, policy: Path, tmp_path: Path) -> None:
    out = tmp_path / "lr1.json"
    learnt = run("learn", "--store", stored, "--route", "help", "--policy", policy, "--out", out)
    assert learnt.exit_code == 0, learnt.output
    router = LearnedRouter.from_json(out.read_bytes())
    assert router.version in learnt.stdout
    assert router.mode == "full"
    assert router.comparable == 300
    again = tmp_path / "again.json"
    run("learn", "--store", stored, "--route", "help", "--policy", policy, "--out", again)
    assert again.read_bytes() == out.read_bytes()
    assert (
        "has no route 'nope'"
        in run("learn", "--store", stored, "--route", "nope", "--policy", policy, "--out", out).stderr
    )


def test_a_policy_is_valued_on_stored_calls(stored: str, policy: Path, tmp_path: Path) -> None:
    found = run("replay", "--store", stored, "--route", "help", "--policy", policy, "--json")
    assert found.exit_code == 0, found.output
    values = json.loads(found.stdout)["policy"]["values"]
    assert values["always sonnet"]["value"] == pytest.approx(1.0, abs=0.05)
    assert values["always nano"]["value"] == pytest.approx(0.8, abs=0.1)
    elsewhere = tmp_path / "elsewhere.toml"
    elsewhere.write_text(POLICY + '[route.help]\ntarget = "gpt5"\n')
    assert (
        run(
            "replay", "--store", stored, "--route", "help", "--policy", elsewhere, "--signal", "csat"
        ).exit_code
        == 2
    )


def planted(folder: Path) -> Path:
    rows: list[dict[str, Any]] = []
    for n in range(300):
        is_hard = n % 5 == 0
        rows.append(
            {
                "prompt": f"prove lemma {n % 40}" if is_hard else f"sort parcel {n % 40}",
                "task": "maths" if is_hard else "parcels",
                "scores": {"small": 0 if is_hard else 1, "large": 1},
                "costs": {"small": 0.001, "large": 0.01},
            }
        )
    file = folder / "mine.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    return file


def test_a_set_is_replayed_with_a_picture_and_an_exit_code(tmp_path: Path) -> None:
    svg = tmp_path / "curve.svg"
    fine = run("replay", "--data", planted(tmp_path), "--min-saving", "0.5", "--svg", svg)
    assert fine.exit_code == 0, fine.output
    assert "always strong  quality 1.000" in fine.stdout
    assert "simple is enough" in fine.stdout
    assert svg.read_text().startswith("<svg ")
    assert "<script" not in svg.read_text()
    assert run("replay", "--data", tmp_path / "mine.jsonl", "--min-saving", "0.99").exit_code == 1
    assert (
        run(
            "replay", "--data", tmp_path / "mine.jsonl", "--pair", "large,small", "--min-saving", "0.1"
        ).exit_code
        == 2
    )
    assert "has no model 'x'" in run("replay", "--data", tmp_path / "mine.jsonl", "--pair", "x,small").stderr
    assert run("replay").exit_code == 2
