"""Decisions beside the facts: what one tick of the watch leaves behind."""

from __future__ import annotations

from pathlib import Path

from tierlight_collector.decisions import Recommendation, RecommendationState, WatchCommit
from tierlight_collector.stores import open_store


def advice(route: str, candidate: str, state: RecommendationState = "proposed") -> Recommendation:
    return Recommendation(
        id=0,
        route=route,
        action="downgrade",
        state=state,
        current_model="big",
        current_tier="flagship",
        candidate_model=candidate,
        candidate_tier="mid",
        sentence="",
        reason="",
        rung="none",
    )


def test_a_new_verdict_takes_the_place_of_the_routes_proposals(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 't.db'}")
    try:
        for batch in (
            (advice("a", "mini"), advice("a", "old", "dismissed"), advice("b", "mini")),
            (advice("a", ""),),
        ):
            store.commit_watch(WatchCommit(states={}, watermarks={}, recommendations=batch))
        left = {(row.route, row.candidate_model) for row in store.recommendations()}
    finally:
        store.close()
    assert left == {("a", "old"), ("a", ""), ("b", "mini")}
