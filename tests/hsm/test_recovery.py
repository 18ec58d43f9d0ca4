"""A lost HSM: refused quickly while it is away, and served within a second of its return, without a restart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.hsm.conftest import AAD, KEY, TEXT, Site, Start, call, encrypt, round_trip
from tests.waiting import eventually

from holdfast.hsm.faults import HsmFault, HsmUnavailable, LoginRefused
from holdfast.xks.types import HealthStatus

if TYPE_CHECKING:
    from tests.shim.control import ShimControl

    from holdfast.hsm.pkcs11.backend import Pkcs11Hsm


@pytest.fixture
def hsm(site: Site, start: Start) -> Pkcs11Hsm:
    hsm = start(site.shim_settings("plain", sessions=4))
    assert call(hsm, round_trip) == TEXT
    return hsm


def unavailable(hsm: Pkcs11Hsm) -> bool:
    return hsm.health().status is HealthStatus.UNAVAILABLE


def works(hsm: Pkcs11Hsm) -> bool:
    try:
        return call(hsm, round_trip, seconds=0.2) == TEXT
    except HsmFault:
        return False


@pytest.mark.parametrize("ckr", [0x30, 0x32, 0xE0, 0x05, 0x06, 0x81000071])
@pytest.mark.parametrize("needs_reinit", [False, True])
def test_a_lost_device_is_noticed_and_comes_back_within_a_second(
    hsm: Pkcs11Hsm,
    control: ShimControl,
    ckr: int,
    needs_reinit: bool,  # noqa: FBT001 (a column of the table)
) -> None:
    control.device_lost(ckr, needs_reinit=needs_reinit)
    with pytest.raises(HsmFault):
        call(hsm, encrypt)
    eventually(lambda: unavailable(hsm))
    with pytest.raises(HsmUnavailable):
        call(hsm, encrypt)
    control.device_back()
    eventually(lambda: works(hsm), within=1.0)
    assert not unavailable(hsm)
    assert control.finalized_while_inside == 0


def test_ciphertexts_outlive_the_loss(hsm: Pkcs11Hsm, control: ShimControl) -> None:
    sealed = call(hsm, lambda session: session.encrypt(KEY, TEXT, AAD))
    control.device_lost(needs_reinit=True)
    eventually(lambda: not works(hsm))
    control.device_back()
    eventually(lambda: works(hsm), within=1.0)
    assert call(hsm, lambda session: session.decrypt(KEY, sealed, AAD)) == TEXT


def test_a_loss_is_noticed_without_any_request(site: Site, start: Start, control: ShimControl) -> None:
    hsm = start(site.shim_settings("plain", probe_interval_s=0.05))
    control.device_lost()
    eventually(lambda: unavailable(hsm), within=1.0)
    assert "CKR_DEVICE_ERROR" in hsm.health().reason


def test_a_token_that_vanished_is_an_unavailable_hsm_until_it_is_back(hsm: Pkcs11Hsm, control: ShimControl) -> None:
    control.fail("C_GetTokenInfo", 0xE0)
    control.close_sessions()
    hsm.reload_keys()
    eventually(lambda: unavailable(hsm))
    assert "no token has the label" in hsm.health().reason
    with pytest.raises(HsmFault) as raised:
        call(hsm, encrypt)
    assert type(raised.value) is HsmUnavailable
    control.succeed("C_GetTokenInfo")
    eventually(lambda: works(hsm), within=1.0)


def test_initialising_is_tried_until_it_succeeds(hsm: Pkcs11Hsm, control: ShimControl) -> None:
    control.device_lost(needs_reinit=True)
    eventually(lambda: not works(hsm) and unavailable(hsm))
    control.fail_initialize(2)
    control.fail_finalize(times=1)
    control.device_back()
    eventually(lambda: works(hsm), within=2.0)


def test_a_module_is_not_finalized_while_a_call_is_inside(site: Site, start: Start, control: ShimControl) -> None:
    hsm = start(site.shim_settings("plain", sessions=2, probe_interval_s=0.05))
    control.hang("C_Encrypt")
    with pytest.raises(HsmFault):
        call(hsm, encrypt, seconds=0.1)
    control.device_lost(needs_reinit=True)
    eventually(lambda: unavailable(hsm), within=3.0)
    epoch = hsm.gauges().module_epoch
    control.device_back()
    control.release()
    eventually(lambda: works(hsm), within=1.5)
    assert hsm.gauges().module_epoch > epoch
    assert control.finalized_while_inside == 0
    eventually(lambda: hsm.gauges().quarantined == 0)


def test_a_module_that_hangs_for_a_probe_is_unavailable(site: Site, start: Start, control: ShimControl) -> None:
    hsm = start(site.shim_settings("plain", sessions=2, probe_interval_s=0.05))
    control.hang()
    eventually(lambda: unavailable(hsm), within=2.5)
    with pytest.raises(HsmUnavailable):
        call(hsm, encrypt)
    control.release()
    eventually(lambda: works(hsm), within=1.0)


def test_a_pin_refused_at_recovery_is_not_tried_again(site: Site, start: Start, control: ShimControl) -> None:
    hsm = start(site.shim_settings("plain", probe_interval_s=0.05))
    control.device_lost(needs_reinit=True)
    eventually(lambda: unavailable(hsm))
    control.refuse_login()
    control.reset_counters()
    control.device_back()
    eventually(lambda: control.calls().get("C_Login", 0) > 0)
    eventually(lambda: "refused the login" in hsm.health().reason)
    control.succeed("C_Login")
    with pytest.raises(LoginRefused):
        call(hsm, encrypt)
    assert control.calls()["C_Login"] == 1


def test_two_hsms_of_one_library_live_side_by_side(site: Site, start: Start, control: ShimControl) -> None:
    one, two = (start(site.shim_settings("plain", name=name)) for name in ("one", "two"))
    one.reload_keys()
    eventually(lambda: one.gauges().module_epoch == 1)
    assert call(one, round_trip) == call(two, round_trip) == TEXT
    one.stop()
    assert call(two, round_trip) == TEXT
    assert control.finalized_while_inside == 0


def test_requests_survive_a_reload(hsm: Pkcs11Hsm) -> None:
    for _ in range(5):
        epoch = hsm.gauges().module_epoch
        hsm.reload_keys()
        while hsm.gauges().module_epoch == epoch:
            assert call(hsm, round_trip) == TEXT
    assert call(hsm, round_trip) == TEXT
    assert hsm.gauges().quarantined == 0
