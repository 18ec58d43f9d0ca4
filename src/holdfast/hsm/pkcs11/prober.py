"""One probe of the HSM, and the steps that bring a lost one back."""

from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Final, TypeVar

from holdfast.hsm.faults import CiphertextRejected, HsmFault, HsmUnavailable, IvUnsafe, KeyNotFound, ModuleFailed
from holdfast.hsm.pkcs11.connection import Connection
from holdfast.hsm.pkcs11.cryptoki import CkrError
from holdfast.hsm.pkcs11.iv_probe import PROBE_AAD, PROBE_TEXT
from holdfast.hsm.pkcs11.session import Session, fault_of

T = TypeVar("T")

_KEYS_PER_PROBE: Final = 16
"""Canaries opened in one probe: a tenth of a second where a decryption takes 5 ms."""
_GATE: Final = 1.0
_PATIENCE: Final = 0.2
_RELOAD_PATIENCE: Final = 2.0


class Prober:
    """Used by one thread at a time, with its own session. Every method blocks."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._module = connection.module
        self._presence = self._module.presence()
        # What fails here is judged by the caller; a further probe needs no request.
        self._session = Session(connection, lambda _: None, connection.probe_guard)
        self._turn = 0

    def probe(self, *, reload: bool) -> str:
        """Encrypt and decrypt under the health key, after recovery if need be; a remark, or nothing.

        Raises HsmFault while the HSM is of no use.
        """
        remark = self._reload() if reload else ""
        began = monotonic()
        try:
            remark = self._inside(self._round_trip) or remark
        except (HsmUnavailable, ModuleFailed, KeyNotFound):
            began = monotonic()
            remark = self._recover() or remark
        self._module.is_well(self._connection)
        self._connection.proven_since = began
        self._inside(self._confirm_keys)
        return remark

    def _confirm_keys(self) -> None:
        """Have some of the keys in use open their canaries, in turn; and those that were refused, once more."""
        handles = self._connection.handles
        used = handles.watched()
        turn = [used[(self._turn + i) % len(used)] for i in range(min(_KEYS_PER_PROBE, len(used)))]
        self._turn += len(turn)
        refused = [key for key in handles.untrusted if key.canary is not None]
        for key in (*turn, *refused[:_KEYS_PER_PROBE]):
            # What does not open is remembered with the handles; a device that fails is for the next probe.
            with suppress(HsmFault):
                self._session.prepare()
                self._session.confirm(key)

    def close(self) -> None:
        """Close the session, if the module is not being initialized again."""
        if self._module.enter(self._presence, monotonic()):
            self._session.close()
            self._module.leave(self._presence)
        self._module.forget(self._presence)

    def _recover(self) -> str:
        """New sessions and a new login; then another C_Initialize."""
        epoch = self._module.epoch
        self._connection.invalidate()
        try:
            return self._inside(self._round_trip)
        except (HsmUnavailable, ModuleFailed, KeyNotFound):
            if not self._module.may_reinitialize(self._connection, monotonic()):
                raise
            self._reinitialize(epoch, _PATIENCE)
            return self._inside(self._round_trip)

    def _reload(self) -> str:
        try:
            self._reinitialize(self._module.epoch, _RELOAD_PATIENCE)
        except HsmFault as fault:
            return f"keys were not reloaded: {fault.message}"
        return ""

    def _reinitialize(self, epoch: int, patience: float) -> None:
        try:
            self._module.reinitialize(epoch, patience=patience)
        except CkrError as error:
            raise fault_of(error, HsmUnavailable) from None

    def _round_trip(self) -> str:
        session, key = self._session, self._connection.health_key
        session.prepare()
        try:
            self._connection.keep_anchor()
        except CkrError as error:
            raise fault_of(error, HsmUnavailable) from None
        remark = ""
        try:
            sealed = session.encrypt(key, PROBE_TEXT, PROBE_AAD)
        except IvUnsafe:
            # The next probe tries again: an HSM whose health key stayed stopped would never be probed again.
            reason = self._connection.probe_guard.release(key)
            # Decrypt goes on: keys whose ciphertexts exist must stay readable.
            canary = self._connection.health_canary
            if canary is None:
                raise
            sealed, remark = canary, f"the HSM's IVs are not safe: {reason}"
        try:
            plaintext = session.decrypt(key, sealed, PROBE_AAD)
        except CiphertextRejected as fault:
            raise ModuleFailed("the health key does not decrypt what it encrypted", cause=fault.cause) from None
        if plaintext != PROBE_TEXT:
            raise ModuleFailed("the health key decrypts to something else than was encrypted")
        return remark

    def _inside(self, work: Callable[[], T]) -> T:
        if not self._module.enter(self._presence, monotonic() + _GATE):
            raise HsmUnavailable("the module is being initialized again")
        try:
            return work()
        finally:
            self._module.leave(self._presence)
