"""What may not leave the process does not: masks, caps, and a mask that fails."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierlight import semconv as s
from tierlight._content import ContentSettings, Frozen, Preparation, rendered
from tierlight._record import FinishedCall
from tierlight._redact import redact

PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA7\nq3T=\n-----END RSA PRIVATE KEY-----"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"


@pytest.mark.parametrize(
    ("secret", "word"),
    [
        ("sk-proj-abcdefghijklmnopqrstuvwxyz", "key"),
        ("sk-ant-api03-abcdefghijklmnop_qrstuv", "key"),
        ("AIzaSyA1234567890abcdefghijklmnopqrstuv", "key"),
        ("ghp_abcdefghijklmnopqrstuvwxyz0123456789", "key"),
        ("AKIAIOSFODNN7EXAMPLE", "key"),
        ("Bearer abcdef0123456789abcdef", "key"),
        (JWT, "jwt"),
        (PEM, "private-key"),
        (PEM[:50], "private-key"),
        ("ada.lovelace+llm@mail.example.co.uk", "email"),
        ("4111 1111 1111 1111", "card"),
        ("5500-0000-0000-0004", "card"),
        ("378282246310005", "card"),
    ],
)
def test_a_secret_is_masked_wherever_it_stands(secret: str, word: str) -> None:
    assert redact(f"before {secret}") == f"before [redacted:{word}]"
    if "PRIVATE" not in secret:
        assert redact(f"({secret}) after") == f"([redacted:{word}]) after"


@pytest.mark.parametrize(
    "text",
    [
        "ask-me-anything about risk-free-investments-2026",
        "order 1234567890123456 of 2026-11-24",
        "4111 1111 1111 1112",
        "3.14159265358979323846",
        "@mention and a@b",
        "AKIA is a prefix",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


@given(st.text(max_size=300))
def test_masking_twice_changes_nothing_more(text: str) -> None:
    assert redact(redact(text)) == redact(text)


@pytest.mark.parametrize(
    "attack", ["a" * 100_000, "a@" * 50_000, "1 " * 50_000, "eyJ" * 30_000, "a." * 50_000 + "@"]
)
def test_hostile_text_is_masked_in_bounded_steps(attack: str) -> None:
    assert len(redact(attack)) <= len(attack) + 20


def prepared(
    contents: dict[str, Any], settings: ContentSettings, message: str = "", **more: str
) -> FinishedCall:
    record = FinishedCall(1, 2, None, "chat m", 0, 1, {"kept": 7, **more}, message=message)
    Preparation(settings, {name: Frozen(value) for name, value in contents.items()}, tuple(more))(record)
    return record


def test_every_text_is_masked_names_and_metadata_and_messages_included() -> None:
    secret = "sk-abcdefghijklmnop1234"
    asked = [
        {
            "role": "user",
            "parts": [
                {"type": "text", "content": secret},
                {"type": "tool_call", "arguments": {secret: [secret, {"deep": secret}]}},
            ],
        }
    ]
    record = prepared(
        {s.GEN_AI_INPUT_MESSAGES: asked}, ContentSettings(), f"error {secret}", note=f"see {secret}"
    )
    assert secret not in repr(record)
    assert record.message == "error [redacted:key]"
    assert record.attributes["note"] == "see [redacted:key]"
    assert record.attributes[s.TIERLIGHT_CONTENT_REDACTED] is True
    assert record.attributes["kept"] == 7


def test_the_user_s_own_mask_runs_after_ours() -> None:
    settings = ContentSettings(redactor=lambda text: text.replace("Ada", "[name]"))
    record = prepared({s.GEN_AI_INPUT_MESSAGES: ["Ada, ada@example.org"]}, settings)
    assert record.attributes[s.GEN_AI_INPUT_MESSAGES] == '["[name], [redacted:email]"]'


@pytest.mark.parametrize("broken", [lambda text: 1 / 0, lambda text: None], ids=["raises", "gives no text"])
def test_a_mask_that_fails_leaves_nothing_unmasked(broken: Any) -> None:
    record = FinishedCall(1, 2, None, "chat m", 0, 1, {"note": "secret", "kept": 7}, message="secret")
    preparation = Preparation(
        ContentSettings(redactor=broken), {s.GEN_AI_INPUT_MESSAGES: Frozen(["secret"])}, ("note",)
    )
    with pytest.raises((ZeroDivisionError, TypeError)):
        preparation(record)
    assert "secret" not in repr(record)
    assert record.attributes == {"kept": 7}


def test_a_long_text_is_cut_by_bytes_and_stays_json() -> None:
    value = [{"role": "user", "parts": [{"type": "text", "content": "ä" * 5_000}]} for _ in range(20)]
    text = rendered(value, 10_000)
    assert len(text.encode()) <= 11_000
    first = json.loads(text)[0]["parts"][0]["content"]
    assert set(first) == {"ä", "…"}
    assert len(first) > 4_500


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=5),
    max_leaves=30,
)


@given(json_values, st.integers(min_value=10, max_value=500))
def test_any_value_is_written_as_json_within_reach_of_its_cap(value: Any, cap: int) -> None:
    text = rendered(Frozen(value).value, cap)
    json.loads(text)
    assert len(text) <= 6 * cap + 200


def test_a_later_change_of_the_messages_does_not_reach_what_was_captured() -> None:
    messages: list[Any] = [{"role": "user", "content": "first"}]
    frozen = Frozen(messages)
    messages[0]["content"] = "changed"
    messages.append({"role": "assistant"})
    assert frozen.value == [{"role": "user", "content": "first"}]


def test_bytes_and_endless_structures_are_named_and_not_copied() -> None:
    endless: list[Any] = []
    endless.append(endless)
    assert Frozen(b"\x00" * 99).value == "<99 bytes>"
    assert "<cut>" in json.dumps(Frozen(endless).value)
    assert len(Frozen(list(range(100_000))).value) <= 5_000
