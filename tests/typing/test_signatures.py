"""What a type checker sees of decorated functions: exactly what they were."""

from __future__ import annotations

from pathlib import Path

import pytest

mypy = pytest.importorskip("mypy.api")

USER_FILE = """
from collections.abc import AsyncIterator, Iterator
from typing import assert_type

import tierlight


class Answer:
    text: str


@tierlight.route("classify", tier="small", validate=["billing"])
def classify(question: str, *, top: int = 1) -> Answer:
    return Answer()


@tierlight.route("answer")
async def answer(question: str) -> Answer:
    return Answer()


@tierlight.route("tell")
def tell(question: str) -> Iterator[str]:
    yield question


@tierlight.route("say")
async def say(question: str) -> AsyncIterator[str]:
    yield question


class Agent:
    @tierlight.route("ask")
    def ask(self, question: str) -> int:
        return 1


async def use() -> None:
    assert_type(classify("?", top=2), Answer)
    assert_type(await answer("?"), Answer)
    assert_type(tell("?"), Iterator[str])
    assert_type(say("?"), AsyncIterator[str])
    assert_type(Agent().ask("?"), int)
    with tierlight.route("block") as call:
        assert_type(call, tierlight.Call)
        assert_type(tierlight.observe(Answer()), Answer)
    assert_type(tierlight.wrap(Agent()), Agent)
    assert_type(tierlight.carry(classify)("?", top=1), Answer)
"""

WRONG = [
    ("classify(1)", "arg-type"),
    ("classify('?', 2)", "call-arg"),
    ("classify('?', high=2)", "call-arg"),
    ("tierlight.route('r', tier='huge')", "arg-type"),
    ("tierlight.route('r', purpose='fun')", "arg-type"),
    ("tierlight.score('good', call='x')", "arg-type"),
]


def test_a_user_s_file_passes_strict_and_its_mistakes_do_not(tmp_path: Path) -> None:
    file = tmp_path / "user.py"
    start = len(USER_FILE.splitlines()) + 1
    file.write_text(USER_FILE + "".join(f"{line}\n" for line, _ in WRONG))
    out, errors, _ = mypy.run(
        [
            "--strict",
            "--follow-imports=silent",
            "--no-error-summary",
            f"--cache-dir={tmp_path}/cache",
            str(file),
        ]
    )
    assert errors == ""
    found = [line for line in out.splitlines() if ": error:" in line]
    assert [(int(line.split(":")[1]), line.rpartition("[")[2].rstrip("]")) for line in found] == [
        (start + index, code) for index, (_, code) in enumerate(WRONG)
    ], out
