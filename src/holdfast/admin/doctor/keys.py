"""Doctor on one key: whether KMS can use it, and whether it can only ever be used inside the HSM."""

from collections.abc import Iterator, Sequence

from holdfast.admin.doctor.finding import Finding, error, note, ok, warning
from holdfast.ekm.pkcs11.inspect import FoundKey

KEY_SPEC = "AES_256"
"""Spec, "GetKeyMetadata": KMS creates a KMS key over this `keySpec` only."""
_MAKE_ANOTHER = "Make a new key with `holdfast key create`, or with the HSM's own tool, and use that for KMS."


def examine_matches(subject: str, label: str, found: Sequence[FoundKey]) -> Iterator[Finding]:
    """Findings on how many keys of the token answer to a label (and CKA_ID, where one was asked for)."""
    if not found:
        yield error(
            "key-not-found",
            subject,
            f"no secret key with the label {label!r} is on the token",
            why="Every call for this key fails. The token may be another one, the login may not show private keys,"
            " or the key was deleted.",
            remedy="Compare with `holdfast doctor`'s list of tokens and the HSM's own listing; restore the key from"
            " the HSM's backup if it is gone.",
        )
    elif len(found) > 1:
        shown = ", ".join(key.id.hex() or "none" for key in found)
        yield error(
            "key-label-twice",
            subject,
            f"{len(found)} secret keys of the token have the label {label!r} (their CKA_ID: {shown})",
            why="Nobody can say which of them a ciphertext needs, so Holdfast uses none.",
            remedy="Register the key with its CKA_ID (`holdfast key register --id HEX`), or rename the other key.",
        )


def examine_key(subject: str, key: FoundKey) -> Iterator[Finding]:
    """Findings on one key's type, length and attributes."""
    findings = [*_usable(subject, key), *_confined(subject, key)]
    yield from findings
    if not findings:
        yield ok("key", subject, f"{key.label!r} is AES with 256 bits, sensitive, not extractable")


def _usable(subject: str, key: FoundKey) -> Iterator[Finding]:
    spec, usage = key.attributes.key_spec, key.attributes.key_usage
    if spec != KEY_SPEC:
        yield error(
            "key-not-aes-256",
            subject,
            f"the key {key.label!r} is {_spec_in_words(spec)}, not AES with 256 bits",
            why="KMS accepts external keys of the key spec AES_256 only: CreateKey is refused.",
            remedy=_MAKE_ANOTHER,
        )
    missing = [word for word in ("ENCRYPT", "DECRYPT") if word not in usage]
    if missing:
        yield error(
            "key-usage",
            subject,
            f"the key {key.label!r} is not permitted to {' or '.join(missing).lower()}",
            why="KMS requires ENCRYPT and DECRYPT of an external key, and each Encrypt is checked by a decryption.",
            remedy=f"Set {' and '.join(f'CKA_{word}' for word in missing)} with the HSM's tool if its policy"
            f" allows that. Otherwise: {_MAKE_ANOTHER}",
        )
    if key.attributes.attributes.get("CKA_TOKEN") is False:
        yield error(
            "key-not-on-token",
            subject,
            f"the key {key.label!r} is a session object",
            why="It vanishes when the session that made it ends, and every ciphertext with it.",
            remedy=_MAKE_ANOTHER,
        )


def _confined(subject: str, key: FoundKey) -> Iterator[Finding]:
    attributes = key.attributes.attributes
    if attributes.get("CKA_SENSITIVE") is False:
        yield warning(
            "key-not-sensitive",
            subject,
            f"the value of the key {key.label!r} can be read in the clear (CKA_SENSITIVE is false)",
            why="Whoever can log in to the token can copy the key and decrypt everything, unseen.",
            remedy=_MAKE_ANOTHER,
        )
    if attributes.get("CKA_EXTRACTABLE") is True:
        yield warning(
            "key-extractable",
            subject,
            f"the key {key.label!r} may leave the HSM wrapped under another key (CKA_EXTRACTABLE is true)",
            why="Whoever can log in can wrap it under a key of his own and decrypt everything outside the HSM.",
            remedy=f"Set CKA_EXTRACTABLE to false with the HSM's tool; it cannot be set back. Or: {_MAKE_ANOTHER}",
        )
    elif attributes.get("CKA_NEVER_EXTRACTABLE") is False:
        yield note(
            "key-was-extractable",
            subject,
            f"the key {key.label!r} was extractable once, or was made outside the HSM",
            why="A copy of it may exist elsewhere.",
        )
    if attributes.get("CKA_WRAP") is True:
        yield warning(
            "key-wraps",
            subject,
            f"the key {key.label!r} may wrap other keys (CKA_WRAP is true)",
            why="A key that both decrypts data and wraps keys can be used to read wrapped keys in the clear."
            " nShield's generatekey sets this by default.",
            remedy="Set CKA_WRAP and CKA_UNWRAP to false where the HSM allows it; for new keys use"
            " `holdfast key create`, which sets neither.",
        )


def _spec_in_words(spec: str) -> str:
    kind, _, bits = spec.rpartition("_")
    return f"{kind} with {bits} bits" if kind and bits.isdigit() else spec
