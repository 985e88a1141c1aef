"""Every number of the overview and of the routes table equals what the list behind its link adds up to."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from html import unescape

import pytest

from dashboard import seed
from dashboard.conftest import Browser
from tierlight_dashboard.views import fmt

WINDOW = "from=2026-10-26&to=2026-11-24T09:00:00Z"
LINK = re.compile(r'<a href="(/calls\?[^"]*)"(?: title="([^"]*)")?>([^<]+)</a>')


def element(html: str, ident: str) -> str:
    return html[html.index(f'id="{ident}"') :].partition("</section>")[0]


def behind(month: Browser, link: str) -> list[Mapping[str, str]]:
    """The rows of the list a link leads to."""
    return list(csv.DictReader(io.StringIO(month.text(unescape(link).replace("/calls?", "/calls.csv?")))))


def spent(rows: list[Mapping[str, str]]) -> float:
    return sum(float(row["cost_usd"] or 0) for row in rows)


def exact(title: str) -> float:
    return float(re.sub(r"[^\d.]", "", title.partition(";")[0]))


def test_each_key_figure_is_the_sum_of_its_list(month: Browser) -> None:
    found = {
        text: (link, title) for link, title, text in LINK.findall(element(month.text(f"/?{WINDOW}"), "kpis"))
    }
    everything = behind(month, f"/calls?{WINDOW}")
    money = next(text for text in found if text.startswith("$"))
    assert exact(found[money][1]) == pytest.approx(spent(behind(month, found[money][0])), abs=1e-5)
    calls = next(text for text in found if found[text][1].replace(",", "").isdigit())
    assert int(found[calls][1].replace(",", "")) == len(behind(month, found[calls][0])) == len(everything)
    errors = next(text for text in found if text.endswith(" errors"))
    assert errors == f"{fmt.percent(len(behind(month, found[errors][0])) / len(everything))} errors"
    unpriced = next(text for text in found if "no price" in text)
    assert int(unpriced.split()[0].replace(",", "")) == len(behind(month, found[unpriced][0])) > 0


@pytest.mark.parametrize("path", ["/", "/routes"])
@pytest.mark.parametrize("route", ["answer_customer", seed.DRIFTING, "translate_reply", "draft_outreach"])
def test_each_number_of_a_route_is_the_sum_of_its_list(month: Browser, path: str, route: str) -> None:
    page = month.text(f"{path}?{WINDOW}{'' if path == '/' else f'&q={route}'}")
    row = next((r for r in page.split("<tr>") if f'data-row href="/routes/{route}' in r), None)
    if row is None:
        assert path == "/", "only the dearest ten are on the overview"
        return
    everything = behind(month, f"/calls?{WINDOW}&route={route}")
    checked = []
    for link, title, text in LINK.findall(row):
        rows = behind(month, link)
        view = (re.search(r"view=(\w+)", link) or ["", "all"])[1]
        checked.append(view)
        assert {r["route"] for r in rows} == {route}
        if view == "all":
            assert int(title.replace(",", "")) == len(rows) == len(everything)
        elif view == "costliest":
            assert exact(title) == pytest.approx(spent(rows), abs=1e-5)
        elif view in ("errors", "fallback", "escalated"):
            assert text == fmt.percent(len(rows) / len(everything))
        elif view == "slowest":
            ms = sorted(float(r["latency_ms"]) for r in rows)
            assert (
                text == fmt.duration(ms[int(0.95 * len(ms))])
                or abs(ms[int(0.95 * len(ms))] / _ms(text) - 1) < 0.06
            ), "percentiles are those of bins 5 % wide"
        elif view == "low_quality":
            scored = [r for r in everything if r["score_value"]]
            assert text == fmt.percent(1 - len(rows) / len(scored))
        elif view == "unpriced":
            assert text == "no price"
            assert len(rows) == len(everything)
    assert {"all", "slowest"} < set(checked)


def _ms(text: str) -> float:
    number, unit = text.split()
    return float(number) * (1000 if unit == "s" else 1)


def test_a_group_is_the_sum_of_its_routes(month: Browser) -> None:
    page = month.text(f"/routes?{WINDOW}&group=prefix&q=classify")
    sub = next(r for r in page.split("<tr") if r.startswith(' class="sub"'))
    rows = list(csv.DictReader(io.StringIO(month.text(f"/routes.csv?{WINDOW}&q=classify"))))
    assert len(rows) == 2
    assert f'title="{sum(int(r["calls"]) for r in rows):,}"' in sub
    cost = float(re.search(r'title="\$([\d.]+)"', sub)[1])  # type: ignore[index]
    assert cost == pytest.approx(sum(float(r["cost_usd"]) for r in rows), rel=1e-3)


def test_a_groups_sum_has_all_its_routes_though_the_page_shows_some(
    month: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tierlight_dashboard.views.routes.PAGE_ROWS", 1)
    page = month.text(f"/routes?{WINDOW}&group=prefix&q=classify&page=2")
    assert page.count("data-row") == 1
    assert "classify</a> · 2 routes" in page


def test_changes_are_those_between_the_two_periods(month: Browser) -> None:
    asked = "from=2026-11-20&to=2026-11-23&tz=UTC"
    before = "from=2026-11-17&to=2026-11-20&tz=UTC"
    row = next(
        r
        for r in month.text(f"/routes?{asked}&compare=prev&q=answer_customer").split("<tr>")
        if "data-row" in r
    )
    now, then = (behind(month, f"/calls?{when}&route=answer_customer") for when in (asked, before))
    assert f'<small class="delta">{fmt.change(len(now), len(then))}</small>' in row
    assert f'<small class="delta">{fmt.change(spent(now), spent(then))}</small>' in row
    assert "delta" not in month.text(f"/routes?{asked}&q=answer_customer")
    assert "nothing is compared" in month.text("/routes?range=90d&compare=prev")


@pytest.mark.parametrize(
    ("path", "chosen", "heads"),
    [
        ("/routes", "cols=p95&cols=calls&cols=nonsense", ["Route", "Calls", "p95"]),
        ("/calls", "cols=user&cols=cost", ["Time", "Cost", "User"]),
    ],
)
def test_chosen_columns_are_shown_in_their_own_order(
    month: Browser, path: str, chosen: str, heads: list[str]
) -> None:
    page = month.block(f"{path}?{chosen}&sort=cost", "rows")
    head = page.text[page.text.index("<thead>") : page.text.index("</thead>")]
    assert [re.sub(r"<[^>]+>| [↓↑]", "", h).strip() for h in re.findall(r"<th.*?</th>", head)] == heads
    assert "cols=" in page.headers["HX-Replace-Url"]
    first = re.search(r"<tbody>\s*<tr>.*?</tr>", page.text, re.S)
    assert first
    assert len(re.findall(r"<t[hd]\b", first.group())) == len(heads)


def test_all_columns_are_no_choice(month: Browser) -> None:
    every = re.findall(r'name="cols" value="(\w+)"', month.text("/routes"))
    answer = month.block("/routes?" + "&".join(f"cols={name}" for name in every), "rows")
    assert "cols" not in answer.headers["HX-Replace-Url"]
