"""HTTP methods, paths and content types."""

from holdfast.witness.check.finding import Check, Level, NotJudged, Refuted, Source, check
from holdfast.witness.check.session import Session, health_metadata, refused
from holdfast.witness.check.wire import Response
from holdfast.xks.errors import ErrorName
from holdfast.xks.types import Operation

_METHOD_NOT_ALLOWED = 405
_JSON = "application/json"


@check(
    "HTTP-01",
    "GET on an API path is answered 405",
    level=Level.MUST,
    source=Source(
        "API operations",
        "If the XKS Proxy receives an HTTP GET request at a URI associated with any of these four APIs, it MUST "
        "reject the request with a 405 Method Not Allowed error.",
    ),
    needs=("HEALTH-01",),
)
def get(session: Session) -> str:
    """Sends a signed GET without a body to each operation's path."""
    for path in _api_paths(session):
        response = session.send(session.sign("GET", path, b""), f"GET {path}")
        if response.status != _METHOD_NOT_ALLOWED:
            raise Refuted(f"GET {path}: {response.describe()}")
    return f"405 at {len(_api_paths(session))} paths"


@check(
    "HTTP-02",
    "Other methods are answered 405 too",
    level=Level.ADVICE,
    source=Source("API operations", "all requests are sent as HTTP POSTs (not GETs)"),
    needs=("HTTP-01",),
)
def other_methods(session: Session) -> str:
    """Sends signed PUT, DELETE and PATCH requests to the health path."""
    path = session.path(Operation.GET_HEALTH_STATUS)
    for method in ("PUT", "DELETE", "PATCH"):
        response = session.send(session.sign(method, path, b""), f"{method} {path}")
        if response.status != _METHOD_NOT_ALLOWED:
            raise Refuted(f"{method} {path}: {response.describe()}")
    return "405 for PUT, DELETE and PATCH"


@check(
    "HTTP-03",
    "An unknown path is answered InvalidUriPathException",
    level=Level.MUST,
    source=Source("Error codes", "The request was rejected because the<br>specified URI path is not valid."),
    needs=("HEALTH-01",),
)
def unknown_path(session: Session) -> str:
    """Sends signed requests to paths beside the API's."""
    endpoint = session.endpoint
    evidence = ""
    for path in (endpoint.path("nothing"), endpoint.path("keys"), endpoint.path("keys", "some-key", "destroy")):
        response = session.send(session.sign("POST", path, health_metadata()), f"POST {path}")
        evidence = refused(response, ErrorName.INVALID_URI_PATH, what=path)
    return evidence


@check(
    "HTTP-04",
    "Another path prefix is not answered",
    level=Level.ADVICE,
    source=Source(
        "API operations",
        "The `<optional-path-prefix>` provides a mechanism to support multiple isolated customers on the same XKS "
        "proxy.",
    ),
    needs=("HEALTH-01",),
)
def other_prefix(session: Session) -> str:
    """Asks for health below a prefix that does not exist, signed with this prefix's credential."""
    path = "/holdfast-check-no-such-prefix/kms/xks/v1/health"
    response = session.send(session.sign("POST", path, health_metadata()), f"POST {path}")
    return refused(response, ErrorName.INVALID_URI_PATH, ErrorName.AUTHENTICATION_FAILED, what=path)


@check(
    "HTTP-05",
    "Responses are application/json",
    level=Level.MUST,
    source=Source("API content type", "MUST be sent as JSON over HTTPS with a Content-Type of  `application/json`"),
    needs=("HEALTH-01",),
)
def content_type(session: Session) -> str:
    """Reads Content-Type of a success and of an error."""
    health = session.call(Operation.GET_HEALTH_STATUS, health_metadata())
    path = session.endpoint.path("nothing")
    unknown = session.send(session.sign("POST", path, health_metadata()), f"POST {path}")
    for response, what in ((health, "a health response"), (unknown, "an error response")):
        if _media_type(response) != _JSON:
            raise Refuted(f"{what} ({response.status}) has Content-Type {response.header('content-type')!r}")
    return f"{_JSON} for a success and for an error"


@check(
    "HTTP-06",
    "Connections are kept alive",
    level=Level.ADVICE,
    source=Source("GetKeyMetadata", "one each for TCP connection, TLS handshake and HTTP request/response"),
    needs=("HEALTH-01",),
)
def keep_alive(session: Session) -> str:
    """Sends three health requests on one connection, so that KMS may save the handshakes."""
    connection = session.connect()
    try:
        for count in range(3):
            request = session.request(Operation.GET_HEALTH_STATUS, health_metadata())
            if not connection.open:
                raise Refuted(f"closed after {count} request{'s' if count > 1 else ''}")
            connection.exchange(request.to_bytes())
    finally:
        connection.close()
    return "three requests on one connection"


@check(
    "HTTP-07",
    "A load balancer's health check is answered",
    level=Level.MUST,
    source=Source(
        "Load balancer health checks",
        "an XKS Proxy MUST also implement the necessary health checks for the load balancers it intends to support",
    ),
    needs=("TLS-04",),
)
def load_balancer(session: Session) -> str:
    """Sends GET /ping. The specification leaves the path open, so its absence proves nothing; a 5xx does."""
    response = session.send(session.sign("GET", "/ping", b""), "GET /ping")
    if response.status == 200:  # noqa: PLR2004 (OK)
        return "GET /ping: 200"
    if response.status >= 500:  # noqa: PLR2004 (server errors)
        raise Refuted(f"GET /ping: {response.status}, upon which a load balancer takes the proxy out of service")
    raise NotJudged(f"GET /ping: {response.status}; the path is the vendor's choice, and may be on another port")


def _api_paths(session: Session) -> list[str]:
    operations = list(Operation) if session.keys.key else [Operation.GET_HEALTH_STATUS]
    return [session.path(operation) for operation in operations]


def _media_type(response: Response) -> str:
    return (response.header("content-type") or "").split(";")[0].strip().lower()


CHECKS: tuple[Check, ...] = (get, other_methods, unknown_path, other_prefix, content_type, keep_alive, load_balancer)
