"""Rotation, data key pairs, last usage and AWS managed keys. The words are those that AWS was recorded with."""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_private_key,
)
from tests.witness.kms.clients import LocalKms, connected_store, error_of, external_key

from holdfast.witness.kms.records import Key
from holdfast.witness.kms.rotation import MAX_ON_DEMAND
from holdfast.witness.kms.state import State


@pytest.fixture
def key(kms: Any) -> str:
    """An ordinary key's ARN."""
    arn: str = kms.create_key()["KeyMetadata"]["Arn"]
    return arn


def test_rotation_is_off_until_it_is_enabled_and_has_a_period(kms: Any, key: str) -> None:
    """Terraform reads it for each key."""
    assert kms.get_key_rotation_status(KeyId=key)["KeyRotationEnabled"] is False
    kms.enable_key_rotation(KeyId=key)
    assert kms.get_key_rotation_status(KeyId=key)["RotationPeriodInDays"] == 365
    kms.enable_key_rotation(KeyId=key, RotationPeriodInDays=90)
    status = kms.get_key_rotation_status(KeyId=key)
    created = kms.describe_key(KeyId=key)["KeyMetadata"]["CreationDate"]
    assert (status["KeyRotationEnabled"], status["RotationPeriodInDays"]) == (True, 90)
    assert (status["NextRotationDate"] - created).days in {89, 90}
    kms.disable_key_rotation(KeyId=key)
    assert kms.get_key_rotation_status(KeyId=key)["KeyRotationEnabled"] is False


@pytest.mark.parametrize("days", [89, 2561])
def test_a_rotation_period_has_90_to_2560_days(kms: Any, key: str, days: int) -> None:
    assert error_of(kms.enable_key_rotation, KeyId=key, RotationPeriodInDays=days)[0] == "ValidationException"


def test_what_was_encrypted_before_a_rotation_still_decrypts(kms: Any, key: str) -> None:
    blobs = []
    for _ in range(3):
        blobs.append(kms.encrypt(KeyId=key, Plaintext=b"x")["CiphertextBlob"])
        kms.rotate_key_on_demand(KeyId=key)
    assert [kms.decrypt(CiphertextBlob=blob)["Plaintext"] for blob in blobs] == [b"x"] * 3
    rotations = kms.list_key_rotations(KeyId=key)["Rotations"]
    assert [entry["KeyMaterialState"] for entry in rotations] == ["NON_CURRENT", "NON_CURRENT", "CURRENT"]
    assert rotations[-1]["KeyMaterialId"] == kms.describe_key(KeyId=key)["KeyMetadata"]["CurrentKeyMaterialId"]
    assert len(kms.list_key_rotations(KeyId=key, IncludeKeyMaterial="ALL_KEY_MATERIAL")["Rotations"]) == 4


def test_a_key_rotates_on_demand_a_limited_number_of_times(kms: Any, key: str) -> None:
    for _ in range(MAX_ON_DEMAND):
        kms.rotate_key_on_demand(KeyId=key)
    assert error_of(kms.rotate_key_on_demand, KeyId=key)[0] == "LimitExceededException"


@pytest.mark.parametrize(
    "operation",
    [
        "enable_key_rotation",
        "disable_key_rotation",
        "get_key_rotation_status",
        "list_key_rotations",
        "rotate_key_on_demand",
        "get_parameters_for_import",
        "generate_data_key_pair",
    ],
)
def test_what_a_key_in_an_external_key_store_cannot_do_is_refused_for_its_origin(kms: Any, operation: str) -> None:
    key = external_key(kms, connected_store(kms))
    more = {
        "get_parameters_for_import": {"WrappingAlgorithm": "RSAES_OAEP_SHA_256", "WrappingKeySpec": "RSA_2048"},
        "generate_data_key_pair": {"KeyPairSpec": "RSA_2048"},
    }.get(operation, {})
    assert error_of(getattr(kms, operation), KeyId=key, **more) == (
        "UnsupportedOperationException",
        f"{key} origin is EXTERNAL_KEY_STORE which is not valid for this operation.",
    )


def test_import_is_refused_for_the_origin_of_an_ordinary_key(kms: Any, key: str) -> None:
    more = {"WrappingAlgorithm": "RSAES_OAEP_SHA_256", "WrappingKeySpec": "RSA_2048"}
    assert error_of(kms.get_parameters_for_import, KeyId=key, **more) == (
        "UnsupportedOperationException",
        f"{key} origin is AWS_KMS which is not valid for this operation.",
    )


@pytest.mark.parametrize(
    ("operation", "parameters"),
    [
        ("generate_mac", {"Message": b"x", "MacAlgorithm": "HMAC_SHA_256"}),
        ("sign", {"Message": b"x", "SigningAlgorithm": "ECDSA_SHA_256"}),
        ("verify", {"Message": b"x", "SigningAlgorithm": "ECDSA_SHA_256", "Signature": b"x"}),
    ],
)
def test_a_key_of_another_usage_is_refused_in_awss_words(
    kms: Any, key: str, operation: str, parameters: dict[str, Any]
) -> None:
    name = "".join(part.capitalize() for part in operation.split("_"))
    assert error_of(getattr(kms, operation), KeyId=key, **parameters) == (
        "InvalidKeyUsageException",
        f"{key} key usage is ENCRYPT_DECRYPT which is not valid for {name}.",
    )


@pytest.mark.parametrize("spec", ["RSA_2048", "ECC_NIST_P256", "ECC_SECG_P256K1"])
def test_a_data_key_pair_fits_together_and_its_private_key_decrypts(kms: Any, key: str, spec: str) -> None:
    pair = kms.generate_data_key_pair(KeyId=key, KeyPairSpec=spec, EncryptionContext={"a": "b"})
    private = load_der_private_key(pair["PrivateKeyPlaintext"], None)
    assert private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) == pair["PublicKey"]
    blob = pair["PrivateKeyCiphertextBlob"]
    assert kms.decrypt(CiphertextBlob=blob, EncryptionContext={"a": "b"})["Plaintext"] == pair["PrivateKeyPlaintext"]
    without = kms.generate_data_key_pair_without_plaintext(KeyId=key, KeyPairSpec=spec)
    assert "PrivateKeyPlaintext" not in without


def test_the_last_use_of_a_key_is_known(kms: Any, key: str) -> None:
    assert "Operation" not in kms.get_key_last_usage(KeyId=key)["KeyLastUsage"]
    blob = kms.encrypt(KeyId=key, Plaintext=b"x")["CiphertextBlob"]
    assert kms.get_key_last_usage(KeyId=key)["KeyLastUsage"]["Operation"] == "Encrypt"
    kms.decrypt(CiphertextBlob=blob)
    assert kms.get_key_last_usage(KeyId=key)["KeyLastUsage"]["Operation"] == "Decrypt"


def test_describe_key_makes_the_aws_managed_key_of_a_predefined_alias_once(kms: Any) -> None:
    """Terraform asks for it as the default key of a service."""
    metadata = kms.describe_key(KeyId="alias/aws/s3")["KeyMetadata"]
    again = kms.describe_key(KeyId="arn:aws:kms:us-east-1:111122223333:alias/aws/s3")["KeyMetadata"]
    assert (metadata["KeyManager"], metadata["Arn"]) == ("AWS", again["Arn"])
    assert error_of(kms.describe_key, KeyId="alias/aws/no-such-service")[0] == "NotFoundException"


def test_an_aws_managed_key_is_used_only_through_its_service(local_kms: LocalKms) -> None:
    kms, ebs = local_kms.client(), local_kms.client("ebs")
    key = kms.describe_key(KeyId="alias/aws/ebs")["KeyMetadata"]["Arn"]
    for operation, more in (("encrypt", {"Plaintext": b"x"}), ("disable_key", {}), ("schedule_key_deletion", {})):
        assert error_of(getattr(kms, operation), KeyId=key, **more)[0] == "AccessDeniedException"
    assert kms.get_key_rotation_status(KeyId=key)["KeyRotationEnabled"] is True
    assert ebs.encrypt(KeyId=key, Plaintext=b"x")["KeyId"] == key


@pytest.mark.parametrize("named", [f"mrk-{'d' * 32}", "1234abcd-12ab-34cd-56ef-1234567890ab"])
def test_an_unknown_key_is_named_by_its_arn(kms: Any, named: str) -> None:
    assert error_of(kms.describe_key, KeyId=named) == (
        "NotFoundException",
        f"Key 'arn:aws:kms:us-east-1:111122223333:key/{named}' does not exist",
    )


def test_too_many_tags_are_refused_in_awss_words(kms: Any) -> None:
    tags = [{"TagKey": f"t{i}", "TagValue": ""} for i in range(51)]
    assert error_of(kms.create_key, Tags=tags) == ("TagException", "Too many tags")


def test_an_alias_without_its_prefix_is_refused_in_awss_words(kms: Any, key: str) -> None:
    name, message = error_of(kms.create_alias, AliasName="sops-example", TargetKeyId=key)
    assert name == "ValidationException"
    assert message.startswith('Alias must start with the prefix "alias/". Please see https://docs.aws.amazon.com/')
    assert error_of(kms.delete_alias, AliasName="wrongprefix/x") == ("ValidationException", "Invalid identifier")


def test_a_state_file_of_an_earlier_version_is_taken_over(tmp_path: Path, start: Callable[..., LocalKms]) -> None:
    """It lacked the columns of rotation, and the tables of rotations and grants."""
    state = State(tmp_path)
    state.put(Key("1234abcd-12ab-34cd-56ef-1234567890ab", 0.0, "", "{}", bytes(32)))
    state.close()
    database = sqlite3.connect(tmp_path / "kms.sqlite")
    for column in ("rotation_period", "rotation_since", "aws_service"):
        database.execute(f"ALTER TABLE key DROP COLUMN {column}")
    database.execute("DROP TABLE rotation")
    database.execute('DROP TABLE "grant"')
    database.close()
    kms = start(data=tmp_path).client()
    kms.rotate_key_on_demand(KeyId="1234abcd-12ab-34cd-56ef-1234567890ab")
