"""IV safety while serving: AES-GCM under one key with one IV twice gives away the plaintexts and the tag key."""

from collections import OrderedDict
from collections.abc import Callable
from enum import StrEnum
from threading import Lock
from typing import Final, NoReturn

from holdfast.hsm.faults import IvUnsafe
from holdfast.hsm.port import KeyLocator

_REMEMBERED_IVS: Final = 512
"""Per key. A generator that is stuck or was set back repeats at once; chance never does (2^-32 at 2^32 IVs)."""
_REMEMBERED_KEYS: Final = 256


class IvOutcome(StrEnum):
    """What an encryption showed of its IV."""

    SAFE = "safe"
    NOT_MADE = "not-made"
    """The IV stayed zero: the module used the caller's zeros (SoftHSM does), or did not write its IV back."""
    REPEATED = "repeated"
    WRONG_LENGTH = "wrong-length"
    """The output is not as long as ciphertext, tag and (where the module appends it) IV."""
    REPLACED = "replaced"
    """The proxy gave an IV and the module wrote another one over it."""
    REFUSED = "refused"
    """The module refused the mechanism's parameters."""
    NOT_DECRYPTED = "not-decrypted"
    """What was encrypted does not decrypt with the IV that came back."""


class BadIv(Exception):
    """What the GCM channel and the guard found; the session stops the key."""

    def __init__(self, outcome: IvOutcome, message: str) -> None:
        super().__init__(message)
        self.outcome = outcome
        self.message = message


class IvGuard:
    """Looks at every IV of one HSM in this process. A key in `stopped` does not encrypt again; the value says why.

    `on_stop` is called once for each key that this guard stops itself. It must not block.
    """

    def __init__(self, on_stop: Callable[[KeyLocator, str], None] | None = None) -> None:
        self._lock = Lock()
        self._on_stop = on_stop
        self._recent: OrderedDict[KeyLocator, OrderedDict[bytes, None]] = OrderedDict()
        self.stopped: dict[KeyLocator, str] = {}

    def require_safe(self, key: KeyLocator) -> None:
        """Raise IvUnsafe if the key was stopped."""
        reason = self.stopped.get(key)
        if reason is not None:
            raise IvUnsafe(f"{reason}. {_REMEDY}")

    def check(self, key: KeyLocator, iv: bytes, length: int) -> None:
        """Raise BadIv for an IV that is all zero, repeated under the key or not `length` bytes long."""
        if len(iv) != length:
            raise BadIv(IvOutcome.WRONG_LENGTH, f"the IV has {len(iv)} bytes instead of {length}")
        if not any(iv):
            raise BadIv(IvOutcome.NOT_MADE, "the IV is all zero: none was made")
        with self._lock:
            recent = self._recent.get(key)
            if recent is None:
                recent = self._recent[key] = OrderedDict()
                if len(self._recent) > _REMEMBERED_KEYS:
                    self._recent.popitem(last=False)
            self._recent.move_to_end(key)
            repeated = iv in recent
            recent[iv] = None
            if len(recent) > _REMEMBERED_IVS:
                recent.popitem(last=False)
        if repeated:
            raise BadIv(IvOutcome.REPEATED, "an IV came back a second time")

    def release(self, key: KeyLocator) -> str:
        """Why the key was stopped; it encrypts again. Only for the health key, which protects nothing."""
        return self.stopped.pop(key, "an IV of the health key was not safe")

    def stop(self, key: KeyLocator, reason: str) -> NoReturn:
        """Stop the key: raises IvUnsafe, now and for every later encryption under it."""
        with self._lock:
            first = key not in self.stopped
            self.stopped.setdefault(key, reason)
        if first and self._on_stop is not None:
            self._on_stop(key, reason)
        raise IvUnsafe(f"{reason}. {_REMEDY}")


_REMEDY: Final = (
    "The key does not encrypt any more until `holdfast key release` (it still decrypts): "
    "run `holdfast doctor`, and ask the HSM's vendor about its random generator before that"
)
