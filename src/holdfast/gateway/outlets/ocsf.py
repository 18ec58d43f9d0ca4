"""OCSF 1.5.0, the Open Cybersecurity Schema Framework, as JSON.

A request is an API Activity (6003), as AWS's own services report CloudTrail's records. A change is an Entity
Management (3004): the one class whose activities are those of a key manager (create, enable, disable, activate,
suspend, resume, delete), with the entity, a comment and who did it. Word of a loss is an Event Log Activity (1008).
What the schema has no place for stands under `unmapped` with our names.
"""

from typing import Any

import msgspec

from holdfast._version import __version__
from holdfast.gateway.observe.event_log import ascii_only
from holdfast.gateway.outlets.message import Kind, Message, Severity

VERSION = "1.5.0"
_OTHER = 99
_SEVERITIES = {
    Severity.INFORMATIONAL: 1,
    Severity.NOTICE: 1,
    Severity.WARNING: 3,
    Severity.ERROR: 4,
    Severity.ALERT: 5,
}
_READS = frozenset({"GetKeyMetadata", "GetHealthStatus"})
_CHANGES = {
    "create": 1,
    "import": 1,
    "issue": 1,
    "delete": 4,
    "remove": 4,
    "destroyed": 4,
    "enrol": 6,
    "register": 6,
    "unregister": 7,
    "enable": 8,
    "unblock": 8,
    "block": 9,
    "disable": 9,
    "activate": 10,
    "compromise": 11,
    "destroy": 11,
    "retire": 11,
    "suspend": 12,
    "keep": 13,
    "release": 13,
    "resume": 13,
}
"""Entity Management's activity for the verb of an action. Everything else is an Update."""
_UPDATE = 3
_ENCODER = msgspec.json.Encoder()


def render(message: Message) -> str:
    """One JSON object in printable ASCII."""
    return ascii_only(_ENCODER.encode(_without_nothing(event_of(message)))).decode("ascii")


def event_of(message: Message) -> dict[str, Any]:
    """The event as values; None where nothing is known."""
    own = {Kind.REQUEST: _request, Kind.CHANGE: _change, Kind.LOST: _loss}[message.kind](message.fields)
    product = {"name": "Holdfast", "vendor_name": "Holdfast", "version": __version__}
    metadata = {
        "version": VERSION,
        "product": product,
        "log_name": message.kind.value,
        "log_provider": message.node,
        **own.pop("metadata", {}),
    }
    return {
        "metadata": metadata,
        "time": round(message.seconds * 1000),
        "severity_id": _SEVERITIES[message.severity],
        "type_uid": own["class_uid"] * 100 + own["activity_id"],
        **own,
    }


def _request(fields: dict[str, Any]) -> dict[str, Any]:
    operation = fields.get("operation")
    allowed = fields["decision"] == "allow"
    caller, kms_key = fields.get("awsPrincipalArn"), fields.get("kmsKeyArn")
    request_id = fields.get("kmsRequestId")
    keystore, key = fields.get("keystore"), fields.get("externalKeyId")
    return {
        "category_uid": 6,
        "class_uid": 6003,
        **(
            {"activity_id": 2, "activity_name": "Read"}
            if operation in _READS
            else {"activity_id": _OTHER, "activity_name": operation or "Refused"}
        ),
        "status_id": 1 if allowed else 2,
        "status": "Success" if allowed else "Failure",
        "status_code": fields.get("errorName"),
        "status_detail": fields.get("detail"),
        "message": f"{operation or 'request'}: {fields['decision']}",
        "duration": round(fields["milliseconds"]["total"]),
        "metadata": {"correlation_uid": request_id},
        "actor": {
            "user": {
                "uid": caller or fields.get("accessKeyId") or "unknown",
                "credential_uid": fields.get("accessKeyId"),
            },
            "invoked_by": fields.get("kmsViaService"),
        },
        "api": {
            "operation": operation or "unknown",
            "service": {"name": "AWS KMS External Key Store"},
            "request": {"uid": request_id} if request_id else None,
            "response": {
                "code": fields["status"],
                "error": fields.get("errorName"),
                "error_message": fields.get("detail"),
            },
        },
        "src_endpoint": {"ip": fields["client"]} if fields.get("client") else {"name": "unknown"},
        "http_response": {"code": fields["status"], "length": fields.get("bytesOut")},
        "resources": [
            {"uid": uid, "type": type_}
            for uid, type_ in (
                (f"{keystore or ''}/{key}" if key else None, "external key"),
                (kms_key, "AWS::KMS::Key"),
            )
            if uid is not None
        ],
        "unmapped": {name: value for name, value in fields.items() if name not in _MAPPED},
    }


_MAPPED = frozenset(
    {
        "timestamp",
        "status",
        "bytesOut",
        "client",
        "operation",
        "kmsRequestId",
        "keystore",
        "externalKeyId",
        "accessKeyId",
        "awsPrincipalArn",
        "kmsKeyArn",
        "kmsViaService",
        "errorName",
        "detail",
    }
)


def _change(fields: dict[str, Any]) -> dict[str, Any]:
    action = fields.get("action", "unknown")
    applied = fields["outcome"] == "applied"
    actor = fields.get("actor", {})
    verb = next((word for word in reversed(action.split()) if word in _CHANGES), "")
    return {
        "category_uid": 3,
        "class_uid": 3004,
        "activity_id": _CHANGES.get(verb, _UPDATE),
        "status_id": 1 if applied else _OTHER,
        "status": "Success" if applied else fields["outcome"],
        "message": f"{action}: {fields['outcome']}",
        "comment": fields.get("reason"),
        "metadata": {"uid": fields.get("id"), "correlation_uid": fields.get("ticket")},
        "actor": {"user": {"name": actor.get("name") or "unknown"}},
        "entity": {"name": fields["subject"], "type": "catalog entry", "data": {"effects": fields.get("effects")}},
        "unmapped": {
            name: value for name, value in fields.items() if name not in {"time", "reason", "effects", "subject"}
        },
    }


def _loss(fields: dict[str, Any]) -> dict[str, Any]:
    return {
        "category_uid": 1,
        "class_uid": 1008,
        "activity_id": _OTHER,
        "activity_name": "Lost",
        "status_id": 2,
        "status": "Failure",
        "message": f"{fields['lost']} messages were lost: {fields['reason']}",
        "status_detail": fields["reason"],
        "log_name": "outlet",
        "unmapped": fields,
    }


def _without_nothing(value: Any) -> Any:
    """Without what is None or empty: a field that has no value is absent."""
    if isinstance(value, dict):
        found = {name: _without_nothing(each) for name, each in value.items()}
        return {name: each for name, each in found.items() if each is not None and each not in ({}, [], "", ())}
    return [_without_nothing(each) for each in value] if isinstance(value, list | tuple) else value
