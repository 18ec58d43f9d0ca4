"""A proxy as KMS sees it: signed calls over one connection."""

import http.client
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from time import perf_counter
from typing import Self
from urllib.parse import SplitResult, urlsplit

import msgspec

from holdfast.control.errors import AdminError, Invalid, Prerequisite
from holdfast.control.kms_connection import TRIAL_REGION, KmsConnection
from holdfast.trust import client_context
from holdfast.xks.errors import XksError
from holdfast.xks.messages import ErrorResponse
from holdfast.xks.sigv4 import Credential, sign
from holdfast.xks.types import ExternalKeyId, Operation
from holdfast.xks.uri import Target, request_path

# OpenSSL's X509_V_ERR_ codes.
_NOT_YET_VALID = 9
_EXPIRED = 10
_HOSTNAME_MISMATCH = 62
_IP_ADDRESS_MISMATCH = 64
TIMEOUT = 10.0
"""Seconds for one call. KMS itself waits 0.25."""


def trusting(authority: Path | None) -> ssl.SSLContext:
    """TLS that trusts the authority in a PEM file; None: the system's authorities. Raises Invalid."""
    try:
        return client_context(authority)
    except (OSError, ssl.SSLError) as failure:
        reason = "it holds no certificate in PEM form" if isinstance(failure, ssl.SSLError) else failure.strerror
        raise Invalid(
            f"the certificate authority {authority} cannot be read: {reason}",
            hint="Name the PEM file of the authority that signed the proxy's certificate.",
        ) from None


def trusting_any() -> ssl.SSLContext:
    """TLS that accepts every certificate, for a caller that compares `Wire.certificate` itself."""
    context = client_context(None)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, and the milliseconds it took. `error` is empty for 200."""

    status: int
    body: bytes
    milliseconds: float

    @property
    def error(self) -> str:
        """The `errorName` and message of anything but 200."""
        if self.status == http.client.OK:
            return ""
        try:
            response = ErrorResponse.parse(self.body)
        except XksError:
            return f"{self.status} without an error name"
        return f"{self.status} {response.error_name}: {response.error_message or 'no message'}"


class _Readiness(msgspec.Struct):
    """What Holdfast answers to GET /ready."""

    ready: bool


class Wire:
    """One connection, opened on entering.

    Raises Invalid for a wrong URL or certificate, Prerequisite if nothing answers.
    """

    def __init__(self, endpoint: str, *, tls: ssl.SSLContext, now: Callable[[], datetime]) -> None:
        self._endpoint = endpoint
        self._now = now
        url = _url_of(endpoint)
        self._host = url.netloc
        if url.scheme == "https":
            self._http: http.client.HTTPConnection = http.client.HTTPSConnection(
                url.netloc, context=tls, timeout=TIMEOUT
            )
        else:
            self._http = http.client.HTTPConnection(url.netloc, timeout=TIMEOUT)

    def __enter__(self) -> Self:
        try:
            self._http.connect()
        except ssl.SSLCertVerificationError as failure:
            raise Invalid(
                f"the certificate of the proxy at {self._endpoint} is not accepted here: {failure.verify_message}",
                hint=_trust_hint(failure.verify_code),
            ) from None
        except ssl.SSLError as failure:
            raise Prerequisite(
                f"what answers at {self._endpoint} does not agree on TLS: {failure.reason or failure}",
                hint="Does another program listen there, or does the proxy speak plain HTTP (no [tls])?",
            ) from None
        except OSError as failure:
            raise Prerequisite(
                f"no proxy answers at {self._endpoint}: {failure.strerror or failure}",
                hint="Is `holdfast serve` running?",
            ) from None
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    @property
    def certificate(self) -> bytes | None:
        """The server's certificate in DER; None over plain HTTP."""
        sock = self._http.sock
        return sock.getpeercert(binary_form=True) if isinstance(sock, ssl.SSLSocket) else None

    def is_ready(self) -> bool | None:
        """Whether GET /ready says that a key operation would succeed now; None from what is not Holdfast."""
        answer = self._exchange("GET", "/ready", b"", {})
        try:
            readiness = msgspec.json.decode(answer.body, type=_Readiness)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        return readiness.ready and answer.status == http.client.OK

    def call(self, keystore: KmsConnection, key: ExternalKeyId, operation: Operation, body: bytes) -> Answer:
        """One signed call. Raises AdminError if no answer comes."""
        path = request_path(Target(str(keystore.prefix), operation, key))
        access_key_id, secret_access_key = keystore.credential
        credential = Credential(access_key_id, secret_access_key, keystore.region or TRIAL_REGION)
        headers = sign("POST", path.encode(), host=self._host, body=body, credential=credential, now=self._now())
        return self._exchange("POST", path, body, headers | {"Content-Type": "application/json"})

    def _exchange(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> Answer:
        start = perf_counter()
        try:
            self._http.request(method, path, body, headers)
            response = self._http.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException) as failure:
            raise AdminError(
                f"{path} got no answer: {failure!r}", hint="The proxy's log and `holdfast doctor` say more."
            ) from None
        return Answer(response.status, answer, (perf_counter() - start) * 1000)


def _trust_hint(verify_code: int) -> str:
    if verify_code in (_HOSTNAME_MISMATCH, _IP_ADDRESS_MISMATCH):
        return "Call it by the name that its certificate has: --endpoint https://NAME."
    if verify_code in (_NOT_YET_VALID, _EXPIRED):
        return "Compare this machine's clock, and renew the certificate."
    return (
        "If a private authority signed it, name that with --ca FILE (`holdfast init` makes tls/ca.pem);"
        " if a public one did, the intermediate certificates may be missing: `holdfast doctor` looks."
    )


def _url_of(endpoint: str) -> SplitResult:
    refused = Invalid(
        f"{endpoint!r} is not the URL of a proxy",
        hint="Write only scheme, host and port: https://xks.example.com:8443",
    )
    try:
        url = urlsplit(endpoint)
        is_complete = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        raise refused from None
    if not is_complete or url.path.strip("/") or url.query or url.fragment or url.username:
        raise refused
    return url
