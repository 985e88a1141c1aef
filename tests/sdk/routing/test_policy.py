"""Reading a policy: every error and warning by a named row, and a version that follows the meaning."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierlight.errors import PolicyError
from tierlight.pricing import PriceBook
from tierlight.routing.check import check_prices, difference, warnings
from tierlight.routing.policy import Policy

TARGETS = """
schema = 1
[target.nano]
provider = "openai"
model = "gpt-5-nano"
tier = "small"
fallback = ["lite"]
[target.lite]
provider = "google"
model = "gemini-2.5-flash-lite"
tier = "small"
fallback = ["nano"]
[target.sonnet]
provider = "anthropic"
model = "claude-sonnet-4-5"
tier = "flagship"
fallback = ["gpt5"]
[target.gpt5]
provider = "openai"
model = "gpt-5"
tier = "flagship"
fallback = ["sonnet"]
"""
CASCADE = (
    TARGETS
    + """
[route.extract]
strategy = "cascade"
steps = ["nano", "sonnet"]
validators = [{ kind = "json" }]
"""
)
AT = datetime(2026, 11, 24, tzinfo=UTC)


def test_the_chain_of_fallbacks_starts_at_another_provider() -> None:
    policy = Policy.from_toml(
        TARGETS.replace('fallback = ["gpt5"]', 'fallback = ["opus", "gpt5"]')
        + """
[target.opus]
provider = "anthropic"
model = "claude-opus-4-5"
fallback = "none"
"""
    )
    assert policy.chain("sonnet") == ("gpt5", "opus")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(TARGETS + '[route.a]\ntarget = "nano"\ncolour = 1', r"route\.a\.colour: unknown key", id="unknown key"),
        pytest.param(TARGETS + "[surprise]\na = 1", "surprise: unknown key", id="unknown table"),
        pytest.param(TARGETS + '[route.a]\ntarget = "micro"', "route.a: unknown target 'micro'", id="unknown target"),
        pytest.param(TARGETS.replace('["lite"]', '["gone"]'), "target.nano.fallback: unknown target", id="unknown fallback"),
        pytest.param(
            TARGETS + '[target.x]\nprovider = "groq"\nmodel = "llama-3.1-8b"\nfallback = ["x"]',
            "target.x.fallback: .*no way out", id="circle of one",
        ),
        pytest.param(
            TARGETS + '[target.x]\nprovider = "groq"\nmodel = "llama-3.1-8b"\n[route.a]\ntarget = "x"',
            "target.x.fallback: route.a needs a fallback at another provider than groq", id="no other provider",
        ),
        pytest.param(
            TARGETS + '[route.a]\ntarget = "gpt5"\n[experiment.e]\nroute = "a"\narms = {a = "gpt5", b = "nano"}\nweights = {a = 0.9, b = 0.2}',
            "experiment.e.weights: .* got 2 with 1.1", id="weights",
        ),
        pytest.param(
            TARGETS + '[route.a]\ntarget = "gpt5"\n[experiment.e]\nroute = "a"\narms = {a = "gpt5", b = "nano"}\nweights = {a = 1.0}',
            "one weight per arm", id="weight missing",
        ),
        pytest.param(TARGETS + '[experiment.e]\nroute = "zz"\narms = {a = "gpt5", b = "nano"}\nweights = {a = 0.5, b = 0.5}',
                     "unknown route 'zz'", id="experiment on nothing"),
        pytest.param(CASCADE + 'latency = "interactive"', "route.extract.strategy: .*allow_cascade", id="interactive cascade"),
        pytest.param(CASCADE + "latency_sensitive = true", "allow_cascade", id="latency-sensitive cascade"),
        pytest.param(CASCADE + 'latency = "batch"\nlatency_sensitive = true', "says the opposite", id="contradiction"),
        pytest.param(CASCADE.replace('[{ kind = "json" }]', "[]"), "route.extract.validators: .*at least one", id="no validator"),
        pytest.param(CASCADE.replace('kind = "json"', 'kind = "vibes"'), r"validators\[0\].kind: one of", id="unknown validator"),
        pytest.param(CASCADE.replace('kind = "json"', 'kind = "regex", pattern = "("'), "not a regular expression", id="bad pattern"),
        pytest.param(CASCADE.replace('["nano", "sonnet"]', '["nano"]'), "two steps or more", id="one step"),
        pytest.param(TARGETS.replace("schema = 1", "schema = 2"), "schema: .*got 2: upgrade", id="newer schema"),
        pytest.param("schema = 2\n[new]\na = 1", "schema: .*got 2", id="newer schema before its keys"),
        pytest.param("schema = 1", "at least one", id="no targets"),
        pytest.param("schema = ", "not valid TOML", id="not toml"),
        pytest.param(TARGETS + "[defaults]\nretries = 1.5", "defaults.retries: expected int, got float", id="wrong type"),
        pytest.param(TARGETS + "[defaults]\nexplore = 1.5", "defaults.explore: a number from 0 to 1", id="out of range"),
        pytest.param(TARGETS + "[defaults]\nexplore = nan", "defaults.explore", id="not a number"),
        pytest.param(TARGETS + '[route.a]\nstrategy = "learned"\ncandidates = ["nano", "gpt5"]', "one signal", id="no signal"),
        pytest.param(TARGETS + '[route."A B"]\ntarget = "gpt5"', "a route's name", id="route name"),
        pytest.param(TARGETS + '[route.a]\ntier = "mid"', "no target has the tier 'mid'", id="tier without a target"),
        pytest.param(TARGETS + '[route.a]\nstrategy = "specialty"\nkind = "rerank"', "finds no target", id="no specialist"),
    ],
)  # fmt: skip
def test_a_policy_that_must_not_be_loaded_names_the_key(change: str, message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        Policy.from_toml(change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (TARGETS.replace('model = "gpt-5"', 'model = "gpt-5"\nbase_url = "http://evil"'), "sets no address"),
        (
            TARGETS.replace('model = "gpt-5"', 'model = "gpt-5"\napi_key_env = "SECRET"'),
            "sets no address and no key",
        ),
        (CASCADE.replace('kind = "json"', 'kind = "callable", name = "x"'), "runs no code"),
        (CASCADE.replace('kind = "json"', 'kind = "json_schema", schema = "/etc/passwd"'), "names no file"),
    ],
)
def test_a_served_policy_sets_no_address_key_code_or_file(change: str, message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        Policy.from_toml(change, is_served=True)


def test_the_content_of_a_named_file_is_part_of_the_policy() -> None:
    toml = CASCADE.replace('kind = "json"', 'kind = "json_schema", schema = "s.json"')
    one = Policy.from_toml(toml, read=lambda name: b'{"type": "object"}')
    other = Policy.from_toml(toml, read=lambda name: b'{"type": "array"}')
    assert one.routes["extract"].validators[0].options == {"schema": {"type": "object"}}
    assert one.version != other.version


def test_steps_that_fall_in_price_are_refused() -> None:
    upside_down = Policy.from_toml(CASCADE.replace('["nano", "sonnet"]', '["sonnet", "nano"]'))
    with pytest.raises(
        PolicyError, match=r"route.extract.steps: tiers are upside down: sonnet costs more than nano"
    ):
        check_prices(upside_down, PriceBook.default(), AT)
    check_prices(Policy.from_toml(CASCADE), PriceBook.default(), AT)


def codes(toml: str, **known: Any) -> list[str]:
    return [one.code for one in warnings(Policy.from_toml(toml), **known)]


def test_each_doubt_has_its_code() -> None:
    alone = (
        TARGETS
        + '[target.x]\nprovider = "groq"\nmodel = "llama-3.1-8b"\nfallback = "none"\n[route.a]\ntarget = "x"\n'
    )
    assert codes(alone) == ["W001"]
    unknown = TARGETS.replace("gemini-2.5-flash-lite", "no-such-model-9")
    book = PriceBook.from_toml(b"")
    assert "W002" in codes(unknown, book=book, at=AT)
    assert "W002" not in codes(TARGETS, book=book, at=AT)
    # gpt-5 and gpt-5-nano are retired on 2026-12-11
    retiring = {
        one.key for one in warnings(Policy.from_toml(TARGETS), book=book, at=AT) if one.code == "W003"
    }
    assert {"target.gpt5", "target.nano"} <= retiring
    assert "W003" not in codes(TARGETS, book=book, at=datetime(2026, 9, 1, tzinfo=UTC))
    cascade = CASCADE.removeprefix(TARGETS)
    assert codes(TARGETS + "".join(cascade.replace("extract", f"r{n}") for n in range(21))) == ["W004"]
    learned = TARGETS + '[route.a]\nstrategy = "learned"\ncandidates = ["nano", "gpt5"]\nsignal = "csat"\n'
    assert codes(learned, scored_signals={"a": {"other"}}) == ["W005"]
    assert codes(learned, scored_signals={"a": {"csat"}}) == []
    fixed = TARGETS + '[route.a]\ntarget = "gpt5"\n'
    assert codes(fixed, advised_routes=["a"]) == ["W006"]
    assert (
        codes(
            fixed + '[shadow.s]\nroute = "a"\ntarget = "nano"\nshare = 0.1\nmax_spend_per_day = 1.0',
            advised_routes=["a"],
        )
        == []
    )


@given(st.randoms(use_true_random=False))
def test_the_same_meaning_has_the_same_version(rng: random.Random) -> None:
    blocks = [f"[{block}" for block in CASCADE.split("[", 1)[1].split("\n[")]
    shuffled = []
    for block in rng.sample(blocks, len(blocks)):
        head, *lines = block.splitlines()
        shuffled.append("\n".join([head, f"# {rng.random()}", *rng.sample(lines, len(lines))]))
    explicit = "\n[defaults]\ntimeout_s = 30.0\nretries = 1" if rng.random() < 0.5 else ""
    again = Policy.from_toml("schema = 1\n" + "\n".join(shuffled) + explicit)
    first = Policy.from_toml(CASCADE)
    assert again.version == first.version
    assert again == first


@given(st.floats(0.1, 100), st.integers(0, 10))
def test_another_meaning_has_another_version(timeout_s: float, retries: int) -> None:
    other = Policy.from_toml(CASCADE + f"[defaults]\ntimeout_s = {timeout_s!r}\nretries = {retries}")
    assert (other.version == Policy.from_toml(CASCADE).version) == (timeout_s == 30.0 and retries == 1)


def test_a_difference_names_the_key_and_marks_a_lowered_tier() -> None:
    before = Policy.from_toml(TARGETS + '[route."support.reply"]\ntarget = "sonnet"')
    after = Policy.from_toml(TARGETS + '[route."support.reply"]\ntarget = "nano"')
    changed = {one.key: one for one in difference(before, after)}
    assert set(changed) == {"routes.support.reply.candidates", "routes.support.reply.default"}
    assert changed["routes.support.reply.default"].before == "sonnet"
    assert all(one.lowers_tier for one in changed.values())
    assert not any(one.lowers_tier for one in difference(after, before))
    assert difference(after, after) == []
