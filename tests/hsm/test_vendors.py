"""Other vendors' manners (emulated by the shim from documents, not verified on hardware), and NSS softokn."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.hsm.conftest import AAD, HEALTH, KEY, TEXT, Site, Start, call, encrypt, round_trip
from tests.waiting import eventually

from holdfast.hsm.faults import (
    CiphertextRejected,
    DataTooLarge,
    HsmFault,
    IvUnsafe,
    KeyNotFound,
    LoginRefused,
    MechanismUnsupported,
    ModuleFailed,
)
from holdfast.hsm.pkcs11.backend import Pkcs11Hsm
from holdfast.hsm.pkcs11.inspect import Inspector
from holdfast.hsm.port import KeyLocator, KeySession, Sealed
from holdfast.hsm.settings import HsmSettings, IvMode, LoginMode, TokenSelector
from holdfast.xks.aad import AadFraming
from holdfast.xks.types import HealthStatus

if TYPE_CHECKING:
    from tests.shim.control import Personality, ShimControl

SERVED: tuple[Personality, ...] = ("plain", "nshield", "luna", "cloudhsm", "nss-strict", "legacy-40-byte")


@pytest.mark.parametrize("personality", SERVED)
def test_each_personality_is_served(site: Site, start: Start, personality: Personality) -> None:
    hsm = start(site.shim_settings(personality))
    sealed = call(hsm, lambda session: session.encrypt(KEY, TEXT, AAD))
    assert len(sealed.initialization_vector) == (16 if personality == "luna" else 12)
    assert call(hsm, lambda session: session.decrypt(KEY, sealed, AAD)) == TEXT
    assert hsm.health().status is HealthStatus.ACTIVE


@pytest.mark.parametrize("personality", SERVED)
def test_a_bad_tag_is_a_rejected_ciphertext(site: Site, start: Start, personality: Personality) -> None:
    hsm = start(site.shim_settings(personality))

    def work(session: KeySession) -> bytes:
        sealed = session.encrypt(KEY, TEXT, AAD)
        return session.decrypt(KEY, sealed._replace(authentication_tag=bytes(16)), AAD)

    with pytest.raises(CiphertextRejected):
        call(hsm, work)
    assert call(hsm, round_trip) == TEXT
    assert hsm.health().status is HealthStatus.ACTIVE


@pytest.mark.parametrize("personality", ["nshield", "cloudhsm"])
def test_an_iv_written_only_by_c_encrypt_is_read_back(site: Site, start: Start, personality: Personality) -> None:
    hsm = start(site.shim_settings(personality, {"iv_late": True}))
    assert call(hsm, round_trip) == TEXT


@pytest.mark.parametrize(
    ("personality", "iv_mode"),
    [
        ("plain", IvMode.HSM_IN_PLACE),
        ("plain", IvMode.HSM_APPENDED),
        ("silent-zero", IvMode.HSM_IN_PLACE),
        ("silent-zero", IvMode.HSM_APPENDED),
        ("nshield", IvMode.PROXY),
        ("nshield", IvMode.HSM_APPENDED),
        ("luna", IvMode.PROXY),
        ("luna", IvMode.HSM_IN_PLACE),
        ("cloudhsm", IvMode.PROXY),
        ("cloudhsm", IvMode.HSM_APPENDED),
    ],
)
def test_a_wrong_iv_mode_does_not_start(site: Site, start: Start, personality: Personality, iv_mode: IvMode) -> None:
    with pytest.raises(IvUnsafe, match=f'iv_mode = "{iv_mode}".* is wrong for this module.*set iv_mode = "'):
        start(site.shim_settings(personality, iv_mode=iv_mode))


@pytest.mark.parametrize("fault", ["zero_iv", "repeat_iv", "unchanged_iv"])
def test_a_module_whose_ivs_are_bad_does_not_start(
    site: Site, start: Start, control: ShimControl, fault: str
) -> None:
    getattr(control, fault)(True)
    with pytest.raises(IvUnsafe):
        start(site.shim_settings("nshield"))


@pytest.mark.parametrize("fault", ["zero_random", "repeat_random"])
def test_a_module_whose_random_bytes_are_bad_does_not_start(
    site: Site, start: Start, control: ShimControl, fault: str
) -> None:
    getattr(control, fault)(True)
    with pytest.raises(IvUnsafe):
        start(site.shim_settings("plain"))


@pytest.mark.parametrize("fault", ["zero_iv", "repeat_iv", "unchanged_iv"])
def test_a_bad_iv_while_serving_stops_that_key_until_release_and_it_still_decrypts(
    site: Site, start: Start, control: ShimControl, fault: str
) -> None:
    hsm = start(site.shim_settings("nshield", sessions=1))
    sealed = call(hsm, lambda session: session.encrypt(KEY, TEXT, AAD))
    getattr(control, fault)(True)
    with pytest.raises(IvUnsafe):
        call(hsm, encrypt)
    getattr(control, fault)(False)
    with pytest.raises(IvUnsafe, match="until `holdfast key release`"):
        call(hsm, encrypt)
    assert call(hsm, lambda session: session.decrypt(KEY, sealed, AAD)) == TEXT
    assert list(hsm.stopped_keys()) == [KEY]
    assert hsm.health().status is HealthStatus.DEGRADED
    assert "not encrypt any more" in hsm.health().reason


def test_random_bytes_that_come_twice_stop_the_key(site: Site, start: Start, control: ShimControl) -> None:
    hsm = start(site.shim_settings("plain", sessions=1))
    control.repeat_random(True)
    with pytest.raises(IvUnsafe):
        call(hsm, lambda session: [session.encrypt(KEY, b"", AAD) for _ in range(1000)])


def test_an_iv_that_another_session_got_is_a_repeated_one(site: Site, start: Start, control: ShimControl) -> None:
    hsm = start(site.shim_settings("nshield", sessions=2))
    control.repeat_iv(True)
    ivs, refused = [], 0
    for _ in range(4):
        try:
            ivs.append(call(hsm, lambda session: session.encrypt(KEY, TEXT, AAD)).initialization_vector)
        except IvUnsafe:
            refused += 1
    assert len(ivs) == len(set(ivs))
    assert refused > 0


def test_data_over_cloudhsms_limit_is_too_large(site: Site, start: Start) -> None:
    hsm = start(site.shim_settings("cloudhsm"))
    with pytest.raises(DataTooLarge, match="16384"):
        call(hsm, lambda session: session.encrypt(KEY, bytes(16385), AAD))
    with pytest.raises(DataTooLarge):
        call(hsm, lambda session: session.decrypt(KEY, Sealed(bytes(12), bytes(16385), bytes(16)), AAD))
    assert len(call(hsm, lambda session: session.encrypt(KEY, bytes(16384), AAD)).ciphertext) == 16384


def test_cloudhsm_refuses_read_only_sessions(site: Site, start: Start) -> None:
    with pytest.raises(HsmFault, match="CKR_SESSION_READ_ONLY"):
        start(site.shim_settings("cloudhsm", read_write_sessions=False))


def test_a_token_without_gcm_is_named(site: Site, start: Start) -> None:
    with pytest.raises(MechanismUnsupported, match="0x1087"):
        start(site.shim_settings("nshield", {"no_gcm": True}))


def test_a_login_on_an_accelerator_is_refused_with_the_remedy(site: Site, start: Start, control: ShimControl) -> None:
    with pytest.raises(LoginRefused, match='Set login = "none"'):
        start(site.shim_settings("nshield", login=LoginMode.USER))
    assert control.calls()["C_Login"] == 1


def test_a_label_on_two_slots_lists_them_and_a_slot_chooses(site: Site, start: Start) -> None:
    by_label = site.shim_settings("nshield", {"load_sharing": False}, token=TokenSelector(label="accelerator"))
    with pytest.raises(ModuleFailed, match="2 tokens have the label 'accelerator': slot 492971157"):
        start(by_label)
    hsm = start(replace(by_label, token=TokenSelector(slot=492971157)))
    assert call(hsm, round_trip) == TEXT


def test_a_key_made_after_start_is_found_after_a_reload(site: Site, start: Start) -> None:
    hsm = start(site.shim_settings("nshield"))
    late = KeyLocator("late")
    with Inspector(site.settings()) as inspector:
        inspector.generate_aes_256("late", b"")
    try:
        with pytest.raises(KeyNotFound, match="reload"):
            call(hsm, lambda session: session.describe(late))
        hsm.reload_keys()
        eventually(lambda: hsm.gauges().module_epoch == 1)
        assert call(hsm, lambda session: session.describe(late)).key_spec == "AES_256"
        assert hsm.health().status is HealthStatus.ACTIVE
    finally:
        with Inspector(site.settings()) as inspector:
            inspector.destroy_key(*inspector.find_keys("late"))


def test_the_framing_is_the_profiles(site: Site) -> None:
    framings = {personality: Pkcs11Hsm(site.shim_settings(personality)).aad_framing for personality in SERVED}
    digest = {personality for personality, framing in framings.items() if framing is AadFraming.DIGEST}
    assert digest == {"nshield", "luna", "cloudhsm"}


@pytest.mark.programs
def test_nss_softokn_works_as_a_second_real_module(tmp_path: Path, start: Start) -> None:
    subprocess.run(["certutil", "-N", "-d", f"sql:{tmp_path}", "--empty-password"], check=True)
    settings = HsmSettings(
        "nss",
        "generic",
        str(next(Path("/usr/lib").glob("*/libsoftokn3.so"))),
        TokenSelector(label="NSS Certificate DB"),
        HEALTH,
        initialize_string=f"configdir='sql:{tmp_path}' certPrefix='' keyPrefix='' secmod='' flags=noModDB",
        sessions=2,
    )
    with Inspector(settings) as inspector:
        # NSS takes two secret keys with one CKA_ID for the same key.
        for label in (HEALTH, KEY.label):
            assert inspector.generate_aes_256(label, label.encode()).attributes.key_spec == "AES_256"
        inspector.round_trip(KEY)
        assert inspector.probe_bad_tag(KEY).expected
    hsm = start(settings)
    assert call(hsm, round_trip) == TEXT
    with pytest.raises(CiphertextRejected):
        call(hsm, lambda session: session.decrypt(KEY, Sealed(bytes(12), TEXT, bytes(16)), AAD))
