"""Encrypt (spec, "Encrypt" and Appendix C)."""

from holdfast.ekm.faults import CiphertextRejected, KeyUsageRefused
from holdfast.ekm.port import KeyLocator, KeySession, Sealed
from holdfast.operations.authorization import authorize
from holdfast.operations.request import Request, hsm_of, locator_of
from holdfast.operations.services import Services
from holdfast.xks.aad import CiphertextMetadata, ciphertext_data_integrity_value, hsm_aad
from holdfast.xks.errors import ErrorName, XksError
from holdfast.xks.messages import EncryptRequest, EncryptResponse
from holdfast.xks.types import Operation


async def answer(request: Request, services: Services) -> bytes:
    """The body of the Encrypt response. Raises XksError and every fault of `faults.NAMES`."""
    message = EncryptRequest.parse(request.body)
    request.note(message.request_metadata)
    authorize(request, message.request_metadata, operation=Operation.ENCRYPT, services=services)
    generation = request.enabled_key().current
    request.event.generation = generation.number
    hsm = hsm_of(generation, services)
    key = locator_of(generation)
    metadata = CiphertextMetadata(hsm.aad_framing, generation.number)
    covered = hsm_aad(message.aad, metadata.to_bytes(), metadata.framing)
    services.budget.take(generation)

    def seal(session: KeySession) -> EncryptResponse:
        if message.wants_cdiv:
            return _seal_with_cdiv(session, key, message, metadata)
        return _response(session.encrypt(key, message.plaintext, covered), metadata)

    response = await hsm.run(seal, deadline=request.deadline, timing=request.event.timing)
    return response.to_json()


def _seal_with_cdiv(
    session: KeySession, key: KeyLocator, message: EncryptRequest, metadata: CiphertextMetadata
) -> EncryptResponse:
    if "DECRYPT" not in session.describe(key).key_usage:
        raise KeyUsageRefused("a CDIV needs a trial decryption, and the key does not permit C_Decrypt")
    covered = hsm_aad(message.aad, metadata.to_bytes(), metadata.framing)
    sealed = session.encrypt(key, message.plaintext, covered)
    # Spec, Appendix C: the CDIV is computed before the trial Decrypt, so that corruption in between shows.
    cdiv = ciphertext_data_integrity_value(
        message.aad,
        metadata.to_bytes(),
        initialization_vector=sealed.initialization_vector,
        ciphertext=sealed.ciphertext,
        tag=sealed.authentication_tag,
    )
    response = _response(sealed, metadata, cdiv)
    try:
        opened = session.decrypt(key, _sealed(response), covered)
    except CiphertextRejected:
        opened = None
    if opened != message.plaintext:
        raise XksError(ErrorName.INTERNAL, "the trial Decrypt did not give back the plaintext; nothing is returned")
    return response


def _response(sealed: Sealed, metadata: CiphertextMetadata, cdiv: bytes | None = None) -> EncryptResponse:
    return EncryptResponse(
        sealed.ciphertext,
        sealed.initialization_vector,
        sealed.authentication_tag,
        metadata.to_bytes(),
        cdiv,
    )


def _sealed(response: EncryptResponse) -> Sealed:
    return Sealed(response.initialization_vector, response.ciphertext, response.authentication_tag)
