"""A user's program while the collector is dead, hangs, refuses, comes back; and while the program itself dies.

Each case is a small script in a process of its own, written as a user would write it. It reports what it saw
as one JSON line; the budget of 2.5 s for the end of a process is measured around it.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from e2e.doubles.fake_collector import FakeCollector, Mode, attributes, fake_collector
from e2e.doubles.program import BUDGET_S, Program, finished


@pytest.fixture
def collector() -> Iterator[FakeCollector]:
    with fake_collector() as running:
        yield running


@pytest.fixture
def program(collector: FakeCollector, tmp_path: Path) -> Program:
    return Program(collector.url, tmp_path / "spool")


def dead_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


@contextmanager
def silent_listener() -> Iterator[str]:
    """A port that takes connections into its backlog and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def assert_delivered_once(collector: FakeCollector, count: int) -> None:
    assert len(collector.span_ids) == count
    assert set(collector.span_ids.values()) <= {1}


CALLS = """
    answers = [ask() for _ in range(600)]
    report(same=all(a["model"] == "gpt-5-mini" for a in answers))
"""


# ---- the collector -------------------------------------------------------------------------------------------


def test_all_arrive_when_all_is_well(program: Program, collector: FakeCollector) -> None:
    end = program.run(CALLS)
    assert (end.status, end.errors) == (0, "")
    assert_delivered_once(collector, 600)
    assert program.spooled_files() == []


def test_a_dead_collector_costs_little_at_exit_and_nothing_is_lost(
    program: Program, collector: FakeCollector
) -> None:
    alive, program.endpoint = program.endpoint, dead_port()
    end = program.run(CALLS)
    assert end.status == 0
    assert end.report["same"]
    assert end.exit_s < BUDGET_S
    assert program.spooled_files() == [".otlp"]
    assert end.errors.count("cannot deliver") == 1

    program.endpoint = alive
    program.run("ask()")
    assert_delivered_once(collector, 601)
    assert program.spooled_files() == []


def test_a_collector_that_never_answers_is_given_up_in_time(
    program: Program, collector: FakeCollector
) -> None:
    alive = program.endpoint
    with silent_listener() as program.endpoint:
        end = program.run(CALLS)
    assert end.status == 0
    assert end.exit_s < BUDGET_S
    program.endpoint = alive
    program.run("ask()")
    assert_delivered_once(collector, 601)


def test_a_name_that_does_not_resolve_is_as_a_dead_collector(program: Program) -> None:
    program.endpoint = "http://collector.invalid:4318"
    end = program.run(CALLS)
    assert end.status == 0
    assert end.exit_s < BUDGET_S
    assert program.spooled_files() == [".otlp"]


@pytest.mark.parametrize(
    "mode", ["503 retry-after seconds", "503", "html 200", "reset mid-response", "slow2"]
)
def test_what_was_refused_for_now_is_there_after_the_next_start(
    program: Program, collector: FakeCollector, mode: Mode
) -> None:
    collector.mode = mode
    end = program.run(CALLS)
    assert end.status == 0
    assert end.exit_s < BUDGET_S
    collector.mode = "ok"
    program.run("ask()")
    assert len(collector.span_ids) == 601
    if mode != "slow2":  # taken, but too slowly to be believed: sent once more, and the span id tells
        assert_delivered_once(collector, 601)


def test_an_untrusted_certificate_is_as_a_dead_collector(program: Program) -> None:
    certificate = Path(__file__).parent / "doubles" / "localhost.pem"
    with fake_collector(certificate=certificate) as collector:
        program.endpoint = collector.url
        end = program.run(CALLS)
        assert end.exit_s < BUDGET_S
        assert program.spooled_files() == [".otlp"]
        assert collector.spans == []

        program.extra["OTEL_EXPORTER_OTLP_CERTIFICATE"] = str(certificate)
        program.run("ask()")
        assert_delivered_once(collector, 601)


def test_partial_success_is_not_silent(program: Program, collector: FakeCollector) -> None:
    collector.mode = "partial"
    end = program.run(
        "ask(); ask(); delivered = tierlight.flush(5); report(delivered=delivered, stats=tierlight.stats())"
    )
    assert not end.report["delivered"]
    assert end.report["stats"]["dropped.refused"] == 1
    assert end.errors.count("older than the horizon") == 1


def test_a_burst_is_delivered_or_counted_to_the_span(program: Program, collector: FakeCollector) -> None:
    end = program.run(
        """
        for _ in range(20_000):
            ask()
        tierlight.flush(20)
        report(stats=tierlight.stats())
        """
    )
    stats = end.report["stats"]
    assert stats["offered"] == 20_000
    assert stats["delivered"] + stats["dropped"] == 20_000
    assert_delivered_once(collector, stats["delivered"])
    told = sum(attributes(span.attributes).get("tierlight.sdk.dropped", 0) for span in collector.spans)
    program_knows = stats["dropped"]
    assert told <= program_knows


def test_large_texts_cost_themselves_and_no_span(program: Program, collector: FakeCollector) -> None:
    program.extra["OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"] = "true"
    end = program.run(
        """
        text = "lorem ipsum " * 17_000
        for _ in range(600):
            ask(text)
        report(delivered=tierlight.flush(20), stats=tierlight.stats())
        """
    )
    assert end.report["stats"]["dropped"] == 0
    assert_delivered_once(collector, 600)
    assert max(size for _, _, size in collector.requests) < 2 * 1024 * 1024


# ---- the process ---------------------------------------------------------------------------------------------


def test_a_forked_child_sends_its_own_and_its_parent_too(program: Program, collector: FakeCollector) -> None:
    end = program.run(
        """
        ask()
        child = os.fork()
        if child == 0:
            for _ in range(10):
                ask()
            sys.exit(0)
        os.waitpid(child, 0)
        ask()
        report()
        """
    )
    assert end.status == 0
    assert_delivered_once(collector, 12)


def test_os_exit_after_a_flush_loses_nothing(program: Program, collector: FakeCollector) -> None:
    program.run("[ask() for _ in range(10)]; report(delivered=tierlight.flush(5)); os._exit(0)")
    assert_delivered_once(collector, 10)


MULTIPROCESSING = """
import json, multiprocessing, sys, time
import tierlight

@tierlight.route("support", tier="small")
def ask():
    return {"model": "m", "choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 1}}

def work(count):
    tierlight.configure(service_name="shop", prices=False) if sys.argv[1] == "spawn" else None
    for _ in range(count):
        ask()

if __name__ == "__main__":
    tierlight.configure(service_name="shop", prices=False)
    ask()
    context = multiprocessing.get_context(sys.argv[1])
    children = [context.Process(target=work, args=(10,)) for _ in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    print(json.dumps({"ended": time.time(), "codes": [child.exitcode for child in children]}), flush=True)
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_children_of_multiprocessing_flush_at_their_end(
    program: Program, collector: FakeCollector, tmp_path: Path, method: str
) -> None:
    script = tmp_path / "program.py"
    script.write_text(MULTIPROCESSING)
    environ = os.environ | {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "TIERLIGHT_SPOOL": str(program.spool),
    }
    out = subprocess.run(
        [sys.executable, str(script), method], check=True, capture_output=True, text=True, env=environ
    ).stdout
    assert json.loads(out)["codes"] == [0, 0]
    assert_delivered_once(collector, 21)


SERVED = """
import tierlight
tierlight.configure(service_name="shop", prices=False)
tierlight.install_signal_flush()  # uvicorn ends its workers by the signal itself: atexit does not run

@tierlight.route("support", tier="small")
def ask():
    return {"model": "m", "choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 1}}

async def app(scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError("HTTP only")
    ask()
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})
"""


def test_workers_of_uvicorn_flush_with_the_opt_in(
    program: Program, collector: FakeCollector, tmp_path: Path
) -> None:
    (tmp_path / "served.py").write_text(SERVED)
    address = dead_port()
    environ = os.environ | {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "60000",
        "TIERLIGHT_SPOOL": str(program.spool),
    }
    command = [sys.executable, "-m", "uvicorn", "served:app", "--lifespan", "off", "--log-level", "error"]
    command += ["--workers", "2", "--port", address.rpartition(":")[2]]
    server = subprocess.Popen(command, cwd=tmp_path, env=environ)
    try:
        with httpx.Client(transport=httpx.HTTPTransport(retries=10)) as client:
            for _ in range(20):
                assert client.get(address).status_code == 204
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(20)
    assert_delivered_once(collector, 20)


def test_sigterm_with_the_opt_in_flushes_and_ends_as_it_would_have(
    program: Program, collector: FakeCollector
) -> None:
    process = program.start(
        """
        tierlight.install_signal_flush()
        for _ in range(10):
            ask()
        report()
        time.sleep(30)
        """
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    assert finished(process).status == -signal.SIGTERM
    assert_delivered_once(collector, 10)


def test_the_handler_that_was_there_before_sigterm_still_runs(
    program: Program, collector: FakeCollector
) -> None:
    process = program.start(
        """
        import signal
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(7))
        tierlight.install_signal_flush()
        ask()
        report()
        time.sleep(30)
        """
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    assert finished(process).status == 7
    assert_delivered_once(collector, 1)


def test_kill_loses_at_most_what_was_not_sent_yet(program: Program, collector: FakeCollector) -> None:
    process = program.start("[ask() for _ in range(10)]; tierlight.flush(5); report(); ask(); time.sleep(30)")
    assert process.stdout is not None
    process.stdout.readline()
    process.kill()
    finished(process)
    assert len(collector.span_ids) >= 10


@pytest.mark.parametrize(
    ("ending", "statuses"),
    [
        ("raise ValueError('theirs')", {1}),
        ("sys.exit(3)", {3}),
        ("threading.Thread(target=sys.exit).start()", {0}),
        ("os.kill(os.getpid(), 2); time.sleep(5)", {1, -signal.SIGINT}),  # Python itself ends either way
    ],
)
def test_however_the_program_ends_its_calls_are_sent(
    program: Program, collector: FakeCollector, ending: str, statuses: set[int]
) -> None:
    end = program.run(f"ask(); report(); {ending}")
    assert end.status in statuses
    assert_delivered_once(collector, 1)


def test_a_stream_open_at_the_end_of_the_process_is_recorded_as_cut(
    program: Program, collector: FakeCollector
) -> None:
    program.run(
        """
        @tierlight.route("summarise", tier="mid")
        def stream():
            yield {"model": "m", "choices": [{"delta": {"content": "one"}}]}
            yield {"model": "m", "choices": [{"delta": {"content": "two"}}]}
        reading = stream()
        next(reading)
        report()
        """
    )
    program.run("ask()")  # what came after the last send is in the spool
    cut = [span for span in collector.spans if attributes(span.attributes)["tierlight.route"] == "summarise"]
    assert [attributes(span.attributes)["tierlight.outcome"] for span in cut] == ["cancelled"]


def test_a_cancelled_task_is_recorded_and_stays_cancelled(program: Program, collector: FakeCollector) -> None:
    end = program.run(
        """
        import asyncio
        @tierlight.route("support", tier="small")
        async def slow():
            await asyncio.sleep(30)
        async def main():
            task = asyncio.create_task(slow())
            await asyncio.sleep(0.01)
            task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                return task.cancelled()
        report(cancelled=asyncio.run(main()))
        """
    )
    assert end.report["cancelled"]
    [span] = collector.spans
    assert attributes(span.attributes)["tierlight.outcome"] == "cancelled"


def test_a_fault_of_ours_changes_nothing_for_the_caller(program: Program, collector: FakeCollector) -> None:
    end = program.run(
        """
        class Hostile(dict):
            def get(self, *args):
                raise SystemError("not for the user")
            __contains__ = __iter__ = keys = items = get
        given, raised = Hostile(), KeyError("theirs")
        @tierlight.route("support", tier="small")
        def answer():
            return given
        @tierlight.route("support", tier="small")
        def fail():
            raise raised
        same = answer() is given
        try:
            fail()
        except KeyError as error:
            same_error = error is raised and error.__traceback__.tb_next.tb_next is not None
        from tierlight import _runtime
        _runtime.active().sink.offer = None  # our own code, broken from inside
        kept = ask()["model"]
        report(same=same, same_error=same_error, kept=kept)
        """
    )
    assert end.status == 0
    assert end.report["same"]
    assert end.report["same_error"]
    assert end.report["kept"] == "gpt-5-mini"


@pytest.mark.slow
def test_memory_stays_flat_over_a_million_calls(program: Program, collector: FakeCollector) -> None:
    program.endpoint = dead_port()
    end = program.run(
        """
        import resource
        def peak():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for _ in range(50_000):
            ask()
        before = peak()
        for _ in range(950_000):
            ask()
        report(growth_kb=peak() - before)
        """
    )
    assert end.report["growth_kb"] < 40_000
