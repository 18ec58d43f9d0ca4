from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.audit.logs import NOW

from holdfast.audit.faults import Malformed, NotProven
from holdfast.audit.records import (
    MAX_RECORD,
    Actor,
    Approval,
    Change,
    Effect,
    Exhibit,
    Lost,
    Pruned,
    Segment,
    Streams,
    Unknown,
    decode,
    encode,
    segment_path,
)

ALICE = Actor(name="alice", known_by="os-user", where="node-1")
CHANGE = Change(
    time=NOW,
    id="c-17",
    action="keystore.block",
    subject="payments",
    actor=ALICE,
    plan="ab" * 32,
    effects=(Effect(subject="keystore/payments/blocked", before=False, after=True),),
    reason="drill",
    ticket="CHG-1",
    approvals=(Approval(name="bob", time=NOW, signature="sig", public_key="key"),),
    catalog_version=18,
    catalog_digest="cd" * 32,
)
LINES = [b'{"kmsRequestId":"%d"}' % n for n in range(5)]
SEGMENT = Segment.of(LINES, stream="node-1/2/1", first=11, last=17, time=NOW)
LOST = Lost(time=NOW, stream="node-1/2/1", first=18, last=20, reason="the disk was full")
PRUNED = Pruned(time=NOW, actor=ALICE, entries_below=256, reason="retention of two years")


@pytest.mark.parametrize("record", [CHANGE, SEGMENT, LOST, PRUNED], ids=lambda record: type(record).__name__)
def test_a_record_reads_back(record: Change | Segment | Lost | Pruned) -> None:
    assert decode(encode(record)) == record


def test_a_change_as_it_stands_in_the_log() -> None:
    """The bytes of a leaf never change: a later verifier has nothing else."""
    assert encode(CHANGE).decode() == (
        '{"kind":"change","time":"2026-11-25T10:30:00Z","id":"c-17","action":"keystore.block","subject":"payments",'
        '"actor":{"name":"alice","known_by":"os-user","where":"node-1"},"plan":"' + "ab" * 32 + '",'
        '"effects":[{"subject":"keystore/payments/blocked","before":false,"after":true}],"reason":"drill",'
        '"ticket":"CHG-1","approvals":[{"name":"bob","time":"2026-11-25T10:30:00Z","signature":"sig",'
        '"public_key":"key"}],"catalog_version":18,"catalog_digest":"' + "cd" * 32 + '"}'
    )


def test_a_segment_as_it_stands_in_the_log() -> None:
    assert encode(SEGMENT).decode() == (
        '{"kind":"segment","time":"2026-11-25T10:30:00Z","stream":"node-1/2/1","first":11,"last":17,"count":5,"lost":2,'
        f'"sha256":"{SEGMENT.sha256}","root":"{SEGMENT.root}"}}'
    )


def test_a_later_kind_and_a_later_field_are_passed_over() -> None:
    later = encode(CHANGE)[:-1] + b',"colour":"red"}'
    assert decode(later) == CHANGE
    assert decode(b'{"kind":"colour","time":"2026-11-25T10:30:00Z","red":1}') == Unknown(kind="colour", time=NOW)


@pytest.mark.parametrize(
    "entry",
    [
        b"",
        b"{}",
        b"[]",
        b'"change"',
        b"\xff",
        b"[" * 5000,
        encode(CHANGE) + b"\n",
        encode(CHANGE).replace(b'"reason":"drill"', b'"reason":"real","reason":"drill"'),
        encode(CHANGE).replace(b'"drill"', b'"dr\\u0069ll"'),
        encode(CHANGE).replace(b'"id":"c-17",', b""),
        encode(CHANGE).replace(b"10:30:00Z", b"10:30:00"),
        encode(SEGMENT).replace(SEGMENT.sha256.encode(), b"../../../etc/passwd"),
        encode(SEGMENT).replace(SEGMENT.sha256.encode(), SEGMENT.sha256.encode() + b"\\n"),
        encode(SEGMENT).replace(b'"count":5', b'"count":"5"'),
    ],
)
def test_what_all_readers_would_not_read_alike_is_malformed(entry: bytes) -> None:
    with pytest.raises(Malformed):
        decode(entry)


def test_effects_that_make_a_record_too_long_are_left_out_and_counted() -> None:
    many = tuple(Effect(subject=f"keystore/{n}/blocked", before=False, after=True) for n in range(2000))
    read = decode(encode(msgspec.structs.replace(CHANGE, effects=many)))
    assert isinstance(read, Change)
    assert (read.effects, read.effects_left_out, read.plan) == ((), 2000, CHANGE.plan)


def test_a_record_too_long_without_its_effects_is_refused() -> None:
    with pytest.raises(ValueError, match="too long"):
        encode(msgspec.structs.replace(CHANGE, reason="x" * MAX_RECORD))


def test_a_segment_counts_what_is_missing_between_its_numbers() -> None:
    assert (SEGMENT.count, SEGMENT.lost) == (5, 2)
    assert segment_path(SEGMENT.sha256) == f"segments/{SEGMENT.sha256[:2]}/{SEGMENT.sha256}.jsonl"


def segment(first: int, last: int, *, stream: str = "a", count: int | None = None, lost: int = 0) -> Segment:
    return msgspec.structs.replace(
        SEGMENT, stream=stream, first=first, last=last, count=last - first + 1 if count is None else count, lost=lost
    )


def lost(first: int, last: int | None, *, stream: str = "a") -> Lost:
    return msgspec.structs.replace(LOST, stream=stream, first=first, last=last)


@pytest.mark.parametrize(
    ("records", "wrong"),
    [
        ([segment(1, 10), segment(11, 12), lost(13, 20), segment(21, 30), lost(31, None)], None),
        ([segment(1, 10), segment(1, 5, stream="b"), segment(11, 12), segment(6, 7, stream="b")], None),
        ([segment(1, 10, count=7, lost=3)], None),
        ([segment(2, 10)], "events 1 to 1"),
        ([segment(1, 10), segment(12, 13)], "events 11 to 11"),
        ([segment(1, 10), segment(10, 13)], "have a record already"),
        ([segment(1, 10), lost(11, None), segment(11, 13)], "goes on after"),
        ([segment(1, 10, count=7, lost=2)], "counts 7 events and 2 lost"),
        ([lost(1, -1)], "ends with event -1"),
    ],
)
def test_a_stream_accounts_for_each_of_its_events(records: list[Segment | Lost], wrong: str | None) -> None:
    streams = Streams()
    found = [text for text in map(streams.take, records) if text is not None]
    assert (found == []) if wrong is None else (len(found) == 1 and wrong in found[0])


@settings(deadline=None)
@given(st.integers(1, 40), st.data())
def test_an_event_is_shown_without_the_others(count: int, data: st.DataObject) -> None:
    lines = [b'{"n":%d}' % n for n in range(count)]
    entry = encode(Segment.of(lines, stream="a", first=1, last=count, time=NOW))
    index = data.draw(st.integers(0, count - 1))
    shown = Exhibit.parse(Exhibit.of_event(entry, lines, index).encode())
    assert shown.record() == decode(entry)
    assert shown.event == lines[index].decode()
    for wrong in (
        msgspec.structs.replace(shown, event="{}"),
        msgspec.structs.replace(shown, event_index=count),
        msgspec.structs.replace(shown, event_proof=(*shown.event_proof, "ab" * 32)),
    ):
        with pytest.raises(NotProven):
            wrong.record()


@pytest.mark.parametrize("raw", [b"", b"{}", b'{"entry":1}', b'{"entry":"{}","event_proof":["x"]}'])
def test_what_is_no_exhibit_is_malformed(raw: bytes) -> None:
    with pytest.raises(Malformed):
        Exhibit.parse(raw)


def test_an_event_of_what_is_no_segment_is_malformed() -> None:
    with pytest.raises(Malformed, match="not the record of a segment"):
        Exhibit(entry=encode(CHANGE).decode(), event="{}").record()


def test_times_keep_their_moment() -> None:
    record = msgspec.structs.replace(LOST, time=datetime(2026, 1, 1, 0, 0, 0, 123456, tzinfo=UTC))
    assert decode(encode(record)) == record


@pytest.mark.parametrize("kind", [Change, Segment, Lost, Pruned, Actor, Effect, Approval, Exhibit])
def test_the_reference_has_each_field(kind: type[msgspec.Struct]) -> None:
    page = (Path(__file__).parents[2] / "docs/reference/audit-log.md").read_text()
    assert [name for name in kind.__struct_fields__ if f"`{name}`" not in page] == []
    assert kind.__struct_config__.tag is None or f"`{kind.__struct_config__.tag}`" in page
