"""Encrypt, Decrypt, ReEncrypt, GenerateDataKey, GenerateDataKeyWithoutPlaintext and GenerateRandom.

A key in an external key store encrypts twice: first KMS with its own key material, then the proxy.
"""

from collections.abc import Mapping

import msgspec

from holdfast.kms.blob import (
    MAX_AAD,
    Blob,
    InvalidBlob,
    associated_data,
    header_of,
    seal,
    unseal,
)
from holdfast.kms.call import Call, Output, Service
from holdfast.kms.errors import KmsException, of_failure, unsupported, validation_error
from holdfast.kms.gateway import Trail
from holdfast.kms.key_lookup import key_or_alias, store_of
from holdfast.kms.proxy_client import ProxyFailure
from holdfast.kms.records import CONNECTED, Key
from holdfast.xks.kms_errors import Failure, OperationGroup
from holdfast.xks.messages import EncryptResponse

_ALGORITHM = "SYMMETRIC_DEFAULT"
_DATA_KEY_BYTES = {"AES_256": 32, "AES_128": 16}
_IV_LENGTH = 12


async def encrypt(call: Call, service: Service) -> Output:
    """Encrypt: at most 4,096 bytes."""
    key = _usable(key_or_alias(call.input["KeyId"], service), call, service)
    _stop_dry_run(call)
    blob = await _seal(key, call.input["Plaintext"], call.input.get("EncryptionContext", {}), call, service)
    return {"CiphertextBlob": blob, "KeyId": service.arn(f"key/{key.id}"), "EncryptionAlgorithm": _ALGORITHM}


async def decrypt(call: Call, service: Service) -> Output:
    """Decrypt: the blob names its key; a KeyId in the request must name the same."""
    blob = _parse(call.input.get("CiphertextBlob"))
    key = _usable(_key_of_blob(blob, call.input.get("KeyId"), service), call, service)
    _stop_dry_run(call)
    plaintext = await _unseal(key, blob, call.input.get("EncryptionContext", {}), call, service)
    return {"KeyId": service.arn(f"key/{key.id}"), "Plaintext": plaintext, "EncryptionAlgorithm": _ALGORITHM}


async def re_encrypt(call: Call, service: Service) -> Output:
    """ReEncrypt: the plaintext never leaves KMS."""
    blob = _parse(call.input.get("CiphertextBlob"))
    source = _usable(_key_of_blob(blob, call.input.get("SourceKeyId"), service), call, service)
    destination = _usable(key_or_alias(call.input["DestinationKeyId"], service), call, service)
    _stop_dry_run(call)
    plaintext = await _unseal(source, blob, call.input.get("SourceEncryptionContext", {}), call, service)
    context = call.input.get("DestinationEncryptionContext", {})
    return {
        "CiphertextBlob": await _seal(destination, plaintext, context, call, service),
        "SourceKeyId": service.arn(f"key/{source.id}"),
        "KeyId": service.arn(f"key/{destination.id}"),
        "SourceEncryptionAlgorithm": _ALGORITHM,
        "DestinationEncryptionAlgorithm": _ALGORITHM,
    }


async def generate_data_key(call: Call, service: Service) -> Output:
    """GenerateDataKey: a data key, in clear and encrypted."""
    given = call.input
    if ("KeySpec" in given) == ("NumberOfBytes" in given):
        raise validation_error("Please specify either number of bytes or key spec.")
    length = given.get("NumberOfBytes") or _DATA_KEY_BYTES[given["KeySpec"]]
    key = _usable(key_or_alias(given["KeyId"], service), call, service)
    _stop_dry_run(call)
    plaintext = service.random(length)
    blob = await _seal(key, plaintext, given.get("EncryptionContext", {}), call, service)
    return {"CiphertextBlob": blob, "Plaintext": plaintext, "KeyId": service.arn(f"key/{key.id}")}


async def generate_data_key_without_plaintext(call: Call, service: Service) -> Output:
    """GenerateDataKeyWithoutPlaintext: a data key, encrypted only."""
    output = await generate_data_key(call, service)
    return {name: value for name, value in output.items() if name != "Plaintext"}


async def generate_random(call: Call, service: Service) -> Output:
    """GenerateRandom."""
    if "CustomKeyStoreId" in call.input:
        # KMS has this for CloudHSM key stores only.
        raise KmsException(
            "UnsupportedOperationException", "GenerateRandom is not supported in an external key store."
        )
    _refuse_recipient(call)
    return {"Plaintext": service.random(call.input.get("NumberOfBytes", 32))}


def _parse(raw: bytes | None) -> Blob:
    if raw is None:
        raise validation_error(
            "1 validation error detected: Value at 'ciphertextBlob' failed to satisfy constraint: "
            "Member must not be null"
        )
    try:
        return Blob.parse(raw)
    except InvalidBlob:
        raise _invalid_ciphertext() from None


def _key_of_blob(blob: Blob, named: str | None, service: Service) -> Key:
    made_by = service.state.find(Key, id=blob.key_id)
    if named is not None:
        key = key_or_alias(named, service)
        if made_by is None or key.id != made_by.id:
            raise KmsException(
                "IncorrectKeyException",
                "The key ID in the request does not identify a CMK that can perform this operation.",
            )
    if made_by is None or (made_by.key_store_id is not None) != isinstance(blob.sealed, EncryptResponse):
        raise _invalid_ciphertext()
    return made_by


def _usable(key: Key, call: Call, service: Service) -> Key:
    """The key, if its state, its store's state and the store's quota allow a cryptographic operation."""
    arn = service.arn(f"key/{key.id}")
    _refuse_recipient(call)
    for name in ("EncryptionAlgorithm", "SourceEncryptionAlgorithm", "DestinationEncryptionAlgorithm"):
        if call.input.get(name, _ALGORITHM) != _ALGORITHM:
            raise KmsException("InvalidKeyUsageException", f"{arn} key spec is SYMMETRIC_DEFAULT.")
    if call.input.get("GrantTokens"):
        raise KmsException("InvalidGrantTokenException", "The local KMS of Holdfast has no grants.")
    if key.deletion_date is not None:
        raise KmsException("KMSInvalidStateException", f"{arn} is pending deletion.")
    if not key.enabled:
        raise KmsException("DisabledException", f"{arn} is disabled.")
    if key.key_store_id is not None:
        if store_of(key, service).connection_state != CONNECTED:
            raise of_failure(ProxyFailure(Failure.NOT_CONNECTED, arn), OperationGroup.CRYPTOGRAPHIC)
        if not service.gateway.admit(key.key_store_id, call.operation):
            raise KmsException(
                "ThrottlingException",
                "You have exceeded the rate at which you may call KMS. Reduce the frequency of your calls.",
            )
    return key


def _refuse_recipient(call: Call) -> None:
    if "Recipient" in call.input:
        raise unsupported("Recipient (AWS Nitro Enclaves)")


async def _seal(key: Key, plaintext: bytes, context: Mapping[str, str], call: Call, service: Service) -> bytes:
    external = key.key_store_id is not None
    aad = _aad(header_of(key.id, external=external), context)
    sealed = seal(key.material, plaintext, aad, iv=service.random(_IV_LENGTH))
    if not external:
        return Blob(key.id, sealed).to_bytes()
    try:
        response = await service.gateway.encrypt(
            store_of(key, service), key.xks_key_id or "", plaintext=sealed, aad=aad, trail=_trail(key, call, service)
        )
    except ProxyFailure as failure:
        raise of_failure(failure, OperationGroup.CRYPTOGRAPHIC) from None
    return Blob(key.id, response).to_bytes()


async def _unseal(key: Key, blob: Blob, context: Mapping[str, str], call: Call, service: Service) -> bytes:
    aad = _aad(blob.header, context)
    if isinstance(blob.sealed, bytes):
        try:
            return unseal(key.material, blob.sealed, aad)
        except InvalidBlob:
            raise _invalid_ciphertext() from None
    try:
        sealed = await service.gateway.decrypt(
            store_of(key, service),
            key.xks_key_id or "",
            sealed=blob.sealed,
            aad=aad,
            trail=_trail(key, call, service),
        )
        return unseal(key.material, sealed, aad)
    except ProxyFailure as failure:
        raise of_failure(failure, OperationGroup.CRYPTOGRAPHIC) from None
    except InvalidBlob:
        inner = ProxyFailure(Failure.INVALID_CIPHERTEXT_RETURNED, "KMS's own layer does not decrypt")
        raise of_failure(inner, OperationGroup.CRYPTOGRAPHIC) from None


def _aad(header: bytes, context: Mapping[str, str]) -> bytes:
    length = sum(4 + len(key.encode()) + len(value.encode()) for key, value in context.items())
    if len(header) + length > MAX_AAD:
        raise validation_error(f"The encryption context is longer than {MAX_AAD - len(header)} bytes.")
    return associated_data(header, context)


def _trail(key: Key, call: Call, service: Service) -> Trail:
    metadata = msgspec.structs.replace(
        call.trail.metadata, kms_key_arn=service.arn(f"key/{key.id}"), kms_via_service=call.caller.via_service
    )
    # The notes are shared: they go to the event of the call.
    return Trail(metadata, call.trail.notes)


def _stop_dry_run(call: Call) -> None:
    if call.input.get("DryRun"):
        raise KmsException(
            "DryRunOperationException", "The request would have succeeded, but the DryRun option is set."
        )


def _invalid_ciphertext() -> KmsException:
    return KmsException("InvalidCiphertextException", "")
