"""Who is told of an alert, how often, and which addresses are never called."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from tierlight_collector.decisions import Alert, AlertMute, Severity
from tierlight_collector.stores import open_store
from tierlight_collector.stores.protocol import Store
from tierlight_dashboard.notify import Email, Notifier, Slack, Webhook, described, heading, signature
from tierlight_dashboard.outbound import OutboundRefused, checked_target, post
from tierlight_dashboard.watch import TickReport

NOW = 1_800_000_000_000_000_000
ALERT = Alert(
    id=7,
    kind="quality",
    signal="quality:right",
    scope="route",
    route="answer",
    model="gpt-4",
    severity="page",
    state="open",
    opened_ns=NOW,
    resolved_ns=None,
    change_ns=NOW,
    change_from_ns=NOW,
    change_to_ns=NOW,
    before=0.84,
    after=0.51,
    effect_low=-0.5,
    effect_high=-0.2,
    unit="share",
    calls_since_change=30,
    log_evidence=9.0,
    log_threshold=8.0,
    sentence="Quality (right) of answer: 51.0 %, was 84.0 %.",
)


def public(host: str, port: int) -> Sequence[str]:
    return ["93.184.216.34"]


class Receiver:
    """Keeps what was posted; answers as told."""

    def __init__(self, status: int = 200) -> None:
        self.status = status
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return httpx.Response(self.status, headers={"Location": "http://127.0.0.1/"}, content=b"x" * 100_000)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(f"sqlite:///{tmp_path / 'store.db'}", now_ns=lambda: NOW)
    yield opened
    opened.close()


def webhook(receiver: Receiver, secret: str = "", least: Severity = "ticket") -> Webhook:
    return Webhook(
        "https://hooks.example/t?k=1",
        resolver=public,
        transport=httpx.MockTransport(receiver),
        secret=secret,
        least=least,
    )


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.9.1",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1%eth0",
        "fc00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "not an address",
    ],
)
def test_special_addresses_are_refused(address: str) -> None:
    with pytest.raises(OutboundRefused, match="public address"):
        checked_target("https://hooks.example/x", lambda host, port: [address])


def test_one_special_address_among_public_ones_is_enough_to_refuse() -> None:
    with pytest.raises(OutboundRefused):
        checked_target("https://hooks.example/x", lambda host, port: ["93.184.216.34", "127.0.0.1"])


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://a.example/",
        "gopher://a.example/",
        "https://a@b.example/",
        "http:///x",
        "//x",
    ],
)
def test_other_schemes_user_names_and_missing_hosts_are_refused(url: str) -> None:
    with pytest.raises(OutboundRefused):
        checked_target(url, public)


def test_a_name_that_does_not_resolve_is_refused() -> None:
    def nowhere(host: str, port: int) -> Sequence[str]:
        raise OSError("unknown")

    with pytest.raises(OutboundRefused, match="does not"):
        checked_target("https://hooks.example/", nowhere)


def test_the_configuration_may_allow_a_host_of_the_house() -> None:
    target = checked_target("http://chat.local:8065/h", lambda host, port: ["10.0.0.5"], ["chat.local"])
    assert (target.url, target.host) == ("http://10.0.0.5:8065/h", "chat.local")


def test_the_connection_goes_to_the_address_that_was_checked() -> None:
    receiver, asked = Receiver(), []

    def once(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return ["93.184.216.34"] if len(asked) == 1 else ["127.0.0.1"]

    status = post(
        "https://hooks.example/t", b"{}", {}, resolver=once, transport=httpx.MockTransport(receiver)
    )
    (request,) = receiver.requests
    assert status == 200
    assert asked == ["hooks.example"]
    assert request.url.host == "93.184.216.34"
    assert request.headers["host"] == "hooks.example"
    assert request.extensions["sni_hostname"] == "hooks.example"


def test_a_redirect_is_not_followed(store: Store) -> None:
    receiver = Receiver(302)
    assert Notifier(store, [webhook(receiver)]).tell(TickReport(opened=(ALERT,)), NOW) == 0
    assert len(receiver.requests) == 1


def test_webhook_bodies_are_signed_over_time_and_body(store: Store) -> None:
    receiver = Receiver()
    Notifier(store, [webhook(receiver, secret="s3")], "http://127.0.0.1:4319").tell(
        TickReport(opened=(ALERT,)), NOW
    )
    (request,) = receiver.requests
    body = request.content
    at = NOW // 1_000_000_000
    digest = hmac.new(b"s3", f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    assert request.headers["x-tierlight-signature"] == f"t={at},v1={digest}" == signature("s3", at, body)
    sent = json.loads(body)
    assert (sent["event"], sent["id"], sent["sentence"]) == ("opened", 7, ALERT.sentence)
    assert sent["link"] == "http://127.0.0.1:4319/alerts?state=all#alert-7"


def test_an_alert_is_told_once_also_after_a_restart(store: Store) -> None:
    receiver = Receiver()
    report = TickReport(opened=(ALERT,))
    notifier = Notifier(store, [webhook(receiver)])
    assert notifier.tell(report, NOW) == 1
    assert notifier.tell(report, NOW) == 0
    assert Notifier(store, [webhook(receiver)]).tell(report, NOW) == 0
    assert len(receiver.requests) == 1


def test_a_rise_of_severity_and_the_end_are_told(store: Store) -> None:
    receiver = Receiver()
    notifier = Notifier(store, [webhook(receiver)])
    notifier.tell(TickReport(opened=(replace(ALERT, severity="ticket"),)), NOW)
    notifier.tell(TickReport(worsened=(ALERT,)), NOW)
    notifier.tell(TickReport(resolved=(replace(ALERT, state="resolved", resolved_ns=NOW + 1),)), NOW)
    assert [json.loads(r.content)["event"] for r in receiver.requests] == ["opened", "worsened", "resolved"]


def test_a_channel_hears_only_what_is_grave_enough(store: Store) -> None:
    receiver = Receiver()
    notifier = Notifier(store, [webhook(receiver, least="page")])
    assert notifier.tell(TickReport(opened=(replace(ALERT, severity="ticket"),)), NOW) == 0


def test_mutes_and_snoozes_silence_a_route_or_signal(store: Store) -> None:
    receiver = Receiver()
    notifier = Notifier(store, [webhook(receiver)])
    store.set_mute(AlertMute("answer", "quality:right", NOW + 10, "ada"))
    assert notifier.tell(TickReport(opened=(ALERT,)), NOW) == 0
    assert notifier.tell(TickReport(opened=(replace(ALERT, id=8),)), NOW + 10) == 1
    store.set_mute(AlertMute("answer", "", None, "ada"))
    assert notifier.tell(TickReport(opened=(replace(ALERT, id=9),)), NOW + 10) == 0
    assert notifier.tell(TickReport(opened=(replace(ALERT, id=10, route="other"),)), NOW + 10) == 1


def test_a_failed_delivery_is_tried_again(store: Store) -> None:
    receiver = Receiver(503)
    notifier = Notifier(store, [webhook(receiver)])
    assert notifier.tell(TickReport(opened=(ALERT,)), NOW) == 0
    receiver.status = 204
    assert notifier.tell(TickReport(), NOW) == 1
    assert notifier.tell(TickReport(), NOW) == 0


def test_markup_in_a_route_name_stays_text_for_slack(store: Store) -> None:
    receiver = Receiver()
    channel = Slack("https://hooks.example/s", resolver=public, transport=httpx.MockTransport(receiver))
    Notifier(store, [channel]).tell(TickReport(opened=(replace(ALERT, route="<!channel> & co"),)), NOW)
    text = json.loads(receiver.requests[0].content)["text"]
    assert "&lt;!channel&gt; &amp; co" in text
    assert "<!channel>" not in text


def test_the_heading_says_what_of_whom() -> None:
    assert heading("opened", ALERT) == "[tierlight page] quality:right of answer"
    assert heading("resolved", replace(ALERT, route="")) == "[tierlight resolved] quality:right of gpt-4"


def test_a_test_goes_to_every_channel_whatever_it_asked_for_and_is_logged(store: Store) -> None:
    good, bad = Receiver(), Receiver(500)
    channels = [webhook(good, least="page"), replace(webhook(bad), name="broken")]
    notifier = Notifier(store, channels, "http://127.0.0.1:4319")
    assert notifier.test(NOW) == 1
    assert json.loads(good.requests[0].content)["event"] == "test"
    entries = [(e.action, e.subject, e.detail) for e in store.audit() if e.who == "notify"]
    assert ("told", "webhook", "[tierlight test] notifications work") in entries
    (failed,) = [detail for action, subject, detail in entries if (action, subject) == ("not told", "broken")]
    assert failed.endswith("expected broken to answer 2xx, got 500")
    assert not any("hooks.example" in detail or "k=1" in detail for _, _, detail in entries)
    notifier.tell(TickReport(), NOW + 1)
    assert len(bad.requests) == 1, "a test is not tried again"


def test_a_failure_that_goes_on_leaves_one_entry(store: Store) -> None:
    notifier = Notifier(store, [webhook(Receiver(503))])
    notifier.tell(TickReport(opened=(ALERT,)), NOW)
    for later in range(1, 5):
        notifier.tell(TickReport(), NOW + later)
    assert [e.action for e in store.audit() if e.who == "notify"] == ["not told"]


def test_a_channel_is_described_without_its_secrets() -> None:
    hook = Webhook("https://hooks.example/services/T0/SECRET", secret="s3cret", least="page")
    assert described(hook) == "webhook: hooks.example, page, signed"
    mail = Email("smtp.example", "a@b.example", ("x@b.example",), password="pw")
    assert described(mail) == "email: 1 by smtp.example, page"
