"""What the project promises about itself: names, import rules, documentation, the contents of the wheel."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer.main

import tierlight
import tierlight.testing
from tierlight_collector import metrics
from tierlight_dashboard.cli.commands import app

ROOT = Path(__file__).parents[1]
SOURCES = [path for folder in ("sdk", "collector", "dashboard") for path in (ROOT / folder).rglob("*.py")]


@pytest.mark.parametrize("module", [tierlight, tierlight.testing])
def test_exported_names_are_exactly_all(module: object) -> None:
    names = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and not inspect.ismodule(value) and name != "annotations"
    }
    declared = set(module.__all__) - {"__version__"}  # type: ignore[attr-defined]
    assert declared == names & declared, f"not there: {declared - names}"
    assert names - declared == set(), "public but not in __all__"


def test_import_is_light() -> None:
    """No exporter, price book, HTTP client or server package comes with `import tierlight`."""
    heavy = (
        "opentelemetry.exporter",
        "genai_prices",
        "httpx",
        "httpx2",
        "urllib3",
        "grpc",
        "fastapi",
        "numpy",
    )
    code = f"import sys, tierlight; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_import_contracts_hold() -> None:
    """The layers of pyproject.toml, where import-linter is installed."""
    linter = pytest.importorskip("importlinter.cli", reason="import-linter is in the dev group")
    if not (ROOT / "sdk").is_dir():
        pytest.skip("runs on the checkout")
    assert linter.lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True) == 0


def commands() -> list[tuple[str, object]]:
    """(full name, click command) of every leaf command."""
    found: list[tuple[str, object]] = []

    def walk(name: str, command: object) -> None:
        children = getattr(command, "commands", None)
        if children is None:
            found.append((name, command))
            return
        for word, child in children.items():
            walk(f"{name} {word}".strip(), child)

    walk("", typer.main.get_command(app))
    return found


@pytest.mark.parametrize(("name", "command"), commands())
def test_every_command_and_option_is_documented(name: str, command: object) -> None:
    text = (ROOT / "docs/reference.md").read_text()
    assert f"`tierlight {name}" in text, f"tierlight {name} is not in docs/reference.md"
    for parameter in command.params:  # type: ignore[attr-defined]
        for option in parameter.opts:
            if option.startswith("--"):
                assert f"`{option}" in text, f"{option} of tierlight {name} is not in docs/reference.md"


def test_every_setting_of_configure_is_documented() -> None:
    text = (ROOT / "docs/reference.md").read_text()
    missing = [name for name in inspect.signature(tierlight.configure).parameters if f"`{name}`" not in text]
    assert missing == []


def test_every_metric_is_documented() -> None:
    text = (ROOT / "docs/reference.md").read_text()
    source = inspect.getsource(metrics)
    names = set(re.findall(r"tierlight_[a-z_]+", source)) - {"tierlight_collector"}
    assert {name for name in names if f"`{name}" not in text} == set()


def test_attribute_names_stand_in_one_place() -> None:
    """Our own attribute names are spelled in tierlight.semconv alone."""
    spelled = re.compile(
        r"""["']tierlight\.(?:route|tier|call|cost|attempt|decision|experiment|purpose|outcome)\b"""
    )
    offenders = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in SOURCES
        if path.name != "semconv.py"
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if spelled.search(line) and "getLogger" not in line and "ContextVar" not in line
    ]
    assert offenders == []


def test_long_modules_say_why() -> None:
    """A module over 400 lines carries its reason in a comment that begins with `# Long because`."""
    offenders = [
        str(path.relative_to(ROOT))
        for path in SOURCES
        if (text := path.read_text()).count("\n") > 400 and "# Long because" not in text
    ]
    assert offenders == []


def test_scripts_are_the_ones_the_readme_names() -> None:
    text = (ROOT / "README.md").read_text()
    assert "scripts/demo" in text
    assert "scripts/test" in text


def test_dependencies_of_the_users_process_stay_few() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[<>=\[]", line)[0] for line in project["dependencies"]}
    assert names == {"httpx", "opentelemetry-sdk", "opentelemetry-exporter-otlp", "genai-prices"}
