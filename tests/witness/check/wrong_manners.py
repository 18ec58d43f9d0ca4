"""Proxies that are honest but for one mistake with TLS, HTTP, health or metadata."""

# ruff: noqa: D101, D102 (the names say it)

import ssl
from typing import Any

import msgspec
from tests.witness.check.honest_proxy import PREFIX, Answer, Headers, HonestProxy

from holdfast.xks.errors import ErrorName, XksError
from holdfast.xks.messages import EncryptRequest
from holdfast.xks.types import HealthStatus, Operation
from holdfast.xks.uri import Target


class NoSuiteOfTheSpec(HonestProxy):
    maximum_tls = ssl.TLSVersion.TLSv1_2
    ciphers = "ECDHE+AESGCM+AES128"


class OldTls(HonestProxy):
    minimum_tls = ssl.TLSVersion.MINIMUM_SUPPORTED
    ciphers = "ECDHE+AESGCM:ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0"


class WeakSuite(HonestProxy):
    ciphers = "ECDHE+AESGCM:ECDHE-ECDSA-AES256-SHA"


class Http10(HonestProxy):
    http_version = "HTTP/1.0"


class AnyCertificate(HonestProxy):
    """Can present a certificate with a small key."""

    ciphers = "ECDHE+AESGCM:@SECLEVEL=0"


class PingFails(HonestProxy):
    def handle(self, method: str, path: bytes, headers: Headers, body: bytes) -> Answer:
        return (503, b"{}") if path == b"/ping" else super().handle(method, path, headers, body)


class DegradedHsm(HonestProxy):
    def health_status(self) -> HealthStatus:
        return HealthStatus.DEGRADED


class ClosesConnections(HonestProxy):
    keeps_alive = False


class PutAccepted(HonestProxy):
    def handle(self, method: str, path: bytes, headers: Headers, body: bytes) -> Answer:
        return (200, b"{}") if method == "PUT" else super().handle(method, path, headers, body)


class UnknownPathIsAnUnknownKey(HonestProxy):
    def handle(self, method: str, path: bytes, headers: Headers, body: bytes) -> Answer:
        if path.endswith(b"/destroy"):
            return self.refuse(XksError(ErrorName.KEY_NOT_FOUND, "some-key"))
        return super().handle(method, path, headers, body)


class AnyPrefix(HonestProxy):
    def handle(self, method: str, path: bytes, headers: Headers, body: bytes) -> Answer:
        if path.endswith(b"/health") and not path.startswith(PREFIX.encode()):
            return 200, self.operate(Target(PREFIX, Operation.GET_HEALTH_STATUS, None), body)
        return super().handle(method, path, headers, body)


class NoHealth(HonestProxy):
    def health(self, _body: bytes) -> bytes:
        raise XksError(ErrorName.UNSUPPORTED_OPERATION, "GetHealthStatus")


class ChangedHealth(HonestProxy):
    """Says something else in health."""

    changes: dict[str, Any]

    def health(self, body: bytes) -> bytes:
        return msgspec.json.encode(msgspec.json.decode(super().health(body)) | self.changes)


class OneIdForTwoHsms(ChangedHealth):
    changes = {"ekmFleetDetails": [{"id": "hsm", "model": "HSM 1", "healthStatus": "ACTIVE"}] * 2}  # noqa: RUF012 (never changed)


class ModelWithoutVersion(ChangedHealth):
    changes = {"xksProxyModel": "Honest proxy"}  # noqa: RUF012 (never changed)


class HsmModelWithoutVersion(ChangedHealth):
    changes = {"ekmFleetDetails": [{"id": "hsm", "model": "HSM", "healthStatus": "ACTIVE"}]}  # noqa: RUF012 (never changed)


class ChangedMetadata(HonestProxy):
    """Says something else of every key."""

    changes: dict[str, Any]

    def metadata(self, key: str, body: bytes) -> bytes:
        return msgspec.json.encode(msgspec.json.decode(super().metadata(key, body)) | self.changes)


class NoKeyStatus(ChangedMetadata):
    changes = {"keyStatus": None}  # noqa: RUF012 (never changed)


class ShortKeySpec(ChangedMetadata):
    changes = {"keySpec": "AES_128"}  # noqa: RUF012 (never changed)


class DisabledStatus(ChangedMetadata):
    changes = {"keyStatus": "DISABLED"}  # noqa: RUF012 (never changed)


class ShortKeyIds(HonestProxy):
    def operate(self, target: Target, body: bytes) -> bytes:
        if len(str(target.external_key_id)) > 64:
            raise XksError(ErrorName.VALIDATION, "externalKeyId")
        return super().operate(target, body)


class UnknownFieldRefused(HonestProxy):
    def health(self, body: bytes) -> bytes:
        if b"aFieldOfTheFuture" in body:
            raise XksError(ErrorName.VALIDATION, "unknown field")
        return super().health(body)


class ArnsOnly(HonestProxy):
    def parse_encrypt(self, body: bytes) -> EncryptRequest:
        if b'"AWS Internal"' in body:
            raise XksError(ErrorName.VALIDATION, "awsPrincipalArn")
        return super().parse_encrypt(body)
