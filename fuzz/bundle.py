"""A bundle either encodes to the very bytes that it was read from, or is Malformed; so is each entry, or a record."""

from msgspec import json

from holdfast.audit.faults import Malformed
from holdfast.audit.records import decode
from holdfast.audit.tiles import WIDTH, decode_bundle, encode_bundle


def invariant(data: bytes) -> None:
    """As the first line says."""
    try:
        entries = decode_bundle(data)
    except Malformed:
        return
    assert encode_bundle(entries) == data
    assert len(entries) <= WIDTH
    for entry in entries:
        try:
            decode(entry)
        except Malformed:
            continue
        assert json.encode(json.decode(entry)) == entry


if __name__ == "__main__":
    from harness import main

    main(invariant)
