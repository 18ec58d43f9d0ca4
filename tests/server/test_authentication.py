"""Appendix A over sockets: what is not exactly a signed request is refused, and the connection goes on."""

from __future__ import annotations

import json
import socket
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from tests.gateway.wire import Client
from tests.server.client import trusting
from tests.server.proxy_server import ACCESS_KEY_ID, CREDENTIAL, SECRET_ACCESS_KEY, ProxyServer
from tests.waiting import PATIENCE

from holdfast.xks.sigv4 import Credential, sign
from holdfast.xks.types import AccessKeyId, SecretAccessKey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.server.conftest import Serve

pytestmark = pytest.mark.server

PATH = b"/test/kms/xks/v1/health"
BODY = json.dumps({"requestMetadata": {"kmsRequestId": "1", "kmsOperation": "KmsHealthCheck"}}).encode()
REFUSED = (401, "AuthenticationFailedException")
NO_SUCH_PATH = (404, "InvalidUriPathException")
NOT_ONE_REQUEST = (400, "ValidationException")


@dataclass(frozen=True)
class Request:
    """Octets to be sent; `headers` in order. `signed` is over `path`, which `target` may differ from."""

    host: str
    path: bytes = PATH
    target: bytes = PATH
    body: bytes = BODY
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)

    def signed(self, credential: Credential = CREDENTIAL, *, late: float = 0.0) -> Request:
        """With the three headers of SigV4."""
        now = datetime.now(UTC) - timedelta(seconds=late)
        made = sign("POST", self.path, host=self.host, body=self.body, credential=credential, now=now)
        return replace(self, headers=[(name.encode(), value.encode()) for name, value in made.items()])

    def at(self, path: bytes) -> Request:
        """To another path, and signed for it."""
        return replace(self, path=path, target=path).signed()

    def to(self, target: bytes) -> Request:
        """With another target than what was signed."""
        return replace(self, target=target)

    def value(self, name: bytes) -> bytes:
        """Of the header."""
        return dict(self.headers)[name]

    def with_(self, name: bytes, value: bytes) -> Request:
        """With one more header."""
        return replace(self, headers=[*self.headers, (name, value)])

    def without(self, name: bytes) -> Request:
        """Without the header."""
        return replace(self, headers=[header for header in self.headers if header[0] != name])

    def changed(self, old: bytes, new: bytes) -> Request:
        """With a part of the Authorization header replaced."""
        value = self.value(b"Authorization")
        assert old in value
        return self.without(b"Authorization").with_(b"Authorization", value.replace(old, new))

    def to_bytes(self) -> bytes:
        """On the wire."""
        lines = [b"POST " + self.target + b" HTTP/1.1", *(name + b": " + value for name, value in self.headers)]
        return b"\r\n".join([*lines, b"Content-Length: %d" % len(self.body), b"", self.body])


ACCEPTED: dict[str, Callable[[Request], Request]] = {
    "as signed": lambda request: request,
    "names in capitals": lambda r: replace(r, headers=[(name.upper(), value) for name, value in r.headers]),
    "names in small letters": lambda r: replace(r, headers=[(name.lower(), value) for name, value in r.headers]),
    "tabs around the value": lambda r: r.without(b"Authorization").with_(
        b"Authorization", b"\t" + r.value(b"Authorization") + b" \t"
    ),
    "an old Date beside X-Amz-Date": lambda r: r.with_(b"Date", b"Mon, 01 Jan 2001 00:00:00 GMT"),
    "another word for the body's hash": lambda r: r.with_(b"X-Amz-Content-Sha256", b"UNSIGNED-PAYLOAD"),
    "another content type": lambda r: r.with_(b"Content-Type", b"text/plain"),
    "four minutes late": lambda r: r.signed(late=240),
    "four minutes early": lambda r: r.signed(late=-240),
    "15 KB of other headers": lambda r: r.with_(b"X", b"y" * 15_000),
}
OTHER = Credential(AccessKeyId.parse("A" * 20), SECRET_ACCESS_KEY, CREDENTIAL.region)
WRONG = Credential(ACCESS_KEY_ID, SecretAccessKey.parse("w" * 43), CREDENTIAL.region)
ANSWERS: dict[str, tuple[tuple[int, str], Callable[[Request], Request]]] = {
    "another secret": (REFUSED, lambda r: r.signed(WRONG)),
    "an unknown access key id": (REFUSED, lambda r: r.signed(OTHER)),
    "no signature": (REFUSED, lambda r: r.without(b"Authorization")),
    "two signatures": (REFUSED, lambda r: r.with_(b"authorization", r.value(b"Authorization"))),
    "an empty second signature": (REFUSED, lambda r: r.with_(b"Authorization", b"")),
    "an octet beyond ASCII": (REFUSED, lambda r: r.changed(b"AWS4", b"\xffAWS4")),
    "a tab between the parts": (REFUSED, lambda r: r.changed(b", ", b",\t")),
    "the parts in another order": (
        REFUSED,
        lambda r: r.changed(b"Credential=", b"SignedHeaders=host;x-amz-date, Credential="),
    ),
    "another service": (REFUSED, lambda r: r.changed(b"/kms-xks-proxy/", b"/kms/")),
    "another region": (REFUSED, lambda r: r.changed(b"/us-east-2/", b"/us-east-1/")),
    "another body": (REFUSED, lambda r: replace(r, body=BODY + b" ")),
    "another host": (REFUSED, lambda r: r.without(b"Host").with_(b"Host", b"127.0.0.1")),
    "Date in place of X-Amz-Date": (
        REFUSED,
        lambda r: r.without(b"X-Amz-Date").with_(b"Date", r.value(b"X-Amz-Date")),
    ),
    "two dates": (REFUSED, lambda r: r.with_(b"x-amz-date", r.value(b"X-Amz-Date"))),
    "five minutes and a second late": (REFUSED, lambda r: r.signed(late=301)),
    "five minutes and two seconds early": (REFUSED, lambda r: r.signed(late=-302)),
    "the host not signed": (REFUSED, lambda r: r.changed(b"host;", b"")),
    "the date not signed": (REFUSED, lambda r: r.changed(b";x-amz-date", b"")),
    "a signed header that is not there": (REFUSED, lambda r: r.changed(b"host;", b"content-type;host;")),
    "a query": (REFUSED, lambda r: r.to(PATH + b"?a=b")),
    "an empty query": (REFUSED, lambda r: r.to(PATH + b"?")),
    "presigned": (REFUSED, lambda r: replace(r, headers=r.headers[:1]).to(PATH + b"?X-Amz-Signature=0")),
    "percent-encoded": (NO_SUCH_PATH, lambda r: r.at(b"/test/kms/xks/v1/%68ealth")),
    "encoded twice": (NO_SUCH_PATH, lambda r: r.at(b"/test/kms/xks/v1/%2568ealth")),
    "an encoded slash": (NO_SUCH_PATH, lambda r: r.at(b"/test/kms/xks/v1/keys/a%2Fb/encrypt")),
    "two slashes": (NO_SUCH_PATH, lambda r: r.at(b"/" + PATH)),
    "dots": (NO_SUCH_PATH, lambda r: r.at(b"/test/x/../kms/xks/v1/health")),
    "a slash at the end": (NO_SUCH_PATH, lambda r: r.at(PATH + b"/")),
    "a fragment": (NO_SUCH_PATH, lambda r: r.to(PATH + b"#a")),
    "the absolute form": (NO_SUCH_PATH, lambda r: r.to(b"https://" + r.host.encode() + PATH)),
    "another key store": (NO_SUCH_PATH, lambda r: r.at(b"/other/kms/xks/v1/health")),
    "no host": (NOT_ONE_REQUEST, lambda r: r.without(b"Host")),
    "two hosts": (NOT_ONE_REQUEST, lambda r: r.with_(b"Host", b"a")),
    "headers over the cap": (NOT_ONE_REQUEST, lambda r: r.with_(b"X", b"y" * 17_000)),
}


@pytest.fixture(scope="module")
def client(shared: ProxyServer) -> Iterator[Client]:
    """One connection for all: what is refused must not end it."""
    context = trusting(shared.authority.certificate)
    with (
        socket.create_connection(("127.0.0.1", shared.port), PATIENCE) as sock,
        context.wrap_socket(sock, server_hostname="localhost") as tls,
    ):
        yield Client(tls)


@pytest.fixture
def request_(shared: ProxyServer) -> Request:
    return Request(f"localhost:{shared.port}").signed()


@pytest.mark.parametrize("change", ACCEPTED.values(), ids=ACCEPTED)
def test_a_signed_request_is_answered(
    client: Client, request_: Request, change: Callable[[Request], Request]
) -> None:
    assert client.send(change(request_).to_bytes()).answer().status == 200


@pytest.mark.parametrize(("expected", "change"), ANSWERS.values(), ids=ANSWERS)
def test_any_other_request_is_refused_and_the_connection_goes_on(
    client: Client, request_: Request, expected: tuple[int, str], change: Callable[[Request], Request]
) -> None:
    assert client.send(change(request_).to_bytes()).answer().error == expected
    assert client.send(request_.to_bytes()).answer().status == 200


def test_who_cannot_sign_is_told_the_same_whatever_is_wrong(client: Client, request_: Request) -> None:
    wrong, unknown = (client.send(request_.signed(who).to_bytes()).answer().body for who in (WRONG, OTHER))
    assert wrong == unknown


@pytest.mark.parametrize("length", [43, 52, 64])
def test_credentials_are_rotated_while_connections_go_on(serve: Serve, length: int) -> None:
    """Spec, "SigV4 credentials rotation": two live sets, changed without disconnecting."""
    server = serve()
    new = Credential(AccessKeyId.parse("B" * 30), SecretAccessKey.parse("+/=".ljust(length, "k")), "eu-west-1")
    context = trusting(server.authority.certificate)
    with (
        socket.create_connection(("127.0.0.1", server.port), PATIENCE) as sock,
        context.wrap_socket(sock, server_hostname="localhost") as tls,
        closing(server.catalog()) as catalog,
    ):
        client, request = Client(tls), Request(f"localhost:{server.port}")

        def statuses() -> list[int]:
            return [client.send(request.signed(who).to_bytes()).answer().status for who in (CREDENTIAL, new)]

        assert statuses() == [200, 401]
        catalog.issue_credential("test", (new.access_key_id, new.secret_access_key))
        server.eventually(lambda: statuses() == [200, 200], within=3, what="both sign")
        catalog.retire_credential(ACCESS_KEY_ID)
        server.eventually(lambda: statuses() == [401, 200], within=3, what="the new one alone signs")
