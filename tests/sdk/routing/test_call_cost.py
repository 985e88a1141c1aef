"""What a routed call cost in all, beside what its baseline would have cost, from the router to the store."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sdk.routing.fakes import POLICY, Scripted, chunk, refusal, reply
from sdk.routing.test_router import routed
from tierlight import configure, flush, shutdown
from tierlight.pricing import Cost, PriceBook, Usage
from tierlight_collector.records import Filters, SpanRecord, TimeRange
from tierlight_dashboard.serve import Running, ServeSettings, serving_in_thread

JUDGED = (
    POLICY
    + """
[route.reply]
strategy = "cascade"
steps = ["nano", "sonnet"]
baseline = "gpt5"
validators = [{ kind = "judge", target = "lite", rubric = "is it right", value = 0.7 }]
"""
)
EVER, EVERY_PURPOSE = TimeRange(0, 2**62), Filters(purpose=("production", "judge", "shadow"))
MODELS = {"nano": ("openai", "gpt-5-nano"), "lite": ("gcp.gemini", "gemini-2.5-flash-lite"), "sonnet": ("anthropic", "claude-sonnet-4-5"), "gpt5": ("openai", "gpt-5")}  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    store = f"sqlite:///{tmp_path_factory.mktemp('cost') / 'calls.db'}"
    with serving_in_thread(
        ServeSettings(store=store, http_port=0, grpc_port=None, port=0, watch_every_s=0)
    ) as running:
        yield running


@pytest.fixture
def stored(server: Running) -> Iterator[Running]:
    configure(service_name="test", endpoint=server.otlp_url, spool=False)
    yield server
    shutdown()


def price(target: str, tokens_in: int = 10, tokens_out: int = 2) -> float:
    provider, model = MODELS[target]
    cost = PriceBook.default().price(Usage(tokens_in, tokens_out), provider, model, 1_795_000_000_000_000_000)
    assert isinstance(cost, Cost)
    return cost.nusd / 1e9


def around(server: Running) -> SpanRecord:
    """The span around the attempts of the newest call."""
    assert flush(10)
    *_, found = [one for _, one in server.store.raw_spans(0, 1_000) if one.name.startswith("route ")]
    return found


def rolled_up(server: Running) -> float:
    (total,) = server.store.rollups(EVER, (), EVERY_PURPOSE)
    return total.cost_nusd / 1e9


def test_the_attempts_of_a_call_are_summed_with_their_judges_and_counted_once(stored: Running) -> None:
    before = sum(one.cost_nusd for one in stored.store.rollups(EVER, (), EVERY_PURPOSE)) / 1e9
    script = Scripted().tell("lite", reply("3"), reply("9"))
    routed(script, JUDGED).chat("reply", "x")
    assert script.asked == ["nano", "lite", "sonnet", "lite"]
    said = around(stored).attributes
    total = price("nano") + price("sonnet") + 2 * price("lite")
    assert said["tierlight.call.cost.amount"] == pytest.approx(total, abs=1e-9)
    assert said["tierlight.call.cost.currency"] == "USD"
    assert said["tierlight.call.baseline.target"] == "gpt5"
    assert said["tierlight.call.baseline.cost.amount"] == pytest.approx(price("gpt5"), abs=1e-9)
    assert rolled_up(stored) - before == pytest.approx(total, abs=1e-8)


def test_a_refused_attempt_cost_nothing_and_a_late_one_nobody_knows_what(stored: Running) -> None:
    routed(Scripted().tell("nano", refusal(429))).chat("intent", "x")
    assert around(stored).attributes["tierlight.call.cost.amount"] == pytest.approx(price("lite"), abs=1e-9)
    routed(Scripted().tell("nano", TimeoutError())).chat("intent", "x")
    said = around(stored).attributes
    assert said["tierlight.call.fallbacks"] == 1
    assert "tierlight.call.cost.amount" not in said
    assert "tierlight.call.baseline.cost.amount" not in said  # the route names none


def test_a_stream_is_summed_when_it_is_read_to_its_end(stored: Running) -> None:
    last = {**chunk(""), "usage": {"prompt_tokens": 10, "completion_tokens": 2}}
    toml = POLICY + '[route.talk]\ntarget = "nano"\nbaseline = "sonnet"\n'
    router = routed(Scripted().tell("nano", [chunk("a"), last]), toml)
    assert len(list(router.stream("talk", "x"))) == 2
    said = around(stored).attributes
    assert said["tierlight.call.cost.amount"] == pytest.approx(price("nano"), abs=1e-9)
    assert said["tierlight.call.baseline.cost.amount"] == pytest.approx(price("sonnet"), abs=1e-9)
