"""Key handles, found once per module epoch: C_FindObjects walks every object of the token."""

from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock
from time import monotonic
from typing import Final

from holdfast.hsm.faults import KeyAmbiguous, KeyNotFound, KeyUntrusted
from holdfast.hsm.pkcs11.constants import (
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
from holdfast.hsm.pkcs11.cryptoki import Cryptoki
from holdfast.hsm.port import KeyAttributes, KeyLocator

_NOT_FOUND_FOR: Final = 1.0
"""Seconds for which a missing key is not looked for again: a lookup costs 28 ms with 1,000 keys on SoftHSM."""
_UNTRUSTED_FOR: Final = 5.0
"""Seconds for which a key that did not prove itself is refused without another look."""
_MISSING_KEPT: Final = 1024
_AES_256: Final = 32


@dataclass(frozen=True, slots=True)
class FoundHandle:
    """A key object of the current epoch.

    `unread` names the attributes that every use depends on and that the token did not show: nothing is known of them.
    `confirmed` holds the canaries that the object has opened; None stands for a key that has no canary yet.
    """

    handle: int
    attributes: KeyAttributes
    encrypts: bool
    decrypts: bool
    is_aes_256: bool
    unread: tuple[str, ...] = ()
    confirmed: set[bytes | None] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _Untrusted:
    key: KeyLocator
    reason: str
    until: float


class Handles:
    """What the sessions of one HSM know of its keys. Holds no more than one HSM's keys of one epoch."""

    def __init__(self) -> None:
        self._found: dict[KeyLocator, FoundHandle] = {}
        self._missing: dict[KeyLocator, float] = {}
        self._untrusted: dict[KeyLocator, _Untrusted] = {}
        self._watched: dict[KeyLocator, KeyLocator] = {}
        self._seen: set[KeyLocator] = set()
        self._vanished: dict[KeyLocator, float] = {}
        self._lock = Lock()
        self.version = 0
        """Grows with `clear`: what was looked up before belongs to a token that may be gone."""

    # ---- keys that were found

    def cached(self, key: KeyLocator) -> FoundHandle | None:
        """The handle, if it is known. Raises KeyNotFound and KeyUntrusted for what was found out a moment ago."""
        found = self._found.get(key)
        if found is not None:
            return found
        if monotonic() < self._missing.get(key, 0.0):
            raise not_found(key)
        untrusted = self._untrusted.get(key)
        if untrusted is not None and monotonic() < untrusted.until and untrusted.key.canary == key.canary:
            raise KeyUntrusted(untrusted.reason)
        return None

    def keep(self, key: KeyLocator, found: FoundHandle, version: int) -> None:
        """Remember a handle that was looked up while `version` was current."""
        with self._lock:
            if version == self.version:
                self._found[key] = found
                self._seen.add(key)
                if key.canary is not None:
                    self._watched[key] = key
                self._untrusted.pop(key, None)
                self._vanished.pop(key, None)

    def forget(self, key: KeyLocator) -> None:
        """The handle proved stale."""
        with self._lock:
            self._found.pop(key, None)
            self._missing.pop(key, None)

    def clear(self, *, new_epoch: bool = False) -> None:
        """The login, the token or the module went away: no handle is valid any more."""
        with self._lock:
            self.version += 1
            self._found.clear()
            self._missing.clear()
            self._untrusted.clear()
            if new_epoch:
                self._seen.clear()
                self._vanished.clear()

    def watched(self) -> list[KeyLocator]:
        """The keys that have opened their canary in this process, for the probe; also after `forget` and `clear`."""
        with self._lock:
            return list(self._watched.values())

    def retain(self, is_registered: Callable[[KeyLocator], bool]) -> None:
        """Forget what is known of keys that are not registered any more, or not with this canary.

        Only the catalog knows which of two canaries is the newer one.
        """
        with self._lock:
            for key in [key for key in self._watched.values() if not is_registered(key)]:
                del self._watched[key]
            for key in [untrusted.key for untrusted in self._untrusted.values() if not is_registered(untrusted.key)]:
                del self._untrusted[key]
            for key in [key for key in self._seen if not is_registered(KeyLocator(key.label, key.id))]:
                self._seen.discard(key)
                self._found.pop(key, None)
                self._vanished.pop(key, None)

    # ---- keys that were not found

    def miss(self, key: KeyLocator) -> None:
        """The key is certainly not on the token; it is not looked for again at once."""
        with self._lock:
            if len(self._missing) > _MISSING_KEPT:
                self._missing.clear()
            self._missing[key] = monotonic() + _NOT_FOUND_FOR

    def vanished_at(self, key: KeyLocator) -> float | None:
        """When a key that this process has used was not found any more; None for a key that it never found."""
        with self._lock:
            return self._vanished.setdefault(key, monotonic()) if key in self._seen else None

    # ---- keys that did not prove themselves

    def distrust(self, key: KeyLocator, reason: str) -> None:
        """Refuse the key until another look, a few seconds later."""
        with self._lock:
            self._found.pop(key, None)
            self._untrusted[key] = _Untrusted(key, reason, monotonic() + _UNTRUSTED_FOR)

    @property
    def untrusted(self) -> dict[KeyLocator, str]:
        """The keys that are refused, and why."""
        with self._lock:
            return {untrusted.key: untrusted.reason for untrusted in self._untrusted.values()}

    def look_again(self, key: KeyLocator) -> None:
        """Let the next use look, although the key was refused a moment ago."""
        with self._lock:
            untrusted = self._untrusted.get(key)
            if untrusted is not None:
                self._untrusted[key] = _Untrusted(untrusted.key, untrusted.reason, 0.0)


def find_one(cryptoki: Cryptoki, session: int, key: KeyLocator) -> FoundHandle:
    """The one secret key of the token that matches. Raises KeyNotFound, KeyAmbiguous, CkrError."""
    handles = cryptoki.find_objects(session, template_of(key.label, key.id), limit=2)
    if not handles:
        raise not_found(key)
    if len(handles) > 1:
        raise KeyAmbiguous(
            f"several secret keys of the token have the label {key.label!r}"
            + ("" if key.id is None else f" and CKA_ID {key.id.hex()}")
            + ": `holdfast key rebind KEYSTORE KEY` finds the one that was registered"
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
    """The attributes, one by one: a module may refuse any of them."""
    key_type = cryptoki.number(session, handle, CKA_KEY_TYPE)
    length = cryptoki.number(session, handle, CKA_VALUE_LEN)
    booleans = {
        name: value
        for name, attribute in BOOLEANS.items()
        if (value := cryptoki.boolean(session, handle, attribute)) is not None
    }
    usages = tuple(word for word in USAGES if booleans.get(f"CKA_{word}", False))
    unread = [name for name in ("CKA_ENCRYPT", "CKA_DECRYPT") if name not in booleans]
    if key_type is None:
        unread.append("CKA_KEY_TYPE")
    elif key_type == CKK_AES and length is None:
        unread.append("CKA_VALUE_LEN")
    return FoundHandle(
        handle,
        KeyAttributes(_key_spec(key_type, length), usages, booleans),
        encrypts="ENCRYPT" in usages,
        decrypts="DECRYPT" in usages,
        is_aes_256=key_type == CKK_AES and length == _AES_256,
        unread=tuple(unread),
    )


def why_it_may_leave(attributes: KeyAttributes) -> str:
    """Why a copy of the key may exist outside the HSM, now or later; empty if none can.

    nShield's generatekey leaves CKA_LOCAL false on a key made in the HSM, and sets CKA_NEVER_EXTRACTABLE.
    """
    known = attributes.attributes
    if known.get("CKA_SENSITIVE") is False:
        return "its value can be read in the clear (CKA_SENSITIVE is false)"
    if known.get("CKA_EXTRACTABLE") is True:
        return "it can be wrapped and taken out of the HSM (CKA_EXTRACTABLE is true)"
    if known.get("CKA_NEVER_EXTRACTABLE") is False:
        return "it was extractable once, or was made outside the HSM (CKA_NEVER_EXTRACTABLE is false)"
    if known.get("CKA_LOCAL") is False and "CKA_NEVER_EXTRACTABLE" not in known:
        return "it was made outside the HSM (CKA_LOCAL is false)"
    return ""


def _key_spec(key_type: int | None, length: int | None) -> str:
    word = "UNKNOWN" if key_type is None else CKK_NAMES.get(key_type, f"KEY_TYPE_{key_type:X}")
    return word if length is None else f"{word}_{8 * length}"


def not_found(key: KeyLocator) -> KeyNotFound:
    """The fault for a key that is not on the token."""
    return KeyNotFound(
        f"no secret key of the token has the label {key.label!r}"
        + ("" if key.id is None else f" and CKA_ID {key.id.hex()}")
        + ". A key made after start may need a reload (SIGHUP); a private key needs a login"
    )
