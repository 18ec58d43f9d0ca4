"""Request paths: `[/prefix]/kms/xks/v1` and then `/health` or `/keys/{externalKeyId}/{operation}`."""

import re
from dataclasses import dataclass

from holdfast.xks.errors import ErrorName, XksError
from holdfast.xks.types import ExternalKeyId, Operation

MAX_URI_LENGTH = 256
"""Characters. Spec, "API operations": the total URI length."""

_PATH = re.compile(
    r"(?P<prefix>(?:/[A-Za-z0-9_-]+)*)/kms/xks/v1"
    r"(?:/health|/keys/(?P<key>[A-Za-z0-9._-]{1,128})/(?P<operation>metadata|encrypt|decrypt))"
)
_OPERATIONS = {
    None: Operation.GET_HEALTH_STATUS,
    "metadata": Operation.GET_KEY_METADATA,
    "encrypt": Operation.ENCRYPT,
    "decrypt": Operation.DECRYPT,
}


@dataclass(frozen=True, slots=True)
class Target:
    """What a request path names. `external_key_id` is None for GetHealthStatus only."""

    prefix: str
    operation: Operation
    external_key_id: ExternalKeyId | None


def parse_path(path: bytes) -> Target:
    """The target of a raw request path, exactly as sent: percent-encoding is never decoded.

    Raises XksError(INVALID_URI_PATH).
    """
    match = _PATH.fullmatch(path.decode("latin-1")) if len(path) <= MAX_URI_LENGTH else None
    if match is None:
        raise XksError(
            ErrorName.INVALID_URI_PATH, "the path is not [/prefix]/kms/xks/v1 and one of the four operations"
        )
    prefix, key, operation = match.groups()
    return Target(prefix, _OPERATIONS[operation], None if key is None else ExternalKeyId(key))


def request_path(target: Target) -> str:
    """The path of a target: the inverse of `parse_path`."""
    base = f"{target.prefix}/kms/xks/v1"
    if target.external_key_id is None:
        return f"{base}/health"
    indicator = "metadata" if target.operation is Operation.GET_KEY_METADATA else target.operation.lower()
    return f"{base}/keys/{target.external_key_id}/{indicator}"
