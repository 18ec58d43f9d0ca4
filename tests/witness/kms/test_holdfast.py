"""The whole path: AWS's clients, the local KMS, `holdfast serve`, and SoftHSM or the shim as the HSM."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aws_encryption_sdk  # type: ignore[import-untyped]  # it has no annotations
import pytest
from aws_encryption_sdk import StrictAwsKmsMasterKeyProvider
from aws_encryption_sdk.exceptions import DecryptKeyError  # type: ignore[import-untyped]  # as above
from botocore.session import Session
from tests.server.proxy_server import ACCESS_KEY_ID, KEYSTORE, PREFIX, SECRET_ACCESS_KEY, ProxyServer
from tests.shim.control import build
from tests.waiting import PATIENCE
from tests.witness.kms.clients import LocalKms, create_store, error_of, external_key, settle

from holdfast.witness.kms.settings import Address
from holdfast.witness.kms_errors import KMS_ERRORS, Failure
from holdfast.xks.errors import ErrorName
from holdfast.xks.types import ExternalKeyId, KeyStatus

pytestmark = pytest.mark.server

ROOT = Path(__file__).resolve().parents[3]
STORE = {
    "XksProxyUriEndpoint": "https://localhost",
    "XksProxyUriPath": f"{PREFIX}/kms/xks/v1",
    "XksProxyAuthenticationCredential": {
        "AccessKeyId": str(ACCESS_KEY_ID),
        "RawSecretAccessKey": SECRET_ACCESS_KEY.reveal().decode(),
    },
}


@dataclass
class WholePath:
    """A connected path from a boto3 client to the HSM, with the ARN of the KMS key over key-1."""

    server: ProxyServer
    local_kms: LocalKms
    kms: Any
    key: str


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SoftHSM token with the keys of tests.server.token.KEYS."""
    directory = tmp_path_factory.mktemp("softhsm")
    subprocess.run([sys.executable, "-m", "tests.server.token", str(directory)], check=True, timeout=PATIENCE)
    return directory


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory, tokens: Path) -> Iterator[ProxyServer]:
    """The proxy over the shim as nShield; it serves the whole module, since starting it is what costs."""
    library = build(tmp_path_factory.mktemp("shim"))
    directory = tmp_path_factory.mktemp("proxy") / "server"
    with ProxyServer(directory, tokens, personality="nshield", library=library) as server:
        yield server


@pytest.fixture
def path(shim: ProxyServer, start: Callable[..., LocalKms]) -> Iterator[WholePath]:
    """The path through a new local KMS; whatever a test broke is mended after it."""
    local_kms = start(ca=shim.authority.certificate, routes={"localhost": Address("127.0.0.1", shim.port)})
    kms = local_kms.client()
    store_id = create_store(kms, **STORE)
    kms.connect_custom_key_store(CustomKeyStoreId=store_id)
    assert settle(kms, store_id)["ConnectionState"] == "CONNECTED"
    yield WholePath(shim, local_kms, kms, external_key(kms, store_id, "key-1"))
    assert shim.shim is not None
    shim.shim.clear_faults()
    shim.eventually(shim.is_ready, within=10, what="the HSM is back")


@contextmanager
def disabled(server: ProxyServer) -> Iterator[None]:
    """key-1 is DISABLED in every worker."""
    catalog, key = server.catalog(), ExternalKeyId.parse("key-1")
    try:
        catalog.set_key_status(KEYSTORE, key, KeyStatus.DISABLED)
        yield
    finally:
        catalog.set_key_status(KEYSTORE, key, KeyStatus.ENABLED)
        catalog.close()


def refusal(path: WholePath, blob: bytes) -> str | None:
    """KMS's words when it does not decrypt; None if it does."""
    try:
        path.kms.decrypt(CiphertextBlob=blob)
    except path.kms.exceptions.KMSInvalidStateException as error:
        return str(error.response["Error"]["Message"])
    return None


def soon(holds: Callable[[], bool]) -> None:
    """A change of the catalog reaches every worker within a second; a busy test machine may take longer."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline


def test_every_operation_goes_through(path: WholePath) -> None:
    kms, context = path.kms, {"purpose": "test"}
    blob = kms.encrypt(KeyId=path.key, Plaintext=b"x" * 4096, EncryptionContext=context)["CiphertextBlob"]
    assert kms.decrypt(CiphertextBlob=blob, EncryptionContext=context)["Plaintext"] == b"x" * 4096
    moved = kms.re_encrypt(CiphertextBlob=blob, SourceEncryptionContext=context, DestinationKeyId=path.key)
    assert kms.decrypt(CiphertextBlob=moved["CiphertextBlob"])["Plaintext"] == b"x" * 4096
    data_key = kms.generate_data_key(KeyId=path.key, KeySpec="AES_256")
    assert kms.decrypt(CiphertextBlob=data_key["CiphertextBlob"])["Plaintext"] == data_key["Plaintext"]


def test_the_request_id_joins_kmss_event_to_the_proxys(path: WholePath) -> None:
    response = path.kms.encrypt(KeyId=path.key, Plaintext=b"x")
    request_id = response["ResponseMetadata"]["RequestId"]
    path.server.eventually(
        lambda: any(event.get("kmsRequestId") == request_id for event in path.server.events()),
        within=5,
        what="the proxy's event",
    )
    event = next(event for event in path.server.events() if event.get("kmsRequestId") == request_id)
    assert (event["kmsKeyArn"], event["kmsOperation"]) == (path.key, "Encrypt")
    assert event["awsPrincipalArn"] == "arn:aws:iam::111122223333:user/alice"


def test_another_encryption_context_is_an_invalid_ciphertext(path: WholePath) -> None:
    """Even on nShield, whose bad tag is only CKR_FUNCTION_FAILED."""
    blob = path.kms.encrypt(KeyId=path.key, Plaintext=b"x", EncryptionContext={"a": "b"})["CiphertextBlob"]
    assert error_of(path.kms.decrypt, CiphertextBlob=blob) == (
        "KMSInvalidStateException",
        KMS_ERRORS[ErrorName.INVALID_CIPHERTEXT].message,
    )


def test_unfit_external_keys_are_refused(path: WholePath) -> None:
    store_id = path.kms.describe_key(KeyId=path.key)["KeyMetadata"]["CustomKeyStoreId"]
    for key, words in (("encrypt-only", "key use"), ("decrypt-only", "key use"), ("aes-128", "key spec")):
        name, message = error_of(external_key, kms=path.kms, store_id=store_id, xks_key_id=key)
        assert name == "XksKeyInvalidConfigurationException"
        assert words in message
    assert (
        error_of(external_key, kms=path.kms, store_id=store_id, xks_key_id="nothing")[0] == "XksKeyNotFoundException"
    )


def test_a_file_is_readable_only_while_the_external_key_is_enabled(
    path: WholePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AWS's Encryption SDK: encrypted with a data key, decrypted, refused while disabled, decrypted again."""
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path.local_kms.settings.credentials))
    monkeypatch.setenv("AWS_PROFILE", "alice")
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", path.local_kms.url)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    provider = StrictAwsKmsMasterKeyProvider(key_ids=[path.key], botocore_session=Session())
    sdk, plain = aws_encryption_sdk.EncryptionSDKClient(), os.urandom(50_000)
    sealed, _ = sdk.encrypt(source=plain, key_provider=provider, encryption_context={"file": "a"})
    assert sdk.decrypt(source=sealed, key_provider=provider)[0] == plain

    def opens() -> bool:
        try:
            return bool(sdk.decrypt(source=sealed, key_provider=provider)[0] == plain)
        except DecryptKeyError:
            return False

    with disabled(path.server):
        soon(lambda: not opens())
    soon(opens)


def test_a_blocked_key_store_is_told_as_the_spec_says(path: WholePath) -> None:
    blob = path.kms.encrypt(KeyId=path.key, Plaintext=b"x")["CiphertextBlob"]
    catalog = path.server.catalog()
    try:
        catalog.set_blocked(KEYSTORE, blocked=True)
        soon(lambda: refusal(path, blob) == KMS_ERRORS[ErrorName.INVALID_STATE].message)
    finally:
        catalog.set_blocked(KEYSTORE, blocked=False)
        catalog.close()
    soon(lambda: refusal(path, blob) is None)


def test_a_hung_hsm_is_told_as_a_timeout_and_the_path_heals(path: WholePath) -> None:
    """The proxy's own, since it gives up before KMS does; on a busy machine KMS may be first."""
    assert path.server.shim is not None
    blob = path.kms.encrypt(KeyId=path.key, Plaintext=b"x")["CiphertextBlob"]
    path.server.shim.hang("C_Decrypt")
    timeouts = (ErrorName.DEPENDENCY_TIMEOUT, Failure.SOCKET_TIMEOUT)
    assert refusal(path, blob) in {KMS_ERRORS[reason].message for reason in timeouts}
    path.server.shim.release()
    path.server.eventually(lambda: refusal(path, blob) is None, within=5, what="decrypts again")


def test_a_restarted_proxy_is_found_again(path: WholePath) -> None:
    """The kept connections are gone; the first request after it succeeds all the same."""
    blob = path.kms.encrypt(KeyId=path.key, Plaintext=b"x")["CiphertextBlob"]
    path.server.stop()
    assert refusal(path, blob) is not None
    path.server.start()
    assert refusal(path, blob) is None


def test_the_demo_tells_its_story() -> None:
    environment = {**os.environ, "COLUMNS": "100"}
    told = subprocess.run(
        [sys.executable, ROOT / "demo" / "story.py"],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
        env=environment,
    )
    assert told.returncode == 0, told.stdout + told.stderr
    assert told.stdout.count("may go home on Friday") == 2
    assert "sensitive, not extractable" in told.stdout
    assert "KMSInvalidStateException" in told.stdout
    assert "the external key store is blocked" in told.stdout
    assert told.stdout.rstrip().splitlines()[-3].startswith("The end")
