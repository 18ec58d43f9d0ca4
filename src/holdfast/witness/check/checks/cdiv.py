"""The Ciphertext Data Integrity Value: computed here on its own, and compared."""

from hashlib import sha256

from holdfast.witness.check.finding import Check, Level, NotJudged, Refuted, Source, check
from holdfast.witness.check.session import Sealed, Session, accepted, encrypt_body, fresh_plaintext, named, refused
from holdfast.xks.encoding import encode_base64
from holdfast.xks.errors import ErrorName
from holdfast.xks.types import Operation

_APPENDIX = "Appendix C"


@check(
    "CDIV-01",
    "A requested CDIV is returned",
    level=Level.MUST,
    source=Source(
        _APPENDIX,
        "When an Encrypt request specifies a `ciphertextDataIntegrityAlgorithm`, the corresponding response MUST "
        "include a `ciphertextDataIntegrityValue`.",
    ),
    needs=("ENC-02",),
)
def present(session: Session) -> str:
    """Encrypts with ciphertextDataIntegrityValueAlgorithm SHA_256."""
    if session.seal(fresh_plaintext(), fresh_plaintext(), cdiv=True).cdiv is None:
        raise Refuted("the response has no ciphertextDataIntegrityValue")
    return "present"


@check(
    "CDIV-02",
    "The CDIV is the SHA-256 that KMS will compute",
    level=Level.MUST,
    source=Source(
        "Encrypt", "return an error to the caller if the computed value does not match the value in the response"
    ),
    needs=("CDIV-01", "ENC-03", "ENC-05"),
)
def value(session: Session) -> str:
    """Computes it for a request without AAD, and with AADs of several lengths."""
    for length, aad_length in ((32, None), (32, 33), (1, 1024), (1024, 33)):
        aad = None if aad_length is None else fresh_plaintext(aad_length)
        what = session.seal(fresh_plaintext(length), aad, cdiv=True)
        if what.cdiv != _cdiv(what):
            wrong = "no AAD" if aad is None else f"{aad_length} bytes of AAD"
            raise Refuted(f"differs for {length} bytes of plaintext with {wrong}{_explained(what)}")
    return "right for four requests, with and without AAD"


@check(
    "CDIV-03",
    "What has a CDIV decrypts to its plaintext",
    level=Level.MUST,
    source=Source("Encrypt", "KMS interprets a match as assurance from the XKS Proxy that a subsequent decrypt call"),
    needs=("CDIV-02", "DEC-01"),
)
def decrypts(session: Session) -> str:
    """Encrypts with a CDIV and decrypts."""
    what = session.seal(fresh_plaintext(), fresh_plaintext(), cdiv=True)
    response = accepted(session.unseal(what), "Decrypt of a ciphertext with a CDIV")
    if (response.json_object or {}).get("plaintext") != encode_base64(what.plaintext):
        raise Refuted("another plaintext came back")
    return "decrypted to the same plaintext"


@check(
    "CDIV-04",
    "Another CDIV algorithm is refused",
    level=Level.MUST,
    source=Source("Encrypt", 'For the first version (v1) of this specification, this MUST be "SHA_256".'),
    needs=("ENC-02",),
)
def other_algorithm(session: Session) -> str:
    """Asks for SHA_1."""
    body = encrypt_body(fresh_plaintext()) | {"ciphertextDataIntegrityValueAlgorithm": "SHA_1"}
    response = session.call(Operation.ENCRYPT, body, about="CDIV with SHA_1")
    return refused(response, ErrorName.VALIDATION, ErrorName.UNSUPPORTED_OPERATION, what="SHA_1")


@check(
    "CDIV-05",
    "No CDIV is given without a trial decrypt",
    level=Level.KMS,
    source=Source(
        _APPENDIX,
        "If the decryption is successful, return the encrypt API output from Step 1 along with the CDIV from Step 2.",
    ),
    needs=("CDIV-01",),
)
def trial_decrypt(session: Session) -> str:
    """Asks for a CDIV on --encrypt-only, where a trial decrypt cannot succeed: a CDIV then was not earned.

    With an ordinary key it cannot be seen from outside whether the trial was made, nor whether the value was computed
    before it.
    """
    key = named(session.keys.encrypt_only, "--encrypt-only")
    accepted(session.call(Operation.ENCRYPT, encrypt_body(fresh_plaintext()), key=key), "Encrypt without a CDIV")
    response = session.call(Operation.ENCRYPT, encrypt_body(fresh_plaintext(), cdiv=True), key=key)
    if response.status == 200:  # noqa: PLR2004 (OK)
        if "ciphertextDataIntegrityValue" in (response.json_object or {}):
            raise Refuted("a CDIV came for a key that cannot decrypt: no trial decrypt is made")
        raise NotJudged("the CDIV was left out; CDIV-01 says whether that happens with other keys")
    return f"{key} with a CDIV: {response.describe()}"


def _cdiv(what: Sealed) -> bytes:
    parts = (what.aad or b"", what.metadata or b"", what.initialization_vector, what.ciphertext, what.tag)
    return sha256(b"".join(parts)).digest()


def _explained(what: Sealed) -> str:
    tail = what.initialization_vector + what.ciphertext + what.tag
    aad, metadata = what.aad or b"", what.metadata or b""
    guesses = {
        "the AAD is left out": metadata + tail,
        "the metadata is left out": aad + tail,
        "metadata and AAD are swapped": metadata + aad + tail,
        "lengths are mixed in, as only the tag's AAD needs": (
            len(aad).to_bytes(2) + aad + len(metadata).to_bytes(1) + metadata + tail
        ),
    }
    for guess, data in guesses.items():
        if sha256(data).digest() == what.cdiv:
            return f": {guess}"
    return ""


CHECKS: tuple[Check, ...] = (present, value, decrypts, other_algorithm, trial_decrypt)
