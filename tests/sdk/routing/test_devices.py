"""A model on the user's own machine: asked whether it is there in the background, passed over where it is not."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sdk.routing.fakes import POLICY, Scripted, reply
from sdk.routing.test_router import captured, span_around
from tierlight.routing import HttpProvider, Policy, Router
from tierlight.routing.breaker import BreakerBoard
from tierlight.routing.declared import Target
from tierlight.routing.devices import EVERY_S, PROBE_S, Devices


@dataclass
class LocalServer:
    """What Ollama or llama.cpp serve: a list of models, and chat. It can be told to fail or to hang."""

    status: int = 200
    hangs: threading.Event | None = None
    paths: list[str] = field(default_factory=list)
    port: int = 0

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"


@pytest.fixture
def server() -> Iterator[LocalServer]:
    state = LocalServer()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            state.paths.append(self.path)
            if state.hangs is not None:
                state.hangs.wait(5)
            self.rfile.read(int(self.headers.get("content-length") or 0))
            body = {"data": [{"id": "gemma3:270m"}]} if self.path.endswith("/models") else reply("from here")
            encoded = json.dumps(body).encode()
            self.send_response(state.status)
            self.send_header("content-length", str(len(encoded)))
            self.end_headers()
            self.wfile.write(encoded)

        do_GET = do_POST = answer  # noqa: N815  the names of http.server

        def log_message(self, format: str, *args: object) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.daemon_threads = True
    state.port = running.server_port
    thread = threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield state
    if state.hangs is not None:
        state.hangs.set()
    running.shutdown()
    running.server_close()
    thread.join(5)


def phone(base_url: str) -> str:
    return (
        POLICY
        + f'[target.phone]\nprovider = "local"\nmodel = "gemma3:270m"\ntier = "on-device"\nprice = "free"\n'
        f'base_url = "{base_url}"\nfallback = ["nano"]\n[route.sort]\ntarget = "phone"\n'
    )


def on_device(script: Scripted, base_url: str) -> Router:
    return Router(
        Policy.from_toml(phone(base_url)),
        providers={**dict.fromkeys(("openai", "gcp.gemini", "anthropic"), script), "local": HttpProvider()},
        board=BreakerBoard(),
        clock=script.clock,
        sleep=script.sleep,
    )


def settled(devices: Devices, target: Target, now: float, presence: bool) -> None:
    """Wait until the probe that was begun has found this out."""
    deadline = time.monotonic() + 10
    while devices.is_present(target, now) != presence:
        assert time.monotonic() < deadline, "the probe never came to an end"
        time.sleep(0.005)


def test_a_device_that_is_there_answers_and_its_probe_is_not_the_calls_affair(server: LocalServer) -> None:
    script = Scripted()
    router = on_device(script, server.base_url)
    answer = router.chat("sort", "where is it")
    assert (answer.text, answer.target) == ("from here", "phone")
    assert answer.decision.reason == "task"
    target = router.policy.targets["phone"]
    settled(router._devices, target, script.clock.perf_ns() / 1e9, True)
    assert script.asked == []


def test_a_device_that_is_gone_is_passed_over_without_an_error(server: LocalServer) -> None:
    script = Scripted()
    router = on_device(script, server.base_url)
    server.status = 503
    target = router.policy.targets["phone"]
    assert router._devices.probe(target) is False
    server.paths.clear()
    with captured(script) as calls:
        answer = router.chat("sort", "where is it")
    assert (answer.target, answer.text) == ("nano", "fine")
    assert answer.decision.reason == "device_unavailable"
    said = span_around(calls).attributes
    assert said["tierlight.decision.excluded"] == ("device_unavailable",)
    assert said["tierlight.decision.reason"] == "device_unavailable"
    assert not [path for path in server.paths if path.endswith("/chat/completions")]
    server.status = 200
    script.clock.advance(EVERY_S + 1)
    router.chat("sort", "where is it")  # this one asks in the background whether it is back
    settled(router._devices, target, script.clock.perf_ns() / 1e9, True)
    assert router.chat("sort", "where is it").target == "phone"


def test_a_call_never_waits_for_a_probe(server: LocalServer) -> None:
    script = Scripted()
    router = on_device(script, server.base_url)
    target = router.policy.targets["phone"]
    router._devices._known["phone"] = False  # as of a probe half a minute ago
    server.hangs = threading.Event()
    assert router.chat("sort", "where is it").target == "nano"  # answered while the probe hangs
    deadline = time.monotonic() + 10
    while "/v1/models" not in server.paths:
        assert time.monotonic() < deadline, "no probe was begun"
        time.sleep(0.005)
    assert not server.hangs.is_set()
    assert router._devices.probe(target) is False  # given up at its own limit


def test_a_device_is_probed_at_most_every_half_minute_and_off_the_calling_thread() -> None:
    threads: list[str] = []
    probed = threading.Semaphore(0)

    class Local:
        def is_reachable(self, target: Target, timeout_s: float) -> bool:
            assert timeout_s == PROBE_S
            threads.append(threading.current_thread().name)
            probed.release()
            return True

    devices = Devices(lambda target: Local())  # type: ignore[arg-type, return-value]  # only what a probe asks
    policy = Policy.from_toml(phone("http://127.0.0.1:9/v1"))
    target = policy.targets["phone"]
    for now in (0.0, 1.0, 29.9, 30.0, 31.0, 59.9, 60.0):
        assert devices.is_present(target, now)
    for _ in range(3):
        assert probed.acquire(timeout=10)
    assert threads == ["tierlight-device"] * 3
    assert devices.is_present(policy.targets["nano"], 100.0)  # nobody asks a provider on the network
    assert not probed.acquire(timeout=0.02)
