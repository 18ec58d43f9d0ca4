"""Key confirmation: one known text sealed under a key shows later that the same key is still there.

A label or CKA_ID can be given to any object; only the key itself opens its canary. So the canary is kept with the
key's generation in the catalog, opened before a handle is used, and it decides whether a ciphertext or the HSM is at
fault.
"""

from typing import Final

from holdfast.hsm.pkcs11.ckr import Verdict, verdict
from holdfast.hsm.pkcs11.cryptoki import CkrError
from holdfast.hsm.pkcs11.gcm import TAG_BYTES, GcmChannel
from holdfast.hsm.pkcs11.profile import Profile

CANARY_TEXT: Final = b"holdfast key confirmation, format 1"
CANARY_AAD: Final = b"\xff\xffholdfast key confirmation canary, format 1; never the AAD of a request of AWS KMS"
"""Never the AAD of a request. Each framing (`holdfast.xks.aad`) begins with the AAD's length in two bytes, here
65,535, and then has over 65,535 bytes, or with a digest at most 55. This has 83."""
_IV_LENGTHS: Final = (12, 16)
_ATTEMPTS: Final = 2
"""A fault that passes must not look like another key."""


class ConfirmationFailed(CkrError):
    """A call that confirms a key, and not one of the request, returned something other than CKR_OK."""


def canary_opens(channel: GcmChannel, handle: int, canary: bytes, profile: Profile) -> bool:
    """Whether the key opens the canary; a failure is believed the second time.

    Raises ConfirmationFailed for anything but a wrong tag: then nothing is known.
    """
    iv_length = len(canary) - len(CANARY_TEXT) - TAG_BYTES
    if iv_length not in _IV_LENGTHS:
        return False
    for _ in range(_ATTEMPTS):
        try:
            return channel.decrypt(handle, canary[:iv_length], canary[iv_length:], CANARY_AAD) == CANARY_TEXT
        except CkrError as error:
            found = verdict(error.function, error.ckr, ambiguous_bad_tag=profile.ambiguous_bad_tag)
            if found not in (Verdict.CIPHERTEXT, Verdict.CIPHERTEXT_LENGTH):
                raise ConfirmationFailed(error.function, error.ckr) from None
    return False
