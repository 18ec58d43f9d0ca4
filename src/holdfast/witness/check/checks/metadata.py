"""GetKeyMetadata."""

from holdfast.witness.check.finding import Check, Level, Refuted, Source, check
from holdfast.witness.check.session import Body, Session, accepted, metadata_body, refused
from holdfast.xks.errors import ErrorName
from holdfast.xks.types import KeyStatus, Operation

_SECTION = "GetKeyMetadata"
_MAX_USAGES = 10
_UNKNOWN_KEY = "holdfast-check-no-such-key"


@check(
    "META-01",
    "The test key is found, with all fields",
    level=Level.MUST,
    source=Source(_SECTION, "The following attributes MUST be present in response payload"),
    needs=("HEALTH-01",),
)
def fields(session: Session) -> str:
    """Asks for the metadata of --key as CreateKey does."""
    body = _metadata(session)
    usage = body.get("keyUsage")
    missing = [name for name in ("keySpec", "keyStatus") if not isinstance(body.get(name), str)]
    if not isinstance(usage, list) or not all(isinstance(item, str) for item in usage):
        missing.append("keyUsage")
    if missing:
        raise Refuted(f"missing, or of another type: {', '.join(missing)}")
    return f"{session.test_key}: {body['keySpec']}, {'+'.join(body['keyUsage'])}, {body['keyStatus']}"


@check(
    "META-02",
    "keySpec is AES_256",
    level=Level.MUST,
    source=Source(_SECTION, "The XKS Proxy must use the string `AES_256` to indicate a 256-bit AES key."),
    needs=("META-01",),
)
def key_spec(session: Session) -> str:
    """KMS CreateKey fails on anything else."""
    spec = _metadata(session)["keySpec"]
    if spec != "AES_256":
        raise Refuted(f"{spec!r}")
    return "AES_256"


@check(
    "META-03",
    "keyUsage has ENCRYPT and DECRYPT, and at most ten values",
    level=Level.MUST,
    source=Source(_SECTION, "The response MUST NOT contain more than ten keyUsage values."),
    needs=("META-01",),
)
def key_usage(session: Session) -> str:
    """KMS CreateKey fails if either is missing."""
    usage = _metadata(session)["keyUsage"]
    missing = {"ENCRYPT", "DECRYPT"} - set(usage)
    if missing or len(usage) > _MAX_USAGES:
        raise Refuted(f"{', '.join(usage)}" + (f": lacks {' and '.join(sorted(missing))}" if missing else ""))
    return ", ".join(usage)


@check(
    "META-04",
    "keyStatus is ENABLED",
    level=Level.MUST,
    source=Source(_SECTION, "The supported values are `ENABLED` and `DISABLED`."),
    needs=("META-01",),
)
def key_status(session: Session) -> str:
    """KMS CreateKey fails on a key that is not enabled."""
    status = _metadata(session)["keyStatus"]
    if status != KeyStatus.ENABLED:
        raise Refuted(f"{status!r}" + (": enable the test key first" if status == KeyStatus.DISABLED else ""))
    return "ENABLED"


@check(
    "META-05",
    "An unknown key is answered KeyNotFoundException",
    level=Level.MUST,
    source=Source("Error codes", "The request was rejected because the<br>specified external key is not found."),
    needs=("HEALTH-01",),
)
def unknown_key(session: Session) -> str:
    """Asks for a key that does not exist."""
    response = session.call(Operation.GET_KEY_METADATA, metadata_body(), key=_UNKNOWN_KEY)
    return refused(response, ErrorName.KEY_NOT_FOUND, what=_UNKNOWN_KEY)


@check(
    "META-06",
    "Every allowed form of key id is understood",
    level=Level.MUST,
    source=Source(
        "API operations",
        "the XKS Proxy MUST be able to identify an external key unambiguously from its **`externalKeyId`**",
    ),
    needs=("META-05",),
)
def key_id_forms(session: Session) -> str:
    """Asks for absent ids as long as KMS allows here, and of all its characters: not found, rather than invalid."""
    room = 256 - len(session.endpoint.url + session.endpoint.path("keys", "", "metadata"))
    longest = ("Az09-._" * 19)[: min(128, room)]
    for key in (longest, "a.b", "-", "_", "UPPER-lower.0123_9"):
        response = session.call(Operation.GET_KEY_METADATA, metadata_body(), key=key)
        refused(response, ErrorName.KEY_NOT_FOUND, what=key)
    return f"five forms, the longest of {len(longest)} characters"


def _metadata(session: Session) -> Body:
    body = accepted(session.call(Operation.GET_KEY_METADATA, metadata_body()), "GetKeyMetadata").json_object
    if body is None:
        raise Refuted("the response is not a JSON object")
    return body


CHECKS: tuple[Check, ...] = (fields, key_spec, key_usage, key_status, unknown_key, key_id_forms)
