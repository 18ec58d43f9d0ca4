"""A checkpoint signed by a key that never leaves a real token: SoftHSM, driven by OpenSC's pkcs11-tool."""

import shutil
import subprocess
from hashlib import sha256
from pathlib import Path

import pytest
from tests.audit.logs import ORIGIN, entries
from tests.waiting import PATIENCE

from holdfast.audit.keys import SignatureType, VerifierKey, ecdsa_der
from holdfast.audit.verify import verify_log
from holdfast.store.log_directory import LogDirectory, directory_reader

SOFTHSM = "/usr/lib/softhsm/libsofthsm2.so"
PIN = "1234"


@pytest.mark.programs
@pytest.mark.skipif(shutil.which("pkcs11-tool") is None, reason="OpenSC's pkcs11-tool is not installed")
def test_a_log_is_signed_by_a_key_in_a_token(tmp_path: Path) -> None:
    """CKM_ECDSA over our own SHA-256, as every PKCS#11 module can."""
    (tmp_path / "tokens").mkdir()
    (tmp_path / "softhsm2.conf").write_text(f"directories.tokendir = {tmp_path}/tokens\n")

    def token(*arguments: str) -> None:
        subprocess.run(
            ["pkcs11-tool", "--module", SOFTHSM, *arguments],
            check=True,
            capture_output=True,
            timeout=PATIENCE,
            env={"SOFTHSM2_CONF": str(tmp_path / "softhsm2.conf"), "PATH": "/usr/bin:/bin"},
        )

    def sign(message: bytes) -> bytes:
        (tmp_path / "digest").write_bytes(sha256(message).digest())
        files = ("--input-file", str(tmp_path / "digest"), "--output-file", str(tmp_path / "raw"))
        token(*key, "--sign", "--mechanism", "ECDSA", "--signature-format", "rs", *files)
        return ecdsa_der((tmp_path / "raw").read_bytes())

    token("--init-token", "--slot-index", "0", "--label", "audit", "--so-pin", PIN)
    token("--token-label", "audit", "--login", "--login-type", "so", "--so-pin", PIN, "--init-pin", "--new-pin", PIN)
    key = ("--token-label", "audit", "--login", "--pin", PIN, "--id", "01")
    token(*key, "--keypairgen", "--key-type", "EC:prime256v1", "--label", "audit-sign")
    token(*key, "--read-object", "--type", "pubkey", "--output-file", str(tmp_path / "spki"))
    public = VerifierKey(ORIGIN, SignatureType.ECDSA, (tmp_path / "spki").read_bytes())
    with LogDirectory(tmp_path / "log", [(public, sign)]) as log:
        log.append(entries(3))
        log.checkpoint()
    assert verify_log(directory_reader(tmp_path / "log"), [public]).signed.checkpoint.size == 3
