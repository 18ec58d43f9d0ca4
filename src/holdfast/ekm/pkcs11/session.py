"""One session: the operations on keys, and what is tried again when they fail."""

from collections.abc import Callable
from typing import Final, TypeVar

from holdfast.ekm import faults
from holdfast.ekm.faults import EkmFault, NativeCall
from holdfast.ekm.pkcs11 import ckr
from holdfast.ekm.pkcs11.ckr import Verdict, verdict
from holdfast.ekm.pkcs11.connection import Connection
from holdfast.ekm.pkcs11.cryptoki import CkrError
from holdfast.ekm.pkcs11.gcm import TAG_BYTES, GcmChannel
from holdfast.ekm.pkcs11.handles import FoundHandle
from holdfast.ekm.pkcs11.iv import BadIv, IvGuard
from holdfast.ekm.pkcs11.iv_probe import PROBE_AAD, PROBE_TEXT
from holdfast.ekm.pkcs11.token import TokenMissing
from holdfast.ekm.port import KeyAttributes, KeyLocator, Sealed

T = TypeVar("T")

_NEVER_OPENED: Final = -1


class Session:
    """Implements KeySession. Used by one thread at a time, which is inside the module.

    `suspect` is told when the device, not the request, seems to be at fault. `encryptions` and `decryptions`
    count what succeeded. `guard` is told of every IV, and stops keys.
    """

    def __init__(self, connection: Connection, suspect: Callable[[EkmFault], None], guard: IvGuard) -> None:
        self.encryptions = 0
        self.decryptions = 0
        self._connection = connection
        self._suspect = suspect
        self._guard = guard
        self._generation = _NEVER_OPENED
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
            sealed = self._again(error, key, lambda: self._encrypt(key, plaintext, aad))
        self.encryptions += 1
        return sealed

    def decrypt(self, key: KeyLocator, sealed: Sealed, aad: bytes) -> bytes:
        """The plaintext, or CiphertextRejected."""
        self._require_size(sealed.ciphertext, aad)
        try:
            plaintext = self._decrypt(key, sealed, aad)
        except CkrError as error:
            plaintext = self._again(error, key, lambda: self._decrypt(key, sealed, aad))
        self.decryptions += 1
        return plaintext

    def describe(self, key: KeyLocator) -> KeyAttributes:
        """The key's type, length and permissions; cached per module epoch."""
        try:
            return self._find(key).attributes
        except CkrError as error:
            return self._again(error, key, lambda: self._find(key).attributes)

    # ---- opening and closing

    def prepare(self) -> None:
        """Open the session if it is not, or not any more. Raises EkmFault."""
        connection = self._connection
        if self._generation == connection.generation and self._epoch == connection.module.epoch:
            return
        try:
            connection.ensure()
            self._open()
        except CkrError as error:
            raise self._fault(error, self._verdict(error)) from None
        except TokenMissing as missing:
            raise faults.HsmUnavailable(missing.message) from None

    def verify(self) -> None:
        """After a call that hung: C_GetSessionInfo; a session that does not answer is opened anew on next use."""
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
        generation, epoch = connection.generation, connection.module.epoch
        self._handle = connection.open_session()
        self._gcm = GcmChannel(connection.cryptoki, self._handle, connection.profile)
        self._generation, self._epoch = generation, epoch

    def _drop(self) -> None:
        if self._epoch != _NEVER_OPENED:
            self._connection.close_session(self._handle, self._epoch)
        self._generation = self._epoch = _NEVER_OPENED

    # ---- the operations, once

    def _encrypt(self, key: KeyLocator, plaintext: bytes, aad: bytes) -> Sealed:
        found = self._find(key)
        if not (found.encrypts and found.is_aes_256):
            raise _usage_refused(key, found, "C_Encrypt")
        try:
            iv, output = self._gcm.encrypt(found.handle, plaintext, aad)
            self._guard.check(key, iv, self._connection.profile.iv_length)
        except BadIv as bad:
            # Random bytes of the same source wait in every session: none of them becomes an IV of another key.
            self._connection.renew_sessions()
            self._suspect(faults.IvUnsafe(bad.message))
            self._guard.stop(key, bad.message)
        size = len(plaintext)
        return Sealed(iv, output[:size], output[size:])

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

    def _find(self, key: KeyLocator) -> FoundHandle:
        return self._connection.handles.find(self._handle, key)

    def _require_size(self, data: bytes, aad: bytes) -> None:
        limit = self._connection.profile.data_limit
        if limit is not None and (len(data) > limit or len(aad) > limit):
            raise faults.DataTooLarge(
                f"the module takes at most {limit} bytes, the request has {len(data)} of data and {len(aad)} of AAD"
            )

    # ---- what is tried again

    def _again(self, error: CkrError, key: KeyLocator, operation: Callable[[], T]) -> T:
        tried: set[Verdict] = set()
        while True:
            found = self._verdict(error)
            if found in tried or not self._may_pass(error, found):
                raise self._fault(error, found) from None
            tried.add(found)
            try:
                self._repair(error, found, key)
                return operation()
            except CkrError as next_error:
                error = next_error

    def _may_pass(self, error: CkrError, found: Verdict) -> bool:
        if found is Verdict.DEVICE:
            # CloudHSM reports throttling so (hsm-facts, section 2).
            return self._connection.profile.device_error_may_pass and error.ckr == ckr.DEVICE_ERROR
        return found in (Verdict.KEY_GONE, Verdict.SESSION_GONE)

    def _repair(self, error: CkrError, found: Verdict, key: KeyLocator) -> None:
        if found is Verdict.KEY_GONE:
            self._connection.handles.forget(key)
        elif found is Verdict.SESSION_GONE:
            if error.ckr != ckr.OPERATION_ACTIVE:
                # Handles of private keys do not outlive the login, and a number may come back for another key.
                self._connection.handles.clear()
                self._suspect(fault_of(error))
            self._open()

    # ---- what it means

    def _verdict(self, error: CkrError) -> Verdict:
        ambiguous = self._connection.profile.ambiguous_bad_tag
        found = verdict(error.function, error.ckr, ambiguous_bad_tag=ambiguous)
        if found is not Verdict.CIPHERTEXT_PERHAPS:
            return found
        return Verdict.CIPHERTEXT if self._canary_opens() else Verdict.FAILED

    def _canary_opens(self) -> bool:
        """Whether the health key still decrypts on this session: then the module is well, the ciphertext is not."""
        connection = self._connection
        canary = connection.canary
        if canary is None:
            return False
        try:
            found = self._find(connection.health_key)
            sealed = canary.ciphertext + canary.authentication_tag
            plaintext = self._gcm.decrypt(found.handle, canary.initialization_vector, sealed, PROBE_AAD)
        except (CkrError, EkmFault):
            return False
        return plaintext == PROBE_TEXT

    def _fault(self, error: CkrError, found: Verdict) -> EkmFault:
        fault = fault_of(error, FAULTS[found])
        if found is Verdict.DEVICE or error.ckr in (ckr.GENERAL_ERROR, ckr.FUNCTION_FAILED):
            if found is not Verdict.CIPHERTEXT:
                self._drop()
                self._suspect(fault)
        elif found is Verdict.SESSION_GONE or found is Verdict.FAILED:
            # In doubt a session is closed, not used again: an operation may still be active on it.
            self._drop()
            self._suspect(fault)
        return fault


_IV_LENGTHS: Final = (12, 16)
FAULTS: Final[dict[Verdict, type[EkmFault]]] = {
    Verdict.CIPHERTEXT: faults.CiphertextRejected,
    Verdict.CIPHERTEXT_PERHAPS: faults.ModuleFailed,
    Verdict.DATA_TOO_LARGE: faults.DataTooLarge,
    Verdict.KEY_USAGE: faults.KeyUsageRefused,
    Verdict.UNSUPPORTED: faults.MechanismUnsupported,
    Verdict.KEY_GONE: faults.KeyNotFound,
    Verdict.SESSION_GONE: faults.ModuleFailed,
    Verdict.BUSY: faults.HsmBusy,
    Verdict.DEVICE: faults.HsmUnavailable,
    Verdict.LOGIN: faults.LoginRefused,
    Verdict.EXHAUSTED: faults.KeyExhausted,
    Verdict.REFUSED: faults.ModuleFailed,
    Verdict.FAILED: faults.ModuleFailed,
}


def fault_of(error: CkrError, kind: type[EkmFault] = faults.ModuleFailed) -> EkmFault:
    """The fault that names the C_ call and its CKR_ value."""
    return kind(str(error), cause=NativeCall(error.function, error.ckr))


def _usage_refused(key: KeyLocator, found: FoundHandle, function: str) -> EkmFault:
    if not found.is_aes_256:
        return faults.KeyUsageRefused(f"the key {key.label!r} is {found.attributes.key_spec}, and KMS needs AES_256")
    return faults.KeyUsageRefused(f"the attributes of the key {key.label!r} do not permit {function}")
