"""Routing quality on public sets of outcomes, out of fold, with other routers' figures beside.

    python tests/bench/routing.py --data FOLDER [--embedder hash1|static1|minilm1] [--json]

Any folder of sets in a form that `tierlight replay --data` understands will do. Costs and qualities are those of the
sets; nothing is sent anywhere. `apgr` is the area under recovered quality: random routing has 0.5.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from itertools import combinations
from pathlib import Path
from typing import Any, Final

import numpy as np

from tierlight.routing.decide import AlwaysUp, RouteRequest, decide
from tierlight.routing.embed import embedder
from tierlight.routing.policy import Policy
from tierlight_dashboard.analysis.replay import (
    LEARNED,
    Outcomes,
    PairReplay,
    replay_pair,
)
from tierlight_dashboard.analysis.replaymany import ManyReplay, replay_many
from tierlight_dashboard.cli.evalsets import load_sets

PAIRS: Final = {
    "mmlu": [("mistralai/Mixtral-8x7B-Instruct-v0.1", "gpt-4-1106-preview")],
    "gsm8k": [("mistralai/Mixtral-8x7B-Instruct-v0.1", "gpt-4-1106-preview")],
    "llmrouter": [("llama-3.1-8b-instruct", "llama-3.1-nemotron-51b-instruct")],
    "zeroeval": [
        ("claude-3-haiku-20240307", "claude-3-5-sonnet-20241022"),
        ("gpt-4o-mini-2024-07-18", "gpt-4o-2024-05-13"),
        ("gpt-3.5-turbo-0125", "o1-mini-2024-09-12"),
    ],
}
# Others' figures: "paper" as published by themselves, "run" as measured with their own code on these very sets.
RIVALS: Final = {
    "mmlu": "RouteLLM best with MMLU labels .603, CPT50/80 35/70 % (paper); LiteLLM 1.109 classifiers .585, .523 (run)",
    "gsm8k": "RouteLLM best about .62, CPT50/80 33/62 % (paper, from memory); LiteLLM 1.109 .518, .488 (run)",
    "llmrouter": "LiteLLM 1.109 classifiers .756, .687 (run)",
    "zeroeval": "LiteLLM 1.109 classifiers, in the order of the pairs: .543/.565, .713/.516, .535/.583 (run)",
}


def pairs_of(outcomes: Outcomes) -> list[tuple[str, str]]:
    """The usual pairs of a known set; else the worst with the best model."""
    known = [pair for pair in PAIRS.get(outcomes.name, []) if set(pair) <= set(outcomes.models)]
    if known:
        return known
    ranked = [outcomes.models[n] for n in outcomes.quality.mean(axis=0).argsort()]
    return [(ranked[0], ranked[-1])] if len(ranked) > 1 else list(combinations(ranked, 2))


def figures(pair: PairReplay, embedder_id: str) -> dict[str, Any]:
    """One pair for a program to read."""
    row = pair.row(LEARNED)
    return {
        "set": pair.name, "weak": pair.weak, "strong": pair.strong, "embedder": embedder_id,
        "apgr": row.apgr, "apgr_low": row.apgr_low, "apgr_high": row.apgr_high, "cpt50": row.cpt50, "cpt80": row.cpt80,
        "saving_at_95": row.saving, "n": pair.n, "random_sd": pair.random_sd,
        "routers": {one.router: one.apgr for one in pair.rows}, "verdicts": pair.verdicts,
    }  # fmt: skip


def table(pair: PairReplay) -> str:
    """One pair for a person to read."""
    lines = [
        f"{pair.name}: {pair.weak} / {pair.strong}   n {pair.n}   quality {pair.weak_quality:.3f} / {pair.strong_quality:.3f}"
        f"   random {_figure(pair.random_apgr)} (sd {_figure(pair.random_sd)})"
    ]
    lines.append(
        f"  {'router':22}{'APGR':>7}{'95 % interval':>17}{'CPT50':>8}{'CPT80':>8}{'saved at 95 %':>15}"
    )
    for row in pair.rows:
        interval = f"{_figure(row.apgr_low)}..{_figure(row.apgr_high)}" if row.apgr_low is not None else "-"
        lines.append(
            f"  {row.router:22}{_figure(row.apgr):>7}{interval:>17}{_percent(row.cpt50):>8}{_percent(row.cpt80):>8}{_percent(row.saving):>15}"
        )
    lines += [f"  -> {verdict}" for verdict in pair.verdicts]
    return "\n".join(lines)


def table_of_many(many: ManyReplay) -> str:
    """All models of a set."""
    lines = [
        f"{many.name}, all models: n {many.n}, best single {many.best_single} {many.best_single_quality:.4f}, "
        f"zero-router AIQ {many.zero_router_aiq:.4f}"
    ]
    for name, aiq in many.aiq.items():
        share = many.cost_at_best_single[name]
        reached = "never reached" if share is None else f"reached at {share:.1%} of its cost"
        lines.append(
            f"  {name:22} AIQ {aiq:.3f}   highest quality {many.best_quality[name]:.3f}   best single's quality {reached}"
        )
    return "\n".join(lines)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def decision_us(texts: tuple[str, ...]) -> dict[str, float]:
    """Microseconds of one decision without a model call, median over the texts."""
    head = 'schema = 1\n[target.a]\nprovider = "openai"\nmodel = "gpt-5-nano"\nfallback = ["b"]\n'
    head += '[target.b]\nprovider = "anthropic"\nmodel = "claude-sonnet-4-5"\nfallback = ["a"]\n[route.r]\n'
    found = {}
    for strategy, text in (("task", 'target = "a"'), ("complexity", 'strategy = "complexity"')):
        policy, draws, times = Policy.from_toml(head + text), np.random.default_rng(0), []
        for prompt in texts:
            start = time.perf_counter_ns()
            decide(policy, RouteRequest("r", prompt), AlwaysUp(), draws)
            times.append((time.perf_counter_ns() - start) / 1000)
        found[strategy] = float(np.median(times))
    return found


def main(arguments: list[str] | None = None) -> int:
    """Print the figures of every set in the folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[], help="only this set; may be repeated")
    parser.add_argument("--embedder", default="hash1", choices=("hash1", "static1", "minilm1"))
    parser.add_argument("--resamples", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    if not given.data.exists():
        print(f"skipped: {given.data} does not exist", file=sys.stderr)
        return 0
    made = embedder(given.embedder)
    document: dict[str, Any] = {"pairs": [], "many": []}
    for outcomes in load_sets(given.data):
        if given.set and outcomes.name not in given.set:
            continue
        rows = made.matrix(outcomes.texts)
        for weak, strong in pairs_of(outcomes):
            pair = replay_pair(outcomes, rows, weak, strong, resamples=given.resamples)
            document["pairs"].append(figures(pair, given.embedder))
            if not given.json:
                print(table(pair))
        if outcomes.name in RIVALS and not given.json:
            print(f"  beside: {RIVALS[outcomes.name]}")
            print(
                "  ours is trained on outcomes of the same set, out of fold; theirs is not unless it says so"
            )
        if len(outcomes.models) > 2:
            many = replay_many(outcomes, rows)
            document["many"].append(
                {"set": many.name, "n": many.n, "aiq": many.aiq, "zero_router_aiq": many.zero_router_aiq}
            )
            if not given.json:
                print(table_of_many(many))
        document["decision_us"] = decision_us(outcomes.texts[:2000])
        if not given.json:
            print(
                "  decision: "
                + ", ".join(f"{name} {us:.0f} us" for name, us in document["decision_us"].items())
                + "\n"
            )
    if given.json:
        print(json.dumps(document, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
