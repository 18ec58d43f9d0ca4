"""What is tried again, what is not, and how many C_ calls that costs; on the shim."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING

import pytest
import uvloop
from tests.hsm.conftest import AAD, KEY, TEXT, Site, Start, call, encrypt, round_trip
from tests.waiting import eventually

from holdfast.hsm.faults import (
    CiphertextRejected,
    HsmBusy,
    HsmFault,
    HsmUnavailable,
    KeyExhausted,
    KeyUsageRefused,
    MechanismUnsupported,
    ModuleFailed,
    NativeCall,
)
from holdfast.hsm.port import KeySession, Sealed, Timing
from holdfast.xks.types import HealthStatus

if TYPE_CHECKING:
    from tests.shim.control import ShimControl

    from holdfast.hsm.pkcs11.backend import Pkcs11Hsm


@pytest.fixture
def hsm(site: Site, start: Start) -> Pkcs11Hsm:
    """One session, its key found already."""
    hsm = start(site.shim_settings("plain", sessions=1, probe_interval_s=3600.0))
    assert call(hsm, round_trip) == TEXT
    return hsm


def test_an_encrypt_is_two_calls(hsm: Pkcs11Hsm, control: ShimControl) -> None:
    control.reset_counters()
    for _ in range(100):
        call(hsm, encrypt)
    assert control.calls() == {"C_EncryptInit": 100, "C_Encrypt": 100}


def test_a_decrypt_is_two_calls(hsm: Pkcs11Hsm, control: ShimControl) -> None:
    sealed = call(hsm, lambda session: session.encrypt(KEY, TEXT, AAD))
    control.reset_counters()
    for _ in range(100):
        call(hsm, lambda session: session.decrypt(KEY, sealed, AAD))
    assert control.calls() == {"C_DecryptInit": 100, "C_Decrypt": 100}


def test_random_bytes_come_in_bulk(hsm: Pkcs11Hsm, control: ShimControl) -> None:
    control.reset_counters()
    for _ in range(1000):
        call(hsm, encrypt)
    assert control.calls()["C_GenerateRandom"] <= 4


def test_a_module_that_makes_the_iv_is_asked_for_no_random_bytes(
    site: Site, start: Start, control: ShimControl
) -> None:
    hsm = start(site.shim_settings("nshield", probe_interval_s=3600.0))
    call(hsm, encrypt)
    control.reset_counters()
    for _ in range(10):
        call(hsm, encrypt)
    assert control.calls() == {"C_EncryptInit": 10, "C_Encrypt": 10}


def test_a_bad_ciphertext_costs_a_repeat_and_a_canary(hsm: Pkcs11Hsm, control: ShimControl) -> None:
    control.reset_counters()
    with pytest.raises(CiphertextRejected):
        call(hsm, _decrypt_garbage)
    assert control.calls() == {"C_DecryptInit": 3, "C_Decrypt": 3}


@pytest.mark.parametrize("ckr", [0x60, 0x82])
def test_a_stale_handle_is_found_again_once(hsm: Pkcs11Hsm, control: ShimControl, ckr: int) -> None:
    control.reset_counters()
    control.fail("C_EncryptInit", ckr, times=1)
    assert call(hsm, round_trip) == TEXT
    assert control.calls()["C_FindObjectsInit"] == 1
    control.fail("C_EncryptInit", ckr, times=2)
    # The key was found each time: it is not missing, the HSM does not work.
    with pytest.raises(HsmUnavailable):
        call(hsm, encrypt)


@pytest.mark.parametrize("ckr", [0xB3, 0xB0, 0x90, 0x101])
@pytest.mark.parametrize("function", ["C_EncryptInit", "C_Encrypt", "C_DecryptInit", "C_Decrypt"])
def test_a_lost_session_is_replaced_once(hsm: Pkcs11Hsm, control: ShimControl, function: str, ckr: int) -> None:
    control.fail(function, ckr, times=1)
    assert call(hsm, round_trip) == TEXT


def test_a_session_lost_again_and_again_is_a_failure(hsm: Pkcs11Hsm, control: ShimControl) -> None:
    control.fail("C_EncryptInit", 0xB3)
    with pytest.raises(ModuleFailed) as raised:
        call(hsm, encrypt)
    assert raised.value.cause == NativeCall("C_EncryptInit", 0xB3)
    control.succeed("C_EncryptInit")
    eventually(lambda: _works(hsm))


def test_pulling_the_card_and_putting_it_back_costs_no_answer(hsm: Pkcs11Hsm, control: ShimControl) -> None:
    control.close_sessions()
    assert call(hsm, round_trip) == TEXT


@pytest.mark.parametrize(
    ("ckr", "fault"),
    [
        (0x68, KeyUsageRefused),
        (0x63, KeyUsageRefused),
        (0x70, MechanismUnsupported),
        (0x71, ModuleFailed),
        (0x02, HsmBusy),
        (0x201, HsmBusy),
        (0x30, HsmUnavailable),
        (0x32, HsmUnavailable),
        (0xE0, HsmUnavailable),
        (0x81000071, HsmUnavailable),
        (0x05, ModuleFailed),
        (0x203, KeyExhausted),
    ],
)
def test_a_code_has_its_fault_and_names_its_call(
    hsm: Pkcs11Hsm, control: ShimControl, ckr: int, fault: type[HsmFault]
) -> None:
    control.fail("C_EncryptInit", ckr)
    with pytest.raises(fault) as raised:
        call(hsm, encrypt)
    assert type(raised.value) is fault
    assert raised.value.cause == NativeCall("C_EncryptInit", ckr)
    control.succeed("C_EncryptInit")
    eventually(lambda: _works(hsm))


@pytest.mark.parametrize("function", ["C_EncryptInit", "C_Encrypt", "C_DecryptInit", "C_Decrypt"])
@pytest.mark.parametrize("ckr", [0x05, 0x06, 0x68, 0x63, 0x62, 0x70, 0x54, 0x203])
def test_what_passes_costs_no_answer(hsm: Pkcs11Hsm, control: ShimControl, function: str, ckr: int) -> None:
    control.fail(function, ckr, times=1)
    assert call(hsm, round_trip) == TEXT
    assert control.failures_left(function) == 0


@pytest.mark.parametrize("ckr", [0x20, 0x21, 0x40, 0x41, 0x42, 0xC0])
def test_a_good_ciphertext_that_was_once_called_bad_is_decrypted(
    hsm: Pkcs11Hsm, control: ShimControl, ckr: int
) -> None:
    control.fail("C_Decrypt", ckr, times=1)
    assert call(hsm, round_trip) == TEXT


def test_a_device_error_of_cloudhsm_may_be_throttling_and_is_tried_again(
    site: Site, start: Start, control: ShimControl
) -> None:
    hsm = start(site.shim_settings("cloudhsm", probe_interval_s=3600.0))
    control.fail("C_Encrypt", 0x30, times=1)
    call(hsm, encrypt)


@pytest.mark.parametrize(("personality", "ckr"), [("plain", 0x05), ("nshield", 0x06)])
def test_an_ambiguous_code_is_no_bad_ciphertext_while_the_health_key_does_not_decrypt(
    site: Site, start: Start, control: ShimControl, personality: str, ckr: int
) -> None:
    hsm = start(site.shim_settings(personality, probe_interval_s=3600.0))  # type: ignore[arg-type]  # one of them
    sealed = call(hsm, lambda session: session.encrypt(KEY, TEXT, AAD))
    control.fail("C_Decrypt", ckr, times=3)
    with pytest.raises(ModuleFailed):
        call(hsm, lambda session: session.decrypt(KEY, sealed, AAD))


def test_too_few_sessions_in_the_token_serve_and_show_as_degraded(
    site: Site, start: Start, control: ShimControl
) -> None:
    control.session_limit(5)
    hsm = start(site.shim_settings("plain", sessions=8, probe_interval_s=0.02))
    control.reset_counters()
    eventually(lambda: control.calls().get("C_Encrypt", 0) > 2)
    assert hsm.gauges().sessions == 3  # besides the anchor and the probe
    assert call(hsm, round_trip) == TEXT
    assert hsm.health().status is HealthStatus.DEGRADED
    assert "3 of the 8 sessions" in hsm.health().reason


def test_a_probe_without_a_session_does_not_stop_the_service(site: Site, start: Start, control: ShimControl) -> None:
    control.session_limit(2)
    hsm = start(site.shim_settings("plain", sessions=1, probe_interval_s=0.02))
    eventually(lambda: "no session for the probe" in hsm.health().reason)
    assert hsm.health().status is HealthStatus.DEGRADED
    assert call(hsm, round_trip) == TEXT


def test_an_error_shows_in_the_health_for_a_minute(hsm: Pkcs11Hsm, control: ShimControl) -> None:
    assert hsm.health().status is HealthStatus.ACTIVE
    control.fail("C_EncryptInit", 0xB3, times=1)
    call(hsm, encrypt)
    eventually(lambda: hsm.health().status is HealthStatus.DEGRADED)
    assert "CKR_SESSION_HANDLE_INVALID" in hsm.health().reason


def test_a_module_that_cannot_lock_gets_one_call_at_a_time(site: Site, start: Start, control: ShimControl) -> None:
    control.fail("C_Initialize", 0x0A, times=1)
    hsm = start(site.shim_settings("plain", sessions=4, probe_interval_s=3600.0))
    control.delay(5, ["C_Encrypt"])
    control.reset_counters()

    async def many() -> None:
        work = [hsm.run(encrypt, deadline=monotonic() + 5, timing=Timing()) for _ in range(8)]
        await asyncio.gather(*work)

    uvloop.run(many())
    assert control.inside_high == 1


def test_an_iv_of_16_bytes_may_be_configured(site: Site, start: Start) -> None:
    hsm = start(site.shim_settings("plain", iv_length=16))
    assert len(call(hsm, lambda session: session.encrypt(KEY, TEXT, AAD)).initialization_vector) == 16
    assert call(hsm, round_trip) == TEXT


def test_the_anchor_session_is_opened_anew_after_the_card_was_away(
    site: Site, start: Start, control: ShimControl
) -> None:
    hsm = start(site.shim_settings("plain", sessions=1, probe_interval_s=0.02))
    call(hsm, round_trip)
    eventually(lambda: control.sessions == 3)  # the anchor's, the probe's, and the one
    control.close_sessions()
    assert call(hsm, round_trip) == TEXT
    eventually(lambda: control.sessions == 3)


def test_two_hsms_of_one_library_cannot_have_two_environments(site: Site, start: Start) -> None:
    start(site.settings())
    with pytest.raises(ModuleFailed, match="HOLDFAST_OTHER"):
        start(site.settings(environment={**site.settings().environment, "HOLDFAST_OTHER": "1"}))


def _decrypt_garbage(session: KeySession) -> bytes:
    return session.decrypt(KEY, Sealed(bytes(12), TEXT, bytes(16)), AAD)


def _works(hsm: Pkcs11Hsm) -> bool:
    try:
        return call(hsm, round_trip) == TEXT
    except HsmFault:
        return False
