"""Every error response of the run so far, read once more."""

from holdfast.witness.check.finding import Check, Level, NotJudged, Refuted, Source, check
from holdfast.witness.check.session import Exchange, Session
from holdfast.xks.errors import MAX_MESSAGE_LENGTH, ErrorName

_SECTION = "Error codes"
_FIRST_ERROR = 400
_METHOD_NOT_ALLOWED = 405


@check(
    "ERR-01",
    "Every error has an errorName of the spec",
    level=Level.MUST,
    source=Source(_SECTION, "The HTTP body includes a JSON object with `errorName` and an optional `errorMessage`."),
    needs=("HEALTH-01",),
)
def names(session: Session) -> str:
    """Reads all error responses but those to wrong methods."""
    errors = _errors(session)
    for error in errors:
        if error.response.error_name not in tuple(ErrorName):
            raise Refuted(f"{error.about}: {error.response.describe()}")
    return f"{len(errors)} error responses"


@check(
    "ERR-02",
    "errorMessage is printable ASCII, under 512 characters",
    level=Level.MUST,
    source=Source(
        _SECTION,
        "MUST be less than 512 characters in length and only use printable ASCII characters, i.e. hex values 0x20 "
        "(space) through 0x7e (tilde).",
    ),
    needs=("HEALTH-01",),
)
def messages(session: Session) -> str:
    """Reads errorMessage in all error responses."""
    texts = {
        error.about: (error.response.json_object or {})["errorMessage"]
        for error in _errors(session)
        if "errorMessage" in (error.response.json_object or {})
    }
    for about, text in texts.items():
        if not isinstance(text, str) or len(text) > MAX_MESSAGE_LENGTH or not all(" " <= c <= "~" for c in text):
            raise Refuted(f"{about}: {ascii(text)[:80]}")
    return f"{len(texts)} messages" if texts else "no messages, which is allowed"


@check(
    "ERR-03",
    "Each errorName comes with its HTTP status",
    level=Level.MUST,
    source=Source(_SECTION, "The table below shows the HTTP error code and Error Name returned by the XKS proxy"),
    needs=("HEALTH-01",),
)
def statuses(session: Session) -> str:
    """Compares status and name of all error responses with the spec's table."""
    seen = set()
    for error in _errors(session):
        name = error.response.error_name
        if name is None or name not in tuple(ErrorName):
            continue
        expected = ErrorName(name).status
        if error.response.status != expected:
            raise Refuted(f"{error.about}: {name} came with {error.response.status}, not {expected.value}")
        seen.add(name)
    return f"seen: {', '.join(sorted(seen))}"


def _errors(session: Session) -> list[Exchange]:
    errors = [
        exchange
        for exchange in session.exchanges
        if exchange.response.status >= _FIRST_ERROR
        and exchange.response.status != _METHOD_NOT_ALLOWED
        and not exchange.about.startswith("GET ")
    ]
    if not errors:
        raise NotJudged("no error response was seen")
    return errors


CHECKS: tuple[Check, ...] = (names, messages, statuses)
