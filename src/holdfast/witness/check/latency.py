"""How long calls take from here: what KMS will feel, less the way between KMS and this machine."""

from __future__ import annotations

import math
from contextlib import ExitStack, closing
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

from holdfast.witness.check.session import Session, accepted, encrypt_body, fresh_plaintext, health_metadata
from holdfast.xks.types import Operation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.witness.check.signing import Request

KMS_TIMEOUT = 0.250
"""Seconds. Spec, "GetKeyMetadata": KMS times out without a response."""
ADVISED_RTT = 0.035
"""Seconds. Spec, "GetKeyMetadata": the advised ping latency."""
_NEW_CONNECTIONS = 10
_PATIENCE = 20.0  # seconds for all samples on the reused connection together


@dataclass(frozen=True, slots=True)
class Summary:
    """Percentiles of a set of seconds."""

    count: int
    p50: float
    p95: float
    p99: float
    p999: float
    maximum: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Summary:
        """`seconds` is not empty."""
        ordered = sorted(seconds)
        p50, p95, p99, p999 = (percentile(ordered, q) for q in (0.5, 0.95, 0.99, 0.999))
        return cls(len(ordered), p50, p95, p99, p999, ordered[-1])

    def text(self) -> str:
        """In milliseconds."""
        values = (("p50", self.p50), ("p95", self.p95), ("p99", self.p99), ("max", self.maximum))
        return ", ".join(f"{name} {value * 1000:.1f}" for name, value in values) + " ms"


def percentile(ordered: Sequence[float], q: float) -> float:
    """The smallest value that at least the share `q` of the values does not exceed."""
    return ordered[max(0, math.ceil(q * len(ordered)) - 1)]


@dataclass(frozen=True, slots=True)
class Measurement:
    """Seconds: of each phase of new connections, and of Encrypt and health calls on a kept one.

    Where the endpoint closes its connections, `reused` includes opening new ones.
    """

    operation: Operation
    dns: float
    tcp: list[float]
    tls: list[float]
    first_byte: list[float]
    whole: list[float]
    reused: list[float]


def measure(session: Session) -> Measurement:
    """Calls Encrypt if there is a test key, else GetHealthStatus. Raises WireError, OSError, or a Finding."""
    operation = Operation.GET_HEALTH_STATUS if session.found_key is None else Operation.ENCRYPT
    result = Measurement(operation, session.dns[1], [], [], [], [], [])
    for _ in range(min(_NEW_CONNECTIONS, session.samples)):
        start = perf_counter()
        with closing(session.connect()) as connection:
            response = accepted(connection.exchange(_request(session, operation).to_bytes()), operation)
            result.whole.append(perf_counter() - start)
            result.tcp.append(connection.timings.tcp)
            result.tls.append(connection.timings.tls)
            result.first_byte.append(response.first_byte)
    with ExitStack() as opened:
        _measure_kept(session, operation, result.reused, opened)
    return result


def _measure_kept(session: Session, operation: Operation, reused: list[float], opened: ExitStack) -> None:
    connection = opened.enter_context(closing(session.connect()))
    began = perf_counter()
    for _ in range(session.samples):
        start = perf_counter()
        if not connection.open:
            connection = opened.enter_context(closing(session.connect()))
        accepted(connection.exchange(_request(session, operation).to_bytes()), operation)
        reused.append(perf_counter() - start)
        if perf_counter() - began > _PATIENCE:
            return


def _request(session: Session, operation: Operation) -> Request:
    body = (
        health_metadata() if operation is Operation.GET_HEALTH_STATUS else encrypt_body(fresh_plaintext(), cdiv=True)
    )
    return session.request(operation, body)
