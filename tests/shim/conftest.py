"""SoftHSM tokens in temporary folders, and one driver process for each test."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import ExitStack
from typing import TYPE_CHECKING, Protocol

import pytest
from tests.shim.control import Personality, ShimControl, build, environment
from tests.shim.driver import Driver, Module, start

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PIN = "1234"
TOKEN = "holdfast"
CARD = "operators"
SOFTCARD = "softcard"
KEY = "key-1"


class Start(Protocol):
    """Starts a driver process with the shim set up so, and initialises the library."""

    def __call__(
        self, personality: Personality, *, initialize: bool = True, locking: bool = True, **options: object
    ) -> Module:
        """Return the module in its process."""


def _settings(folder: Path) -> dict[str, str]:
    """Point SoftHSM at the tokens in `folder`."""
    configuration = folder / "softhsm2.conf"
    configuration.write_text(f"directories.tokendir = {folder / 'tokens'}\nlog.level = ERROR\n")
    return {"SOFTHSM2_CONF": str(configuration)}


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("shim"))


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory, library: Path) -> Path:
    """Three tokens with one key each, copied for each test because making them is slow."""
    folder = tmp_path_factory.mktemp("softhsm")
    (folder / "tokens").mkdir()
    settings = _settings(folder)
    for label in (TOKEN, CARD, SOFTCARD):
        subprocess.run(
            ["softhsm2-util", "--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", PIN],
            env={**os.environ, **settings}, check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
    with Driver() as driver:
        module = start(driver, library, {**environment("plain"), **settings})
        module.initialize()
        for slot in module.slots():
            if module.token(slot)["label"] not in (TOKEN, CARD, SOFTCARD):
                continue  # SoftHSM always shows one token more, not yet initialised
            session = module.open(slot)
            module.login(session, PIN)
            module.generate_key(session, KEY, private=True)
        module.finalize()
    return folder


@pytest.fixture
def softhsm(tmp_path: Path, prepared: Path) -> dict[str, str]:
    shutil.copytree(prepared / "tokens", tmp_path / "tokens")
    return _settings(tmp_path)


@pytest.fixture
def control(tmp_path: Path) -> Iterator[ShimControl]:
    with ShimControl(tmp_path / "control") as control:
        yield control


@pytest.fixture
def hsm(library: Path, softhsm: dict[str, str], control: ShimControl) -> Iterator[Start]:
    with ExitStack() as processes:

        def begin(
            personality: Personality, *, initialize: bool = True, locking: bool = True, **options: object
        ) -> Module:
            driver = processes.enter_context(Driver())
            chosen = {"control": control, "token_pin": PIN, "token": TOKEN} | options
            settings = environment(personality, **chosen)  # type: ignore[arg-type]  # a test's keywords, passed on
            module = start(driver, library, {**settings, **softhsm})
            if initialize:
                module.initialize(locking=locking)
            return module

        yield begin
