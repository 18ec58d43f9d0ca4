"""Doctor on one key: whether KMS can use it, and whether it can only ever be used inside the HSM."""

from collections.abc import Iterator, Sequence

from holdfast.finding import Finding, error, ok, warning
from holdfast.hsm.pkcs11.handles import why_it_may_leave
from holdfast.hsm.pkcs11.inspect import FoundKey

KEY_SPEC = "AES_256"
"""Spec, "GetKeyMetadata": KMS creates a KMS key over this `keySpec` only."""
_MAKE_ANOTHER = "Make a new key with `holdfast key create`, or with the HSM's own tool, and use that for KMS."


def examine_matches(
    subject: str, label: str, found: Sequence[FoundKey], *, rebind: str | None = None
) -> Iterator[Finding]:
    """Findings on how many keys of the token have a label (and CKA_ID, where one was asked for).

    `rebind` is the command that binds a registered key to the right one.
    """
    if not found:
        yield error(
            "key-not-found",
            subject,
            f"no secret key with the label {label!r} is on the token",
            why="Every call for this key fails. The token may be another one, the login may not show private keys,"
            " or the key was deleted.",
            remedy="Compare with `holdfast doctor`'s list of tokens and the HSM's own listing."
            + (f" If the key has another label or CKA_ID now, `{rebind}` binds it again." if rebind else "")
            + " If it is gone, restore it from the HSM's backup.",
        )
    elif len(found) > 1:
        shown = ", ".join(key.id.hex() or "none" for key in found)
        yield error(
            "key-label-twice",
            subject,
            f"{len(found)} secret keys of the token have the label {label!r} (their CKA_ID: {shown})",
            why="It is not known which of them a ciphertext needs, so Holdfast uses none.",
            remedy=(f"`{rebind}` binds the key to the right one by its CKA_ID. Or give" if rebind else "Give")
            + " the other keys other labels with the HSM's tool.",
        )


def examine_key(subject: str, key: FoundKey, *, allow_extractable: bool = True) -> Iterator[Finding]:
    """Findings on one key's type, length and attributes. `allow_extractable` as in `HsmSettings`."""
    findings = [*_usable(subject, key), *_confined(subject, key, allow_extractable=allow_extractable)]
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


def _confined(subject: str, key: FoundKey, *, allow_extractable: bool) -> Iterator[Finding]:
    reason = why_it_may_leave(key.attributes)
    if reason:
        say = warning if allow_extractable else error
        yield say(
            "key-may-leave",
            subject,
            f"a copy of the key {key.label!r} may exist outside the HSM: {reason}",
            why="A person who has a copy decrypts everything unseen."
            + ("" if allow_extractable else " The proxy refuses to use such a key."),
            remedy=f"{_MAKE_ANOTHER}"
            + (
                ""
                if allow_extractable
                else " To accept copies outside the HSM, set `allow_extractable = true` in the HSM's table."
            ),
        )
    attributes = key.attributes.attributes
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
