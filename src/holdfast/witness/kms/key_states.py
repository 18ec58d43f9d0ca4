"""What the state of a KMS key allows: AWS's table "Key states of AWS KMS keys" (KMS developer guide), as data.

The states are those that a key of this KMS can have. An operation that is not in a state's rows succeeds in it.
"""

from typing import Final

from holdfast.witness.kms.errors import KmsException, of_failure
from holdfast.witness.kms.proxy_client import ProxyFailure
from holdfast.witness.kms_errors import Failure, OperationGroup

ENABLED, DISABLED, PENDING_DELETION, UNAVAILABLE = "Enabled", "Disabled", "PendingDeletion", "Unavailable"

ENCRYPTING: Final = frozenset(
    (
        "Decrypt",
        "Encrypt",
        "GenerateDataKey",
        "GenerateDataKeyPair",
        "GenerateDataKeyPairWithoutPlaintext",
        "GenerateDataKeyWithoutPlaintext",
        "ReEncrypt",
    )
)
"""Cryptographic operations of symmetric encryption keys."""
OF_OTHER_KEYS: Final = frozenset(
    ("Decapsulate", "DeriveSharedSecret", "Encapsulate", "GenerateMac", "GetPublicKey", "Sign", "Verify", "VerifyMac")
)
"""Cryptographic operations of asymmetric and HMAC keys."""
OF_MULTI_REGION_KEYS: Final = frozenset(("ReplicateKey", "UpdatePrimaryRegion"))
ROTATING: Final = frozenset(("DisableKeyRotation", "EnableKeyRotation", "RotateKeyOnDemand"))
_USING = ENCRYPTING | OF_OTHER_KEYS | OF_MULTI_REGION_KEYS | ROTATING | {"CreateGrant"}
_CHANGING = frozenset(
    (
        "CreateAlias",
        "DisableKey",
        "EnableKey",
        "ScheduleKeyDeletion",
        "TagResource",
        "UntagResource",
        "UpdateAlias",
        "UpdateKeyDescription",
    )
)

REFUSED: Final[dict[str, frozenset[str]]] = {
    ENABLED: frozenset(("CancelKeyDeletion",)),
    DISABLED: _USING | {"CancelKeyDeletion"},
    PENDING_DELETION: _USING | _CHANGING,
    UNAVAILABLE: ENCRYPTING | {"CancelKeyDeletion"},
}
"""By state, the operations that it refuses."""


def require(state: str, operation: str, arn: str) -> None:
    """Raises KmsException if the state refuses the operation, in the words of the table's footnotes."""
    if operation not in REFUSED[state]:
        return
    if operation == "CancelKeyDeletion":
        raise KmsException("KMSInvalidStateException", f"{arn} is not pending deletion.")
    match state:
        case "Disabled":
            raise KmsException("DisabledException", f"{arn} is disabled.")
        case "PendingDeletion":
            raise KmsException("KMSInvalidStateException", f"{arn} is pending deletion.")
        case _:
            # The specification's sentence, which is more precise than the guide's "is unavailable".
            raise of_failure(ProxyFailure(Failure.NOT_CONNECTED, arn), OperationGroup.CRYPTOGRAPHIC)
