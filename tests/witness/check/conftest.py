"""An honest proxy on loopback, and sessions against it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.witness.check.certificates import Authority
from tests.witness.check.honest_proxy import (
    DECRYPT_ONLY,
    ENCRYPT_ONLY,
    KEY,
    NO_USE,
    HonestProxy,
    serve,
    write_configuration,
)

from holdfast.witness.check.endpoint import Endpoint, ProxyConfiguration
from holdfast.witness.check.finding import Result, Verdict
from holdfast.witness.check.run import Report, run, select
from holdfast.witness.check.session import Session, TestKeys, Trust

OpenSession = Callable[..., AbstractContextManager[Session]]

KEYS = TestKeys(KEY, ENCRYPT_ONLY, DECRYPT_ONLY, NO_USE)
WAIVED = {"CONF-04", "REACH-03", "CERT-02"}
"""What a proxy on loopback, on another port, under a test CA cannot satisfy: --local waives it."""


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.create(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="session")
def certificate(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return authority.issue(tmp_path_factory.mktemp("server") / "server.pem")


@pytest.fixture(scope="session")
def configuration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_configuration(tmp_path_factory.mktemp("configuration") / "xks-proxy.json")


@pytest.fixture
def open_session(authority: Authority, certificate: Path, configuration: Path) -> OpenSession:
    @contextmanager
    def opened(
        proxy: HonestProxy, *, keys: TestKeys = KEYS, server_certificate: Path | None = None
    ) -> Iterator[Session]:
        with serve(proxy, server_certificate or certificate) as port:
            endpoint = Endpoint.parse(f"https://localhost:{port}", ProxyConfiguration.read(configuration))
            session = Session(
                endpoint, keys, Trust(ca=str(authority.path)), lambda: datetime.now(UTC), samples=20, local=True
            )
            yield session
            session.close()

    return opened


def report_of(session: Session, *only: str) -> Report:
    return run(session, select(only), lambda _result: None)


def complaints(report: Report) -> dict[str, Result]:
    """Failures and warnings; not what --local waives."""
    return {result.check.id: result for result in report.results if result.verdict in (Verdict.FAIL, Verdict.WARN)}
