"""Every client of the product gives one verdict on a certificate, whichever Python runs it."""

import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.server.certificates import Authority

from holdfast.doctor.wire import trusting, trusting_any
from holdfast.trust import client_context
from holdfast.witness.check import wire
from holdfast.witness.kms import proxy_client

CLIENTS: dict[str, Callable[[Path], ssl.SSLContext]] = {
    "trust": client_context,
    "prove and doctor": trusting,
    "doctor, of a certificate that it compares": lambda _: trusting_any(),
    "check": lambda authority: wire.tls_context(str(authority), None, verify=True),
    "check, of a certificate that is bad": lambda authority: wire.tls_context(str(authority), None, verify=False),
    "local KMS": proxy_client.tls_context,
}


@pytest.mark.parametrize("client", CLIENTS.values(), ids=CLIENTS)
def test_a_client_verifies_as_openssl_does_by_default(
    client: Callable[[Path], ssl.SSLContext], tmp_path: Path
) -> None:
    """And not more strictly, as `ssl.create_default_context` does since Python 3.13."""
    context = client(Authority(tmp_path).certificate)
    assert context.verify_flags == ssl.VERIFY_X509_TRUSTED_FIRST
