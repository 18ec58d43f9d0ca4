"""Proxies that are honest but for one leniency, or one strictness, with signatures."""

# ruff: noqa: D101, D102 (the names say it)

from contextlib import suppress
from datetime import UTC, datetime, timedelta

from tests.witness.check.honest_proxy import PREFIX, Answer, Headers, HonestProxy

from holdfast.xks.errors import ErrorName, XksError


def authorization_of(headers: Headers) -> bytes:
    """The first Authorization header; empty if there is none."""
    return next((value for name, value in headers if name == b"authorization"), b"")


class UnknownAccessKeyAccepted(HonestProxy):
    def authenticate(self, method: str, path: bytes, headers: Headers, body: bytes) -> None:
        if b"NOSUCHKEY" not in authorization_of(headers):
            super().authenticate(method, path, headers, body)


class PathNotSigned(HonestProxy):
    """Verifies the path that the check signs, wherever the request went."""

    def authenticate(self, method: str, path: bytes, headers: Headers, body: bytes) -> None:
        with suppress(XksError):
            signed = f"{PREFIX}/kms/xks/v1/keys/some-key/metadata".encode()
            return super().authenticate(method, signed, headers, body)
        return super().authenticate(method, path, headers, body)


class DateNotSigned(HonestProxy):
    """Verifies the time of a minute ago too, which the check's signature is from."""

    def authenticate(self, method: str, path: bytes, headers: Headers, body: bytes) -> None:
        try:
            super().authenticate(method, path, headers, body)
        except XksError:
            super().authenticate(method, path, [_a_minute_ago(*header) for header in headers], body)


class AnyService(HonestProxy):
    def authenticate(self, method: str, path: bytes, headers: Headers, body: bytes) -> None:
        if b"/kms/aws4_request" not in authorization_of(headers):
            super().authenticate(method, path, headers, body)


class AnyScopeDate(HonestProxy):
    def authenticate(self, method: str, path: bytes, headers: Headers, body: bytes) -> None:
        sent = dict(headers).get(b"x-amz-date", b"")[:8]
        today = f"{self.now():%Y%m%d}".encode()
        if sent != today or b"/" + today + b"/" in authorization_of(headers) or not authorization_of(headers):
            super().authenticate(method, path, headers, body)


class UnsignedDateAccepted(HonestProxy):
    def authenticate(self, method: str, path: bytes, headers: Headers, body: bytes) -> None:
        if b"SignedHeaders=host," not in authorization_of(headers):
            super().authenticate(method, path, headers, body)


class UnsignedHostAccepted(HonestProxy):
    def authenticate(self, method: str, path: bytes, headers: Headers, body: bytes) -> None:
        if b"SignedHeaders=x-amz-date," not in authorization_of(headers):
            super().authenticate(method, path, headers, body)


class FirstOfTwoAuthorizations(HonestProxy):
    def authenticate(self, method: str, path: bytes, headers: Headers, body: bytes) -> None:
        super().authenticate(method, path, list(dict(headers).items()), body)


class TwoSignedHeadersOnly(HonestProxy):
    def authenticate(self, method: str, path: bytes, headers: Headers, body: bytes) -> None:
        if b"SignedHeaders=content-type;" in authorization_of(headers):
            raise XksError(ErrorName.AUTHENTICATION_FAILED, "content-type is signed")
        super().authenticate(method, path, headers, body)


class CapitalHeaderNamesOnly(HonestProxy):
    def handle(self, method: str, path: bytes, headers: Headers, body: bytes) -> Answer:
        if any(name == b"authorization" for name, _ in headers):
            return self.refuse(XksError(ErrorName.AUTHENTICATION_FAILED, "there is no Authorization"))
        return super().handle(method, path, headers, body)


def _a_minute_ago(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    if name != b"x-amz-date":
        return name, value
    sent = datetime.strptime(value.decode(), "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    return name, f"{sent - timedelta(minutes=1):%Y%m%dT%H%M%SZ}".encode()
