"""One session: the operations on keys, what is tried again when they fail, and what a failure is believed to mean.

An answer that blames the request, the data or the key is believed the second time only. "Your key is gone" and "your
ciphertext is wrong" need a second, independent look: the key's own canary still opens; the health key is found in the
same session, and a fresh search still finds no such key.
"""

from collections.abc import Callable
from typing import Final, TypeVar

from holdfast.hsm import faults
from holdfast.hsm.faults import HsmFault, KeyNotFound, NativeCall
from holdfast.hsm.pkcs11.canary import CANARY_AAD, CANARY_TEXT, ConfirmationFailed, canary_opens
from holdfast.hsm.pkcs11.ckr import Ckr, Verdict, verdict
from holdfast.hsm.pkcs11.connection import Connection
from holdfast.hsm.pkcs11.cryptoki import CkrError
from holdfast.hsm.pkcs11.gcm import TAG_BYTES, GcmChannel
from holdfast.hsm.pkcs11.handles import FoundHandle, find_one, read_key, template_of, why_it_may_leave
from holdfast.hsm.pkcs11.iv import BadIv, IvGuard
from holdfast.hsm.pkcs11.iv_probe import PROBE_AAD, PROBE_TEXT
from holdfast.hsm.pkcs11.token import TokenMissing
from holdfast.hsm.port import KeyAttributes, KeyLocator, Sealed

T = TypeVar("T")

FAULTS: Final[dict[Verdict, type[HsmFault]]] = {
    Verdict.CIPHERTEXT: faults.CiphertextRejected,
    Verdict.CIPHERTEXT_LENGTH: faults.CiphertextRejected,
    Verdict.DATA_TOO_LARGE: faults.DataTooLarge,
    Verdict.KEY_USAGE: faults.KeyUsageRefused,
    Verdict.UNSUPPORTED: faults.MechanismUnsupported,
    # The object was found and its handle does not work: the HSM is at fault, and no key is missing.
    Verdict.KEY_GONE: faults.HsmUnavailable,
    Verdict.SESSION_GONE: faults.ModuleFailed,
    Verdict.BUSY: faults.HsmBusy,
    Verdict.DEVICE: faults.HsmUnavailable,
    Verdict.LOGIN: faults.LoginRefused,
    Verdict.EXHAUSTED: faults.KeyExhausted,
    Verdict.REFUSED: faults.ModuleFailed,
    Verdict.FAILED: faults.ModuleFailed,
}
_NEVER_OPENED: Final = -1
_OF_THE_HSM: Final = (faults.KeyNotFound, faults.KeyAmbiguous, faults.KeyUsageRefused, faults.MechanismUnsupported)
"""What may be wrong with the health key or the token when the HSM is connected again."""
_IV_LENGTHS: Final = (12, 16)
_PASSING: Final = (Ckr.GENERAL_ERROR, Ckr.FUNCTION_FAILED)
"""With these a module also reports what passes: another module of a load-shared set answers the next call."""
_BLAMING: Final = (
    Verdict.CIPHERTEXT,
    Verdict.CIPHERTEXT_LENGTH,
    Verdict.DATA_TOO_LARGE,
    Verdict.KEY_USAGE,
    Verdict.UNSUPPORTED,
    Verdict.EXHAUSTED,
)
"""Blames the request, the data or the key."""
_DOUBTFUL: Final = (Verdict.DEVICE, Verdict.SESSION_GONE, Verdict.FAILED, Verdict.KEY_GONE)
"""After these a session is closed, not used again (an operation may still be active on it), and the HSM is probed."""


class Session:
    """Implements KeySession. Used by one thread at a time, which is inside the module.

    `suspect` is called when the device, not the request, seems to be at fault. `encryptions` and `decryptions`
    count what succeeded. `guard` looks at every IV, and stops keys.
    """

    def __init__(self, connection: Connection, suspect: Callable[[HsmFault], None], guard: IvGuard) -> None:
        self.encryptions = 0
        self.decryptions = 0
        self._connection = connection
        self._suspect = suspect
        self._guard = guard
        self._round = _NEVER_OPENED
        self._epoch = _NEVER_OPENED
        self._handle = 0
        self._gcm: GcmChannel

    # ---- the KeySession protocol

    def encrypt(self, key: KeyLocator, plaintext: bytes, aad: bytes) -> Sealed:
        """AES-GCM with a fresh IV that was looked at."""
        self._guard.require_safe(key)
        self._require_size(plaintext, aad)
        try:
            sealed = self._encrypt(key, plaintext, aad)
        except CkrError as error:
            sealed = self._again(error, key, lambda: self._encrypt(key, plaintext, aad), len(plaintext))
        self.encryptions += 1
        return sealed

    def decrypt(self, key: KeyLocator, sealed: Sealed, aad: bytes) -> bytes:
        """The plaintext, or CiphertextRejected."""
        self._require_size(sealed.ciphertext, aad)
        try:
            plaintext = self._decrypt(key, sealed, aad)
        except CkrError as error:
            size = len(sealed.ciphertext)
            plaintext = self._again(error, key, lambda: self._decrypt(key, sealed, aad), size)
        self.decryptions += 1
        return plaintext

    def describe(self, key: KeyLocator) -> KeyAttributes:
        """The key's type, length and permissions; cached per module epoch."""
        try:
            return self._find(key).attributes
        except CkrError as error:
            return self._again(error, key, lambda: self._find(key).attributes)

    def confirm(self, key: KeyLocator) -> None:
        """Open the canaries of a key that is in use, or look at a refused one again. For the background probe.

        Raises HsmFault; the key is then refused, or the HSM does not work.
        """
        try:
            self._confirm_again(key)
        except CkrError as error:
            self._again(error, key, lambda: self._confirm_again(key))

    # ---- opening and closing

    def prepare(self) -> None:
        """Open the session if it is not open, or was invalidated. Raises HsmFault."""
        connection = self._connection
        if self._round == connection.session_round and self._epoch == connection.module.epoch:
            return
        try:
            connection.ensure()
            self._open()
        except CkrError as error:
            raise self._fault(error, self._verdict(error)) from None
        except TokenMissing as missing:
            raise faults.HsmUnavailable(missing.message) from None
        except _OF_THE_HSM as fault:
            # It is about the health key or the token: the request's own key and data are not to blame.
            raise faults.HsmUnavailable(fault.message, cause=fault.cause) from None

    def verify(self) -> None:
        """After a call that hung: C_GetSessionInfo; a session that does not answer is opened again on next use."""
        if self._epoch == _NEVER_OPENED:
            return
        try:
            self._connection.cryptoki.session_state(self._handle)
        except CkrError:
            self._drop()

    def close(self) -> None:
        """C_CloseSession, whatever the module says."""
        self._drop()

    def _open(self) -> None:
        self._drop()
        connection = self._connection
        session_round, epoch = connection.session_round, connection.module.epoch
        self._handle = connection.open_session()
        self._gcm = GcmChannel(connection.cryptoki, self._handle, connection.profile)
        self._round, self._epoch = session_round, epoch

    def _drop(self) -> None:
        if self._epoch != _NEVER_OPENED:
            self._connection.close_session(self._handle, self._epoch)
        self._round = self._epoch = _NEVER_OPENED

    # ---- the operations, once

    def _encrypt(self, key: KeyLocator, plaintext: bytes, aad: bytes) -> Sealed:
        found = self._find(key)
        if not (found.encrypts and found.is_aes_256):
            raise _usage_refused(key, found, "C_Encrypt")
        iv, output = self._seal(key, found.handle, plaintext, aad)
        size = len(plaintext)
        return Sealed(iv, output[:size], output[size:])

    def _seal(self, key: KeyLocator, handle: int, plaintext: bytes, aad: bytes) -> tuple[bytes, bytes]:
        try:
            iv, output = self._gcm.encrypt(handle, plaintext, aad)
            self._guard.check(key, iv, self._connection.profile.iv_length)
        except BadIv as bad:
            # Random bytes of the same source wait in every session: none of them becomes an IV of another key.
            self._connection.renew_sessions()
            self._suspect(faults.IvUnsafe(bad.message))
            self._guard.stop(key, bad.message)
        return iv, output

    def _decrypt(self, key: KeyLocator, sealed: Sealed, aad: bytes) -> bytes:
        found = self._find(key)
        if not (found.decrypts and found.is_aes_256):
            raise _usage_refused(key, found, "C_Decrypt")
        iv, ciphertext, tag = sealed
        if len(tag) != TAG_BYTES:
            raise faults.CiphertextRejected(f"the authentication tag has {len(tag)} bytes instead of {TAG_BYTES}")
        if len(iv) not in _IV_LENGTHS:
            raise faults.CiphertextRejected(f"the IV has {len(iv)} bytes; Encrypt gives 12 or 16")
        return self._gcm.decrypt(found.handle, iv, ciphertext + tag, aad)

    def _require_size(self, data: bytes, aad: bytes) -> None:
        limit = self._connection.profile.data_limit
        if limit is not None and (len(data) > limit or len(aad) > limit):
            raise faults.DataTooLarge(
                f"the module takes at most {limit} bytes, the request has {len(data)} of data and {len(aad)} of AAD"
            )

    # ---- finding the key, and having it prove itself

    def _find(self, key: KeyLocator) -> FoundHandle:
        found = self._connection.handles.cached(key)
        if found is not None and key.canary in found.confirmed:
            return found
        handles = self._connection.handles
        version = handles.version
        if found is None:
            found = self._look_up(key)
            if key != self._connection.health_key:
                self._require_confined(key, found)
        canary, settled = (None, True) if key == self._connection.health_key else self._confirm(key, found)
        if settled:
            # A canary that was just made has been opened too: it is not asked for when the catalog gives it back.
            found.confirmed.update((key.canary, canary))
        handles.keep(KeyLocator(key.label, key.id, canary), found, version)
        return found

    def _look_up(self, key: KeyLocator) -> FoundHandle:
        """The object. That it is missing, or that its attributes cannot be read, is believed after a second look."""
        connection = self._connection
        try:
            found = find_one(connection.cryptoki, self._handle, key)
        except KeyNotFound:
            self._require_really_missing(key)
            try:
                found = find_one(connection.cryptoki, self._handle, key)
            except KeyNotFound:
                connection.handles.miss(key)
                raise
        if found.unread:
            found = read_key(connection.cryptoki, self._handle, found.handle)
        if found.unread:
            raise self._unreadable(key, found)
        return found

    def _require_really_missing(self, key: KeyLocator) -> None:
        """Raises HsmUnavailable where "not found" says more about the HSM than about the key."""
        connection = self._connection
        if not self._health_key():
            raise self._unwell(f"the token does not show the health key, nor the key {key.label!r}")
        vanished = connection.handles.vanished_at(key)
        if vanished is not None and connection.proven_since < vanished:
            raise self._unwell(f"the key {key.label!r} was on the token a moment ago, and is not found any more")

    def _unreadable(self, key: KeyLocator, found: FoundHandle) -> HsmFault:
        connection = self._connection
        what = f"the token does not show {' and '.join(found.unread)} of the key {key.label!r}"
        health = self._health_key()
        if not health or read_key(connection.cryptoki, self._handle, health[0]).unread:
            return self._unwell(what)
        return faults.ModuleFailed(f"{what}, although it does for the health key")

    def _health_key(self) -> list[int]:
        connection = self._connection
        template = template_of(connection.health_key.label, None)
        return connection.cryptoki.find_objects(self._handle, template, limit=1)

    def _unwell(self, message: str) -> HsmFault:
        fault = faults.HsmUnavailable(f"{message}: the HSM or its library does not work properly")
        self._drop()
        self._suspect(fault)
        return fault

    def _require_confined(self, key: KeyLocator, found: FoundHandle) -> None:
        reason = why_it_may_leave(found.attributes)
        if reason and not self._connection.allow_extractable:
            raise self._distrust(
                key,
                f"the key {key.label!r} is not used: {reason}. Make another key with `holdfast key create`, or accept"
                " copies outside the HSM by `allow_extractable = true` in this HSM's table",
            )

    def _confirm(self, key: KeyLocator, found: FoundHandle) -> tuple[bytes | None, bool]:
        """Have the object open the key's canary, or make one where there is none. Raises KeyUntrusted.

        The canary that the object has opened or made, and whether the next use need not ask again.
        """
        if key.canary is None:
            return self._make_canary(key, found)
        if not found.decrypts:
            raise self._distrust(key, f"{_NOT_THE_KEY.format(key.label)}: it does not permit C_Decrypt. {_REBIND}")
        if not canary_opens(self._gcm, found.handle, key.canary, self._connection.profile):
            raise self._not_the_key(key)
        return key.canary, True

    def _not_the_key(self, key: KeyLocator) -> HsmFault:
        """The canary did not open: another key, if the health key's still opens; else the HSM does not work."""
        if not self._health_canary_opens():
            return self._unwell(f"neither the canary of the key {key.label!r} nor that of the health key opens")
        return self._distrust(key, f"{_NOT_THE_KEY.format(key.label)}: it does not open its canary. {_REBIND}")

    def _distrust(self, key: KeyLocator, reason: str) -> HsmFault:
        self._connection.handles.distrust(key, reason)
        return faults.KeyUntrusted(reason)

    def _make_canary(self, key: KeyLocator, found: FoundHandle) -> tuple[bytes | None, bool]:
        """For a key that was registered before there were canaries. A key for tests may do too little for one."""
        keeper = self._connection.canaries
        if keeper is None or not (found.encrypts and found.decrypts and found.is_aes_256):
            return None, True
        permitted = keeper.may_make(key)
        if not permitted:
            return None, permitted is False
        try:
            canary = self._sealed_canary(key, found)
        except (CkrError, HsmFault):
            keeper.failed(key)
            raise
        if canary is not None:
            keeper.made(key, canary)
        return canary, True

    def _sealed_canary(self, key: KeyLocator, found: FoundHandle) -> bytes | None:
        """None: the HSM does not permit it for this key, which may still do what the request asks for."""
        try:
            iv, sealed = self._twice(lambda: self._seal(key, found.handle, CANARY_TEXT, CANARY_AAD))
            canary = iv + sealed
            # One that was damaged on its way would condemn the key later.
            if not self._twice(lambda: canary_opens(self._gcm, found.handle, canary, self._connection.profile)):
                raise self._damaged(key)
        except CkrError as error:
            if self._verdict(error) in _BLAMING:
                return None
            raise
        return canary

    def _twice(self, work: Callable[[], T]) -> T:
        """A refusal is believed the second time."""
        try:
            return work()
        except CkrError as error:
            if self._verdict(error) not in _BLAMING:
                raise
            return work()

    def _damaged(self, key: KeyLocator) -> HsmFault:
        fault = faults.ModuleFailed(f"what the key {key.label!r} has just encrypted does not decrypt")
        self._drop()
        self._suspect(fault)
        return fault

    def _confirm_again(self, key: KeyLocator) -> None:
        handles = self._connection.handles
        handles.look_again(key)
        found = handles.cached(key)
        if found is not None and key.canary in found.confirmed:
            self._confirm(key, found)
        else:
            self._find(key)

    # ---- what is tried again

    def _again(self, error: CkrError, key: KeyLocator, operation: Callable[[], T], size: int = 0) -> T:
        """The operation's result at another attempt, or the fault. `size`: bytes of the request's data."""
        tried: set[Verdict] = set()
        while True:
            found = self._verdict(error)
            if found in tried or not self._may_pass(error, found):
                raise self._judge(error, found, key, size) from None
            tried.add(found)
            try:
                self._repair(error, found, key)
                return operation()
            except CkrError as next_error:
                # Where the key was only to be confirmed, the request's own failure is the one to tell.
                confirms = isinstance(next_error, ConfirmationFailed)
                error = error if confirms and self._verdict(next_error) is found else next_error

    def _may_pass(self, error: CkrError, found: Verdict) -> bool:
        if found is Verdict.DEVICE:
            # CloudHSM reports throttling so (docs/how-to/cloudhsm.md).
            return self._connection.profile.device_error_may_pass and error.ckr == Ckr.DEVICE_ERROR
        if found is Verdict.FAILED:
            return error.ckr in _PASSING
        return found in _BLAMING or found in (Verdict.KEY_GONE, Verdict.SESSION_GONE)

    def _repair(self, error: CkrError, found: Verdict, key: KeyLocator) -> None:
        if found in (Verdict.KEY_GONE, Verdict.KEY_USAGE):
            self._connection.handles.forget(key)
        elif found is Verdict.FAILED:
            self._suspect(fault_of(error))
            self._open()
        elif found is Verdict.SESSION_GONE:
            if error.ckr != Ckr.OPERATION_ACTIVE:
                # Handles of private keys do not outlive the login, and a number may come back for another key.
                self._connection.handles.clear()
                self._suspect(fault_of(error))
            self._open()

    # ---- what it means

    def _verdict(self, error: CkrError) -> Verdict:
        return verdict(error.function, error.ckr, ambiguous_bad_tag=self._connection.profile.ambiguous_bad_tag)

    def _judge(self, error: CkrError, found: Verdict, key: KeyLocator, size: int) -> HsmFault:
        """The fault of an operation that will not be tried again."""
        if isinstance(error, ConfirmationFailed) and found in _BLAMING:
            return self._fault(error, Verdict.REFUSED)
        if found not in (Verdict.CIPHERTEXT, Verdict.CIPHERTEXT_LENGTH):
            return self._fault(error, found)
        try:
            if found is Verdict.CIPHERTEXT_LENGTH and not self._takes(size) and self._health_canary_opens():
                return fault_of(error, faults.DataTooLarge)
            if key.canary is None or key == self._connection.health_key:
                proven = self._health_canary_opens()
            else:
                handle = self._find(key).handle
                proven = canary_opens(self._gcm, handle, key.canary, self._connection.profile)
                if not proven:
                    return self._not_the_key(key)
        except CkrError:
            proven = False
        except HsmFault as fault:
            return fault
        return fault_of(error, faults.CiphertextRejected) if proven else self._fault(error, Verdict.FAILED)

    def _takes(self, size: int) -> bool:
        """Whether the module encrypts and decrypts so many bytes, under the health key, which protects nothing."""
        handle = self._find(self._connection.health_key).handle
        text = bytes(size)
        try:
            iv, sealed = self._gcm.encrypt(handle, text, PROBE_AAD)
            return self._gcm.decrypt(handle, iv, sealed, PROBE_AAD) == text
        except (CkrError, BadIv):
            return False

    def _health_canary_opens(self) -> bool:
        """Whether the health key still decrypts on this session: then the module works."""
        connection = self._connection
        sealed = connection.health_canary
        if sealed is None:
            return False
        try:
            handle = self._find(connection.health_key).handle
            output = sealed.ciphertext + sealed.authentication_tag
            return self._gcm.decrypt(handle, sealed.initialization_vector, output, PROBE_AAD) == PROBE_TEXT
        except (CkrError, HsmFault):
            return False

    def _fault(self, error: CkrError, found: Verdict) -> HsmFault:
        fault = fault_of(error, FAULTS[found])
        if found in _DOUBTFUL:
            self._drop()
            self._suspect(fault)
        return fault


_NOT_THE_KEY: Final = "the object that is found as {!r} is not the key that was registered"
_REBIND: Final = (
    "Restore the key from the HSM's backup; if it is on the token under another label or CKA_ID,"
    " `holdfast key rebind KEYSTORE KEY` finds it"
)


def fault_of(error: CkrError, kind: type[HsmFault] = faults.ModuleFailed) -> HsmFault:
    """The fault that names the C_ call and its CKR_ value."""
    return kind(str(error), cause=NativeCall(error.function, error.ckr))


def _usage_refused(key: KeyLocator, found: FoundHandle, function: str) -> HsmFault:
    if not found.is_aes_256:
        return faults.KeyUsageRefused(f"the key {key.label!r} is {found.attributes.key_spec}, and KMS needs AES_256")
    return faults.KeyUsageRefused(f"the attributes of the key {key.label!r} do not permit {function}")
