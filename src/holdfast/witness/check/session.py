"""What a check works with: the endpoint, the test keys, ways to call it, and every answer so far."""

from __future__ import annotations

import json
import secrets
import socket
import ssl
from dataclasses import dataclass, field
from functools import cached_property
from time import perf_counter
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from holdfast.witness.check.finding import NotJudged, Refuted
from holdfast.witness.check.signing import Request, Signing, signed_request
from holdfast.witness.check.wire import Connection, Response, WireError, tls_context
from holdfast.xks.encoding import decode_base64, encode_base64
from holdfast.xks.errors import ErrorName, XksError
from holdfast.xks.types import Operation

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from holdfast.witness.check.endpoint import Endpoint
    from holdfast.witness.check.latency import Measurement

Body = dict[str, Any]
_TRANSIENT = (ErrorName.THROTTLING.status, ErrorName.DEPENDENCY_TIMEOUT.status)


@dataclass(frozen=True, slots=True)
class TestKeys:
    """External key ids to test with. Only Encrypt, Decrypt and GetKeyMetadata are called on them."""

    __test__ = False

    key: str | None = None
    encrypt_only: str | None = None
    decrypt_only: str | None = None
    no_use: str | None = None


@dataclass(frozen=True, slots=True)
class Trust:
    """PEM files: a CA in place of the system's, and a client certificate with its key for mutual TLS."""

    ca: str | None = None
    client_certificate: str | None = None


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request that was answered. `about` names it without its contents."""

    about: str
    response: Response


@dataclass(frozen=True, slots=True)
class Sealed:
    """What Encrypt returned, decoded, and what it was asked."""

    plaintext: bytes
    aad: bytes | None
    ciphertext: bytes
    initialization_vector: bytes
    tag: bytes
    metadata: bytes | None
    cdiv: bytes | None


@dataclass
class Session:
    """One run against one endpoint. `local`: the endpoint is for tests, and need not have what only KMS wants."""

    endpoint: Endpoint
    keys: TestKeys
    trust: Trust
    clock: Callable[[], datetime]
    region: str = "us-east-1"
    samples: int = 100
    local: bool = False
    exchanges: list[Exchange] = field(default_factory=list)
    measurement: Measurement | None = None
    _connection: Connection | None = None

    @cached_property
    def dns(self) -> tuple[list[str], float]:
        """The IPv4 addresses and the seconds that finding them took. Raises OSError."""
        start = perf_counter()
        infos = socket.getaddrinfo(self.endpoint.host, self.endpoint.port, socket.AF_INET, socket.SOCK_STREAM)
        return list(dict.fromkeys(str(info[4][0]) for info in infos)), perf_counter() - start

    @cached_property
    def address(self) -> tuple[str, int]:
        """The first IPv4 address, and the port."""
        return self.dns[0][0], self.endpoint.port

    @cached_property
    def test_key(self) -> str:
        """The id of the key that can do both. Raises NotJudged if none was named."""
        return named(self.keys.key, "--key")

    @cached_property
    def found_key(self) -> str | None:
        """The test key if the endpoint knows it: what is wrong with its id, META-01 alone reports."""
        if self.keys.key is None:
            return None
        try:
            response = self.call(Operation.GET_KEY_METADATA, metadata_body())
        except Refuted:
            return None
        return None if response.error_name == ErrorName.KEY_NOT_FOUND else self.keys.key

    def connect(self, *, verify: bool = False) -> Connection:
        """A new connection. Raises WireError, ssl.SSLError, OSError."""
        context = tls_context(self.trust.ca, self.trust.client_certificate, verify=verify)
        return Connection.connect(self.address, self.endpoint.host, context)

    def path(self, operation: Operation, key: str | None = None) -> str:
        """The request path of an operation, on the test key unless another is named."""
        if operation is Operation.GET_HEALTH_STATUS:
            return self.endpoint.path("health")
        indicator = "metadata" if operation is Operation.GET_KEY_METADATA else operation.lower()
        return self.endpoint.path("keys", key or self.test_key, indicator)

    def request(
        self, operation: Operation, body: Body | bytes, *, key: str | None = None, signing: Signing | None = None
    ) -> Request:
        """A signed POST of an operation, not sent yet."""
        return self.sign("POST", self.path(operation, key), body, signing)

    def sign(self, method: str, path: str, body: Body | bytes, signing: Signing | None = None) -> Request:
        """Any signed request."""
        octets = body if isinstance(body, bytes) else json.dumps(body).encode()
        return signed_request(
            self.endpoint, method, path, body=octets, signing=signing or Signing(self.region), now=self.clock()
        )

    def send(self, request: Request, about: str) -> Response:
        """The answer. Raises Refuted if none comes: an XKS proxy always answers."""
        octets = request.to_bytes()
        reused = self._connection is not None and self._connection.open
        try:
            response = self._exchange(octets)
        except WireError as error:
            if not reused:
                raise Refuted(f"{about}: {error}") from None
            response = self._second_try(octets, about)
        self.exchanges.append(Exchange(about, response))
        return response

    def call(self, operation: Operation, body: Body | bytes, *, key: str | None = None, about: str = "") -> Response:
        """Signs and sends."""
        return self.send(self.request(operation, body, key=key), about or operation)

    def seal(
        self, plaintext: bytes, aad: bytes | None = None, *, cdiv: bool = False, key: str | None = None
    ) -> Sealed:
        """Encrypts. Raises Refuted or NotJudged if that fails."""
        body = encrypt_body(plaintext, aad, cdiv=cdiv)
        response = accepted(self.call(Operation.ENCRYPT, body, key=key), "Encrypt")
        return sealed(response, plaintext, aad)

    def unseal(self, what: Sealed, *, key: str | None = None, about: str = "Decrypt", **changes: Any) -> Response:
        """Decrypts with some fields changed; a field set to None is left out."""
        return self.call(Operation.DECRYPT, decrypt_body(what, **changes), key=key, about=about)

    def close(self) -> None:
        """Drops the kept connection."""
        if self._connection is not None:
            self._connection.close()

    def _exchange(self, octets: bytes) -> Response:
        if self._connection is None or not self._connection.open:
            try:
                self._connection = self.connect()
            except (OSError, ssl.SSLError) as error:
                raise WireError(str(error)) from None
        return self._connection.exchange(octets)

    def _second_try(self, octets: bytes, about: str) -> Response:
        # A server may close an idle connection at any moment (RFC 9112, 9.3.1): that is not a fault of the request.
        try:
            return self._exchange(octets)
        except WireError as error:
            raise Refuted(f"{about}: {error}") from None


def named(key: str | None, option: str) -> str:
    """The key id. Raises NotJudged if the option was not given."""
    if key is None:
        raise NotJudged(f"no key named with {option}")
    return key


def health_metadata(**changes: str) -> Body:
    """`requestMetadata` of GetHealthStatus."""
    return {"requestMetadata": {"kmsRequestId": str(uuid4()), "kmsOperation": "KmsHealthCheck"} | changes}


def request_metadata(operation: str, **changes: str) -> Body:
    """`requestMetadata` as KMS fills it."""
    return {
        "requestMetadata": {
            "awsPrincipalArn": "arn:aws:iam::123456789012:user/holdfast-check",
            "kmsKeyArn": "arn:aws:kms:us-east-1:123456789012:key/00000000-0000-4000-8000-000000000000",
            "kmsOperation": operation,
            "kmsRequestId": str(uuid4()),
        }
        | changes
    }


def metadata_body(**changes: str) -> Body:
    """A GetKeyMetadata request."""
    body = request_metadata("CreateKey", **changes)
    if "kmsKeyArn" not in changes:
        del body["requestMetadata"]["kmsKeyArn"]
    return body


def encrypt_body(plaintext: bytes, aad: bytes | None = None, *, cdiv: bool = False, **changes: str) -> Body:
    """An Encrypt request; `changes` go into its requestMetadata."""
    body = request_metadata("Encrypt", **changes)
    body |= {"plaintext": encode_base64(plaintext), "encryptionAlgorithm": "AES_GCM"}
    if aad is not None:
        body["additionalAuthenticatedData"] = encode_base64(aad)
    if cdiv:
        body["ciphertextDataIntegrityValueAlgorithm"] = "SHA_256"
    return body


def decrypt_body(what: Sealed, **changes: Any) -> Body:
    """A Decrypt request. `changes` replace wire fields (None leaves one out) or whole `requestMetadata`."""
    body = request_metadata("Decrypt") | {
        "ciphertext": what.ciphertext,
        "initializationVector": what.initialization_vector,
        "authenticationTag": what.tag,
        "encryptionAlgorithm": "AES_GCM",
        "additionalAuthenticatedData": what.aad,
        "ciphertextMetadata": what.metadata,
    }
    return {
        name: encode_base64(value) if isinstance(value, bytes) else value
        for name, value in (body | changes).items()
        if value is not None
    }


def sealed(response: Response, plaintext: bytes, aad: bytes | None) -> Sealed:
    """The fields of an Encrypt response. Raises Refuted if one is missing or not canonical Base64."""
    value = response.json_object or {}
    try:
        return Sealed(
            plaintext,
            aad,
            ciphertext=decode_base64(value["ciphertext"], "ciphertext"),
            initialization_vector=decode_base64(value["initializationVector"], "initializationVector"),
            tag=decode_base64(value["authenticationTag"], "authenticationTag"),
            metadata=_optional(value, "ciphertextMetadata"),
            cdiv=_optional(value, "ciphertextDataIntegrityValue"),
        )
    except KeyError as error:
        raise Refuted(f"the Encrypt response has no {error.args[0]}") from None
    except (XksError, AttributeError) as error:
        raise Refuted(f"in the Encrypt response: {getattr(error, 'message', 'a field is not a string')}") from None


def _optional(value: Body, field_name: str) -> bytes | None:
    text = value.get(field_name)
    return None if text is None else decode_base64(text, field_name)


def accepted(response: Response, what: str) -> Response:
    """The response if it is a 200. Raises Refuted, or NotJudged for an answer that only says: not now."""
    if response.status == 200:  # noqa: PLR2004 (OK)
        return response
    _refuse_transient(response, what)
    raise Refuted(f"{what} was refused: {response.describe()}")


def refused(response: Response, *names: ErrorName, what: str) -> str:
    """Evidence that the request was refused by one of the names. Raises Refuted or NotJudged.

    The status is not looked at if the name is right, and no name is missed if the status is: both have checks of
    their own (ERR-01, ERR-03).
    """
    if response.status == 200:  # noqa: PLR2004 (OK)
        raise Refuted(f"{what} was accepted: {response.describe()}")
    _refuse_transient(response, what)
    name = response.error_name
    if name in names or (name is None and response.status in {expected.status for expected in names}):
        return f"{what}: {response.describe()}"
    raise Refuted(f"{what} was answered {response.describe()}, not {' or '.join(names)}")


def _refuse_transient(response: Response, what: str) -> None:
    if response.status in _TRANSIENT:
        raise NotJudged(f"{what} was answered {response.describe()}, which says nothing about this")


def fresh_plaintext(length: int = 32) -> bytes:
    """Random bytes, so that nothing of value is sent."""
    return secrets.token_bytes(length)


def flipped(data: bytes, at: int = 0) -> bytes:
    """The same bytes with one bit changed."""
    return data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]
