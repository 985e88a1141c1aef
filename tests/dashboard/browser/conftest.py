"""A real Chromium over a seeded server: one server and one browser for all, one context a test.

Every page is watched: console errors, page errors, violations of the content policy and requests to any other
host fail the test that caused them, and layout shifts are summed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Dialog, Page, sync_playwright

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
ARGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]  # fmt: skip
WATCH = """
window.__csp = []; window.__cls = 0;
document.addEventListener('securitypolicyviolation', e => window.__csp.push(e.violatedDirective + ' ' + e.blockedURI + ' ' + e.sourceFile));
new PerformanceObserver(list => { for (const e of list.getEntries()) if (!e.hadRecentInput) window.__cls += e.value; }).observe({type: 'layout-shift', buffered: true});
"""


@dataclass(slots=True)
class Watched:
    """A page with what went wrong on it."""

    page: Page
    base: str
    problems: list[str] = field(default_factory=list)
    expected: tuple[str, ...] = ()
    transferred: list[tuple[str, float]] = field(default_factory=list)

    def open(self, path: str) -> Page:
        self.page.goto(self.base + path)
        return self.page

    def check(self) -> None:
        """Fail on anything that must never happen."""
        self.problems += [f"policy: {v}" for v in self.page.evaluate("window.__csp || []")]
        unexpected = [p for p in self.problems if not any(e in p for e in self.expected)]
        assert not unexpected, unexpected


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server over the seeded month, in a process of its own."""
    folder = tmp_path_factory.mktemp("served")
    script = Path(__file__).with_name("serve_month.py")
    process = subprocess.Popen([sys.executable, str(script), str(folder / "t.db"), str(folder / "port")])
    try:
        deadline = time.monotonic() + 60
        base = ""
        while time.monotonic() < deadline and process.poll() is None:
            port = folder / "port"
            if port.exists() and port.read_text():
                base = f"http://127.0.0.1:{port.read_text()}"
                try:
                    httpx.get(base + "/health", trust_env=False)
                    break
                except httpx.TransportError:
                    pass
            time.sleep(0.1)
        assert base, "the server did not start"
        yield base
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """One browser for all tests."""
    if not Path(CHROMIUM).exists():
        if os.environ.get("CI"):
            pytest.fail(f"Chromium is needed in CI and is not at {CHROMIUM}: apt-get install chromium")
        pytest.skip(f"no Chromium at {CHROMIUM}: install Debian's chromium or set CHROMIUM")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGS)
        yield browser
        browser.close()


def watched(chromium: Browser, served: str, **options: Any) -> tuple[BrowserContext, Watched]:
    """A page in a context of its own; a foreign zone and language expose formatting done by the browser."""
    given = {
        "timezone_id": "America/Los_Angeles",
        "locale": "de-DE",
        "viewport": {"width": 1440, "height": 900},
        **options,
    }
    context = chromium.new_context(**given)
    context.add_init_script(WATCH)
    page = context.new_page()
    page.set_default_timeout(8000)
    found = Watched(page, served)
    page.on(
        "console",
        lambda m: found.problems.append(f"console: {m.text} {m.location}") if m.type == "error" else None,
    )
    page.on("pageerror", lambda e: found.problems.append(f"script: {e}"))

    def refuse(dialog: Dialog) -> None:
        found.problems.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    page.on("dialog", refuse)
    page.on(
        "request",
        lambda r: (
            found.problems.append(f"off host: {r.url}")
            if not r.url.startswith((served, "data:", "blob:"))
            else None
        ),
    )
    return context, found


@pytest.fixture
def tab(chromium: Browser, served: str) -> Iterator[Watched]:
    """A watched page at 1440 px; what went wrong fails the test at its end."""
    context, found = watched(chromium, served)
    yield found
    found.check()
    context.close()
