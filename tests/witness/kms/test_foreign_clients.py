"""What clients other than botocore do on the wire: SDKs for Java, MongoDB's library, Kafka's key providers."""

import socket
import ssl
from collections.abc import Callable

import boto3  # type: ignore[import-untyped]  # boto3 has no annotations
import pytest
from botocore.auth import SIGNED_HEADERS_BLACKLIST, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.compat import HTTPHeaders
from botocore.config import Config
from botocore.credentials import Credentials
from tests.waiting import PATIENCE
from tests.witness.kms.clients import LocalKms
from tests.witness.kms.tls import Authority

from holdfast.trust import client_context

Exchange = tuple[bytes, list[bytes]]


class EverythingSigner(SigV4Auth):
    """Signs all headers that it is given, as the AWS SDK for Java v1 does."""

    def headers_to_sign(self, request: AWSRequest) -> HTTPHeaders:
        """Every header, and the host."""
        signed = HTTPHeaders()
        for name, value in request.headers.items():
            signed[name.lower()] = value
        signed["host"] = str(request.url).split("/")[2]
        return signed


def exchange(local_kms: LocalKms, headers: dict[str, str], unsigned: dict[str, str] | None = None) -> Exchange:
    """Sends a ListKeys that alice signs, with these headers; the status line and the header lines."""
    request = AWSRequest(
        "POST", f"{local_kms.url}/", headers={"X-Amz-Target": "TrentService.ListKeys", **headers}, data=b"{}"
    )
    EverythingSigner(Credentials("AKIAALICE", "alice-has-this-secret"), "kms", "us-east-1").add_auth(request)
    address = local_kms.url.removeprefix("http://")
    lines = {"Host": address, **dict(request.headers.items()), **(unsigned or {}), "Content-Length": "2"}
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as raw:
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        raw.sendall(f"POST / HTTP/1.1\r\n{head}\r\n{{}}".encode())
        received = b""
        while b"\r\n\r\n" not in received:
            received += raw.recv(4096)
    status, *rest = received.partition(b"\r\n\r\n")[0].split(b"\r\n")
    return status, rest


@pytest.mark.parametrize(
    "name", sorted(set(SIGNED_HEADERS_BLACKLIST) - {"transfer-encoding", "connection", "upgrade", "expect"})
)
def test_a_signature_may_cover_any_header(local_kms: LocalKms, name: str) -> None:
    """Botocore never signs these; SDKs for other languages sign some of them."""
    assert exchange(local_kms, {name: "a  value"})[0] == b"HTTP/1.1 200 OK"


@pytest.mark.parametrize(
    "unsigned",
    [
        {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAEAAEAAAAIAAAABAAMAAABk"},
        {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Key": "x", "Sec-WebSocket-Version": "13"},
        {"Expect": "100-continue"},
        {"TE": "trailers"},
    ],
    ids=["Java's HttpClient", "WebSocket", "Expect", "trailers"],
)
def test_an_offer_that_the_server_does_not_take_leaves_the_request_whole(
    local_kms: LocalKms, unsigned: dict[str, str]
) -> None:
    """RFC 9110, 7.8: a server may ignore Upgrade."""
    assert exchange(local_kms, {}, unsigned)[0] in {b"HTTP/1.1 200 OK", b"HTTP/1.1 100 Continue"}


def test_response_headers_have_the_spelling_of_aws(local_kms: LocalKms) -> None:
    """Libmongocrypt compares Content-Length with its capitals."""
    names = [line.partition(b":")[0] for line in exchange(local_kms, {})[1]]
    assert names[:4] == [b"x-amzn-RequestId", b"Content-Type", b"Content-Length", b"Date"]


def test_clients_can_connect_by_https(
    start: Callable[..., LocalKms], authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MongoDB's drivers connect to KMS over TLS only."""
    file = authority.server_file("127.0.0.1")
    served = start(tls_certificate=file, tls_key=file)
    with pytest.raises(ssl.SSLError):
        _connect(served, client_context(None))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(served.settings.credentials))
    client = boto3.Session(profile_name="alice").client(
        "kms", endpoint_url=served.url, region_name="us-east-1", verify=str(authority.pem), config=Config()
    )
    assert client.list_keys()["Keys"] == []


def _connect(served: LocalKms, context: ssl.SSLContext) -> None:
    host, port = served.url.removeprefix("https://").split(":")
    with (
        socket.create_connection((host, int(port)), timeout=PATIENCE) as raw,
        context.wrap_socket(raw, server_hostname=host),
    ):
        pass
