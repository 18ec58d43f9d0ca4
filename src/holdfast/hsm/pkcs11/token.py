"""Which token: by label, serial or slot, never the first one."""

from typing import Final

from holdfast.hsm.faults import MechanismUnsupported, ModuleFailed
from holdfast.hsm.pkcs11.ckr import Ckr
from holdfast.hsm.pkcs11.constants import CKF_DECRYPT, CKF_ENCRYPT
from holdfast.hsm.pkcs11.cryptoki import CkrError, Cryptoki, TokenInfo
from holdfast.hsm.pkcs11.profile import Profile
from holdfast.hsm.settings import TokenSelector

_MECHANISM_MISSING: Final = (Ckr.MECHANISM_INVALID, Ckr.FUNCTION_NOT_SUPPORTED)


class TokenMissing(Exception):
    """No token matches now; one may appear (a card is inserted, a service starts). Never leaves this package."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


def tokens(cryptoki: Cryptoki) -> list[TokenInfo]:
    """Every token there is. A slot whose token does not answer is left out. Raises CkrError from C_GetSlotList."""
    found = []
    for slot in cryptoki.slots():
        try:
            found.append(cryptoki.token_info(slot))
        except CkrError:
            continue  # the card was pulled between two calls, or a dead HSM of several
    return found


def choose_token(cryptoki: Cryptoki, selector: TokenSelector) -> TokenInfo:
    """The one token that matches. Raises TokenMissing, ModuleFailed if several match, CkrError."""
    present = tokens(cryptoki)
    matching = [token for token in present if _matches(token, selector)]
    if not matching:
        raise TokenMissing(f"no token has {_words(selector)}; {_listed(present)}")
    if len(matching) > 1:
        raise ModuleFailed(
            f"{len(matching)} tokens have {_words(selector)}: {_listed(matching)}. "
            f"Choose one by its serial or slot (for nShield, CKNFAST_LOADSHARING=1 makes one slot of them)"
        )
    return matching[0]


def require_gcm(cryptoki: Cryptoki, slot: int, profile: Profile) -> None:
    """Raises MechanismUnsupported unless the token encrypts and decrypts with the profile's mechanism."""
    number = f"0x{profile.mechanism:X}"
    try:
        flags = cryptoki.mechanism_info(slot, profile.mechanism).flags
    except CkrError as error:
        if error.ckr not in _MECHANISM_MISSING:
            raise
        flags = 0
    if flags & (CKF_ENCRYPT | CKF_DECRYPT) != CKF_ENCRYPT | CKF_DECRYPT:
        raise MechanismUnsupported(
            f"the token does not encrypt and decrypt with mechanism {number} (AES-GCM is 0x1087): its firmware is "
            f"too old, a security policy switched it off, or it needs `mechanism` set to the vendor's own number"
        )


def _matches(token: TokenInfo, selector: TokenSelector) -> bool:
    return (
        (selector.label is None or token.label == selector.label)
        and (selector.serial is None or token.serial == selector.serial)
        and (selector.slot is None or token.slot == selector.slot)
    )


def _words(selector: TokenSelector) -> str:
    if selector.label is not None:
        return f"the label {selector.label!r}"
    if selector.serial is not None:
        return f"the serial {selector.serial!r}"
    return f"the slot {selector.slot}"


def _listed(present: list[TokenInfo]) -> str:
    if not present:
        return "the module shows no token at all"
    return "; ".join(
        f"slot {token.slot} has label {token.label!r}, serial {token.serial!r}"
        # An nShield accelerator is in use without the flag; a token without a label is really new.
        + ("" if token.initialized or token.label else " (not initialised)")
        for token in present
    )
