from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.audit.faults import NotProven
from holdfast.audit.merkle import (
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    nodes_of,
    root_of,
    verify_consistency,
    verify_inclusion,
)

SIZES = st.integers(1, 70)


def leaves(count: int) -> list[bytes]:
    return [leaf_hash(b"%d" % n) for n in range(count)]


def mth(entries: list[bytes]) -> bytes:
    """RFC 6962, section 2.1, as it is written there."""
    if not entries:
        return sha256().digest()
    if len(entries) == 1:
        return sha256(b"\x00" + entries[0]).digest()
    k = 1
    while k * 2 < len(entries):
        k *= 2
    return sha256(b"\x01" + mth(entries[:k]) + mth(entries[k:])).digest()


@pytest.mark.parametrize("size", [*range(20), 255, 256, 257])
def test_root_is_that_of_the_definition(size: int) -> None:
    assert root_of(leaves(size)) == mth([b"%d" % n for n in range(size)])


def test_roots_of_the_examples_of_certificate_transparency() -> None:
    """The leaves and roots that Certificate Transparency's implementations share as their test data."""
    data = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
    tree = [leaf_hash(bytes.fromhex(text)) for text in data]
    assert root_of(tree[:1]).hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert root_of(tree[:3]).hex() == "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"
    assert root_of(tree).hex() == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"


def test_a_leaf_is_never_a_node() -> None:
    left, right = leaves(2)
    assert leaf_hash(left + right) != node_hash(left, right)


@pytest.mark.parametrize("size", range(1, 36))
def test_each_leaf_of_each_tree_is_proven(size: int) -> None:
    tree = leaves(size)
    for index, leaf in enumerate(tree):
        proof = inclusion_proof(index, size, nodes_of(tree))
        verify_inclusion(leaf=leaf, index=index, size=size, proof=proof, root=root_of(tree))


@pytest.mark.parametrize("new", range(36))
def test_each_older_tree_is_proven(new: int) -> None:
    tree = leaves(new)
    for old in range(new + 1):
        proof = consistency_proof(old, new, nodes_of(tree))
        verify_consistency(old=old, new=new, proof=proof, old_root=root_of(tree[:old]), new_root=root_of(tree))


@settings(deadline=None)
@given(st.data())
def test_no_changed_inclusion_proof_holds(data: st.DataObject) -> None:
    """Another leaf, index, size, root, or a proof with a hash changed, removed, added or moved, is refused."""
    size = data.draw(st.integers(2, 70))
    index = data.draw(st.integers(0, size - 1))
    tree = leaves(size)
    proof = inclusion_proof(index, size, nodes_of(tree))
    right: dict[str, Any] = {"leaf": tree[index], "index": index, "size": size, "proof": proof, "root": root_of(tree)}
    wrong: dict[str, Any] = data.draw(
        st.sampled_from(
            [
                {"leaf": leaf_hash(b"x")},
                {"index": (index + 1) % size},
                {"index": size},
                {"root": leaf_hash(b"x")},
                {"proof": proof[:-1]},
                {"proof": [*proof, proof[0]]},
                {"proof": [leaf_hash(b"x"), *proof[1:]]},
                *([{"proof": proof[::-1]}] if len(proof) > 1 else []),
            ]
        )
    )
    with pytest.raises(NotProven):
        verify_inclusion(**(right | wrong))


@settings(deadline=None)
@given(st.data())
def test_no_changed_consistency_proof_holds(data: st.DataObject) -> None:
    new = data.draw(st.integers(2, 70))
    old = data.draw(st.integers(1, new - 1))
    tree = leaves(new)
    proof = consistency_proof(old, new, nodes_of(tree))
    right: dict[str, Any] = {
        "old": old,
        "new": new,
        "proof": proof,
        "old_root": root_of(tree[:old]),
        "new_root": root_of(tree),
    }
    wrong: dict[str, Any] = data.draw(
        st.sampled_from(
            [
                {"old_root": leaf_hash(b"x")},
                {"new_root": leaf_hash(b"x")},
                {"old": new + 1},
                {"old": 0},
                {"new": old},
                {"proof": proof[:-1]},
                {"proof": [*proof, proof[0]]},
                {"proof": [leaf_hash(b"x"), *proof[1:]]},
            ]
        )
    )
    with pytest.raises(NotProven):
        verify_consistency(**(right | wrong))


def test_nothing_is_proven_of_a_leaf_or_tree_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="no leaf 3"):
        inclusion_proof(3, 3, nodes_of(leaves(3)))
    with pytest.raises(ValueError, match="does not contain one of 4"):
        consistency_proof(4, 3, nodes_of(leaves(3)))


def test_a_huge_size_costs_no_more_than_its_proof() -> None:
    """A size is what the other side claims."""
    with pytest.raises(NotProven):
        verify_inclusion(leaf=leaf_hash(b""), index=0, size=10**18, proof=[leaf_hash(b"")] * 60, root=leaf_hash(b"x"))
