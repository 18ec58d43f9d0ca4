"""What is known of one request when it ends: the log line, the metrics and the audit record."""

from dataclasses import dataclass, field
from http import HTTPStatus

from holdfast.hsm.port import Timing
from holdfast.xks.errors import ErrorName
from holdfast.xks.messages import RequestMetadata
from holdfast.xks.types import Operation


class RecordUnavailable(Exception):
    """The event log cannot be written, and the configuration wants no answer without a record."""


METHOD_NOT_ALLOWED = "MethodNotAllowed"
"""For log and metrics only: the spec answers other methods with 405, without an error name."""


@dataclass(slots=True)
class Event:
    """Filled in as the request advances. Seconds and bytes.

    `error` and `detail` are None for a success; `detail` is for the operator and may say more than the wire
    does. `error` is None for a 405 too, which has no name on the wire: `outcome` distinguishes the two.
    `policies` names those that permitted or forbade; `function` and `ckr` the C_ call that failed. Never holds
    plaintext, a PIN or a secret key.
    """

    operation: Operation | None = None
    keystore: str | None = None
    external_key_id: str | None = None
    generation: int | None = None
    access_key_id: str | None = None
    metadata: RequestMetadata | None = None
    status: int = 0
    error: ErrorName | None = None
    detail: str | None = None
    policies: tuple[str, ...] = ()
    function: str | None = None
    ckr: int | None = None
    bytes_in: int = 0
    bytes_out: int = 0
    authentication: float = 0.0
    total: float = 0.0
    timing: Timing = field(default_factory=Timing)

    @property
    def outcome(self) -> str | None:
        """The error name, METHOD_NOT_ALLOWED for a 405, None for a success."""
        if self.status == HTTPStatus.METHOD_NOT_ALLOWED:
            return METHOD_NOT_ALLOWED
        return self.error
