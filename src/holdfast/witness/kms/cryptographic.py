"""Encrypt, Decrypt, ReEncrypt, GenerateDataKey, GenerateDataKeyPair, those WithoutPlaintext, and GenerateRandom.

A key in an external key store encrypts twice: first KMS with its own key material, then the proxy.
"""

import asyncio
from collections.abc import Mapping

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from holdfast.witness.kms import aws_managed
from holdfast.witness.kms.blob import MAX_AAD, Blob, InvalidBlob, associated_data, header_of, seal, unseal
from holdfast.witness.kms.call import Call, Output, Service, Use, stop_dry_run
from holdfast.witness.kms.errors import KmsException, of_failure, validation_error
from holdfast.witness.kms.gateway import Trail
from holdfast.witness.kms.grants import require_tokens
from holdfast.witness.kms.key_lookup import key_or_alias, require_state, store_of, wrong_origin
from holdfast.witness.kms.key_stores import of_id as store_of_id
from holdfast.witness.kms.proxy_client import ProxyFailure
from holdfast.witness.kms.records import Key, Rotation
from holdfast.witness.kms_errors import Failure, OperationGroup
from holdfast.xks.messages import EncryptResponse

_ALGORITHM = "SYMMETRIC_DEFAULT"
_DATA_KEY_BYTES = {"AES_256": 32, "AES_128": 16}
_IV_LENGTH = 12
_CURVES = {
    "ECC_NIST_P256": ec.SECP256R1(),
    "ECC_NIST_P384": ec.SECP384R1(),
    "ECC_NIST_P521": ec.SECP521R1(),
    "ECC_SECG_P256K1": ec.SECP256K1(),
}
_MODULUS_BITS = {"RSA_2048": 2048, "RSA_3072": 3072, "RSA_4096": 4096}


async def encrypt(call: Call, service: Service) -> Output:
    """Encrypt: at most 4,096 bytes."""
    key = _usable(key_or_alias(call, service), call, service)
    stop_dry_run(call)
    blob = await _seal(key, call.input["Plaintext"], call.input.get("EncryptionContext", {}), call, service)
    return {"CiphertextBlob": blob, "KeyId": service.arn(f"key/{key.id}"), "EncryptionAlgorithm": _ALGORITHM}


async def decrypt(call: Call, service: Service) -> Output:
    """Decrypt: the blob names its key; a KeyId in the request must name the same."""
    blob = _parse(call.input.get("CiphertextBlob"))
    key = _usable(_key_of_blob(blob, call, service, "KeyId"), call, service)
    stop_dry_run(call)
    plaintext = await _unseal(key, blob, call.input.get("EncryptionContext", {}), call, service)
    return {"KeyId": service.arn(f"key/{key.id}"), "Plaintext": plaintext, "EncryptionAlgorithm": _ALGORITHM}


async def re_encrypt(call: Call, service: Service) -> Output:
    """ReEncrypt: the plaintext never leaves KMS."""
    blob = _parse(call.input.get("CiphertextBlob"))
    source = _usable(_key_of_blob(blob, call, service, "SourceKeyId"), call, service)
    destination = _usable(key_or_alias(call, service, "DestinationKeyId"), call, service)
    stop_dry_run(call)
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
    key = _usable(key_or_alias(call, service), call, service)
    stop_dry_run(call)
    plaintext = service.random(length)
    blob = await _seal(key, plaintext, given.get("EncryptionContext", {}), call, service)
    return {"CiphertextBlob": blob, "Plaintext": plaintext, "KeyId": service.arn(f"key/{key.id}")}


async def generate_data_key_without_plaintext(call: Call, service: Service) -> Output:
    """GenerateDataKeyWithoutPlaintext: a data key, encrypted only."""
    output = await generate_data_key(call, service)
    return {name: value for name, value in output.items() if name != "Plaintext"}


async def generate_data_key_pair(call: Call, service: Service) -> Output:
    """GenerateDataKeyPair, for ordinary keys: the private key in clear (PKCS #8) and encrypted, the public key."""
    key = key_or_alias(call, service)
    if key.key_store_id is not None:
        raise wrong_origin(key, service)
    _usable(key, call, service)
    spec = call.input["KeyPairSpec"]
    if spec not in _CURVES and spec not in _MODULUS_BITS:
        raise KmsException("UnsupportedOperationException", f"KeyPairSpec {spec} is not part of this local KMS.")
    stop_dry_run(call)
    private_key, public_key = await asyncio.to_thread(_key_pair, spec)
    return {
        "PrivateKeyCiphertextBlob": await _seal(
            key, private_key, call.input.get("EncryptionContext", {}), call, service
        ),
        "PrivateKeyPlaintext": private_key,
        "PublicKey": public_key,
        "KeyId": service.arn(f"key/{key.id}"),
        "KeyPairSpec": spec,
    }


async def generate_data_key_pair_without_plaintext(call: Call, service: Service) -> Output:
    """GenerateDataKeyPairWithoutPlaintext: the private key is encrypted only."""
    output = await generate_data_key_pair(call, service)
    return {name: value for name, value in output.items() if name != "PrivateKeyPlaintext"}


def _key_pair(spec: str) -> tuple[bytes, bytes]:
    """A new key pair, in DER: PKCS #8 and SubjectPublicKeyInfo."""
    private_key = (
        ec.generate_private_key(_CURVES[spec])
        if spec in _CURVES
        else rsa.generate_private_key(public_exponent=65537, key_size=_MODULUS_BITS[spec])
    )
    return (
        private_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
        private_key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
    )


async def generate_random(call: Call, service: Service) -> Output:
    """GenerateRandom."""
    if "CustomKeyStoreId" in call.input:
        # KMS has this for CloudHSM key stores only.
        store_of_id(call, service)
        raise KmsException(
            "UnsupportedOperationException", "GenerateRandom is not supported in an external key store."
        )
    _refuse_recipient(call)
    if "NumberOfBytes" not in call.input:
        raise validation_error("NumberOfBytes is required.")
    return {"Plaintext": service.random(call.input["NumberOfBytes"])}


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


def _key_of_blob(blob: Blob, call: Call, service: Service, member: str) -> Key:
    made_by = service.state.find(Key, id=blob.key_id)
    if member in call.input:
        key = key_or_alias(call, service, member)
        if made_by is None or key.id != made_by.id:
            raise KmsException(
                "IncorrectKeyException",
                "The key ID in the request does not identify a CMK that can perform this operation.",
            )
    if made_by is None or (made_by.key_store_id is not None) != isinstance(blob.sealed, EncryptResponse):
        raise _invalid_ciphertext()
    aws_managed.require_access(made_by, call, service)
    require_state(made_by, call, service)
    return made_by


def _usable(key: Key, call: Call, service: Service) -> Key:
    """The key, if the algorithm fits it and the quota of its key store allows a cryptographic operation."""
    arn = service.arn(f"key/{key.id}")
    _refuse_recipient(call)
    for name in ("EncryptionAlgorithm", "SourceEncryptionAlgorithm", "DestinationEncryptionAlgorithm"):
        if call.input.get(name, _ALGORITHM) != _ALGORITHM:
            raise KmsException("InvalidKeyUsageException", f"{arn} key spec is SYMMETRIC_DEFAULT.")
    require_tokens(call, service)
    if key.key_store_id is not None and not service.gateway.admit(key.key_store_id, call.operation):
        raise KmsException(
            "ThrottlingException",
            "You have exceeded the rate at which you may call KMS. Reduce the frequency of your calls.",
        )
    return key


def _refuse_recipient(call: Call) -> None:
    if "Recipient" in call.input:
        raise validation_error("Recipient is for AWS Nitro Enclaves, which the local KMS of Holdfast does not have.")


async def _seal(key: Key, plaintext: bytes, context: Mapping[str, str], call: Call, service: Service) -> bytes:
    external = key.key_store_id is not None
    aad = _aad(header_of(key.id, external=external), context)
    sealed = seal(key.material, plaintext, aad, iv=service.random(_IV_LENGTH))
    if not external:
        _used(key, call, service)
        return Blob(key.id, sealed).to_bytes()
    try:
        response = await service.gateway.encrypt(
            store_of(key, service), key.xks_key_id or "", plaintext=sealed, aad=aad, trail=_trail(key, call, service)
        )
    except ProxyFailure as failure:
        raise of_failure(failure, OperationGroup.CRYPTOGRAPHIC) from None
    _used(key, call, service)
    return Blob(key.id, response).to_bytes()


async def _unseal(key: Key, blob: Blob, context: Mapping[str, str], call: Call, service: Service) -> bytes:
    aad = _aad(blob.header, context)
    if isinstance(blob.sealed, bytes):
        plaintext = _with_any_material(key, blob.sealed, aad, service)
        _used(key, call, service)
        return plaintext
    try:
        sealed = await service.gateway.decrypt(
            store_of(key, service),
            key.xks_key_id or "",
            sealed=blob.sealed,
            aad=aad,
            trail=_trail(key, call, service),
        )
        plaintext = unseal(key.material, sealed, aad)
    except ProxyFailure as failure:
        raise of_failure(failure, OperationGroup.CRYPTOGRAPHIC) from None
    except InvalidBlob:
        inner = ProxyFailure(Failure.INVALID_CIPHERTEXT_RETURNED, "KMS's own layer does not decrypt")
        raise of_failure(inner, OperationGroup.CRYPTOGRAPHIC) from None
    _used(key, call, service)
    return plaintext


def _with_any_material(key: Key, sealed_by_kms: bytes, aad: bytes, service: Service) -> bytes:
    """The plaintext under the key's material, or under one that a rotation has replaced."""
    replaced = (rotation.replaced for rotation in reversed(service.state.select(Rotation, key_id=key.id)))
    for material in (key.material, *replaced):
        try:
            return unseal(material, sealed_by_kms, aad)
        except InvalidBlob:
            continue
    raise _invalid_ciphertext()


def _used(key: Key, call: Call, service: Service) -> None:
    service.last_uses[key.id] = Use(call.operation, service.timestamp(), call.trail.metadata.kms_request_id)


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


def _invalid_ciphertext() -> KmsException:
    return KmsException("InvalidCiphertextException", "")
