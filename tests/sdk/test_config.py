"""Arguments before the environment, the environment before the defaults."""

from __future__ import annotations

from typing import Any

import pytest

import tierlight
from tierlight import semconv as s
from tierlight._config import captures_content, export_settings, spool_folder
from tierlight._runtime import active
from tierlight.testing import SequentialIds


def test_the_defaults_send_to_the_local_collector() -> None:
    settings = export_settings({})
    assert settings.endpoint == "http://127.0.0.1:4318"
    assert settings.timeout_s == 1.0
    assert settings.exit_timeout_s == 2.0
    assert settings.resource is not None
    assert settings.resource[s.SERVICE_NAME] == "unknown_service"
    assert settings.resource[s.SERVICE_INSTANCE_ID]


def test_the_otel_variables_are_read() -> None:
    settings = export_settings(
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": "https://collect.example/",
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://traces.example/in",
            "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20abc,x-team=a",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "3",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
            "OTEL_BSP_SCHEDULE_DELAY": "500",
            "OTEL_BSP_MAX_QUEUE_SIZE": "99",
            "OTEL_SERVICE_NAME": "shop",
            "OTEL_RESOURCE_ATTRIBUTES": "service.name=other,service.instance.id=i-1,team=a%2Cb",
        }
    )
    assert settings.endpoint == "https://collect.example"
    assert settings.traces_endpoint == "https://traces.example/in"
    assert settings.headers == {"authorization": "Bearer abc", "x-team": "a"}
    assert (settings.timeout_s, settings.compression) == (3.0, "none")
    assert (settings.schedule_delay_s, settings.max_queue_records) == (0.5, 99)
    assert settings.resource is not None
    assert settings.resource[s.SERVICE_NAME] == "shop"
    assert settings.resource[s.SERVICE_INSTANCE_ID] == "i-1"
    assert settings.resource["team"] == "a,b"


def test_arguments_come_before_the_environment() -> None:
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://env",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://env/traces",
        "OTEL_EXPORTER_OTLP_HEADERS": "a=env",
        "OTEL_SERVICE_NAME": "env",
    }
    settings = export_settings(environ, endpoint="http://arg", headers={"a": "arg"}, service_name="arg")
    assert (settings.endpoint, settings.traces_endpoint) == ("http://arg", "")
    assert settings.headers == {"a": "arg"}
    assert settings.resource is not None
    assert settings.resource[s.SERVICE_NAME] == "arg"


def test_grpc_has_its_own_port() -> None:
    assert export_settings({}, protocol="grpc").endpoint == "http://127.0.0.1:4317"


@pytest.mark.parametrize(
    "wrong",
    [{"endpoint": "localhost:4318"}, {"protocol": "carrier-pigeon"}, {"timeout_s": 0}, {"timeout_s": -1}],
)
def test_an_argument_that_is_not_usable_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(tierlight.ConfigurationError, match=next(iter(wrong))):
        export_settings({}, **wrong)


def test_a_variable_that_is_not_usable_is_told_and_ignored(caplog: pytest.LogCaptureFixture) -> None:
    settings = export_settings({"OTEL_EXPORTER_OTLP_TIMEOUT": "soon", "OTEL_EXPORTER_OTLP_HEADERS": "broken"})
    assert settings.timeout_s == 1.0
    assert settings.headers == {}
    assert len(caplog.records) == 2


@pytest.mark.parametrize(
    ("environ", "spool", "folder"),
    [
        ({"TIERLIGHT_SPOOL": "0"}, True, ""),
        ({"TIERLIGHT_SPOOL": "/var/spool/t"}, True, "/var/spool/t"),
        ({"TIERLIGHT_DATA_DIR": "/data"}, True, "/data/spool"),
        ({"XDG_DATA_HOME": "/home/a/share"}, True, "/home/a/share/tierlight/spool"),
        ({"TIERLIGHT_DATA_DIR": "/data"}, "/own", "/own"),
        ({"TIERLIGHT_DATA_DIR": "/data"}, False, ""),
    ],
)
def test_where_the_spool_is(environ: dict[str, str], spool: Any, folder: str) -> None:
    assert spool_folder(environ, spool) == folder


@pytest.mark.parametrize(
    ("said", "captures"),
    [
        ("", False),
        ("true", True),
        ("SPAN_ONLY", True),
        ("span_and_event", True),
        ("no_content", False),
        ("event_only", False),
    ],
)
def test_content_capture_by_variable(said: str, captures: bool) -> None:
    assert captures_content({"OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": said}) is captures


@pytest.mark.parametrize("variable", [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")])
def test_a_switched_off_sdk_records_nothing(
    monkeypatch: pytest.MonkeyPatch, variable: tuple[str, str]
) -> None:
    monkeypatch.setenv(*variable)
    tierlight.configure()
    assert active() is None


def test_configuring_again_replaces_and_shutdown_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    tierlight.configure(spool=False, endpoint="http://127.0.0.1:9")
    first = active()
    tierlight.configure(spool=False, endpoint="http://127.0.0.1:9", service_name="again")
    assert active() is not first
    assert tierlight.flush(1) is True
    assert tierlight.shutdown(1) is True
    assert active() is None


def test_ids_may_be_counted_so_that_a_run_comes_out_the_same() -> None:
    seen = []
    for _ in range(2):
        tierlight.configure(
            endpoint="http://127.0.0.1:9", spool=False, exit_timeout_s=0.1, ids=SequentialIds()
        )
        with tierlight.route("sort") as call:
            seen.append((call.id, call.trace_id))
    tierlight.shutdown()
    assert seen[0] == seen[1]
