"""Folders of evaluation sets as outcomes: prompts that several models answered, with scores and costs.

Forms that are understood: CSV with a prompt and one True/False column per model (`responses/*.csv`,
`*_responses.csv`, with `contaminated_prompts.jsonl` left out); `train.json.gz` and `test.json.gz` with scores per
model; `outcomes.csv.gz` beside `questions.jsonl.gz`; and JSON lines `{"prompt", "task", "scores", "costs"}`.
"""

from __future__ import annotations

import csv
import gzip
import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from tierlight.errors import ConfigurationError
from tierlight_dashboard.analysis.replay import Outcomes, random_folds

_CHARS_PER_TOKEN: Final = 4.0
_ANSWER_TOKENS: Final = 150.0  # of a set that keeps no answers

# USD per million tokens in and out, as listed when the sets were made; only for sets that have no costs themselves.
_LIST_USD: Final[Mapping[str, tuple[float, float]]] = {
    "mistralai/Mixtral-8x7B-Instruct-v0.1": (0.24, 0.24),
    "gpt-4-1106-preview": (10, 30),
    "gpt-4o-2024-05-13": (5, 15),
    "gpt-4o-mini-2024-07-18": (0.15, 0.60),
    "claude-3-5-sonnet-20241022": (3, 15),
    "claude-3-haiku-20240307": (0.25, 1.25),
    "o1-mini-2024-09-12": (3, 12),
    "gpt-3.5-turbo-0125": (0.5, 1.5),
    "Meta-Llama-3.1-8B-Instruct": (0.05, 0.08),
    "claude-3-5-haiku-20241022": (0.80, 4),
}


def load_sets(path: Path) -> list[Outcomes]:
    """Every set in a folder or its folders, or the one of a file of JSON lines.

    Raises:
        ConfigurationError: nothing there is in a form that is understood.
    """
    if path.is_file():
        return [_json_lines(path)]
    found = [
        made
        for folder in sorted([path, *(one for one in path.rglob("*") if one.is_dir())])
        for made in _sets_in(folder)
    ]
    if not found:
        raise ConfigurationError(
            f"{path}: expected JSON lines, CSV responses, train/test.json.gz or outcomes.csv.gz, found none"
        )
    return found


def _sets_in(folder: Path) -> Iterator[Outcomes]:
    if folder.name != "responses" and (
        files := sorted((folder / "responses").glob("*.csv")) or sorted(folder.glob("*_responses.csv"))
    ):
        yield _responses(folder, files)
    if (folder / "train.json.gz").is_file() and (folder / "test.json.gz").is_file():
        yield _train_test(folder)
    if (folder / "outcomes.csv.gz").is_file():
        yield _outcomes(folder)
    for file in sorted(folder.glob("*.outcomes.jsonl")):
        yield _json_lines(file)


def _responses(folder: Path, files: list[Path]) -> Outcomes:
    left_out: set[str] = set()
    if (folder / "contaminated_prompts.jsonl").is_file():
        with (folder / "contaminated_prompts.jsonl").open() as lines:
            left_out = {json.loads(line)["eval_prompt"] for line in lines}
    csv.field_size_limit(sys.maxsize)
    texts, segments, quality, cost = [], [], [], []
    models: list[str] = []
    for file in files:
        with file.open(newline="") as handle:
            for row in csv.DictReader(handle):
                if row["prompt"] in left_out:
                    continue
                models = models or [name for name, value in row.items() if value in ("True", "False")]
                texts.append(row["prompt"])
                segments.append(file.stem)
                quality.append([float(row[model] == "True") for model in models])
                lengths = [len(row.get(f"{model}_response") or "") for model in models]
                cost.append(
                    [
                        _cost(model, len(row["prompt"]), max(length, 4))
                        for model, length in zip(models, lengths, strict=True)
                    ]
                )
    return _made(folder.name, models, texts, segments, quality, cost)


def _train_test(folder: Path) -> Outcomes:
    tasks, prices = {}, {}
    for file in sorted(folder.glob("*query_*.jsonl.gz")):
        for row in _lines(file):
            tasks[row["query"].strip()[:400]] = row["task_name"]
    if (folder / "default_llm.json").is_file():
        listed = json.loads((folder / "default_llm.json").read_text())
        prices = {name: (one["input_price"], one["output_price"]) for name, one in listed.items()}
    parts = [
        json.loads(gzip.decompress((folder / f"{part}.json.gz").read_bytes())) for part in ("train", "test")
    ]
    models = sorted(parts[0][0]["scores"])
    rows = [*parts[0], *parts[1]]
    texts = [row["question"] for row in rows]
    cost = [
        [_priced(prices.get(model), len(text) / _CHARS_PER_TOKEN, _ANSWER_TOKENS) for model in models]
        for text in texts
    ]
    made = _made(
        folder.name, models, texts, [tasks.get(text.strip()[:400], "") for text in texts],
        [[row["scores"][model] for model in models] for row in rows], cost,
    )  # fmt: skip
    fold = np.array([-1] * len(parts[0]) + [0] * len(parts[1]))
    return Outcomes(made.name, made.models, made.texts, made.segments, made.quality, made.cost, fold)


def _outcomes(folder: Path) -> Outcomes:
    texts = {(row["task"], row["id"]): row["question"] for row in _lines(folder / "questions.jsonl.gz")}
    by_prompt: dict[tuple[str, str], dict[str, tuple[float, float]]] = defaultdict(dict)
    with gzip.open(folder / "outcomes.csv.gz", "rt", newline="") as handle:
        for row in csv.DictReader(handle):
            model = row["model"]
            if model in _LIST_USD:
                cost = _cost(model, int(row["prompt_chars"]), int(row["output_chars"]))
                by_prompt[row["task"], row["id"]][model] = (float(row["correct"]), cost)
    models = sorted({model for one in by_prompt.values() for model in one})
    kept = [key for key, one in by_prompt.items() if len(one) == len(models)]
    return _made(
        folder.name, models, [texts[key] for key in kept], [task for task, _ in kept],
        [[by_prompt[key][model][0] for model in models] for key in kept],
        [[by_prompt[key][model][1] for model in models] for key in kept],
    )  # fmt: skip


def _json_lines(file: Path) -> Outcomes:
    rows = list(_lines(file))
    if not rows:
        raise ConfigurationError(f"{file}: the file is empty")
    try:
        models = sorted(rows[0]["scores"])
        return _made(
            file.name.partition(".")[0], models, [str(row["prompt"]) for row in rows], [str(row.get("task", "")) for row in rows],
            [[float(row["scores"][model]) for model in models] for row in rows],
            [[float(row.get("costs", {}).get(model, np.nan)) for model in models] for row in rows],
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"{file}: each line has `prompt` and `scores` by model, all of the same models: {error}"
        ) from error


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(file, "rt") if file.suffix == ".gz" else file.open() as lines:
        yield from (json.loads(line) for line in lines if line.strip())


def _made(
    name: str,
    models: list[str],
    texts: list[str],
    segments: list[str],
    quality: list[list[float]],
    cost: list[list[float]],
) -> Outcomes:
    return Outcomes(
        name,
        tuple(models),
        tuple(texts),
        tuple(segments),
        np.array(quality),
        np.array(cost),
        random_folds(len(texts)),
    )


def _cost(model: str, input_chars: int, output_chars: int) -> float:
    return _priced(_LIST_USD.get(model), input_chars / _CHARS_PER_TOKEN, output_chars / _CHARS_PER_TOKEN)


def _priced(usd: tuple[float, float] | None, input_tokens: float, output_tokens: float) -> float:
    return float("nan") if usd is None else (input_tokens * usd[0] + output_tokens * usd[1]) / 1e6
