"""The Merkle tree of RFC 6962, section 2.1, over SHA-256: roots, proofs and their verification.

A *node* is the hash of a complete subtree: `node(height, index)` covers the leaves from `index << height` to
`(index + 1) << height`, the end not included. A tree of any size is a row of such subtrees, from the largest at the
left to the smallest at the right, one for each bit that is set in its size; hashed together from the right they give
the root. Proofs are lists of hashes in the order of RFC 6962: from the leaf to the root.
"""

from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from hmac import compare_digest
from typing import NamedTuple

from holdfast.audit.faults import NotProven

HASH_SIZE = 32
"""Bytes of every hash."""
EMPTY_ROOT = sha256().digest()
"""The root of a tree without leaves."""

Node = Callable[[int, int], bytes]
"""Height and index to the hash of a complete subtree."""


def leaf_hash(entry: bytes) -> bytes:
    """The hash of one entry as a leaf."""
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of two subtrees side by side."""
    return sha256(b"\x01" + left + right).digest()


def root_of(leaves: Iterable[bytes]) -> bytes:
    """The root over hashes of leaves."""
    row = list(leaves)
    while len(row) > 1:
        pairs = [node_hash(row[at], row[at + 1]) for at in range(0, len(row) - 1, 2)]
        row = pairs + row[2 * len(pairs) :]
    return row[0] if row else EMPTY_ROOT


def nodes_of(leaves: Sequence[bytes]) -> Node:
    """The nodes of a tree whose leaves are at hand."""
    return lambda height, index: root_of(leaves[index << height : (index + 1) << height])


def subtrees(start: int, end: int, node: Node) -> list[bytes]:
    """The complete subtrees of a range of leaves, the largest first; `start` is a multiple of that one's size."""
    hashes = []
    while start < end:
        height = (end - start).bit_length() - 1
        hashes.append(node(height, start >> height))
        start += 1 << height
    return hashes


def fold(hashes: Sequence[bytes]) -> bytes:
    """The root over complete subtrees, the largest first."""
    if not hashes:
        return EMPTY_ROOT
    *rest, root = hashes
    for node in reversed(rest):
        root = node_hash(node, root)
    return root


def inclusion_proof(index: int, size: int, node: Node) -> list[bytes]:
    """That leaf `index` is in the tree of `size` leaves. Raises ValueError where the tree has no such leaf."""
    if not 0 <= index < size:
        raise ValueError(f"a tree of {size} leaves has no leaf {index}")
    return _hashes(_walk(index, size, lambda start, end: end - start == 1)[0], node)


def verify_inclusion(*, leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """That `leaf` is the hash of leaf `index` in the tree of `size` leaves. Raises NotProven."""
    if not 0 <= index < size:
        raise NotProven(f"a log of {size} entries has no entry {index}")
    turns, _ = _walk(index, size, lambda start, end: end - start == 1)
    if len(proof) != len(turns):
        raise NotProven(f"the proof of entry {index} has {len(proof)} hashes instead of {len(turns)}")
    for turn, sibling in zip(turns, proof, strict=True):
        leaf = node_hash(sibling, leaf) if turn.to_right else node_hash(leaf, sibling)
    if not compare_digest(leaf, root):
        raise NotProven(f"the proof does not lead from entry {index} to the root that was signed")


def consistency_proof(old: int, new: int, node: Node) -> list[bytes]:
    """That the tree of `new` leaves begins with the tree of `old`. Raises ValueError for `old` above `new`."""
    if not 0 <= old <= new:
        raise ValueError(f"a tree of {new} leaves does not contain one of {old}")
    if old == 0:
        return []
    turns, start = _walk(old - 1, new, lambda _, end: end == old)
    # RFC 6962, section 2.1.2: the verifier knows the root of the old tree, but not the hashes of its parts.
    seed = [fold(subtrees(start, old, node))] if start else []
    return seed + _hashes(turns, node)


def verify_consistency(*, old: int, new: int, proof: Sequence[bytes], old_root: bytes, new_root: bytes) -> None:
    """That the tree of `new` leaves begins with the tree of `old`. Raises NotProven."""
    failed = NotProven(f"the proof does not show that the log of {new} entries begins with the one of {old}")
    if not 0 <= old <= new:
        raise failed
    if old == 0:
        if proof or not compare_digest(old_root, EMPTY_ROOT):
            raise failed
        return
    turns, start = _walk(old - 1, new, lambda _, end: end == old)
    hashes = [*([] if start else [old_root]), *proof]
    if len(hashes) != 1 + len(turns):
        raise failed
    in_old = in_new = hashes[0]
    for turn, sibling in zip(turns, hashes[1:], strict=True):
        if turn.to_right:
            in_old, in_new = node_hash(sibling, in_old), node_hash(sibling, in_new)
        else:
            in_new = node_hash(in_new, sibling)
    if not (compare_digest(in_old, old_root) and compare_digest(in_new, new_root)):
        raise failed


class _Turn(NamedTuple):
    """A step down to the left or right half of a subtree; the other half has the leaves from `start` to `end`."""

    to_right: bool
    start: int
    end: int


def _walk(leaf: int, size: int, done: Callable[[int, int], bool]) -> tuple[list[_Turn], int]:
    """The way from a leaf's subtree up to the root, and the first leaf of that subtree.

    RFC 6962 splits a tree at the largest power of two below its size; `done` says at which subtree the split ends.
    """
    start, end, turns = 0, size, []
    while not done(start, end):
        middle = start + (1 << (end - start - 1).bit_length() - 1)
        to_right = leaf >= middle
        turns.append(_Turn(to_right, *((start, middle) if to_right else (middle, end))))
        start, end = (middle, end) if to_right else (start, middle)
    return turns[::-1], start


def _hashes(turns: Iterable[_Turn], node: Node) -> list[bytes]:
    return [fold(subtrees(turn.start, turn.end, node)) for turn in turns]
