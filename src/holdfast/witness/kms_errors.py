"""What AWS KMS answers its callers for each failure of an external key store proxy: one table, pure data.

Its rows are the spec's (section "Error codes", KMS Considerations); the connection error codes are those of
KMS's API model. The local KMS answers with it, `holdfast explain` reads it backwards.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from holdfast.xks.errors import ErrorName


class OperationGroup(StrEnum):
    """The groups of KMS operations that the spec's table distinguishes."""

    KEY_STORE = "CreateCustomKeyStore, UpdateCustomKeyStore"
    CREATE_KEY = "CreateKey"
    CRYPTOGRAPHIC = "Encrypt, Decrypt, ReEncrypt, GenerateDataKey, GenerateDataKeyWithoutPlaintext"


class ConnectionErrorCode(StrEnum):
    """`ConnectionErrorCode` of DescribeCustomKeyStores, as far as external key stores have them."""

    INTERNAL_ERROR = "INTERNAL_ERROR"
    INVALID_CREDENTIALS = "INVALID_CREDENTIALS"
    NETWORK_ERRORS = "NETWORK_ERRORS"
    XKS_PROXY_ACCESS_DENIED = "XKS_PROXY_ACCESS_DENIED"
    XKS_PROXY_INVALID_CONFIGURATION = "XKS_PROXY_INVALID_CONFIGURATION"
    XKS_PROXY_INVALID_RESPONSE = "XKS_PROXY_INVALID_RESPONSE"
    XKS_PROXY_INVALID_TLS_CONFIGURATION = "XKS_PROXY_INVALID_TLS_CONFIGURATION"
    XKS_PROXY_NOT_REACHABLE = "XKS_PROXY_NOT_REACHABLE"
    XKS_PROXY_TIMED_OUT = "XKS_PROXY_TIMED_OUT"
    XKS_VPC_ENDPOINT_SERVICE_INVALID_CONFIGURATION = "XKS_VPC_ENDPOINT_SERVICE_INVALID_CONFIGURATION"
    XKS_VPC_ENDPOINT_SERVICE_NOT_FOUND = "XKS_VPC_ENDPOINT_SERVICE_NOT_FOUND"


class Failure(StrEnum):
    """What went wrong between KMS and the proxy that is not an `errorName`: the rest of the spec's rows.

    CONNECTION_LOST and FLEET_UNAVAILABLE have no row in the spec: a connection that broke before the response
    was whole, and a GetHealthStatus response with every external key manager UNAVAILABLE.
    """

    INVALID_CIPHERTEXT_RETURNED = "the proxy returned an invalid ciphertext"
    NO_TCP_CONNECTION = "no TCP connection"
    NO_TLS_CONNECTION = "no TLS connection"
    SOCKET_TIMEOUT = "no response within 250 ms"
    CONNECTION_LOST = "the connection broke"
    MALFORMED_RESPONSE = "malformed response"
    FLEET_UNAVAILABLE = "every external key manager is UNAVAILABLE"
    NOT_CONNECTED = "the key store is not CONNECTED"


@dataclass(frozen=True, slots=True)
class KmsError:
    """A row: the exception of each group and the one message they share.

    An exception is None where the spec's row does not name the group; `exception_in` then gives the one that
    KMS has for a response it did not expect.
    """

    message: str
    key_store: str | None = None
    create_key: str | None = None
    cryptographic: str | None = "KMSInvalidStateException"
    connection_error_code: ConnectionErrorCode = ConnectionErrorCode.XKS_PROXY_INVALID_RESPONSE

    def exception_in(self, group: OperationGroup) -> str:
        """The exception that an operation of `group` raises."""
        match group:
            case OperationGroup.KEY_STORE:
                return self.key_store or "XksProxyInvalidResponseException"
            case OperationGroup.CREATE_KEY:
                return self.create_key or _STORE_STATE
            case OperationGroup.CRYPTOGRAPHIC:  # pragma: no branch (every group is listed)
                return self.cryptographic or _KEY_STATE


_STORE_STATE: Final = "CustomKeyStoreInvalidStateException"
_KEY_STATE: Final = "KMSInvalidStateException"
_UNREACHABLE: Final = "XksProxyUriUnreachableException"
_RESPONSE: Final = "XksProxyInvalidResponseException"
_KEY_CONFIGURATION: Final = "XksKeyInvalidConfigurationException"

_NOT_UNDERSTOOD = KmsError(
    "AWS KMS cannot interpret the response from the external key store proxy. If you see this error repeatedly, "
    "report it to your external key store proxy administrator.",
    key_store=_RESPONSE,
    create_key=_STORE_STATE,
)
_NO_TCP_CONNECTION = KmsError(
    "AWS KMS cannot communicate with the external key store proxy. This might be a transient network issue. "
    "If you see this error repeatedly, verify that your external key store proxy is active and is connected to "
    "the network, and that its endpoint URI is correct in your external keystore.",
    key_store=_UNREACHABLE,
    create_key=_STORE_STATE,
    connection_error_code=ConnectionErrorCode.XKS_PROXY_NOT_REACHABLE,
)

KMS_ERRORS: Final[dict[ErrorName | Failure, KmsError]] = {
    ErrorName.VALIDATION: _NOT_UNDERSTOOD,
    ErrorName.INVALID_STATE: KmsError(
        "The external key associated with this KMS key in an external key store is not enabled in the external "
        "key manager. Enable the external key in the external key manager and retry the request.",
        create_key=_KEY_CONFIGURATION,
    ),
    ErrorName.INVALID_CIPHERTEXT: KmsError(
        "The external key store proxy rejected the request because the specified ciphertext or encryption context "
        "is corrupted, missing, or otherwise invalid.",
    ),
    Failure.INVALID_CIPHERTEXT_RETURNED: KmsError(
        "The ciphertext that the external key store proxy submitted for decryption, or the encryption context, is "
        "corrupted, missing, or otherwise invalid.",
    ),
    ErrorName.INVALID_KEY_USAGE: KmsError(
        "The external key associated with this KMS key in an external key store does not support the requested "
        "operation. Enable the operation on the key in your external key manager, and try the request again.",
        create_key=_KEY_CONFIGURATION,
    ),
    ErrorName.AUTHENTICATION_FAILED: KmsError(
        "The external key store proxy rejected the request because it could not authenticate AWS KMS. Verify the "
        "XKS proxy authentication credentials for your external key store and update if necessary.",
        key_store="XksProxyIncorrectAuthenticationCredentialException",
        create_key=_STORE_STATE,
        connection_error_code=ConnectionErrorCode.INVALID_CREDENTIALS,
    ),
    ErrorName.ACCESS_DENIED: KmsError(
        "The external key store proxy denied access to the operation. Verify that the user and the external key "
        "are both authorized for this operation, and try the request again.",
        create_key=_KEY_STATE,
        connection_error_code=ConnectionErrorCode.XKS_PROXY_ACCESS_DENIED,
    ),
    ErrorName.KEY_NOT_FOUND: KmsError(
        "The external key associated with this KMS key in an external key store was not found in its external key "
        "manager. If the external key ID associated with this KMS key is incorrect, create a new KMS key with the "
        "correct external key ID.",
        create_key="XksKeyNotFoundException",
    ),
    ErrorName.INVALID_URI_PATH: KmsError(
        "The external key store proxy rejected the request because of an invalid URI path. Verify the URI path for "
        "your external key store and update if necessary.",
        key_store="XksProxyInvalidConfigurationException",
        create_key=_STORE_STATE,
        connection_error_code=ConnectionErrorCode.XKS_PROXY_INVALID_CONFIGURATION,
    ),
    ErrorName.UNSUPPORTED_OPERATION: KmsError(
        "The external key store proxy rejected the request because it does not support the requested operation. "
        "If you see this error repeatedly, report it to your external key store proxy administrator.",
        # The spec's word; KMS's API model has no exception of this name.
        create_key="XksKeyInvalidResponseException",
    ),
    ErrorName.DEPENDENCY_TIMEOUT: KmsError(
        "The external key store proxy did not respond to the request in the time allotted. Retry the request. If "
        "you see this error repeatedly, report it to your external key store proxy administrator.",
        key_store=_UNREACHABLE,
        create_key=_STORE_STATE,
        connection_error_code=ConnectionErrorCode.XKS_PROXY_TIMED_OUT,
    ),
    ErrorName.THROTTLING: KmsError(
        "The external key store proxy rejected the request due to a very high request rate. Reduce the frequency "
        "of your calls using KMS keys in this external key store.",
        key_store=_UNREACHABLE,
        create_key=_STORE_STATE,
        connection_error_code=ConnectionErrorCode.XKS_PROXY_NOT_REACHABLE,
    ),
    ErrorName.INTERNAL: KmsError(
        "The external key store proxy rejected the request because it cannot communicate with the external key "
        "manager. Verify that the external key store proxy configuration is correct and that the external key "
        "manager is available.",
        key_store=_RESPONSE,
        create_key=_STORE_STATE,
    ),
    Failure.NO_TCP_CONNECTION: _NO_TCP_CONNECTION,
    Failure.NO_TLS_CONNECTION: KmsError(
        "AWS KMS cannot establish a TLS connection to the external key store proxy. Verify the TLS configuration, "
        "including its certificate.",
        key_store=_UNREACHABLE,
        create_key=_STORE_STATE,
        connection_error_code=ConnectionErrorCode.XKS_PROXY_INVALID_TLS_CONFIGURATION,
    ),
    Failure.SOCKET_TIMEOUT: KmsError(
        "AWS KMS rejected the request because the external key store proxy did not respond in time. Retry the "
        "request. If you see this error repeatedly, report it to your external key store proxy administrator.",
        key_store=_UNREACHABLE,
        create_key=_STORE_STATE,
        connection_error_code=ConnectionErrorCode.XKS_PROXY_TIMED_OUT,
    ),
    Failure.CONNECTION_LOST: KmsError(
        _NO_TCP_CONNECTION.message,
        key_store=_UNREACHABLE,
        create_key=_STORE_STATE,
        connection_error_code=ConnectionErrorCode.NETWORK_ERRORS,
    ),
    Failure.MALFORMED_RESPONSE: _NOT_UNDERSTOOD,
    Failure.FLEET_UNAVAILABLE: KmsError(
        # The message is the KMS developer guide's; the spec has no row for it.
        "The external key store proxy is in an unhealthy state. If you see this message repeatedly, notify your "
        "external key store proxy administrator.",
        key_store=_UNREACHABLE,
        create_key=_STORE_STATE,
        connection_error_code=ConnectionErrorCode.XKS_PROXY_NOT_REACHABLE,
    ),
    Failure.NOT_CONNECTED: KmsError(
        "This KMS key is in a custom key store that is not connected to its external key store proxy. Connect the "
        "external key store and try the request again.",
        create_key=_STORE_STATE,
    ),
}
"""Every `errorName` and every failure, with what KMS's caller gets."""

RETRYABLE: Final = frozenset(
    (
        ErrorName.INTERNAL,
        ErrorName.DEPENDENCY_TIMEOUT,
        ErrorName.THROTTLING,
        Failure.NO_TCP_CONNECTION,
        Failure.NO_TLS_CONNECTION,
        Failure.SOCKET_TIMEOUT,
        Failure.CONNECTION_LOST,
    )
)
"""What counts against the proxy's reliability in KMS's CloudWatch metrics (`ErrorType` Retryable)."""
