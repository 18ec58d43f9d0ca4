"""Proxies that are honest but for one mistake with what they encrypt or decrypt."""

# ruff: noqa: D101, D102 (the names say it)

import hmac
from typing import Any

import msgspec
from tests.witness.check.honest_proxy import DECRYPT, ENCRYPT, ENCRYPT_ONLY, NO_USE, HonestProxy

from holdfast.xks.aad import ciphertext_data_integrity_value
from holdfast.xks.encoding import encode_base64
from holdfast.xks.errors import ErrorName, XksError
from holdfast.xks.messages import DecryptRequest, DecryptResponse, EncryptRequest, EncryptResponse


class Remembers(HonestProxy):
    """Answers Decrypt from memory by all fields but the one that it should not have overlooked."""

    overlooked = ""

    def __init__(self) -> None:
        super().__init__()
        self.memory: dict[tuple[object, ...], bytes] = {}

    def encrypt(self, key: str, body: bytes) -> bytes:
        answer = super().encrypt(key, body)
        request, made = EncryptRequest.parse(body), EncryptResponse.parse(answer)
        self.memory[self.fields(key, request.aad, made)] = request.plaintext
        return answer

    def decrypt(self, key: str, body: bytes) -> bytes:
        request = self.parse_decrypt(body)
        self.allow(key, DECRYPT)
        known = self.memory.get(self.fields(key, request.aad, request))
        return super().decrypt(key, body) if known is None else DecryptResponse(known).to_json()

    def fields(self, key: str, aad: bytes | None, of: EncryptResponse | DecryptRequest) -> tuple[object, ...]:
        named = {
            "key": key,
            "aad": aad,
            "ciphertext": of.ciphertext,
            "iv": of.initialization_vector,
            "tag": of.authentication_tag,
            "metadata": of.ciphertext_metadata,
        }
        return tuple(value for name, value in named.items() if name != self.overlooked)


class CiphertextOverlooked(Remembers):
    overlooked = "ciphertext"


class TagOverlooked(Remembers):
    overlooked = "tag"


class IvOverlooked(Remembers):
    overlooked = "iv"


class KeyOverlooked(Remembers):
    overlooked = "key"


class CorruptedAfterTheTrial(HonestProxy):
    """A bit flips after the trial decrypt, and the CDIV is computed last: what the spec's Appendix C warns of."""

    def parse_encrypt(self, body: bytes) -> EncryptRequest:
        self.request = super().parse_encrypt(body)
        return self.request

    def encrypt_response(self, response: EncryptResponse) -> bytes:
        if response.ciphertext_data_integrity_value is None:
            return super().encrypt_response(response)
        flipped = bytes([response.ciphertext[0] ^ 1]) + response.ciphertext[1:]
        cdiv = ciphertext_data_integrity_value(
            self.request.aad,
            response.ciphertext_metadata or b"",
            initialization_vector=response.initialization_vector,
            ciphertext=flipped,
            tag=response.authentication_tag,
        )
        return super().encrypt_response(
            msgspec.structs.replace(response, ciphertext=flipped, ciphertext_data_integrity_value=cdiv)
        )


class AnotherPlaintext(HonestProxy):
    def decrypt_response(self, plaintext: bytes) -> bytes:
        return super().decrypt_response(bytes(len(plaintext)))


class HardlyEncrypts(HonestProxy):
    """Encrypts eight bytes, and authenticates the whole."""

    def seal(self, key: str, iv: bytes, plaintext: bytes, aad: bytes) -> bytes:
        head = bytes(a ^ b for a, b in zip(plaintext[:8], iv, strict=False))
        ciphertext = head + plaintext[8:]
        return ciphertext + hmac.digest(self.key_bytes[key], iv + aad + ciphertext, "sha256")[:16]

    def open(self, key: str, iv: bytes, output: bytes, aad: bytes) -> bytes:
        plaintext = bytes(a ^ b for a, b in zip(output[:-16][:8], iv, strict=False)) + output[:-16][8:]
        if self.seal(key, iv, plaintext, aad) != output:
            raise XksError(ErrorName.INVALID_CIPHERTEXT, "the tag does not match")
        return plaintext


class AbsentAadIsAnother(HonestProxy):
    def gcm_aad(self, aad: bytes | None, metadata: bytes | None) -> bytes:
        return super().gcm_aad(aad, metadata) + (b"absent" if aad is None else b"")


class EncryptNotImplemented(HonestProxy):
    def encrypt(self, key: str, _body: bytes) -> bytes:
        self.allow(key, ENCRYPT)
        raise XksError(ErrorName.UNSUPPORTED_OPERATION, "Encrypt")


class SmallBodies(HonestProxy):
    def parse_encrypt(self, body: bytes) -> EncryptRequest:
        if len(body) > 16_000:
            raise XksError(ErrorName.UNSUPPORTED_OPERATION, "the body is longer than 16,000 bytes")
        return super().parse_encrypt(body)


class EmptyPlaintextRefused(HonestProxy):
    def parse_encrypt(self, body: bytes) -> EncryptRequest:
        request = super().parse_encrypt(body)
        if not request.plaintext:
            raise XksError(ErrorName.VALIDATION, "plaintext is empty")
        return request


class MissingAlgorithmCrashes(HonestProxy):
    def parse_encrypt(self, body: bytes) -> EncryptRequest:
        if body.startswith(b"{") and body.endswith(b"}") and b'"encryptionAlgorithm"' not in body:
            raise XksError(ErrorName.INTERNAL, "KeyError: 'encryptionAlgorithm'")
        return super().parse_encrypt(body)


class BadJsonCrashes(HonestProxy):
    def parse_encrypt(self, body: bytes) -> EncryptRequest:
        try:
            msgspec.json.decode(body)
        except msgspec.DecodeError:
            raise XksError(ErrorName.INTERNAL, "the body is not JSON") from None
        return super().parse_encrypt(body)


class ForeignCharactersSkipped(HonestProxy):
    """Decodes Base64 as Python does without `validate`."""

    def parse_encrypt(self, body: bytes) -> EncryptRequest:
        return super().parse_encrypt(body.replace(b'"plaintext": "!!!!"', b'"plaintext": ""'))


class ForeignCharactersSkippedInAad(HonestProxy):
    def parse_encrypt(self, body: bytes) -> EncryptRequest:
        return super().parse_encrypt(body.replace(b'Data": "!!!!"', b'Data": ""'))


class BadBase64Crashes(HonestProxy):
    def parse_decrypt(self, body: bytes) -> DecryptRequest:
        if b'"!!!!"' in body:
            raise XksError(ErrorName.INTERNAL, "binascii.Error")
        return super().parse_decrypt(body)


class LastDuplicateWins(HonestProxy):
    def parse_encrypt(self, body: bytes) -> EncryptRequest:
        try:
            body = msgspec.json.encode(msgspec.json.decode(body, type=dict[str, Any]))
        except msgspec.DecodeError:
            return super().parse_encrypt(body)
        return super().parse_encrypt(body)


class OddIvCrashes(HonestProxy):
    def parse_decrypt(self, body: bytes) -> DecryptRequest:
        if len(msgspec.json.decode(body).get("initializationVector", "!!!!")) not in (4, 16, 24):
            raise XksError(ErrorName.INTERNAL, "CKR_MECHANISM_PARAM_INVALID")
        return super().parse_decrypt(body)


class LongMetadataCut(HonestProxy):
    def parse_decrypt(self, body: bytes) -> DecryptRequest:
        wire = msgspec.json.decode(body)
        if len(text := wire.get("ciphertextMetadata", "")) > 27:
            wire["ciphertextMetadata"] = encode_base64(self.first_bytes(text))
        return super().parse_decrypt(msgspec.json.encode(wire))

    def first_bytes(self, text: str) -> bytes:
        length = len(self.ciphertext_metadata() or b"")
        return msgspec.json.decode(f'"{text}"', type=bytes)[:length]


class MissingFieldCrashes(HonestProxy):
    def parse_decrypt(self, body: bytes) -> DecryptRequest:
        if b'"ciphertext"' not in body:
            raise XksError(ErrorName.INTERNAL, "KeyError: 'ciphertext'")
        return super().parse_decrypt(body)


class AnyDecryptAlgorithm(HonestProxy):
    def parse_decrypt(self, body: bytes) -> DecryptRequest:
        return super().parse_decrypt(body.replace(b"AES_CBC", b"AES_GCM"))


class DecryptsWithAnEncryptOnlyKey(HonestProxy):
    """Its trial decrypts are stricter than its Decrypt."""

    free = ENCRYPT_ONLY

    def decrypt(self, key: str, body: bytes) -> bytes:
        if key != self.free:
            return super().decrypt(key, body)
        request = self.parse_decrypt(body)
        aad = self.gcm_aad(request.aad, request.ciphertext_metadata)
        output = request.ciphertext + request.authentication_tag
        return self.decrypt_response(self.open(key, request.initialization_vector, output, aad))


class DecryptsWithAKeyOfNoUse(DecryptsWithAnEncryptOnlyKey):
    free = NO_USE
