"""What the route page works out of single calls: slices, why the cost changed, what came after first tries."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from html import unescape

import pytest

from dashboard import seed
from dashboard.conftest import Browser
from tierlight_dashboard.analysis.comparison import Comparison

PATH = f"/routes/{seed.DRIFTING}"


def calls_of(month: Browser, link: str) -> list[dict[str, str]]:
    text = month.text(unescape(link).replace("/calls?", "/calls.csv?"))
    return list(csv.DictReader(io.StringIO(text)))


def test_slices_come_after_the_page_and_without_script_by_a_link(month: Browser) -> None:
    page = month.text(PATH)
    assert f'hx-get="{PATH}?open=slices" hx-trigger="load"' in page
    assert f'href="{PATH}?open=slices#slices"' in page
    assert "Lowest scores" not in page
    block = month.block(f"{PATH}?open=slices", "slices")
    assert "Lowest scores" in block.text
    assert "hx-trigger" not in block.text, "it must not ask again"
    assert "HX-Replace-Url" not in block.headers, "nothing the reader chose"


def test_a_slice_leads_to_as_many_calls_as_it_says(month: Browser) -> None:
    rows = re.findall(
        r"<tr><th scope=\"row\"><a class=\"name\" href=\"(/calls[^\"]+)\".*?</tr>",
        month.block(f"{PATH}?open=slices", "slices").text,
    )
    text = month.block(f"{PATH}?open=slices", "slices").text
    assert len(rows) >= 4, "two prompt versions, two models"
    for link in rows:
        line = text[text.index(link) :].partition("</tr>")[0]
        n = re.search(r'<td class="num">([\d,]+)</td>', line)
        assert n
        assert int(n.group(1).replace(",", "")) == len(calls_of(month, link))


def test_lowest_scores_are_the_lowest(month: Browser) -> None:
    text = month.block(f"{PATH}?open=slices", "slices").text
    low = text[text.index("Lowest scores") :]
    values = [float(v) for v in re.findall(r"<td>(\d\.\d\d) <span", low)]
    assert values == sorted(values)
    assert 0 < len(values) <= 10


def test_first_tries_and_what_follows_are_all_calls(month: Browser) -> None:
    rows = {
        r["step"]: int(r["calls"])
        for r in csv.DictReader(io.StringIO(month.text(f"/chart/route-cascade.csv?route={seed.DRIFTING}")))
    }
    everything = calls_of(month, f"/calls?route={seed.DRIFTING}")
    escalated = sum(r["attempt_reason"] == "escalation" for r in everything)
    assert rows["Escalated"] == escalated > 0
    assert sum(rows.values()) - rows["Answered by the first try"] == len(everything)
    assert rows["Answered by the first try"] == rows["First tries"] - (len(everything) - rows["First tries"])
    assert "First tries and what came after" not in month.text("/routes/classify_intent"), (
        "every call was a first try"
    )


def test_parts_of_a_change_of_cost_add_up(month: Browser) -> None:
    rows = list(csv.DictReader(io.StringIO(month.text(f"/chart/route-costchange.csv?route={seed.DRIFTING}"))))
    assert [r["part"] for r in rows] == ["mix", "tokens", "price", "retries"]
    block = month.block(f"{PATH}?open=slices", "slices").text
    now, then = re.findall(r"\$(\d+\.\d\d)", block[block.index("A thousand answers cost") :])[:2]
    assert sum(float(r["usd_per_1k_answers"]) for r in rows) == pytest.approx(
        float(now) - float(then), abs=0.011
    )


@pytest.mark.parametrize(
    "name", ["quality", "latency", "cost", "errors", "mix", "hourly", "cascade", "costchange"]
)
def test_every_chart_is_a_picture_and_a_table_of_numbers(month: Browser, name: str) -> None:
    assert month.text(f"/chart/route-{name}.svg?route={seed.DRIFTING}").startswith("<svg")
    heads, *rows = csv.reader(io.StringIO(month.text(f"/chart/route-{name}.csv?route={seed.DRIFTING}")))
    assert rows
    assert {len(row) for row in rows} == {len(heads)}
    for cell in (cell for row in rows for cell in row[1:] if cell):
        float(cell)


def test_a_route_too_quiet_to_split_says_so(month: Browser) -> None:
    route = "code_review.pull_request_with_a_long_name"
    assert "from 100 priced calls" in month.block(f"/routes/{route}?open=slices", "slices").text
    assert month.get(f"/chart/route-costchange.svg?route={route}").status_code == 404


def test_a_broken_split_stands_beside_the_evidence(desk: Browser) -> None:
    advice = next(r for r in desk.store.recommendations() if r.route == "answer_customer")
    comparison = Comparison(
        advice.route, "ab", "e", advice.current_model, advice.candidate_model,
        share=0.5, calls={"candidate": 700, "control": 500},
    )  # fmt: skip
    card = {"given": {"comparison": comparison.encode().decode()}, "figures": {"pairs": 1200}}
    desk.store.update_recommendation(replace(advice, rung="ab", card=card), "test")
    page = desk.text("/routes/answer_customer")
    assert (
        "700 of 1,200 calls (58.3 %) went to the candidate, but 50.0 % was agreed. The split is broken"
        in page
    )
