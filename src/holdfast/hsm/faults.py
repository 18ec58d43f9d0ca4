"""What an external key manager can report. It never speaks the wire's error names; `operations` translates."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NativeCall:
    """The C_ call that failed and its CKR_ value, for the event log."""

    function: str
    ckr: int


class HsmFault(Exception):
    """A refusal or failure of the external key manager. `cause` names the C_ call, where one was made."""

    def __init__(self, message: str, *, cause: NativeCall | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.cause = cause


class KeyNotFound(HsmFault):
    """No object of the token matches the key's locator."""


class KeyAmbiguous(HsmFault):
    """More than one object matches: it is not known which one a ciphertext needs."""


class KeyUntrusted(HsmFault):
    """The object found is not the key that was registered, or it may leave the HSM and the settings forbid that."""


class KeyUsageRefused(HsmFault):
    """The key's attributes, type or size do not permit the operation."""


class CiphertextRejected(HsmFault):
    """AES-GCM did not authenticate: ciphertext, IV, AAD or tag is not what Encrypt produced."""


class MechanismUnsupported(HsmFault):
    """The module does not implement the mechanism."""


class DataTooLarge(HsmFault):
    """Plaintext, ciphertext or AAD is over the module's limit."""


class HsmBusy(HsmFault):
    """No session came free in time, the queue is full, or the module is out of sessions or memory."""


class HsmTimeout(HsmFault):
    """The module did not answer before the deadline."""


class HsmUnavailable(HsmFault):
    """The module, token or session is gone, and the circuit breaker may be open."""


class LoginRefused(HsmFault):
    """The token refused the PIN. It is not tried again: tokens lock after a few attempts."""


class ModuleFailed(HsmFault):
    """Any other CKR_ value."""


class IvUnsafe(HsmFault):
    """The IV that came back is all zero, unchanged, repeated or of a wrong length. The key stops encrypting."""


class KeyStopped(HsmFault):
    """A stop is recorded for the key, and a person must release it. It still decrypts."""


class KeyExhausted(HsmFault):
    """The key has reached its limit of encryptions (NIST SP 800-38D, 8.3)."""
