"""GetKeyMetadata (spec, "GetKeyMetadata")."""

from holdfast.hsm.port import KeyAttributes, KeySession
from holdfast.protocols.xks.authorization import authorize
from holdfast.protocols.xks.request import Request, locator_of, run_on
from holdfast.protocols.xks.services import Services
from holdfast.xks.messages import GetKeyMetadataRequest, GetKeyMetadataResponse
from holdfast.xks.types import KeyStatus, Operation

MAX_KEY_USAGES = 10
"""Spec, "GetKeyMetadata": values of `keyUsage`."""


async def answer(request: Request, services: Services) -> bytes:
    """The body of the GetKeyMetadata response. Raises XksError, AccessDenied and HsmFault.

    A key of a blocked key store is DISABLED, like a disabled key: KMS cannot use it, and may ask why.
    """
    message = GetKeyMetadataRequest.parse(request.body)
    request.note(message.request_metadata)
    authorize(request, message.request_metadata, operation=Operation.GET_KEY_METADATA, services=services)
    key = request.key()
    request.event.generation = key.active.number
    locator = locator_of(key.active)

    def describe(session: KeySession) -> KeyAttributes:
        return session.describe(locator)

    attributes = await run_on(key.active, describe, request=request, services=services)
    return GetKeyMetadataResponse(
        key_spec=attributes.key_spec,
        key_usage=list(attributes.key_usage[:MAX_KEY_USAGES]),
        key_status=KeyStatus.DISABLED if request.keystore.blocked else key.status_at(request.now),
    ).to_json()
