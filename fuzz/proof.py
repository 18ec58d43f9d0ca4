"""A proof either encodes to the very bytes that it was read from, or is Malformed; no proof holds without a key."""

from holdfast.audit.faults import Malformed, NotProven, NotSigned
from holdfast.audit.proof import Proof
from holdfast.audit.records import Exhibit


def invariant(data: bytes) -> None:
    """As the first line says."""
    try:
        proof = Proof.parse(data)
    except Malformed:
        return
    assert proof.encode() == data
    try:
        proof.check(b"entry", [])
    except (Malformed, NotSigned):
        pass
    else:
        raise AssertionError("proven without a key")
    try:
        exhibit = Exhibit.parse(proof.extra)
        exhibit.record()
    except (Malformed, NotProven):
        return
    assert Exhibit.parse(exhibit.encode()) == exhibit


if __name__ == "__main__":
    from harness import main

    main(invariant)
