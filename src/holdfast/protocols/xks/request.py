"""A request that has been authenticated and not yet parsed."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

from holdfast.hsm.faults import KeyNotFound
from holdfast.hsm.port import Hsm, KeyLocator, KeySession
from holdfast.keys.model import ExternalKey, Generation, Keystore
from holdfast.protocols.xks.event import Event
from holdfast.protocols.xks.services import Services
from holdfast.xks.errors import ErrorName, XksError
from holdfast.xks.messages import RequestMetadata
from holdfast.xks.types import ExternalKeyId, KeyStatus

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Request:
    """`external_key_id` is None for GetHealthStatus only; `deadline` is absolute, on the services' clock.

    `keystore` is as it is at the time `now`.

    The body may hold a plaintext, so it is not printed.
    """

    keystore: Keystore
    external_key_id: ExternalKeyId | None
    body: bytes = field(repr=False)
    deadline: float
    event: Event
    now: datetime

    def note(self, metadata: RequestMetadata) -> None:
        """Put the parsed `requestMetadata` into the event (spec, "Logging")."""
        self.event.metadata = metadata

    def key(self) -> ExternalKey:
        """The key that the path names. Raises XksError(KEY_NOT_FOUND, INTERNAL) without asking the HSM."""
        key = self.keystore.keys.get(str(self.external_key_id))
        if key is None:
            if str(self.external_key_id) in self.keystore.faulty:
                raise XksError(ErrorName.INTERNAL, "the catalog's row of this external key is wrong")
            raise XksError(ErrorName.KEY_NOT_FOUND, "this key store has no such external key")
        return key

    def enabled_key(self) -> ExternalKey:
        """The key, if it may be used. Raises XksError(KEY_NOT_FOUND, INVALID_STATE or ACCESS_DENIED)."""
        self.require_unblocked()
        key = self.key()
        metadata = self.event.metadata
        if key.pinned_to and (metadata is None or metadata.kms_key_arn not in key.pinned_to):
            # Spec, "Error codes": AccessDeniedException for a caller that the proxy does not let use the key.
            raise XksError(ErrorName.ACCESS_DENIED, "the external key is pinned to another KMS key")
        if key.status_at(self.now) is not KeyStatus.ENABLED:
            raise XksError(ErrorName.INVALID_STATE, "the external key is disabled")
        return key

    def require_unblocked(self) -> None:
        """Raises XksError(INVALID_STATE) while an operator blocks the key store."""
        if self.keystore.blocked:
            raise XksError(ErrorName.INVALID_STATE, "the external key store is blocked")


def hsm_of(generation: Generation, services: Services) -> Hsm:
    """The HSM that holds the key. Raises XksError(INTERNAL) if the configuration does not have it."""
    hsm = services.hsms.get(generation.hsm)
    if hsm is None:
        raise XksError(ErrorName.INTERNAL, "the external key is in an HSM that is not configured here")
    return hsm


async def run_on(
    generation: Generation, work: Callable[[KeySession], T], *, request: Request, services: Services
) -> T:
    """What `work` gives in a session of the HSM that holds the generation. Raises HsmFault, XksError(INTERNAL).

    A key that this node is still looking for is not said to be gone (design decision 10).
    """
    try:
        return await hsm_of(generation, services).run(work, deadline=request.deadline, timing=request.event.timing)
    except KeyNotFound:
        if services.is_new(generation):
            raise XksError(
                ErrorName.INTERNAL, f"the HSM key of generation {generation.number} is not visible here yet"
            ) from None
        raise


def locator_of(generation: Generation) -> KeyLocator:
    """How the HSM finds the key, and how the key proves itself."""
    return KeyLocator(generation.label, generation.cka_id, generation.canary)
