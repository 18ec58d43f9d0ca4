"""Latency against KMS's 250 ms and the advised 35 ms round trip."""

from holdfast.witness.check.finding import Check, Level, Refuted, Source, check
from holdfast.witness.check.latency import ADVISED_RTT, KMS_TIMEOUT, Measurement, Summary, measure
from holdfast.witness.check.session import Session
from holdfast.witness.check.wire import WireError

_TIMEOUT = Source(
    "GetKeyMetadata",
    "If KMS does not receive a response from the XKS proxy for any API call within 250ms, KMS will time out",
)


@check("LAT-01", "Calls end within 250 ms on a kept connection", level=Level.KMS, source=_TIMEOUT, needs=("HTTP-06",))
def reused(session: Session) -> str:
    """Measures Encrypt with a CDIV (health if there is no --key) on one connection; p99 decides."""
    measurement = _measured(session)
    summary = Summary.of(measurement.reused)
    evidence = f"{summary.count} x {measurement.operation}: {summary.text()}"
    if summary.p99 > KMS_TIMEOUT:
        raise Refuted(evidence)
    return evidence


@check("LAT-02", "Calls end within 250 ms on a new connection", level=Level.KMS, source=_TIMEOUT, needs=("LAT-01",))
def new_connection(session: Session) -> str:
    """Measures DNS, TCP, TLS and the call together; the median decides, as few are made."""
    measurement = _measured(session)
    whole = Summary.of(measurement.whole)
    parts = ", ".join(
        f"{name} {Summary.of(values).p50 * 1000:.1f}"
        for name, values in (
            ("DNS", [measurement.dns]),
            ("TCP", measurement.tcp),
            ("TLS", measurement.tls),
            ("first byte", measurement.first_byte),
        )
    )
    evidence = f"{whole.count} connections: {whole.text()}; medians: {parts} ms"
    if measurement.dns + whole.p50 > KMS_TIMEOUT:
        raise Refuted(evidence)
    return evidence


@check(
    "LAT-03",
    "The round trip is 35 ms or less",
    level=Level.SHOULD,
    source=Source(
        "GetKeyMetadata",
        "the ping latency between the AWS data center and the customer's data center SHOULD be 35ms or less",
    ),
    needs=("HTTP-06",),
)
def round_trip(session: Session) -> str:
    """Takes the median time of a TCP handshake, from this machine: run it in the AWS Region of the key store."""
    median = Summary.of(_measured(session).tcp).p50
    evidence = f"{median * 1000:.1f} ms for a TCP handshake, from this machine"
    if median > ADVISED_RTT:
        raise Refuted(evidence)
    return evidence


@check(
    "LAT-04", "No single call took more than 250 ms", level=Level.ADVICE, source=_TIMEOUT, needs=("LAT-01", "LAT-02")
)
def slowest(session: Session) -> str:
    """Looks at the slowest of all calls, new connections included."""
    measurement = _measured(session)
    slow = max(*measurement.reused, *measurement.whole)
    if slow > KMS_TIMEOUT:
        raise Refuted(f"the slowest took {slow * 1000:.1f} ms: KMS would have given it up")
    return f"the slowest took {slow * 1000:.1f} ms"


def _measured(session: Session) -> Measurement:
    if session.measurement is None:
        try:
            session.measurement = measure(session)
        except (WireError, OSError) as error:
            raise Refuted(str(error)) from None
    return session.measurement


CHECKS: tuple[Check, ...] = (reused, new_connection, round_trip, slowest)
