"""A what-if as a policy: always valid, and what could not be written is said at its top."""

from __future__ import annotations

import tomllib

from tierlight.routing.policy import Policy
from tierlight_dashboard.analysis.policytext import Move, policy_text

HAIKU = ("anthropic", "claude-haiku-5-5", "small")
SONNET = ("anthropic", "claude-sonnet-5-5", "mid")


def test_without_a_served_policy_the_moved_routes_make_a_first_one() -> None:
    text = policy_text("", [Move("support/reply", SONNET, HAIKU), Move("support/other", SONNET, HAIKU)])
    policy = Policy.from_toml(text, is_served=True)
    assert set(policy.routes) == {"support/reply", "support/other"}
    assert policy.targets[policy.routes["support/reply"].default].model == "claude-haiku-5-5"
    assert "Not written" not in text


def test_a_served_policy_keeps_its_comments_and_moves_its_route() -> None:
    served = policy_text("", [Move("support/reply", HAIKU, SONNET)]).replace(
        "schema = 1", "schema = 1   # ours"
    )
    served += '\n[target."claude-haiku-5-5"]\nprovider = "anthropic"\nmodel = "claude-haiku-5-5"\nfallback = "none"\n'
    text = policy_text(served, [Move("support/reply", SONNET, HAIKU), Move("support/unknown", SONNET, HAIKU)])
    policy = Policy.from_toml(text, is_served=True)
    assert policy.targets[policy.routes["support/reply"].default].model == "claude-haiku-5-5"
    assert "# ours" in text
    assert "# Not written: route.support/unknown" in text


def test_what_a_policy_cannot_say_is_a_comment_and_never_more() -> None:
    evil = "x\n[route.evil]\ntarget = 'x'\u2028y"
    text = policy_text("", [Move(evil, SONNET, HAIKU), Move("support/reply", SONNET, HAIKU, accepted=0.8)])
    assert tomllib.loads(text) == {"schema": 1}
    assert text.count("# Not written:") == 2
    assert all(line.startswith(("#", "schema")) for line in text.splitlines())
