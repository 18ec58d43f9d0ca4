"""The twelve error names of the XKS Proxy API and the one exception that carries them."""

from enum import StrEnum
from http import HTTPStatus


class ErrorName(StrEnum):
    """An `errorName` of the spec's table (section "Error codes")."""

    VALIDATION = "ValidationException"
    INVALID_STATE = "InvalidStateException"
    INVALID_CIPHERTEXT = "InvalidCiphertextException"
    INVALID_KEY_USAGE = "InvalidKeyUsageException"
    AUTHENTICATION_FAILED = "AuthenticationFailedException"
    ACCESS_DENIED = "AccessDeniedException"
    KEY_NOT_FOUND = "KeyNotFoundException"
    INVALID_URI_PATH = "InvalidUriPathException"
    THROTTLING = "ThrottlingException"
    UNSUPPORTED_OPERATION = "UnsupportedOperationException"
    DEPENDENCY_TIMEOUT = "DependencyTimeoutException"
    INTERNAL = "InternalException"

    @property
    def status(self) -> HTTPStatus:
        """The HTTP status that the spec's table puts beside this name."""
        return _STATUS[self]


_STATUS = {
    ErrorName.VALIDATION: HTTPStatus.BAD_REQUEST,
    ErrorName.INVALID_STATE: HTTPStatus.BAD_REQUEST,
    ErrorName.INVALID_CIPHERTEXT: HTTPStatus.BAD_REQUEST,
    ErrorName.INVALID_KEY_USAGE: HTTPStatus.BAD_REQUEST,
    ErrorName.AUTHENTICATION_FAILED: HTTPStatus.UNAUTHORIZED,
    ErrorName.ACCESS_DENIED: HTTPStatus.FORBIDDEN,
    ErrorName.KEY_NOT_FOUND: HTTPStatus.NOT_FOUND,
    ErrorName.INVALID_URI_PATH: HTTPStatus.NOT_FOUND,
    ErrorName.THROTTLING: HTTPStatus.TOO_MANY_REQUESTS,
    ErrorName.UNSUPPORTED_OPERATION: HTTPStatus.NOT_IMPLEMENTED,
    ErrorName.DEPENDENCY_TIMEOUT: HTTPStatus.SERVICE_UNAVAILABLE,
    ErrorName.INTERNAL: HTTPStatus.INTERNAL_SERVER_ERROR,
}

MAX_MESSAGE_LENGTH = 511
"""Characters of an `errorMessage`. Spec, "Error codes": less than 512, printable ASCII only."""


class XksError(Exception):
    """A refusal as the wire states it: a name of the spec's table and a sentence for the caller."""

    def __init__(self, name: ErrorName, message: str) -> None:
        super().__init__(name, message)
        self.name = name
        self.message = printable_ascii(message)


def printable_ascii(text: str) -> str:
    """`text` cut to an `errorMessage`: 0x20 to 0x7e, under 512 characters; all else becomes `?`."""
    return "".join(c if " " <= c <= "~" else "?" for c in text[:MAX_MESSAGE_LENGTH])
