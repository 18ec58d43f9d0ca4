"""SigV4: what must be refused, and what must not."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from holdfast.witness.check.finding import Check, Level, Refuted, Source, check
from holdfast.witness.check.session import (
    Body,
    Session,
    accepted,
    encrypt_body,
    fresh_plaintext,
    health_metadata,
    metadata_body,
    refused,
    request_metadata,
)
from holdfast.witness.check.signing import Request, Signing
from holdfast.xks.encoding import encode_base64
from holdfast.xks.errors import ErrorName
from holdfast.xks.secret import Secret
from holdfast.xks.types import Operation

_TASK_1 = "Appendix A, Task 1"
_TASK_4 = "Appendix A, Task 4"
_SIGV4 = Source("Authentication", "An XKS proxy MUST support SigV4-based authentication of XKS API requests.")
_RECENT = Source(_TASK_4, "the XKS Proxy MUST also ensure that the timestamp on the request is “recent”")
_MATCH = Source(
    _TASK_4,
    "Verify that the signature computed at the end of Task 4 is the same as that included in the Authorization "
    "header.",
)


@check("AUTH-01", "A wrong signature is refused", level=Level.MUST, source=_MATCH, needs=("HEALTH-01",))
def wrong_signature(session: Session) -> str:
    """Signs every operation with a secret that is not the proxy's, under the right access key id."""
    signing = Signing(session.region, secret_access_key=Secret(b"TheWrongSecretAccessKeyOfHoldfastCheck0123456789"))
    return _each_refused(session, lambda request: request, "wrong signature", signing)


@check("AUTH-02", "A request without Authorization is refused", level=Level.MUST, source=_SIGV4, needs=("HEALTH-01",))
def unsigned(session: Session) -> str:
    """Sends every operation without the Authorization header."""
    return _each_refused(session, lambda request: request.without_header("authorization"), "unsigned")


@check(
    "AUTH-03",
    "An unknown access key id is refused",
    level=Level.MUST,
    source=Source("Appendix A", "An access key id must uniquely identify a secret access key"),
    needs=("AUTH-01",),
)
def unknown_access_key(session: Session) -> str:
    """Signs with the right secret under an access key id that does not exist."""
    signing = Signing(session.region, access_key_id="HOLDFASTCHECKNOSUCHKEY22")
    return _health_refused(session, session.request(*_health(), signing=signing), "unknown access key id")


@check(
    "AUTH-04",
    "A body changed after signing is refused",
    level=Level.MUST,
    source=Source(_TASK_1, "A hex encoding of the SHA-256 hash of the request payload"),
    needs=("AUTH-01",),
)
def changed_body(session: Session) -> str:
    """Signs one health body and sends another."""
    request = session.request(*_health())
    other = session.request(Operation.GET_HEALTH_STATUS, health_metadata(kmsOperation="CreateCustomKeyStore"))
    return _health_refused(session, replace(request, body=other.body), "body changed after signing")


@check(
    "AUTH-05",
    "A path changed after signing is refused",
    level=Level.MUST,
    source=Source(_TASK_1, "The CanonicalURI will be the API URI"),
    needs=("AUTH-01",),
)
def changed_path(session: Session) -> str:
    """Signs for another path and sends to the health path."""
    request = session.sign("POST", session.endpoint.path("keys", "some-key", "metadata"), health_metadata())
    moved = replace(request, path=session.path(Operation.GET_HEALTH_STATUS))
    return _health_refused(session, moved, "path changed after signing")


@check(
    "AUTH-06",
    "A changed x-amz-date is refused",
    level=Level.MUST,
    source=Source(_TASK_1, "the X-Amz-Date header containing the UTC timestamp"),
    needs=("AUTH-01",),
)
def changed_date(session: Session) -> str:
    """Signs with one time and sends the next minute's."""
    request = session.request(*_health())
    later = session.request(*_health(), signing=Signing(session.region, shift=timedelta(minutes=1)))
    changed = request.with_header("x-amz-date", later.header("x-amz-date"))
    return _health_refused(session, changed, "x-amz-date changed after signing")


@check("AUTH-07", "An old request is refused", level=Level.MUST, source=_RECENT, needs=("HEALTH-01",))
def old(session: Session) -> str:
    """Signs rightly, an hour and a day ago."""
    evidence = ""
    for shift in (timedelta(hours=-1), timedelta(days=-1)):
        request = session.request(*_health(), signing=Signing(session.region, shift=shift))
        evidence = _health_refused(session, request, f"signed {-shift} ago")
    return evidence


@check(
    "AUTH-08",
    "Six minutes of clock difference are refused",
    level=Level.SHOULD,
    source=Source(
        _TASK_4,
        "Any requests more than 5 minutes in the past (or future, due to clock drift) SHOULD fail authentication",
    ),
    needs=("AUTH-07",),
)
def six_minutes(session: Session) -> str:
    """Signs rightly, six minutes in the past and in the future."""
    evidence = []
    for minutes in (-6, 6):
        signing = Signing(session.region, shift=timedelta(minutes=minutes))
        evidence.append(_health_refused(session, session.request(*_health(), signing=signing), f"{minutes:+} min"))
    return "; ".join(evidence)


@check(
    "AUTH-09",
    "Four minutes of clock difference are accepted",
    level=Level.SHOULD,
    source=Source(_TASK_4, "accommodating for network latency and potential clock drift"),
    needs=("HEALTH-01",),
)
def four_minutes(session: Session) -> str:
    """Signs rightly, four minutes in the past and in the future: a refusal also betrays a wrong clock there."""
    for minutes in (-4, 4):
        signing = Signing(session.region, shift=timedelta(minutes=minutes))
        response = session.send(session.request(*_health(), signing=signing), f"health at {minutes:+} min")
        accepted(response, f"a request signed {minutes:+} min from this machine's clock")
    return "accepted at -4 and +4 minutes"


@check(
    "AUTH-10",
    "A signature for another service is refused",
    level=Level.MUST,
    source=Source("Appendix A", "we use `kms-xks-proxy` for this specification"),
    needs=("AUTH-01",),
)
def other_service(session: Session) -> str:
    """Signs rightly for the service `kms`."""
    request = session.request(*_health(), signing=Signing(session.region, service="kms"))
    return _health_refused(session, request, "signed for the service kms")


@check(
    "AUTH-11",
    "The credential scope's date must be the request's",
    level=Level.ADVICE,
    source=Source("Appendix A", "the date the request was sent in YYYYMMDD format using the UTC timezone"),
    needs=("AUTH-01",),
)
def other_scope_date(session: Session) -> str:
    """Signs rightly, with yesterday's date in the scope."""
    request = session.request(*_health(), signing=Signing(session.region, scope_shift=timedelta(days=-1)))
    return _health_refused(session, request, "yesterday in the credential scope")


@check("AUTH-12", "x-amz-date must be signed", level=Level.MUST, source=_RECENT, needs=("AUTH-01",))
def unsigned_date(session: Session) -> str:
    """Signs the host header alone, so that the signature's time could be changed at will."""
    request = session.request(*_health(), signing=Signing(session.region, signed_headers=("host",)))
    return _health_refused(session, request, "x-amz-date not signed")


@check(
    "AUTH-13",
    "Host must be signed",
    level=Level.ADVICE,
    source=Source("Appendix A", "include the Host and X-Amz-Date headers in the signature"),
    needs=("AUTH-01",),
)
def unsigned_host(session: Session) -> str:
    """Signs x-amz-date alone."""
    request = session.request(*_health(), signing=Signing(session.region, signed_headers=("x-amz-date",)))
    return _health_refused(session, request, "host not signed")


@check(
    "AUTH-14",
    "Two Authorization headers are refused",
    level=Level.ADVICE,
    source=Source("Appendix A", "will include an HTTP Authorization header containing the SigV4 signature"),
    needs=("AUTH-01",),
)
def two_headers(session: Session) -> str:
    """Repeats the right Authorization header: which of two counts must never be a question."""
    request = session.request(*_health())
    doubled = request.with_extra_header("Authorization", request.header("authorization"))
    response = session.send(doubled, "two Authorization headers")
    if response.status == 200:  # noqa: PLR2004 (OK)
        raise Refuted("a request with two Authorization headers was accepted")
    return f"two Authorization headers: {response.describe()}"


@check(
    "AUTH-15",
    "More signed headers than the two are accepted",
    level=Level.MUST,
    source=Source(_TASK_1, "The CanonicalHeaders will include the headers from the SignedHeaders element"),
    needs=("HEALTH-01",),
)
def more_signed_headers(session: Session) -> str:
    """Signs content-type too, as curl does."""
    names = ("content-type", "host", "x-amz-date")
    request = session.request(*_health(), signing=Signing(session.region, signed_headers=names))
    return accepted(session.send(request, "content-type signed"), "a request that signs content-type too").describe()


@check(
    "AUTH-16",
    "Header names are matched in any case",
    level=Level.ADVICE,
    source=Source("API content type", "The XKS Proxy MUST support HTTP/1.1 or later"),
    needs=("HEALTH-01",),
)
def lower_case_headers(session: Session) -> str:
    """Sends all header names in lower case, as many clients do."""
    request = session.request(*_health())
    lower = replace(request, headers=tuple((name.lower(), value) for name, value in request.headers))
    return accepted(session.send(lower, "lower-case headers"), "a request with lower-case header names").describe()


def _health() -> tuple[Operation, Body]:
    return Operation.GET_HEALTH_STATUS, health_metadata()


def _each_refused(
    session: Session, change: Callable[[Request], Request], what: str, signing: Signing | None = None
) -> str:
    evidence = []
    for operation, body in _bodies(session).items():
        request = change(session.request(operation, body, signing=signing))
        response = session.send(request, f"{operation}, {what}")
        evidence.append(refused(response, ErrorName.AUTHENTICATION_FAILED, what=f"{operation}, {what}"))
    return f"{len(evidence)} operations: {evidence[-1]}"


def _bodies(session: Session) -> dict[Operation, Body]:
    bodies = {Operation.GET_HEALTH_STATUS: health_metadata()}
    if session.keys.key is not None:
        decrypt = {
            "ciphertext": encode_base64(fresh_plaintext()),
            "initializationVector": encode_base64(fresh_plaintext(12)),
            "authenticationTag": encode_base64(fresh_plaintext(16)),
            "encryptionAlgorithm": "AES_GCM",
        }
        bodies |= {
            Operation.GET_KEY_METADATA: metadata_body(),
            Operation.ENCRYPT: encrypt_body(fresh_plaintext()),
            Operation.DECRYPT: request_metadata("Decrypt") | decrypt,
        }
    return bodies


def _health_refused(session: Session, request: Request, what: str) -> str:
    return refused(session.send(request, what), ErrorName.AUTHENTICATION_FAILED, what=what)


CHECKS: tuple[Check, ...] = (
    wrong_signature,
    unsigned,
    unknown_access_key,
    changed_body,
    changed_path,
    changed_date,
    old,
    six_minutes,
    four_minutes,
    other_service,
    other_scope_date,
    unsigned_date,
    unsigned_host,
    two_headers,
    more_signed_headers,
    lower_case_headers,
)
