"""A small XKS proxy over software AES-GCM that keeps every rule of the spec, made to be broken one rule at a time.

Each decision has a method of its own; `wrong_proxies.py` overrides one each.
"""

# ruff: noqa: D102, N815 (the names say it; http.server gives the do_ names)

import json
import secrets
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from tests.waiting import PATIENCE

from holdfast.xks.aad import AadFraming, CiphertextMetadata, ciphertext_data_integrity_value, hsm_aad
from holdfast.xks.errors import ErrorName, XksError
from holdfast.xks.messages import (
    DecryptRequest,
    DecryptResponse,
    EkmFleetDetail,
    EncryptRequest,
    EncryptResponse,
    ErrorResponse,
    GetHealthStatusRequest,
    GetHealthStatusResponse,
    GetKeyMetadataRequest,
    GetKeyMetadataResponse,
)
from holdfast.xks.sigv4 import verify
from holdfast.xks.types import AccessKeyId, HealthStatus, KeyStatus, Operation, SecretAccessKey
from holdfast.xks.uri import Target, parse_path

PREFIX = "/honest"
ACCESS_KEY_ID = "HONESTPROXYACCESSKEY2345"
SECRET = "HonestProxySecretAccessKey0123456789abcdefghij"
ENCRYPT, DECRYPT = "ENCRYPT", "DECRYPT"
KEY, ENCRYPT_ONLY, DECRYPT_ONLY, NO_USE = "test-key", "encrypt-only", "decrypt-only", "no-use"

Headers = list[tuple[bytes, bytes]]
Answer = tuple[int, bytes]


class HonestProxy:
    """The four operations. Thread-safe: no state changes after construction."""

    minimum_tls = ssl.TLSVersion.TLSv1_2
    maximum_tls = ssl.TLSVersion.MAXIMUM_SUPPORTED
    ciphers = "ECDHE+AESGCM"
    http_version = "HTTP/1.1"
    keeps_alive = True
    content_type = "application/json"

    def __init__(self) -> None:
        self.usages = {KEY: {ENCRYPT, DECRYPT}, ENCRYPT_ONLY: {ENCRYPT}, DECRYPT_ONLY: {DECRYPT}, NO_USE: set()}
        self.key_bytes = {key: secrets.token_bytes(32) for key in self.usages}

    def handle(self, method: str, path: bytes, headers: Headers, body: bytes) -> Answer:
        """Status and body. `headers` have their names as they came."""
        headers = [(name.lower(), value) for name, value in headers]
        if method == "GET" and path == b"/ping":
            return 200, b"{}"
        try:
            target = parse_path(path)
            if target.prefix != PREFIX:
                return self.refuse(XksError(ErrorName.INVALID_URI_PATH, "no such prefix"))
            if method != "POST":
                return self.wrong_method(target)
            self.authenticate(method, path, headers, body)
            return 200, self.operate(target, body)
        except XksError as error:
            return self.refuse(error)

    def wrong_method(self, _target: Target) -> Answer:
        return 405, b"{}"

    def refuse(self, error: XksError) -> Answer:
        return error.name.status, ErrorResponse(error.name, error.message).to_json()

    def authenticate(self, method: str, path: bytes, headers: Headers, body: bytes) -> None:
        verify(
            method,
            path,
            headers=headers,
            body=body,
            credentials={AccessKeyId(ACCESS_KEY_ID).value: SecretAccessKey.parse(SECRET)},
            region=None,
            now=self.now(),
        )

    def now(self) -> datetime:
        return datetime.now(UTC)

    def operate(self, target: Target, body: bytes) -> bytes:
        key = str(target.external_key_id)
        if target.operation is Operation.GET_HEALTH_STATUS:
            return self.health(body)
        if key not in self.usages:
            raise XksError(ErrorName.KEY_NOT_FOUND, f"no key {key}")
        match target.operation:
            case Operation.GET_KEY_METADATA:
                return self.metadata(key, body)
            case Operation.ENCRYPT:
                return self.encrypt(key, body)
            case _:
                return self.decrypt(key, body)

    def health(self, body: bytes) -> bytes:
        GetHealthStatusRequest.parse(body)
        fleet = [EkmFleetDetail("soft-1", "Software AES-GCM 1", self.health_status())]
        return GetHealthStatusResponse(1, "Holdfast tests", "Honest proxy 1", "Holdfast tests", fleet).to_json()

    def health_status(self) -> HealthStatus:
        return HealthStatus.ACTIVE

    def metadata(self, key: str, body: bytes) -> bytes:
        GetKeyMetadataRequest.parse(body)
        return GetKeyMetadataResponse("AES_256", self.key_usage(key), KeyStatus.ENABLED).to_json()

    def key_usage(self, key: str) -> list[str]:
        return sorted(self.usages[key])

    def encrypt(self, key: str, body: bytes) -> bytes:
        request = self.parse_encrypt(body)
        self.allow(key, ENCRYPT)
        metadata, iv = self.ciphertext_metadata(), self.fresh_iv()
        output = self.seal(key, iv, request.plaintext, self.gcm_aad(request.aad, metadata))
        ciphertext, tag = output[:-16], output[-16:]
        cdiv = None
        if request.wants_cdiv:
            cdiv = self.cdiv(request.aad, metadata or b"", iv, ciphertext, tag)
            self.trial_decrypt(key, request, iv, output, metadata)
        return self.encrypt_response(EncryptResponse(ciphertext, iv, tag, metadata, cdiv))

    def parse_encrypt(self, body: bytes) -> EncryptRequest:
        return EncryptRequest.parse(body)

    def allow(self, key: str, usage: str) -> None:
        if usage not in self.usages[key]:
            raise XksError(ErrorName.INVALID_KEY_USAGE, f"{key} does not {usage}")

    def ciphertext_metadata(self) -> bytes | None:
        return CiphertextMetadata(AadFraming.SPEC, 1).to_bytes()

    def fresh_iv(self) -> bytes:
        return secrets.token_bytes(12)

    def gcm_aad(self, aad: bytes | None, metadata: bytes | None) -> bytes:
        return hsm_aad(aad, metadata or b"", AadFraming.SPEC)

    def cdiv(self, aad: bytes | None, metadata: bytes, iv: bytes, ciphertext: bytes, tag: bytes) -> bytes | None:
        return ciphertext_data_integrity_value(
            aad, metadata, initialization_vector=iv, ciphertext=ciphertext, tag=tag
        )

    def trial_decrypt(
        self, key: str, request: EncryptRequest, iv: bytes, output: bytes, metadata: bytes | None
    ) -> None:
        self.allow(key, DECRYPT)
        if self.open(key, iv, output, self.gcm_aad(request.aad, metadata)) != request.plaintext:
            raise XksError(ErrorName.INTERNAL, "the trial decrypt gave another plaintext")

    def encrypt_response(self, response: EncryptResponse) -> bytes:
        return response.to_json()

    def decrypt(self, key: str, body: bytes) -> bytes:
        request = self.parse_decrypt(body)
        self.allow(key, DECRYPT)
        aad = self.gcm_aad(request.aad, request.ciphertext_metadata)
        output = request.ciphertext + request.authentication_tag
        return self.decrypt_response(self.open(key, request.initialization_vector, output, aad))

    def parse_decrypt(self, body: bytes) -> DecryptRequest:
        return DecryptRequest.parse(body)

    def seal(self, key: str, iv: bytes, plaintext: bytes, aad: bytes) -> bytes:
        return AESGCM(self.key_bytes[key]).encrypt(iv, plaintext, aad)

    def open(self, key: str, iv: bytes, output: bytes, aad: bytes) -> bytes:
        try:
            return AESGCM(self.key_bytes[key]).decrypt(iv, output, aad)
        except InvalidTag:
            raise XksError(ErrorName.INVALID_CIPHERTEXT, "the tag does not match") from None

    def decrypt_response(self, plaintext: bytes) -> bytes:
        return DecryptResponse(plaintext).to_json()


class _Handler(BaseHTTPRequestHandler):
    disable_nagle_algorithm = True
    wbufsize = -1
    timeout = PATIENCE
    server: "_Server"

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = [(name.encode(), value.encode("latin-1")) for name, value in self.headers.items()]
        proxy = self.server.proxy
        status, answer = proxy.handle(self.command, self.path.encode("latin-1"), headers, body)
        self.send_response(status)
        self.send_header("Content-Type", proxy.content_type)
        if not proxy.keeps_alive:
            self.send_header("Connection", "close")
        self.send_header("Content-Length", str(len(answer)))
        if status == 405:
            self.send_header("Allow", "POST")
        self.end_headers()
        self.wfile.write(answer)

    @property
    def protocol_version(self) -> str:  # type: ignore[override]  # a constant of the class elsewhere
        return self.server.proxy.http_version

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _answer

    def log_message(self, *_args: object) -> None:
        """Says nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, proxy: HonestProxy, certificate: Path, client_ca: Path | None) -> None:
        self.proxy = proxy
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version, context.maximum_version = proxy.minimum_tls, proxy.maximum_tls
        context.set_ciphers(proxy.ciphers)
        context.load_cert_chain(certificate)
        if client_ca is not None:
            context.load_verify_locations(client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        super().__init__(("127.0.0.1", 0), _Handler)
        # The handshake is made by the connection's own thread, so that none can hold up the others.
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def handle_error(self, *_args: object) -> None:
        """Aborted handshakes are part of the tests."""


@contextmanager
def serve(proxy: HonestProxy, certificate: Path, client_ca: Path | None = None) -> Iterator[int]:
    """The port on loopback."""
    server = _Server(proxy, certificate, client_ca)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        with suppress(OSError):
            server.server_close()
        thread.join(PATIENCE)


def write_configuration(path: Path, **changes: str) -> Path:
    """The XKS proxy configuration file."""
    credential = {"AccessKeyId": ACCESS_KEY_ID, "RawSecretAccessKey": SECRET}
    value = {
        "XksProxyUriPath": changes.get("XksProxyUriPath", f"{PREFIX}/kms/xks/v1"),
        "XksProxyAuthenticationCredential": credential | {k: v for k, v in changes.items() if k in credential},
    }
    path.write_text(json.dumps(value))
    return path
