"""DNS, IPv4 and the port."""

import socket
from time import perf_counter

from holdfast.witness.check.endpoint import HTTPS_PORT
from holdfast.witness.check.finding import Check, Level, NotForKms, Refuted, Source, check, guide
from holdfast.witness.check.session import Session
from holdfast.witness.check.wire import TIMEOUT


@check(
    "REACH-01",
    "The name resolves to an IPv4 address",
    level=Level.KMS,
    source=guide("Planning an external key store", "KMS reaches an external key store proxy over IPv4 only."),
)
def resolves(session: Session) -> str:
    """Asks the resolver of this machine for A records."""
    try:
        addresses, seconds = session.dns
    except OSError as error:
        raise Refuted(f"{session.endpoint.host} has no IPv4 address here: {error}") from None
    return f"{', '.join(addresses)} in {seconds * 1000:.1f} ms"


@check(
    "REACH-02",
    "Every address accepts TCP connections",
    level=Level.KMS,
    source=Source("Error codes", "AWS KMS cannot establish<br>a TCP connection"),
    needs=("REACH-01",),
)
def connects(session: Session) -> str:
    """Opens and closes one TCP connection to each address."""
    times = []
    for address in session.dns[0]:
        start = perf_counter()
        try:
            socket.create_connection((address, session.endpoint.port), timeout=TIMEOUT).close()
        except OSError as error:
            raise Refuted(f"{address} port {session.endpoint.port}: {error}") from None
        times.append(f"{address} in {(perf_counter() - start) * 1000:.1f} ms")
    return ", ".join(times)


@check(
    "REACH-03",
    "The port is 443",
    level=Level.KMS,
    source=Source("Appendix E", "KMS APIs require the proxy to run on the default HTTPS port."),
    needs=("REACH-01",),
)
def port_443(session: Session) -> str:
    """Compares the port of the endpoint's URL with HTTPS's own."""
    port = session.endpoint.port
    if port != HTTPS_PORT:
        raise NotForKms(f"port {port}: KMS calls no other port than 443, where a load balancer may listen")
    return "KMS calls port 443, and so does this check"


CHECKS: tuple[Check, ...] = (resolves, connects, port_443)
