"""What `init`, `doctor` and `key create` see of a module."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.hsm.conftest import HEALTH, KEY, TOKEN, Site

from holdfast.hsm.faults import HsmFault, KeyAmbiguous
from holdfast.hsm.pkcs11.inspect import Inspector
from holdfast.hsm.pkcs11.iv import IvOutcome
from holdfast.hsm.settings import IvMode, LoginMode, TokenSelector

if TYPE_CHECKING:
    from tests.shim.control import Personality, ShimControl


def test_a_module_is_described(site: Site) -> None:
    with Inspector(site.settings()) as inspector:
        assert inspector.library().manufacturer == "SoftHSM"
        assert TOKEN in [token.label for token in inspector.tokens()]
        assert inspector.token().login_required
        gcm = next(mechanism for mechanism in inspector.mechanisms() if mechanism.name == "CKM_AES_GCM")
        assert gcm.encrypts
        assert gcm.decrypts
        assert inspector.log_in()


def test_keys_are_found_by_label_id_or_all(site: Site) -> None:
    with Inspector(site.settings()) as inspector:
        assert [key.id for key in inspector.find_keys("twin", b"\2")] == [b"\2"]
        assert len(inspector.find_keys("twin")) == 2
        assert {HEALTH, KEY.label, "twin"} <= {key.label for key in inspector.find_keys()}
        assert inspector.find_keys("no such key") == []


def test_a_new_key_is_sensitive_not_extractable_and_does_what_was_asked(site: Site) -> None:
    with Inspector(site.settings()) as inspector:
        try:
            key = inspector.generate_aes_256("made", b"\x0a", usages=("DECRYPT",))
            assert (key.label, key.id) == ("made", b"\x0a")
            assert key.attributes.key_spec == "AES_256"
            assert key.attributes.key_usage == ("DECRYPT",)
            attributes = key.attributes.attributes
            assert attributes["CKA_SENSITIVE"]
            assert attributes["CKA_PRIVATE"]
            assert attributes["CKA_TOKEN"]
            assert not attributes["CKA_EXTRACTABLE"]
            with pytest.raises(KeyAmbiguous, match="already"):
                inspector.generate_aes_256("made", b"\x0b")
        finally:
            (made,) = inspector.find_keys("made")
            inspector.destroy_key(made)
        assert inspector.find_keys("made") == []


@pytest.mark.parametrize(
    ("personality", "changes", "outcome"),
    [
        ("plain", {}, IvOutcome.SAFE),
        ("nshield", {}, IvOutcome.SAFE),
        ("luna", {}, IvOutcome.SAFE),
        ("cloudhsm", {}, IvOutcome.SAFE),
        ("silent-zero", {"iv_mode": IvMode.HSM_IN_PLACE}, IvOutcome.NOT_MADE),
        ("silent-zero", {"iv_mode": IvMode.HSM_APPENDED}, IvOutcome.WRONG_LENGTH),
        ("nshield", {"iv_mode": IvMode.PROXY}, IvOutcome.REFUSED),
        ("luna", {"iv_mode": IvMode.HSM_IN_PLACE}, IvOutcome.REFUSED),
    ],
)
def test_the_iv_probe_names_what_it_found(
    site: Site, control: ShimControl, personality: Personality, changes: dict[str, Any], outcome: IvOutcome
) -> None:
    del control  # no faults
    with Inspector(site.shim_settings(personality, **changes)) as inspector:
        assert inspector.probe_iv(KEY).outcome is outcome


@pytest.mark.parametrize(("fault", "outcome"), [("zero_iv", IvOutcome.NOT_MADE), ("repeat_iv", IvOutcome.REPEATED)])
def test_the_iv_probe_sees_a_broken_generator(
    site: Site, control: ShimControl, fault: str, outcome: IvOutcome
) -> None:
    with Inspector(site.shim_settings("nshield")) as inspector:
        assert inspector.probe_iv(KEY).outcome is IvOutcome.SAFE
        getattr(control, fault)(True)
        assert inspector.probe_iv(KEY).outcome is outcome


@pytest.mark.parametrize(
    ("personality", "profile", "ckr", "expected"),
    [
        ("plain", "softhsm2", 0x05, True),
        ("plain", "luna", 0x05, False),
        ("nshield", "nshield", 0x06, True),
        ("luna", "luna", 0x40, True),
    ],
)
def test_the_bad_tag_probe_names_the_code(  # noqa: PLR0913, PLR0917 (one row of the table)
    site: Site,
    control: ShimControl,
    personality: Personality,
    profile: str,
    ckr: int,
    expected: bool,  # noqa: FBT001 (a column)
) -> None:
    del control
    iv_mode = IvMode.PROXY if personality == "plain" else None
    changes: dict[str, Any] = {
        "profile": profile,
        "iv_mode": iv_mode,
        "iv_length": 12 if personality == "plain" else None,
    }
    with Inspector(site.shim_settings(personality, **changes)) as inspector:
        found = inspector.probe_bad_tag(KEY)
    assert (found.ckr, found.expected) == (ckr, expected)


@pytest.mark.parametrize("personality", ["plain", "nshield", "luna", "cloudhsm"])
def test_full_size_data_comes_back(site: Site, control: ShimControl, personality: Personality) -> None:
    del control
    with Inspector(site.shim_settings(personality)) as inspector:
        inspector.round_trip(KEY)


def test_a_login_is_reported_as_wanted_or_not(site: Site, control: ShimControl) -> None:
    del control
    with Inspector(site.shim_settings("nshield")) as inspector:
        assert not inspector.log_in()
    with Inspector(site.settings(login=LoginMode.NONE)) as inspector:
        assert not inspector.log_in()


def test_what_goes_wrong_is_a_fault_with_its_call(site: Site, control: ShimControl) -> None:
    control.fail("C_GetSlotList", 0x30)
    with Inspector(site.shim_settings("plain")) as inspector, pytest.raises(HsmFault, match="C_GetSlotList returned"):
        inspector.tokens()


def test_two_tokens_of_one_label_are_listed(site: Site, control: ShimControl) -> None:
    del control
    settings = site.shim_settings("nshield", {"load_sharing": False}, token=TokenSelector(label="accelerator"))
    with Inspector(settings) as inspector, pytest.raises(HsmFault, match=r"slot 492971157 .*slot 492971159"):
        inspector.token()
