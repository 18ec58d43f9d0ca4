"""Proxies that are honest but for one mistake each."""

# ruff: noqa: D101, D102 (the names say it)

import time
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import msgspec
from tests.witness.check.honest_proxy import ENCRYPT, Answer, Headers, HonestProxy

from holdfast.xks.aad import AadFraming, ciphertext_data_integrity_value, hsm_aad
from holdfast.xks.encoding import encode_base64
from holdfast.xks.errors import ErrorName, XksError
from holdfast.xks.messages import DecryptRequest, EncryptRequest, EncryptResponse, ErrorResponse
from holdfast.xks.types import HealthStatus
from holdfast.xks.uri import Target


class AadIgnored(HonestProxy):
    def gcm_aad(self, _aad: bytes | None, metadata: bytes | None) -> bytes:
        return hsm_aad(None, metadata or b"", AadFraming.SPEC)


class MetadataNotBound(HonestProxy):
    def gcm_aad(self, aad: bytes | None, _metadata: bytes | None) -> bytes:
        return hsm_aad(aad, b"", AadFraming.SPEC)


class AadWithoutLengths(HonestProxy):
    def gcm_aad(self, aad: bytes | None, metadata: bytes | None) -> bytes:
        return (aad or b"") + (metadata or b"")


class NoTrialDecrypt(HonestProxy):
    def trial_decrypt(self, *_args: object) -> None:
        """Trusts the encryption."""


class CdivMissing(HonestProxy):
    def cdiv(self, *_args: object) -> bytes | None:
        return None


class CdivWithoutAad(HonestProxy):
    def cdiv(self, _aad: bytes | None, metadata: bytes, iv: bytes, ciphertext: bytes, tag: bytes) -> bytes | None:
        return ciphertext_data_integrity_value(
            None, metadata, initialization_vector=iv, ciphertext=ciphertext, tag=tag
        )


class ConstantIv(HonestProxy):
    def fresh_iv(self) -> bytes:
        return b"constant-iv."


class ZeroIv(HonestProxy):
    def fresh_iv(self) -> bytes:
        return bytes(12)


class HiddenConstantIv(HonestProxy):
    """Says another IV than the one in use, and finds the right one again: only the ciphertext betrays it."""

    def encrypt_response(self, response: EncryptResponse) -> bytes:
        return super().encrypt_response(replace_struct(response, initialization_vector=super().fresh_iv()))

    def fresh_iv(self) -> bytes:
        return b"constant-iv."

    def cdiv(self, *_args: object) -> bytes | None:
        raise XksError(ErrorName.THROTTLING, "later")

    def open(self, key: str, _iv: bytes, output: bytes, aad: bytes) -> bytes:
        return super().open(key, b"constant-iv.", output, aad)


class ShortTag(HonestProxy):
    def encrypt_response(self, response: EncryptResponse) -> bytes:
        return super().encrypt_response(replace_struct(response, authentication_tag=response.authentication_tag[:12]))


class TagLeftInCiphertext(HonestProxy):
    def encrypt_response(self, response: EncryptResponse) -> bytes:
        joined = response.ciphertext + response.authentication_tag
        return super().encrypt_response(replace_struct(response, ciphertext=joined))

    def parse_decrypt(self, body: bytes) -> DecryptRequest:
        request = super().parse_decrypt(body)
        joined: DecryptRequest = replace_struct(request, ciphertext=request.ciphertext[:-16])
        return joined


class LongIv(HonestProxy):
    def fresh_iv(self) -> bytes:
        return super().fresh_iv() + b"x"


class LongMetadata(HonestProxy):
    def ciphertext_metadata(self) -> bytes | None:
        return bytes(21)


class UrlSafeBase64(HonestProxy):
    def encrypt_response(self, response: EncryptResponse) -> bytes:
        return super().encrypt_response(response).replace(b"=", b"").replace(b"+", b"-")


class SmallPlaintext(HonestProxy):
    def parse_encrypt(self, body: bytes) -> EncryptRequest:
        request = super().parse_encrypt(body)
        if len(request.plaintext) > 4096:
            raise XksError(ErrorName.UNSUPPORTED_OPERATION, "at most 4096 bytes")
        return request


class SmallAad(HonestProxy):
    def parse_encrypt(self, body: bytes) -> EncryptRequest:
        request = super().parse_encrypt(body)
        if len(request.aad or b"") > 4096:
            raise XksError(ErrorName.UNSUPPORTED_OPERATION, "at most 4096 bytes")
        return request


class SmallCiphertext(HonestProxy):
    def parse_decrypt(self, body: bytes) -> DecryptRequest:
        request = super().parse_decrypt(body)
        if len(request.ciphertext) > 4096:
            raise XksError(ErrorName.UNSUPPORTED_OPERATION, "at most 4096 bytes")
        return request


class AnySignature(HonestProxy):
    def authenticate(self, method: str, path: bytes, headers: Headers, body: bytes) -> None:
        try:
            super().authenticate(method, path, headers, body)
        except XksError as error:
            if "signature does not match" not in error.message:
                raise


class UnsignedAccepted(HonestProxy):
    def authenticate(self, method: str, path: bytes, headers: Headers, body: bytes) -> None:
        if any(name == b"authorization" for name, _ in headers):
            super().authenticate(method, path, headers, body)


class UnsignedHealthAccepted(UnsignedAccepted):
    def authenticate(self, method: str, path: bytes, headers: Headers, body: bytes) -> None:
        if path.endswith(b"/health"):
            super().authenticate(method, path, headers, body)
        else:
            HonestProxy.authenticate(self, method, path, headers, body)


class BodyNotSigned(HonestProxy):
    """Accepts the changed body that the check sends."""

    def authenticate(self, method: str, path: bytes, headers: Headers, body: bytes) -> None:
        try:
            super().authenticate(method, path, headers, body)
        except XksError:
            if b"CreateCustomKeyStore" not in body:
                raise


class OldDates(HonestProxy):
    """Compares the date with itself."""

    def authenticate(self, method: str, path: bytes, headers: Headers, body: bytes) -> None:
        sent = next((value.decode() for name, value in headers if name == b"x-amz-date"), None)
        self.believed = datetime.fromisoformat(sent) if sent else None
        super().authenticate(method, path, headers, body)

    def now(self) -> datetime:
        return self.believed or super().now()


class TenMinutesOfSkew(HonestProxy):
    """Allows ten minutes where five are right."""

    def authenticate(self, method: str, path: bytes, headers: Headers, body: bytes) -> None:
        for minutes in (-5, 5):
            self.offset = timedelta(minutes=minutes)
            with suppress(XksError):
                return super().authenticate(method, path, headers, body)
        self.offset = timedelta()
        return super().authenticate(method, path, headers, body)

    def now(self) -> datetime:
        return super().now() + self.offset


class ClockWrong(HonestProxy):
    def now(self) -> datetime:
        return super().now() + timedelta(minutes=3)


class ListedOperationsOnly(HonestProxy):
    def metadata(self, key: str, body: bytes) -> bytes:
        if b"CreateKey" not in body:
            raise XksError(ErrorName.VALIDATION, "kmsOperation")
        return super().metadata(key, body)


class UuidDemanded(HonestProxy):
    def health(self, body: bytes) -> bytes:
        if len(msgspec.json.decode(body)["requestMetadata"]["kmsRequestId"]) != 36:
            raise XksError(ErrorName.VALIDATION, "kmsRequestId is not a UUID")
        return super().health(body)


class ShortArns(HonestProxy):
    def parse_encrypt(self, body: bytes) -> EncryptRequest:
        if b"p" * 1024 in body:
            raise XksError(ErrorName.VALIDATION, "awsPrincipalArn")
        return super().parse_encrypt(body)


class UnknownMetadataRefused(HonestProxy):
    def parse_decrypt(self, body: bytes) -> DecryptRequest:
        if b"SourceIdentity" in body:
            raise XksError(ErrorName.VALIDATION, "unknown field")
        return super().parse_decrypt(body)


class GetAccepted(HonestProxy):
    def wrong_method(self, _target: Target) -> Answer:
        return 200, b"{}"


class GetNotFound(HonestProxy):
    def wrong_method(self, _target: Target) -> Answer:
        return self.refuse(XksError(ErrorName.INVALID_URI_PATH, "no such path"))


class WrongStatus(HonestProxy):
    def refuse(self, error: XksError) -> Answer:
        status, body = super().refuse(error)
        return 401 if status == 400 else status, body


class UnprintableMessage(HonestProxy):
    def refuse(self, error: XksError) -> Answer:
        return error.name.status, ErrorResponse(error.name, "Schlüssel\nfehlt").to_json()


class LongMessage(HonestProxy):
    def refuse(self, error: XksError) -> Answer:
        return error.name.status, ErrorResponse(error.name, "x" * 512).to_json()


class NoErrorBody(HonestProxy):
    def refuse(self, error: XksError) -> Answer:
        return error.name.status, b"<html>no</html>"


class HtmlContentType(HonestProxy):
    content_type = "text/html"


class KeyNotFoundAsInternal(HonestProxy):
    def refuse(self, error: XksError) -> Answer:
        if error.name is ErrorName.KEY_NOT_FOUND:
            error = XksError(ErrorName.INTERNAL, "oops")
        return super().refuse(error)


class HardCodedHealth(HonestProxy):
    """Its HSM is gone, and health says ACTIVE."""

    def operate(self, target: Target, body: bytes) -> bytes:
        if target.external_key_id is not None and target.operation.value in ("Encrypt", "Decrypt"):
            raise XksError(ErrorName.DEPENDENCY_TIMEOUT, "the HSM does not answer")
        return super().operate(target, body)


class HonestlyDown(HardCodedHealth):
    def health_status(self) -> HealthStatus:
        return HealthStatus.UNAVAILABLE


class HealthAuthorized(HonestProxy):
    def health(self, body: bytes) -> bytes:
        if b"UpdateCustomKeyStore" in body:
            raise XksError(ErrorName.ACCESS_DENIED, "policy")
        return super().health(body)


class EmptyFleet(HonestProxy):
    def health(self, body: bytes) -> bytes:
        return msgspec.json.encode(msgspec.json.decode(super().health(body)) | {"ekmFleetDetails": []})


class FleetOfZero(HonestProxy):
    def health(self, body: bytes) -> bytes:
        return msgspec.json.encode(msgspec.json.decode(super().health(body)) | {"xksProxyFleetSize": 0})


class UsageHardCoded(HonestProxy):
    def key_usage(self, _key: str) -> list[str]:
        return ["ENCRYPT", "DECRYPT"]


class UsageInLowerCase(HonestProxy):
    def key_usage(self, key: str) -> list[str]:
        return [usage.lower() for usage in super().key_usage(key)]


class EncryptsWithAnyKey(HonestProxy):
    def allow(self, key: str, usage: str) -> None:
        if key != "decrypt-only" or usage != ENCRYPT:
            super().allow(key, usage)


class AnyAlgorithm(HonestProxy):
    def parse_encrypt(self, body: bytes) -> EncryptRequest:
        return super().parse_encrypt(body.replace(b"AES_CBC", b"AES_GCM"))


class AnyCdivAlgorithm(HonestProxy):
    def parse_encrypt(self, body: bytes) -> EncryptRequest:
        return super().parse_encrypt(body.replace(b"SHA_1", b"SHA_256"))


class TruncatedTagAccepted(HonestProxy):
    """Completes a short tag from the one that it computes, as a careless GCM interface does."""

    def parse_decrypt(self, body: bytes) -> DecryptRequest:
        wire = msgspec.json.decode(body)
        if len(wire.get("authenticationTag", "")) != 24 and wire.get("authenticationTag", "")[:20] in self.tags:
            wire["authenticationTag"] = self.tags[wire["authenticationTag"][:20]]
        return super().parse_decrypt(msgspec.json.encode(wire))

    tags: dict[str, str]

    def __init__(self) -> None:
        super().__init__()
        self.tags = {}

    def encrypt_response(self, response: EncryptResponse) -> bytes:
        self.tags[encode_base64(response.authentication_tag[:15])] = encode_base64(response.authentication_tag)
        return super().encrypt_response(response)


class StrayBitsAccepted(HonestProxy):
    def parse_encrypt(self, body: bytes) -> EncryptRequest:
        return super().parse_encrypt(body.replace(b'"QR=="', b'"QQ=="'))


class Slow(HonestProxy):
    def encrypt(self, key: str, body: bytes) -> bytes:
        time.sleep(0.3)  # the mistake itself
        return super().encrypt(key, body)


def replace_struct(struct: Any, **changes: Any) -> Any:
    """A message with some fields changed."""
    return msgspec.structs.replace(struct, **changes)
