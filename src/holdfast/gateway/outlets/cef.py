"""CEF, ArcSight's Common Event Format, version 0: a header of seven fields, then pairs of names and values.

Names are those of its dictionary; what the dictionary has no name for stands in the custom fields, each with its
label.
"""

from collections.abc import Iterator
from ipaddress import IPv6Address, ip_address
from typing import Any

from holdfast._version import __version__
from holdfast.gateway.outlets.message import Kind, Message, Severity, printable

_SEVERITIES = {
    Severity.INFORMATIONAL: 1,
    Severity.NOTICE: 3,
    Severity.WARNING: 5,
    Severity.ERROR: 7,
    Severity.ALERT: 10,
}


def render(message: Message) -> str:
    """One message in printable ASCII."""
    what, pairs = _PARTS[message.kind](message.fields)
    header = ("CEF:0", "Holdfast", "Holdfast", __version__, f"{message.kind}:{what}", f"{message.kind} {what}")
    common = {"rt": round(message.seconds * 1000), "deviceExternalId": message.node}
    extension = " ".join(
        f"{name}={_value(value)}"
        for name, value in {**common, **dict(pairs)}.items()
        if value is not None and value not in {"", ()}
    )
    return "|".join([*map(_header, header), str(_SEVERITIES[message.severity]), extension])


def _request(fields: dict[str, Any]) -> tuple[str, Iterator[tuple[str, Any]]]:
    return fields.get("operation") or "unknown", _of_request(fields)


def _of_request(fields: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    yield from _address(fields.get("client"))
    yield "outcome", fields["decision"]
    yield "reason", fields.get("errorName")
    yield "msg", fields.get("detail")
    yield "externalId", fields.get("kmsRequestId")
    yield "suser", fields.get("awsPrincipalArn")
    yield "act", fields.get("operation")
    yield "app", fields.get("kmsViaService")
    yield "in", fields.get("bytesIn")
    yield "out", fields.get("bytesOut")
    yield from _custom("cs1", "keystore", fields.get("keystore"))
    yield from _custom("cs2", "externalKeyId", fields.get("externalKeyId"))
    yield from _custom("cs3", "kmsKeyArn", fields.get("kmsKeyArn"))
    yield from _custom("cs4", "accessKeyId", fields.get("accessKeyId"))
    yield from _custom("cs5", "kmsOperation", fields.get("kmsOperation"))
    yield from _custom("cs6", "policies", " ".join(fields.get("policies", ())))
    yield from _custom("cn1", "status", fields.get("status"))
    yield from _custom("cn2", "generation", fields.get("generation"))
    yield from _custom("cn3", "leftOut", fields.get("leftOut"))


def _change(fields: dict[str, Any]) -> tuple[str, Iterator[tuple[str, Any]]]:
    return fields.get("action", "unknown"), _of_change(fields)


def _of_change(fields: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    actor = fields.get("actor", {})
    yield "outcome", fields["outcome"]
    yield "externalId", fields.get("id")
    yield "act", fields.get("action")
    yield "suser", actor.get("name")
    yield "reason", fields.get("reason")
    yield from _custom("cs1", "subject", fields.get("subject"))
    yield from _custom("cs2", "ticket", fields.get("ticket"))
    yield from _custom("cs3", "plan", fields.get("plan"))
    yield from _custom("cs4", "approvedBy", " ".join(each["name"] for each in fields.get("approvals", ())))
    yield from _custom("cs5", "knownBy", actor.get("known_by"))
    yield from _custom("cs6", "effects", "; ".join(each["subject"] for each in fields.get("effects", ())))
    yield from _custom("cn1", "catalogVersion", fields.get("catalog_version"))


def _lost(fields: dict[str, Any]) -> tuple[str, Iterator[tuple[str, Any]]]:
    return "messages", iter([("cnt", fields["lost"]), ("reason", fields["reason"])])


_PARTS = {Kind.REQUEST: _request, Kind.CHANGE: _change, Kind.LOST: _lost}


def _custom(name: str, label: str, value: Any) -> Iterator[tuple[str, Any]]:
    if value not in {None, ""}:
        yield f"{name}Label", label
        yield name, value


def _address(text: str | None) -> Iterator[tuple[str, Any]]:
    """`src` holds an IPv4 address only."""
    try:
        address = ip_address(text or "")
    except ValueError:
        return
    if isinstance(address, IPv6Address):
        yield from _custom("c6a2", "Source IPv6 Address", address)
    else:
        yield "src", address


def _header(text: str) -> str:
    return printable(text).replace("\\", "\\\\").replace("|", "\\|")


def _value(value: Any) -> str:
    return printable(str(value)).replace("\\", "\\\\").replace("=", "\\=")
