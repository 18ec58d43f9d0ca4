"""Pipelines over a software HSM, whose faults are scripted, and over SoftHSM through the PKCS#11 backend."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from tests.protocols.xks.proxy import Proxy, keystore_of
from tests.protocols.xks.software_hsm import SoftwareHsm, SoftwareKey
from tests.server.token import HEALTH_KEY, LIBRARY, PIN, TOKEN, softhsm_environment
from tests.waiting import PATIENCE

from holdfast.hsm.pkcs11.backend import Pkcs11Hsm
from holdfast.hsm.settings import HsmSettings, TokenSelector
from holdfast.xks.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def hsm() -> SoftwareHsm:
    both, one = ("ENCRYPT", "DECRYPT"), ("ENCRYPT",)
    usages = {"encrypt-only": one, "decrypt-only": ("DECRYPT",), "impotent": ()}
    names = ("key-1", "key-2", *usages)
    return SoftwareHsm({name: SoftwareKey(secrets.token_bytes(32), usages.get(name, both)) for name in names})


@pytest.fixture
def proxy(hsm: SoftwareHsm) -> Proxy:
    return Proxy(hsm, keystore_of())


@pytest.fixture(scope="session")
def softhsm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pkcs11Hsm]:
    """SoftHSM with the keys of tests.server.token.KEYS."""
    directory = tmp_path_factory.mktemp("operations")
    subprocess.run([sys.executable, "-m", "tests.server.token", str(directory)], check=True, timeout=PATIENCE)
    # Another file is another library to the loader, with a state of its own beside other tests' SoftHSM.
    library = shutil.copy(LIBRARY, directory / "libsofthsm2-operations.so")
    settings = HsmSettings(
        "main",
        "softhsm2",
        str(library),
        TokenSelector(label=TOKEN),
        HEALTH_KEY,
        pin=Secret.of_text(PIN),
        sessions=2,
        environment=softhsm_environment(directory),
    )
    hsm = Pkcs11Hsm(settings)
    hsm.start()
    yield hsm
    hsm.stop()


@pytest.fixture(params=["software", "softhsm"])
def either(request: pytest.FixtureRequest, proxy: Proxy) -> Proxy:
    """The same tests on the software HSM and on SoftHSM, so that neither is trusted alone."""
    return proxy if request.param == "software" else Proxy(request.getfixturevalue("softhsm"), keystore_of())


@pytest.fixture
def real(softhsm: Pkcs11Hsm) -> Proxy:
    return Proxy(softhsm, keystore_of())
