"""Keys that may only encrypt, only decrypt, or neither."""

from holdfast.witness.check.finding import Check, Level, Refuted, Source, check
from holdfast.witness.check.session import (
    Session,
    accepted,
    encrypt_body,
    fresh_plaintext,
    metadata_body,
    named,
    refused,
)
from holdfast.witness.check.wire import Response
from holdfast.xks.errors import ErrorName
from holdfast.xks.types import Operation

_USAGE = Source(
    "GetKeyMetadata",
    "The XKS Proxy must use the strings `ENCRYPT` and `DECRYPT` (all uppercase) to indicate when an external key "
    "supports encrypt and decrypt operations, respectively.",
)
_UNSUPPORTED = Source(
    "Error codes",
    "The request was rejected because the<br>specified key does not support the<br>requested operation.",
)


@check("USE-01", "keyUsage is right for an encrypt-only key", level=Level.MUST, source=_USAGE, needs=("META-03",))
def encrypt_only_usage(session: Session) -> str:
    """Reads the metadata of --encrypt-only."""
    return _usage_is(session, named(session.keys.encrypt_only, "--encrypt-only"), {"ENCRYPT"})


@check("USE-02", "An encrypt-only key does not decrypt", level=Level.MUST, source=_UNSUPPORTED, needs=("DEC-01",))
def encrypt_only(session: Session) -> str:
    """Encrypts with --encrypt-only, which must work, and decrypts, which must not."""
    key = named(session.keys.encrypt_only, "--encrypt-only")
    response = session.call(Operation.ENCRYPT, encrypt_body(fresh_plaintext()), key=key)
    accepted(response, f"Encrypt with {key}")
    return refused(_decrypt(session, key), ErrorName.INVALID_KEY_USAGE, what=f"Decrypt with {key}")


@check("USE-03", "keyUsage is right for a decrypt-only key", level=Level.MUST, source=_USAGE, needs=("META-03",))
def decrypt_only_usage(session: Session) -> str:
    """Reads the metadata of --decrypt-only."""
    return _usage_is(session, named(session.keys.decrypt_only, "--decrypt-only"), {"DECRYPT"})


@check("USE-04", "A decrypt-only key does not encrypt", level=Level.MUST, source=_UNSUPPORTED, needs=("META-01",))
def decrypt_only(session: Session) -> str:
    """Encrypts with --decrypt-only. That Decrypt works cannot be shown: a ciphertext for it cannot be made."""
    key = named(session.keys.decrypt_only, "--decrypt-only")
    response = session.call(Operation.ENCRYPT, encrypt_body(fresh_plaintext()), key=key)
    return refused(response, ErrorName.INVALID_KEY_USAGE, what=f"Encrypt with {key}")


@check("USE-05", "keyUsage is right for a key of neither use", level=Level.MUST, source=_USAGE, needs=("META-03",))
def no_use_usage(session: Session) -> str:
    """Reads the metadata of --no-use."""
    return _usage_is(session, named(session.keys.no_use, "--no-use"), set())


@check("USE-06", "A key of neither use does neither", level=Level.MUST, source=_UNSUPPORTED, needs=("DEC-01",))
def no_use(session: Session) -> str:
    """Encrypts and decrypts with --no-use."""
    key = named(session.keys.no_use, "--no-use")
    encrypt = session.call(Operation.ENCRYPT, encrypt_body(fresh_plaintext()), key=key)
    refused(encrypt, ErrorName.INVALID_KEY_USAGE, what=f"Encrypt with {key}")
    return refused(_decrypt(session, key), ErrorName.INVALID_KEY_USAGE, what=f"Decrypt with {key}")


def _usage_is(session: Session, key: str, expected: set[str]) -> str:
    response = session.call(Operation.GET_KEY_METADATA, metadata_body(), key=key)
    body = accepted(response, f"GetKeyMetadata of {key}").json_object or {}
    usage = body.get("keyUsage")
    if not isinstance(usage, list) or set(usage) & {"ENCRYPT", "DECRYPT"} != expected:
        shown = ", ".join(map(str, usage)) if isinstance(usage, list) else repr(usage)
        raise Refuted(f"{key}: keyUsage is {shown or 'empty'}")
    return f"{key}: {', '.join(usage) or 'none'}"


def _decrypt(session: Session, key: str) -> Response:
    # A real ciphertext with its metadata, so that nothing but the key's usage can be wrong with it.
    what = session.seal(
        fresh_plaintext(), key=session.keys.encrypt_only if key == session.keys.encrypt_only else None
    )
    return session.unseal(what, key=key, about=f"Decrypt with {key}")


CHECKS: tuple[Check, ...] = (
    encrypt_only_usage,
    encrypt_only,
    decrypt_only_usage,
    decrypt_only,
    no_use_usage,
    no_use,
)
