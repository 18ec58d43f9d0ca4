"""What KMS stores. Times are POSIX seconds."""

from dataclasses import dataclass
from datetime import UTC, datetime

from holdfast.witness.kms_errors import ConnectionErrorCode

CONNECTED, CONNECTING, FAILED = "CONNECTED", "CONNECTING", "FAILED"
DISCONNECTED, DISCONNECTING = "DISCONNECTED", "DISCONNECTING"
PUBLIC, VPC = "PUBLIC_ENDPOINT", "VPC_ENDPOINT_SERVICE"


@dataclass(frozen=True, slots=True)
class KeyStore:
    """An external key store. `credential_since` is when KMS was given the credential."""

    id: str
    name: str
    created: float
    connectivity: str
    uri_endpoint: str
    uri_path: str
    access_key_id: str
    secret_access_key: str
    credential_since: float
    vpc_service: str | None = None
    vpc_service_owner: str | None = None
    connection_state: str = DISCONNECTED
    connection_error_code: ConnectionErrorCode | None = None

    def __repr__(self) -> str:
        return f"<key store {self.id}>"

    @property
    def host(self) -> str:
        """The endpoint's host name."""
        return self.uri_endpoint.removeprefix("https://")

    @property
    def path_prefix(self) -> str:
        """What stands before `/kms/xks/v1`."""
        return self.uri_path.removesuffix("/kms/xks/v1")


@dataclass(frozen=True, slots=True)
class Key:
    """A KMS key. `material` is KMS's own: 32 bytes, stored unencrypted, since this is a test double.

    `rotation_period` is in days; None means that automatic rotation is not enabled. `aws_service` is the service
    that an AWS managed key belongs to.
    """

    id: str
    created: float
    description: str
    policy: str
    material: bytes
    enabled: bool = True
    deletion_date: float | None = None
    key_store_id: str | None = None
    xks_key_id: str | None = None
    rotation_period: int | None = None
    rotation_since: float | None = None
    aws_service: str | None = None

    def __repr__(self) -> str:
        return f"<key {self.id}>"


@dataclass(frozen=True, slots=True)
class Alias:
    """An alias, with its `alias/`."""

    name: str
    key_id: str
    created: float
    updated: float


@dataclass(frozen=True, slots=True)
class Tag:
    """A tag of a key."""

    key_id: str
    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Rotation:
    """A rotation of a key on demand: the first, second and so on. `replaced` is the key material before it."""

    key_id: str
    number: int
    date: float
    replaced: bytes

    def __repr__(self) -> str:
        return f"<rotation {self.number} of key {self.key_id}>"


@dataclass(frozen=True, slots=True)
class Grant:
    """A grant. `operations` are separated by spaces, `constraints` is a JSON object."""

    id: str
    key_id: str
    created: float
    name: str | None
    grantee: str | None
    grantee_service: str | None
    retiring: str | None
    retiring_service: str | None
    operations: str
    constraints: str


def date(seconds: float | None) -> datetime | None:
    """The date of POSIX seconds, for a response."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
