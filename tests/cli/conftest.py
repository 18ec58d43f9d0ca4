"""Runs the command line in this process, and makes installations for it."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from holdfast.cli import main


@dataclass(frozen=True)
class Result:
    """What a command did: its exit code, its data, its talk."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as JSON."""
        return json.loads(self.out)  # noqa: TID251 (the reader of our own output)

    def ok(self) -> "Result":
        """Itself, after making sure that the command succeeded."""
        assert self.code == 0, self.err
        return self


Run = Callable[..., Result]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Calls `holdfast` with arguments; standard input is not a terminal."""
    for name in ("HOLDFAST_CONFIG", "COLUMNS"):  # pytest-xdist sets the second
        monkeypatch.delenv(name, raising=False)
    environment = dict(os.environ)
    with Path(os.devnull).open() as nothing:
        monkeypatch.setattr("sys.stdin", nothing)

        def call(*arguments: object) -> Result:
            capfd.readouterr()
            code = main([str(argument) for argument in arguments])
            out, err = capfd.readouterr()
            return Result(code, out, err)

        yield call
    # Loading a module sets its environment in the process, as it must.
    os.environ.clear()
    os.environ.update(environment)


@pytest.fixture
def catalog_only(tmp_path: Path, run: Run) -> Path:
    """A configuration whose catalog exists and whose HSM does not: commands on the catalog must not need it."""
    path = tmp_path / "holdfast.toml"
    path.write_text(
        """
[server]
listen = "127.0.0.1:8443"
[tls]
certificate = "no-such.pem"
private_key = "no-such.key"
[hsm.main]
profile = "softhsm2"
library = "/no/such/library.so"
token = { label = "holdfast" }
pin = { file = "no-such-pin" }
health_key = "health"
"""
    )
    run("init", "--config", path).ok()
    return path
