"""TLS versions and suites, HTTP/1.1 above them, and mutual TLS if it is in use."""

import ssl

from holdfast.witness.check.client_certificate import stranger_certificate
from holdfast.witness.check.finding import Check, Level, NotJudged, Refuted, Source, check
from holdfast.witness.check.session import Session, health_metadata
from holdfast.witness.check.tls_hello import SPEC_SUITES, TLS_1_0, TLS_1_1, TLS_1_2, TLS_1_3, WEAK_SUITES, offer
from holdfast.witness.check.wire import Connection, WireError, tls_context
from holdfast.xks.types import Operation

_VERSIONS = {TLS_1_0: "TLS 1.0", TLS_1_1: "TLS 1.1"}
_CBC_SUITES = (0xC014, 0xC00A, 0xC013, 0xC009, 0x0035, 0x002F, 0x000A)


@check(
    "TLS-01",
    "One of the four suites of the spec is supported",
    level=Level.MUST,
    source=Source(
        "API content type",
        "The XKS Proxy MUST support HTTP/1.1 or later and TLS 1.2 or later with at least one of these cipher suites",
    ),
    needs=("REACH-02",),
)
def spec_suites(session: Session) -> str:
    """Offers each suite alone in a ClientHello and reads the ServerHello."""
    supported = [
        name
        for suite, name in SPEC_SUITES.items()
        if _accepts(session, TLS_1_3 if suite < 0xC000 else TLS_1_2, (suite,))  # noqa: PLR2004 (0x13.. is TLS 1.3)
    ]
    if not supported:
        raise Refuted("none of them is accepted: KMS cannot connect")
    return ", ".join(supported)


@check(
    "TLS-02",
    "Nothing older than TLS 1.2 is accepted",
    level=Level.ADVICE,
    source=Source("API content type", "TLS 1.2 or later"),
    needs=("TLS-01",),
)
def old_versions(session: Session) -> str:
    """Offers TLS 1.0 and 1.1."""
    accepted = [name for version, name in _VERSIONS.items() if _accepts(session, version, _CBC_SUITES)]
    if accepted:
        raise Refuted(f"{' and '.join(accepted)} accepted: switch them off")
    return "TLS 1.0 and 1.1 are refused"


@check(
    "TLS-03",
    "TLS 1.2 suites have forward secrecy and authenticated encryption",
    level=Level.ADVICE,
    source=Source("Appendix E", "specific cipher suites providing perfect forward secrecy"),
    needs=("TLS-01",),
)
def weak_suites(session: Session) -> str:
    """Offers suites that lack either."""
    hello = offer(session.address, session.endpoint.host, version=TLS_1_2, suites=tuple(WEAK_SUITES))
    if hello is not None:
        raise Refuted(f"{WEAK_SUITES.get(hello.suite, hex(hello.suite))} is accepted")
    return f"{len(WEAK_SUITES)} weak suites were offered and refused"


@check(
    "TLS-04",
    "HTTP/1.1 is spoken",
    level=Level.MUST,
    source=Source("API content type", "The XKS proxy MUST be able to fall back to HTTP 1.1."),
    needs=("TLS-01",),
)
def http_1_1(session: Session) -> str:
    """Offers only http/1.1 by ALPN and sends a health request."""
    try:
        connection = session.connect()
    except (WireError, OSError) as error:
        raise Refuted(f"no TLS connection: {error}") from None
    chosen = f"{connection.socket.version()}, ALPN {connection.socket.selected_alpn_protocol() or 'not used'}"
    try:
        response = connection.exchange(session.request(Operation.GET_HEALTH_STATUS, health_metadata()).to_bytes())
    except WireError as error:
        raise Refuted(f"{chosen}: {error}") from None
    finally:
        connection.close()
    if response.version != "1.1":
        raise Refuted(f"{chosen}: answered in HTTP/{response.version}")
    return f"{chosen}: answered in HTTP/1.1"


@check(
    "TLS-05",
    "Mutual TLS refuses a certificate of another authority",
    level=Level.MUST,
    source=Source(
        "Authentication",
        "The XKS proxy MUST terminate the TLS handshake if the client presents a certificate containing a different "
        "subject name or chained to a different certificate authority.",
    ),
    needs=("TLS-01",),
)
def mutual_tls(session: Session) -> str:
    """Connects with no certificate and with a self-signed one; made only if --client-certificate was given."""
    if session.trust.client_certificate is None:
        raise NotJudged("mutual TLS is not in use: no --client-certificate was given")
    with stranger_certificate(session.clock()) as stranger:
        for certificate, what in ((None, "no certificate"), (str(stranger), "a self-signed certificate")):
            _refuses_handshake(session, tls_context(session.trust.ca, certificate, verify=False), what)
    return "no certificate, and a self-signed one, never reach HTTP"


def _refuses_handshake(session: Session, context: ssl.SSLContext, what: str) -> None:
    # In TLS 1.3 the client learns of the refusal only after its own part of the handshake is done.
    try:
        connection = Connection.connect(session.address, session.endpoint.host, context)
    except (WireError, OSError):
        return
    try:
        response = connection.exchange(session.request(Operation.GET_HEALTH_STATUS, health_metadata()).to_bytes())
    except WireError:
        return
    finally:
        connection.close()
    raise Refuted(f"a client with {what} was answered {response.describe()}")


def _accepts(session: Session, version: int, suites: tuple[int, ...]) -> bool:
    try:
        hello = offer(session.address, session.endpoint.host, version=version, suites=suites)
    except OSError as error:
        raise NotJudged(f"no TCP connection: {error}") from None
    return hello is not None and hello.version == version


CHECKS: tuple[Check, ...] = (spec_suites, old_versions, weak_suites, http_1_1, mutual_tls)
