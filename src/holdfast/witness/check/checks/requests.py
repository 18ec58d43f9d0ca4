"""What any request may carry, on all four operations."""

from collections.abc import Callable
from functools import partial

from holdfast.witness.check.finding import Check, Finding, Level, NotJudged, Refuted, Source, check
from holdfast.witness.check.session import (
    Body,
    Session,
    accepted,
    decrypt_body,
    encrypt_body,
    fresh_plaintext,
    health_metadata,
    metadata_body,
)
from holdfast.xks.errors import ErrorName
from holdfast.xks.types import Operation

_OK = 200
_ARN_LENGTH = 2048
_OPAQUE_IDS = ("", "not a UUID at all", "x" * 300, "ÄÖÜ 漢字 \u2603")


@check(
    "REQ-01",
    "An unknown kmsOperation is accepted",
    level=Level.MUST,
    source=Source(
        "GetKeyMetadata",
        "The XKS Proxy MUST NOT reject a request as invalid if it sees a kmsOperation other than those listed for "
        "this API call.",
    ),
    needs=("HEALTH-01",),
)
def unknown_kms_operation(session: Session) -> str:
    """Sends a kmsOperation that KMS does not have yet. A policy may deny it, but not for health."""
    return _each_accepted(session, lambda body: _changed(body, kmsOperation="BulkEncryptOfTheFuture"), "kmsOperation")


@check(
    "REQ-02",
    "kmsRequestId is opaque",
    level=Level.MUST,
    source=Source(
        "GetKeyMetadata",
        "the XKS Proxy MUST treat this as an opaque string and MUST NOT perform any validation on its structure",
    ),
    needs=("HEALTH-01",),
)
def opaque_request_id(session: Session) -> str:
    """Sends request ids that are empty, long, and not ASCII."""
    for text in _OPAQUE_IDS:
        _each_accepted(session, partial(_changed, kmsRequestId=text), f"kmsRequestId {text[:20]!r}")
    return f"{len(_OPAQUE_IDS)} unusual ids accepted"


@check(
    "REQ-03",
    "ARNs of 2,048 characters are accepted",
    level=Level.MUST,
    source=Source("API operations", "The XKS Proxy MUST support ARN lengths of up to [2048]"),
    needs=("META-01",),
)
def long_arns(session: Session) -> str:
    """Sends awsPrincipalArn and kmsKeyArn of 2,048 characters each."""
    principal = "arn:aws:iam::123456789012:user/".ljust(_ARN_LENGTH, "p")
    key = "arn:aws:kms:us-east-1:123456789012:key/".ljust(_ARN_LENGTH, "k")
    return _each_accepted(session, lambda body: _changed(body, awsPrincipalArn=principal, kmsKeyArn=key), "long ARNs")


@check(
    "REQ-04",
    "Optional and unknown requestMetadata is accepted",
    level=Level.MUST,
    source=Source("Appendix B", "Over time, AWS KMS may choose to include additional fields"),
    needs=("HEALTH-01",),
)
def unknown_fields(session: Session) -> str:
    """Sends the optional fields, one that does not exist yet, and an object inside requestMetadata."""

    def change(body: Body) -> Body:
        known = _changed(
            body, awsSourceVpc="vpc-1", awsSourceVpce="vpce-1", kmsViaService="ebs", SourceIdentity="Alice"
        )
        known["requestMetadata"]["kmsRecipientAttestation"] = {"ImageSha384": "00", "PCR": [1, 2.5, None, True]}
        return known

    return _each_accepted(session, change, "additional requestMetadata")


@check(
    "REQ-05",
    "Unknown fields beside requestMetadata are accepted",
    level=Level.ADVICE,
    source=Source(
        "GetKeyMetadata",
        "In the future, KMS may introduce a new API that can be satisfied by calling one of the XKS APIs listed in "
        "this document.",
    ),
    needs=("HEALTH-01",),
)
def unknown_top_fields(session: Session) -> str:
    """Sends one more top-level field."""
    return _each_accepted(session, lambda body: body | {"aFieldOfTheFuture": {"a": [1]}}, "an additional field")


@check(
    "REQ-06",
    "A service as principal is accepted",
    level=Level.MUST,
    source=Source(
        "Encrypt",
        "When the caller is another AWS service, this field will contain either the service principal ending in "
        "amazonaws.com, such as [ec2.amazonaws.com](http://ec2.amazonaws.com/) or “AWS Internal”.",
    ),
    needs=("META-01",),
)
def service_principal(session: Session) -> str:
    """Sends awsPrincipalArn values that are not ARNs."""
    for principal in ("ec2.amazonaws.com", "AWS Internal"):
        _each_accepted(session, partial(_changed, awsPrincipalArn=principal), f"principal {principal}")
    return "ec2.amazonaws.com and AWS Internal accepted"


def _changed(body: Body, **changes: str) -> Body:
    return body | {"requestMetadata": body["requestMetadata"] | changes}


def _each_accepted(session: Session, change: Callable[[Body], Body], what: str) -> str:
    denied = []
    bodies = _bodies(session)
    for operation, body in bodies.items():
        response = session.call(operation, change(body), about=f"{operation} with {what}")
        if response.error_name == ErrorName.ACCESS_DENIED and operation is not Operation.GET_HEALTH_STATUS:
            denied.append(operation)
        elif response.status != _OK:
            raise Refuted(f"{operation} with {what}: {response.describe()}")
    if denied:
        raise NotJudged(f"{what}: denied by the proxy's own authorization for {', '.join(denied)}, which is allowed")
    return f"{len(bodies)} operations with {what}: accepted"


def _bodies(session: Session) -> dict[Operation, Body]:
    bodies = {Operation.GET_HEALTH_STATUS: health_metadata()}
    if session.found_key is None:
        return bodies
    bodies[Operation.GET_KEY_METADATA] = metadata_body()
    try:
        what = session.seal(fresh_plaintext())
        accepted(session.unseal(what), "Decrypt")
    except Finding:
        # ENC and DEC say what is wrong with them; nothing can be learnt here from an operation that never works.
        return bodies
    return bodies | {Operation.ENCRYPT: encrypt_body(fresh_plaintext()), Operation.DECRYPT: decrypt_body(what)}


CHECKS: tuple[Check, ...] = (
    unknown_kms_operation,
    opaque_request_id,
    long_arns,
    unknown_fields,
    unknown_top_fields,
    service_principal,
)
