"""Decrypt (spec, "Decrypt")."""

from holdfast.hsm.port import KeySession, Sealed
from holdfast.keys.model import ExternalKey, Generation
from holdfast.protocols.xks.authorization import authorize
from holdfast.protocols.xks.request import Request, hsm_of, locator_of
from holdfast.protocols.xks.services import Services
from holdfast.xks.aad import CiphertextMetadata, aws_sample_hsm_aad, hsm_aad, is_foreign_metadata
from holdfast.xks.errors import ErrorName, XksError
from holdfast.xks.messages import DecryptRequest, DecryptResponse
from holdfast.xks.types import Operation


async def answer(request: Request, services: Services) -> bytes:
    """The body of the Decrypt response. Raises XksError, AccessDenied and HsmFault."""
    message = DecryptRequest.parse(request.body)
    request.note(message.request_metadata)
    authorize(request, message.request_metadata, operation=Operation.DECRYPT, services=services)
    generation, covered = _generation_and_aad(request.enabled_key(), message)
    request.event.generation = generation.number
    key = locator_of(generation)
    sealed = Sealed(message.initialization_vector, message.ciphertext, message.authentication_tag)

    def open_sealed(session: KeySession) -> bytes:
        return session.decrypt(key, sealed, covered)

    plaintext = await hsm_of(generation, services).run(
        open_sealed, deadline=request.deadline, timing=request.event.timing
    )
    return DecryptResponse(plaintext).to_json()


def _generation_and_aad(key: ExternalKey, message: DecryptRequest) -> tuple[Generation, bytes]:
    metadata = message.ciphertext_metadata or b""
    if key.takeover is not None and is_foreign_metadata(metadata):
        # Made by AWS's sample proxy, under whatever `ciphertext_metadata_b64` it had at the time; the metadata is
        # authenticated. That proxy has one HSM key per external key: generation 1 here.
        return key.generations[1], aws_sample_hsm_aad(message.aad, metadata)
    parsed = CiphertextMetadata.parse(metadata)
    generation = key.generations.get(parsed.generation)
    if generation is None:
        raise XksError(ErrorName.INVALID_CIPHERTEXT, "ciphertextMetadata names a key generation that does not exist")
    return generation, hsm_aad(message.aad, metadata, parsed.framing)
