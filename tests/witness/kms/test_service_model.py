"""Every operation of AWS's service model is served, and raises only what the model lists for it."""

import json
from dataclasses import dataclass
from typing import Any

import pytest
from botocore.exceptions import ClientError
from botocore.model import ListShape, MapShape, Shape, StructureShape
from tests.witness.kms.clients import LocalKms, connected_store, create_store, external_key

from holdfast.witness.kms.api import OPERATIONS
from holdfast.witness.kms.errors import COMMON
from holdfast.witness.kms.service_model import errors_of, service_model

_MODEL = service_model()
_NAMES = sorted(_MODEL.operation_names)
_UNKNOWN = "1234abcd-12ab-34cd-56ef-1234567890ab"


def _input(operation: str) -> StructureShape:
    shape = _MODEL.operation_model(operation).input_shape
    assert shape is not None
    return shape


def minimal(shape: Shape) -> Any:
    """The smallest value that the model allows."""
    match shape:
        case StructureShape():
            return {name: minimal(shape.members[name]) for name in shape.required_members}
        case ListShape():
            return [minimal(shape.member)]
        case MapShape():
            return {}
    if "enum" in shape.metadata:
        return shape.metadata["enum"][0]
    scalars = {"blob": b"x", "integer": shape.metadata.get("min", 1), "boolean": False}
    if shape.type_name in scalars:
        return scalars[shape.type_name]
    return {"AliasNameType": "alias/a", "PrincipalIdType": "arn:aws:iam::111122223333:root"}.get(
        shape.name, "x" * max(shape.metadata.get("min", 1), 1)
    )


def sent(kms: Any, operation: str, **changes: Any) -> str:
    """`ok`, or the exception that the operation ends with, which the service model must list."""
    method = next(python for python, wire in kms.meta.method_to_api_mapping.items() if wire == operation)
    parameters = {**minimal(_input(operation)), **_RIGHT.get(operation, {}), **changes}
    try:
        getattr(kms, method)(**parameters)
    except ClientError as error:
        code: str = error.response["Error"]["Code"]
        assert code in errors_of(operation) | COMMON, f"{operation} does not list {code}"
        return code
    return "ok"


_RIGHT: dict[str, dict[str, Any]] = {
    "CreateGrant": {"GranteePrincipal": "arn:aws:iam::111122223333:role/r", "Operations": ["Encrypt"]},
    "GenerateDataKey": {"KeySpec": "AES_256"},
    "GenerateDataKeyPair": {"KeyPairSpec": "ECC_NIST_P256"},
    "GenerateDataKeyPairWithoutPlaintext": {"KeyPairSpec": "ECC_NIST_P256"},
    "GenerateDataKeyWithoutPlaintext": {"KeySpec": "AES_256"},
    "PutKeyPolicy": {
        "Policy": json.dumps({"Statement": {"Effect": "Allow", "Principal": "*", "Action": "kms:*", "Resource": "*"}})
    },
    "ReplicateKey": {"ReplicaRegion": "eu-west-1"},
    "UpdatePrimaryRegion": {"PrimaryRegion": "eu-west-1"},
    "TagResource": {"Tags": [{"TagKey": "a", "TagValue": "b"}]},
}
"""What the model alone does not say of a right request."""


def test_every_operation_is_served() -> None:
    assert set(OPERATIONS) == set(_NAMES)


@pytest.mark.parametrize("operation", _NAMES)
def test_an_operation_raises_only_what_the_model_lists(kms: Any, operation: str) -> None:
    """The same requests for all: the smallest, and each with one member that is wrong."""
    members = _input(operation).members
    sent(kms, operation)
    wrong: dict[str, list[Any]] = {
        "KeyId": [
            "arn:aws:kms:nonsense",
            f"arn:aws:kms:us-east-1:111122223333:key/{_UNKNOWN}",
            _UNKNOWN,
            "alias/none",
        ],
        "TargetKeyId": ["arn:aws:kms:nonsense", _UNKNOWN, "alias/none"],
        "DestinationKeyId": ["arn:aws:kms:nonsense", _UNKNOWN, "alias/none"],
        "GrantTokens": [["x"]],
        "GrantToken": ["x"],
        "Marker": ["x"],
        "PolicyName": ["other"],
        "Policy": ["{}"],
        "Recipient": [{"AttestationDocument": b"x"}],
        "CustomKeyStoreId": ["cks-00000000000000000"],
        "AliasName": ["alias/aws/s3", "none"],
        "CustomKeyStoreType": ["AWS_CLOUDHSM"],
    }
    for name in sorted(set(wrong) & set(members)):
        for value in wrong[name]:
            sent(kms, operation, **{name: value})


@dataclass
class KeyUnderTest:
    """A key with a blob, a grant and an alias made while it was enabled."""

    id: str
    blob: bytes
    grant: str

    @classmethod
    def of(cls, kms: Any, key: str) -> "KeyUnderTest":
        """Makes blob, grant and aliases."""
        kms.create_alias(AliasName="alias/of-it", TargetKeyId=key)
        kms.create_alias(AliasName="alias/of-another", TargetKeyId=kms.create_key()["KeyMetadata"]["KeyId"])
        grant = kms.create_grant(KeyId=key, **_RIGHT["CreateGrant"])["GrantId"]
        return cls(key, kms.encrypt(KeyId=key, Plaintext=b"x")["CiphertextBlob"], grant)

    def bring_into(self, kms: Any, state: str) -> None:
        """From whatever state the operation before has left."""
        if kms.describe_key(KeyId=self.id)["KeyMetadata"]["KeyState"] == "PendingDeletion":
            kms.cancel_key_deletion(KeyId=self.id)
        kms.enable_key(KeyId=self.id)
        if state == "Disabled":
            kms.disable_key(KeyId=self.id)
        if state == "PendingDeletion":
            kms.schedule_key_deletion(KeyId=self.id)

    def send(self, kms: Any, operation: str) -> str:
        """What the operation answers for this key; `ok`, or an exception."""
        members = _input(operation).members
        changes: dict[str, Any] = {
            "KeyId": self.id,
            "TargetKeyId": self.id,
            "DestinationKeyId": self.id,
            "CiphertextBlob": self.blob,
            "GrantId": self.grant,
            "AliasName": "alias/of-another" if operation == "UpdateAlias" else "alias/new",
        }
        if operation == "ListGrants":
            del changes["GrantId"]
        if operation in {"RetireGrant", "RevokeGrant"}:
            # Nothing is retired, so that the next operation finds the grant.
            changes["DryRun"] = True
        if operation == "DeleteAlias":
            changes["AliasName"] = "alias/of-it"
        if operation == "CreateAlias":
            kms.delete_alias(AliasName="alias/of-it")
            changes["AliasName"] = "alias/of-it"
        if operation == "Decapsulate":
            del changes["CiphertextBlob"]
        return sent(kms, operation, **{name: value for name, value in changes.items() if name in members})


_D, _K = "DisabledException", "KMSInvalidStateException"
_AWS: dict[str, tuple[str, str, str, str]] = {
    # Operation: the refusal if Enabled, Disabled, PendingDeletion, Unavailable; empty where the state allows it.
    "CancelKeyDeletion": (_K, _K, "", _K),
    "CreateAlias": ("", "", _K, ""),
    "CreateGrant": ("", _D, _K, ""),
    "Decrypt": ("", _D, _K, _K),
    "DescribeKey": ("", "", "", ""),
    "DisableKey": ("", "", _K, ""),
    "DisableKeyRotation": ("", _D, _K, ""),
    "EnableKey": ("", "", _K, ""),
    "EnableKeyRotation": ("", _D, _K, ""),
    "Encrypt": ("", _D, _K, _K),
    "GenerateDataKey": ("", _D, _K, _K),
    "GenerateDataKeyPair": ("", _D, _K, _K),
    "GenerateDataKeyPairWithoutPlaintext": ("", _D, _K, _K),
    "GenerateDataKeyWithoutPlaintext": ("", _D, _K, _K),
    "GenerateMac": ("", _D, _K, ""),
    "GetKeyPolicy": ("", "", "", ""),
    "GetKeyRotationStatus": ("", "", "", ""),
    "GetPublicKey": ("", _D, _K, ""),
    "ListAliases": ("", "", "", ""),
    "ListGrants": ("", "", "", ""),
    "ListKeyPolicies": ("", "", "", ""),
    "ListResourceTags": ("", "", "", ""),
    "PutKeyPolicy": ("", "", "", ""),
    "ReEncrypt": ("", _D, _K, _K),
    "ReplicateKey": ("", _D, _K, ""),
    "RetireGrant": ("", "", "", ""),
    "RevokeGrant": ("", "", "", ""),
    "ScheduleKeyDeletion": ("", "", _K, ""),
    "Sign": ("", _D, _K, ""),
    "TagResource": ("", "", _K, ""),
    "UntagResource": ("", "", _K, ""),
    "UpdateAlias": ("", "", _K, ""),
    "UpdateKeyDescription": ("", "", _K, ""),
    "UpdatePrimaryRegion": ("", _D, _K, ""),
    "Verify": ("", _D, _K, ""),
    "VerifyMac": ("", _D, _K, ""),
}
"""AWS's table "Key states of AWS KMS keys" in the KMS developer guide."""
_STATES = ("Enabled", "Disabled", "PendingDeletion", "Unavailable")
_BY_ORIGIN = {
    "DisableKeyRotation",
    "EnableKeyRotation",
    "GetKeyRotationStatus",
    "ListKeyRotations",
    "RotateKeyOnDemand",
}
"""UnsupportedOperationException for a key in an external key store, whatever its state."""


@pytest.mark.parametrize("state", _STATES[:3])
def test_the_state_of_an_ordinary_key_refuses_what_awss_table_says(kms: Any, state: str) -> None:
    key = KeyUnderTest.of(kms, kms.create_key()["KeyMetadata"]["Arn"])
    for operation, refusals in _AWS.items():
        key.bring_into(kms, state)
        _require_as_in_the_table(key.send(kms, operation), operation, refusals[_STATES.index(state)])


@pytest.mark.parametrize("state", _STATES)
def test_the_state_of_an_external_key_refuses_what_awss_table_says(kms: Any, state: str) -> None:
    store = connected_store(kms)
    key = KeyUnderTest.of(kms, external_key(kms, store))
    if state == "Unavailable":
        kms.disconnect_custom_key_store(CustomKeyStoreId=store)
    for operation, refusals in _AWS.items():
        key.bring_into(kms, state)
        code = key.send(kms, operation)
        if operation in _BY_ORIGIN:
            assert code == "UnsupportedOperationException"
        else:
            _require_as_in_the_table(code, operation, refusals[_STATES.index(state)])


def _require_as_in_the_table(code: str, operation: str, refusal: str) -> None:
    if refusal:
        assert (operation, code) == (operation, refusal)
    else:
        assert code not in {_D, _K, "ValidationException", "NotFoundException"}, (operation, code)


def test_operations_of_other_kinds_of_keys_have_awss_answer(kms: Any) -> None:
    key = kms.create_key()["KeyMetadata"]["Arn"]
    for operation in (
        "Decapsulate",
        "DeriveSharedSecret",
        "Encapsulate",
        "GenerateMac",
        "Sign",
        "Verify",
        "VerifyMac",
    ):
        assert sent(kms, operation, KeyId=key) == "InvalidKeyUsageException"
    for operation in ("GetParametersForImport", "ImportKeyMaterial", "GetPublicKey", "ReplicateKey"):
        assert sent(kms, operation, KeyId=key) == "UnsupportedOperationException"


def test_a_key_store_that_was_never_connected_is_unavailable(local_kms: LocalKms) -> None:
    kms = local_kms.client()
    assert sent(
        kms, "CreateKey", Origin="EXTERNAL_KEY_STORE", CustomKeyStoreId=create_store(kms), XksKeyId="key-0"
    ) == ("CustomKeyStoreInvalidStateException")
