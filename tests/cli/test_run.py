"""`make run`, as a person uses it: it serves, proves itself, prints a curl line that works, and ends with Ctrl-C."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.ports import free_ports
from tests.waiting import PATIENCE

_ROOT = Path(__file__).parents[2]
_LAST_LINE = "Holdfast is running; Ctrl-C stops it."

pytestmark = pytest.mark.server


class Run:
    """scripts/run.sh as a terminal has it: in a process group of its own, and SIGINT ends it.

    Where the tests themselves run in the background SIGINT is ignored, and a shell cannot trap what it inherits so.
    """

    def __init__(self, directory: Path) -> None:
        self.process = subprocess.Popen(
            ["env", "--default-signal=INT", _ROOT / "scripts" / "run.sh"],
            cwd=directory.parent,
            env={**os.environ, "HOLDFAST_DEMO": str(directory)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._watchdog = threading.Timer(PATIENCE, self.kill)
        self._watchdog.start()

    def until(self, text: str) -> str:
        """What was said up to a line that holds `text`, or to the end."""
        assert self.process.stdout is not None
        said = []
        for line in self.process.stdout:
            said.append(line)
            if text in line:
                break
        return "".join(said)

    def interrupt(self) -> int:
        """Ctrl-C: the terminal signals the whole group; the exit code."""
        os.killpg(self.process.pid, signal.SIGINT)
        self.until("no such line")
        return self.process.wait(PATIENCE)

    def kill(self) -> None:
        """End what is left of the group."""
        self._watchdog.cancel()
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    """A setup on a free port."""
    directory = tmp_path / "demo"
    (port,) = free_ports(1)
    subprocess.run(
        [sys.executable, "-m", "holdfast", "init", "--directory", str(directory), "--port", str(port)],
        check=True,
        capture_output=True,
        timeout=PATIENCE,
    )
    return directory


@pytest.fixture
def started(demo: Path) -> Iterator[Run]:
    run = Run(demo)
    yield run
    run.kill()


def printed_command(said: str, first_word: str) -> str:
    """A command as printed, up to the next empty line."""
    return said[said.index(f"  {first_word} ") :].partition("\n\n")[0]


def test_it_serves_and_the_printed_curl_line_answers(started: Run, demo: Path) -> None:
    said = started.until(_LAST_LINE)
    assert _LAST_LINE in said, said
    assert "encrypted in" in said
    assert "holdfast: notice: serving HTTPS on 127.0.0.1 port " in said
    done = subprocess.run(
        ["bash", "-c", printed_command(said, "curl")],
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
        cwd="/",
    )
    answer: Any = msgspec.json.decode(done.stdout)
    assert answer == {"keySpec": "AES_256", "keyUsage": ["ENCRYPT", "DECRYPT"], "keyStatus": "ENABLED"}
    secrets = [path.read_text().strip() for path in (demo / "secrets").iterdir()]
    assert not [secret for secret in secrets if secret in said]
    assert started.interrupt() == 0  # so that make reports no error


def test_port_in_use_is_said_at_once(demo: Path) -> None:
    """Not after a minute of waiting for a proxy that has gone."""
    text = (demo / "holdfast.toml").read_text()
    port = int(text.partition("127.0.0.1:")[2].partition('"')[0])
    with socket.create_server(("127.0.0.1", port)):
        run = Run(demo)
        try:
            said = run.until("no such line")
            assert run.process.wait(PATIENCE) == 1
        finally:
            run.kill()
    assert str(port) in said
    assert "did not come up" in said or "stopped at once" in said


def test_a_second_run_does_not_take_the_first_ones_answer_for_its_own(started: Run, demo: Path) -> None:
    """The first has the same certificate and credential, so it would pass the second one's proof."""
    assert _LAST_LINE in started.until(_LAST_LINE)
    second = Run(demo)
    try:
        said = second.until("no such line")
        assert second.process.wait(PATIENCE) == 1
    finally:
        second.kill()
    assert "perhaps another `make run`" in said
    assert _LAST_LINE not in said
    assert started.process.poll() is None
