"""Checks of what is not the proxy's own doing: configuration file, name, port, distance, mutual TLS."""

import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.witness.check.certificates import Authority
from tests.witness.check.conftest import KEYS, OpenSession, complaints, report_of
from tests.witness.check.honest_proxy import ACCESS_KEY_ID, PREFIX, SECRET, HonestProxy

from holdfast.cli.output import utc_now
from holdfast.witness.check.endpoint import Endpoint, ProxyConfiguration
from holdfast.witness.check.finding import Verdict
from holdfast.witness.check.latency import Measurement
from holdfast.witness.check.session import Session, Trust
from holdfast.xks.secret import Secret
from holdfast.xks.types import Operation

RIGHT = ProxyConfiguration(f"{PREFIX}/kms/xks/v1", ACCESS_KEY_ID, Secret(SECRET.encode()))
SECONDS = [0.001] * 10


def session_of(configuration: ProxyConfiguration, url: str = "https://xks.example.com") -> Session:
    """A session that has sent nothing yet."""
    return Session(Endpoint.parse(url, configuration), KEYS, Trust(), utc_now)


def failures(session: Session, *only: str) -> list[str]:
    return [r.check.id for r in report_of(session, *only).results if r.verdict is Verdict.FAIL]


@pytest.mark.parametrize(
    ("check_id", "session"),
    [
        ("CONF-01", session_of(replace(RIGHT, uri_path="/honest/kms/xks/v2"))),
        ("CONF-02", session_of(replace(RIGHT, access_key_id="TOOSHORT"))),
        ("CONF-03", session_of(replace(RIGHT, secret_access_key=Secret(b"too short")))),
        ("CONF-04", session_of(RIGHT, "https://192.0.2.1")),
        ("CONF-05", session_of(RIGHT, f"https://{'long.' * 40}example.com")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_configuration_that_kms_refuses(check_id: str, session: Session) -> None:
    assert failures(session, "CONF") == [check_id]


def test_a_name_that_does_not_resolve() -> None:
    assert failures(session_of(RIGHT, "https://xks.invalid"), "REACH") == ["REACH-01"]


def test_a_port_where_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        session = session_of(RIGHT, f"https://localhost:{taken.getsockname()[1]}")
        session.local = True
        assert failures(session, "REACH") == ["REACH-02"]


def test_another_port_at_a_public_address() -> None:
    session = session_of(RIGHT, "https://xks.example.com:8443")
    session.__dict__["dns"] = (["8.8.8.8"], 0.0)
    assert failures(session, "REACH-03") == ["REACH-03"]


@pytest.mark.server
@pytest.mark.parametrize(
    ("check_id", "slow"),
    [
        ("LAT-02", {"whole": [0.3] * 10}),
        ("LAT-03", {"tcp": [0.05] * 10}),
    ],
)
def test_distance_is_told(open_session: OpenSession, check_id: str, slow: dict[str, Any]) -> None:
    measured = Measurement(Operation.ENCRYPT, 0.001, SECONDS, SECONDS, SECONDS, SECONDS, SECONDS)
    with open_session(HonestProxy()) as session:
        session.measurement = replace(measured, **slow)
        assert list(complaints(report_of(session, "LAT"))) == [check_id]


@pytest.mark.server
def test_mutual_tls_that_nobody_demands(open_session: OpenSession, authority: Authority, tmp_path: Path) -> None:
    with open_session(HonestProxy()) as session:
        session.trust = replace(session.trust, client_certificate=str(authority.issue(tmp_path / "client.pem")))
        assert failures(session, "TLS") == ["TLS-05"]
