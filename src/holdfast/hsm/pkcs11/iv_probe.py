"""The start-up probe: who makes the IV is shown by two encryptions, never believed."""

from dataclasses import dataclass
from typing import Final

from holdfast.hsm.pkcs11.ckr import Ckr, Verdict, verdict
from holdfast.hsm.pkcs11.cryptoki import CkrError
from holdfast.hsm.pkcs11.gcm import TAG_BYTES, GcmChannel
from holdfast.hsm.pkcs11.iv import BadIv, IvOutcome
from holdfast.hsm.pkcs11.profile import Profile
from holdfast.hsm.port import Sealed
from holdfast.hsm.settings import IvMode

PROBE_TEXT: Final = b"holdfast probe"
PROBE_AAD: Final = b"holdfast probe, not a KMS request"
_NOT_ABOUT_THE_IV: Final = (Verdict.DEVICE, Verdict.SESSION_GONE, Verdict.BUSY, Verdict.KEY_GONE)
_PARAMETERS_REFUSED: Final = (Ckr.MECHANISM_PARAM_INVALID, Ckr.ARGUMENTS_BAD)


@dataclass(frozen=True, slots=True)
class IvProbe:
    """The outcome, and a sentence with the remedy where it is not SAFE. `sealed` decrypts to PROBE_TEXT."""

    outcome: IvOutcome
    sentence: str
    sealed: Sealed | None = None


def probe_iv(channel: GcmChannel, key: int, profile: Profile) -> IvProbe:
    """Two encryptions must give two different IVs, not zero, not the caller's, that decrypt again.

    Raises CkrError for what has nothing to do with the IV (a lost device, a key that may not encrypt).
    """
    try:
        results = [channel.encrypt(key, PROBE_TEXT, PROBE_AAD) for _ in range(2)]
    except BadIv as bad:
        return _found(bad.outcome, profile)
    except CkrError as error:
        if error.ckr in _PARAMETERS_REFUSED:
            return _found(IvOutcome.REFUSED, profile)
        raise
    ivs = [iv for iv, _ in results]
    if not all(any(iv) for iv in ivs):
        return _found(IvOutcome.NOT_MADE, profile)
    if ivs[0] == ivs[1]:
        return _found(IvOutcome.REPEATED, profile)
    if not all(_decrypts(channel, key, iv, output) for iv, output in results):
        return _found(IvOutcome.NOT_DECRYPTED, profile)
    iv, output = results[0]
    sealed = Sealed(iv, output[:-TAG_BYTES], output[-TAG_BYTES:])
    return IvProbe(IvOutcome.SAFE, _SENTENCES[IvOutcome.SAFE].format(mode=profile.iv_mode), sealed)


def _decrypts(channel: GcmChannel, key: int, iv: bytes, output: bytes) -> bool:
    try:
        return channel.decrypt(key, iv, output, PROBE_AAD) == PROBE_TEXT
    except CkrError as error:
        if verdict(error.function, error.ckr, ambiguous_bad_tag=frozenset()) in _NOT_ABOUT_THE_IV:
            raise
        return False


def _found(outcome: IvOutcome, profile: Profile) -> IvProbe:
    sentence = _SENTENCES[outcome].format(mode=profile.iv_mode, form=_form(profile))
    if outcome is not IvOutcome.REPEATED:
        sentence += f"; {_REMEDIES[profile.iv_mode]}"
    return IvProbe(outcome, sentence)


def _form(profile: Profile) -> str:
    if profile.gcm_parameter_bytes == _WITH_IV_BITS:
        return f"iv_bits = {str(profile.iv_bits).lower()}"
    return f"gcm_parameter_bytes = {profile.gcm_parameter_bytes}"


_WITH_IV_BITS: Final = 48
_SENTENCES: Final = {
    IvOutcome.SAFE: 'iv_mode = "{mode}" is right: two encryptions had two IVs, and both decrypt',
    IvOutcome.NOT_MADE: (
        'iv_mode = "{mode}" is wrong for this module: it did not make an IV, and would use the same zero IV for '
        "every encryption, which gives away plaintexts"
    ),
    IvOutcome.REPEATED: (
        "two encryptions had the same IV, which gives away plaintexts: the module's random generator is broken; "
        "do not use it, and ask its vendor"
    ),
    IvOutcome.WRONG_LENGTH: (
        'iv_mode = "{mode}" is wrong for this module: its output does not have the length of ciphertext, tag and IV'
    ),
    IvOutcome.REPLACED: 'iv_mode = "{mode}" is wrong for this module: it wrote its own IV over the proxy\'s',
    IvOutcome.REFUSED: (
        'the module refused the parameters of AES-GCM: iv_mode = "{mode}" or {form} is wrong for this module '
        "(iv_bits may be true or false, gcm_parameter_bytes 48 or 40)"
    ),
    IvOutcome.NOT_DECRYPTED: (
        'what the module encrypted does not decrypt: iv_mode = "{mode}" or {form} is wrong for this module '
        "(iv_bits may be true or false)"
    ),
}
_REMEDIES: Final = {
    IvMode.PROXY: 'set iv_mode = "hsm-in-place" (nShield, CloudHSM) or "hsm-appended" (Luna in FIPS mode)',
    IvMode.HSM_IN_PLACE: 'set iv_mode = "proxy" (SoftHSM and most others) or "hsm-appended" (Luna in FIPS mode)',
    IvMode.HSM_APPENDED: 'set iv_mode = "proxy" (SoftHSM, Luna without FIPS) or "hsm-in-place" (nShield, CloudHSM)',
}
