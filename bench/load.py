"""Drives wrk and h2load with one signed Encrypt, and reads what they measured."""

import os
import statistics
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from tests.server.client import METADATA, Caller

from holdfast.xks.encoding import encode_base64
from holdfast.xks.types import Operation

_SCRIPT = Path(__file__).with_name("signed.lua")
DATA_KEY = bytes(range(32))
"""A 32-byte data key, as GenerateDataKey makes it, with the AAD of a short encryption context."""
AAD = b"project=nile,department=marketing"


class Measured(msgspec.Struct, frozen=True):
    """What wrk saw. Seconds."""

    requests: int
    seconds: float
    p50: float
    p99: float
    refused: int
    broken: int

    @property
    def rate(self) -> float:
        """Answers of any status per second."""
        return self.requests / self.seconds


@dataclass(frozen=True, slots=True)
class Offered:
    """What h2load saw at a fixed rate, per status. Seconds; `duration` from the first request to the last answer."""

    accepted: list[float]
    refused: list[float]
    duration: float


def closed_loop(caller: Caller, url: str, *, connections: int, seconds: int) -> Measured:
    """Every connection sends its next Encrypt when the last one is answered (wrk, one thread)."""
    path, headers, body = _signed_encrypt(caller)
    environment = {
        **os.environ,
        "BENCH_AUTHORIZATION": headers["Authorization"],
        "BENCH_DATE": headers["X-Amz-Date"],
        "BENCH_HOST": headers["Host"],
        "BENCH_BODY": body.decode(),
    }
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "5s", "-s", str(_SCRIPT), url + path]
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    return msgspec.json.decode(output.splitlines()[-1], type=Measured)


def open_loop(caller: Caller, url: str, *, rate: int, clients: int, seconds: int, directory: Path) -> Offered:
    """`rate` Encrypts per second over `clients` connections, whatever comes back (h2load, HTTP/1.1).

    Each client sends at its own fixed pace. They begin one after the other within one step of that pace: begun
    together, all would send at the same moment, again and again, which is a burst and no rate.
    """
    path, headers, body = _signed_encrypt(caller)
    data, log = directory / "body.json", directory / "h2load.log"
    data.write_bytes(body)
    log.unlink(missing_ok=True)
    command = [
        "h2load", "--h1", f"-c{clients}", f"-n{rate * seconds}", f"--rps={rate / clients}",
        f"-r{max(1, rate // 100)}", "--rate-period=10ms", f"--log-file={log}", f"-d{data}",
        *(f"-H{name}: {value}" for name, value in headers.items() if name != "Host"),
        f"-H:authority: {headers['Host']}",
        url + path,
    ]  # fmt: skip
    subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 60)
    rows = [[int(field) for field in line.split("\t")] for line in log.read_text().splitlines()]
    begun = min(row[0] for row in rows) / 1e6
    ended = max(row[0] + row[2] for row in rows) / 1e6
    return Offered(
        accepted=[row[2] / 1e6 for row in rows if row[1] == 200],
        refused=[row[2] / 1e6 for row in rows if row[1] != 200],
        duration=ended - begun,
    )


def percentile(values: list[float], percent: int) -> float:
    """The value that `percent` of the values do not exceed."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def _signed_encrypt(caller: Caller) -> tuple[str, dict[str, str], bytes]:
    body = msgspec.json.encode(
        {
            "requestMetadata": {**METADATA, "kmsOperation": "GenerateDataKey"},
            "plaintext": encode_base64(DATA_KEY),
            "encryptionAlgorithm": "AES_GCM",
            "additionalAuthenticatedData": encode_base64(AAD),
        }
    )
    path = caller.path(Operation.ENCRYPT)
    return path, caller.signed(path, body, now=datetime.now(UTC)), body
