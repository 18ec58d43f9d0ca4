"""Logging in, and choosing the token."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from tests.hsm.conftest import PIN, TEXT, Site, Start, call, round_trip
from tests.waiting import PATIENCE

from holdfast.hsm.faults import HsmFault, IvUnsafe, KeyNotFound, KeyUsageRefused, LoginRefused, ModuleFailed
from holdfast.hsm.settings import LoginMode, TokenSelector
from holdfast.xks.secret import Secret
from holdfast.xks.types import HealthStatus

if TYPE_CHECKING:
    from tests.shim.control import ShimControl

WRONG = "marked-wrong-pin-8842"


def test_one_login_serves_every_session(site: Site, start: Start, control: ShimControl) -> None:
    control.reset_counters()
    start(site.shim_settings("plain", sessions=8))
    assert control.calls()["C_Login"] == 1
    assert "C_Logout" not in control.calls()


def test_losing_the_race_for_the_login_is_a_login(site: Site, start: Start, control: ShimControl) -> None:
    control.lose_login_race()
    assert call(start(site.shim_settings("plain")), round_trip) == TEXT


def test_a_wrong_pin_is_tried_once_and_never_printed(site: Site, start: Start, control: ShimControl) -> None:
    control.reset_counters()
    with pytest.raises(LoginRefused, match="CKR_PIN_INCORRECT") as raised:
        start(site.shim_settings("plain", pin=Secret.of_text(WRONG)))
    assert control.calls()["C_Login"] == 1
    shown: list[str] = []
    error: BaseException | None = raised.value
    while error is not None:
        shown.append(repr(error) + str(error.__dict__))
        error = error.__cause__ or error.__context__
    assert WRONG not in "".join(shown)


def test_no_pin_where_one_is_needed_is_said(site: Site, start: Start) -> None:
    with pytest.raises(LoginRefused, match="no PIN is configured"):
        start(site.settings(pin=None))


def test_without_a_login_private_keys_are_not_found(site: Site, start: Start) -> None:
    with pytest.raises(KeyNotFound, match="a private key needs a login"):
        start(site.settings(login=LoginMode.NONE))


def test_a_health_key_that_is_missing_or_unfit_is_named(site: Site, start: Start) -> None:
    with pytest.raises(KeyNotFound, match="no such key"):
        start(site.settings(health_key="no such key"))
    with pytest.raises(KeyUsageRefused, match=r"AES_128.*must be AES_256"):
        start(site.settings(health_key="aes-128"))


def test_a_token_that_is_not_there_is_said_with_those_that_are(site: Site, start: Start) -> None:
    with pytest.raises(ModuleFailed, match=r"no token has the label 'absent'; slot \d+ has label 'holdfast'"):
        start(site.settings(token=TokenSelector(label="absent")))


def test_a_token_is_chosen_by_serial(site: Site, start: Start) -> None:
    hsm = start(site.settings())
    serial = hsm.health().id
    hsm.stop()
    assert call(start(site.settings(token=TokenSelector(serial=serial))), round_trip) == TEXT


def test_a_library_that_cannot_be_loaded_is_said(site: Site, start: Start) -> None:
    with pytest.raises(ModuleFailed, match=r"cannot be loaded.*Check the path"):
        start(site.settings(library="/nonexistent/libpkcs11.so"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"profile": "nosuch"}, "there are softhsm2, nshield"),
        ({"iv_length": 13}, "12 or 16"),
        ({"gcm_parameter_bytes": 44}, "48 or 40"),
    ],
)
def test_a_setting_out_of_range_is_said(site: Site, start: Start, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ModuleFailed, match=words):
        start(replace(site.settings(), **changes))


def test_a_failed_start_leaves_the_module_free(site: Site, start: Start, control: ShimControl) -> None:
    with pytest.raises(IvUnsafe):
        start(site.shim_settings("silent-zero", profile="nshield"))
    assert control.sessions == 0
    assert start(site.shim_settings("plain")).health().status is HealthStatus.ACTIVE


def test_health_names_vendor_model_firmware_and_serial(site: Site, start: Start) -> None:
    health = start(site.settings()).health()
    assert health.vendor == "SoftHSM project"
    assert health.model.startswith("SoftHSM v2 ")
    assert health.id in health.model
    assert health.checked_at is not None


@pytest.mark.programs
def test_a_child_of_a_fork_is_refused(site: Site) -> None:
    program = f"""
import os, sys
from holdfast.hsm.faults import ModuleFailed
from holdfast.hsm.pkcs11.cryptoki import Cryptoki
module = Cryptoki({str(site.softhsm)!r}, {{"SOFTHSM2_CONF": {str(site.configuration)!r}}})
module.initialize()
child = os.fork()
if child == 0:
    try:
        module.open_session(0, read_write=True)
    except ModuleFailed as refused:
        os._exit(17 if "fork" in refused.message else 1)
    os._exit(2)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, timeout=PATIENCE)
    assert done.returncode == 17


def test_the_pin_is_in_no_error_and_no_setting(site: Site, start: Start, control: ShimControl) -> None:
    settings = site.shim_settings("plain")
    assert PIN not in repr(settings.pin)
    for function in ("C_Initialize", "C_OpenSession", "C_Login", "C_GetMechanismInfo", "C_FindObjectsInit"):
        control.fail(function, 0x30, times=1)
        with pytest.raises(HsmFault) as raised:
            start(settings)
        assert PIN not in repr(raised.value)
        assert function in raised.value.message
        control.succeed(function)
