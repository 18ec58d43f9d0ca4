"""A hand-made TLS ClientHello, to learn what an endpoint would agree to.

Python's ssl module can neither restrict the TLS 1.3 suites nor offer the old versions that OpenSSL has switched
off, and both must be asked. Nothing follows the ServerHello: the connection is then dropped.
"""

import secrets
import socket
import struct
from dataclasses import dataclass

TLS_1_0, TLS_1_1, TLS_1_2, TLS_1_3 = 0x0301, 0x0302, 0x0303, 0x0304

SPEC_SUITES = {
    0x1302: "TLS_AES_256_GCM_SHA384",
    0x1303: "TLS_CHACHA20_POLY1305_SHA256",
    0xC030: "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    0xC02C: "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
}
"""Spec, "API content type": the suites of which at least one must be supported."""

WEAK_SUITES = {
    0x009D: "TLS_RSA_WITH_AES_256_GCM_SHA384",
    0x009C: "TLS_RSA_WITH_AES_128_GCM_SHA256",
    0x0035: "TLS_RSA_WITH_AES_256_CBC_SHA",
    0x002F: "TLS_RSA_WITH_AES_128_CBC_SHA",
    0xC014: "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    0xC00A: "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    0x000A: "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
}
"""Without forward secrecy, or without authenticated encryption."""

_HANDSHAKE, _CLIENT_HELLO, _SERVER_HELLO = 22, 1, 2
_TIMEOUT = 5.0


@dataclass(frozen=True, slots=True)
class ServerHello:
    """What the server chose."""

    version: int
    suite: int


def offer(address: tuple[str, int], server_name: str, *, version: int, suites: tuple[int, ...]) -> ServerHello | None:
    """The server's choice, or None if it refuses the offer. Raises OSError if no TCP connection comes about."""
    with socket.create_connection(address, timeout=_TIMEOUT) as connection:
        connection.sendall(client_hello(server_name, version=version, suites=suites))
        try:
            content_type, body = _read_record(connection)
        except (OSError, EOFError):
            return None
    if content_type != _HANDSHAKE or body[0] != _SERVER_HELLO:
        return None
    return parse_server_hello(body)


def client_hello(server_name: str, *, version: int, suites: tuple[int, ...]) -> bytes:
    """One TLS record. For TLS 1.3 it holds an X25519 key share."""
    legacy = min(version, TLS_1_2)
    name = server_name.encode()
    extensions = [
        (0, struct.pack(">HBH", len(name) + 3, 0, len(name)) + name),
        (10, _vector16(b"\x00\x1d\x00\x17\x00\x18")),
        (11, b"\x01\x00"),
        (13, _vector16(bytes.fromhex("040305030603080408050806040105010601020302010807"))),
    ]
    if version == TLS_1_3:
        share = secrets.token_bytes(32)
        extensions += [(43, b"\x02\x03\x04"), (51, _vector16(b"\x00\x1d" + _vector16(share)))]
    body = (
        struct.pack(">H", legacy)
        + secrets.token_bytes(32)
        + b"\x20"
        + secrets.token_bytes(32)
        + _vector16(b"".join(struct.pack(">H", suite) for suite in suites))
        + b"\x01\x00"
        + _vector16(b"".join(struct.pack(">H", kind) + _vector16(data) for kind, data in extensions))
    )
    message = bytes((_CLIENT_HELLO,)) + len(body).to_bytes(3) + body
    return struct.pack(">BHH", _HANDSHAKE, TLS_1_0, len(message)) + message


def parse_server_hello(message: bytes) -> ServerHello | None:
    """A ServerHello or HelloRetryRequest; None if it is cut short."""
    try:
        version = int.from_bytes(message[4:6])
        session_length = message[38]
        at = 39 + session_length
        suite = int.from_bytes(message[at : at + 2])
        extensions = message[at + 5 :]
        while extensions:
            kind, length = struct.unpack(">HH", extensions[:4])
            if kind == 43:  # noqa: PLR2004 (supported_versions)
                version = int.from_bytes(extensions[4:6])
            extensions = extensions[4 + length :]
    except (IndexError, struct.error):
        return None
    return ServerHello(version, suite)


def _vector16(data: bytes) -> bytes:
    return len(data).to_bytes(2) + data


def _read_record(connection: socket.socket) -> tuple[int, bytes]:
    content_type, _, length = struct.unpack(">BHH", _read(connection, 5))
    return content_type, _read(connection, length)


def _read(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = connection.recv(count - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data
