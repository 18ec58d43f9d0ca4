"""A real `holdfast serve` in a subprocess: SoftHSM or the shim below it, a catalog, HTTPS, a free loopback port."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, Self

import msgspec
import tomli_w
from tests.administered import Catalog
from tests.ports import free_ports
from tests.server.certificates import Authority, Pair
from tests.server.client import Caller, trusting
from tests.server.token import HEALTH_KEY, KEYS, LIBRARY, PIN, TOKEN, softhsm_environment, write_configuration
from tests.shim.control import ShimControl, environment
from tests.waiting import PATIENCE, eventually

from holdfast.xks.sigv4 import Credential
from holdfast.xks.types import AccessKeyId, ExternalKeyId, SecretAccessKey, UriPathPrefix

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.server.client import Reply
    from tests.shim.control import Personality

    from holdfast.xks.types import Operation

START_TIMEOUT = 20.0
STOP_TIMEOUT = 15.0
HSM = "main"
KEYSTORE = "test"
PREFIX = "/test"
REGION = "us-east-2"
AUDIT_LOG = "holdfast.test/node-1"
ACCESS_KEY_ID = AccessKeyId.parse("HOLDFASTTESTACCESSKEY")
SECRET_ACCESS_KEY = SecretAccessKey.parse("HoldfastTestSecretAccessKeyThatIsPublic/0123456789+=")
CREDENTIAL = Credential(ACCESS_KEY_ID, SECRET_ACCESS_KEY, REGION)

_PROFILES: dict[str, dict[str, Any]] = {
    "nshield": {"profile": "nshield", "token": {"label": "loadshared accelerator"}},
    "luna": {"profile": "luna"},
    "cloudhsm": {"profile": "cloudhsm"},
}


class NotReady(AssertionError):
    """The server ended, or was not ready in time; the message holds what it said."""


class ProxyServer:
    """Context manager. `personality` None: SoftHSM itself; else the shim (`library` from tests.shim.control.build).

    `server` and `hsm` add to or replace keys of `[server]` and `[hsm.main]`; `policies` is the text of a policy file.
    `audit`: there is an audit log in `audit_directory`, with these further keys of `[audit]`.
    `outlets`: the tables `[outlet.NAME]`.

    With `tls` False the port speaks plain HTTP. With `wait` False nothing waits for /ready; with `autostart` False
    the test calls `start`.
    """

    def __init__(  # noqa: PLR0913 (what tests vary)
        self,
        directory: Path,
        tokens: Path,
        *,
        personality: Personality | None = None,
        library: Path | None = None,
        shim: dict[str, Any] | None = None,
        workers: int = 1,
        tls: bool = True,
        certificate: Literal["ecdsa", "rsa"] = "ecdsa",
        client_subject: str | None = None,
        events: bool = True,
        server: dict[str, Any] | None = None,
        hsm: dict[str, Any] | None = None,
        log: dict[str, Any] | None = None,
        audit: dict[str, Any] | None = None,
        outlets: dict[str, dict[str, Any]] | None = None,
        policies: str | None = None,
        wait: bool = True,
        autostart: bool = True,
    ) -> None:
        self.directory = directory
        self._wait = wait
        self._autostart = autostart
        directory.mkdir(parents=True, exist_ok=True)
        shutil.copytree(tokens / "tokens", directory / "tokens")
        write_configuration(directory)
        self.authority = Authority(directory)
        self.client_authority = Authority(directory, "client-authority")
        self.certificate: Pair = self.authority.issue("localhost", file="server", kind=certificate)
        self.port, self.health_port, self.metrics_port = free_ports(3)
        self.url = f"{'https' if tls else 'http'}://localhost:{self.port}"
        self.config = directory / "holdfast.toml"
        self.events_file = directory / "events.jsonl"
        self.shim = None if personality is None else ShimControl(directory / "shim-control")
        self._tls = tls
        self._client_subject = client_subject
        self._callers: list[Caller] = []
        self.settings = self._settings(workers, personality, library, shim or {}, events=events)
        self.settings["server"] |= server or {}
        self.settings["hsm"][HSM] |= hsm or {}
        self.settings["log"] |= log or {}
        self.audit_directory = directory / "audit"
        if audit is not None:
            self.settings["audit"] = {"directory": "audit", "name": AUDIT_LOG, "interval_s": 0.2, **audit}
        if outlets is not None:
            self.settings["outlet"] = outlets
        self.policies_file = directory / "policies.cedar"
        if policies is not None:
            self.settings["authorization"] = {"policies": self.policies_file.name}
            self.write_policies(policies)
        self.write_config()
        self._fill_catalog()
        self._stderr = (directory / "stderr").open("wb")
        self._stdout = (directory / "stdout").open("wb")
        self.process: subprocess.Popen[bytes] | None = None

    # ---- life

    def __enter__(self) -> Self:
        try:
            if self._autostart:
                self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self.shim is not None:
            self.shim.clear_faults()
        for caller in self._callers:
            caller.close()
        if self.process is not None and self.process.poll() is None:
            self.stop()
        if self.shim is not None:
            self.shim.close()
        self._stderr.close()
        self._stdout.close()

    def start(self, *, stdout: Any = None, stderr: Any = None, before: str = ":", wait: bool = True) -> None:
        """Start the process after the shell command `before`, and wait until it is ready."""
        self.process = subprocess.Popen(
            ["sh", "-c", f'{before}; exec "$@"', "sh", *self._command()],
            stdout=stdout if stdout is not None else self._stdout,
            stderr=stderr if stderr is not None else self._stderr,
            stdin=subprocess.DEVNULL,
            # A group of its own, so that nothing outlives a test.
            start_new_session=True,
        )
        if self._wait and wait:
            self.wait_ready()

    def _command(self) -> list[str]:
        return [sys.executable, "-m", "holdfast", "serve", "--config", str(self.config)]

    def wait_ready(self) -> None:
        """Until /ready says 200 and every worker serves."""
        self.eventually(self.is_ready, within=START_TIMEOUT, what="/ready says 200")
        # A worker answers before the supervisor has heard that it is ready.
        workers = self.settings["server"]["workers"]
        self.eventually(
            lambda: self.metric("holdfast_workers_ready") == workers, within=START_TIMEOUT, what="every worker"
        )

    def is_ready(self) -> bool:
        """Whether /ready says 200; over the plain health port, so that TLS is not in the way."""
        try:
            with self.caller(health_port=True) as caller:
                return caller.request("GET", "/ready").status == 200
        except OSError:
            return False

    def eventually(self, condition: Callable[[], bool], *, within: float, what: str) -> None:
        """Wait until `condition` holds. Raises NotReady after `within` seconds in which the server could run."""

        def holds() -> bool:
            if condition():
                return True
            if self.process is not None and self.process.poll() is not None:
                raise NotReady(f"the server ended with {self.process.returncode}:\n{self.stderr()}")
            return False

        try:
            eventually(holds, within=within, what=what, processes=self._pids)
        except NotReady:
            raise
        except AssertionError as late:
            raise NotReady(f"{late}\n{self.stderr()}") from None

    def _pids(self) -> list[int]:
        """The supervisor and its processes."""
        if self.process is None:
            return []
        with suppress(FileNotFoundError):
            return [self.process.pid, *_children(self.process.pid)]
        return []

    def stop(self) -> int:
        """SIGTERM, and the exit code; killed, with an error, where it does not end."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.wait_end()

    def wait_end(self, within: float = STOP_TIMEOUT) -> int:
        """The exit code of a server that is ending."""
        assert self.process is not None
        process = self.process
        try:
            eventually(lambda: process.poll() is not None, within=within, processes=self._pids)
        except AssertionError:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise NotReady(f"the server did not end within {within} s:\n{self.stderr()}") from None
        return process.wait()

    def hangup(self) -> None:
        """SIGHUP."""
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)

    def worker_pids(self) -> list[int]:
        """The processes of the workers."""
        assert self.process is not None
        return [pid for pid in _children(self.process.pid) if b"spawn_main" in _command_line(pid)]

    # ---- calling

    def caller(  # noqa: PLR0913 (what tests vary)
        self,
        *,
        prefix: str = PREFIX,
        key: str = "key-1",
        client: Pair | None = None,
        health_port: bool = False,
        credential: Credential = CREDENTIAL,
        patient: bool = True,
    ) -> Caller:
        """A client with a connection of its own; closed with the server at the latest.

        With `patient` it repeats, on SoftHSM itself, a call that ended in a timeout: there the machine was busy.
        """
        pair = None if client is None else (client.certificate, client.private_key)
        caller = Caller(
            f"http://localhost:{self.health_port}" if health_port else self.url,
            credential,
            prefix=prefix,
            tls=trusting(self.authority.certificate, client=pair) if self._tls and not health_port else None,
            key=key,
            patient=patient and self.shim is None,
        )
        self._callers.append(caller)
        return caller

    def call(self, operation: Operation, fields: dict[str, Any] | None = None, *, key: str | None = None) -> Reply:
        """One signed call over a connection of its own."""
        with self.caller() as caller:
            return caller.call(operation, fields, key=key)

    def round_trip(self) -> None:
        """Encrypt and Decrypt once, and compare."""
        with self.caller() as caller:
            sealed = caller.encrypt(b"round trip", b"aad")
            assert sealed.status == 200, sealed.body
            opened = caller.decrypt(sealed, b"aad")
            assert (opened.status, caller.plaintext(opened)) == (200, b"round trip")

    # ---- looking

    def events(self) -> list[dict[str, Any]]:
        """The event log's lines so far. A line is written within some 20 ms after its answer."""
        if not self.events_file.exists():
            return []
        # A line that is being written is not whole yet.
        whole, _, _ = self.events_file.read_bytes().rpartition(b"\n")
        return [msgspec.json.decode(line) for line in whole.splitlines()]

    def wait_for_events(self, count: int) -> list[dict[str, Any]]:
        """The event log once it has so many lines."""
        self.eventually(lambda: len(self.events()) >= count, within=5, what=f"{count} events")
        return self.events()

    def metrics(self) -> str:
        """/metrics as text."""
        with socket.create_connection(("127.0.0.1", self.metrics_port), PATIENCE) as sock:
            sock.sendall(b"GET /metrics HTTP/1.0\r\nHost: a\r\n\r\n")
            parts = iter(lambda: sock.recv(65536), b"")
            return b"".join(parts).partition(b"\r\n\r\n")[2].decode()

    def metric(self, name: str, **labels: str) -> float | None:
        """One sample's value; None if there is none."""
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        for line in self.metrics().splitlines():
            series, _, value = line.rpartition(" ")
            if series.partition("{")[0] == name and all(label in series for label in wanted):
                return float(value)
        return None

    def stderr(self) -> str:
        """What the server has told its operator."""
        return (self.directory / "stderr").read_text()

    # ---- managing

    def write_config(self, text: str | None = None) -> None:
        """Write `settings`, or `text`, to the configuration file."""
        fresh = self.config.with_suffix(".new")
        fresh.write_text(tomli_w.dumps(self.settings) if text is None else text)
        fresh.replace(self.config)

    def write_policies(self, text: str) -> None:
        """Write the policy file that the configuration names, all at once."""
        fresh = self.policies_file.with_suffix(".new")
        fresh.write_text(text)
        fresh.replace(self.policies_file)

    def catalog(self) -> Catalog:
        """The server's catalog, for changes while it runs; to be closed."""
        return Catalog.create_or_upgrade(
            f"sqlite:///{self.directory / 'catalog.db'}", self.directory / "secrets", now=lambda: datetime.now(UTC)
        )

    def client_certificate(self, common_name: str, *, file: str, **options: Any) -> Pair:
        """A client certificate that the server's client_ca has signed."""
        return self.client_authority.issue(common_name, file=file, **options)

    def _fill_catalog(self) -> None:
        (self.directory / "secrets").mkdir(mode=0o700)
        catalog = self.catalog()
        catalog.create_keystore(KEYSTORE, UriPathPrefix.parse(PREFIX))
        catalog.issue_credential(KEYSTORE, (ACCESS_KEY_ID, SECRET_ACCESS_KEY))
        for key in KEYS:
            catalog.register_key(KEYSTORE, ExternalKeyId.parse(key.label), hsm=HSM, label=key.label)
        catalog.close()

    def _settings(
        self,
        workers: int,
        personality: Personality | None,
        library: Path | None,
        shim: dict[str, Any],
        *,
        events: bool,
    ) -> dict[str, Any]:
        pin = self.directory / "pin"
        pin.write_text(PIN)
        pin.chmod(0o600)
        variables = softhsm_environment(self.directory)
        if personality is not None:
            if personality == "nshield":
                shim = {"token_pin": PIN, "token": TOKEN, "load_sharing": True, **shim}
            variables |= environment(personality, control=self.shim, **shim)
        hsm = {
            "profile": "softhsm2",
            "library": str(LIBRARY if library is None else library),
            "token": {"label": TOKEN},
            "health_key": HEALTH_KEY,
            "pin": {"file": str(pin)},
            "sessions": 2,
            "environment": variables,
            **_PROFILES.get(personality or "", {}),
        }
        if personality == "nshield":
            del hsm["pin"]
        settings: dict[str, Any] = {
            "server": {
                "listen": f"127.0.0.1:{self.port}",
                "health_listen": f"127.0.0.1:{self.health_port}",
                "metrics_listen": f"127.0.0.1:{self.metrics_port}",
                "workers": workers,
            },
            "catalog": {
                "url": f"sqlite:///{self.directory / 'catalog.db'}",
                "secrets_directory": str(self.directory / "secrets"),
            },
            "log": {"events": str(self.events_file)} if events else {},
            "hsm": {HSM: hsm},
        }
        if self._tls:
            settings["tls"] = {
                "certificate": str(self.certificate.certificate),
                "private_key": str(self.certificate.private_key),
            }
        if self._client_subject is not None:
            settings["tls"] |= {
                "client_ca": str(self.client_authority.certificate),
                "client_subject": self._client_subject,
            }
        return settings


def _children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:  # noqa: PTH123 (procfs)
        return [int(child) for child in file.read().split()]


def _command_line(pid: int) -> bytes:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:  # noqa: PTH123 (procfs)
            return file.read()
    except (FileNotFoundError, ProcessLookupError):
        return b""
