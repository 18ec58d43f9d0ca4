"""The table of return values is total, for every profile."""

import pytest

from holdfast.hsm.faults import HsmFault
from holdfast.hsm.pkcs11 import ckr
from holdfast.hsm.pkcs11.ckr import Ckr, Verdict
from holdfast.hsm.pkcs11.profile import PROFILES
from holdfast.hsm.pkcs11.session import FAULTS

_EVERY_VALUE = [value for value in Ckr if value is not Ckr.OK]
_BAD_TAG = {"softhsm2": {0x05}, "nshield": {0x06}, "luna": set(), "cloudhsm": {0x06}, "generic": {0x05, 0x06}}


def _verdict(function: str, value: int, profile: str = "softhsm2") -> Verdict:
    return ckr.verdict(function, value, ambiguous_bad_tag=PROFILES[profile].ambiguous_bad_tag)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("function", ["C_EncryptInit", "C_Encrypt", "C_DecryptInit", "C_Decrypt", "C_OpenSession"])
def test_every_value_has_a_verdict_and_every_verdict_a_fault(profile: str, function: str) -> None:
    for value in [*_EVERY_VALUE, 0x7FFFFFFF, 0x80000000, 0x81000071, 0xFFFFFFFFFFFFFFFF]:
        assert issubclass(FAULTS[_verdict(function, value, profile)], HsmFault)


@pytest.mark.parametrize("profile", PROFILES)
def test_only_c_decrypt_rejects_a_ciphertext(profile: str) -> None:
    rejecting = {Verdict.CIPHERTEXT, Verdict.CIPHERTEXT_LENGTH}
    for value in _EVERY_VALUE:
        for function in ("C_DecryptInit", "C_EncryptInit", "C_Encrypt", "C_GenerateRandom"):
            assert _verdict(function, value, profile) not in rejecting


@pytest.mark.parametrize("profile", PROFILES)
def test_only_a_use_of_the_key_blames_the_key_or_the_mechanism(profile: str) -> None:
    blaming = {Verdict.KEY_USAGE, Verdict.UNSUPPORTED, Verdict.EXHAUSTED, Verdict.DATA_TOO_LARGE}
    for value in _EVERY_VALUE:
        for function in ("C_FindObjectsInit", "C_FindObjects", "C_GetAttributeValue", "C_OpenSession", "C_Login"):
            assert _verdict(function, value, profile) not in blaming


@pytest.mark.parametrize("profile", PROFILES)
def test_the_bad_tag_codes_are_the_profiles(profile: str) -> None:
    found = {value: _verdict("C_Decrypt", value, profile) for value in _EVERY_VALUE}
    assert {value for value in found if found[value] is Verdict.CIPHERTEXT} == {0x20, 0x40, 0x42, 0xC0} | _BAD_TAG[
        profile
    ]
    assert {value for value in found if found[value] is Verdict.CIPHERTEXT_LENGTH} == {0x21, 0x41}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((0x62, 0x63, 0x68), Verdict.KEY_USAGE),
        ((0x54, 0x70), Verdict.UNSUPPORTED),
        ((0x60, 0x82), Verdict.KEY_GONE),
        ((0x90, 0xB0, 0xB3, 0x101), Verdict.SESSION_GONE),
        ((0x02, 0x31, 0xB1, 0x201), Verdict.BUSY),
        ((0x30, 0x32, 0xE0, 0xE1, 0x190, 0x80000001), Verdict.DEVICE),
        ((0xA0, 0xA1, 0xA2, 0xA3, 0xA4, 0x102), Verdict.LOGIN),
        ((0x203,), Verdict.EXHAUSTED),
        ((0x07, 0x71, 0x20, 0x21, 0x40, 0x41, 0x42, 0xC0), Verdict.REFUSED),
        ((0x05, 0x06, 0x11, 0x1B1), Verdict.FAILED),
    ],
)
def test_the_groups_are_those_of_the_design(values: tuple[int, ...], expected: Verdict) -> None:
    assert {_verdict("C_EncryptInit", value) for value in values} == {expected}


@pytest.mark.parametrize("value", [*Ckr, 0x999, 0x81000071])
def test_every_value_comes_with_advice(value: int) -> None:
    assert ckr.advice(value).endswith(".")


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (Ckr.PIN_INCORRECT, "Compare the PIN"),
        (Ckr.PIN_LOCKED, "security officer must unlock"),
        (Ckr.PIN_EXPIRED, "expired"),
        (Ckr.USER_PIN_NOT_INITIALIZED, "no user PIN yet"),
        (Ckr.SESSION_COUNT, "`sessions` times `workers`"),
        (Ckr.SESSION_READ_ONLY, "read_write_sessions = true"),
        (Ckr.TOKEN_WRITE_PROTECTED, "read_write_sessions = false"),
        (Ckr.MECHANISM_PARAM_INVALID, "`iv_bits`"),
        (Ckr.ARGUMENTS_BAD, "`gcm_parameter_bytes`"),
        (Ckr.MECHANISM_INVALID, "`mechanism`"),
        (Ckr.TOKEN_NOT_PRESENT, "Put it back"),
    ],
)
def test_unlike_codes_have_unlike_advice(value: Ckr, word: str) -> None:
    assert word in ckr.advice(value)
    assert sum(ckr.advice(value) == ckr.advice(other) for other in Ckr) <= 2


def test_names_say_name_and_number() -> None:
    assert ckr.name(0x30) == "CKR_DEVICE_ERROR (0x30)"
    assert ckr.name(0x81000071) == "vendor-defined CKR 0x81000071"
    assert ckr.name(0x999) == "unknown CKR 0x999"
