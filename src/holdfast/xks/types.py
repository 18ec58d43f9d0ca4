"""Values of the XKS Proxy API. Each is checked when it is made."""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Self

from holdfast.xks.errors import ErrorName, XksError
from holdfast.xks.secret import Secret


class Operation(StrEnum):
    """The four API operations (spec, "API operations")."""

    GET_KEY_METADATA = "GetKeyMetadata"
    ENCRYPT = "Encrypt"
    DECRYPT = "Decrypt"
    GET_HEALTH_STATUS = "GetHealthStatus"


class KeyStatus(StrEnum):
    """`keyStatus` of GetKeyMetadata."""

    ENABLED = "ENABLED"
    DISABLED = "DISABLED"


class HealthStatus(StrEnum):
    """`ekmFleetDetails.healthStatus` of GetHealthStatus."""

    ACTIVE = "ACTIVE"
    DEGRADED = "DEGRADED"
    UNAVAILABLE = "UNAVAILABLE"


@dataclass(frozen=True, slots=True)
class ExternalKeyId:
    """`externalKeyId`: 1 to 128 of letters, digits, hyphen, period, underscore (spec, "API operations")."""

    value: str
    _GRAMMAR: ClassVar[re.Pattern[str]] = re.compile(r"[A-Za-z0-9._-]{1,128}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises XksError(VALIDATION)."""
        if not cls._GRAMMAR.fullmatch(text):
            raise XksError(ErrorName.VALIDATION, "externalKeyId is not 1 to 128 of the characters A-Z a-z 0-9 . _ -")
        if text in (".", ".."):
            # HTTP clients and SigV4 signers remove such segments: no signed request could name the key.
            raise XksError(ErrorName.VALIDATION, "externalKeyId is a relative path segment, which clients remove")
        return cls(text)

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class UriPathPrefix:
    """The optional path prefix before `/kms/xks/v1`: empty, or segments that each begin with a slash.

    Spec, "API operations": `XksProxyUriPath` (prefix and the 11 characters of `/kms/xks/v1`) is at most
    128 characters of a-z, A-Z, 0-9, slash, dash and underscore.
    """

    value: str
    _GRAMMAR: ClassVar[re.Pattern[str]] = re.compile(r"(?:/[A-Za-z0-9_-]+)*")
    MAX_LENGTH: ClassVar[int] = 128 - len("/kms/xks/v1")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises XksError(INVALID_URI_PATH)."""
        if len(text) > cls.MAX_LENGTH:
            raise XksError(ErrorName.INVALID_URI_PATH, f"a path prefix has at most {cls.MAX_LENGTH} characters")
        if not cls._GRAMMAR.fullmatch(text):
            raise XksError(
                ErrorName.INVALID_URI_PATH,
                "a path prefix is empty, or segments of A-Z a-z 0-9 _ - that each begin with a single slash",
            )
        return cls(text)

    @property
    def xks_proxy_uri_path(self) -> str:
        """The `XksProxyUriPath` to configure in KMS."""
        return f"{self.value}/kms/xks/v1"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class AccessKeyId:
    """Names a secret access key: 20 to 30 of A-Z and 2-7 (spec, Appendix A)."""

    value: str
    _GRAMMAR: ClassVar[re.Pattern[str]] = re.compile(r"[A-Z2-7]{20,30}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises XksError(VALIDATION)."""
        if not cls._GRAMMAR.fullmatch(text):
            raise XksError(ErrorName.VALIDATION, "an access key id is 20 to 30 of the characters A-Z and 2-7")
        return cls(text)

    def __str__(self) -> str:
        return self.value


class SecretAccessKey(Secret):
    """Signs requests: 43 to 64 of A-Z a-z 0-9 / + = (spec, "XKS proxy configuration in AWS KMS console")."""

    _GRAMMAR: ClassVar[re.Pattern[bytes]] = re.compile(rb"[A-Za-z0-9/+=]{43,64}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises XksError(VALIDATION); the message never holds the text."""
        if not text.isascii() or not cls._GRAMMAR.fullmatch(text.encode()):
            raise XksError(
                ErrorName.VALIDATION, "a secret access key is 43 to 64 of the characters A-Z a-z 0-9 / + ="
            )
        return cls.of_text(text)
