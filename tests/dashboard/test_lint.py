"""Rules that hold for every template and every vendored file."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from tierlight_dashboard.views.assets import HERE, environment

TEMPLATES = sorted((HERE / "templates").rglob("*.html"))
VENDOR = HERE / "static" / "vendor"
SHA256 = {
    "htmx.min.js": "a0abb04f2f45a1f89d1d4844023245537e5e6014c87b144553e0607b4cc32130",
    "hx-sse.min.js": "18ef2761356ec1fe0bb6d92612315b37517a7c1e9856b661c5ae81fef239d103",
    "uplot-1.6.32.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    "uplot-1.6.32.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
}


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda p: p.name)
def test_templates_hold_no_code_no_style_and_no_way_round_escaping(path: Path) -> None:
    text = path.read_text("utf-8")
    assert not re.search(r"\|\s*safe\b|autoescape|Markup\(", text)
    assert not re.search(r"\son\w+\s*=", text), "no on* attribute"
    assert "hx-on" not in text
    assert "js:" not in text
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:)?//", text), "nothing from another host"
    if path.name != "report.html":  # a file for mail, with its style inside and no script
        assert not re.search(r"\sstyle\s*=|<style", text)
    for tag in re.findall(r"<script[^>]*>", text):
        assert "src=" in tag or 'type="application/json"' in tag


def test_autoescape_is_on_and_unknown_names_fail() -> None:
    env = environment({})
    assert env.autoescape is True
    assert env.from_string("{{ x }}").render(x="<b>") == "&lt;b&gt;"
    with pytest.raises(Exception, match="is undefined"):
        env.from_string("{{ nothing }}").render()


def test_every_form_that_changes_something_carries_the_token() -> None:
    for path in TEMPLATES:
        text = path.read_text("utf-8")
        for form in re.findall(r'<form[^>]*method="post".*?</form>', text, flags=re.S):
            assert "csrf_field(" in form, path.name


def test_vendored_files_are_the_published_ones() -> None:
    both = (VENDOR / "htmx-4.0.1-sse.min.js").read_bytes()
    for length in range(len(both)):
        if (
            both[length : length + 2] == b";\n"
            and hashlib.sha256(both[:length]).hexdigest() == SHA256["htmx.min.js"]
        ):
            assert hashlib.sha256(both[length + 2 :]).hexdigest() == SHA256["hx-sse.min.js"]
            break
    else:
        raise AssertionError("htmx and its extension, joined by one semicolon, were expected")
    for name in ("uplot-1.6.32.min.js", "uplot-1.6.32.min.css"):
        assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == SHA256[name]


@pytest.mark.parametrize(("name", "most_kb"), [("app.css", 8), ("app.js", 4), ("plot.js", 4), ("live.js", 2)])
def test_own_files_stay_small(name: str, most_kb: float) -> None:
    import gzip

    assert len(gzip.compress((HERE / "static" / name).read_bytes(), 9)) <= most_kb * 1000
