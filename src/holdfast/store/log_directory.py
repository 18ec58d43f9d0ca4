"""A log of records in a directory, laid out as C2SP tlog-tiles: any web server or file copy publishes it.

What is on disk at each moment, and so what a crash leaves:

1. `append` writes the bundles and returns when they are durable. They are not signed yet.
2. `checkpoint` writes the tiles of that size, durably; then it asks for the signature; then it renames the new
   checkpoint over the old one.

So whatever a checkpoint signs is on disk before it exists, and entries that no checkpoint signs yet are found behind
the last one and kept in their order. An append that a crash cut short can have logged some of its entries: the caller
looks at `entries` before it appends the same again.

One process writes a log. After a failed write the object refuses to go on: what is on disk is known again when the
log is opened again.
"""

import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Self

from holdfast import durable
from holdfast.audit.checkpoint import Checkpoint, SignedCheckpoint, open_checkpoint, sign_checkpoint
from holdfast.audit.faults import AuditFault, Finding, Kind, LogDamaged, Malformed
from holdfast.audit.keys import Sign, VerifierKey
from holdfast.audit.merkle import fold, subtrees
from holdfast.audit.note import Note
from holdfast.audit.records import segment_file, segment_path
from holdfast.audit.tiles import (
    CHECKPOINT,
    WIDTH,
    Edge,
    Read,
    Tiles,
    bundle_path,
    decode_bundle,
    is_full,
    partial_directory,
)
from holdfast.durable import sync_directory
from holdfast.reading import read_file

_DIRECTORY_MODE = 0o750
_FILE_MODE = 0o640
_LOCK = ".lock"


class LogUnusable(AuditFault):
    """The log cannot be written: another process has it open, or a write failed and it must be opened again."""


def directory_reader(directory: Path) -> Read:
    """Reads the files of the log in a directory; raises OSError for one that is there and cannot be read."""

    def read(path: str) -> bytes | None:
        try:
            return read_file(directory / path)
        except (FileNotFoundError, NotADirectoryError):
            return None

    return read


class LogDirectory:
    """A log that this process writes, from one thread at a time.

    `signed` is its last checkpoint.
    """

    def __init__(
        self,
        directory: Path,
        signers: Sequence[tuple[VerifierKey, Sign]],
        *,
        former_keys: Sequence[VerifierKey] = (),
        kept: SignedCheckpoint | None = None,
    ) -> None:
        """Open the log, or begin it by signing its empty tree. Its name is that of the first key.

        `former_keys` may have signed the last checkpoint. `kept` is the newest checkpoint known from elsewhere, such
        as the database or a witness: without it, an older copy of the directory that was put back is not noticed.
        Raises LogUnusable where another process has the log open; LogDamaged, Malformed or NotSigned where the
        directory does not hold what was signed; OSError; and what the signers raise.
        """
        self._directory = directory
        self._signers = tuple(signers)
        self._keys = (*(key for key, _ in signers), *former_keys)
        self._read = directory_reader(directory)
        self._superseded: list[str] = []
        durable.make_directory(directory, mode=_DIRECTORY_MODE)
        self._lock = _locked(directory / _LOCK)
        self._usable = True
        try:
            self._edge = Edge()
            self.signed = self._last_signed()
            self._recover(kept)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let another process open the log."""
        os.close(self._lock)
        self._usable = False

    @property
    def size(self) -> int:
        """Entries on disk, signed or not."""
        return self._edge.size

    def entries(self, start: int = 0) -> Iterator[bytes]:
        """The entries on disk from index `start` on, signed or not. Raises LogDamaged."""
        files = Tiles(self._read, self.size)
        for index in range(start // WIDTH, -(-self.size // WIDTH)):
            yield from files.bundle(index)[max(0, start - index * WIDTH) :]

    def backwards(self, end: int | None = None) -> Iterator[bytes]:
        """The entries on disk below index `end` (None: all), signed or not, the newest first. Raises LogDamaged."""
        end = self.size if end is None else end
        while end:
            begin = (end - 1) // WIDTH * WIDTH
            yield from reversed(list(islice(self.entries(begin), end - begin)))
            end = begin

    def append(self, entries: Iterable[bytes]) -> int:
        """Log entries durably; returns the index of the first. Raises ValueError, LogUnusable and OSError."""
        self._check_usable()
        first = self.size
        bundles = self._edge.append(entries)  # raises ValueError before it takes anything
        with self._writing():
            for path, bundle in bundles.items():
                self._write({path: bundle})  # one by one: a bundle is only on disk where the one before it is
        return first

    def checkpoint(self) -> SignedCheckpoint:
        """Sign what is on disk, unless these keys signed it already.

        Raises LogUnusable, OSError, NotSigned for a signature that is wrong, and what the signers raise. After the
        last two nothing has changed, and it can be tried again.
        """
        signers = {key for key, _ in self._signers}
        if self.signed.checkpoint.size < self.size or not signers <= set(self.signed.signed_by):
            with self._writing():
                tiles = (*self._edge.full_tiles(), *self._edge.partial_tiles())
                self._write({tile.path: tile.content for tile in tiles})
            self.signed = self._sign()
            self._delete_superseded()
        return self.signed

    def store_segment(self, digest: str, lines: Iterable[bytes]) -> None:
        """Write a segment durably, before its record is appended. Raises OSError."""
        self._write({segment_path(digest): segment_file(lines)})

    def add_cosignatures(self, note: Note) -> None:
        """Put the note of the last checkpoint in its place, with further signatures. Raises LogUnusable, OSError."""
        if note.text != self.signed.note.text:
            raise ValueError("the note is of another checkpoint")
        with self._writing():
            self._write({CHECKPOINT: note.encode()})
        self.signed = replace(self.signed, note=note)

    @property
    def read(self) -> Read:
        """Reads the log's files."""
        return self._read

    def has_segment(self, digest: str) -> bool:
        """Whether the file of a segment is there."""
        return (self._directory / segment_path(digest)).exists()

    def delete_segment(self, digest: str) -> None:
        """Delete a segment's file, after a record says so. Raises OSError."""
        (self._directory / segment_path(digest)).unlink(missing_ok=True)

    def _last_signed(self) -> SignedCheckpoint:
        raw = self._read(CHECKPOINT)
        if raw is not None:
            return open_checkpoint(raw, self._keys)
        if (self._directory / "tile").exists():
            raise LogDamaged(Finding(Kind.REMOVED, CHECKPOINT, f"{self._directory} has entries and no checkpoint"))
        return self._sign()

    def _sign(self) -> SignedCheckpoint:
        checkpoint = Checkpoint(self._keys[0].name, self.size, self._edge.root())
        raw = sign_checkpoint(checkpoint, *self._signers).encode()
        # A wrong signature must not replace a right one.
        signed = open_checkpoint(raw, [key for key, _ in self._signers])
        with self._writing():
            self._write({CHECKPOINT: raw})
        return signed

    def _recover(self, kept: SignedCheckpoint | None) -> None:
        """Take up the signed tree, and the entries behind it."""
        signed = self.signed.checkpoint
        files = Tiles(self._read, signed.size)
        self._edge = Edge.load(files)
        if self._edge.root() != signed.root:
            text = "the tiles at the end of the log do not give the root that was signed"
            raise LogDamaged(Finding(Kind.REWRITTEN, CHECKPOINT, text))
        wanted = signed if kept is None else kept.checkpoint
        root = fold(subtrees(0, wanted.size, files.node)) if wanted.size <= signed.size else None
        for entries in self._unsigned(files):
            cut = max(0, wanted.size - self.size)
            self._edge.append(entries[:cut])
            root = self._edge.root() if cut and self.size == wanted.size else root
            self._edge.append(entries[cut:])
        if (wanted.origin, wanted.root) != (signed.origin, root):
            text = f"the log does not begin with the {wanted.size} entries of a checkpoint that it signed before"
            raise LogDamaged(Finding(Kind.ROLLED_BACK, CHECKPOINT, text))

    def _unsigned(self, signed: Tiles) -> Iterator[list[bytes]]:
        """The entries behind the signed ones, bundle by bundle."""
        index, known = divmod(signed.size, WIDTH)
        before = signed.bundle(index) if known else []
        while True:
            path, entries = self._widest_bundle(index)
            if entries[: len(before)] != before:
                raise LogDamaged(
                    Finding(Kind.CHANGED, path, f"{path} does not begin with the entries that were signed")
                )
            if entries[len(before) :]:
                yield entries[len(before) :]
            if len(entries) < WIDTH:
                return
            index, before = index + 1, []

    def _widest_bundle(self, index: int) -> tuple[str, list[bytes]]:
        """The bundle with the most entries, and its path."""
        path = bundle_path(index)
        if not (self._directory / path).exists():
            partial = self._directory / partial_directory(path)
            widths = (
                [int(file.name) for file in partial.iterdir() if file.name.isdecimal()] if partial.exists() else []
            )
            if not widths:
                return path, []
            path = bundle_path(index, max(widths))
        try:
            return path, decode_bundle((self._directory / path).read_bytes())
        except Malformed as error:
            raise LogDamaged(Finding(Kind.TRUNCATED, path, f"{path}: {error.message}")) from None

    def _check_usable(self) -> None:
        if not self._usable:
            raise LogUnusable(f"the log in {self._directory} must be opened again: a write failed, or it was closed")

    @contextmanager
    def _writing(self) -> Iterator[None]:
        self._check_usable()
        self._usable = False
        yield
        self._usable = True

    def _write(self, files: Mapping[str, bytes]) -> None:
        """Write files so that a power loss leaves each whole or absent; all are durable at the end."""
        paths = {self._directory / path: content for path, content in files.items()}
        for directory in dict.fromkeys(path.parent for path in paths):
            durable.make_directory(directory, mode=_DIRECTORY_MODE)
        for path, content in paths.items():
            durable.replace(path, content, mode=_FILE_MODE)
        for directory in dict.fromkeys(path.parent for path in paths):
            sync_directory(directory)
        self._superseded += [partial_directory(path) for path in files if is_full(path)]

    def _delete_superseded(self) -> None:
        """Delete the partial versions of what is full now: those who read an older checkpoint take the full one."""
        for directory in self._superseded:
            shutil.rmtree(self._directory / directory, ignore_errors=True)
        self._superseded = []


def _locked(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise LogUnusable(f"the log in {path.parent} is open in another process") from None
    return descriptor
