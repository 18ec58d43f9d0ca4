"""Signed calls to a proxy, as KMS makes them, and unsigned ones."""

from __future__ import annotations

import http.client
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import msgspec
from tests.waiting import PATIENCE

from holdfast.trust import client_context
from holdfast.xks.encoding import decode_base64, decode_json_object, encode_base64
from holdfast.xks.errors import ErrorName
from holdfast.xks.sigv4 import Credential, sign
from holdfast.xks.types import ExternalKeyId, Operation
from holdfast.xks.uri import Target, request_path

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

METADATA = {
    "awsPrincipalArn": "arn:aws:iam::123456789012:user/Alice",
    "kmsKeyArn": "arn:aws:kms:us-east-2:123456789012:/key/1234abcd-12ab-34cd-56ef-1234567890ab",
    "kmsOperation": "Encrypt",
    "kmsRequestId": "4112f4d6-db54-4af4-ae30-c55a22a8dfae",
    "kmsViaService": "ebs.us-east-2.amazonaws.com",
}


_REPEATS = 4
"""Of a call that a server answers too late only because its machine is busy."""


@dataclass(frozen=True)
class Reply:
    """A response and the seconds until it was there."""

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float

    @property
    def json(self) -> dict[str, Any]:
        """The body as JSON."""
        return decode_json_object(self.body)

    @property
    def error(self) -> str:
        """`errorName`, empty for 200."""
        return "" if self.status == 200 else self.json["errorName"]


class Caller:
    """Calls over one kept-alive connection, made anew where the server has closed it. Not for threads to share.

    With `patient` a call that the server could not finish by its deadline is repeated, as KMS's own callers do.
    """

    def __init__(  # noqa: PLR0913 (what tests vary)
        self,
        url: str,
        credential: Credential,
        *,
        prefix: str,
        tls: ssl.SSLContext | None,
        key: str,
        patient: bool = False,
    ) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self.host = parts.netloc
        self.credential = credential
        self.prefix = prefix
        self._key = key
        self._repeats = _REPEATS if patient else 0
        self._http: http.client.HTTPConnection = (
            http.client.HTTPConnection(parts.hostname, parts.port, timeout=PATIENCE)
            if tls is None
            else http.client.HTTPSConnection(parts.hostname, parts.port, timeout=PATIENCE, context=tls)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def local_port(self) -> int | None:
        """Of the connection as it is now: another one where it had to be made again."""
        return self._http.sock.getsockname()[1] if self._http.sock else None

    def close(self) -> None:
        """End the connection."""
        self._http.close()

    def encrypt(self, plaintext: bytes, aad: bytes | None = None, *, key: str | None = None, **fields: Any) -> Reply:
        """Encrypt; `fields` go into the body as they are."""
        body = {"plaintext": encode_base64(plaintext), "encryptionAlgorithm": "AES_GCM", **fields}
        if aad is not None:
            body["additionalAuthenticatedData"] = encode_base64(aad)
        return self.call(Operation.ENCRYPT, body, key=key)

    def decrypt(self, sealed: Reply, aad: bytes | None = None, *, key: str | None = None, **fields: Any) -> Reply:
        """Decrypt what an Encrypt has answered; `fields` replace parts of it."""
        body = {**sealed.json, "encryptionAlgorithm": "AES_GCM", **fields}
        body.pop("ciphertextDataIntegrityValue", None)
        if aad is not None:
            body["additionalAuthenticatedData"] = encode_base64(aad)
        return self.call(Operation.DECRYPT, body, key=key)

    def plaintext(self, reply: Reply) -> bytes:
        """What a Decrypt has answered."""
        return decode_base64(reply.json["plaintext"], "plaintext")

    def metadata(self, *, key: str | None = None) -> Reply:
        """GetKeyMetadata."""
        return self.call(Operation.GET_KEY_METADATA, key=key)

    def health(self) -> Reply:
        """GetHealthStatus."""
        return self.call(Operation.GET_HEALTH_STATUS)

    def call(
        self,
        operation: Operation,
        fields: dict[str, Any] | None = None,
        *,
        key: str | None = None,
        metadata: dict[str, str] | None = None,
        now: datetime | None = None,
    ) -> Reply:
        """One signed call."""
        body = msgspec.json.encode({"requestMetadata": {**METADATA, **(metadata or {})}, **(fields or {})})
        path = self.path(operation, key=key)
        reply = self._try(path, body, now)
        for _ in range(self._repeats):
            if reply.status != HTTPStatus.SERVICE_UNAVAILABLE or reply.error != ErrorName.DEPENDENCY_TIMEOUT:
                break
            reply = self._try(path, body, now)
        return reply

    def _try(self, path: str, body: bytes, now: datetime | None) -> Reply:
        return self.request("POST", path, body=body, headers=self.signed(path, body, now=now))

    def path(self, operation: Operation, *, key: str | None = None) -> str:
        """The request path of an operation."""
        named = None if operation is Operation.GET_HEALTH_STATUS else ExternalKeyId(key or self._key)
        return request_path(Target(self.prefix, operation, named))

    def signed(self, path: str, body: bytes, *, now: datetime | None = None) -> dict[str, str]:
        """The headers of a signed POST."""
        moment = now or datetime.now(UTC)
        headers = sign("POST", path.encode(), host=self.host, body=body, credential=self.credential, now=moment)
        return {**headers, "Content-Type": "application/json"}

    def request(self, method: str, path: str, *, body: bytes = b"", headers: dict[str, str] | None = None) -> Reply:
        """Any request, as it is."""
        began = time.perf_counter()
        try:
            self._http.request(method, path, body or None, headers or {})
            response = self._http.getresponse()
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
            # A kept-alive connection may be closed by the server at any time; a new one must work.
            self._http.close()
            self._http.request(method, path, body or None, headers or {})
            response = self._http.getresponse()
        content = response.read()
        seconds = time.perf_counter() - began
        return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, content, seconds)


def trusting(authority: Path, *, client: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    """A client context that trusts `authority`, with a certificate and key of its own where given."""
    context = client_context(authority)
    if client is not None:
        context.load_cert_chain(*client)
    return context
