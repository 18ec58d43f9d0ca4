"""A signer of its own, so that a checker and a proxy that share a mistake do not agree with each other.

Everything that SigV4 covers can be varied, for the negative tests.
"""

import hmac
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Self

from holdfast.witness.check.endpoint import Endpoint
from holdfast.xks.secret import Secret

SERVICE = "kms-xks-proxy"
_ALGORITHM = "AWS4-HMAC-SHA256"


@dataclass(frozen=True, slots=True)
class Request:
    """An HTTP/1.1 request. Headers go out as they stand, in order; Content-Length is added for a body."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def to_bytes(self) -> bytes:
        """The octets on the wire."""
        lines = [f"{self.method} {self.path} HTTP/1.1", *(f"{name}: {value}" for name, value in self.headers)]
        if self.body or self.method == "POST":
            lines.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join((*lines, "", "")).encode() + self.body

    def header(self, name: str) -> str:
        """The first value of a header."""
        return next(value for key, value in self.headers if key.lower() == name.lower())

    def with_header(self, name: str, value: str) -> Self:
        """The same request with another value of a header."""
        return replace(
            self, headers=tuple((key, value if key.lower() == name.lower() else old) for key, old in self.headers)
        )

    def without_header(self, name: str) -> Self:
        """The same request without a header."""
        return replace(self, headers=tuple(pair for pair in self.headers if pair[0].lower() != name.lower()))

    def with_extra_header(self, name: str, value: str) -> Self:
        """The same request with one header more."""
        return replace(self, headers=(*self.headers, (name, value)))


@dataclass(frozen=True, slots=True)
class Signing:
    """How to sign. The defaults are KMS's way; each field varied is a negative test."""

    region: str = "us-east-1"
    service: str = SERVICE
    shift: timedelta = timedelta()
    scope_shift: timedelta = timedelta()
    access_key_id: str | None = None
    secret_access_key: Secret | None = None
    signed_headers: tuple[str, ...] = ("host", "x-amz-date")
    extra_headers: tuple[tuple[str, str], ...] = field(default=())


def signed_request(  # noqa: PLR0913 (a request has these parts)
    endpoint: Endpoint, method: str, path: str, *, body: bytes, signing: Signing, now: datetime
) -> Request:
    """The request as KMS would send it, or as `signing` varies it (spec, Appendix A)."""
    sent = (now + signing.shift).astimezone(UTC)
    amz_date = sent.strftime("%Y%m%dT%H%M%SZ")
    headers = (
        ("Host", endpoint.host_header),
        ("X-Amz-Date", amz_date),
        *((("Content-Type", "application/json"),) if method == "POST" else ()),
        *signing.extra_headers,
    )
    values = {name.lower(): value for name, value in headers}
    canonical = "\n".join(
        (
            method,
            path,
            "",
            *(f"{name}:{values[name]}" for name in signing.signed_headers),
            "",
            ";".join(signing.signed_headers),
            sha256(body).hexdigest(),
        )
    )
    day = (sent + signing.scope_shift).strftime("%Y%m%d")
    scope = f"{day}/{signing.region}/{signing.service}/aws4_request"
    to_sign = f"{_ALGORITHM}\n{amz_date}\n{scope}\n{sha256(canonical.encode()).hexdigest()}"
    key = (signing.secret_access_key or endpoint.configuration.secret_access_key).reveal()
    signature = _hmac_chain(b"AWS4" + key, (*scope.split("/"), to_sign)).hex()
    credential = f"{signing.access_key_id or endpoint.configuration.access_key_id}/{scope}"
    names = ";".join(signing.signed_headers)
    authorization = f"{_ALGORITHM} Credential={credential}, SignedHeaders={names}, Signature={signature}"
    return Request(method, path, (*headers, ("Authorization", authorization)), body)


def _hmac_chain(key: bytes, parts: tuple[str, ...]) -> bytes:
    for part in parts:
        key = hmac.digest(key, part.encode(), "sha256")
    return key
