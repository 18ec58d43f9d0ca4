"""What a log holds: one JSON object per leaf.

A *change* is one leaf of the log of control, at once. Events of requests are too many for that: they are lines of a
*segment*, a file of JSON lines, and a leaf of the node's log commits to the segment. Its lines are also the leaves of
a Merkle tree of their own, so that one event can be shown without the others.

Each line of a node's events belongs to a *stream*, one run of one worker, and is numbered there from 1 without gaps.
Segments and losses of a stream follow each other without gaps too: `Streams` checks it.

A record is read back by kind. Later versions may add fields and kinds: a reader passes over those that it does not
know. What never varies is the form: compact JSON without repeated keys, so that all readers see the same values.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Annotated, Any

import msgspec

from holdfast.audit.faults import Malformed
from holdfast.audit.merkle import inclusion_proof, leaf_hash, nodes_of, root_of, verify_inclusion

MAX_RECORD = 32_768
"""Bytes of a record: half of what a bundle can hold, so that a proof that quotes it has no line above 65,536 bytes,
where the readers of others stop."""


Digest = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
"""A SHA-256 in hexadecimal."""
Time = Annotated[datetime, msgspec.Meta(tz=True)]
"""A time with a time zone."""


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind"):
    """The base of all kinds. `time` is that of the machine that wrote the record."""

    time: Time


class Actor(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who asked for a change. `known_by` says how that is known, such as `os-user` (asserted) or `ssh-signature`."""

    name: str
    known_by: str
    where: str = ""


class Effect(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One value that a change altered; `before` and `after` are JSON values, None for what did or does not exist."""

    subject: str
    before: Any = None
    after: Any = None


class Approval(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The decision of an approver on a plan's digest, with what proves it: the SSH signature and its public key."""

    name: str
    time: Time
    signature: str = ""
    public_key: str = ""


class Change(Record, frozen=True, kw_only=True, omit_defaults=True, tag="change"):
    """What became of one change.

    `id` is unique over all changes. `outcome` is `applied`, or what happened to it instead, such as `refused` or
    `withdrawn`. `plan` is the SHA-256 of the plan in hexadecimal: approvals sign it. `catalog_version` and
    `catalog_digest` are the catalog's after the change. Where `effects` would make the record too long they are left
    out, and `effects_left_out` is their number: the plan has them, and its digest is here.
    """

    id: str
    action: str
    subject: str
    actor: Actor
    outcome: str = "applied"
    plan: str = ""
    effects: tuple[Effect, ...] = ()
    effects_left_out: int = 0
    reason: str = ""
    ticket: str = ""
    approvals: tuple[Approval, ...] = ()
    catalog_version: int | None = None
    catalog_digest: str = ""


class Segment(Record, frozen=True, kw_only=True, omit_defaults=True, tag="segment"):
    """Events `first` to `last` of a stream, without the `lost` ones, which were dropped.

    `count` lines are in the file `segment_path(sha256)`. `sha256` is of the file, `root` the root of the Merkle tree
    over its lines without their newlines.
    """

    stream: str
    first: int
    last: int
    count: int
    lost: int = 0
    sha256: Digest
    root: Digest

    @classmethod
    def of(cls, lines: Sequence[bytes], *, stream: str, first: int, last: int, time: datetime) -> "Segment":
        """The record of a segment of these lines, of which the numbers `first` to `last` may lack some."""
        return cls(
            time=time,
            stream=stream,
            first=first,
            last=last,
            count=len(lines),
            lost=last - first + 1 - len(lines),
            sha256=sha256(segment_file(lines)).hexdigest(),
            root=root_of(map(leaf_hash, lines)).hex(),
        )


class Lost(Record, frozen=True, kw_only=True, omit_defaults=True, tag="lost"):
    """Events `first` to `last` of a stream that were never written to a segment, and why.

    `last` is None where their number is unknown, as after a worker was killed. Such a record ends the stream.
    """

    stream: str
    first: int
    last: int | None = None
    reason: str


class Pruned(Record, frozen=True, kw_only=True, omit_defaults=True, tag="pruned"):
    """Entries below `entries_below`, and segments of entries below `segments_below`, were deleted. Tiles stay."""

    actor: Actor
    entries_below: int = 0
    segments_below: int = 0
    reason: str = ""


class Unknown(msgspec.Struct, frozen=True, kw_only=True):
    """A record of a kind that this version does not know."""

    kind: str
    time: Time


AnyRecord = Change | Segment | Lost | Pruned | Unknown
_DECODER: msgspec.json.Decoder[Change | Segment | Lost | Pruned] = msgspec.json.Decoder(
    Change | Segment | Lost | Pruned
)
_UNKNOWN = msgspec.json.Decoder(Unknown)
_KINDS = {kind.__struct_config__.tag for kind in (Change, Segment, Lost, Pruned)}


def encode(record: Record) -> bytes:
    """The leaf of a record. Raises ValueError for one that is longer than MAX_RECORD even without its effects."""
    raw = msgspec.json.encode(record)
    if len(raw) > MAX_RECORD and isinstance(record, Change) and record.effects:
        left_out = record.effects_left_out + len(record.effects)
        raw = msgspec.json.encode(msgspec.structs.replace(record, effects=(), effects_left_out=left_out))
    if len(raw) > MAX_RECORD:
        raise ValueError(f"an audit record of {len(raw)} bytes is too long: at most {MAX_RECORD}")
    return raw


def decode(entry: bytes) -> AnyRecord:
    """The record of a leaf. Raises Malformed."""
    try:
        if msgspec.json.encode(msgspec.json.decode(entry)) != entry:
            raise Malformed("the record is not compact JSON, or repeats a key")
        unknown = _UNKNOWN.decode(entry)
        return unknown if unknown.kind not in _KINDS else _DECODER.decode(entry)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"the record is not one of Holdfast: {error}") from None


def kind_of(record: AnyRecord) -> str:
    """The name of a record's kind."""
    return record.kind if isinstance(record, Unknown) else str(record.__struct_config__.tag)


def segment_path(digest: str) -> str:
    """Where the segment with this SHA-256 lies in the log."""
    return f"segments/{digest[:2]}/{digest}.jsonl"


def segment_file(lines: Iterable[bytes]) -> bytes:
    """The file of a segment: each line with its newline."""
    return b"".join(line + b"\n" for line in lines)


def segment_lines(raw: bytes) -> list[bytes]:
    """The lines of a segment's file."""
    return raw.removesuffix(b"\n").split(b"\n") if raw else []


class Streams:
    """What the records of a log account for: which number of each stream is next."""

    def __init__(self) -> None:
        """`complete`: no entry is missing, so that each stream must begin with 1."""
        self._next: dict[str, int | None] = {}
        self.complete = True

    def take(self, record: Segment | Lost) -> str | None:
        """What is wrong with the numbers of this record, in words; None if nothing is."""
        start = 1 if self.complete else record.first
        expected = self._next.get(record.stream, start)
        self._next[record.stream] = None if record.last is None else record.last + 1
        if expected is None:
            return f"stream {record.stream!r} goes on after the record that ended it"
        if record.last is not None and record.last < record.first - 1:
            return f"it ends with event {record.last}, before its first event {record.first}"
        if isinstance(record, Segment) and record.count + record.lost != record.last - record.first + 1:
            return f"it counts {record.count} events and {record.lost} lost ones from {record.first} to {record.last}"
        if record.first > expected:
            return f"no record accounts for the events {expected} to {record.first - 1} of stream {record.stream!r}"
        if record.first < expected:
            return f"the events of stream {record.stream!r} from {record.first} have a record already"
        return None


class Exhibit(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The `extra` of our proofs: the entry that is proven, and, for one event of a segment, that event.

    `event` is line `event_index` of the segment, and `event_proof` leads from it to the segment's root, in
    hexadecimal.
    """

    entry: str
    event: str | None = None
    event_index: int = 0
    event_proof: tuple[Digest, ...] = ()

    @classmethod
    def of_event(cls, entry: bytes, lines: Sequence[bytes], index: int) -> "Exhibit":
        """Line `index` of a segment, whose record is `entry`."""
        leaves = [leaf_hash(line) for line in lines]
        proof = inclusion_proof(index, len(leaves), nodes_of(leaves))
        return cls(
            entry=entry.decode(),
            event=lines[index].decode(),
            event_index=index,
            event_proof=tuple(value.hex() for value in proof),
        )

    def encode(self) -> bytes:
        """As it stands in a proof."""
        return msgspec.json.encode(self)

    @classmethod
    def parse(cls, raw: bytes) -> "Exhibit":
        """Raises Malformed."""
        try:
            return msgspec.json.decode(raw, type=cls)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise Malformed(f"the proof does not quote its entry as Holdfast does: {error}") from None

    def record(self) -> AnyRecord:
        """The record of the entry, after the event was found to be in its segment. Raises Malformed, NotProven."""
        record = decode(self.entry.encode())
        if self.event is not None:
            if not isinstance(record, Segment):
                raise Malformed("the proof is of an event, and its entry is not the record of a segment")
            leaf, proof = leaf_hash(self.event.encode()), [bytes.fromhex(value) for value in self.event_proof]
            root = bytes.fromhex(record.root)
            verify_inclusion(leaf=leaf, index=self.event_index, size=record.count, proof=proof, root=root)
        return record
