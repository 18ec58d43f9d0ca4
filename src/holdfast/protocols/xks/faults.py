"""The one bridge between the faults of the layers below and the wire's error names."""

from holdfast.hsm import faults
from holdfast.keys.budget import CountUnavailable, EncryptionLimitReached
from holdfast.policy.faults import AccessDenied
from holdfast.protocols.xks.event import RecordUnavailable
from holdfast.xks.errors import ErrorName, XksError

_KEY_MANAGER_FAILED = (ErrorName.INTERNAL, "the external key manager failed; the proxy's event log says how")
_TOO_SLOW = (ErrorName.DEPENDENCY_TIMEOUT, "a dependency of the proxy did not answer in time")
_USED_UP = (ErrorName.INVALID_STATE, "the external key has reached its limit of encryptions; it still decrypts")
_UNSUPPORTED = (
    ErrorName.UNSUPPORTED_OPERATION,
    "the external key manager does not support this operation or size",
)

WIRE: dict[type[Exception], tuple[ErrorName, str]] = {
    faults.KeyNotFound: (ErrorName.KEY_NOT_FOUND, "the external key is not in the external key manager"),
    faults.KeyAmbiguous: _KEY_MANAGER_FAILED,
    faults.KeyUntrusted: _KEY_MANAGER_FAILED,
    faults.KeyUsageRefused: (ErrorName.INVALID_KEY_USAGE, "the external key does not support this operation"),
    faults.CiphertextRejected: (
        ErrorName.INVALID_CIPHERTEXT,
        "the ciphertext, initialization vector, AAD or authentication tag is invalid",
    ),
    faults.MechanismUnsupported: _UNSUPPORTED,
    faults.DataTooLarge: _UNSUPPORTED,
    faults.HsmBusy: (ErrorName.THROTTLING, "the proxy cannot serve this request in time; send fewer requests"),
    faults.HsmTimeout: _TOO_SLOW,
    faults.HsmUnavailable: _TOO_SLOW,
    faults.LoginRefused: _KEY_MANAGER_FAILED,
    faults.ModuleFailed: _KEY_MANAGER_FAILED,
    faults.IvUnsafe: _KEY_MANAGER_FAILED,
    faults.KeyStopped: _KEY_MANAGER_FAILED,
    faults.KeyExhausted: _USED_UP,
    EncryptionLimitReached: _USED_UP,
    CountUnavailable: _TOO_SLOW,
    AccessDenied: (
        ErrorName.ACCESS_DENIED,
        "the policies of the external key manager do not permit this; its event log names them",
    ),
    RecordUnavailable: _TOO_SLOW,
}
"""The error's name and the sentence for the caller. Total: a test walks every fault that exists."""


def to_xks_error(fault: Exception) -> XksError:
    """What the caller gets for a fault of WIRE.

    The fault's own words stay in the event log: they may name labels, slots and policies.
    """
    # A layer may raise a narrower fault than this module knows: it is named as what it is a kind of.
    return XksError(*next(WIRE[kind] for kind in type(fault).__mro__ if kind in WIRE))
