"""The price book: agreement with its source, the user's own file, sums that add up."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from zoneinfo import ZoneInfo

import genai_prices
import pytest
from genai_prices.data_snapshot import get_snapshot
from hypothesis import given, settings
from hypothesis import strategies as st

from tierlight._prices.genai import CONTEXTS, PROVIDER_IDS
from tierlight.errors import ConfigurationError
from tierlight.pricing import Cost, PriceBook, Unpriced, Usage

NOV_24 = datetime(2026, 11, 24, tzinfo=UTC)
MILLION = Usage(input_tokens=1_000_000, output_tokens=1_000_000)
OURS = {theirs: ours for ours, theirs in PROVIDER_IDS.items()}
MODELS = [
    (provider.id, model.id)
    for provider in get_snapshot().providers
    if provider.id in OURS and provider.id != "aws"
    for model in provider.models
    if provider.find_model(model.id)  # some are found by a longer name only
]


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    total_in = draw(st.sampled_from([0, 1, 17, 999, 128_000, 200_000, 200_001, 272_001, 600_000]))
    total_out = draw(st.integers(0, 100_000))
    cached = draw(st.integers(0, total_in))
    written = draw(st.integers(0, total_in - cached))
    return Usage(
        input_tokens=total_in,
        output_tokens=total_out,
        cached_input_tokens=cached,
        cache_write_input_tokens=written,
        cache_write_1h_input_tokens=draw(st.integers(0, written)),
        reasoning_tokens=draw(st.integers(0, total_out)),
    )


@settings(max_examples=600, deadline=None)
@given(
    model=st.sampled_from(MODELS),
    usage=usages(),
    at=st.datetimes(datetime(2023, 1, 1), datetime(2027, 6, 1), timezones=st.just(UTC)),
    context=st.sampled_from(sorted(CONTEXTS)),
)
def test_kept_unit_prices_agree_with_genai_prices(
    model: tuple[str, str], usage: Usage, at: datetime, context: str
) -> None:
    provider_id, model_id = model
    expected = genai_prices.calc_price(
        genai_prices.Usage(
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cache_read_tokens=usage.cached_input_tokens,
            cache_write_tokens=usage.cache_write_input_tokens,
            cache_write_1h_tokens=usage.cache_write_1h_input_tokens,
            output_reasoning_tokens=usage.reasoning_tokens,
        ),
        model_id,
        provider_id=provider_id,
        genai_request_timestamp=at,
        price_context=CONTEXTS[context],
    )
    got = PriceBook.default().price(usage, OURS[provider_id], model_id, at, context=context)
    if isinstance(got, Cost) and got.price_version.startswith("gp:"):
        nusd = (expected.total_price * 10**9).quantize(Decimal(1), ROUND_HALF_EVEN)
        assert got.nusd == nusd
        parts = (got.input_nusd, got.cached_nusd, got.cache_write_nusd, got.output_nusd, got.other_nusd)
        assert sum(parts) == got.nusd
        assert min(parts) >= 0
    elif isinstance(got, Unpriced):  # only where the source says 0 because it lacks the unit's price
        assert got.reason == "no_unit_price"


@given(usage=usages(), price=st.decimals(0, 100, places=9))
def test_parts_add_up_to_the_total_rounded_once(usage: Usage, price: Decimal) -> None:
    book = PriceBook.from_toml(
        f'[[price]]\nprovider="x"\nmodel="m"\ninput={price}\noutput={price}\ncached_input={price / 3:.12f}'.encode()
    )
    cost = book.price(usage, "x", "m", NOV_24)
    assert isinstance(cost, Cost)
    assert cost.nusd == sum(
        (cost.input_nusd, cost.cached_nusd, cost.cache_write_nusd, cost.output_nusd, cost.other_nusd)
    )
    assert usage.input_tokens is not None
    assert usage.output_tokens is not None
    cached = usage.cached_input_tokens or 0
    exact = (usage.input_tokens - cached + usage.output_tokens) * price + cached * Decimal(
        f"{price / 3:.12f}"
    )
    assert cost.nusd == (exact * 1000).quantize(Decimal(1), ROUND_HALF_EVEN)


def test_audio_is_paid_at_its_own_price() -> None:
    usage = Usage(1000, 1000, audio_input_tokens=400, audio_output_tokens=300)
    got = PriceBook.default().price(usage, "openai", "gpt-4o-audio-preview", NOV_24)
    expected = genai_prices.calc_price(
        genai_prices.Usage(
            input_tokens=1000, output_tokens=1000, input_audio_tokens=400, output_audio_tokens=300
        ),
        "gpt-4o-audio-preview",
        provider_id="openai",
        genai_request_timestamp=NOV_24,
    )
    assert isinstance(got, Cost)
    assert got.usd == expected.total_price


def test_model_that_answered_is_priced_before_the_one_asked_for() -> None:
    book = PriceBook.default()
    cost = book.price(MILLION, "openai", "gpt-5", NOV_24, response_model="gpt-5-mini-2025-08-07")
    assert isinstance(cost, Cost)
    assert (cost.priced_model, cost.usd) == ("gpt-5-mini", Decimal("2.25"))
    unknown_answer = book.price(MILLION, "openai", "gpt-5-mini", NOV_24, response_model="my-own-finetune")
    assert isinstance(unknown_answer, Cost)
    assert unknown_answer.usd == Decimal("2.25")


def test_moment_may_be_given_in_nanoseconds() -> None:
    book = PriceBook.default()
    for at in (datetime(2025, 6, 9, tzinfo=UTC), datetime(2025, 6, 11, tzinfo=UTC)):
        at_ns = int(at.timestamp()) * 10**9
        assert book.price(MILLION, "openai", "o3", at_ns) == book.price(MILLION, "openai", "o3", at)


def test_hours_count_in_utc_whatever_zone_the_moment_is_in() -> None:
    book = PriceBook.default()
    at = datetime(2025, 6, 1, 17, tzinfo=UTC)
    from_tokyo = at.astimezone(ZoneInfo("Asia/Tokyo"))
    assert book.price(MILLION, "deepseek", "deepseek-chat", from_tokyo) == book.price(
        MILLION, "deepseek", "deepseek-chat", at
    )


def test_price_if_loaded_never_resolves_by_itself() -> None:
    book = PriceBook()
    usage = Usage(120, 34)
    assert book.price_if_loaded(usage, "openai", "gpt-4o-mini", NOV_24) is None
    cost = book.price(usage, "openai", "gpt-4o-mini", NOV_24)
    assert book.price_if_loaded(usage, "openai", "gpt-4o-mini", NOV_24) == cost


def test_many_model_names_do_not_fill_the_memory() -> None:
    book = PriceBook.from_toml(b'[[price]]\nprovider="x"\nmodel="*"\ninput=1\noutput=1')
    for index in range(5000):
        assert isinstance(book.price(MILLION, "x", f"m{index}", NOV_24), Cost)
    assert len(book._layers) <= 4096


def test_importing_pricing_leaves_the_price_data_alone() -> None:
    code = (
        "import sys, tierlight.pricing; sys.exit('genai_prices' in sys.modules or 'tomllib' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---- the user's price file ------------------------------------------------------------------------------


def _user_price(toml: str, *, at: datetime = NOV_24, usage: Usage = MILLION, **where: str) -> Cost | Unpriced:
    provider = where.pop("provider", "openai")
    model = where.pop("model", "gpt-5-mini")
    return PriceBook.from_toml(toml.encode()).price(usage, provider, model, at, **where)


ROW = '[[price]]\nprovider = "openai"\nmodel = "gpt-5-mini"\n'


@pytest.mark.parametrize(
    ("toml", "usd"),
    [
        pytest.param(ROW + "input = 1\noutput = 3", "4", id="own-price-first"),
        pytest.param(ROW + "input = 1\noutput = 3\ndiscount_percent = 10", "3.6", id="discount-on-own-price"),
        pytest.param(ROW + "discount_percent = 20", "1.8", id="discount-on-list-price"),
        pytest.param(
            ROW + 'input = 1\noutput = 3\ncurrency = "EUR"\nusd_rate = 1.1', "4.4", id="euro-at-its-own-rate"
        ),
        pytest.param(
            '[[price]]\nprovider = "*"\nmodel = "gpt-5*"\ndiscount_percent = 50', "1.125", id="pattern"
        ),
        pytest.param(
            ROW + 'input = 9\noutput = 9\ncontext = "batch"', "2.25", id="other-context-does-not-count"
        ),
        pytest.param(ROW + "input = 9\noutput = 9\nvalid_from = 2026-11-25", "2.25", id="not-yet"),
        pytest.param(ROW + "input = 9\noutput = 9\nvalid_until = 2026-11-24", "2.25", id="no-longer"),
        pytest.param(ROW + "input = 9\noutput = 9\nvalid_from = 2026-11-24", "18", id="from-this-day-on"),
        pytest.param(
            ROW
            + "input = 1\noutput = 1\nvalid_from = 2026-01-01\n"
            + ROW
            + "input = 2\noutput = 2\nvalid_from = 2026-06-01",
            "4",
            id="newest-valid-row",
        ),
        pytest.param(
            ROW
            + "input = 1\noutput = 1\n"
            + '[[price]]\nprovider = "openai"\nmodel = "*"\ninput = 7\noutput = 7',
            "2",
            id="closest-row",
        ),
        pytest.param(ROW + "free = true", "0", id="declared-free"),
    ],
)
def test_user_row_decides(toml: str, usd: str) -> None:
    cost = _user_price(toml)
    assert isinstance(cost, Cost)
    assert cost.usd == Decimal(usd)
    assert cost.source == ("price_book" if cost.price_version.startswith("gp:") else "user")


def test_user_row_holds_for_dated_snapshots_of_its_model() -> None:
    cost = _user_price(ROW + "input = 1\noutput = 3", response_model="gpt-5-mini-2025-08-07")
    assert isinstance(cost, Cost)
    assert cost.usd == 4


def test_user_row_of_a_deployment_name_wins_over_the_model_behind_it() -> None:
    toml = '[[price]]\nprovider = "azure"\nmodel = "support-prod"\ninput = 1\noutput = 1'
    cost = _user_price(toml, provider="azure.ai.openai", model="support-prod", response_model="gpt-5-mini")
    assert isinstance(cost, Cost)
    assert (cost.usd, cost.priced_model) == (Decimal(2), "support-prod")


def test_machine_paid_by_the_hour_is_shared_by_its_parallel_calls() -> None:
    toml = '[[price]]\nprovider = "ollama"\nmodel = "*"\nper_hour = 0.90\nparallel = 4'
    usage = Usage(10, 10, duration_ns=8_000_000_000)
    cost = _user_price(toml, provider="ollama", model="llama3.2", usage=usage)
    assert isinstance(cost, Cost)
    assert cost.usd == Decimal("0.0005")
    assert cost.other_nusd == cost.nusd
    no_time = _user_price(toml, provider="ollama", model="llama3.2")
    assert no_time == Unpriced("no_usage")


def test_price_version_names_the_file_and_the_list_it_discounts() -> None:
    own = _user_price(ROW + "input = 1\noutput = 3")
    discounted = _user_price(ROW + "discount_percent = 20")
    assert isinstance(own, Cost)
    assert isinstance(discounted, Cost)
    assert own.price_version.startswith("user:")
    assert len(own.price_version) == len("user:") + 12
    assert discounted.price_version.endswith("+gp:" + genai_prices.__version__)


def test_user_retirement_comes_first() -> None:
    toml = b'[[retire]]\nprovider = "openai"\nmodel = "gpt-5"\ndate = 2027-03-01'
    book = PriceBook.from_toml(toml)
    assert book.retirement("openai", "gpt-5") == date(2027, 3, 1)
    assert book.retirement("openai", "gpt-5-mini") == date(2026, 12, 11)


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        ("[[price", "not TOML"),
        ("[prices]", r"\[\[price\]\] and \[\[retire\]\]"),
        ("[price]\nprovider='x'", r"\[\[price\]\]"),
        (ROW + "inputs = 1", r"1 \(openai/gpt-5-mini\): unknown key 'inputs'"),
        (ROW + "input = -1", "input must be a number"),
        (ROW + "input = '1'", "input must be a number"),
        (ROW + "input = nan", "input must be a number"),
        (ROW, "no price"),
        (ROW + "input = 1\ncurrency = 'EUR'", "usd_rate"),
        (ROW + "discount_percent = 120", "0 to 100"),
        (ROW + "input = 1\ncontext = 'bulk'", "context must be one of"),
        (ROW + "input = 1\nvalid_from = '2026-01-01'", "without quotes"),
        (ROW + "input = 1\nvalid_from = 2026-02-01\nvalid_until = 2026-01-01", "must be after"),
        (ROW + "free = true\ninput = 1", "exclude each other"),
        ("[[price]]\nmodel = 'x'\ninput = 1", "provider must be a name"),
        ("[[retire]]\nprovider = 'x'\nmodel = 'y'", "date must be a day"),
    ],
)
def test_price_file_that_cannot_be_right_names_its_row(toml: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        PriceBook.from_toml(toml.encode())


# ---- pages and lists ------------------------------------------------------------------------------------


def test_quote_gives_the_unit_prices_of_a_moment() -> None:
    book = PriceBook.default()
    before = book.quote("openai", "o3", datetime(2025, 6, 9, tzinfo=UTC))
    after = book.quote("openai", "o3", datetime(2025, 6, 9, tzinfo=UTC) + timedelta(days=2))
    assert before is not None
    assert after is not None
    assert (before.input_usd, before.output_usd) == (Decimal(10), Decimal(40))
    assert (after.input_usd, after.output_usd) == (Decimal(2), Decimal(8))
    assert book.quote("openai", "gpt-5-turbo", NOV_24) is None


def test_rows_list_the_users_prices_first_and_every_source() -> None:
    rows = list(PriceBook.from_toml((ROW + "input = 1\noutput = 3").encode()).rows())
    assert (rows[0].provider, rows[0].model, rows[0].input_usd, rows[0].source) == (
        "openai",
        "gpt-5-mini",
        Decimal(1),
        "user",
    )
    assert {row.source for row in rows} == {"user", "genai-prices", "litellm"}
    o3 = [(row.valid_from, row.input_usd) for row in rows if (row.provider, row.model) == ("openai", "o3")]
    assert o3 == [(None, Decimal(10)), (date(2025, 6, 10), Decimal(2))]


def test_version_names_every_source() -> None:
    assert PriceBook.default().version == f"gp:{genai_prices.__version__}+ll:1.109.1"
