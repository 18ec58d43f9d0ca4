"""Decrypt: the round trip, and everything that must make it fail."""

from collections.abc import Iterable
from typing import Any

from holdfast.witness.check.finding import Check, Level, NotJudged, Refuted, Source, check
from holdfast.witness.check.session import (
    Sealed,
    Session,
    accepted,
    decrypt_body,
    flipped,
    fresh_plaintext,
    named,
    refused,
)
from holdfast.xks.encoding import encode_base64
from holdfast.xks.errors import ErrorName
from holdfast.xks.types import Operation

_SECTION = "Decrypt"
_CORRUPTED = Source(
    "Error codes",
    "The request was rejected because the<br>specified ciphertext, initialization vector,<br>additional "
    "authenticated data or<br>authentication tag is corrupted, missing,<br>or otherwise invalid.",
)
_BASE64 = Source(_SECTION, "When present, this field MUST be specified as a Base64 encoded string")
_ROUND_TRIP = "DEC-01"
_REFUSALS = (ErrorName.INVALID_CIPHERTEXT, ErrorName.VALIDATION)


@check(
    "DEC-01",
    "What was encrypted decrypts again",
    level=Level.MUST,
    source=Source(_SECTION, "The size of the plaintext MUST be the same as the size of the ciphertext."),
    needs=("ENC-03", "ENC-04", "ENC-05", "ENC-06"),
)
def round_trip(session: Session) -> str:
    """Encrypts and decrypts 1 and 32 bytes, with and without AAD."""
    for length, aad in ((32, None), (1, None), (32, fresh_plaintext(33)), (1, fresh_plaintext(1))):
        _same_plaintext(session, session.seal(fresh_plaintext(length), aad))
    return "four round trips, with and without AAD"


@check(
    "DEC-02",
    "4,300 bytes with 8,192 bytes of AAD decrypt again",
    level=Level.MUST,
    source=Source(_SECTION, "At a minimum, the proxy MUST support the ability to process 4300 bytes of ciphertext."),
    needs=(_ROUND_TRIP, "ENC-10"),
)
def longest(session: Session) -> str:
    """Encrypts and decrypts at the spec's full sizes."""
    _same_plaintext(session, session.seal(fresh_plaintext(4300), fresh_plaintext(8192)))
    return "the same 4,300 bytes"


@check(
    "DEC-03",
    "Another AAD is refused",
    level=Level.MUST,
    source=Source(
        _SECTION, "the same AAD that was used to create the ciphertext must be supplied to the decrypt operation"
    ),
    needs=(_ROUND_TRIP,),
)
def other_aad(session: Session) -> str:
    """Changes the AAD, leaves it out, and adds one where there was none. It carries KMS's encryption context."""
    aad = fresh_plaintext(40)
    what, bare = session.seal(fresh_plaintext(), aad), session.seal(fresh_plaintext())
    cases = (
        (what, "AAD changed", {"additionalAuthenticatedData": flipped(aad)}),
        (what, "AAD changed in its last byte", {"additionalAuthenticatedData": flipped(aad, 39)}),
        (what, "AAD left out", {"additionalAuthenticatedData": None}),
        (bare, "AAD added", {"additionalAuthenticatedData": aad}),
    )
    return _all_refused(session, cases, ErrorName.INVALID_CIPHERTEXT)


@check("DEC-04", "A changed ciphertext is refused", level=Level.MUST, source=_CORRUPTED, needs=(_ROUND_TRIP,))
def changed_ciphertext(session: Session) -> str:
    """Changes one bit, cuts a byte off, adds a byte."""
    what = session.seal(fresh_plaintext(), fresh_plaintext())
    cases = (
        (what, "ciphertext changed", {"ciphertext": flipped(what.ciphertext)}),
        (what, "ciphertext shortened", {"ciphertext": what.ciphertext[:-1]}),
        (what, "ciphertext lengthened", {"ciphertext": what.ciphertext + b"\0"}),
    )
    return _all_refused(session, cases, ErrorName.INVALID_CIPHERTEXT)


@check("DEC-05", "A changed authentication tag is refused", level=Level.MUST, source=_CORRUPTED, needs=(_ROUND_TRIP,))
def changed_tag(session: Session) -> str:
    """Changes the first and the last bit of the tag."""
    what = session.seal(fresh_plaintext(), fresh_plaintext())
    cases = ((what, "tag changed", {"authenticationTag": flipped(what.tag, at)}) for at in (0, 15))
    return _all_refused(session, cases, ErrorName.INVALID_CIPHERTEXT)


@check(
    "DEC-06", "A changed initialization vector is refused", level=Level.MUST, source=_CORRUPTED, needs=(_ROUND_TRIP,)
)
def changed_iv(session: Session) -> str:
    """Changes the first and the last byte of the IV."""
    what = session.seal(fresh_plaintext(), fresh_plaintext())
    iv = what.initialization_vector
    cases = ((what, "IV changed", {"initializationVector": flipped(iv, at)}) for at in (0, len(iv) - 1))
    return _all_refused(session, cases, ErrorName.INVALID_CIPHERTEXT)


@check(
    "DEC-07",
    "Changed ciphertext metadata is refused",
    level=Level.MUST,
    source=Source(
        _SECTION,
        "The XKS Proxy MUST detect when the `ciphertextMetadata` passed to decrypt has been modified relative to the "
        "`ciphertextMetadata` generated during the corresponding encrypt.",
    ),
    needs=(_ROUND_TRIP,),
)
def changed_metadata(session: Session) -> str:
    """Changes every byte of the metadata in turn, cuts it, leaves it out; adds some where there was none."""
    what = session.seal(fresh_plaintext(), fresh_plaintext())
    return _all_refused(session, _metadata_cases(what), *_REFUSALS)


@check(
    "DEC-08",
    "Ciphertext metadata cannot pass as AAD",
    level=Level.MUST,
    source=Source(
        "Encrypt",
        "to explicitly include the length of `additionalAuthenitcatedData` and the length of the "
        "`ciphertextMetadata` to avoid unintended successful decrypts",
    ),
    needs=("DEC-03", "DEC-07"),
)
def confusion(session: Session) -> str:
    """Encrypts, then decrypts with bytes moved over the border between AAD and metadata, both ways."""
    bare, what = session.seal(fresh_plaintext()), session.seal(fresh_plaintext(), b"0123456789")
    if bare.metadata is None or what.metadata is None or what.aad is None:
        raise NotJudged("this proxy returns no ciphertextMetadata")
    cases = (
        (bare, "metadata sent as AAD", _moved(bare.metadata, None)),
        (what, "metadata moved behind the AAD", _moved(what.aad + what.metadata, None)),
        (what, "metadata moved before the AAD", _moved(what.metadata + what.aad, None)),
        (what, "end of the AAD moved into the metadata", _moved(what.aad[:-1], what.aad[-1:] + what.metadata)),
        (what, "start of the metadata moved into the AAD", _moved(what.aad + what.metadata[:1], what.metadata[1:])),
    )
    return _all_refused(session, cases, *_REFUSALS)


@check(
    "DEC-09",
    "A tag that is not 16 bytes long is refused",
    level=Level.MUST,
    source=Source(_SECTION, "Authentication tag size MUST be 16 bytes (the Base64 encoding will have 24 bytes)."),
    needs=(_ROUND_TRIP,),
)
def short_tag(session: Session) -> str:
    """Sends the first 15, 12, 4 and 0 bytes of the right tag: a proxy that accepts them lets tags be guessed."""
    what = session.seal(fresh_plaintext(), fresh_plaintext())
    cases = ((what, f"tag of {n} bytes", {"authenticationTag": what.tag[:n]}) for n in (15, 12, 4, 0))
    return _all_refused(session, cases, *_REFUSALS)


@check(
    "DEC-10",
    "An IV that is neither 12 nor 16 bytes long is refused",
    level=Level.MUST,
    source=Source(_SECTION, "For `AES_GCM`, the length of the initializationVector MUST be 12 bytes or 16 bytes"),
    needs=(_ROUND_TRIP,),
)
def other_iv_length(session: Session) -> str:
    """Sends IVs of 0, 8, 13 and 17 bytes."""
    what = session.seal(fresh_plaintext(), fresh_plaintext())
    cases = ((what, f"IV of {n} bytes", {"initializationVector": fresh_plaintext(n)}) for n in (0, 8, 13, 17))
    return _all_refused(session, cases, *_REFUSALS)


@check(
    "DEC-11",
    "Ciphertext metadata of more than 20 bytes is refused",
    level=Level.MUST,
    source=Source(_SECTION, "the size of the field MUST NOT exceed 20 bytes (before Base64 encoding)"),
    needs=(_ROUND_TRIP,),
)
def long_metadata(session: Session) -> str:
    """Sends the right metadata with bytes added, 21 in all."""
    what = session.seal(fresh_plaintext(), fresh_plaintext())
    longer = (what.metadata or b"").ljust(21, b"\0")
    return _all_refused(session, [(what, "metadata of 21 bytes", {"ciphertextMetadata": longer})], *_REFUSALS)


@check("DEC-12", "A missing required field is refused", level=Level.MUST, source=_CORRUPTED, needs=(_ROUND_TRIP,))
def missing_fields(session: Session) -> str:
    """Leaves out each required field in turn."""
    what = session.seal(fresh_plaintext(), fresh_plaintext())
    names = ("ciphertext", "initializationVector", "authenticationTag", "encryptionAlgorithm", "requestMetadata")
    return _all_refused(session, ((what, f"without {name}", {name: None}) for name in names), *_REFUSALS)


@check(
    "DEC-13",
    "Another encryptionAlgorithm is refused",
    level=Level.MUST,
    source=Source(_SECTION, "In `v1` specification, this will always be `AES_GCM`."),
    needs=(_ROUND_TRIP,),
)
def other_algorithm(session: Session) -> str:
    """Asks for AES_CBC."""
    what = session.seal(fresh_plaintext(), fresh_plaintext())
    cases = [(what, "AES_CBC", {"encryptionAlgorithm": "AES_CBC"})]
    return _all_refused(session, cases, ErrorName.VALIDATION, ErrorName.UNSUPPORTED_OPERATION)


@check(
    "DEC-14",
    "An absent AAD is the same as an empty one",
    level=Level.ADVICE,
    source=Source(
        "Encrypt",
        "If the `additionalAuthenticatedData` or `ciphertextMetadata` is not present, the corresponding length MUST "
        "be set to zero.",
    ),
    needs=(_ROUND_TRIP,),
)
def absent_aad(session: Session) -> str:
    """Encrypts without AAD and decrypts with an empty one, and the reverse."""
    for aad, other in ((None, ""), (b"", None)):
        what = session.seal(fresh_plaintext(), aad)
        body = decrypt_body(what, additionalAuthenticatedData=other)
        response = session.call(Operation.DECRYPT, body, about="Decrypt with absent for empty AAD")
        accepted(response, f"AAD {'absent' if aad is None else 'empty'} at Encrypt, the reverse at Decrypt,")
    return "interchangeable, as the spec's framing makes them"


@check("DEC-15", "Another key does not decrypt it", level=Level.MUST, source=_CORRUPTED, needs=(_ROUND_TRIP,))
def other_key(session: Session) -> str:
    """Sends a ciphertext of --key to --decrypt-only."""
    key = named(session.keys.decrypt_only, "--decrypt-only")
    response = session.unseal(session.seal(fresh_plaintext()), key=key, about="Decrypt with another key")
    return refused(response, ErrorName.INVALID_CIPHERTEXT, what=f"a ciphertext of {session.test_key} under {key}")


@check("DEC-16", "What is not Base64 is refused", level=Level.MUST, source=_BASE64, needs=(_ROUND_TRIP,))
def not_base64(session: Session) -> str:
    """Sends a foreign character in each of the five fields in turn."""
    what = session.seal(fresh_plaintext(), fresh_plaintext())
    names = (
        "ciphertext",
        "initializationVector",
        "authenticationTag",
        "additionalAuthenticatedData",
        "ciphertextMetadata",
    )
    return _all_refused(session, ((what, f"{name} '!!!!'", {name: "!!!!"}) for name in names), *_REFUSALS)


_Case = tuple[Sealed, str, dict[str, Any]]


def _metadata_cases(what: Sealed) -> list[_Case]:
    metadata = what.metadata
    if not metadata:
        return [(what, "metadata added", {"ciphertextMetadata": b"\1\0\0\0\1"})]
    changed: list[_Case] = [
        (what, f"metadata changed in byte {at}", {"ciphertextMetadata": flipped(metadata, at)})
        for at in range(len(metadata))
    ]
    return [
        *changed,
        (what, "metadata cut", {"ciphertextMetadata": metadata[:-1]}),
        (what, "metadata left out", {"ciphertextMetadata": None}),
        (what, "metadata of another length", {"ciphertextMetadata": (metadata + b"\0")[-20:]}),
    ]


def _moved(aad: bytes, metadata: bytes | None) -> dict[str, Any]:
    return {"additionalAuthenticatedData": aad, "ciphertextMetadata": metadata}


def _all_refused(session: Session, cases: Iterable[_Case], *names: ErrorName) -> str:
    evidence = []
    for what, about, changes in cases:
        evidence.append(refused(session.unseal(what, about=about, **changes), *names, what=about))
    return evidence[-1] if len(evidence) == 1 else f"{len(evidence)} cases, such as {evidence[0]}"


def _same_plaintext(session: Session, what: Sealed) -> None:
    response = accepted(session.unseal(what), f"Decrypt of {len(what.ciphertext)} bytes")
    got = (response.json_object or {}).get("plaintext")
    if got != encode_base64(what.plaintext):
        raise Refuted(f"{len(what.plaintext)} bytes came back as {'something else' if got else 'nothing'}")


CHECKS: tuple[Check, ...] = (
    round_trip,
    longest,
    other_aad,
    changed_ciphertext,
    changed_tag,
    changed_iv,
    changed_metadata,
    confusion,
    short_tag,
    other_iv_length,
    long_metadata,
    missing_fields,
    other_algorithm,
    absent_aad,
    other_key,
    not_base64,
)
