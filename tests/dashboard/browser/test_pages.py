"""Every page in Chromium: accessible in both schemes, within its layout at every width, silent, light, and safe."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal
from urllib.parse import quote

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser

from dashboard import seed
from dashboard.browser.conftest import Watched, watched

pytestmark = pytest.mark.browser

HOSTILE = f"/calls/{'ee' * 15}00/{'ee' * 7}00"
LONG = quote(seed.HOSTILE_ROUTE, safe="")
PAGES = (
    "/", "/?spend=share&range=7d", "/routes?compare=prev&range=7d&group=prefix", f"/routes/{seed.DRIFTING}?open=slices", "/routes/embed_kb", "/calls?cols=user&cols=cost", "/calls?q=nothing-like-this", HOSTILE,
    f"{HOSTILE}?tab=attributes", f"{HOSTILE}?tab=cost", f"{HOSTILE}?tab=raw", "/alerts", "/alerts/rules", "/experiments", "/experiments/exp-review-mini", "/simulate?s=proposed",
    "/models?q=opus", "/live?route=answer_customer", "/welcome", "/settings", "/docs/recommendations", "/search?q=a",
)  # fmt: skip
RULES = {
    "runOnly": {
        "type": "tag",
        "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    }
}
COLOURS = {"runOnly": {"type": "rule", "values": ["color-contrast"]}}
WIDTHS = (320, 390, 820, 1440)


@pytest.fixture(scope="module")
def viewer(chromium: Browser, served: str) -> Iterator[Watched]:
    """One tab that looks at page after page."""
    context, found = watched(chromium, served)
    yield found
    context.close()


@pytest.mark.parametrize("path", PAGES)
def test_page_is_accessible_in_both_schemes_and_fits_every_width(viewer: Watched, path: str) -> None:
    page = viewer.page
    viewer.problems.clear()
    page.set_viewport_size({"width": 1440, "height": 900})
    page.emulate_media(color_scheme="light")
    viewer.open(path)
    page.wait_for_timeout(60)
    assert page.evaluate("window.__cls") < 0.02
    schemes: tuple[tuple[Literal["light", "dark"], Any], ...] = (("light", RULES), ("dark", COLOURS))
    for scheme, rules in schemes:  # only the colours differ between the two
        page.emulate_media(color_scheme=scheme)
        result = Axe().run(page, options=rules)
        assert result.violations_count == 0, result.generate_report()
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width, f"overflows at {width}"
    assert page.evaluate("window.__xss") is None
    assert page.evaluate("document.querySelectorAll('*').length") <= 3000
    viewer.check()


@pytest.mark.parametrize(
    "path",
    [
        f"/routes/{LONG}",
        HOSTILE,
        f"{HOSTILE}?tab=attributes",
        f"{HOSTILE}?tab=raw",
        "/calls?view=errors",
        "/models",
        "/settings",
    ],
)
def test_hostile_text_is_shown_as_text_at_phone_width(viewer: Watched, path: str) -> None:
    viewer.problems.clear()
    asked: list[str] = []
    viewer.page.on("request", lambda r: asked.append(r.url))
    viewer.page.set_viewport_size({"width": 390, "height": 800})
    viewer.open(path)
    if path == HOSTILE:
        viewer.page.click("button:has-text('Show the text')")
        viewer.page.locator("pre.text").first.wait_for()
    viewer.page.wait_for_timeout(80)
    assert viewer.page.evaluate("window.__xss") is None
    assert not [url for url in asked if "/evil" in url], "no markup in captured text may ask for anything"
    assert viewer.page.evaluate("document.documentElement.scrollWidth") <= 390
    assert (
        viewer.page.locator("text=window.__xss").count() + viewer.page.locator("text=hx-get").count() > 0
        or path == "/settings"
    )
    viewer.check()


@pytest.mark.parametrize(
    ("break_it", "word"),
    [
        ("document.querySelector('h1').style.color = '#ddd'; document.querySelector('h1').style.background = '#fff'; document.querySelector('h1').classList.remove('vh')", "color-contrast"),
        ("document.querySelector('.chart').removeAttribute('aria-label')", "role-img-alt"),
        ("document.querySelector('input[name=q]').removeAttribute('aria-label'); document.querySelectorAll('label').forEach(l => l.remove())", "select-name"),
    ],
)  # fmt: skip
def test_the_accessibility_check_bites(viewer: Watched, break_it: str, word: str) -> None:
    viewer.page.set_viewport_size({"width": 1440, "height": 900})
    viewer.page.emulate_media(color_scheme="light")
    viewer.open("/routes" if "input" in break_it else "/")
    viewer.page.evaluate(break_it)
    assert word in [v["id"] for v in Axe().run(viewer.page, options=RULES).response["violations"]]


def test_the_policy_check_bites(viewer: Watched) -> None:
    viewer.open("/docs")
    viewer.page.evaluate("document.querySelector('h1').setAttribute('style', 'color:red')")
    viewer.page.wait_for_timeout(50)
    with pytest.raises(AssertionError, match="policy"):
        viewer.check()
    viewer.problems.clear()


@pytest.mark.parametrize(
    ("path", "most_kb", "most_requests"),  # hours and slices are asked for after the route page
    [("/", 60, 8), (f"/routes/{seed.DRIFTING}", 100, 10)],
)
def test_a_cold_page_is_light(
    chromium: Browser, served: str, path: str, most_kb: float, most_requests: int
) -> None:
    context, found = watched(chromium, served)
    session = context.new_cdp_session(found.page)
    session.send("Network.enable")
    sizes: list[float] = []
    session.on("Network.loadingFinished", lambda e: sizes.append(e["encodedDataLength"]))
    found.open(path)
    found.page.wait_for_timeout(150)
    assert sum(sizes) / 1000 <= most_kb
    assert len(sizes) <= most_requests
    found.check()
    context.close()


def test_nothing_needs_script(chromium: Browser, served: str) -> None:
    context, found = watched(chromium, served, java_script_enabled=False)
    page = found.page
    found.problems.clear()
    found.open("/routes")
    page.fill("#q", "classify")
    page.click("form#flt button:has-text('Apply')")
    assert page.locator("tbody [data-row]").count() == 2
    page.click("thead a:has-text('p95')")
    assert "sort=p95" in page.url
    assert "q=classify" in page.url
    found.open("/calls?view=escalated")
    page.locator("tbody [data-row]").first.click()
    page.click("text=Cost >> nth=0")
    assert "tab=cost" in page.url
    found.open(HOSTILE)
    assert page.locator("pre.text").count() == 0
    page.click("button:has-text('Show the text')")
    assert page.locator("pre.text").first.is_visible()
    page.click("text=Hide")
    assert page.locator("pre.text").count() == 0
    found.open(f"/routes/{seed.DRIFTING}")
    page.locator("summary:has-text('Show as table')").first.click()
    assert page.locator("details.twin[open] table").first.is_visible()
    found.open("/alerts")
    page.locator("li button:has-text('Acknowledge')").first.click()
    assert page.locator("text=Acknowledged.").is_visible()
    page.click("button:has-text('Undo')")
    ticks = page.locator("#inbox [name=id]")
    for at in range(2):
        ticks.nth(at).check()
    page.fill("[name=note]", "looked at together")
    page.click("button:has-text('Acknowledge ticked')")
    assert page.locator("text=2 alerts. Acknowledged.").is_visible()
    page.click("button:has-text('Undo')")
    assert page.locator("li button:has-text('Acknowledge')").count() == 2
    context.close()
