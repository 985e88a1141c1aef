"""The same calls in three worlds."""

from __future__ import annotations

from tierlight_dashboard.analysis.whatif import Choice, RouteUse, price_change, what_if

PRICES = {"big": (3_000, 15_000), "mini": (250, 2_000), "embed": (20, 0)}


def price(provider: str, model: str, use: RouteUse) -> int | None:
    """Nano-dollars at PRICES, a pair of nano-dollars per input and output token."""
    if model not in PRICES:
        return None
    per_input, per_output = PRICES[model]
    return use.input_tokens * per_input + use.output_tokens * per_output


def use(route: str, model: str, calls: int, tokens: tuple[int, int], **changes: int) -> RouteUse:
    cost = price("p", model, RouteUse(route, "p", model, "", calls, 0, 0, 0, tokens[0], 0, 0, tokens[1])) or 0
    tier = "specialised" if model == "embed" else "flagship"
    unknown, unpriced = changes.get("tokens_unknown", 0), changes.get("unpriced", 0)
    return RouteUse(route, "p", model, tier, calls, unknown, unpriced, cost, tokens[0], 0, 0, tokens[1])


REPLY = use("reply", "big", 100, (50_000, 20_000))
INTENT = use("intent", "mini", 1_000, (100_000, 5_000))
EMBED = use("embed", "embed", 500, (250_000, 0))


def test_the_flagship_world_prices_the_same_tokens() -> None:
    worlds = what_if([REPLY, INTENT, EMBED], ("p", "big"), {}, price)
    lines = {line.route: line for line in worlds.lines}
    assert lines["intent"].flagship.cost_nusd == 100_000 * 3_000 + 5_000 * 15_000
    assert lines["intent"].flagship.basis == "estimated"
    assert lines["reply"].flagship.cost_nusd == lines["reply"].today.cost_nusd
    assert lines["embed"].flagship.cost_nusd == EMBED.cost_nusd, "embeddings have no flagship"
    assert worlds.flagship_nusd > worlds.today_nusd


def test_a_measured_saving_beats_the_price_list() -> None:
    choice = Choice("p", "mini", saving_per_call=1_000_000.0, pairs=400)
    worlds = what_if([REPLY], ("p", "big"), {"reply": choice}, price)
    assert worlds.proposed_nusd == REPLY.cost_nusd - 100 * 1_000_000
    assert worlds.saving_on("measured") == 100 * 1_000_000
    assert worlds.saving_on("estimated") == 0


def test_an_unpriced_proposal_is_unknown_and_saves_nothing() -> None:
    worlds = what_if([REPLY], ("p", "big"), {"reply": Choice("p", "mystery")}, price)
    assert worlds.unknown_routes == ("reply",)
    assert worlds.proposed_nusd == worlds.today_nusd


def test_a_route_without_any_price_is_unknown_today() -> None:
    worlds = what_if([use("x", "mystery", 10, (10, 10), unpriced=10)], ("p", "big"), {}, price)
    assert worlds.lines[0].today.cost_nusd is None


def test_calls_with_unknown_tokens_are_taken_to_be_like_the_others() -> None:
    half = use("reply", "big", 100, (50_000, 20_000), tokens_unknown=50)
    worlds = what_if([half], ("p", "mini"), {}, price)
    assert worlds.lines[0].flagship.cost_nusd == 2 * (50_000 * 250 + 20_000 * 2_000)


def test_a_price_change_splits_by_input_and_output() -> None:
    assert price_change([REPLY, INTENT], "p", "big", 2.0, 1.0, price) == (
        ("reply", 450_000_000, 50_000 * 6_000 + 20_000 * 15_000),
    )


def test_refused_answers_are_paid_for_twice() -> None:
    choice = Choice("p", "mini", accepted=0.75)
    line = what_if([REPLY], ("p", "big"), {"reply": choice}, price).lines[0]
    cheap = 50_000 * 250 + 20_000 * 2_000
    assert line.proposed.cost_nusd == cheap + REPLY.cost_nusd // 4
    assert "75 % accepted" in line.proposed.note


def test_the_range_of_a_saving_is_as_wide_as_other_models_are_wordy() -> None:
    worlds = what_if([REPLY], ("p", "big"), {"reply": Choice("p", "mini")}, price)
    low, high = worlds.saving_range
    assert low == REPLY.cost_nusd - (50_000 * 250 + 32_000 * 2_000)
    assert high == REPLY.cost_nusd - (50_000 * 250 + 14_000 * 2_000)
    measured = Choice("p", "mini", saving_per_call=1_000_000.0, pairs=400, saving_high_per_call=2_000_000.0)
    assert what_if([REPLY], ("p", "big"), {"reply": measured}, price).saving_range == (
        100_000_000,
        200_000_000,
    )
    assert what_if([REPLY], ("p", "big"), {}, price).saving_range == (0, 0)
