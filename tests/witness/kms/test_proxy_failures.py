"""What KMS's callers are told when a proxy fails: the spec's error table, row by row."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.witness.kms.clients import LocalKms, connected_store, create_store, error_of, external_key, settle
from tests.witness.kms.tls import Authority
from tests.witness.kms.xks_proxy import HOST, Alter, Reply, XksProxy, delayed

from holdfast.witness.kms.server import report_unless_closed
from holdfast.witness.kms.settings import Address
from holdfast.witness.kms_errors import KMS_ERRORS, ConnectionErrorCode, Failure, OperationGroup
from holdfast.xks.errors import ErrorName
from holdfast.xks.types import HealthStatus, Operation

Start = Callable[..., LocalKms]
KMS_WAITS = 0.25
"""Seconds, for a test of answers that come too late; the others wait for as long as a busy machine needs."""

SEEN_BY_CREATE = [name for name in ErrorName if KMS_ERRORS[name].key_store]
SEEN_BY_CREATE_KEY = [name for name in ErrorName if KMS_ERRORS[name].create_key]


def told(group: OperationGroup, reason: ErrorName | Failure) -> tuple[str, str]:
    return KMS_ERRORS[reason].exception_in(group), KMS_ERRORS[reason].message


@pytest.mark.parametrize("name", SEEN_BY_CREATE)
def test_create_custom_key_store_tells(kms: Any, proxy: XksProxy, name: ErrorName) -> None:
    proxy.fail(name)
    assert error_of(create_store, kms=kms) == told(OperationGroup.KEY_STORE, name)


@pytest.mark.parametrize("name", SEEN_BY_CREATE)
def test_update_custom_key_store_tells(kms: Any, proxy: XksProxy, name: ErrorName) -> None:
    store_id = create_store(kms)
    proxy.fail(name)
    changes = {"CustomKeyStoreId": store_id, "XksProxyUriPath": "/two/kms/xks/v1"}
    assert error_of(kms.update_custom_key_store, **changes) == told(OperationGroup.KEY_STORE, name)


@pytest.mark.parametrize("name", SEEN_BY_CREATE_KEY)
def test_create_key_tells(kms: Any, proxy: XksProxy, name: ErrorName) -> None:
    store_id = connected_store(kms)
    proxy.fail(name)
    assert error_of(external_key, kms=kms, store_id=store_id) == told(OperationGroup.CREATE_KEY, name)


def test_cryptographic_operations_tell_every_error_name(kms: Any, proxy: XksProxy) -> None:
    key = external_key(kms, connected_store(kms))
    blob = kms.encrypt(KeyId=key, Plaintext=b"x")["CiphertextBlob"]
    calls: list[tuple[Callable[..., object], dict[str, Any]]] = [
        (kms.encrypt, {"KeyId": key, "Plaintext": b"x"}),
        (kms.decrypt, {"CiphertextBlob": blob}),
        (kms.re_encrypt, {"CiphertextBlob": blob, "DestinationKeyId": key}),
        (kms.generate_data_key, {"KeyId": key, "KeySpec": "AES_256"}),
        (kms.generate_data_key_without_plaintext, {"KeyId": key, "KeySpec": "AES_256"}),
    ]
    for name in ErrorName:
        proxy.fail(name, Operation.ENCRYPT, Operation.DECRYPT)
        for call, parameters in calls:
            assert error_of(call, **parameters) == told(OperationGroup.CRYPTOGRAPHIC, name)


def test_the_proxys_own_words_stay_in_kmss_log(local_kms: LocalKms, kms: Any, proxy: XksProxy) -> None:
    key = external_key(kms, connected_store(kms))
    proxy.fail(ErrorName.INTERNAL)
    _, message = error_of(kms.encrypt, KeyId=key, Plaintext=b"x")
    assert "as the test wants it" not in message
    assert "as the test wants it" in local_kms.lines[-1]


def changed(**fields: object) -> Alter:
    """An Encrypt response with other fields; None removes one."""

    def alter(operation: Operation, reply: Reply) -> Reply:
        if operation is not Operation.ENCRYPT:
            return reply
        body = {**msgspec.json.decode(reply.body), **fields}
        return replace(reply, body=msgspec.json.encode({k: v for k, v in body.items() if v is not None}))

    return alter


MALFORMED: dict[str, Alter] = {
    "no CDIV": changed(ciphertextDataIntegrityValue=None),
    "wrong CDIV": changed(ciphertextDataIntegrityValue="qHA/ImC9h5HsLRXqCyPmWgYx7tzyoTplzILbP0fPXsc="),
    "metadata of 21 bytes": changed(ciphertextMetadata="A" * 28),
    "longer ciphertext": changed(ciphertext="AAAA" * 20),
    "IV of 15 bytes": changed(initializationVector="A" * 20),
    "no tag": changed(authenticationTag=None),
    "not Base64": changed(ciphertext="***"),
    "not JSON": lambda _, reply: replace(reply, body=b"{"),
    "another type": lambda _, reply: replace(reply, content_type="text/html"),
    "HTML error": lambda _, reply: replace(reply, status=502, body=b"<html>Bad Gateway</html>"),
    "unknown error": lambda _, reply: replace(reply, status=400, body=b'{"errorName":"OddException"}'),
    "redirect": lambda _, reply: replace(reply, status=302, body=b""),
    "too long": lambda _, reply: replace(reply, body=reply.body + b" " * 70_000),
    "not HTTP": lambda _, reply: replace(reply, raw=b"SSH-2.0-OpenSSH_9.2\r\n\r\n"),
}


@pytest.mark.parametrize("alter", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_response_is_not_interpreted(kms: Any, proxy: XksProxy, alter: Alter) -> None:
    key = external_key(kms, connected_store(kms))
    proxy.alter = alter
    answer = error_of(kms.encrypt, KeyId=key, Plaintext=b"attack at dawn")
    assert answer == told(OperationGroup.CRYPTOGRAPHIC, Failure.MALFORMED_RESPONSE)


@pytest.mark.parametrize("raw", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"], ids=["before", "within"])
def test_a_connection_that_breaks_before_the_response_is_whole(kms: Any, proxy: XksProxy, raw: bytes) -> None:
    key = external_key(kms, connected_store(kms))
    proxy.alter = lambda _, reply: replace(reply, raw=raw)
    answer = error_of(kms.encrypt, KeyId=key, Plaintext=b"x")
    assert answer == told(OperationGroup.CRYPTOGRAPHIC, Failure.CONNECTION_LOST)


def test_a_timeout_is_retried_once_and_then_told(
    kms: Any, proxy: XksProxy, time_limit: Callable[[float], None]
) -> None:
    key = external_key(kms, connected_store(kms))
    time_limit(KMS_WAITS)
    asked = len(proxy.requests)
    proxy.alter = delayed(30.0)
    answer = error_of(kms.encrypt, KeyId=key, Plaintext=b"x")
    assert answer == told(OperationGroup.CRYPTOGRAPHIC, Failure.SOCKET_TIMEOUT)
    assert len(proxy.requests) - asked == 2


def test_the_retry_after_one_timeout_is_enough(
    kms: Any, proxy: XksProxy, time_limit: Callable[[float], None]
) -> None:
    key = external_key(kms, connected_store(kms))
    time_limit(2.0)  # a busy machine must answer the retry in time
    proxy.alter = delayed(30.0, times=1)
    kms.encrypt(KeyId=key, Plaintext=b"x")


@contextmanager
def closed_port() -> Iterator[Address]:
    """An address where nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield Address("127.0.0.1", taken.getsockname()[1])


@contextmanager
def silent_port() -> Iterator[Address]:
    """An address that accepts TCP and then says nothing: no TLS handshake is ever answered."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield Address("127.0.0.1", listener.getsockname()[1])


@contextmanager
def proxy_at(context: Any) -> Iterator[Address]:
    """The address of another proxy, over TLS with `context`, or in clear."""
    other = XksProxy(context)
    try:
        yield Address("127.0.0.1", other.port)
    finally:
        other.close()


def moved_away(start: Start, data: Path, address: Address) -> tuple[Any, str, str]:
    """A KMS that remembers a connected store and a key, and now finds `address` where the proxy was."""
    before = start(data=data).client()
    store_id = connected_store(before)
    key = external_key(before, store_id)
    return start(data=data, routes={HOST: address}).client(), store_id, key


@contextmanager
def expired(authority: Authority) -> Iterator[Address]:
    """The address of a proxy whose certificate has expired."""
    with proxy_at(authority.server_context(HOST, days=-1)) as address:
        yield address


PLACES: dict[Failure, Callable[[Authority], AbstractContextManager[Address]]] = {
    Failure.NO_TCP_CONNECTION: lambda _: closed_port(),
    Failure.NO_TLS_CONNECTION: expired,
    Failure.SOCKET_TIMEOUT: lambda _: silent_port(),
}


@pytest.mark.usefixtures("proxy")
@pytest.mark.parametrize("failure", PLACES)
def test_every_operation_tells_what_keeps_kms_from_the_proxy(
    start: Start,
    authority: Authority,
    tmp_path: Path,
    failure: Failure,
    time_limit: Callable[[float], None],
) -> None:
    two = {"XksProxyUriPath": "/two/kms/xks/v1"}
    with PLACES[failure](authority) as address:
        kms, store_id, key = moved_away(start, tmp_path / "data", address)
        if failure is Failure.SOCKET_TIMEOUT:
            time_limit(KMS_WAITS)
        calls: list[tuple[OperationGroup, Callable[..., object], dict[str, Any]]] = [
            (OperationGroup.KEY_STORE, create_store, {"kms": kms, "CustomKeyStoreName": "b", **two}),
            (OperationGroup.KEY_STORE, kms.update_custom_key_store, {"CustomKeyStoreId": store_id, **two}),
            (OperationGroup.CREATE_KEY, external_key, {"kms": kms, "store_id": store_id, "xks_key_id": "key-1"}),
            (OperationGroup.CRYPTOGRAPHIC, kms.encrypt, {"KeyId": key, "Plaintext": b"x"}),
        ]
        for group, call, parameters in calls:
            assert error_of(call, **parameters) == told(group, failure)


def test_key_store_operations_and_create_key_tell_of_a_malformed_response(kms: Any, proxy: XksProxy) -> None:
    store_id = connected_store(kms)
    proxy.alter = lambda _, reply: replace(reply, body=b"[]")
    two = {"XksProxyUriPath": "/two/kms/xks/v1"}
    malformed = told(OperationGroup.KEY_STORE, Failure.MALFORMED_RESPONSE)
    assert error_of(create_store, kms=kms, CustomKeyStoreName="b", **two) == malformed
    assert error_of(kms.update_custom_key_store, CustomKeyStoreId=store_id, **two) == malformed
    assert error_of(external_key, kms=kms, store_id=store_id) == told(
        OperationGroup.CREATE_KEY, Failure.MALFORMED_RESPONSE
    )


def test_no_tls_connection(start: Start, proxy: XksProxy, authority: Authority, tmp_path: Path) -> None:
    """Another name, another common name, an expired certificate, another authority, no TLS at all."""
    del proxy
    stranger = Authority.create(tmp_path, "A stranger")
    contexts = [
        authority.server_context("other.example.com"),
        authority.server_context(HOST, common_name="other.example.com"),
        authority.server_context(HOST, days=-1),
        stranger.server_context(HOST),
        None,
    ]
    for i, context in enumerate(contexts):
        with proxy_at(context) as address:
            kms, _, key = moved_away(start, tmp_path / str(i), address)
            answer = error_of(kms.encrypt, KeyId=key, Plaintext=b"x")
            assert answer == told(OperationGroup.CRYPTOGRAPHIC, Failure.NO_TLS_CONNECTION)


REACHED: dict[ConnectionErrorCode, Callable[[XksProxy], None]] = {
    ConnectionErrorCode.INVALID_CREDENTIALS: lambda proxy: setattr(proxy, "secret", "another" * 8),
    ConnectionErrorCode.NETWORK_ERRORS: lambda proxy: setattr(
        proxy, "alter", lambda _, reply: replace(reply, raw=b"")
    ),
    ConnectionErrorCode.XKS_PROXY_ACCESS_DENIED: lambda proxy: proxy.fail(ErrorName.ACCESS_DENIED),
    ConnectionErrorCode.XKS_PROXY_INVALID_CONFIGURATION: lambda proxy: proxy.fail(ErrorName.INVALID_URI_PATH),
    ConnectionErrorCode.XKS_PROXY_INVALID_RESPONSE: lambda proxy: setattr(
        proxy, "alter", lambda _, reply: replace(reply, body=b"{}")
    ),
    ConnectionErrorCode.XKS_PROXY_NOT_REACHABLE: lambda proxy: setattr(proxy, "health", [HealthStatus.UNAVAILABLE]),
    ConnectionErrorCode.XKS_PROXY_TIMED_OUT: lambda proxy: setattr(proxy, "alter", delayed(2.0)),
}
"""What a proxy does to bring about each code; the other codes have tests of their own below."""

ELSEWHERE = {
    ConnectionErrorCode.INTERNAL_ERROR,
    ConnectionErrorCode.XKS_PROXY_INVALID_TLS_CONFIGURATION,
    ConnectionErrorCode.XKS_VPC_ENDPOINT_SERVICE_INVALID_CONFIGURATION,
    ConnectionErrorCode.XKS_VPC_ENDPOINT_SERVICE_NOT_FOUND,
}


def test_every_connection_error_code_is_reached_by_a_test() -> None:
    assert set(REACHED) | ELSEWHERE == set(ConnectionErrorCode)


@pytest.mark.parametrize("code", REACHED)
def test_connecting_fails_with(
    kms: Any, proxy: XksProxy, code: ConnectionErrorCode, time_limit: Callable[[float], None]
) -> None:
    store_id = create_store(kms)
    REACHED[code](proxy)
    if code is ConnectionErrorCode.XKS_PROXY_TIMED_OUT:
        time_limit(KMS_WAITS)
    kms.connect_custom_key_store(CustomKeyStoreId=store_id)
    entry = settle(kms, store_id)
    assert (entry["ConnectionState"], entry["ConnectionErrorCode"]) == ("FAILED", code)


def reconnect(start: Start, data: Path, meanwhile: Callable[[], None] = lambda: None, **changes: Any) -> str:
    """The connection error code of a store that connected once, in a KMS with changed settings."""
    before = start(data=data).client()
    store_id = create_store(before)
    meanwhile()
    kms = start(data=data, **changes).client()
    kms.connect_custom_key_store(CustomKeyStoreId=store_id)
    return str(settle(kms, store_id)["ConnectionErrorCode"])


def test_an_unreadable_ca_is_kmss_internal_error(start: Start, proxy: XksProxy, tmp_path: Path) -> None:
    del proxy
    assert reconnect(start, tmp_path / "data", ca=tmp_path / "missing.pem") == "INTERNAL_ERROR"


def test_a_refused_tcp_connection_is_not_reachable(start: Start, proxy: XksProxy, tmp_path: Path) -> None:
    del proxy
    with closed_port() as address:
        assert reconnect(start, tmp_path / "data", routes={HOST: address}) == "XKS_PROXY_NOT_REACHABLE"


def test_a_handshake_without_an_answer_is_a_timeout(
    start: Start, proxy: XksProxy, tmp_path: Path, time_limit: Callable[[float], None]
) -> None:
    del proxy
    with silent_port() as address:
        code = reconnect(start, tmp_path / "data", lambda: time_limit(KMS_WAITS), routes={HOST: address})
    assert code == "XKS_PROXY_TIMED_OUT"


def test_an_expired_certificate_is_an_invalid_tls_configuration(
    start: Start, proxy: XksProxy, authority: Authority, tmp_path: Path
) -> None:
    del proxy
    with proxy_at(authority.server_context(HOST, days=-1)) as address:
        code = reconnect(start, tmp_path / "data", routes={HOST: address})
    assert code == "XKS_PROXY_INVALID_TLS_CONFIGURATION"


@pytest.mark.parametrize(
    ("message", "closing", "reported"),
    [
        ("Fatal error on SSL protocol", True, False),
        ("Fatal error on SSL protocol", False, True),
        ("Task exception was never retrieved", True, True),
    ],
)
def test_late_data_of_a_closed_connection_is_not_reported(
    caplog: pytest.LogCaptureFixture, *, message: str, closing: bool, reported: bool
) -> None:
    """Calls that were given up after 250 ms left tracebacks on standard error."""

    class Transport:
        def is_closing(self) -> bool:
            return closing

    loop = asyncio.new_event_loop()
    report_unless_closed(loop, {"message": message, "transport": Transport(), "exception": OSError()})
    loop.close()
    assert bool(caplog.records) == reported
