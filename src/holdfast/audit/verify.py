"""Verification of a whole log from its files alone, with nothing trusted but the verifier keys.

The tree is built twice: from the entries, and from the hashes of the lowest tiles. The one whose root was signed is
what the log was, and what differs from it was changed. Where neither root was signed, both were changed, or the
checkpoint is of another log.

Only where the tree is right are the records judged: whether they are records, account for each event, and whether
their segments are what they commit to.
"""

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from holdfast.audit.checkpoint import SignedCheckpoint, open_checkpoint
from holdfast.audit.faults import Finding, Kind, LogDamaged, Malformed
from holdfast.audit.keys import VerifierKey
from holdfast.audit.merkle import EMPTY_ROOT, leaf_hash, root_of
from holdfast.audit.records import Lost, Pruned, Segment, Streams, decode, kind_of, segment_lines, segment_path
from holdfast.audit.tiles import CHECKPOINT, WIDTH, Edge, Read, Tile, Tiles, bundle_path, tile_path

MAX_FINDINGS = 100
"""Findings of one kind that are kept."""


@dataclass(slots=True)
class Verified:
    """What was found right.

    `records` counts them by kind. `lost` are events that a record says were dropped; `cut` streams ended with an
    unknown number of them. `pruned` are entries and segments that a record says were deleted.
    """

    signed: SignedCheckpoint
    records: Counter[str] = field(default_factory=Counter)
    events: int = 0
    lost: int = 0
    cut: int = 0
    pruned: int = 0


def verify_log(
    read: Read,
    keys: Sequence[VerifierKey],
    *,
    witnesses: Sequence[VerifierKey] = (),
    earlier: Sequence[SignedCheckpoint] = (),
) -> Verified:
    """Every entry, tile and segment of a log against its checkpoint, and the checkpoint against `earlier` ones.

    `earlier`: checkpoints that were kept elsewhere. Without them two attacks stay unseen: a person who can sign makes
    another log, and a person who can write the files puts an older state of this one back. Raises LogDamaged,
    Malformed and NotSigned.
    """
    raw = read(CHECKPOINT)
    if raw is None:
        raise LogDamaged(Finding(Kind.REMOVED, CHECKPOINT, "there is no checkpoint: nothing says what the log was"))
    signed = open_checkpoint(raw, keys, witnesses=witnesses)
    records = _Records(read, Verified(signed))
    tree = _Tree(Tiles(read, signed.checkpoint.size), earlier=[kept.checkpoint.size for kept in earlier])
    for first, entries in tree.bundles():
        records.take(first, entries)
    findings = [finding for finding in tree.findings(signed.checkpoint.root) if not records.explain(finding)]
    findings += [finding for kept in earlier for finding in _compare(kept, signed, tree)]
    findings = findings or records.findings()
    if findings:
        raise LogDamaged(*dict.fromkeys(findings))
    return records.verified


@dataclass(slots=True)
class _Build:
    """The tree as one of its two sources gives it, and the tiles that do not fit it."""

    edge: Edge = field(default_factory=Edge)
    roots: dict[int, bytes] = field(default_factory=lambda: {0: EMPTY_ROOT})
    misfits: list[Finding] = field(default_factory=list)


class _Tree:
    """One pass over bundles and tiles. `earlier`: sizes at which the root is wanted too."""

    def __init__(self, files: Tiles, *, earlier: Sequence[int]) -> None:
        self._files = files
        self._wanted = {*earlier, files.size}
        self._entries, self._tiles = _Build(), _Build()
        self._damage: list[Finding] = []
        self._differing: dict[int, bytes] = {}
        self.root_at: dict[int, bytes] = {}

    def bundles(self) -> Iterator[tuple[int, list[bytes] | None]]:
        """The index of the first entry of each bundle, and its entries where they can be read."""
        for index in range(-(-self._files.size // WIDTH)):
            hashes = self._tile(0, index)
            entries = self._bundle(index, hashes)
            leaves = hashes if entries is None else [leaf_hash(entry) for entry in entries]
            if leaves is None:
                self._damage.append(_unreadable(index))
                return
            self._extend(index * WIDTH, leaves, hashes or leaves)
            yield index * WIDTH, entries
        for pair in zip(self._entries.edge.partial_tiles(), self._tiles.edge.partial_tiles(), strict=True):
            self._judge(*pair)

    def findings(self, signed_root: bytes) -> list[Finding]:
        """What is wrong, given the root that was signed."""
        size = self._files.size
        if self._entries.edge.size != size:
            return self._damage  # it ended early
        if self._entries.roots[size] == signed_root:
            self.root_at = self._entries.roots
            changed = [_changed_hash(index) for index in self._differing]
            return self._damage + changed + self._entries.misfits
        if self._tiles.roots[size] == signed_root:
            self.root_at = self._tiles.roots
            return self._damage + self._changed_entries() + self._tiles.misfits
        text = "the root of the entries and tiles is not the one that was signed"
        rewritten = Finding(Kind.REWRITTEN, CHECKPOINT, text)
        return [*self._damage, *(_both(index) for index in self._differing), *self._entries.misfits, rewritten]

    def _extend(self, first: int, leaves: list[bytes], hashes: list[bytes]) -> None:
        for number, (leaf, stored) in enumerate(zip(leaves, hashes, strict=True), first):
            if leaf != stored and len(self._differing) < MAX_FINDINGS:
                self._differing[number] = leaf
            for build, value in ((self._entries, leaf), (self._tiles, stored)):
                build.edge.append_leaf(value)
                if build.edge.size in self._wanted:
                    build.roots[build.edge.size] = build.edge.root()
        for pair in zip(self._entries.edge.full_tiles(), self._tiles.edge.full_tiles(), strict=True):
            self._judge(*pair)

    def _judge(self, from_entries: Tile, from_tiles: Tile) -> None:
        """Compare a tile above the lowest level with what both sources make of it."""
        if from_entries.level == 0:
            return  # compared leaf by leaf
        stored = self._tile(from_entries.level, from_entries.index)
        for build, tile in ((self._entries, from_entries), (self._tiles, from_tiles)):
            if stored is not None and stored != tile.hashes and len(build.misfits) < MAX_FINDINGS:
                number = next(n for n, pair in enumerate(zip(stored, tile.hashes, strict=True)) if pair[0] != pair[1])
                text = f"hash {number} of {tile.path} is not the one of the tile below it"
                build.misfits.append(Finding(Kind.CHANGED, tile.path, text))

    def _tile(self, level: int, index: int) -> list[bytes] | None:
        try:
            return self._files.tile(level, index)
        except LogDamaged as error:
            self._damage += error.findings
            return None

    def _bundle(self, index: int, hashes: list[bytes] | None) -> list[bytes] | None:
        """The entries of a bundle that has as many as it must; else finds which are missing, by `hashes`."""
        width = self._files.width(0, index)
        try:
            path, entries = self._files.stored(index)
        except LogDamaged as error:
            self._damage += [_at(finding, index * WIDTH) for finding in error.findings]
            return None
        if len(entries) == width:
            return entries
        leaves = [leaf_hash(entry) for entry in entries]
        same = next((n for n, pair in enumerate(zip(leaves, hashes or (), strict=False)) if pair[0] != pair[1]), None)
        first, missing = index * WIDTH + (len(entries) if same is None else same), width - len(entries)
        text = f"{path} has {len(entries)} entries instead of {width}"
        if missing < 0:
            self._damage.append(Finding(Kind.CHANGED, path, f"{text}: entries were put in from {first} on", first))
        elif same is None:
            self._damage.append(Finding(Kind.TRUNCATED, path, f"{text}: it ends before entry {first}", first))
        else:
            self._damage.append(Finding(Kind.REMOVED, path, f"{text}: entry {first} is the first missing", first))
        return None

    def _changed_entries(self) -> list[Finding]:
        """The entries that are not those that were logged, and where those belong that were moved."""
        wanted = set(self._differing.values())
        places = {
            stored: number
            for index in range(-(-self._files.size // WIDTH) if wanted else 0)
            for number, stored in enumerate(self._tile(0, index) or (), index * WIDTH)
            if stored in wanted
        }
        return [_changed_entry(index, places.get(leaf)) for index, leaf in self._differing.items()]


class _Records:
    """What the entries say, and whether it can be so."""

    def __init__(self, read: Read, verified: Verified) -> None:
        self._read = read
        self._streams = Streams()
        self._entries_below = self._segments_below = 0
        # Pruning deletes from the front, so that those which nothing explains are at the end.
        self._absent_segments: deque[Finding] = deque(maxlen=MAX_FINDINGS)
        self._absent = 0
        self._wrong: list[Finding] = []
        self.verified = verified

    def take(self, first: int, entries: list[bytes] | None) -> None:
        """Judge the records of a bundle; None: it was not there."""
        if entries is None:
            self._streams.complete = False
        for index, entry in enumerate(entries or (), first):
            try:
                record = decode(entry)
            except Malformed as error:
                self._find(Kind.MALFORMED, index, error.message)
                continue
            self.verified.records[kind_of(record)] += 1
            match record:
                case Segment():
                    self._account(index, record)
                    self._look_into(index, record)
                case Lost():
                    self._account(index, record)
                case Pruned():
                    self._entries_below = max(self._entries_below, record.entries_below)
                    self._segments_below = max(self._segments_below, record.segments_below)

    def explain(self, finding: Finding) -> bool:
        """Whether a later record says that this was deleted on purpose."""
        explained = (
            finding.kind is Kind.REMOVED
            and finding.index is not None
            and finding.path == bundle_path(finding.index // WIDTH)
            and finding.index + WIDTH <= self._entries_below
            and self._read(finding.path) is None
        )
        self.verified.pruned += WIDTH if explained else 0
        return explained

    def findings(self) -> list[Finding]:
        """What is wrong with the records of a log whose tree is right."""
        kept = [absent for absent in self._absent_segments if (absent.index or 0) >= self._segments_below]
        self.verified.pruned += self._absent - len(kept)
        return (self._wrong + kept)[:MAX_FINDINGS]

    def _account(self, index: int, record: Segment | Lost) -> None:
        wrong = self._streams.take(record)
        if wrong is not None:
            self._find(Kind.GAP, index, wrong)
        elif isinstance(record, Segment):
            self.verified.events += record.count
            self.verified.lost += record.lost
        elif record.last is None:
            self.verified.cut += 1
        else:
            self.verified.lost += record.last - record.first + 1

    def _look_into(self, index: int, record: Segment) -> None:
        path = segment_path(record.sha256)
        raw = self._read(path)
        if raw is None:
            text = f"there is no file {path}, the segment of entry {index}"
            self._absent += 1
            self._absent_segments.append(Finding(Kind.REMOVED, path, text, index))
            return
        lines = segment_lines(raw)
        if sha256(raw).hexdigest() != record.sha256:
            self._wrong.append(
                Finding(Kind.CHANGED, path, f"{path} is not the segment that entry {index} names", index)
            )
        elif len(lines) != record.count or root_of(map(leaf_hash, lines)).hex() != record.root:
            self._find(Kind.MALFORMED, index, f"its count or root is not that of {path}")

    def _find(self, kind: Kind, index: int, text: str) -> None:
        if len(self._wrong) < MAX_FINDINGS:
            self._wrong.append(Finding(kind, bundle_path(index // WIDTH), f"entry {index}: {text}", index))


def _compare(kept: SignedCheckpoint, signed: SignedCheckpoint, tree: _Tree) -> Iterator[Finding]:
    """What is wrong with the log as a checkpoint that was kept elsewhere knows it."""
    old, new = kept.checkpoint, signed.checkpoint
    if old.origin != new.origin:
        yield Finding(
            Kind.ROLLED_BACK, CHECKPOINT, f"the kept checkpoint is of {old.origin!r}, this log is {new.origin!r}"
        )
    elif old.size > new.size:
        text = f"the checkpoint has {new.size} entries, but one of {old.size} was signed before: the log was put back"
        yield Finding(Kind.ROLLED_BACK, CHECKPOINT, text)
    elif tree.root_at and tree.root_at[old.size] != old.root:
        text = f"the log does not begin with the {old.size} entries that were signed before: it was replaced"
        yield Finding(Kind.ROLLED_BACK, CHECKPOINT, text)


def _at(finding: Finding, index: int) -> Finding:
    return Finding(finding.kind, finding.path, finding.text, index)


def _unreadable(index: int) -> Finding:
    path = bundle_path(index)
    return Finding(Kind.REMOVED, path, f"neither {path} nor its tile can be read: what follows was not looked at")


def _changed_hash(index: int) -> Finding:
    path = tile_path(0, index // WIDTH)
    return Finding(
        Kind.CHANGED, path, f"the hash of entry {index} in {path} was changed; the entry is as signed", index
    )


def _changed_entry(index: int, place: int | None) -> Finding:
    path = bundle_path(index // WIDTH)
    if place is None:
        return Finding(Kind.CHANGED, path, f"entry {index} in {path} is not the one that was signed", index)
    return Finding(
        Kind.REORDERED, path, f"entry {index} in {path} is the one that was signed as entry {place}", index
    )


def _both(index: int) -> Finding:
    path = bundle_path(index // WIDTH)
    return Finding(Kind.CHANGED, path, f"entry {index} in {path} and its hash in the tile differ", index)
