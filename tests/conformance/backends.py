"""The modules that the wire is tested on, each behind a running server."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tests.server.proxy_server import ACCESS_KEY_ID, HSM, PREFIX, SECRET_ACCESS_KEY, ProxyServer
from tests.server.token import HEALTH_KEY
from tests.waiting import PATIENCE

from holdfast.hsm.pkcs11.inspect import Inspector
from holdfast.hsm.settings import HsmSettings, TokenSelector
from holdfast.witness.check.endpoint import Endpoint, ProxyConfiguration
from holdfast.witness.check.session import Session, TestKeys, Trust

if TYPE_CHECKING:
    from tests.shim.control import Personality

SOFTOKN = next(map(str, Path("/usr/lib").glob("*/libsoftokn3.so")), "libsoftokn3.so")
TEST_KEYS = TestKeys("key-1", "encrypt-only", "decrypt-only", "impotent")


@dataclass(frozen=True)
class Backend:
    """`personality` None: without the shim. `known_gaps`: what this backend does not pass, and why."""

    name: str
    title: str
    personality: Personality | None
    known_gaps: dict[str, str]


# What a proxy on loopback, on another port, under a test authority cannot satisfy.
_REHEARSAL = {
    "CONF-04": "the endpoint is localhost, which KMS would not accept",
    "REACH-03": "the port is not 443, since tests run beside each other",
    "CERT-02": "the certificate is a test authority's",
    "TLS-05": "mutual TLS is not in use here; tests/server/test_tls.py shows it",
}
BACKENDS = (
    Backend("softhsm", "SoftHSM 2.6.1", None, _REHEARSAL),
    Backend("nshield", "the shim as nShield (emulated, not verified on hardware)", "nshield", _REHEARSAL),
    Backend("luna", "the shim as Luna (emulated, not verified on hardware)", "luna", _REHEARSAL),
    Backend("cloudhsm", "the shim as CloudHSM (emulated, not verified on hardware)", "cloudhsm", _REHEARSAL),
    Backend("nss", "NSS softokn, a second real module", None, _REHEARSAL),
)


def server_of(backend: Backend, directory: Path, tokens: Path, shim_library: Path) -> ProxyServer:
    """A server of the backend, not started yet."""
    library = None if backend.personality is None else shim_library
    server = ProxyServer(directory, tokens, personality=backend.personality, library=library)
    if backend.name == "nss":
        database = directory / "nss"
        database.mkdir()
        subprocess.run([sys.executable, "-m", __name__, str(database)], check=True, timeout=PATIENCE)
        table = server.settings["hsm"][HSM]
        del table["pin"]
        table |= {
            "profile": "generic",
            "library": SOFTOKN,
            "token": {"label": "NSS Certificate DB"},
            "initialize_string": _initialize_string(str(database)),
        }
        server.write_config()
    return server


def session_with(server: ProxyServer) -> Session:
    """What `holdfast check` would use against the server."""
    configuration = server.directory / "xks-proxy.json"
    credential = {
        "AccessKeyId": str(ACCESS_KEY_ID),
        "RawSecretAccessKey": SECRET_ACCESS_KEY.reveal().decode(),
    }
    document = {"XksProxyUriPath": f"{PREFIX}/kms/xks/v1", "XksProxyAuthenticationCredential": credential}
    configuration.write_text(json.dumps(document))
    endpoint = Endpoint.parse(server.url, ProxyConfiguration.read(configuration))
    trust = Trust(ca=str(server.authority.certificate))
    return Session(endpoint, TEST_KEYS, trust, lambda: datetime.now(UTC), samples=20, local=True)


def _initialize_string(database: str) -> str:
    return f"configdir='sql:{database}' certPrefix='' keyPrefix='' secmod='' flags=noModDB"


def _make_nss_keys(database: str) -> None:
    subprocess.run(["certutil", "-N", "-d", f"sql:{database}", "--empty-password"], check=True, timeout=PATIENCE)
    settings = HsmSettings(
        "nss",
        "generic",
        SOFTOKN,
        TokenSelector(label="NSS Certificate DB"),
        HEALTH_KEY,
        initialize_string=_initialize_string(database),
    )
    usages = {"encrypt-only": ("ENCRYPT",), "decrypt-only": ("DECRYPT",), "impotent": ()}
    with Inspector(settings) as inspector:
        for label in (HEALTH_KEY, "key-1", "key-2", *usages):
            # NSS takes two secret keys with one CKA_ID for the same key.
            inspector.generate_aes_256(label, label.encode(), usages=usages.get(label, ("ENCRYPT", "DECRYPT")))


if __name__ == "__main__":
    _make_nss_keys(sys.argv[1])
