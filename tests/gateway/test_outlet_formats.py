"""The formats of messages: each is what its standard says, whatever strangers put into the fields."""

import importlib
import os
import re
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.server.receivers import Syslog, unframed

from holdfast.audit.records import Actor, Approval, Change, Effect
from holdfast.gateway.outlets import cef, ocsf, plain
from holdfast.gateway.outlets.message import MAX_MESSAGE, Kind, Message, Severity
from holdfast.gateway.outlets.rfc5424 import local, octet_counted, syslog

NOW = datetime(2026, 11, 5, 18, 24, 20, 123456, UTC)
TEXT = st.text(max_size=60)
FORMATS = [plain.render, cef.render, ocsf.render]
RENDERED = pytest.mark.parametrize("render", FORMATS, ids=["json", "cef", "ocsf"])
EVENT: dict[str, Any] = {
    "timestamp": "2026-11-05T18:24:20.123Z",
    "decision": "allow",
    "status": 200,
    "milliseconds": {"authentication": 0.1, "queue": 0.2, "hsm": 1.0, "total": 1.5},
    "bytesIn": 394,
    "bytesOut": 174,
    "client": "10.0.0.7",
    "worker": 2,
}


@st.composite
def events(draw: st.DrawFn) -> Message:
    """An event with anything in the fields that come from outside."""
    names = ("kmsRequestId", "keystore", "externalKeyId", "accessKeyId", "awsPrincipalArn", "kmsKeyArn", "detail")
    some = {name: draw(TEXT) for name in draw(st.sets(st.sampled_from(names)))}
    known: dict[str, Any] = draw(
        st.sampled_from(
            [{}, {"operation": "Encrypt", "generation": 3}, {"operation": "GetKeyMetadata", "client": "::1"}]
        )
    )
    refused = {"decision": draw(st.sampled_from(["deny", "fail"])), "status": 400, "errorName": "ValidationException"}
    return Message.of_event({**EVENT, **some, **known, **(refused if draw(st.booleans()) else {})}, node="node-1")


@st.composite
def changes(draw: st.DrawFn) -> Message:
    """A change with anything that a person can write."""
    change = Change(
        time=NOW,
        id="0123456789abcdef",
        action=draw(st.sampled_from(["keystore block", "key rotate activate", "rules set", "operator enrol"])),
        subject=draw(TEXT.filter(bool)),
        actor=Actor(name=draw(TEXT), known_by="os-user"),
        outcome=draw(st.sampled_from(["applied", "rejected", "requested"])),
        effects=tuple(Effect(subject=draw(TEXT), after={"blocked": True}) for _ in range(draw(st.integers(0, 3)))),
        reason=draw(TEXT),
        approvals=tuple(Approval(name=draw(TEXT), time=NOW) for _ in range(draw(st.integers(0, 2)))),
    )
    return Message.of_change(change, node="node-1")


MESSAGES = st.one_of(
    events(),
    changes(),
    st.just(Message.of_loss(7, "the outlet's buffer was full", time=NOW, node="node-1")),
    st.just(Message.of_unreadable(3, NOW, node="node-1")),
)


@RENDERED
@given(message=MESSAGES, sequence=st.integers(0, 2**33))
def test_every_message_is_of_the_grammar_of_rfc_5424(render: Any, message: Message, sequence: int) -> None:
    raw = syslog(message, message.fitting(render), host="node-1.example", process=7, sequence=sequence)
    parsed = Syslog.parse(raw)
    assert (parsed.app, parsed.host, parsed.process, parsed.id) == ("holdfast", "node-1.example", "7", message.kind)
    assert parsed.severity == message.severity
    assert 1 <= parsed.sequence < 2**31
    assert unframed(octet_counted(raw) * 2) == ([raw, raw], b"")


def test_the_sequence_begins_with_1_again_after_the_greatest_that_rfc_5424_allows() -> None:
    message = Message.of_loss(1, "x", time=NOW, node="n")
    numbers = [
        Syslog.parse(syslog(message, "x", host="h", process=1, sequence=sequence)).sequence
        for sequence in (0, 2**31 - 2, 2**31 - 1)
    ]
    assert numbers == [1, 2**31 - 1, 1]


@given(message=MESSAGES)
def test_the_json_has_every_field_of_the_record(message: Message) -> None:
    fields = msgspec.json.decode(plain.render(message))
    expected = {"kind": message.kind, "node": "node-1", "timestamp": message.time, **message.fields}
    assert fields == msgspec.json.decode(msgspec.json.encode(expected))


def _cef(text: str) -> tuple[list[str], dict[str, str]]:
    """The header and the extension, unescaped, as the format's guide says."""
    parts = re.split(r"(?<!\\)(?:\\\\)*\|", text, maxsplit=7)
    assert len(parts) == 8, text
    pairs = re.findall(r"(\w+)=((?:[^=\\]|\\.)*?)(?= \w+=|$)", parts[7])
    assert " ".join(f"{name}={value}" for name, value in pairs) == parts[7]
    return parts[:7], {name: re.sub(r"\\(.)", r"\1", value) for name, value in pairs}


@given(message=events())
def test_cef_has_seven_fields_and_pairs_and_a_label_for_each_custom_field(message: Message) -> None:
    header, pairs = _cef(cef.render(message))
    assert header[:3] == ["CEF:0", "Holdfast", "Holdfast"]
    assert 0 <= int(header[6]) <= 10
    assert {name for name in pairs if re.fullmatch(r"c[sn][1-6]|c6a2", name)} == {
        name.removesuffix("Label") for name in pairs if name.endswith("Label")
    }
    assert pairs["outcome"] == message.fields["decision"]


def test_no_value_can_make_a_pair_or_end_a_line_in_cef() -> None:
    evil = "x suser=root\r\nCEF:0|a|b\\"
    message = Message.of_event({**EVENT, "decision": "deny", "detail": evil}, node="n")
    text = cef.render(message)
    assert text.isprintable()
    _, pairs = _cef(text)
    assert "suser" not in pairs
    assert pairs["msg"] == "x suser=root\\r\\nCEF:0|a|b\\"


def _schema_of(event: dict[str, Any]) -> Any:
    """OCSF's own schema of the event's class, and its validator."""
    try:
        validators: Any = importlib.import_module("jsonschema_rs")
        ocsf_schemas: Any = importlib.import_module("ocsf_json_schema")
    except ImportError:
        assert not os.environ.get("CI"), "CI has every package of requirements/dev.txt"
        pytest.skip("ocsf-json-schema is not installed: make develop")
    published = ocsf_schemas.OcsfJsonSchemaEmbedded(ocsf_schemas.get_ocsf_schema(version=ocsf.VERSION))
    name = published.lookup_class_name_from_uid(event["class_uid"])
    return validators.validator_for(published.get_class_schema(name))


SHAPES = [
    Message.of_event(EVENT, node="n"),
    Message.of_event(
        {
            **EVENT,
            "operation": "Decrypt",
            "decision": "fail",
            "status": 503,
            "errorName": "KeyNotFoundException",
            "detail": "gone",
            "kmsRequestId": "1",
            "keystore": "test",
            "externalKeyId": "key-1",
            "accessKeyId": "A",
            "awsPrincipalArn": "arn:aws:iam::1:user/A",
            "kmsKeyArn": "arn:aws:kms:eu-west-1:1:key/2",
            "kmsViaService": "ebs.amazonaws.com",
            "policies": ["one"],
        },
        node="n",
    ),
    Message.of_change(
        Change(
            time=NOW,
            id="1",
            action="keystore block",
            subject="keystore test",
            actor=Actor(name="alice", known_by="ssh-signature"),
            effects=(Effect(subject="keystore test", before={"blocked": False}, after={"blocked": True}),),
            reason="drill",
            ticket="T-1",
        ),
        node="n",
    ),
    Message.of_unreadable(3, NOW, node="n"),
    Message.of_loss(7, "full", time=NOW, node="n"),
]


@pytest.mark.parametrize("message", SHAPES, ids=lambda message: f"{message.kind}-{len(message.fields)}")
def test_an_event_fits_the_schema_that_ocsf_publishes_for_its_class(message: Message) -> None:
    event = msgspec.json.decode(ocsf.render(message))
    errors = sorted(
        f"{error.instance_path}: {error.message[-300:]}" for error in _schema_of(event).iter_errors(event)
    )
    assert errors == []


@pytest.mark.parametrize(
    ("action", "activity"),
    [
        ("keystore block", 9),
        ("keystore unblock", 8),
        ("key generation suspend", 12),
        ("key generation resume", 13),
        ("key rotate activate", 10),
        ("operator enrol", 6),
        ("rules set", 3),
    ],
)
def test_a_change_has_the_activity_that_ocsf_has_for_it(action: str, activity: int) -> None:
    change = Change(time=NOW, id="1", action=action, subject="x", actor=Actor(name="a", known_by="os-user"))
    event = ocsf.event_of(Message.of_change(change, node="n"))
    assert (event["activity_id"], event["type_uid"]) == (activity, 300400 + activity)


@RENDERED
def test_a_change_with_many_effects_says_how_many_are_left_out(render: Any) -> None:
    effects = [{"subject": f"key {number}", "after": "x" * 100} for number in range(200)]
    fields = {"outcome": "applied", "action": "catalog import", "subject": "all", "effects": effects}
    text = Message(Kind.CHANGE, "2026-11-05T18:24:20.123Z", Severity.NOTICE, fields, "n").fitting(render)
    assert len(text) <= MAX_MESSAGE
    assert "200" in text or render is cef.render


@RENDERED
def test_a_message_of_which_every_text_is_long_and_strange_still_fits(render: Any) -> None:
    strange = dict.fromkeys((*(f"field{n}" for n in range(20)), "kmsKeyArn", "accessKeyId"), "\x00" * 2000)
    text = Message.of_event({**EVENT, **strange, "policies": ["\x00" * 500] * 300}, node="n").fitting(render)
    assert len(text) <= MAX_MESSAGE
    if render is not cef.render:
        assert msgspec.json.decode(text)


@RENDERED
def test_no_message_is_longer_than_receivers_take(render: Any) -> None:
    long = Message.of_event({**EVENT, "externalKeyId": "\x00" * 50_000, "detail": "é" * 9_000}, node="n")
    text = long.fitting(render)
    assert len(text) <= MAX_MESSAGE
    if render is not cef.render:
        assert msgspec.json.decode(text)


def test_the_local_form_is_that_of_syslog_3() -> None:
    message = Message.of_loss(1, "x", time=NOW, node="n")
    expected = datetime.fromtimestamp(NOW.timestamp()).astimezone().strftime("%b %e %H:%M:%S")
    assert local(message, "text", process=7) == f"<84>{expected} holdfast[7]: text".encode()
