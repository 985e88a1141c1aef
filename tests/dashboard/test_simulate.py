"""What-if in the address, on the page and in its files."""

from __future__ import annotations

import csv
import io
import json
import re
from html import unescape
from urllib.parse import parse_qs, urlsplit

import pytest

from dashboard.conftest import Browser
from tierlight.routing.policy import Policy

CHOSEN = "m=summarize_for_agent~openai:gpt-5-nano&a=summarize_for_agent~80"


def rows(month: Browser, query: str = "") -> dict[str, dict[str, str]]:
    text = month.text(f"/simulate.csv?{query}")
    return {row["route"]: row for row in csv.DictReader(io.StringIO(text))}


def test_the_files_hold_what_the_page_shows(month: Browser) -> None:
    page = month.text(f"/simulate?{CHOSEN}")
    found = rows(month, CHOSEN)
    assert found["summarize_for_agent"]["proposed_model"] == "gpt-5-nano"
    assert float(found["summarize_for_agent"]["accepted"]) == 0.8
    assert found["answer_customer"]["basis"] == "measured"
    today = sum(float(row["today_usd"] or 0) for row in found.values())
    assert f'title="${today:,.5f}"' in page
    from_json = {row["route"]: row for row in json.loads(month.text(f"/simulate.json?{CHOSEN}"))}
    assert from_json["draft_outreach"]["today_usd"] is None, "unpriced is null, not 0"
    assert set(from_json["answer_customer"]) == set(found["answer_customer"])
    for kind in ("csv", "json", "toml"):
        link = re.search(rf'href="(/simulate\.{kind}[^"]*)"', page)
        assert link
        asked = parse_qs(urlsplit(unescape(link.group(1))).query)
        assert asked["m"] == ["summarize_for_agent~openai:gpt-5-nano"]
        assert asked["a"] == ["summarize_for_agent~80"]


def test_the_policy_file_moves_the_chosen_routes(month: Browser) -> None:
    answer = month.get("/simulate.toml?s=today&m=classify_intent~openai:gpt-5-mini")
    assert 'filename="policy.toml"' in answer.headers["content-disposition"]
    policy = Policy.from_toml(answer.text, is_served=True)
    assert policy.targets[policy.routes["classify_intent"].default].model == "gpt-5-mini"


def test_a_proposed_model_can_be_seen_in_its_list(month: Browser) -> None:
    page = month.text("/simulate?s=proposed")
    for route, row in rows(month, "s=proposed").items():
        if row["proposed_model"]:
            assert re.search(rf'value="{route}~[^"]*:{row["proposed_model"]}" selected', page), route


def test_another_price_changes_the_routes_that_use_the_model(month: Browser) -> None:
    page = month.text("/simulate?pm=anthropic:claude-opus-4-7&pi=-50&po=-50")
    words = re.search(r"claude-opus-4-7 would have cost \$([\d.]+) instead of \$([\d.]+)", page)
    assert words
    assert float(words.group(1)) == pytest.approx(float(words.group(2)) / 2, abs=0.01)
    assert "No priced call of nothing" in month.text("/simulate?pm=x:nothing&pi=5")


@pytest.mark.parametrize(
    "query", ["a=x", "a=answer_customer~no", "pi=1e99&pm=a:b", "pi=nan&pm=openai:gpt-5-nano", "m=~~~&pm=%00"]
)
def test_what_cannot_be_read_is_left_out(month: Browser, query: str) -> None:
    assert month.get(f"/simulate?{query}").status_code == 200


def test_choices_of_other_pages_are_carried_along(month: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tierlight_dashboard.views.simulate.ROWS", 2)
    page = month.text(f"/simulate?page=2&{CHOSEN}&m=answer_customer~")
    assert page.count("data-row") == 2
    assert '<input type="hidden" name="m" value="answer_customer~">' in page
    assert "m=answer_customer~" in unescape(page).replace("%7E", "~")
