"""Running servers to measure, and what they cost."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from tests.server.proxy_server import KEYSTORE, ProxyServer
from tests.shim.control import build

from bench.catalog import fill

_TICKS = os.sysconf("SC_CLK_TCK")


def token_of(directory: Path, keys: int) -> Path:
    """A directory with a SoftHSM token that holds `keys` keys."""
    target = directory / f"token-{keys}"
    if not target.exists():
        subprocess.run([sys.executable, "-m", "bench.token", str(target), str(keys)], check=True)
    return target


@contextmanager
def proxy(directory: Path, name: str, *, keys: int = 2, **options: Any) -> Iterator[ProxyServer]:
    """A server on a token of its own; event log on; on the shim if `personality` is given."""
    library = build(directory / "shim") if "personality" in options else None
    with ProxyServer(directory / name, token_of(directory, keys), library=library, **options) as server:
        yield server


@dataclass(slots=True)
class Meter:
    """CPU seconds of a server's processes since `start`."""

    server: ProxyServer
    _used: float = 0.0

    def start(self) -> None:
        """Count from here."""
        self._used = self._total()

    def seconds(self) -> float:
        """User and system time of the supervisor and its workers."""
        return self._total() - self._used

    def _total(self) -> float:
        assert self.server.process is not None
        return sum(_cpu(pid) for pid in (self.server.process.pid, *self.server.worker_pids()))


def resident_megabytes(server: ProxyServer) -> list[float]:
    """VmRSS of each worker."""
    return [_status(pid, "VmRSS") / 1024 for pid in server.worker_pids()]


def cold_start(directory: Path, name: str) -> float:
    """Seconds from starting the process to its first Encrypt answered."""
    return start_and_block(directory, name, keys=0)[0]


def start_and_block(directory: Path, name: str, *, keys: int) -> tuple[float, float, float]:
    """Seconds from starting the process to its first Encrypt, of CPU until then, and from a block to a refusal.

    The catalog holds so many keys more than are used.
    """
    server = ProxyServer(directory / name, token_of(directory, 2), wait=False, autostart=False)
    with closing(server.catalog()) as catalog, server:
        if keys:
            fill(catalog, keys)
        began = time.perf_counter()
        server.start()
        started = _seconds_until(server, HTTPStatus.OK, began)
        used = Meter(server).seconds()
        began = time.perf_counter()
        catalog.set_blocked(KEYSTORE, blocked=True)
        return started, used, _seconds_until(server, HTTPStatus.BAD_REQUEST, began)


def _seconds_until(server: ProxyServer, status: HTTPStatus, began: float) -> float:
    """Until an Encrypt is answered by `status`."""
    while True:
        try:
            with server.caller() as caller:
                while caller.encrypt(b"first").status != status:
                    time.sleep(0.005)
                return time.perf_counter() - began
        except OSError:
            time.sleep(0.005)


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _status(pid: int, field: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    raise LookupError(field)
