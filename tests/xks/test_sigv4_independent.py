"""SigV4 against signers that are not ours: botocore's, and the real curl."""

from __future__ import annotations

import re
import socket
import subprocess
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.compat import HTTPHeaders
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st
from tests.waiting import PATIENCE
from tests.xks.signing import ACCESS_KEY_ID, BODY, CREDENTIALS, PATH, REGION, SECRET, Signed, received

from holdfast.xks.sigv4 import SERVICE
from holdfast.xks.types import SecretAccessKey

if TYPE_CHECKING:
    from collections.abc import Mapping

HOST = "proxy.example.com"


def by_botocore(
    *,
    path: bytes = PATH,
    body: bytes = BODY,
    secret: SecretAccessKey = SECRET,
    headers: Mapping[str, str] | None = None,
) -> tuple[Signed, datetime]:
    """A request signed by botocore, with its clock read just before."""
    now = datetime.now(UTC)
    request = AWSRequest("POST", f"https://{HOST}{path.decode()}", dict(headers or {}), body)
    credentials = Credentials(str(ACCESS_KEY_ID), secret.reveal().decode())
    SigV4Auth(credentials, SERVICE, REGION).add_auth(request)
    assert isinstance(request.headers, HTTPHeaders)
    sent = [*request.headers.items(), ("Host", HOST)]
    return Signed(received(sent), path=path, body=body), now


def test_what_botocore_signs_is_verified() -> None:
    request, now = by_botocore()
    assert request.verify(now=now) == ACCESS_KEY_ID


KEY_IDS = st.from_regex(r"[A-Za-z0-9._-]{1,128}", fullmatch=True).filter(lambda key: key not in (".", ".."))
PREFIXES = st.from_regex(r"(?:/[A-Za-z0-9_-]{1,20}){0,3}", fullmatch=True)
# Signers fold white space differently except for spaces, which they fold alike.
VALUES = st.from_regex(r"[!-~]{1,5}(?: {1,3}[!-~]{1,5}){0,3}", fullmatch=True)


@given(
    st.binary(max_size=100),
    st.from_regex(r"[A-Za-z0-9/+=]{43,64}", fullmatch=True),
    st.builds("{}/kms/xks/v1/keys/{}/encrypt".format, PREFIXES, KEY_IDS),
    st.dictionaries(st.from_regex(r"X-[A-Z][a-z0-9-]{1,9}", fullmatch=True), VALUES, max_size=3),
)
def test_botocore_and_we_agree_on_bodies_secrets_paths_and_headers(
    body: bytes, secret: str, path: str, headers: dict[str, str]
) -> None:
    key = SecretAccessKey.parse(secret)
    request, now = by_botocore(path=path.encode(), body=body, secret=key, headers=headers)
    assert request.verify(now=now, credentials={str(ACCESS_KEY_ID): key}) == ACCESS_KEY_ID


def test_more_signed_headers_are_verified_and_their_spaces_folded() -> None:
    request, now = by_botocore(headers={"Content-Type": "application/json", "X-Amz-Note": "  a   b  c "})
    assert b"SignedHeaders=content-type;host;x-amz-date;x-amz-note," in request.value(b"authorization")
    assert request.verify(now=now) == ACCESS_KEY_ID


def test_our_signature_is_botocores() -> None:
    theirs, _ = by_botocore()
    sent = datetime.strptime(theirs.value(b"x-amz-date").decode(), "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    ours = Signed.by_us(now=sent)
    assert ours.value(b"authorization") == theirs.value(b"authorization")


@pytest.mark.programs
@pytest.mark.parametrize("header", [[], ["-H", "Content-Type:application/json"]], ids=["form", "json"])
def test_what_curl_signs_is_verified(header: list[str]) -> None:
    """Spec, Appendix D: curl --aws-sigv4, as printed there."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        caught: list[bytes] = []
        listener = threading.Thread(target=_answer_one, args=(server, caught), daemon=True)
        listener.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}{PATH.decode()}"
        subprocess.run(
            [
                "curl",
                "-sS",
                "--max-time",
                "10",
                "--aws-sigv4",
                f"aws:amz:{REGION}:{SERVICE}",
                "-X",
                "POST",
                "--user",
                f"{ACCESS_KEY_ID}:{SECRET.reveal().decode()}",
                *header,
                "--data",
                BODY.decode(),
                url,
            ],
            check=True,
            timeout=PATIENCE,
        )
        listener.join(PATIENCE)
    head, _, body = caught[0].partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    assert first == f"POST {PATH.decode()} HTTP/1.1"
    headers = [(name, value) for name, value in (re.split(r":\s*", line, maxsplit=1) for line in lines)]
    request = Signed(received(headers), body=body)
    assert request.verify(now=datetime.now(UTC), credentials=CREDENTIALS, region=REGION) == ACCESS_KEY_ID


def _answer_one(server: socket.socket, caught: list[bytes]) -> None:
    connection, _ = server.accept()
    with connection:
        connection.settimeout(PATIENCE)
        data = b""
        while not data.endswith(BODY):
            data += connection.recv(65536)
        caught.append(data)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
