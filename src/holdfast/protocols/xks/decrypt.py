"""Decrypt (spec, "Decrypt")."""

from dataclasses import replace
from typing import Final

from holdfast.hsm.faults import KeyUsageRefused
from holdfast.hsm.port import KeySession, Sealed
from holdfast.keys.model import ExternalKey, Generation
from holdfast.keys.states import GenerationState
from holdfast.protocols.xks.authorization import authorize
from holdfast.protocols.xks.request import Request, locator_of, run_on
from holdfast.protocols.xks.services import Services
from holdfast.xks.aad import CiphertextMetadata, aws_sample_hsm_aad, hsm_aad, is_foreign_metadata
from holdfast.xks.errors import ErrorName, XksError
from holdfast.xks.messages import DecryptRequest, DecryptResponse
from holdfast.xks.types import Operation

_FOR_THE_HSM: Final = 0.1
"""Seconds of the deadline that are left for the HSM when the catalog was read once more."""


async def answer(request: Request, services: Services) -> bytes:
    """The body of the Decrypt response. Raises XksError, AccessDenied and HsmFault."""
    message = DecryptRequest.parse(request.body)
    request.note(message.request_metadata)
    authorize(request, message.request_metadata, operation=Operation.DECRYPT, services=services)
    generation, covered = await _generation_and_aad(request, message, services)
    _require_in_use(generation, request)
    key = locator_of(generation)
    sealed = Sealed(message.initialization_vector, message.ciphertext, message.authentication_tag)

    def open_sealed(session: KeySession) -> bytes:
        return session.decrypt(key, sealed, covered)

    plaintext = await run_on(generation, open_sealed, request=request, services=services)
    return DecryptResponse(plaintext).to_json()


async def _generation_and_aad(
    request: Request, message: DecryptRequest, services: Services
) -> tuple[Generation, bytes]:
    key = request.enabled_key()
    metadata = message.ciphertext_metadata or b""
    if key.takeover is not None and is_foreign_metadata(metadata):
        # Made by AWS's sample proxy, under whatever `ciphertext_metadata_b64` it had at the time; the metadata is
        # authenticated. That proxy has one HSM key per external key: generation 1 here.
        return key.generations[1], aws_sample_hsm_aad(message.aad, metadata)
    parsed = CiphertextMetadata.parse(metadata)
    return await _generation(key, parsed, request, services), hsm_aad(message.aad, metadata, parsed.framing)


async def _generation(
    key: ExternalKey, metadata: CiphertextMetadata, request: Request, services: Services
) -> Generation:
    """The generation that made a ciphertext. Raises XksError and HsmFault."""
    if metadata.tag is not None and metadata.tag != key.tag:
        await _require_decrypt(key, request, services)
        raise XksError(ErrorName.INVALID_CIPHERTEXT, "the ciphertext was made with another external key")
    generation = key.generations.get(metadata.generation)
    if generation is None and metadata.tag is None:
        # Only a key of format 2 rotates (decision 0020): in format 1 there is no generation still to come.
        raise XksError(ErrorName.INVALID_CIPHERTEXT, "ciphertextMetadata names a key generation that does not exist")
    if generation is None or generation.state is GenerationState.PLANNED:
        generation = await _read_again(metadata.generation, request, services)
    return generation


async def _read_again(number: int, request: Request, services: Services) -> Generation:
    """A generation of which this node may not have heard yet. Never an invalid ciphertext: it may be good."""
    if not await services.look_again(request.deadline - _FOR_THE_HSM):
        raise XksError(ErrorName.DEPENDENCY_TIMEOUT, "the proxy could not read its catalog in time")
    keystore = services.snapshot().keystores.get(request.keystore.prefix.value)
    now_there = request.keystore if keystore is None else keystore.at(request.now)
    key = replace(request, keystore=now_there).enabled_key()
    generation = key.generations.get(number)
    if generation is None or generation.state is GenerationState.PLANNED:
        raise XksError(
            ErrorName.INTERNAL,
            f"generation {number} of the external key is not known here yet, or was lost with an older catalog",
        )
    return generation


async def _require_decrypt(key: ExternalKey, request: Request, services: Services) -> None:
    """Raises KeyUsageRefused for a key that decrypts nothing; a key that is known needs no C_ call for that."""
    locator = locator_of(key.active)
    attributes = await run_on(
        key.active, lambda session: session.describe(locator), request=request, services=services
    )
    if "DECRYPT" not in attributes.key_usage:
        raise KeyUsageRefused(f"the attributes of the key {key.active.label!r} do not permit C_Decrypt")


def _require_in_use(generation: Generation, request: Request) -> None:
    """Raises XksError(INVALID_STATE); the event names the generation also then."""
    request.event.generation = generation.number
    if generation.state.withheld:
        raise XksError(ErrorName.INVALID_STATE, f"this generation of the external key is {generation.state}")
