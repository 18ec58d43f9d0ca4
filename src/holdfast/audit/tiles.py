"""A log as files (C2SP tlog-tiles): tiles of 256 hashes, bundles of 256 entries, and one checkpoint.

`Read` gives the content of a file by its path in the log, None where there is no such file. Only the files at the
right edge of the tree are partial; once written, no file but `checkpoint` changes.
"""

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

from holdfast.audit.faults import Finding, Kind, LogDamaged, Malformed
from holdfast.audit.merkle import HASH_SIZE, fold, leaf_hash, nodes_of, root_of, subtrees

Read = Callable[[str], bytes | None]

CHECKPOINT = "checkpoint"
WIDTH = 256
"""Hashes of a full tile, entries of a full bundle."""
_HEIGHT = 8
MAX_ENTRY = 65535
"""Bytes of an entry: a bundle holds each behind a 16-bit length."""
_ENTRIES = "entries"
_LENGTH = struct.Struct(">H")


def tile_path(level: int, index: int, width: int = WIDTH) -> str:
    """Where the tile with `width` hashes lies."""
    return _path(str(level), index, width)


def bundle_path(index: int, width: int = WIDTH) -> str:
    """Where the bundle with `width` entries lies."""
    return _path(_ENTRIES, index, width)


def partial_directory(full_path: str) -> str:
    """The directory of the partial versions of a tile or bundle, which a log may delete once it is full."""
    return f"{full_path}.p"


def is_full(path: str) -> bool:
    """Whether this is the path of a full tile or bundle."""
    return path.startswith("tile/") and ".p/" not in path


def encode_bundle(entries: Iterable[bytes]) -> bytes:
    """Entries one after the other. Raises ValueError for one of more than MAX_ENTRY bytes."""
    parts = []
    for entry in entries:
        if len(entry) > MAX_ENTRY:
            raise ValueError(f"an entry of {len(entry)} bytes does not fit into a log: at most {MAX_ENTRY}")
        parts += [_LENGTH.pack(len(entry)), entry]
    return b"".join(parts)


def decode_bundle(raw: bytes) -> list[bytes]:
    """The entries of a bundle. Raises Malformed where it ends inside an entry, or holds more than WIDTH."""
    entries: list[bytes] = []
    position = 0
    while position < len(raw):
        start = position + _LENGTH.size
        if start > len(raw):
            raise Malformed(f"the bundle ends inside the length of its entry {len(entries)}")
        position = start + _LENGTH.unpack_from(raw, start - _LENGTH.size)[0]
        if position > len(raw):
            raise Malformed(f"the bundle ends inside its entry {len(entries)}")
        entries.append(raw[start:position])
    if len(entries) > WIDTH:
        raise Malformed(f"the bundle holds {len(entries)} entries, more than {WIDTH}")
    return entries


@dataclass(frozen=True, slots=True)
class Tile:
    """One tile with its hashes: full, or partial at the right edge."""

    level: int
    index: int
    hashes: list[bytes]

    @property
    def path(self) -> str:
        """Where it lies."""
        return tile_path(self.level, self.index, len(self.hashes))

    @property
    def content(self) -> bytes:
        """Its file."""
        return b"".join(self.hashes)


class Tiles:
    """The files of a log as they stand for a tree of `size` leaves. Its methods raise LogDamaged."""

    def __init__(self, read: Read, size: int) -> None:
        self._read = read
        self.size = size
        self._tile = lru_cache(maxsize=WIDTH)(self.tile)

    def width(self, level: int, index: int) -> int:
        """How many hashes this tile has at this size; a bundle is as wide as the tile of level 0 over it."""
        return min(WIDTH, (self.size >> _HEIGHT * level) - WIDTH * index)

    def tile(self, level: int, index: int) -> list[bytes]:
        """The hashes of a tile, taken from the full one where its partial version has gone."""
        width = self.width(level, index)
        path, raw = self._file(tile_path, level, index, width=width)
        expected = HASH_SIZE * width
        if len(raw) < expected:
            raise LogDamaged(Finding(Kind.TRUNCATED, path, f"{path} has {len(raw)} of {expected} bytes"))
        if len(raw) > expected and path == tile_path(level, index, width):
            raise LogDamaged(Finding(Kind.CHANGED, path, f"{path} has {len(raw)} bytes instead of {expected}"))
        return [raw[at : at + HASH_SIZE] for at in range(0, expected, HASH_SIZE)]

    def stored(self, index: int) -> tuple[str, list[bytes]]:
        """The entries of a bundle, as many as its file holds, and the file's path."""
        width = self.width(0, index)
        path, raw = self._file(bundle_path, index, width=width)
        try:
            entries = decode_bundle(raw)
        except Malformed as error:
            raise LogDamaged(Finding(Kind.TRUNCATED, path, f"{path}: {error.message}")) from None
        return path, entries if path == bundle_path(index, width) else entries[:width]

    def bundle(self, index: int) -> list[bytes]:
        """The entries of a bundle, taken from the full one where its partial version has gone."""
        width, (path, entries) = self.width(0, index), self.stored(index)
        if len(entries) != width:
            kind = Kind.TRUNCATED if len(entries) < width else Kind.CHANGED
            raise LogDamaged(Finding(kind, path, f"{path} has {len(entries)} entries instead of {width}"))
        return entries

    def entry(self, index: int) -> bytes:
        """One entry of the log. Raises ValueError where the tree has no such leaf."""
        if not 0 <= index < self.size:
            raise ValueError(f"the log has {self.size} entries, from 0, and no entry {index}")
        return self.bundle(index // WIDTH)[index % WIDTH]

    def node(self, height: int, index: int) -> bytes:
        """The hash of a complete subtree, for the proofs of `merkle`."""
        level, inside = divmod(height, _HEIGHT)
        first = index << inside
        return root_of(self._tile(level, first // WIDTH)[first % WIDTH :][: 1 << inside])

    def _file(self, path_of: Callable[..., str], *address: int, width: int) -> tuple[str, bytes]:
        for path in (path_of(*address, width), path_of(*address)):
            raw = self._read(path)
            if raw is not None:
                return path, raw
        path = path_of(*address, width)
        raise LogDamaged(Finding(Kind.REMOVED, path, f"there is no file {path}"))


class Edge:
    """The right edge of a growing log: takes entries and says which files they make.

    Write what `append` returns before an entry counts as logged, and the `tiles` before the root is signed.
    """

    def __init__(self) -> None:
        """Of a log without entries."""
        self.size = 0
        self._hashes: list[list[bytes]] = []
        self._entries: list[bytes] = []
        self._full: list[Tile] = []

    @classmethod
    def load(cls, files: Tiles) -> Self:
        """Of a log that exists. Raises LogDamaged where a file of the edge is missing or has not the right size.

        Compare `root` with the checkpoint's before anything is appended.
        """
        edge = cls()
        edge.size = files.size
        level = 0
        while count := files.size >> _HEIGHT * level:
            edge._hashes.append(files.tile(level, count // WIDTH) if count % WIDTH else [])
            level += 1
        edge._entries = files.bundle(files.size // WIDTH) if files.size % WIDTH else []
        return edge

    def root(self) -> bytes:
        """The root at this size."""
        rows = [subtrees(0, len(hashes), nodes_of(hashes)) for hashes in reversed(self._hashes)]
        return fold([node for row in rows for node in row])

    def append(self, entries: Iterable[bytes]) -> dict[str, bytes]:
        """Take entries; returns the bundles that hold them, by path. Raises ValueError for an entry too long."""
        added = list(entries)
        encode_bundle(added)  # before anything is taken
        bundles = {}
        for entry in added:
            self._entries.append(entry)
            self.append_leaf(leaf_hash(entry))
            if len(self._entries) == WIDTH:
                bundles[bundle_path(self.size // WIDTH - 1)] = encode_bundle(self._entries)
                self._entries = []
        if added and self._entries:
            bundles[bundle_path(self.size // WIDTH, len(self._entries))] = encode_bundle(self._entries)
        return bundles

    def append_leaf(self, leaf: bytes) -> None:
        """Take the hash of an entry alone, where no bundles are wanted."""
        self.size += 1
        level = 0
        while True:
            if level == len(self._hashes):
                self._hashes.append([])
            hashes = self._hashes[level]
            hashes.append(leaf)
            if len(hashes) < WIDTH:
                return
            self._hashes[level] = []
            level += 1
            self._full.append(Tile(level - 1, (self.size >> _HEIGHT * level) - 1, hashes))
            leaf = root_of(hashes)

    def full_tiles(self) -> list[Tile]:
        """The tiles that became full since the last call."""
        full, self._full = self._full, []
        return full

    def partial_tiles(self) -> list[Tile]:
        """The partial tiles of this size."""
        numbered = enumerate(self._hashes)
        return [Tile(n, (self.size >> _HEIGHT * n) // WIDTH, list(hashes)) for n, hashes in numbered if hashes]


def _path(kind: str, index: int, width: int) -> str:
    groups = f"{index:03}"
    groups = groups.zfill(-(-len(groups) // 3) * 3)
    *upper, last = (groups[at : at + 3] for at in range(0, len(groups), 3))
    full = "/".join(["tile", kind, *(f"x{group}" for group in upper), last])
    return full if width == WIDTH else f"{partial_directory(full)}/{width}"
