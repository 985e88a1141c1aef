"""A user's program in a process of its own: it reports what it saw as one JSON line, the last one counts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BUDGET_S = 2.5

PRELUDE = """
import atexit, json, os, sys, threading, time
import tierlight
tierlight.configure(service_name="shop", prices=False)

@tierlight.route("support", tier="small")
def ask(text="ok", model="gpt-5-mini"):
    return {"model": model, "choices": [{"message": {"content": text}}], "usage": {"prompt_tokens": 9, "completion_tokens": 1}}

def report(**fields):
    print(json.dumps({"ended": time.time(), **fields}), flush=True)
"""


@dataclass
class Finished:
    """How a script ended: its exit status, its last report and how long its end took."""

    status: int
    report: dict[str, Any]
    exit_s: float
    errors: str


@dataclass
class Program:
    """Runs scripts against one collector with one spool."""

    endpoint: str
    spool: Path
    extra: dict[str, str] = field(default_factory=dict)

    def start(self, script: str, *arguments: str) -> subprocess.Popen[str]:
        environ = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "TIERLIGHT_"))}
        environ |= {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.endpoint,
            "TIERLIGHT_SPOOL": str(self.spool),
            **self.extra,
        }
        code = PRELUDE + textwrap.dedent(script)
        return subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environ,
        )

    def run(self, script: str, *arguments: str) -> Finished:
        return finished(self.start(script, *arguments))

    def spooled_files(self) -> list[str]:
        return sorted(path.suffix for path in self.spool.iterdir()) if self.spool.is_dir() else []


def finished(process: subprocess.Popen[str]) -> Finished:
    out, errors = process.communicate(timeout=30)
    ended = time.time()
    lines = out.splitlines()
    report = json.loads(lines[-1]) if lines else {}
    return Finished(process.returncode, report, ended - report.get("ended", ended), errors)
