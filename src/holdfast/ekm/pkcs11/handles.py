"""Key handles, found once per module epoch: C_FindObjects walks every object of the token."""

from dataclasses import dataclass
from threading import Lock
from time import monotonic
from typing import Final

from holdfast.ekm.faults import KeyAmbiguous, KeyNotFound
from holdfast.ekm.pkcs11.constants import (
    BOOLEANS,
    CKA_CLASS,
    CKA_ID,
    CKA_KEY_TYPE,
    CKA_LABEL,
    CKA_TOKEN,
    CKA_VALUE_LEN,
    CKK_AES,
    CKK_NAMES,
    CKO_SECRET_KEY,
    USAGES,
)
from holdfast.ekm.pkcs11.cryptoki import Cryptoki
from holdfast.ekm.port import KeyAttributes, KeyLocator

_NOT_FOUND_FOR: Final = 1.0
"""Seconds for which a missing key is not looked for again: a lookup costs 28 ms with 1,000 keys on SoftHSM."""
_AES_256: Final = 32


@dataclass(frozen=True, slots=True)
class FoundHandle:
    """A key object of the current epoch."""

    handle: int
    attributes: KeyAttributes
    encrypts: bool
    decrypts: bool
    is_aes_256: bool


class Handles:
    """The cache, shared by the sessions of one HSM. Methods raise CkrError, KeyNotFound and KeyAmbiguous."""

    def __init__(self, cryptoki: Cryptoki) -> None:
        self._cryptoki = cryptoki
        self._found: dict[KeyLocator, FoundHandle] = {}
        self._missing: dict[KeyLocator, float] = {}
        self._lock = Lock()
        self._version = 0

    def find(self, session: int, key: KeyLocator) -> FoundHandle:
        """The one secret key of the token that matches."""
        found = self._found.get(key)
        if found is not None:
            return found
        if monotonic() < self._missing.get(key, 0.0):
            raise _not_found(key)
        version = self._version
        try:
            found = find_one(self._cryptoki, session, key)
        except KeyNotFound:
            with self._lock:
                if len(self._missing) > _MISSING_KEPT:
                    self._missing.clear()
                self._missing[key] = monotonic() + _NOT_FOUND_FOR
            raise
        with self._lock:
            # What was looked up before a `clear` may belong to a token that is gone.
            if version == self._version:
                self._found[key] = found
        return found

    def forget(self, key: KeyLocator) -> None:
        """The handle proved stale."""
        with self._lock:
            self._found.pop(key, None)
            self._missing.pop(key, None)

    def clear(self) -> None:
        """The token or the module went away: no handle holds any more."""
        with self._lock:
            self._version += 1
            self._found.clear()
            self._missing.clear()


_MISSING_KEPT: Final = 1024


def find_one(cryptoki: Cryptoki, session: int, key: KeyLocator) -> FoundHandle:
    """The key, read from the token. Raises KeyNotFound, KeyAmbiguous, CkrError."""
    handles = cryptoki.find_objects(session, template_of(key.label, key.id), limit=2)
    if not handles:
        raise _not_found(key)
    if len(handles) > 1:
        raise KeyAmbiguous(
            f"several secret keys of the token have the label {key.label!r}"
            + ("" if key.id is None else f" and CKA_ID {key.id.hex()}")
            + ": name the CKA_ID too, or give one of them another label"
        )
    return read_key(cryptoki, session, handles[0])


def template_of(label: str | None, key_id: bytes | None) -> dict[int, bytes | bool | int]:
    """What C_FindObjects looks for. nShield's CKA_ID is empty, so it is looked at only if given."""
    template: dict[int, bytes | bool | int] = {CKA_CLASS: CKO_SECRET_KEY, CKA_TOKEN: True}
    if label is not None:
        template[CKA_LABEL] = label.encode()
    if key_id is not None:
        template[CKA_ID] = key_id
    return template


def read_key(cryptoki: Cryptoki, session: int, handle: int) -> FoundHandle:
    """The attributes, one by one: a module may refuse any of them (hsm-facts, section 6)."""
    key_type = cryptoki.number(session, handle, CKA_KEY_TYPE)
    length = cryptoki.number(session, handle, CKA_VALUE_LEN)
    booleans = {
        name: value
        for name, attribute in BOOLEANS.items()
        if (value := cryptoki.boolean(session, handle, attribute)) is not None
    }
    usages = tuple(word for word in USAGES if booleans.get(f"CKA_{word}", False))
    return FoundHandle(
        handle,
        KeyAttributes(_key_spec(key_type, length), usages, booleans),
        encrypts="ENCRYPT" in usages,
        decrypts="DECRYPT" in usages,
        is_aes_256=key_type == CKK_AES and length == _AES_256,
    )


def _key_spec(key_type: int | None, length: int | None) -> str:
    word = "UNKNOWN" if key_type is None else CKK_NAMES.get(key_type, f"KEY_TYPE_{key_type:X}")
    return word if length is None else f"{word}_{8 * length}"


def _not_found(key: KeyLocator) -> KeyNotFound:
    return KeyNotFound(
        f"no secret key of the token has the label {key.label!r}"
        + ("" if key.id is None else f" and CKA_ID {key.id.hex()}")
        + ". A key made after start may need a reload (SIGHUP); a private key needs a login"
    )
