"""Marked secrets through everything that can go wrong: none of them in anything that the server writes."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.server.proxy_server import SECRET_ACCESS_KEY, ProxyServer
from tests.server.token import LIBRARY, PIN, TOKEN, softhsm_environment
from tests.stress.conftest import encrypts, shim_of
from tests.waiting import PATIENCE

from holdfast.xks.encoding import encode_base64
from holdfast.xks.types import Operation

if TYPE_CHECKING:
    from tests.server.client import Caller

pytestmark = pytest.mark.server

PLAINTEXT = b"marked-plaintext-7f3a"
MARKED_PIN = "marked-pin-91c2"
WRONG_PIN = "marked-wrong-pin-55d0"


def forms(secret: bytes) -> list[bytes]:
    """As it is, in hexadecimal, and in Base64 at each of the three alignments."""
    aligned = [encode_base64(secret[skip : skip + (len(secret) - skip) // 3 * 3]).encode() for skip in range(3)]
    return [secret, secret.hex().encode(), *aligned]


@pytest.fixture
def marked(tmp_path: Path, tokens: Path, shim_library: Path) -> ProxyServer:
    """A server, not started, whose token has the marked PIN."""
    server = ProxyServer(
        tmp_path / "server",
        tokens,
        personality="plain",
        library=shim_library,
        tls=False,
        hsm={"probe_interval_s": 1},
        policies='permit(principal, action, resource) unless { principal.arn == "denied" };',
    )
    subprocess.run(
        [
            "pkcs11-tool",
            "--module",
            str(LIBRARY),
            "--token-label",
            TOKEN,
            "--login",
            "--pin",
            PIN,
            "--change-pin",
            "--new-pin",
            MARKED_PIN,
        ],
        env=softhsm_environment(server.directory),
        check=True,
        capture_output=True,
        timeout=PATIENCE,
    )
    (server.directory / "pin").write_text(MARKED_PIN)
    return server


def everything_goes_wrong(server: ProxyServer, caller: Caller) -> bytes:
    """Each kind of failure with marked input; the signature that was sent."""
    shim = shim_of(server)
    sealed = caller.encrypt(PLAINTEXT, PLAINTEXT)
    assert caller.decrypt(sealed, PLAINTEXT).status == 200
    assert caller.decrypt(sealed, b"another AAD").status == 400
    path = caller.path(Operation.ENCRYPT)
    signed = caller.signed(path, PLAINTEXT)
    for body in (
        PLAINTEXT,
        b'{"plaintext":"' + PLAINTEXT + b'"}',
        b'{"' + PLAINTEXT + b'":1,"' + PLAINTEXT + b'":2}',
    ):
        signed = caller.signed(path, body)
        assert caller.request("POST", path, body=body, headers=signed).status == 400
        assert caller.request("POST", path, body=body + b"!", headers=signed).status == 401
    caller.encrypt(PLAINTEXT, encryptionAlgorithm=PLAINTEXT.decode())
    fields = {"plaintext": encode_base64(PLAINTEXT), "encryptionAlgorithm": "AES_GCM"}
    assert caller.call(Operation.ENCRYPT, fields, metadata={"awsPrincipalArn": "denied"}).status == 403
    shim.corrupt_output(True)
    assert caller.encrypt(PLAINTEXT, ciphertextDataIntegrityValueAlgorithm="SHA_256").status == 500
    shim.corrupt_output(False)
    shim.hang()
    assert caller.encrypt(PLAINTEXT).status == 503
    shim.release()
    server.eventually(lambda: encrypts(server), within=5, what="the HSM is back")
    shim.device_lost(needs_reinit=True)
    caller.encrypt(PLAINTEXT)
    caller.decrypt(sealed, PLAINTEXT)
    server.eventually(lambda: not server.is_ready(), within=5, what="/ready says 503")
    shim.device_back()
    server.eventually(lambda: encrypts(server), within=5, what="the HSM is back")
    shim.refuse_login()
    shim.close_sessions()
    server.eventually(lambda: caller.encrypt(PLAINTEXT).status == 500, within=5, what="the PIN is refused")
    return signed["Authorization"].rpartition("=")[2].encode()


def written_by(server: ProxyServer, pids: list[int]) -> dict[str, bytes]:
    """What others may read of a server, by where it is."""
    texts = {name: (server.directory / name).read_bytes() for name in ("events.jsonl", "stderr", "stdout")}
    texts["metrics"] = server.metrics().encode()
    for pid in pids:
        for name in ("cmdline", "environ"):
            texts[f"{name} of {pid}"] = Path(f"/proc/{pid}/{name}").read_bytes()
    return texts


def test_no_marked_secret_is_written_anywhere_whatever_goes_wrong(marked: ProxyServer) -> None:
    with marked as server:
        with server.caller() as caller:
            signature = everything_goes_wrong(server, caller)
        server.write_config(server.config.read_text() + f'\npin = "{WRONG_PIN}"\n')
        server.hangup()
        server.eventually(lambda: "not applied" in server.stderr(), within=5, what="a refused configuration")
        assert server.process is not None
        texts = written_by(server, [server.process.pid, *server.worker_pids()])
        catalog = (server.directory / "catalog.db").read_bytes()
    secrets = (PLAINTEXT, MARKED_PIN.encode(), WRONG_PIN.encode(), SECRET_ACCESS_KEY.reveal(), signature)
    for where, text in (texts | {"the catalog": catalog}).items():
        for secret in secrets:
            assert not [form for form in forms(secret) if form in text], where
    assert len(texts["events.jsonl"].splitlines()) > 10


def test_a_wrong_pin_at_the_start_is_refused_without_being_printed(marked: ProxyServer) -> None:
    (marked.directory / "pin").write_text(WRONG_PIN)
    with pytest.raises(AssertionError, match=r"(?s)ended with 12.*CKR_PIN_INCORRECT") as caught, marked:
        pass
    assert WRONG_PIN not in str(caught.value)
    assert WRONG_PIN not in (marked.directory / "stdout").read_text()
