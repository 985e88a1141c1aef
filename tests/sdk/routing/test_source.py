"""Where a policy comes from: a file that changes, a collector that goes away, a revision that must not be loaded."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from sdk.routing.fakes import POLICY
from tierlight import _guard
from tierlight.errors import ConfigurationError, PolicyError
from tierlight.routing import Router
from tierlight.routing.embed import hashed
from tierlight.routing.learn import ScoredCall
from tierlight.routing.policy import Policy
from tierlight.routing.source import PolicySource, load_policy
from tierlight.routing.training import train

OTHER = POLICY.replace('target = "nano"', 'target = "lite"')
BROKEN = POLICY.replace('target = "nano"', 'target = "gone"')


@pytest.fixture(autouse=True)
def _fresh_faults() -> None:
    _guard.faults.clear()


def write(file: Path, toml: str, step: int) -> None:
    """Change a file so that its time says so, however coarse the clock of the file system."""
    file.write_text(toml)
    os.utime(file, (1_700_000_000 + step, 1_700_000_000 + step))


def test_a_changed_file_is_read_again_and_a_broken_one_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "policy.toml"
    write(file, POLICY, 0)
    source = PolicySource(str(file))
    assert source.current().routes["intent"].default == "nano"
    write(file, OTHER, 1)
    source._next = 0
    assert source.current().routes["intent"].default == "lite"
    with caplog.at_level(logging.WARNING, "tierlight"):
        for step in (2, 3):
            write(file, BROKEN, step)
            source._next = 0
            assert source.current().routes["intent"].default == "lite"
    assert source.counters == {"policy_refreshed": 1, "policy_stale": 2}
    assert len(caplog.records) == 1
    assert "reload the policy" in caplog.text


def test_a_file_of_a_file_stands_beside_it(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text('{"type": "object"}')
    (tmp_path / "p.toml").write_text(
        POLICY.replace('kind = "json"', 'kind = "json_schema", schema = "s.json"')
    )
    assert load_policy(tmp_path / "p.toml").routes["extract"].validators[0].options["schema"] == {
        "type": "object"
    }
    (tmp_path / "s.json").unlink()
    with pytest.raises(PolicyError, match=r"schema: the file 's.json' can't be read"):
        load_policy(tmp_path / "p.toml")
    with pytest.raises(PolicyError, match="can't be read: No such file"):
        load_policy(tmp_path / "gone.toml")


class Collector:
    """Answers a policy request as a collector would, or not at all."""

    def __init__(self) -> None:
        self.toml, self.etag, self.is_away = POLICY, '"1"', False
        self.asked: list[str] = []

    def fetch(self, etag: str) -> tuple[str, bytes] | None:
        self.asked.append(etag)
        if self.is_away:
            raise httpx.ConnectError("away")
        return None if etag == self.etag else (self.etag, self.toml.encode())


@contextmanager
def served() -> Iterator[tuple[str, Collector]]:
    """A collector on a port of its own, and what it answers with."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = collector.fetch(self.headers.get("If-None-Match", ""))
            self.send_response(304 if found is None else 200)
            if found is not None:
                self.send_header("ETag", found[0])
                self.send_header("Content-Length", str(len(found[1])))
            self.end_headers()
            self.wfile.write(found[1] if found is not None else b"")

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/api/v1/policy", collector
        server.shutdown()
        thread.join()


def test_a_served_policy_is_asked_for_by_its_etag_and_survives_the_collector() -> None:
    collector = Collector()
    source = PolicySource("http://collector/api/v1/policy", poll_s=3600, fetch=collector.fetch)
    source.refresh()
    assert collector.asked == ["", '"1"']
    collector.toml, collector.etag = OTHER, '"2"'
    source.refresh()
    assert source.current().routes["intent"].default == "lite"
    collector.is_away = True
    source.refresh()
    assert source.current().routes["intent"].default == "lite"
    collector.is_away, collector.toml, collector.etag = False, BROKEN, '"3"'
    source.refresh()
    assert source.current().routes["intent"].default == "lite"
    assert source.counters == {"policy_refreshed": 1, "policy_stale": 2}
    collector.toml, collector.etag = POLICY, '"4"'
    source.refresh()
    assert source.current().routes["intent"].default == "nano"
    source.close()


def test_a_router_takes_up_a_new_revision_when_it_is_told_to(tmp_path: Path) -> None:
    with served() as (address, collector):
        router = Router(address)
        router.refresh()
        assert router.policy.routes["intent"].default == "nano"
        collector.toml, collector.etag = OTHER, '"2"'
        router.refresh()
        assert router.policy.routes["intent"].default == "lite"
        router.close()
    (tmp_path / "p.toml").write_text(POLICY)
    for plain in (Router(Policy.from_toml(POLICY)), Router(str(tmp_path / "p.toml"))):
        plain.refresh()
        assert plain.stats == {}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_worker_polls_its_policy_on() -> None:
    collector = Collector()
    source = PolicySource("http://collector/api/v1/policy", poll_s=0.01, fetch=collector.fetch)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        collector.toml, collector.etag = OTHER, '"2"'
        ends = time.monotonic() + 10.0
        while source.current().routes["intent"].default != "lite" and time.monotonic() < ends:
            time.sleep(0.005)
        os.write(writing, source.current().routes["intent"].default.encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    assert os.read(reading, 10) == b"lite"
    assert source.current().routes["intent"].default == "nano"
    os.close(reading)
    source.close()


def test_a_served_policy_that_sets_an_address_never_takes_the_place_of_a_good_one() -> None:
    collector = Collector()
    source = PolicySource("https://collector/api/v1/policy", poll_s=3600, fetch=collector.fetch)
    collector.toml, collector.etag = (
        POLICY.replace('model = "gpt-5"', 'model = "gpt-5"\nbase_url = "http://evil"'),
        '"2"',
    )
    source.refresh()
    assert source.current() == Policy.from_toml(POLICY)
    assert source.counters["policy_stale"] == 1
    source.close()


def test_the_variable_names_the_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "p.toml").write_text(POLICY)
    monkeypatch.setenv("TIERLIGHT_POLICY", str(tmp_path / "p.toml"))
    assert PolicySource("").current() == Policy.from_toml(POLICY)
    monkeypatch.delenv("TIERLIGHT_POLICY")
    with pytest.raises(ConfigurationError, match="set TIERLIGHT_POLICY to a file or a collector"):
        PolicySource("")


def test_a_route_names_its_learned_router_by_file(tmp_path: Path) -> None:
    calls = [
        ScoredCall(
            target, float(target == "sonnet" or n % 5 > 0), hashed(f"text {n % 5}"), time_ns=n, call_id=str(n)
        )
        for n in range(300)
        for target in ("nano", "sonnet")
    ]
    router = train("help", calls, ["nano", "sonnet"], default="sonnet", signal="csat", now_ns=300)
    (tmp_path / "lr1.json").write_text(router.to_json())
    toml = (
        POLICY
        + '[route.help]\nstrategy = "learned"\ncandidates = ["nano", "sonnet"]\nsignal = "csat"\nartefact = "lr1.json"\n'
    )
    (tmp_path / "p.toml").write_text(toml)
    source = PolicySource(str(tmp_path / "p.toml"))
    chooser = source.chooser(source.current().routes["help"])
    assert chooser is not None
    choice = chooser.choose("text 0", "", ["nano", "sonnet"])
    assert (choice.target, choice.version) == ("sonnet", router.version)
    (tmp_path / "lr1.json").write_text(router.to_json().replace('"default":"sonnet"', '"default":"nano"'))
    with pytest.raises(ConfigurationError, match="does not have the hash"):
        source.chooser(source.current().routes["help"])


def test_a_collector_that_is_away_at_the_start_needs_a_default() -> None:
    collector = Collector()
    collector.is_away = True
    with pytest.raises(
        ConfigurationError,
        match=r"no policy can be had \(ConnectError\); start the collector, or give default_policy",
    ):
        PolicySource("http://collector/api/v1/policy", poll_s=3600, fetch=collector.fetch)
    own = Policy.from_toml(OTHER)
    source = PolicySource("http://collector/api/v1/policy", poll_s=3600, fetch=collector.fetch, default=own)
    assert source.current() is own
    collector.is_away = False
    source.refresh()
    assert source.current() == Policy.from_toml(POLICY)
    source.close()
