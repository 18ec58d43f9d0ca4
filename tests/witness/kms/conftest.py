"""A proxy for the whole run, a local KMS for each test, and boto3 clients of it."""

import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from tests.waiting import PATIENCE
from tests.witness.kms.clients import LocalKms
from tests.witness.kms.tls import Authority
from tests.witness.kms.xks_proxy import HOST, XksProxy

from holdfast.witness.kms import proxy_client
from holdfast.witness.kms.callers import load_callers
from holdfast.witness.kms.server import application, listening_socket, server
from holdfast.witness.kms.settings import Address, Settings
from holdfast.witness.kms.state import State

CREDENTIALS = """\
[alice]
aws_access_key_id = AKIAALICE
aws_secret_access_key = alice-has-this-secret
[ebs]
aws_access_key_id = AKIAEBS
aws_secret_access_key = ebs-has-another
principal_arn = ec2.amazonaws.com
via_service = ec2.us-east-1.amazonaws.com
source_vpc = vpc-1
source_vpce = vpce-1
"""


@dataclass
class Running:
    """A server on its thread. One that is left `alone` does nothing more once its client has gone."""

    server: uvicorn.Server
    thread: threading.Thread
    listener: socket.socket
    alone: bool

    def join(self) -> None:
        """Waits for its end; uvicorn takes a fifth of a second."""
        self.thread.join(PATIENCE)
        self.listener.close()


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.create(tmp_path_factory.mktemp("authority"), "Test authority")


@pytest.fixture(scope="session")
def running_proxy(authority: Authority) -> Iterator[XksProxy]:
    proxy = XksProxy(authority.server_context(HOST))
    yield proxy
    proxy.close()


@pytest.fixture
def proxy(running_proxy: XksProxy) -> XksProxy:
    running_proxy.reset()
    return running_proxy


@pytest.fixture(autouse=True)
def time_limit(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets how many seconds a proxy has for its answer: many, until a test of late answers sets it."""

    def limit(seconds: float) -> None:
        monkeypatch.setattr(proxy_client, "TIME_LIMIT", seconds)

    limit(PATIENCE)
    return limit


@pytest.fixture
def settings(tmp_path: Path, authority: Authority, running_proxy: XksProxy) -> Settings:
    credentials = tmp_path / "credentials"
    credentials.write_text(CREDENTIALS)
    return Settings(
        credentials=credentials,
        listen=Address("127.0.0.1", 0),
        ca=authority.pem,
        routes={HOST: Address("127.0.0.1", running_proxy.port)},
        connection_delay=0.01,
        health_interval=3600,
    )


@pytest.fixture(scope="session")
def ending() -> Iterator[list[Running]]:
    """Servers that were told to end; the run waits for them at its end."""
    told: list[Running] = []
    yield told
    for running in told:
        running.join()


@pytest.fixture
def start(settings: Settings, ending: list[Running]) -> Iterator[Callable[..., LocalKms]]:
    """Starts a local KMS with changed settings; they all end with the test."""
    started: list[Running] = []

    def run(**changes: Any) -> LocalKms:
        chosen = replace(settings, **changes)
        listener = listening_socket(chosen.listen)
        scheme = "https" if chosen.tls_certificate else "http"
        kms = LocalKms(chosen, f"{scheme}://127.0.0.1:{listener.getsockname()[1]}")
        serving = server(application(chosen, State(chosen.data), load_callers(chosen), kms.lines.append), chosen)
        thread = threading.Thread(target=serving.run, kwargs={"sockets": [listener]})
        thread.start()
        started.append(Running(serving, thread, listener, alone=not changes))
        return kms

    yield run
    for running in started:
        running.server.should_exit = True
        if running.alone:
            ending.append(running)
        else:
            running.join()


@pytest.fixture
def local_kms(start: Callable[..., LocalKms], proxy: XksProxy) -> LocalKms:
    del proxy
    return start()


@pytest.fixture
def kms(local_kms: LocalKms) -> Any:
    """A boto3 client, as alice."""
    return local_kms.client()
