"""Makes a SoftHSM token with keys; run as `python -m tests.server.token DIRECTORY`, since it loads the library."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from holdfast.hsm.pkcs11 import constants as c
from holdfast.hsm.pkcs11.cryptoki import Cryptoki
from holdfast.hsm.pkcs11.initialise import initialise_token
from holdfast.xks.secret import Secret

LIBRARY = Path("/usr/lib/softhsm/libsofthsm2.so")
TOKEN = "holdfast"
PIN = "1234"
HEALTH_KEY = "holdfast-health"
AUDIT_KEY = "holdfast-audit"
P256 = bytes.fromhex("06082a8648ce3d030107")
"""DER of the curve's object identifier, for CKA_EC_PARAMS."""


@dataclass(frozen=True)
class KeySpec:
    """An AES key to make: its CKA_LABEL, which is its externalKeyId too, and what it may do."""

    label: str
    size: int = 32
    encrypt: bool = True
    decrypt: bool = True


KEYS = (
    KeySpec("key-1"),
    KeySpec("key-2"),
    KeySpec("encrypt-only", decrypt=False),
    KeySpec("decrypt-only", encrypt=False),
    KeySpec("impotent", encrypt=False, decrypt=False),
    KeySpec("aes-128", size=16),
)
"""Registered in every keystore of a ProxyServer."""


def softhsm_environment(directory: Path) -> dict[str, str]:
    """The environment in which SoftHSM uses the tokens of `directory`."""
    return {"SOFTHSM2_CONF": str(directory / "softhsm2.conf")}


def write_configuration(directory: Path) -> None:
    """SoftHSM's configuration file for the tokens below `directory`."""
    (directory / "tokens").mkdir(parents=True, exist_ok=True)
    (directory / "softhsm2.conf").write_text(f"directories.tokendir = {directory / 'tokens'}\nlog.level = ERROR\n")


def make_token(directory: Path, keys: tuple[KeySpec, ...]) -> None:
    """A token with the health key, `keys`, and the key that signs the audit log."""
    write_configuration(directory)
    environment = softhsm_environment(directory)
    os.environ.update(environment)
    initialise_token(str(LIBRARY), environment, label=TOKEN, so_pin=Secret(b"12345678"), pin=Secret(PIN.encode()))
    module = Cryptoki(str(LIBRARY), environment)
    module.initialize()
    slot = next(slot for slot in module.slots() if module.token_info(slot).label == TOKEN)
    session = module.open_session(slot, read_write=True)
    module.login(session, Secret(PIN.encode()))
    for key in (KeySpec(HEALTH_KEY), *keys):
        module.generate_key(
            session,
            c.CKM_AES_KEY_GEN,
            {
                c.CKA_LABEL: key.label.encode(),
                c.CKA_TOKEN: True,
                c.CKA_PRIVATE: True,
                c.CKA_SENSITIVE: True,
                c.CKA_EXTRACTABLE: False,
                c.CKA_ENCRYPT: key.encrypt,
                c.CKA_DECRYPT: key.decrypt,
                c.CKA_VALUE_LEN: key.size,
                **dict.fromkeys((c.CKA_SIGN, c.CKA_VERIFY, c.CKA_WRAP, c.CKA_UNWRAP), False),
            },
        )
    module.generate_key_pair(
        session,
        c.CKM_EC_KEY_PAIR_GEN,
        public={c.CKA_LABEL: AUDIT_KEY.encode(), c.CKA_TOKEN: True, c.CKA_EC_PARAMS: P256, c.CKA_VERIFY: True},
        private={
            c.CKA_LABEL: AUDIT_KEY.encode(),
            c.CKA_TOKEN: True,
            c.CKA_PRIVATE: True,
            c.CKA_SENSITIVE: True,
            c.CKA_EXTRACTABLE: False,
            c.CKA_SIGN: True,
        },
    )
    module.finalize()


if __name__ == "__main__":
    make_token(Path(sys.argv[1]), KEYS)
