"""HSMs for the tests: a SoftHSM token with keys of every kind, alone and behind the shim."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar

import pytest
import uvloop
from tests.shim.control import Personality, ShimControl, build, environment

from holdfast.hsm.pkcs11.backend import Pkcs11Hsm
from holdfast.hsm.pkcs11.inspect import Inspector
from holdfast.hsm.port import KeyLocator, KeySession, Timing
from holdfast.hsm.settings import HsmSettings, TokenSelector
from holdfast.xks.secret import Secret

T = TypeVar("T")

SOFTHSM = Path("/usr/lib/softhsm/libsofthsm2.so")
PIN = "marked-pin-7391"
TOKEN = "holdfast"
HEALTH = "health"
KEY = KeyLocator("key-1")
OTHER_KEY = KeyLocator("key-2")
AAD = b"additional data"
TEXT = b"a plaintext"
PROFILES: dict[Personality, str] = {
    "plain": "softhsm2",
    "nshield": "nshield",
    "luna": "luna",
    "cloudhsm": "cloudhsm",
    "silent-zero": "softhsm2",
    "nss-strict": "generic",
    "legacy-40-byte": "softhsm2",
}


@dataclass(frozen=True)
class Site:
    """Files of the test session: a SoftHSM library of its own, the shim around another, a token with keys."""

    softhsm: Path
    wrapped: Path
    shim: Path
    configuration: Path
    control: Path

    def settings(self, **changes: Any) -> HsmSettings:
        """SoftHSM without the shim."""
        plain = HsmSettings(
            "site",
            "softhsm2",
            str(self.softhsm),
            TokenSelector(label=TOKEN),
            HEALTH,
            pin=Secret.of_text(PIN),
            sessions=2,
            environment={"SOFTHSM2_CONF": str(self.configuration)},
        )
        return replace(plain, **changes)

    def shim_settings(
        self, personality: Personality, shim: dict[str, Any] | None = None, **changes: Any
    ) -> HsmSettings:
        """The shim with that personality; `shim` goes to `environment`."""
        nshield = personality == "nshield"
        options: dict[str, Any] = {"token_pin": PIN, "token": TOKEN, "wrapped_module": self.wrapped}
        if nshield:
            options["load_sharing"] = True
        variables = environment(personality, control=self.control, **(options | (shim or {})))
        defaults: dict[str, Any] = {
            "profile": PROFILES[personality],
            "library": str(self.shim),
            "token": TokenSelector(label="loadshared accelerator" if nshield else TOKEN),
            "environment": {"SOFTHSM2_CONF": str(self.configuration), **variables},
            "gcm_parameter_bytes": 40 if personality == "legacy-40-byte" else None,
        }
        return self.settings(**(defaults | changes))


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    folder = tmp_path_factory.mktemp("hsm")
    (folder / "tokens").mkdir()
    configuration = folder / "softhsm2.conf"
    configuration.write_text(f"directories.tokendir = {folder / 'tokens'}\nlog.level = ERROR\n")
    # Another file is another library to the loader, with a state of its own beside whatever else is tested here.
    softhsm, wrapped = (
        shutil.copy(SOFTHSM, folder / name) for name in ("libsofthsm2-alone.so", "libsofthsm2-in-shim.so")
    )
    subprocess.run(
        ["softhsm2-util", "--init-token", "--free", "--label", TOKEN, "--pin", PIN, "--so-pin", PIN],
        env={"SOFTHSM2_CONF": str(configuration)}, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    control = folder / "control"
    site = Site(Path(softhsm), Path(wrapped), build(folder), configuration, control)
    with Inspector(site.settings()) as inspector:
        for label in (HEALTH, "key-1", "key-2"):
            inspector.generate_aes_256(label, b"")
        inspector.generate_aes_256("encrypt-only", b"", usages=("ENCRYPT",))
        inspector.generate_aes_256("decrypt-only", b"", usages=("DECRYPT",))
        session = inspector._open()
        for label, key_id, length in (("aes-128", b"", 16), ("twin", b"\1", 32), ("twin", b"\2", 32)):
            template: dict[int, bytes | bool | int] = {
                0: 4,
                1: True,
                2: True,
                3: label.encode(),
                0x102: key_id,
                0x103: True,
                0x161: length,
            }
            inspector._cryptoki.generate_key(session, 0x1080, template | {0x104: True, 0x105: True})
    return site


@pytest.fixture(scope="session")
def _control(site: Site) -> Iterator[ShimControl]:
    with ShimControl(site.control) as control:
        yield control


@pytest.fixture
def control(_control: ShimControl) -> Iterator[ShimControl]:
    """The shim's faults and counters, reset for each test."""
    _control.reset()
    yield _control
    _control.clear_faults()


Start = Callable[[HsmSettings], Pkcs11Hsm]


@pytest.fixture
def start(control: ShimControl) -> Iterator[Start]:
    """Starts HSMs, and stops them when the test ends."""
    started: list[Pkcs11Hsm] = []

    def begin(settings: HsmSettings) -> Pkcs11Hsm:
        hsm = Pkcs11Hsm(settings, wait_for_token=0.0)
        hsm.start()
        started.append(hsm)
        return hsm

    yield begin
    control.clear_faults()
    for hsm in started:
        hsm.stop()


def call(hsm: Pkcs11Hsm, work: Callable[[KeySession], T], *, seconds: float = 5.0, timing: Timing | None = None) -> T:
    """One `Hsm.run` on an event loop of its own."""

    async def once() -> T:
        return await hsm.run(work, deadline=monotonic() + seconds, timing=timing or Timing())

    return uvloop.run(once())


def encrypt(session: KeySession) -> object:
    """Encrypts TEXT under KEY."""
    return session.encrypt(KEY, TEXT, AAD)


def round_trip(session: KeySession) -> bytes:
    """TEXT, encrypted and decrypted under KEY."""
    return session.decrypt(KEY, session.encrypt(KEY, TEXT, AAD), AAD)
