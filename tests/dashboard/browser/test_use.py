"""What people do with hand and keyboard: filter, sort, zoom, go places, approve and undo, watch calls arrive."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, expect

from dashboard import seed
from dashboard.browser.conftest import Watched, watched

pytestmark = pytest.mark.browser


def test_filtering_keeps_the_focus_and_writes_the_address(tab: Watched) -> None:
    page = tab.open("/routes?sort=p95&dir=asc")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "q"
    page.keyboard.type("classify", delay=20)
    expect(page.locator("tbody [data-row]")).to_have_count(2)
    assert page.evaluate("document.activeElement.id") == "q"
    assert "q=classify" in page.url
    assert "sort=p95" in page.url, "the order survives the filter"
    page.locator("thead a", has_text="Cost").first.click()
    expect(page.locator("th[aria-sort]")).to_contain_text("Cost")
    assert page.input_value("#q") == "classify"
    page.locator("tbody [data-row]").first.click()
    page.wait_for_url("**/routes/classify_*")
    page.go_back()
    expect(page.locator("tbody [data-row]")).to_have_count(2)
    expect(page.locator("nav[aria-label=Pages]")).to_be_visible()


def test_keys_go_places(tab: Watched) -> None:
    page = tab.open("/")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("g")
    page.keyboard.press("r")
    page.wait_for_url("**/routes")
    page.keyboard.press("j")
    page.keyboard.press("j")
    second = page.evaluate("document.activeElement.textContent")
    page.keyboard.press("Enter")
    page.wait_for_url("**/routes/*")
    assert second in page.locator("h1").inner_text()
    page.keyboard.press("[")
    page.wait_for_url(re.compile("range=custom"))
    page.keyboard.press("?")
    expect(page.locator("#keys")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#keys")).to_be_hidden()


def test_the_palette_finds_routes_and_gives_the_focus_back(tab: Watched) -> None:
    page = tab.open("/")
    page.focus(".brand")
    page.keyboard.press("Control+k")
    page.keyboard.type("extract", delay=15)
    expect(page.locator("#found a").first).to_contain_text(seed.DRIFTING)
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.className") == "brand"
    page.keyboard.press("Control+k")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/routes/{seed.DRIFTING}")


def test_a_move_is_approved_and_undone(tab: Watched) -> None:
    page = tab.open("/routes/answer_customer")
    page.click("button:has-text('Approve')")
    page.wait_for_load_state()
    expect(page.locator("text=done, being verified")).to_be_visible()
    page.click("button:has-text('Take back')")
    expect(page.locator("button:has-text('Approve')")).to_be_visible()
    tab.open("/experiments")
    page.click("button:has-text('Approve')")
    expect(page.locator(".banner.good")).to_contain_text("Approved.")
    page.click("button:has-text('Undo')")
    expect(page.locator("button:has-text('Approve')")).to_be_visible()


def test_a_revision_of_the_policy_is_undone_also_without_script(chromium: Browser, served: str) -> None:
    policy = (
        'schema = 1\n[target.a]\nprovider = "openai"\nmodel = "gpt-5"\nfallback = ["b"]\n'
        '[target.b]\nprovider = "anthropic"\nmodel = "claude-haiku-4-5"\nfallback = ["a"]\n'
        '[route.probe]\ntarget = "a"\n'
    )
    for toml in (policy, policy.replace('target = "a"', 'target = "b"')):
        approved = httpx.post(f"{served}/api/v1/policy?by=ben", content=toml, trust_env=False)
        assert approved.status_code == 200, approved.text
    number = approved.json()["revision"]
    for scripts in (True, False):
        context, tab = watched(chromium, served, java_script_enabled=scripts)
        page = tab.open("/experiments")
        page.click(f"button[aria-label='Undo revision {number}']")
        expect(page.locator(".banner.good")).to_contain_text("undone by a new one")
        number += 1
        first = page.locator("section[aria-labelledby=p-h] tbody tr").first
        expect(first).to_contain_text(f"undo revision {number - 1}")
        expect(first).to_contain_text("route probe: candidates changed, default")
        if scripts:
            tab.check()
        context.close()
    assert httpx.get(f"{served}/api/v1/policy", trust_env=False).text.count('target = "b"') == 1


def test_calls_arrive_and_can_be_held(tab: Watched) -> None:
    page = tab.open("/live?route=live_probe")
    expect(page.locator("#live-state")).to_have_text("connected")
    before = page.locator("#rows tr").count()
    expect(page.locator("#rows tr").nth(before + 1)).to_be_attached()
    page.keyboard.press("Space")
    expect(page.locator("[data-pause]")).to_have_attribute("aria-pressed", "true")
    page.wait_for_timeout(150)
    held = page.locator("#rows tr").count()
    page.wait_for_timeout(900)
    assert page.locator("#rows tr").count() == held
    page.keyboard.press("Space")
    expect(page.locator("#rows tr").nth(held)).to_be_attached()


def test_latency_by_hour_is_drawn_in_the_zone_of_the_page(tab: Watched) -> None:
    page = tab.open(f"/routes/{seed.DRIFTING}?range=7d&tz=Europe/Berlin")
    expect(page.locator("#plot canvas")).to_be_visible()
    assert page.evaluate("window.__cls") < 0.02
    page.locator("#plot").scroll_into_view_if_needed()
    box = page.locator("#plot .u-over").bounding_box()
    assert box
    page.mouse.move(box["x"] + 200, box["y"] + 60)
    expect(page.locator("#plot .u-legend")).to_contain_text("Europe/Berlin")
    assert not re.search(r"\d (AM|PM|am|pm)\b", page.locator("#plot").inner_text())
    page.mouse.down()
    page.mouse.move(box["x"] + 500, box["y"] + 60, steps=4)
    page.mouse.up()
    page.wait_for_url(re.compile("range=custom"))


def test_a_failing_server_leaves_what_was_there_and_says_so(tab: Watched) -> None:
    tab.expected = ("500",)
    page = tab.open("/routes")
    page.route(
        re.compile(r"/routes\?.*q="),
        lambda route: route.fulfill(status=500, headers={"X-Incident": "abc123"}, body="no"),
    )
    rows = page.locator("tbody [data-row]").count()
    page.fill("#q", "zzz")
    expect(page.locator("#status")).to_contain_text("Could not refresh")
    assert page.locator("tbody [data-row]").count() == rows


def test_theme_follows_the_choice(tab: Watched) -> None:
    page = tab.open("/docs")
    page.click("details.menu > summary")
    page.click(".menu a:has-text('dark')")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(15, 17, 21)"


@pytest.mark.parametrize("path", ["/", f"/routes/{seed.DRIFTING}", "/models"])
def test_every_chart_can_be_had_as_a_picture(tab: Watched, path: str) -> None:
    page = tab.open(path)
    charts = page.locator(".chart").count()
    buttons = page.locator("[data-png]")
    assert buttons.count() >= charts >= 1
    with page.expect_download() as found:
        buttons.first.click()
    assert re.fullmatch(r"[\w.-]+\.png", found.value.suggested_filename)
    data = found.value.path().read_bytes()
    assert data.startswith(b"\x89PNG")
    width, height = (int.from_bytes(data[at : at + 4], "big") for at in (16, 20))
    assert width == 1920
    assert height > 300


def test_a_mark_on_a_chart_opens_the_calls_round_it(tab: Watched) -> None:
    page = tab.open(f"/routes/{seed.DRIFTING}")
    page.locator("[data-href]").first.click(position={"x": 6, "y": 60})
    page.wait_for_url("**/calls?*from=*")
    expect(page.locator("tbody [data-row]").first).to_be_visible()


def test_slices_arrive_after_the_page_and_shift_nothing(tab: Watched) -> None:
    page = tab.open(f"/routes/{seed.DRIFTING}")
    expect(page.locator("#slices")).to_contain_text("Lowest scores")
    assert "open=" not in page.url
    assert page.evaluate("window.__cls") < 0.02


def test_paper_holds_the_verdict_and_no_buttons(tab: Watched) -> None:
    page = tab.open(f"/routes/{seed.DRIFTING}?open=slices")
    page.emulate_media(media="print", color_scheme="dark")
    page.set_viewport_size({"width": 718, "height": 1000})  # A4 between its margins
    expect(page.locator(".verdict")).to_contain_text("Hold.")
    expect(page.locator(".verdict")).to_have_css("color", "rgb(0, 0, 0)")
    assert page.locator("button:visible, nav:visible, summary:visible").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 718
    tab.open("/")
    assert page.evaluate("document.documentElement.scrollWidth") <= 718
    assert len(page.pdf(format="A4")) > 10_000


def test_the_weekly_report_reads_on_its_own(chromium: Browser, served: str, tmp_path: Path) -> None:
    html = httpx.get(f"{served}/report", params={"route": seed.DRIFTING}).text
    (tmp_path / "report.html").write_text(html, encoding="utf-8")
    page = chromium.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto((tmp_path / "report.html").as_uri())
    assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 600)")
    assert [url for url in asked if not url.startswith("data:")] == [page.url]
    expect(page.locator(".verdict")).to_contain_text("Hold.")
    result = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "best-practice"]})
    assert result.violations_count == 0, result.generate_report()
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.emulate_media(media="print")
    expect(page.locator(".verdict")).to_be_visible()
    assert len(page.pdf(format="A4")) > 10_000
    page.close()


def test_the_text_of_a_call_is_shown_on_request_without_leaving_the_page(tab: Watched) -> None:
    page = tab.open(f"/calls/{'ee' * 15}00/{'ee' * 7}00")
    expect(page.locator("#detail")).to_contain_text("characters")
    page.click("button:has-text('Show the text')")
    expect(page.locator("#detail pre.text").first).to_be_visible()
    assert "reveal" not in page.url
    page.click("#detail nav a:has-text('Cost')")
    expect(page.locator("#detail pre.text")).to_have_count(0)
    with page.expect_download() as found:
        page.click("#detail nav a:has-text('Messages')")
        page.click("button:has-text('Download as text')")
    assert found.value.suggested_filename == "call-eeeeeeee-eeeeeeee.txt"


def test_ticking_all_alerts_ticks_each_and_an_undo_takes_all_back(tab: Watched) -> None:
    page = tab.open("/alerts")
    page.check("[data-all]")
    assert page.locator("#inbox [name=id]:checked").count() == 2
    page.click("button:has-text('Resolve ticked')")
    expect(page.locator(".banner.good")).to_contain_text("2 alerts. Resolved.")
    page.click(".banner button:has-text('Undo')")
    expect(page.locator("li[id^=alert-]")).to_have_count(2)


def test_the_tail_says_that_it_lost_the_server_and_found_it_again(tab: Watched) -> None:
    tab.expected = ("ERR_FAILED", "Failed to fetch")
    tab.page.route("**/live/stream*", lambda route: route.abort())
    page = tab.open("/live?route=live_probe")
    expect(page.locator("#live-state")).to_have_text("reconnecting")
    page.unroute("**/live/stream*")
    expect(page.locator("#live-state")).to_have_text("connected")


@pytest.mark.parametrize("path", ["/alerts", f"/calls/{'ee' * 15}00/{'ee' * 7}00?tab=cost"])
def test_with_colours_of_the_system_the_open_tab_is_told_by_its_line(tab: Watched, path: str) -> None:
    tab.page.emulate_media(forced_colors="active")
    page = tab.open(path)
    lines = page.evaluate(
        "[...document.querySelectorAll('.tabs a')].map(a => [a.hasAttribute('aria-current'), getComputedStyle(a).borderBottomColor])"
    )
    here = {colour for current, colour in lines if current}
    others = {colour for current, colour in lines if not current}
    assert len(here) == 1
    assert not here & others
    chip = page.evaluate("getComputedStyle(document.querySelector('.chip')).borderTopStyle")
    assert chip == "solid", "a soft background alone would be gone"


def test_print_holds_the_sentences_and_no_controls(tab: Watched) -> None:
    tab.page.emulate_media(media="print")
    page = tab.open("/alerts")
    assert page.locator("li[id^=alert-] p").first.is_visible()
    for control in ("button", "[type=checkbox]", ".tabs", "nav"):
        assert not any(each.is_visible() for each in page.locator(control).all()), control
