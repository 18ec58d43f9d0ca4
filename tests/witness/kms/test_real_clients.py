"""AWS's own clients, unchanged: the AWS CLI and the AWS Encryption SDK (boto3 is in every other test)."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import aws_encryption_sdk  # type: ignore[import-untyped]  # it has no annotations
import pytest
from aws_encryption_sdk import CommitmentPolicy, EncryptionSDKClient, StrictAwsKmsMasterKeyProvider
from aws_encryption_sdk.exceptions import DecryptKeyError  # type: ignore[import-untyped]  # as above
from botocore.session import Session
from tests.waiting import PATIENCE
from tests.witness.kms.clients import LocalKms, connected_store, external_key
from tests.witness.kms.xks_proxy import ACCESS_KEY_ID, HOST, SECRET_ACCESS_KEY, XksProxy

from holdfast.xks.encoding import decode_base64
from holdfast.xks.types import KeyStatus


def aws(local_kms: LocalKms, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The AWS CLI as alice."""
    cli = Path(sys.executable).with_name("aws")
    # Version 1 of the CLI fetches a parameter that is a URL, unless it is told not to.
    configuration = local_kms.settings.credentials.with_name("config")
    configuration.write_text("[profile alice]\ncli_follow_urlparam = false\n")
    environment = {
        "PATH": os.environ["PATH"],
        "AWS_SHARED_CREDENTIALS_FILE": str(local_kms.settings.credentials),
        "AWS_PROFILE": "alice",
        "AWS_CONFIG_FILE": str(configuration),
        "AWS_DEFAULT_REGION": local_kms.settings.region,
        "AWS_ENDPOINT_URL_KMS": local_kms.url,
        "AWS_MAX_ATTEMPTS": "1",
        "AWS_PAGER": "",
    }
    return subprocess.run(
        [sys.executable, str(cli), "kms", *arguments, "--output", "text"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )


@pytest.mark.programs
def test_the_aws_cli_creates_a_store_as_the_documentation_says(local_kms: LocalKms, tmp_path: Path, kms: Any) -> None:
    credential = tmp_path / "credential.json"
    credential.write_text(f'{{"AccessKeyId": "{ACCESS_KEY_ID}", "RawSecretAccessKey": "{SECRET_ACCESS_KEY}"}}')
    created = aws(
        local_kms,
        "create-custom-key-store",
        *("--custom-key-store-name", "cli", "--custom-key-store-type", "EXTERNAL_KEY_STORE"),
        *("--xks-proxy-connectivity", "PUBLIC_ENDPOINT", "--xks-proxy-uri-endpoint", f"https://{HOST}"),
        *("--xks-proxy-uri-path", "/one/kms/xks/v1"),
        *("--xks-proxy-authentication-credential", f"file://{credential}"),
    )
    assert created.stderr == ""
    stores = kms.describe_custom_key_stores(CustomKeyStoreName="cli")["CustomKeyStores"]
    assert created.stdout.strip() == stores[0]["CustomKeyStoreId"]


@pytest.mark.programs
def test_the_aws_cli_encrypts_a_file_and_shows_kmss_words(
    local_kms: LocalKms, kms: Any, proxy: XksProxy, tmp_path: Path
) -> None:
    key = external_key(kms, connected_store(kms))
    file = tmp_path / "secret.txt"
    file.write_bytes(b"attack at dawn")
    encrypted = aws(
        local_kms, "encrypt", "--key-id", key, "--plaintext", f"fileb://{file}", "--query", "CiphertextBlob"
    )
    assert encrypted.stderr == ""
    blob = tmp_path / "secret.sealed"
    blob.write_bytes(decode_base64(encrypted.stdout.strip(), "CiphertextBlob"))
    decrypted = aws(local_kms, "decrypt", "--ciphertext-blob", f"fileb://{blob}", "--query", "Plaintext")
    assert decrypted.stdout.strip() == "YXR0YWNrIGF0IGRhd24="
    proxy.keys["key-0"].status = KeyStatus.DISABLED
    refused = aws(local_kms, "decrypt", "--ciphertext-blob", f"fileb://{blob}")
    assert refused.returncode != 0
    assert "KMSInvalidStateException" in refused.stderr
    assert "is not enabled in the external key manager" in refused.stderr


@pytest.fixture
def key_provider(local_kms: LocalKms, kms: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The Encryption SDK's provider for one external key, configured by the environment as an application's is."""
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(local_kms.settings.credentials))
    monkeypatch.setenv("AWS_PROFILE", "alice")
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", local_kms.url)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    key = external_key(kms, connected_store(kms))
    return StrictAwsKmsMasterKeyProvider(key_ids=[key], botocore_session=Session())


@pytest.fixture
def encryption_sdk() -> EncryptionSDKClient:
    return aws_encryption_sdk.EncryptionSDKClient(commitment_policy=CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT)


def test_a_file_is_readable_only_while_the_external_key_is_enabled(
    encryption_sdk: EncryptionSDKClient, key_provider: Any, proxy: XksProxy, tmp_path: Path
) -> None:
    """Encrypted with a data key, decrypted, refused while the key is disabled, decrypted again."""
    plain, sealed, opened = tmp_path / "plain", tmp_path / "sealed", tmp_path / "opened"
    plain.write_bytes(os.urandom(100_000))
    with (
        plain.open("rb") as source,
        sealed.open("wb") as target,
        encryption_sdk.stream(
            mode="e", source=source, key_provider=key_provider, encryption_context={"file": "plain"}
        ) as stream,
    ):
        shutil.copyfileobj(stream, target)

    def open_it() -> bytes:
        with (
            sealed.open("rb") as source,
            opened.open("wb") as target,
            encryption_sdk.stream(mode="d", source=source, key_provider=key_provider) as stream,
        ):
            shutil.copyfileobj(stream, target)
        return opened.read_bytes()

    assert open_it() == plain.read_bytes()
    proxy.keys["key-0"].status = KeyStatus.DISABLED
    with pytest.raises(DecryptKeyError):
        open_it()
    proxy.keys["key-0"].status = KeyStatus.ENABLED
    assert open_it() == plain.read_bytes()
