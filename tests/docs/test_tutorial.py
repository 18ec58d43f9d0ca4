"""The tutorial works as printed: its shell blocks are run against a proxy, in order."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.docs.pages import ROOT, blocks
from tests.ports import free_ports
from tests.waiting import PATIENCE

_PAGE = ROOT / "docs/tutorial.md"
_HOLDFAST = Path(sys.executable).with_name("holdfast")


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[int]:
    """What `make run` leaves running, in `tmp_path`; the port."""
    (port,) = free_ports(1)
    _run("init", "--directory", tmp_path / "var/demo", "--port", str(port))
    configuration = tmp_path / "var/demo/holdfast.toml"
    server = subprocess.Popen([_HOLDFAST, "serve", "--config", configuration], stderr=subprocess.DEVNULL)
    try:
        authority = tmp_path / "var/demo/tls/ca.pem"
        _run("prove", "demo", "demo-key", "--config", configuration, "--ca", authority, "--wait", str(int(PATIENCE)))
        yield port
    finally:
        server.terminate()
        server.wait(PATIENCE)


@pytest.mark.server
def test_the_tutorial_runs_as_printed(demo: int, tmp_path: Path) -> None:
    """Every command succeeds, and every JSON answer that the page shows is given, in that order."""
    for program in ("curl", "jq", "ssh-keygen"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    (tmp_path / ".venv").symlink_to(_HOLDFAST.parent.parent)
    shell = [block.text for block in blocks(_PAGE) if block.language == "sh" and "make run" not in block.text]
    script = "set -eu -o pipefail\n" + "".join(shell).replace("8443", str(demo))
    # doctor warns of the local certificate, and says so with its exit code.
    script = script.replace("holdfast doctor\n", "holdfast doctor || [ $? -eq 10 ]\n")
    # However busy this machine is.
    is_signed = 'until holdfast audit prove var/demo/control-log "$change" > /dev/null 2>&1; do sleep 0.5; done'
    script = script.replace("sleep 5 #", f"{is_signed} #")
    command = ["bash", "-c", script]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("a data key\n") == 4
    position = 0
    for block in blocks(_PAGE):
        if block.language == "json":
            position = _squeezed(result.stdout).find(_squeezed(block.text), position)
            assert position >= 0, f"not answered: {block.text}"


def _squeezed(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def _run(*arguments: object) -> None:
    subprocess.run([str(_HOLDFAST), *map(str, arguments)], check=True, capture_output=True, timeout=PATIENCE)
