"""One API call, and what its operation works with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from holdfast.witness.kms.callers import Caller
from holdfast.witness.kms.connections import Connections
from holdfast.witness.kms.errors import KmsException
from holdfast.witness.kms.gateway import Gateway, Trail
from holdfast.witness.kms.settings import Settings
from holdfast.witness.kms.state import State
from holdfast.xks.messages import RequestMetadata


@dataclass(frozen=True, slots=True)
class Call:
    """A call whose input the service model allows. `trail` collects the proxy calls that it leads to."""

    operation: str
    caller: Caller
    input: Mapping[str, Any]
    trail: Trail

    @classmethod
    def of(cls, operation: str, caller: Caller, values: Mapping[str, Any], request_id: str) -> "Call":
        """A call with the request metadata that the caller's profile gives it."""
        metadata = RequestMetadata(
            kms_operation=operation,
            kms_request_id=request_id,
            aws_principal_arn=caller.principal_arn,
            aws_source_vpc=caller.source_vpc,
            aws_source_vpce=caller.source_vpce,
        )
        return cls(operation, caller, values, Trail(metadata))


@dataclass(frozen=True, slots=True)
class Service:
    """What every operation works with. `started` is in POSIX seconds; `last_uses` is by key id, and not stored."""

    settings: Settings
    state: State
    gateway: Gateway
    connections: Connections
    now: Callable[[], datetime]
    random: Callable[[int], bytes]
    started: float
    last_uses: dict[str, "Use"] = field(default_factory=dict)

    def arn(self, resource: str) -> str:
        """The ARN of `key/...` or `alias/...`."""
        return f"arn:{self.settings.partition.name}:kms:{self.settings.region}:{self.settings.account}:{resource}"

    def timestamp(self) -> float:
        """Now, in POSIX seconds."""
        return self.now().timestamp()


@dataclass(frozen=True, slots=True)
class Use:
    """The last successful cryptographic operation with a key. `at` is in POSIX seconds."""

    operation: str
    at: float
    request_id: str


Output = Mapping[str, Any]


def stop_dry_run(call: Call) -> None:
    """Raises KmsException(DryRunOperationException) if nothing but a dry run was asked for."""
    if call.input.get("DryRun"):
        raise KmsException(
            "DryRunOperationException", "The request would have succeeded, but the DryRun option is set."
        )


def page(call: Call, items: list[str], *, limit: int = 100) -> tuple[list[str], dict[str, Any]]:
    """The items from `Marker` on, at most `Limit` (default `limit`), and the members `Truncated` and `NextMarker`.

    A marker is the item that comes next. Raises KmsException(InvalidMarkerException).
    """
    start = 0
    if (marker := call.input.get("Marker")) is not None:
        if marker not in items:
            raise KmsException("InvalidMarkerException", "The marker is not one that this operation gave.")
        start = items.index(marker)
    end = start + call.input.get("Limit", limit)
    more = end < len(items)
    return items[start:end], {"Truncated": more, "NextMarker": items[end] if more else None}
