"""Encrypt (spec, "Encrypt" and Appendix C)."""

from holdfast.hsm.faults import CiphertextRejected, KeyStopped, KeyUsageRefused
from holdfast.hsm.port import KeyLocator, KeySession, Sealed
from holdfast.keys.states import GenerationState
from holdfast.protocols.xks.authorization import authorize
from holdfast.protocols.xks.request import Request, hsm_of, locator_of, run_on
from holdfast.protocols.xks.services import Services
from holdfast.xks.aad import CiphertextMetadata, ciphertext_data_integrity_value, hsm_aad
from holdfast.xks.errors import ErrorName, XksError
from holdfast.xks.messages import EncryptRequest, EncryptResponse
from holdfast.xks.types import Operation


async def answer(request: Request, services: Services) -> bytes:
    """The body of the Encrypt response. Raises XksError and every fault of `faults.WIRE`."""
    message = EncryptRequest.parse(request.body)
    request.note(message.request_metadata)
    authorize(request, message.request_metadata, operation=Operation.ENCRYPT, services=services)
    external_key = request.enabled_key()
    generation = external_key.active
    request.event.generation = generation.number
    if generation.state is not GenerationState.ACTIVE:
        # Only where a machine remembers more than an older catalog says.
        raise XksError(ErrorName.INVALID_STATE, f"the generation that would encrypt is {generation.state}")
    if generation.stopped is not None:
        raise KeyStopped(f"the key is stopped: {generation.stopped}. `holdfast key release` lets it encrypt again")
    key = locator_of(generation)
    metadata = external_key.metadata(hsm_of(generation, services).aad_framing)
    octets = metadata.to_bytes()
    covered = hsm_aad(message.aad, octets, metadata.framing)
    await services.budget.take(generation, deadline=request.deadline)

    def seal(session: KeySession) -> EncryptResponse:
        if message.wants_cdiv:
            return _seal_with_cdiv(session, key, message, octets, covered)
        return _response(session.encrypt(key, message.plaintext, covered), octets)

    response = await run_on(generation, seal, request=request, services=services)
    return response.to_json()


def _seal_with_cdiv(
    session: KeySession, key: KeyLocator, message: EncryptRequest, metadata: bytes, covered: bytes
) -> EncryptResponse:
    """`covered` is the AAD that the HSM gets, which binds `metadata`."""
    if "DECRYPT" not in session.describe(key).key_usage:
        raise KeyUsageRefused("a CDIV needs a trial decryption, and the key does not permit C_Decrypt")
    sealed = session.encrypt(key, message.plaintext, covered)
    # Spec, Appendix C: the CDIV is computed before the trial Decrypt, so that corruption in between shows.
    cdiv = ciphertext_data_integrity_value(
        message.aad,
        metadata,
        initialization_vector=sealed.initialization_vector,
        ciphertext=sealed.ciphertext,
        tag=sealed.authentication_tag,
    )
    response = _response(sealed, metadata, cdiv)
    if _trial_decrypt(session, key, response, message.aad) != message.plaintext:
        raise XksError(ErrorName.INTERNAL, "the trial Decrypt did not give back the plaintext; nothing is returned")
    return response


def _trial_decrypt(
    session: KeySession, key: KeyLocator, response: EncryptResponse, aad: bytes | None
) -> bytes | None:
    """What a Decrypt of the response will give: nothing but what is returned is used. None: a refusal."""
    metadata = response.ciphertext_metadata or b""
    sealed = Sealed(response.initialization_vector, response.ciphertext, response.authentication_tag)
    try:
        return session.decrypt(key, sealed, hsm_aad(aad, metadata, CiphertextMetadata.parse(metadata).framing))
    except (CiphertextRejected, XksError):
        return None


def _response(sealed: Sealed, metadata: bytes, cdiv: bytes | None = None) -> EncryptResponse:
    return EncryptResponse(sealed.ciphertext, sealed.initialization_vector, sealed.authentication_tag, metadata, cdiv)
