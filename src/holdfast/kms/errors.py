"""Refusals in AWS KMS's own shapes."""

from holdfast.kms.proxy_client import ProxyFailure
from holdfast.xks.kms_errors import KMS_ERRORS, OperationGroup


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
    """What is not part of this local KMS, by its name."""
    return KmsException("UnsupportedOperationException", f"{what} is not part of the local KMS of Holdfast.")


def of_failure(failure: ProxyFailure, group: OperationGroup) -> KmsException:
    """The exception that KMS raises in `group` for a proxy's failure (spec, "Error codes", KMS Considerations).

    The proxy's own `errorMessage` is never repeated: KMS logs it.
    """
    row = KMS_ERRORS[failure.reason]
    return KmsException(row.exception_in(group), row.message)
