"""The return values of PKCS#11: what each means for an operation and its session, and what a person can do."""

from collections.abc import Set as AbstractSet
from enum import Enum, IntEnum, auto
from typing import Final, NamedTuple


class Ckr(IntEnum):
    """The CKR_ values by name, without the prefix. Source: OASIS PKCS#11 3.2, pkcs11t.h."""

    OK = 0x000
    CANCEL = 0x001
    HOST_MEMORY = 0x002
    SLOT_ID_INVALID = 0x003
    GENERAL_ERROR = 0x005
    FUNCTION_FAILED = 0x006
    ARGUMENTS_BAD = 0x007
    NO_EVENT = 0x008
    NEED_TO_CREATE_THREADS = 0x009
    CANT_LOCK = 0x00A
    ATTRIBUTE_READ_ONLY = 0x010
    ATTRIBUTE_SENSITIVE = 0x011
    ATTRIBUTE_TYPE_INVALID = 0x012
    ATTRIBUTE_VALUE_INVALID = 0x013
    ACTION_PROHIBITED = 0x01B
    DATA_INVALID = 0x020
    DATA_LEN_RANGE = 0x021
    DEVICE_ERROR = 0x030
    DEVICE_MEMORY = 0x031
    DEVICE_REMOVED = 0x032
    ENCRYPTED_DATA_INVALID = 0x040
    ENCRYPTED_DATA_LEN_RANGE = 0x041
    AEAD_DECRYPT_FAILED = 0x042
    FUNCTION_CANCELED = 0x050
    FUNCTION_NOT_PARALLEL = 0x051
    FUNCTION_NOT_SUPPORTED = 0x054
    KEY_HANDLE_INVALID = 0x060
    KEY_SIZE_RANGE = 0x062
    KEY_TYPE_INCONSISTENT = 0x063
    KEY_NOT_NEEDED = 0x064
    KEY_CHANGED = 0x065
    KEY_NEEDED = 0x066
    KEY_INDIGESTIBLE = 0x067
    KEY_FUNCTION_NOT_PERMITTED = 0x068
    KEY_NOT_WRAPPABLE = 0x069
    KEY_UNEXTRACTABLE = 0x06A
    MECHANISM_INVALID = 0x070
    MECHANISM_PARAM_INVALID = 0x071
    OBJECT_HANDLE_INVALID = 0x082
    OPERATION_ACTIVE = 0x090
    OPERATION_NOT_INITIALIZED = 0x091
    PIN_INCORRECT = 0x0A0
    PIN_INVALID = 0x0A1
    PIN_LEN_RANGE = 0x0A2
    PIN_EXPIRED = 0x0A3
    PIN_LOCKED = 0x0A4
    SESSION_CLOSED = 0x0B0
    SESSION_COUNT = 0x0B1
    SESSION_HANDLE_INVALID = 0x0B3
    SESSION_PARALLEL_NOT_SUPPORTED = 0x0B4
    SESSION_READ_ONLY = 0x0B5
    SESSION_EXISTS = 0x0B6
    SESSION_READ_ONLY_EXISTS = 0x0B7
    SESSION_READ_WRITE_SO_EXISTS = 0x0B8
    SIGNATURE_INVALID = 0x0C0
    SIGNATURE_LEN_RANGE = 0x0C1
    TEMPLATE_INCOMPLETE = 0x0D0
    TEMPLATE_INCONSISTENT = 0x0D1
    TOKEN_NOT_PRESENT = 0x0E0
    TOKEN_NOT_RECOGNIZED = 0x0E1
    TOKEN_WRITE_PROTECTED = 0x0E2
    UNWRAPPING_KEY_HANDLE_INVALID = 0x0F0
    UNWRAPPING_KEY_SIZE_RANGE = 0x0F1
    UNWRAPPING_KEY_TYPE_INCONSISTENT = 0x0F2
    USER_ALREADY_LOGGED_IN = 0x100
    USER_NOT_LOGGED_IN = 0x101
    USER_PIN_NOT_INITIALIZED = 0x102
    USER_TYPE_INVALID = 0x103
    USER_ANOTHER_ALREADY_LOGGED_IN = 0x104
    USER_TOO_MANY_TYPES = 0x105
    WRAPPED_KEY_INVALID = 0x110
    WRAPPED_KEY_LEN_RANGE = 0x112
    WRAPPING_KEY_HANDLE_INVALID = 0x113
    WRAPPING_KEY_SIZE_RANGE = 0x114
    WRAPPING_KEY_TYPE_INCONSISTENT = 0x115
    RANDOM_SEED_NOT_SUPPORTED = 0x120
    RANDOM_NO_RNG = 0x121
    DOMAIN_PARAMS_INVALID = 0x130
    CURVE_NOT_SUPPORTED = 0x140
    BUFFER_TOO_SMALL = 0x150
    SAVED_STATE_INVALID = 0x160
    INFORMATION_SENSITIVE = 0x170
    STATE_UNSAVEABLE = 0x180
    CRYPTOKI_NOT_INITIALIZED = 0x190
    CRYPTOKI_ALREADY_INITIALIZED = 0x191
    MUTEX_BAD = 0x1A0
    MUTEX_NOT_LOCKED = 0x1A1
    NEW_PIN_MODE = 0x1B0
    NEXT_OTP = 0x1B1
    EXCEEDED_MAX_ITERATIONS = 0x1B5
    FIPS_SELF_TEST_FAILED = 0x1B6
    LIBRARY_LOAD_FAILED = 0x1B7
    PIN_TOO_WEAK = 0x1B8
    PUBLIC_KEY_INVALID = 0x1B9
    FUNCTION_REJECTED = 0x200
    TOKEN_RESOURCE_EXCEEDED = 0x201
    OPERATION_CANCEL_FAILED = 0x202
    KEY_EXHAUSTED = 0x203
    PENDING = 0x204
    SESSION_ASYNC_NOT_SUPPORTED = 0x205
    SEED_RANDOM_REQUIRED = 0x206
    OPERATION_NOT_VALIDATED = 0x207
    TOKEN_NOT_INITIALIZED = 0x208
    PARAMETER_SET_NOT_SUPPORTED = 0x209


VENDOR_DEFINED: Final = 0x80000000


class Verdict(Enum):
    """What a return value means for the operation and for the session it came from."""

    CIPHERTEXT = auto()
    """The ciphertext did not authenticate, or the module failed: `Session` settles which. Of C_Decrypt only."""
    CIPHERTEXT_LENGTH = auto()
    """As CIPHERTEXT, or the module does not take data of this length. Of C_Decrypt only."""
    DATA_TOO_LARGE = auto()
    KEY_USAGE = auto()
    UNSUPPORTED = auto()
    KEY_GONE = auto()
    """The cached handle is stale: find the key again, once."""
    SESSION_GONE = auto()
    """A new session and a login, then once more."""
    BUSY = auto()
    DEVICE = auto()
    """The device, the token or the library's connection is gone: recovery."""
    LOGIN = auto()
    """The PIN was refused: never tried again."""
    EXHAUSTED = auto()
    REFUSED = auto()
    """This call, by a module that works: the session is good."""
    FAILED = auto()
    """Anything else. The session may be left in any state."""


class Meaning(NamedTuple):
    """One row of the table. `advice` is one or two sentences for the person who runs the service."""

    verdict: Verdict
    advice: str


_LOGS: Final = "Look at the HSM's own log and ask its vendor what this code means there."
_DOCTOR: Final = "Run `holdfast doctor`: it tries the settings that this module may need."
_PIN: Final = "Compare the PIN with the token's (one newline at the end of a PIN file is dropped), then restart."
_DEVICE: Final = (
    "Check the HSM, its network or slot, and the vendor's service on this host. Holdfast reconnects by itself."
)
_SESSIONS: Final = (
    "Lower `sessions` (it counts per worker: `sessions` times `workers` must fit into the token's limit), or close"
    " the sessions of other programs."
)
_MEMORY: Final = "The module is out of memory or other resources: lower `sessions` or the load, and look at its log."
_ATTRIBUTES: Final = "Look at the key's attributes with the HSM's own tool, or run `holdfast doctor`."
_LAYOUT: Final = (
    "The module refuses the AES-GCM parameters: `iv_mode`, `iv_bits` (true or false) or `gcm_parameter_bytes`"
    " (40 or 48) may need another value. `holdfast doctor` tries them all and says which work."
)
_SESSION_GONE: Final = (
    "The session ended, and Holdfast opens another. If this repeats, look for a card that is pulled, or a service of"
    " the vendor that restarts."
)
_OTHER: Final = f"Holdfast makes no call that returns this. {_LOGS}"
_CIPHERTEXT: Final = "The ciphertext, its IV, tag or AAD was changed, or it was made under another key."

_MEANINGS: Final[dict[Ckr, Meaning]] = {
    Ckr.OK: Meaning(Verdict.FAILED, "The call succeeded."),
    Ckr.CANCEL: Meaning(Verdict.FAILED, _LOGS),
    Ckr.HOST_MEMORY: Meaning(Verdict.BUSY, "The PKCS#11 library is out of memory on this host: free some."),
    Ckr.SLOT_ID_INVALID: Meaning(
        Verdict.FAILED, "The slot has gone or was renumbered: choose the token by label or serial."
    ),
    Ckr.GENERAL_ERROR: Meaning(
        Verdict.FAILED, "The library failed without a reason: check its configuration file and its log."
    ),
    Ckr.FUNCTION_FAILED: Meaning(
        Verdict.FAILED, "The HSM failed without a reason: check that the vendor's service runs, and its log."
    ),
    Ckr.ARGUMENTS_BAD: Meaning(Verdict.REFUSED, _LAYOUT),
    Ckr.NO_EVENT: Meaning(Verdict.FAILED, _OTHER),
    Ckr.NEED_TO_CREATE_THREADS: Meaning(
        Verdict.FAILED, "The library must create threads of its own: check the limits on threads of the service."
    ),
    Ckr.CANT_LOCK: Meaning(Verdict.FAILED, "The library cannot lock: Holdfast then makes one call at a time."),
    Ckr.ATTRIBUTE_READ_ONLY: Meaning(Verdict.FAILED, f"The token fixes an attribute of new keys. {_ATTRIBUTES}"),
    Ckr.ATTRIBUTE_SENSITIVE: Meaning(Verdict.FAILED, f"The token does not show this attribute. {_ATTRIBUTES}"),
    Ckr.ATTRIBUTE_TYPE_INVALID: Meaning(Verdict.FAILED, f"The token has no such attribute. {_ATTRIBUTES}"),
    Ckr.ATTRIBUTE_VALUE_INVALID: Meaning(
        Verdict.FAILED, "The token refuses an attribute of a new key: make it with the HSM's own tool."
    ),
    Ckr.ACTION_PROHIBITED: Meaning(Verdict.FAILED, "The token's policy forbids this action: look at its policy."),
    Ckr.DATA_INVALID: Meaning(Verdict.REFUSED, _CIPHERTEXT),
    Ckr.DATA_LEN_RANGE: Meaning(Verdict.REFUSED, "The data are longer than the module takes: look for its limit."),
    Ckr.DEVICE_ERROR: Meaning(Verdict.DEVICE, _DEVICE),
    Ckr.DEVICE_MEMORY: Meaning(Verdict.BUSY, _MEMORY),
    Ckr.DEVICE_REMOVED: Meaning(Verdict.DEVICE, _DEVICE),
    Ckr.ENCRYPTED_DATA_INVALID: Meaning(Verdict.REFUSED, _CIPHERTEXT),
    Ckr.ENCRYPTED_DATA_LEN_RANGE: Meaning(
        Verdict.REFUSED, "The ciphertext is longer than the module takes: look for its limit."
    ),
    Ckr.AEAD_DECRYPT_FAILED: Meaning(Verdict.REFUSED, _CIPHERTEXT),
    Ckr.FUNCTION_CANCELED: Meaning(Verdict.FAILED, _LOGS),
    Ckr.FUNCTION_NOT_PARALLEL: Meaning(Verdict.FAILED, _OTHER),
    Ckr.FUNCTION_NOT_SUPPORTED: Meaning(
        Verdict.UNSUPPORTED, "The module does not have this function: update its client software and firmware."
    ),
    Ckr.KEY_HANDLE_INVALID: Meaning(
        Verdict.KEY_GONE, "The key's handle went stale. Check that the key is on the token, and the HSM's health."
    ),
    Ckr.KEY_SIZE_RANGE: Meaning(Verdict.KEY_USAGE, f"The module refuses the key's size. {_ATTRIBUTES}"),
    Ckr.KEY_TYPE_INCONSISTENT: Meaning(Verdict.KEY_USAGE, f"The key is not an AES key. {_ATTRIBUTES}"),
    Ckr.KEY_NOT_NEEDED: Meaning(Verdict.FAILED, _OTHER),
    Ckr.KEY_CHANGED: Meaning(Verdict.FAILED, _OTHER),
    Ckr.KEY_NEEDED: Meaning(Verdict.FAILED, _OTHER),
    Ckr.KEY_INDIGESTIBLE: Meaning(Verdict.FAILED, _OTHER),
    Ckr.KEY_FUNCTION_NOT_PERMITTED: Meaning(
        Verdict.KEY_USAGE, f"The key's attributes or access control list forbid the operation. {_ATTRIBUTES}"
    ),
    Ckr.KEY_NOT_WRAPPABLE: Meaning(Verdict.FAILED, _OTHER),
    Ckr.KEY_UNEXTRACTABLE: Meaning(Verdict.FAILED, _OTHER),
    Ckr.MECHANISM_INVALID: Meaning(
        Verdict.UNSUPPORTED, "The token does not offer AES-GCM: look at its firmware, its policy and `mechanism`."
    ),
    Ckr.MECHANISM_PARAM_INVALID: Meaning(Verdict.REFUSED, _LAYOUT),
    Ckr.OBJECT_HANDLE_INVALID: Meaning(
        Verdict.KEY_GONE, "The key's handle went stale. Check that the key is on the token, and the HSM's health."
    ),
    Ckr.OPERATION_ACTIVE: Meaning(Verdict.SESSION_GONE, _SESSION_GONE),
    Ckr.OPERATION_NOT_INITIALIZED: Meaning(Verdict.FAILED, _LOGS),
    Ckr.PIN_INCORRECT: Meaning(Verdict.LOGIN, _PIN),
    Ckr.PIN_INVALID: Meaning(Verdict.LOGIN, f"The PIN has characters that this token does not take. {_PIN}"),
    Ckr.PIN_LEN_RANGE: Meaning(Verdict.LOGIN, f"The PIN is too short or too long for this token. {_PIN}"),
    Ckr.PIN_EXPIRED: Meaning(
        Verdict.LOGIN, "The PIN has expired: set a new one with the HSM's own tool, put it where `pin` says, restart."
    ),
    Ckr.PIN_LOCKED: Meaning(
        Verdict.LOGIN,
        "Too many wrong PINs have locked the token: its security officer must unlock it with the HSM's own tool."
        " Only then restart Holdfast, with the right PIN.",
    ),
    Ckr.SESSION_CLOSED: Meaning(Verdict.SESSION_GONE, _SESSION_GONE),
    Ckr.SESSION_COUNT: Meaning(Verdict.BUSY, _SESSIONS),
    Ckr.SESSION_HANDLE_INVALID: Meaning(Verdict.SESSION_GONE, _SESSION_GONE),
    Ckr.SESSION_PARALLEL_NOT_SUPPORTED: Meaning(Verdict.FAILED, _OTHER),
    Ckr.SESSION_READ_ONLY: Meaning(
        Verdict.FAILED, "The token takes no read-only sessions: set `read_write_sessions = true` for this HSM."
    ),
    Ckr.SESSION_EXISTS: Meaning(Verdict.FAILED, _OTHER),
    Ckr.SESSION_READ_ONLY_EXISTS: Meaning(
        Verdict.FAILED,
        "Read-only sessions are in the way of this login: set `read_write_sessions = true` for this HSM.",
    ),
    Ckr.SESSION_READ_WRITE_SO_EXISTS: Meaning(
        Verdict.FAILED, "The security officer is logged in to the token: log that session out."
    ),
    Ckr.SIGNATURE_INVALID: Meaning(Verdict.REFUSED, _CIPHERTEXT),
    Ckr.SIGNATURE_LEN_RANGE: Meaning(Verdict.FAILED, _LOGS),
    Ckr.TEMPLATE_INCOMPLETE: Meaning(
        Verdict.FAILED, "The token wants more attributes for a new key: make it with the HSM's own tool."
    ),
    Ckr.TEMPLATE_INCONSISTENT: Meaning(
        Verdict.FAILED, "The token refuses the attributes of a new key: make it with the HSM's own tool."
    ),
    Ckr.TOKEN_NOT_PRESENT: Meaning(
        Verdict.DEVICE, "The card or token is not in its slot, or the HSM is not connected. Put it back."
    ),
    Ckr.TOKEN_NOT_RECOGNIZED: Meaning(
        Verdict.DEVICE, "The slot holds a token that the library does not know. Put the right one back."
    ),
    Ckr.TOKEN_WRITE_PROTECTED: Meaning(
        Verdict.FAILED, "The token is write-protected: set `read_write_sessions = false`, or lift the protection."
    ),
    Ckr.UNWRAPPING_KEY_HANDLE_INVALID: Meaning(Verdict.FAILED, _OTHER),
    Ckr.UNWRAPPING_KEY_SIZE_RANGE: Meaning(Verdict.FAILED, _OTHER),
    Ckr.UNWRAPPING_KEY_TYPE_INCONSISTENT: Meaning(Verdict.FAILED, _OTHER),
    Ckr.USER_ALREADY_LOGGED_IN: Meaning(Verdict.FAILED, "Another program or thread has logged in: nothing to do."),
    Ckr.USER_NOT_LOGGED_IN: Meaning(
        Verdict.SESSION_GONE, 'The login has ended. Holdfast logs in again, unless `login` is "none".'
    ),
    Ckr.USER_PIN_NOT_INITIALIZED: Meaning(
        Verdict.LOGIN, "The token has no user PIN yet: its security officer must set one with the HSM's own tool."
    ),
    Ckr.USER_TYPE_INVALID: Meaning(
        Verdict.FAILED, 'The token knows no normal user: set `login = "none"` if it has no login.'
    ),
    Ckr.USER_ANOTHER_ALREADY_LOGGED_IN: Meaning(
        Verdict.FAILED, "Another user (perhaps the security officer) is logged in to the token: log that user out."
    ),
    Ckr.USER_TOO_MANY_TYPES: Meaning(
        Verdict.FAILED, "Too many kinds of users are logged in to the token: log the others out."
    ),
    Ckr.WRAPPED_KEY_INVALID: Meaning(Verdict.FAILED, _OTHER),
    Ckr.WRAPPED_KEY_LEN_RANGE: Meaning(Verdict.FAILED, _OTHER),
    Ckr.WRAPPING_KEY_HANDLE_INVALID: Meaning(Verdict.FAILED, _OTHER),
    Ckr.WRAPPING_KEY_SIZE_RANGE: Meaning(Verdict.FAILED, _OTHER),
    Ckr.WRAPPING_KEY_TYPE_INCONSISTENT: Meaning(Verdict.FAILED, _OTHER),
    Ckr.RANDOM_SEED_NOT_SUPPORTED: Meaning(Verdict.FAILED, _OTHER),
    Ckr.RANDOM_NO_RNG: Meaning(
        Verdict.FAILED, 'The token has no random generator: `iv_mode = "proxy"` cannot work with it.'
    ),
    Ckr.DOMAIN_PARAMS_INVALID: Meaning(Verdict.FAILED, _OTHER),
    Ckr.CURVE_NOT_SUPPORTED: Meaning(Verdict.FAILED, _OTHER),
    Ckr.BUFFER_TOO_SMALL: Meaning(Verdict.FAILED, f"The module wants to return more than AES-GCM can. {_DOCTOR}"),
    Ckr.SAVED_STATE_INVALID: Meaning(Verdict.FAILED, _OTHER),
    Ckr.INFORMATION_SENSITIVE: Meaning(Verdict.FAILED, _OTHER),
    Ckr.STATE_UNSAVEABLE: Meaning(Verdict.FAILED, _OTHER),
    Ckr.CRYPTOKI_NOT_INITIALIZED: Meaning(
        Verdict.DEVICE, "The library lost its state. Holdfast initializes it again by itself."
    ),
    Ckr.CRYPTOKI_ALREADY_INITIALIZED: Meaning(
        Verdict.FAILED, "The library is initialized already in this process: restart Holdfast."
    ),
    Ckr.MUTEX_BAD: Meaning(Verdict.FAILED, _LOGS),
    Ckr.MUTEX_NOT_LOCKED: Meaning(Verdict.FAILED, _LOGS),
    Ckr.NEW_PIN_MODE: Meaning(Verdict.FAILED, "The token asks for a new PIN: set one with the HSM's own tool."),
    Ckr.NEXT_OTP: Meaning(Verdict.FAILED, _OTHER),
    Ckr.EXCEEDED_MAX_ITERATIONS: Meaning(Verdict.FAILED, _LOGS),
    Ckr.FIPS_SELF_TEST_FAILED: Meaning(
        Verdict.FAILED, "The module failed its FIPS self-test and refuses all work: ask its vendor."
    ),
    Ckr.LIBRARY_LOAD_FAILED: Meaning(
        Verdict.FAILED, "The library could not load another library that it needs: check its installation."
    ),
    Ckr.PIN_TOO_WEAK: Meaning(Verdict.FAILED, "The token refuses this PIN as too weak: choose another one."),
    Ckr.PUBLIC_KEY_INVALID: Meaning(Verdict.FAILED, _OTHER),
    Ckr.FUNCTION_REJECTED: Meaning(
        Verdict.FAILED, "The token refused the call, perhaps because a person must confirm it: look at its policy."
    ),
    Ckr.TOKEN_RESOURCE_EXCEEDED: Meaning(Verdict.BUSY, _MEMORY),
    Ckr.OPERATION_CANCEL_FAILED: Meaning(Verdict.FAILED, _LOGS),
    Ckr.KEY_EXHAUSTED: Meaning(
        Verdict.EXHAUSTED, "The key has reached the number of uses that the HSM allows: make another key."
    ),
    Ckr.PENDING: Meaning(Verdict.FAILED, _OTHER),
    Ckr.SESSION_ASYNC_NOT_SUPPORTED: Meaning(Verdict.FAILED, _OTHER),
    Ckr.SEED_RANDOM_REQUIRED: Meaning(
        Verdict.FAILED, "The token's random generator must be seeded first: use the HSM's own tool."
    ),
    Ckr.OPERATION_NOT_VALIDATED: Meaning(
        Verdict.FAILED, "The token's validation (FIPS) forbids the operation in this mode: look at its policy."
    ),
    Ckr.TOKEN_NOT_INITIALIZED: Meaning(
        Verdict.FAILED, "The token is new: initialize it with the HSM's own tool, or choose another one in `token`."
    ),
    Ckr.PARAMETER_SET_NOT_SUPPORTED: Meaning(Verdict.FAILED, _OTHER),
}

_BAD_CIPHERTEXT: Final = frozenset(
    (Ckr.DATA_INVALID, Ckr.ENCRYPTED_DATA_INVALID, Ckr.AEAD_DECRYPT_FAILED, Ckr.SIGNATURE_INVALID)
)
_USES: Final = frozenset(("C_EncryptInit", "C_Encrypt", "C_DecryptInit", "C_Decrypt"))
_OF_A_USE: Final = frozenset((Verdict.KEY_USAGE, Verdict.UNSUPPORTED, Verdict.EXHAUSTED))
_BAD_LENGTH: Final = frozenset((Ckr.DATA_LEN_RANGE, Ckr.ENCRYPTED_DATA_LEN_RANGE))


def name(ckr: int) -> str:
    """`CKR_DEVICE_ERROR (0x30)`; a number without a name stands alone."""
    try:
        return f"CKR_{Ckr(ckr).name} (0x{ckr:X})"
    except ValueError:
        return f"vendor-defined CKR 0x{ckr:X}" if ckr >= VENDOR_DEFINED else f"unknown CKR 0x{ckr:X}"


def advice(ckr: int) -> str:
    """What a person can do about it."""
    try:
        return _MEANINGS[Ckr(ckr)].advice
    except ValueError:
        return _LOGS


def verdict(function: str, ckr: int, *, ambiguous_bad_tag: AbstractSet[int]) -> Verdict:
    """What `ckr` from `function` means. Total: an unknown value is FAILED, a vendor's own is DEVICE.

    `ambiguous_bad_tag` holds the codes with which the profile's module also reports a bad tag.
    """
    if function == "C_Decrypt":
        if ckr in _BAD_CIPHERTEXT or ckr in ambiguous_bad_tag:
            return Verdict.CIPHERTEXT
        if ckr in _BAD_LENGTH:
            return Verdict.CIPHERTEXT_LENGTH
    if function == "C_Encrypt" and ckr == Ckr.DATA_LEN_RANGE:
        return Verdict.DATA_TOO_LARGE
    if ckr >= VENDOR_DEFINED:
        return Verdict.DEVICE
    try:
        found = _MEANINGS[Ckr(ckr)].verdict
    except ValueError:
        return Verdict.FAILED
    # A module that cannot search or open a session says nothing about the key or the mechanism.
    return Verdict.FAILED if found in _OF_A_USE and function not in _USES else found
