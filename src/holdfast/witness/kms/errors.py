"""Refusals in AWS KMS's own shapes."""

from typing import Final

from holdfast.witness.kms.proxy_client import ProxyFailure
from holdfast.witness.kms_errors import KMS_ERRORS, OperationGroup


class KmsException(Exception):
    """An error response: the exception's name in KMS's API model (or a common AWS one) and its message."""

    def __init__(self, name: str, message: str, *, status: int = 400) -> None:
        super().__init__(name, message)
        self.name = name
        self.message = message
        self.status = status


def validation_error(message: str) -> KmsException:
    """What KMS says of input that its service model, or a rule beside it, forbids."""
    return KmsException("ValidationException", message)


def unsupported(what: str) -> KmsException:
    """What CreateKey of this local KMS leaves out, by its name."""
    return KmsException("UnsupportedOperationException", f"{what} is not part of the local KMS of Holdfast.")


COMMON: Final = frozenset(
    (
        "AccessDeniedException",
        "IncompleteSignatureException",
        "InvalidSignatureException",
        "MissingAuthenticationTokenException",
        "NotAuthorizedException",
        "SerializationException",
        "ThrottlingException",
        "UnknownOperationException",
        "UnrecognizedClientException",
        "ValidationException",
    )
)
"""Exceptions that every operation may raise, which the service model does not list."""


def of_failure(failure: ProxyFailure, group: OperationGroup) -> KmsException:
    """The exception that KMS raises in `group` for a proxy's failure (spec, "Error codes", KMS Considerations).

    It never holds the proxy's own `errorMessage`, which KMS only logs.
    """
    row = KMS_ERRORS[failure.reason]
    return KmsException(row.exception_in(group), row.message)
