"""The one bridge between the faults of the layers below and the wire's error names."""

from holdfast.hsm import faults
from holdfast.keys.budget import CountUnavailable, EncryptionLimitReached
from holdfast.policy.faults import AccessDenied
from holdfast.protocols.xks.event import RecordUnavailable
from holdfast.xks.errors import ErrorName, XksError

NAMES: dict[type[Exception], ErrorName] = {
    faults.KeyNotFound: ErrorName.KEY_NOT_FOUND,
    faults.KeyAmbiguous: ErrorName.INTERNAL,
    faults.KeyUntrusted: ErrorName.INTERNAL,
    faults.KeyUsageRefused: ErrorName.INVALID_KEY_USAGE,
    faults.CiphertextRejected: ErrorName.INVALID_CIPHERTEXT,
    faults.MechanismUnsupported: ErrorName.UNSUPPORTED_OPERATION,
    faults.DataTooLarge: ErrorName.UNSUPPORTED_OPERATION,
    faults.HsmBusy: ErrorName.THROTTLING,
    faults.HsmTimeout: ErrorName.DEPENDENCY_TIMEOUT,
    faults.HsmUnavailable: ErrorName.DEPENDENCY_TIMEOUT,
    faults.LoginRefused: ErrorName.INTERNAL,
    faults.ModuleFailed: ErrorName.INTERNAL,
    faults.IvUnsafe: ErrorName.INTERNAL,
    faults.KeyStopped: ErrorName.INTERNAL,
    faults.KeyExhausted: ErrorName.INVALID_STATE,
    EncryptionLimitReached: ErrorName.INVALID_STATE,
    CountUnavailable: ErrorName.DEPENDENCY_TIMEOUT,
    AccessDenied: ErrorName.ACCESS_DENIED,
    RecordUnavailable: ErrorName.DEPENDENCY_TIMEOUT,
}
"""Total: a test walks every fault that exists."""

_MESSAGES = {
    ErrorName.ACCESS_DENIED: "the policies of the external key manager do not permit this; its event log names them",
    ErrorName.INVALID_STATE: "the external key has reached its limit of encryptions; it still decrypts",
    ErrorName.INVALID_CIPHERTEXT: "the ciphertext, initialization vector, AAD or authentication tag is invalid",
    ErrorName.INVALID_KEY_USAGE: "the external key does not support this operation",
    ErrorName.KEY_NOT_FOUND: "the external key is not in the external key manager",
    ErrorName.THROTTLING: "the proxy cannot serve this request in time; send fewer requests",
    ErrorName.UNSUPPORTED_OPERATION: "the external key manager does not support this operation or size",
    ErrorName.DEPENDENCY_TIMEOUT: "a dependency of the proxy did not answer in time",
    ErrorName.INTERNAL: "the external key manager failed; the proxy's event log says how",
}


def to_xks_error(fault: Exception) -> XksError:
    """What the caller gets for a fault of NAMES.

    The fault's own words stay in the event log: they may name labels, slots and policies.
    """
    # A layer may raise a narrower fault than this module knows: it is named as what it is a kind of.
    name = next(NAMES[kind] for kind in type(fault).__mro__ if kind in NAMES)
    return XksError(name, _MESSAGES[name])
