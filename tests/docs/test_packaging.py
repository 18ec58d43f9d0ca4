"""The systemd unit permits what the proxy does; the sdist holds what is in git, and nothing else."""

import re
import shutil
import subprocess
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
from hatchling.builders.sdist import SdistBuilder
from tests.docs.pages import ROOT
from tests.waiting import PATIENCE

from holdfast.cli.exit_codes import ExitCode
from holdfast.cli.main import load
from holdfast.config.listeners import Server

_UNIT = (ROOT / "packaging/holdfast.service").read_text()


def _settings(name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", _UNIT, re.MULTILINE)


def test_a_worker_may_bind_itself_to_a_cpu() -> None:
    """`sched_setaffinity` belongs to @resources, which an earlier line of the filter takes away."""
    filters = _settings("SystemCallFilter")
    taken = next(number for number, line in enumerate(filters) if line.startswith("~") and "@resources" in line)
    assert "sched_setaffinity" in filters[taken + 1 :]


def test_port_443_without_root() -> None:
    assert _settings("AmbientCapabilities") == ["CAP_NET_BIND_SERVICE"]
    assert _settings("CapabilityBoundingSet") == ["CAP_NET_BIND_SERVICE"]
    assert _settings("User") == ["holdfast"]


def test_the_credential_that_the_unit_loads_is_the_one_that_the_examples_name() -> None:
    """Else a copied example does not start under the unit."""
    loaded = {line.partition(":")[0] for line in _settings("LoadCredential")}
    for example in (ROOT / "examples").glob("*.toml"):
        named = set(re.findall(r'pin = \{ credential = "([^"]+)"', example.read_text()))
        assert named <= loaded, example.name


def test_a_rotation_that_waits_for_approval_is_no_failure_of_its_unit() -> None:
    unit = (ROOT / "packaging/holdfast-rotate.service").read_text()
    assert re.findall(r"^SuccessExitStatus=(.*)$", unit, re.MULTILINE) == [str(ExitCode.PENDING.value)]
    (line,) = re.findall(r"^ExecStart=/opt/holdfast/bin/holdfast (.*)$", unit, re.MULTILINE)
    group, *words = line.split()
    command: Any = load(group)
    while hasattr(command, "commands"):
        command, words = command.commands[words[0]], words[1:]
    command.make_context("holdfast", words).close()


def test_journald_drops_no_line_of_the_event_log() -> None:
    """Its own limit, some 10,000 lines in 30 s, is less than a proxy under load writes."""
    assert _settings("LogRateLimitIntervalSec") == ["0"]


def test_the_unit_has_descriptors_for_the_connections_of_the_default_configuration() -> None:
    connections = signature(Server).parameters["max_connections"].default
    (descriptors,) = map(int, _settings("LimitNOFILE"))
    assert descriptors > connections


def _sdist(root: Path) -> set[str]:
    return {file.relative_path for file in SdistBuilder(str(root)).recurse_included_files()}


def test_the_image_asks_for_its_health_where_the_page_on_containers_opens_it() -> None:
    asked = re.search(r"http://(\S+)/ping", (ROOT / "packaging/Containerfile").read_text())
    opened = re.search(r'^health_listen = "(\S+)"', (ROOT / "docs/how-to/containers.md").read_text(), re.MULTILINE)
    assert asked
    assert opened
    assert asked[1] == opened[1]


@pytest.mark.programs
def test_the_sdist_has_what_is_in_git() -> None:
    """But for the settings of git, docker and CI themselves."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no checkout")
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    tracked = {path for path in listed.stdout.splitlines() if (ROOT / path).exists() and not path.startswith(".")}
    assert tracked - _sdist(ROOT) == set()


@pytest.mark.parametrize(
    "file",
    [
        "sealed.json",
        "prod.json",
        "prod.credential.json",
        "ca.pem",
        "holdfast.toml",
        "notes",
        "secrets/A",
        "var/demo/pin",
    ],
)
def test_a_file_that_a_person_left_in_the_checkout_is_not_published(tmp_path: Path, file: str) -> None:
    for name in ("pyproject.toml", ".gitignore", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    left = tmp_path / file
    left.parent.mkdir(parents=True, exist_ok=True)
    left.write_text("secret")
    assert _sdist(tmp_path) >= {"README.md"}
    assert file not in _sdist(tmp_path)


def test_a_container_is_built_from_named_files_only() -> None:
    """`COPY .` of packaging/Containerfile sends what .dockerignore lets through."""
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert lines[0] == "*"
    assert {line[0] for line in lines[1:-1]} == {"!"}
