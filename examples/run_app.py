"""Runs one of the apps beside a local look-alike of its providers and a local tierlight, and prints what arrived.

    python examples/run_app.py openai_app
    python examples/run_app.py langchain_app --python /path/to/its/venv/bin/python
    python examples/run_app.py litellm_app --python /path/to/its/venv/bin/python

The app runs in a process of its own and is told by variables alone where its provider and the collector are. The
look-alike counts what it served: the last line says whether the same arrived, call by call and token by token.
"""

from __future__ import annotations

import argparse
import difflib
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from tierlight.testing import FakeProvider, FakeReply, FakeRequest

HERE = Path(__file__).parent
TICKETS = {
    "Where is my parcel?": ("parcel", "It left our house yesterday and will be with you tomorrow."),
    "Can I have my money back?": ("refund", "I am sorry about the kettle. The money is on its way to you."),
    "change my address": ("address", "Done: your next parcel goes to Mill Lane 4."),
}


@dataclass(frozen=True)
class Start:
    """One way an app is started, and what must be importable where it runs."""

    script: str
    packages: tuple[str, ...]
    launcher: str = ""


APPS: Mapping[str, Sequence[Start]] = {
    "openai_app": (Start("before.py", ("openai",)), Start("after.py", ("openai", "tierlight"))),
    "langchain_app": (
        Start(
            "app.py",
            ("langchain_openai", "openinference.instrumentation.langchain", "opentelemetry.distro"),
            launcher="opentelemetry-instrument",
        ),
    ),
    "litellm_app": (Start("app.py", ("litellm", "opentelemetry.exporter.otlp.proto.http")),),
}


@dataclass(frozen=True)
class Sums:
    """Calls and their tokens, by the provider's count or by the collector's."""

    calls: int
    input_tokens: int
    output_tokens: int

    def __str__(self) -> str:
        return f"{self.calls} calls, {self.input_tokens} tokens in, {self.output_tokens} out"


class LookAlike:
    """Answers the tickets in the shape of any provider, with about a token for four letters, and counts."""

    def __init__(self) -> None:
        self.replies: list[FakeReply] = []

    def __call__(self, request: FakeRequest) -> FakeReply:
        kind, answer = next(said for asked, said in TICKETS.items() if asked in request.prompt)
        text = kind if "one word" in request.prompt.lower() else answer
        reply = FakeReply(
            text=text, input_tokens=len(request.prompt) // 4, output_tokens=max(1, len(text) // 4)
        )
        self.replies.append(reply)
        return reply

    def served(self) -> Sums:
        """What was answered so far."""
        return Sums(
            len(self.replies),
            sum(reply.input_tokens for reply in self.replies),
            sum(reply.output_tokens for reply in self.replies),
        )


def missing(packages: Sequence[str], python: str) -> list[str]:
    """Which of the packages an interpreter can't import."""
    ask = """
import sys
from importlib.util import find_spec
for name in sys.argv[1:]:
    try:
        found = find_spec(name)
    except ImportError:
        found = None
    if found is None:
        print(name)
"""
    command = [python, "-c", ask, *packages]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


def run(folder: Path, start: Start, python: str, provider_url: str, otlp_url: str) -> None:
    """Run an app to its end, told where to go as its user would tell it: by variables."""
    environ = os.environ | {
        "OPENAI_API_KEY": "none",
        "OPENAI_BASE_URL": f"{provider_url}/v1",
        "ANTHROPIC_API_KEY": "none",
        "ANTHROPIC_API_BASE": provider_url,
        "LITELLM_LOCAL_MODEL_COST_MAP": "true",  # else it fetches one from the network at each start
        "OTEL_SERVICE_NAME": folder.name,
        "OTEL_EXPORTER_OTLP_ENDPOINT": otlp_url,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    }
    launcher = [str(Path(python).with_name(start.launcher))] if start.launcher else []
    subprocess.run([*launcher, python, start.script], cwd=folder, env=environ, check=True)


def arrived(dashboard_url: str) -> Sums:
    """What tierlight has, printed by route, tier and model; read from its public API."""
    asked = {"group_by": ["route", "tier", "model"]}
    answer = httpx.get(f"{dashboard_url}/api/v1/rollups", params=asked).raise_for_status()
    found = answer.json()["rollups"]
    if found:
        print(f"  {'route':16}{'tier':10}{'model':18}{'calls':>5}{'in':>6}{'out':>6}{'USD':>12}{'scored':>8}")
    for row in found:
        cost = "unpriced" if row["cost_usd"] is None else f"{row['cost_usd']:.7f}"
        print(
            f"  {row['route']:16}{row['tier']:10}{row['model']:18}{row['calls']:>5}{row['input_tokens']:>6}"
            f"{row['output_tokens']:>6}{cost:>12}{row['scored']:>8}"
        )
    sums = [sum(row[key] for row in found) for key in ("calls", "input_tokens", "output_tokens")]
    return Sums(*sums)


def difference(folder: Path, old: str, new: str) -> list[str]:
    """The lines that were added to and taken from an app."""
    before, after = ((folder / name).read_text(encoding="utf-8").splitlines() for name in (old, new))
    lines = difflib.unified_diff(before, after, old, new, lineterm="", n=0)
    return [line for line in lines if not line.startswith("@@")]


def play(name: str, python: str) -> bool:
    """Run the app in each of its ways; whether tierlight saw what was served to the last of them."""
    from tierlight_dashboard.serve import ServeSettings, serving_in_thread  # a second or two

    folder, starts = HERE / name, APPS[name]
    with tempfile.TemporaryDirectory() as place:
        settings = ServeSettings(
            store=f"sqlite:///{place}/seen.db", http_port=0, grpc_port=None, port=0, watch_every_s=0
        )
        with serving_in_thread(settings) as running:
            for start in starts:
                look_alike = LookAlike()
                print(f"$ {start.launcher + ' ' if start.launcher else ''}python {start.script}", flush=True)
                with FakeProvider(look_alike).serve() as provider_url:
                    run(folder, start, python, provider_url, running.otlp_url)
                served = look_alike.served()
                print(f"\nthe provider served {served}")
                found = arrived(running.dashboard_url)
                print(f"tierlight has       {found}\n")
    return found == served


def main(arguments: list[str] | None = None) -> int:
    """Play one app; 1 when something is missing, 2 when packages are."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("app", choices=APPS)
    parser.add_argument("--python", default=sys.executable, help="where the app's packages are installed")
    given = parser.parse_args(arguments)
    starts = APPS[given.app]
    lacking = missing([package for start in starts for package in start.packages], given.python)
    if lacking:
        print(f"{given.python} lacks {', '.join(lacking)}: see examples/{given.app}", file=sys.stderr)
        return 2
    if len(starts) > 1:
        print(*difference(HERE / given.app, *(start.script for start in starts)), "", sep="\n")
    return 0 if play(given.app, given.python) else 1


if __name__ == "__main__":
    raise SystemExit(main())
