"""How the code reads: size, excuses, promises (CONTRIBUTING.md)."""

import re
import subprocess
import sys

import pytest
from tests.architecture.source import EVERYTHING, PACKAGE, ROOT, SOURCES, name
from tests.waiting import PATIENCE

_EXCUSE = re.compile(r"#\s*(?P<kind>noqa|type:\s*ignore|pragma: no (?:cover|branch))(?P<rest>.*)")
_NOQA = re.compile(r":\s*[A-Z]+[0-9]+(?:,\s*[A-Z]+[0-9]+)*(?:\s+\(.+|\s+-+ \S.*)?")
_IGNORE = re.compile(r"\[[a-z-]+(?:,\s*[a-z-]+)*\](?:\s+#.+)")
# The banned modules that not even a fresh interpreter has loaded before it imports anything.
BANNED = {
    "asyncio",
    "ctypes",
    "logging",
    "secrets",
    "socket",
    "ssl",
    "_ssl",
    "_socket",
    "sqlite3",
    "cffi",
    "_cffi_backend",
}


def test_an_excuse_names_its_rule() -> None:
    bad = []
    for path in EVERYTHING:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            match = _EXCUSE.search(line)
            if match is None or "re.compile" in line:
                continue
            rest = match["rest"]
            fits = {"n": _NOQA, "t": _IGNORE, "p": re.compile(r"\s*\(.+\)")}[match["kind"][0]].match(rest)
            if not fits:
                bad.append(f"{name(path)}:{number}: {line.strip()}")
    assert bad == []


def test_an_excuse_in_the_package_has_a_reason() -> None:
    bad = []
    for path in SOURCES:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            match = _EXCUSE.search(line)
            if match is not None and not re.search(r"\(.{2,}|[-#] \S.{2,}", match["rest"]):
                bad.append(f"{name(path)}:{number}: {line.strip()}")
    assert bad == []


def test_nothing_is_left_to_do_without_a_number() -> None:
    # Written in two halves, so that this file may be searched too.
    word = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME)\b(?!\(#[0-9]+\))")
    assert [name(path) for path in EVERYTHING if word.search(path.read_text())] == []


@pytest.mark.programs
@pytest.mark.parametrize(("layer", "allowed"), [("xks", set()), ("policy", set()), ("audit", {"_cffi_backend"})])
def test_a_pure_layer_is_pure(layer: str, allowed: set[str]) -> None:
    """A fresh interpreter that imports it has loaded nothing that does I/O, takes the time or makes threads.

    `os`, `time` and `threading` cannot be told so: Python itself, or msgspec and functools, load them. The
    import contracts in pyproject.toml forbid those by name. `audit` verifies signatures with cryptography,
    which loads `_cffi_backend`.
    """
    modules = [f"holdfast.{layer}.{path.stem}" for path in (PACKAGE / layer).glob("*.py") if path.stem != "__init__"]
    loaded = _loaded_by(modules)
    assert set(modules) <= loaded
    assert not loaded & BANNED - allowed
    assert {module for module in loaded if module.startswith("holdfast.")} <= {
        f"holdfast.{layer}",
        "holdfast._version",
        *modules,
    }


@pytest.mark.programs
def test_without_policies_nobody_pays_for_their_engine() -> None:
    """Neither a worker nor a command loads cedarpy until there is a policy file."""
    loaded = _loaded_by(
        ["holdfast.gateway.worker.worker", "holdfast.gateway.supervisor.supervisor", "holdfast.cli.keystore"]
    )
    assert "holdfast.policy.policies" in loaded
    assert "cedarpy" not in loaded


@pytest.mark.programs
def test_only_who_reads_a_configuration_pays_for_pydantic() -> None:
    """A worker is sent the settings, and help needs none."""
    loaded = _loaded_by(
        ["holdfast.gateway.worker.worker", "holdfast.gateway.supervisor.supervisor", "holdfast.cli.config"]
    )
    assert "holdfast.config.load" in loaded
    assert "pydantic" not in loaded


def _loaded_by(modules: list[str]) -> set[str]:
    """What importing these modules loads in a fresh interpreter."""
    program = (
        "import sys, msgspec; before = set(sys.modules)\n"
        + "".join(f"import {module}\n" for module in modules)
        + "print(*sorted(set(sys.modules) - before))"
    )
    output = subprocess.run(
        [sys.executable, "-S", "-c", program],
        check=True,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={"PYTHONPATH": ":".join([str(ROOT / "src"), *sys.path])},
    )
    return set(output.stdout.split())


def test_nobody_changes_the_catalog_past_its_one_road() -> None:
    """`Catalog.changing` is called by the runner of changes, and for what nodes find out themselves."""
    callers = {name(path) for path in SOURCES if ".changing(" in path.read_text()}
    assert callers == {"src/holdfast/control/runner.py", "src/holdfast/store/findings.py"}


@pytest.mark.programs
def test_the_import_contracts_hold() -> None:
    result = subprocess.run(
        [str(ROOT / ".venv/bin/lint-imports"), "--no-logo"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert result.returncode == 0, result.stdout


def test_there_is_a_changelog_with_something_in_it() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    assert re.search(r"^## \[?(?:Unreleased|[0-9]+\.)", text, re.MULTILINE)
    assert re.search(r"^- \S", text, re.MULTILINE)
