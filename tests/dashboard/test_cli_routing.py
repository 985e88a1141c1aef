"""`tierlight policy`, `learn` and `replay` from the command line, on stored calls and on sets."""

from __future__ import annotations

import json
import random
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from collector.stores.build import DAY_NS, call
from collector.stores.build import score as mark
from dashboard.test_notify import ALERT
from sdk.routing.fakes import POLICY, reply
from tierlight import configure, flush, score, shutdown
from tierlight.routing import CallableProvider, LearnedRouter, Policy, Router
from tierlight.routing.breaker import BreakerBoard
from tierlight_collector.decisions import WatchCommit
from tierlight_collector.records import Batch
from tierlight_collector.stores import open_store
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


def test_calls_before_an_open_quality_alert_are_not_learnt_from(
    stored: str, policy: Path, tmp_path: Path
) -> None:
    out = tmp_path / "lr1.json"
    store = open_store(stored)
    now_ns = time.time_ns()
    alert = replace(ALERT, id=0, route="help", model="gpt-5-nano", severity="ticket", change_ns=now_ns)
    (told,) = store.commit_watch(WatchCommit({}, {}, alerts=(alert,)))
    store.close()
    learnt = run("learn", "--store", stored, "--route", "help", "--policy", policy, "--out", out)
    assert "are left out: an open alert says that the quality of nano changed since" in learnt.stdout
    router = LearnedRouter.from_json(out.read_bytes())
    assert len(router.arms["nano"].scores) == 0
    assert len(router.arms["sonnet"].scores) > 100
    store = open_store(stored)
    store.update_alert(replace(told, state="resolved", resolved_ns=now_ns), "anna")
    store.close()
    again = run("learn", "--store", stored, "--route", "help", "--policy", policy, "--out", out)
    assert "left out" not in again.stdout


FIXED = '[route.help]\ntarget = "{}"\nsignal = "csat"\n'


def replayed(store: str, policy: str, tmp_path: Path, *options: str) -> Result:
    file = tmp_path / "proposed.toml"
    file.write_text(POLICY + policy)
    return run("replay", "--store", store, "--route", "help", "--policy", file, "--signal", "csat", *options)


def serving(store: str, policy: str, tmp_path: Path) -> None:
    file = tmp_path / "served.toml"
    file.write_text(POLICY + policy)
    assert run("policy", "approve", file, "--store", store).exit_code == 0


def test_the_served_policy_is_replayed_beside_the_proposed_one(stored: str, tmp_path: Path) -> None:
    alone = replayed(stored, LEARNED.replace("explore = 0.5\n", ""), tmp_path, "--json")
    assert alone.exit_code == 0, alone.output
    values = json.loads(alone.stdout)["policy"]["values"]
    assert values["always sonnet"]["value"] == pytest.approx(1.0, abs=0.05)
    assert values["always nano"]["value"] == pytest.approx(0.8, abs=0.1)
    # Learnt out of fold: the hard fifth goes to the strong model, so nearly nothing is lost at a part of the price.
    assert values["proposed policy"]["value"] == pytest.approx(1.0, abs=0.06)
    assert values["proposed policy"]["cost_usd"] < 0.5 * values["always sonnet"]["cost_usd"]
    serving(stored, FIXED.format("sonnet"), tmp_path)
    nano = FIXED.format("nano")
    said = replayed(stored, nano, tmp_path)
    assert said.exit_code == 0, said.output
    assert "  current policy " in said.stdout
    assert "  proposed policy " in said.stdout
    assert "-> proposed against current: quality -" in said.stdout
    assert "by logged probabilities" in said.stdout
    assert replayed(stored, nano, tmp_path, "--margin", "0.5", "--min-saving", "0.5").exit_code == 0
    assert replayed(stored, nano, tmp_path, "--margin", "0.02").exit_code == 1
    assert replayed(stored, nano, tmp_path, "--min-saving", "0.9999").exit_code == 1
    change = json.loads(replayed(stored, nano, tmp_path, "--json").stdout)["policy"]["change"]
    between = str(-change["quality"]["value"])
    assert replayed(stored, nano, tmp_path, "--margin", between).exit_code == 2
    served = run("replay", "--store", stored, "--route", "help", "--signal", "csat")
    assert served.exit_code == 0
    assert "proposed policy" not in served.stdout


def test_a_policy_that_asks_other_models_or_a_cascade_is_not_valued(stored: str, tmp_path: Path) -> None:
    elsewhere = replayed(stored, FIXED.format("gpt5"), tmp_path)
    assert elsewhere.exit_code == 2
    cascade = LEARNED.replace('"learned"', '"cascade"').replace("candidates", "steps").split("explore")[0]
    found = replayed(stored, cascade + 'validators = [{ kind = "json" }]\n', tmp_path)
    assert found.exit_code == 2
    assert "depends on its checks" in found.stdout
    assert "no approved policy routes 'nope'" in run("replay", "--store", stored, "--route", "nope").stderr


def pairs(tmp_path: Path, *, escalated: int, accepted: int = 0, share: float = 0.1) -> str:
    """A cascade's calls: escalated ones have both answers, of the accepted ones a share was verified by a shadow."""
    url = f"sqlite:///{tmp_path / 'pairs.db'}"
    store = open_store(url)
    spans, number = [], 0
    now_ns = time.time_ns() - DAY_NS

    def answered(request: int, model: str, value: float, **fields: Any) -> None:
        nonlocal number
        number += 1
        provider = "anthropic" if model.startswith("claude") else "openai"
        cost = 20_000_000 if provider == "anthropic" else 1_000_000
        known: dict[str, Any] = {
            "provider": provider,
            "request_model": model,
            "response_model": model,
            "cost_nusd": cost,
        }
        span = call(request, number, start_ns=now_ns, route="help", call_id=f"c{request}", **known, **fields)
        assert span.call is not None
        given = mark("csat", value, trace=request, number=number, time_ns=now_ns)
        # Its check fails every bad answer, and one good one in ten.
        fine = float(value and request % 10 != 0)
        checked = mark("json", fine, trace=request, number=number, time_ns=now_ns, kind="validator")
        spans.append(replace(span, scores=(given, checked)))

    for n in range(1, escalated + 1):
        answered(n, "gpt-5-nano", 0.0)
        answered(n, "claude-sonnet-4-5", 1.0, attempt_reason="escalation")
    for n in range(escalated + 1, escalated + accepted + 1):
        answered(n, "gpt-5-nano", 1.0)
        if n % round(1 / share) == 0:
            answered(n, "claude-sonnet-4-5", 1.0, purpose="shadow", act_prob=share)
    store.append(Batch(spans=tuple(spans), arrived_ns=now_ns))
    store.close()
    return url


def test_escalated_pairs_alone_may_propose_and_never_ship(tmp_path: Path) -> None:
    store = pairs(tmp_path, escalated=100)
    serving(store, FIXED.format("nano"), tmp_path)
    found = replayed(store, FIXED.format("sonnet"), tmp_path, "--margin", "0.5")
    assert found.exit_code == 2  # however good it looks
    assert "quality +100.0 pt" in found.stdout
    assert "by escalated pairs" in found.stdout
    assert "help: nano or sonnet, n 100" in found.stdout  # the cheaper one first, whichever is proposed
    assert "they may propose a change, never ship it" in found.stdout


def test_a_verified_share_of_the_accepted_calls_makes_pairs_that_may_ship(tmp_path: Path) -> None:
    store = pairs(tmp_path, escalated=300, accepted=700)
    serving(store, FIXED.format("nano"), tmp_path)
    found = replayed(store, FIXED.format("sonnet"), tmp_path, "--margin", "0.02", "--json")
    assert found.exit_code == 0, found.output
    document = json.loads(found.stdout)["policy"]
    # 30 % escalate: a verified call stands for ten, or always-weak would look four times worse than it is.
    assert document["values"]["current policy"]["value"] == pytest.approx(0.7)
    assert document["values"]["proposed policy"]["value"] == pytest.approx(1.0)
    assert document["change"]["evidence"] == "shadow pairs"
    assert document["identifiable_share"] == pytest.approx(0.37)
    (checked,) = document["validators"]
    assert (checked["name"], checked["failed_bad"]) == ("json", 300)
    assert (checked["precision"], checked["recall"]) == (300 / checked["failed_known"], 1.0)
    assert "validator json: fails" in replayed(store, FIXED.format("sonnet"), tmp_path).stdout


def test_calls_that_were_all_decided_with_certainty_say_nothing(tmp_path: Path) -> None:
    store = pairs(tmp_path, escalated=0, accepted=300, share=0.001)
    serving(store, FIXED.format("nano"), tmp_path)
    found = replayed(store, FIXED.format("sonnet"), tmp_path, "--margin", "0.02")
    assert found.exit_code == 2
    assert "not identifiable: deterministic routing" in found.stdout


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
