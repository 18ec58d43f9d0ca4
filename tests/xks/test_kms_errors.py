"""What KMS tells its callers: the table is complete."""

from typing import TYPE_CHECKING

import pytest

from holdfast.witness.kms_errors import KMS_ERRORS, RETRYABLE, Failure, KmsError, OperationGroup
from holdfast.xks.errors import ErrorName

if TYPE_CHECKING:
    from enum import StrEnum


@pytest.mark.parametrize("cause", [*ErrorName, *Failure])
def test_every_error_name_and_failure_has_a_row(cause: ErrorName | Failure) -> None:
    assert KMS_ERRORS[cause].message.endswith(".")


@pytest.mark.parametrize("cause", [*ErrorName, *Failure])
@pytest.mark.parametrize("group", OperationGroup)
def test_every_operation_group_has_an_exception(cause: ErrorName | Failure, group: OperationGroup) -> None:
    assert KMS_ERRORS[cause].exception_in(group).endswith("Exception")


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        (OperationGroup.KEY_STORE, "XksProxyInvalidResponseException"),
        (OperationGroup.CREATE_KEY, "CustomKeyStoreInvalidStateException"),
        (OperationGroup.CRYPTOGRAPHIC, "KMSInvalidStateException"),
    ],
)
def test_a_group_that_the_row_does_not_name_has_the_exception_for_the_unexpected(
    group: OperationGroup, expected: str
) -> None:
    assert KmsError("why", cryptographic=None).exception_in(group) == expected


@pytest.mark.parametrize(
    ("cause", "group", "expected"),
    [
        (ErrorName.KEY_NOT_FOUND, OperationGroup.CREATE_KEY, "XksKeyNotFoundException"),
        (ErrorName.INVALID_STATE, OperationGroup.CREATE_KEY, "XksKeyInvalidConfigurationException"),
        (
            ErrorName.AUTHENTICATION_FAILED,
            OperationGroup.KEY_STORE,
            "XksProxyIncorrectAuthenticationCredentialException",
        ),
        (ErrorName.INVALID_URI_PATH, OperationGroup.KEY_STORE, "XksProxyInvalidConfigurationException"),
        (Failure.SOCKET_TIMEOUT, OperationGroup.KEY_STORE, "XksProxyUriUnreachableException"),
        (Failure.NOT_CONNECTED, OperationGroup.CRYPTOGRAPHIC, "KMSInvalidStateException"),
    ],
)
def test_rows_of_the_specs_table(cause: ErrorName | Failure, group: OperationGroup, expected: str) -> None:
    """Spec, "Error codes", KMS Considerations."""
    assert KMS_ERRORS[cause].exception_in(group) == expected


def test_only_causes_with_a_row_are_retryable() -> None:
    causes: set[StrEnum] = set(KMS_ERRORS)
    assert causes >= RETRYABLE
