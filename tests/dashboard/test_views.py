"""Pages asked through ASGI: a block equals its part of the page, totals equal lists, files are safe."""

from __future__ import annotations

import csv
import io
import json
import re
from html import unescape
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from dashboard import seed
from tierlight_collector.records import Batch, Filters, TimeRange
from tierlight_dashboard.analysis.preferences import preferences
from tierlight_dashboard.views.report import report, report_of

if TYPE_CHECKING:
    from dashboard.conftest import Browser

CALL = f"/calls/{'ee' * 15}00/{'ee' * 7}00"
PAGES = (
    "/", "/?range=7d&spend=share", "/?range=24h&tz=Asia/Kolkata", "/routes", "/routes?group=prefix&compare=prev", "/routes/answer_customer",
    f"/routes/{seed.DRIFTING}", f"/routes/{seed.DRIFTING}?open=slices", f"/routes/{quote(seed.HOSTILE_ROUTE, safe='')}", "/calls", "/calls?view=low_quality", "/calls?view=costliest", CALL,
    f"{CALL}?tab=attributes", f"{CALL}?tab=cost", f"{CALL}?tab=raw", f"/traces/{'ee' * 15}01", "/alerts", "/alerts?state=all", "/alerts/rules", "/experiments",
    "/experiments/exp-review-mini", "/simulate", "/simulate?s=proposed", "/models", "/models?q=sonnet", "/live", "/welcome", "/settings", "/docs", "/docs/quality",
    "/search", "/search?q=answer",
)  # fmt: skip
BLOCKS = (
    ("/", ("kpis", "attention", "recs", "spend", "routes_top")),
    ("/routes?sort=p95&dir=asc", ("rows",)),
    (f"/routes/{seed.DRIFTING}", ("charts", "evidence", "slices", "calls")),
    (f"/routes/{seed.DRIFTING}?open=slices", ("slices",)),
    ("/calls?view=errors", ("rows",)),
    (f"{CALL}?tab=attributes", ("detail",)),
    ("/alerts?state=all", ("inbox",)),
    ("/models?q=opus", ("book",)),
    ("/simulate", ("worlds",)),
    ("/welcome", ("signal",)),
    ("/search?q=c", ("found",)),
)


def element(html: str, ident: str) -> str:
    """The element with that id, with everything in it."""
    start = re.search(rf'<(\w+)[^>]*\bid="{ident}"', html)
    assert start, f"no element {ident}"
    tag, depth = start.group(1), 0
    for part in re.finditer(rf"<(/?){tag}\b", html[start.start() :]):
        depth += -1 if part.group(1) else 1
        if depth == 0:
            return html[start.start() : start.start() + part.end()]
    raise AssertionError(f"{ident} never ends")


def squeeze(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


@pytest.mark.parametrize("path", PAGES)
def test_every_page_answers(month: Browser, path: str) -> None:
    text = month.text(path)
    assert "None" not in re.sub(
        r"None (in|yet|open|\.)|>None<|None\.", "", re.sub(r"<script.*?</script>", "", text, flags=re.S)
    )
    assert "nan" not in re.findall(r">\s*(nan)\b", text)
    assert "{{7*7}}" in unescape(text) or "7*7" not in text, "what looks like a template stays text"
    assert ">49<" not in text


def test_the_palette_finds_a_section_of_the_settings(month: Browser) -> None:
    found = unescape(month.block("/search?q=retention&range=7d", "found").text)
    assert 'href="/settings?range=7d#data"' in found


@pytest.mark.parametrize(("path", "name"), [(path, name) for path, names in BLOCKS for name in names])
def test_a_block_equals_its_part_of_the_page(month: Browser, path: str, name: str) -> None:
    answer = month.block(path, name)
    assert answer.status_code == 200
    assert "<html" not in answer.text
    assert squeeze(element(answer.text, name)) == squeeze(element(month.text(path), name))
    assert "HX-Target" in answer.headers["vary"]


def test_a_block_nobody_knows_gets_the_page(month: Browser) -> None:
    assert "<html" in month.block("/routes", "nonsense").text


def test_sorting_and_filtering_are_kept_together(month: Browser) -> None:
    text = month.block("/routes?sort=p95&dir=asc&q=classify", "rows").text
    assert 'name="sort" value="p95" form="flt"' in text
    routes = re.findall(r'data-row href="/routes/([^"?]+)', text)
    assert sorted(routes) == ["classify_intent", "classify_urgency"]


def test_the_overviews_sums_are_those_of_the_lists(month: Browser) -> None:
    window = "from=2026-10-26&to=2026-11-24T09:00:00Z"
    everything = list(csv.DictReader(io.StringIO(month.text(f"/calls.csv?{window}"))))
    routes = list(csv.DictReader(io.StringIO(month.text(f"/routes.csv?{window}"))))
    assert sum(int(r["calls"]) for r in routes) == len(everything)
    spent = sum(float(c["cost_usd"] or 0) for c in everything)
    assert sum(float(r["cost_usd"] or 0) for r in routes) == pytest.approx(spent)
    page = month.text(f"/?{window}")
    assert f'title="{len(everything):,}"' in page
    assert f"${spent:,.5f}" in page
    errors = list(csv.DictReader(io.StringIO(month.text(f"/calls.csv?{window}&view=errors"))))
    assert len(errors) == sum(bool(c["error_type"]) for c in everything)
    assert f"{len(errors):,} calls of {len(everything):,}" in month.text(f"/calls?{window}&view=errors")


def test_day_sums_equal_the_total_in_every_zone(month: Browser) -> None:
    whole = TimeRange(seed.NOW_NS - 20 * seed.DAY_NS, seed.NOW_NS)
    total = sum(r.cost_nusd for r in month.store.rollups(whole, (), Filters()))
    for zone in ("Europe/Berlin", "America/Los_Angeles", "Asia/Kolkata"):
        days = month.store.series(whole, "day", zone, (), Filters())
        assert sum(r.cost_nusd for _, r in days) == total


def test_every_call_is_on_exactly_one_page(month: Browser) -> None:
    seen: list[str] = []
    link = "/calls?route=translate_reply"
    while link:
        text = month.text(link)
        seen += re.findall(r'data-row href="(/calls/[0-9a-f]+/[0-9a-f]+)', text)
        found = re.search(r'href="([^"]*cursor=[^"]*)"', text)
        link = unescape(found.group(1)) if found else ""
    assert len(seen) == len(set(seen)) > 50


@pytest.mark.parametrize("path", ["/calls.csv", "/routes.csv", "/models.csv", "/alerts.csv", "/simulate.csv"])
def test_no_cell_of_a_file_is_a_formula(month: Browser, path: str) -> None:
    answer = month.get(path)
    assert answer.headers["content-type"].startswith("text/csv")
    rows = list(csv.reader(io.StringIO(answer.text)))
    assert len(rows) > 1
    assert len({len(row) for row in rows}) == 1
    for cell in (cell for row in rows[1:] for cell in row):
        assert not cell.startswith(("=", "+", "@", "\t", "\r"))
        assert not cell.startswith("-") or float(cell) < 0


def test_json_of_a_table_holds_the_same_rows(month: Browser) -> None:
    rows = json.loads(month.text("/routes.json"))
    assert [r["route"] for r in rows] == [
        r["route"]
        for r in csv.DictReader(io.StringIO(month.text("/routes.csv")))
        if not r["route"].startswith("'")
    ] or len(rows) > 9
    assert next(r for r in rows if r["route"] == "draft_outreach")["cost_usd"] is None, (
        "unpriced is null, not 0"
    )


def test_a_files_name_cannot_carry_a_header(month: Browser) -> None:
    answer = month.get(f"/chart/route-cost.svg?route={quote(seed.HOSTILE_ROUTE)}")
    assert answer.status_code == 200
    assert re.fullmatch(r'inline; filename="[\w.-]+"', answer.headers["content-disposition"])
    assert "<script" not in answer.text


def test_mark_and_sentence_come_from_one_record(month: Browser) -> None:
    page = month.text(f"/routes/{seed.DRIFTING}")
    assert "16 Nov 04:00" in page
    assert page.count("16 Nov 04:00") >= 2, "in the list of marks and beside the alert"


def test_an_unpriced_route_shows_no_zero(month: Browser) -> None:
    row = element(month.text("/routes?q=draft_outreach"), "rows")
    assert "$0" not in row
    assert "without price" in row


def test_a_call_without_text_says_so_and_how_to_change_it(month: Browser) -> None:
    page = month.store.calls(Filters(), limit=500)
    for row in page.rows:
        if not month.store.contents(row.call.trace_id, row.call.span_id):
            text = month.text(f"/calls/{row.call.trace_id.hex()}/{row.call.span_id.hex()}")
            assert "Content not captured" in text
            return
    raise AssertionError("the seed holds calls without text")


def test_captured_text_is_shown_on_request_and_leaves_an_entry_without_the_text(month: Browser) -> None:
    before = len(month.store.audit(1000))
    for path in (CALL, f"{CALL}?tab=raw", f"/traces/{CALL.split('/')[2]}"):
        page = element(month.text(path), "detail")
        assert '<pre class="text">' not in page
    assert "characters" in element(month.text(CALL), "detail"), "how much there is"
    assert len(month.store.audit(1000)) == before, "looking at a call reads no text"
    answer = month.post(f"{CALL}/reveal")
    assert answer.status_code == 200
    assert '<pre class="text">' in answer.text
    assert "HX-Replace-Url" not in answer.headers
    entry = month.store.audit(1)[0]
    assert (entry.action, entry.subject) == ("read content", CALL.removeprefix("/calls/"))
    assert seed.SENTINEL not in f"{entry.subject}{entry.detail}"
    assert month.get(f"{CALL}/reveal").status_code == 405


def test_captured_text_is_had_whole_as_a_file(month: Browser) -> None:
    answer = month.post(f"{CALL}/text")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["content-disposition"] == 'attachment; filename="call-eeeeeeee-eeeeeeee.txt"'
    assert seed.HOSTILE_TEXTS[0] in answer.text
    assert month.store.audit(1)[0].action == "download content"


@pytest.mark.parametrize("what", ["reveal", "text"])
def test_a_page_elsewhere_cannot_read_captured_text(month: Browser, what: str) -> None:
    before = len(month.store.audit(1000))
    assert month.ask("POST", f"{CALL}/{what}", data={}).status_code == 403
    foreign = {"Origin": "http://evil.example"}
    token = month.token()
    answer = month.ask("POST", f"{CALL}/{what}", headers=foreign, data={"csrf": token})
    assert answer.status_code == 403
    assert len(month.store.audit(1000)) == before


@pytest.mark.parametrize("path", ["/calls/x/y", f"/traces/{'0' * 31}", f"/traces/{'0' * 32}", "/routes/nope", "/docs/nope", "/static/app.css", "/static/..%2f..%2fapp.py", "/chart/route-x.svg?route=a", "/experiments/nope"])  # fmt: skip
def test_what_does_not_exist_is_a_page_that_helps(month: Browser, path: str) -> None:
    answer = month.get(path)
    assert answer.status_code == 404
    assert 'action="/search"' in answer.text


def test_a_tampered_page_mark_is_refused(month: Browser) -> None:
    assert month.get("/calls?cursor=bm9uc2Vuc2U").status_code == 400


def test_a_bad_value_gives_a_note_and_not_an_error(month: Browser) -> None:
    text = unescape(month.text("/routes?sort=cost;drop%20table&page=-1&range=10%5E12d&wat=1"))
    assert text.count('role="note"') == 4


def test_an_empty_store_leads_to_the_first_steps(empty: Browser) -> None:
    answer = empty.get("/")
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/welcome")
    for path in (
        "/welcome",
        "/routes",
        "/calls",
        "/alerts",
        "/experiments",
        "/simulate",
        "/models",
        "/live",
        "/settings",
    ):
        empty.text(path)


def test_the_welcome_page_lights_up_with_the_first_call(empty: Browser) -> None:
    assert "Waiting for the first span" in empty.block("/welcome", "signal").text
    empty.store.append(Batch(tuple(seed.spans(days=0, volume=0.02))))
    text = empty.block("/welcome", "signal").text
    assert "It works" in text
    assert "Got one" in text


def test_static_files_are_kept_for_ever_and_pages_never(month: Browser) -> None:
    found = re.search(r'href="(/static/app\.[0-9a-f]{8}\.css)"', month.text("/"))
    assert found
    answer = month.get(found.group(1))
    assert "immutable" in answer.headers["cache-control"]
    assert month.get("/").headers["cache-control"] == "no-store"


def test_a_theme_is_remembered_and_leaves_the_address(month: Browser) -> None:
    answer = month.get("/routes?q=a&theme=dark")
    assert (answer.status_code, answer.headers["location"]) == (303, "/routes?q=a")
    assert 'data-theme="dark"' in month.text("/routes")
    forgotten = month.get("/routes?theme=system").headers["set-cookie"]
    assert forgotten.startswith("tierlight_theme=")
    assert "Max-Age=0" in forgotten
    del month.cookies["tierlight_theme"]
    assert "data-theme" not in month.text("/routes")


def test_the_weekly_report_stands_alone(month: Browser) -> None:
    html = report(month.store, seed.DRIFTING, seed.NOW_NS)
    assert not re.search(r'(src|href)="(?!data:)', html)
    assert "<script" not in html
    assert "Hold." in html
    assert html.count("<img") == 6, "five charts and what came after first tries"
    assert "The week before ends at the same hour: 11 Nov 00:00 to 17 Nov 09:00." in html
    assert "<script" not in report(month.store, seed.HOSTILE_ROUTE, seed.NOW_NS)
    with pytest.raises(LookupError, match="answer_customer"):
        report(month.store, "nope", seed.NOW_NS)


def test_an_owner_gets_all_own_routes_in_one_document(month: Browser) -> None:
    html = report_of(month.store, "Support team", seed.NOW_NS)
    own = [r for r, owner in preferences(month.store.settings()).owners.items() if owner == "Support team"]
    assert html.count("<article") == len(own) >= 1
    assert not re.search(r'(src|href)="(?!data:|#)', html)
    with pytest.raises(LookupError, match="Support team"):
        report_of(month.store, "nobody", seed.NOW_NS)
    both = report(month.store, [seed.DRIFTING, "classify_intent"], seed.NOW_NS)
    assert "2 routes, week" in both
    assert both.count("<article") == 2


def test_what_if_tells_measured_from_estimated(month: Browser) -> None:
    text = month.text("/simulate")
    assert 'chip good">measured' in text
    assert "n = 1,100 pairs" in text
    chosen = month.block("/simulate?m=classify_intent~anthropic:claude-haiku-5-5", "worlds")
    assert 'chip warn">estimated' in chosen.text
    assert chosen.headers["HX-Replace-Url"].endswith("m=classify_intent~anthropic%3Aclaude-haiku-5-5")


def test_metrics_and_api_are_served_beside_the_pages(month: Browser) -> None:
    assert month.get("/health").status_code == 200
    assert month.get("/api/v1/routes").json()


def test_an_empty_range_says_so_and_where_the_data_is(month: Browser) -> None:
    page = month.text("/?from=2026-08-01&to=2026-08-05")
    assert re.search(r"no call in this range; the newest came \d+ \w+ ago", page)
    assert "Show 90 days" in page
    assert "No route was called in this range." in page
    assert "nothing in this range" in page
    assert "no priced flagship" not in page


def test_both_savings_have_their_range(month: Browser) -> None:
    text = re.sub(r"<[^>]+>", "", month.text("/?range=30d"))
    saved = re.search(r"Saved against all on [\w-]+\s+\$([\d.]+)\s+likely \$([\d.]+) to \$([\d.]+)", text)
    assert saved
    likely, low, high = map(float, saved.groups())
    assert low < likely < high
    assert re.search(r"Available to save\s+\$9\.10 / month at least\s+likely \$10\.40, up to \$12\.00", text)


def test_traffic_that_stopped_is_named(month: Browser) -> None:
    assert "as of 09:00:00 · " in re.sub(r"<[^>]+>", "", month.text("/"))
    stopped = looked_at(month, seed.NOW_NS + seed.DAY_NS)
    assert "no call for 1 d while more are expected, newest" in re.sub(r"<[^>]+>", "", stopped.text("/"))


def looked_at(month: Browser, now_ns: int) -> Browser:
    """The same store, looked at at another moment."""
    return type(month)(month.store, clock=lambda: now_ns)
