"""A key is known by proof, and "your key is gone" needs two looks; on SoftHSM behind the shim."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.hsm.conftest import AAD, KEY, TEXT, Site, call
from tests.waiting import eventually

from holdfast.hsm.faults import (
    CiphertextRejected,
    DataTooLarge,
    HsmFault,
    HsmUnavailable,
    KeyNotFound,
    KeyUntrusted,
    ModuleFailed,
)
from holdfast.hsm.pkcs11.backend import Pkcs11Hsm
from holdfast.hsm.pkcs11.canary import CANARY_AAD
from holdfast.hsm.pkcs11.inspect import Inspector
from holdfast.hsm.port import KeyAttributes, KeyLocator, KeySession, Sealed
from holdfast.xks.aad import MAX_CIPHERTEXT_METADATA, AadFraming, aws_sample_hsm_aad, hsm_aad

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.shim.control import ShimControl

LABEL = "confirmed"
PLACE = KeyLocator(LABEL)


class Served:
    """An HSM of one session, and the keeper of the canaries that it made."""

    def __init__(self, site: Site, *, permitted: bool | None = True, **changes: Any) -> None:
        self.canaries: list[tuple[KeyLocator, bytes]] = []
        self.permitted = permitted
        settings = site.shim_settings("plain", sessions=1, **({"probe_interval_s": 3600.0} | changes))
        self.hsm = Pkcs11Hsm(settings, wait_for_token=0.0, canaries=self)
        self.hsm.start()

    def may_make(self, key: KeyLocator) -> bool | None:
        """As the test says, once for each key."""
        return self.permitted if key not in [made_for for made_for, _ in self.canaries] else False

    def made(self, key: KeyLocator, canary: bytes) -> None:
        """Kept for the test."""
        self.canaries.append((key, canary))

    def failed(self, key: KeyLocator) -> None:
        """Another one may be made at once."""

    def canary_of(self, key: KeyLocator) -> bytes:
        """The canary made at the key's first use."""
        call(self.hsm, lambda session: session.describe(key))
        ((made_for, canary),) = self.canaries
        assert made_for == key
        return canary


@pytest.fixture
def served(site: Site, control: ShimControl, _token_key: None) -> Iterator[Served]:
    served = Served(site)
    yield served
    control.clear_faults()
    served.hsm.stop()


@pytest.fixture
def _token_key(site: Site) -> Iterator[None]:
    """A key of the test's own, on the token."""
    with _inspector(site) as inspector:
        inspector.generate_aes_256(LABEL, b"\x0a")
    yield
    with _inspector(site) as inspector:
        for found in inspector.find_keys(LABEL):
            inspector.destroy_key(found)


@contextmanager
def _inspector(site: Site) -> Iterator[Inspector]:
    with Inspector(site.shim_settings("plain")) as inspector:
        yield inspector


def swap(site: Site, *, sensitive: bool = True, extractable: bool = False) -> None:
    """Another key under the same label and CKA_ID."""
    with _inspector(site) as inspector:
        inspector.destroy_key(*inspector.find_keys(LABEL))
        template: dict[int, bytes | bool | int] = {0: 4, 1: True, 2: True, 3: LABEL.encode(), 0x102: b"\x0a"}
        template |= {0x103: sensitive, 0x162: extractable, 0x161: 32, 0x104: True, 0x105: True}
        inspector._cryptoki.generate_key(inspector._open(), 0x1080, template)


def decrypt(key: KeyLocator, sealed: Sealed) -> Any:
    return lambda session: session.decrypt(key, sealed, AAD)


def seal(key: KeyLocator) -> Any:
    return lambda session: session.encrypt(key, TEXT, AAD)


# ---- the canary


@given(aad=st.binary(max_size=70_000), metadata=st.binary(max_size=MAX_CIPHERTEXT_METADATA))
def test_no_request_has_the_aad_of_a_canary(aad: bytes, metadata: bytes) -> None:
    aad = aad[:65_535]
    framed = [hsm_aad(aad, metadata, framing) for framing in AadFraming]
    framed += [aws_sample_hsm_aad(aad, metadata), aws_sample_hsm_aad(None, metadata)]
    assert CANARY_AAD not in framed


def test_the_aad_of_a_canary_has_a_length_that_no_framing_gives() -> None:
    announced = int.from_bytes(CANARY_AAD[:2])
    assert 2 + 32 + 1 + MAX_CIPHERTEXT_METADATA < len(CANARY_AAD) < 2 + announced + 1


def test_a_key_without_a_canary_gets_one_at_first_sight_and_no_second(served: Served) -> None:
    canary = served.canary_of(PLACE)
    assert len(canary) == 12 + 35 + 16
    call(served.hsm, seal(PLACE))
    assert len(served.canaries) == 1


def test_a_canary_is_not_made_before_its_encryption_is_counted(site: Site, served: Served) -> None:
    served.hsm.stop()
    served = Served(site, permitted=None)
    call(served.hsm, seal(PLACE))
    assert served.canaries == []
    served.permitted = True
    call(served.hsm, seal(PLACE))
    assert len(served.canaries) == 1
    served.hsm.stop()


def test_a_canary_that_this_process_made_is_not_opened_once_more(served: Served, control: ShimControl) -> None:
    eventually(lambda: _works(served.hsm, PLACE) and served.canaries != [])
    ((_, canary),) = served.canaries
    control.reset_counters()
    call(served.hsm, seal(KeyLocator(LABEL, canary=canary)))
    assert control.calls() == {"C_EncryptInit": 1, "C_Encrypt": 1}


def test_a_damaged_canary_is_never_kept(served: Served, control: ShimControl) -> None:
    control.corrupt_output(True)
    with pytest.raises(HsmFault):
        call(served.hsm, seal(PLACE))
    assert served.canaries == []
    control.corrupt_output(False)
    eventually(lambda: _works(served.hsm, PLACE))
    ((_, canary),) = served.canaries
    # A probe of the damaged module may end only now.
    eventually(lambda: _works(served.hsm, KeyLocator(LABEL, canary=canary)))


def test_a_damaged_canary_is_never_registered(site: Site, served: Served, control: ShimControl) -> None:
    with _inspector(site) as inspector:
        (key,) = inspector.find_keys(LABEL)
        control.corrupt_output(True)
        with pytest.raises(ModuleFailed, match="does not decrypt"):
            inspector.seal_canary(key)
    served.hsm.stop()


def test_a_key_at_its_limit_gets_no_canary_and_goes_on(site: Site, served: Served, control: ShimControl) -> None:
    served.hsm.stop()
    served = Served(site, permitted=False)
    call(served.hsm, seal(PLACE))
    control.reset_counters()
    call(served.hsm, seal(PLACE))
    assert served.canaries == []
    assert control.calls() == {"C_EncryptInit": 1, "C_Encrypt": 1}
    served.hsm.stop()


def test_a_canary_is_opened_once_before_first_use(site: Site, served: Served, control: ShimControl) -> None:
    key = KeyLocator(LABEL, canary=served.canary_of(PLACE))
    sealed = call(served.hsm, seal(key))
    served.hsm.stop()
    served = Served(site)
    for decryptions in (2, 1):
        control.reset_counters()
        call(served.hsm, decrypt(key, sealed))
        assert control.calls()["C_Decrypt"] == decryptions
    served.hsm.stop()


def test_the_canaries_of_two_registrations_of_one_key_cost_nothing_after_the_first_use(
    site: Site, served: Served, control: ShimControl
) -> None:
    one = KeyLocator(LABEL, canary=served.canary_of(PLACE))
    with _inspector(site) as inspector:
        two = KeyLocator(LABEL, canary=inspector.seal_canary(*inspector.find_keys(LABEL)))
    sealed = call(served.hsm, seal(one))
    call(served.hsm, seal(two))
    control.reset_counters()
    for key in (one, two) * 5:
        call(served.hsm, decrypt(key, sealed))
    assert control.calls() == {"C_DecryptInit": 10, "C_Decrypt": 10}


@pytest.mark.usefixtures("_token_key", "control")
def test_another_key_under_the_label_is_never_used(site: Site) -> None:
    served = Served(site)
    key = KeyLocator(LABEL, canary=served.canary_of(PLACE))
    sealed = call(served.hsm, seal(key))
    swap(site)
    for work in (seal(key), decrypt(key, sealed), lambda session: session.describe(key)):
        with pytest.raises(KeyUntrusted, match="is not the key that was registered"):
            call(served.hsm, work)
    assert set(served.hsm.untrusted_keys()) == {key}
    assert call(served.hsm, lambda session: session.encrypt(KEY, TEXT, AAD))
    served.hsm.stop()


@pytest.mark.usefixtures("_token_key", "control")
def test_another_key_is_noticed_by_the_probe_without_a_request(site: Site) -> None:
    served = Served(site, probe_interval_s=0.05)
    key = KeyLocator(LABEL, canary=served.canary_of(PLACE))
    call(served.hsm, seal(key))
    swap(site)
    eventually(lambda: key in served.hsm.untrusted_keys())
    served.hsm.stop()


@pytest.mark.usefixtures("_token_key", "control")
def test_a_key_that_proves_itself_again_serves_again(site: Site) -> None:
    served = Served(site, probe_interval_s=0.05)
    key = KeyLocator(LABEL, canary=served.canary_of(PLACE))
    with _inspector(site) as inspector:
        inspector.generate_aes_256("other", b"\x0b")
    moved = KeyLocator("other", canary=key.canary)
    with pytest.raises(KeyUntrusted):
        call(served.hsm, seal(moved))
    assert moved in served.hsm.untrusted_keys()
    with _inspector(site) as inspector:
        canary = inspector.seal_canary(*inspector.find_keys("other"))
    rebound = KeyLocator("other", canary=canary)
    call(served.hsm, seal(rebound))

    def serves() -> bool:
        # A probe that was under way may still find that the old canary does not open.
        served.hsm.retain_keys(lambda registered: registered.canary in (None, canary))
        return served.hsm.untrusted_keys() == {}

    eventually(serves)
    served.hsm.stop()
    with _inspector(site) as inspector:
        inspector.destroy_key(*inspector.find_keys("other"))


def test_an_hsm_that_fails_is_not_another_key(site: Site, served: Served, control: ShimControl) -> None:
    key = KeyLocator(LABEL, canary=served.canary_of(PLACE))
    served.hsm.stop()
    served = Served(site)
    control.fail("C_Decrypt", 0x05)
    with pytest.raises(HsmUnavailable, match="nor that of the health key opens"):
        call(served.hsm, seal(key))
    assert served.hsm.untrusted_keys() == {}
    control.succeed("C_Decrypt")
    eventually(lambda: _works(served.hsm, key))
    served.hsm.stop()


@pytest.mark.parametrize("function", ["C_DecryptInit", "C_Decrypt"])
@pytest.mark.parametrize("ckr", [0x54, 0x70, 0x62, 0x63, 0x68, 0x203], ids=hex)
def test_a_canary_that_the_hsm_refuses_to_open_does_not_blame_the_request(
    site: Site, served: Served, control: ShimControl, function: str, ckr: int
) -> None:
    key = KeyLocator(LABEL, canary=served.canary_of(PLACE))
    served.hsm.stop()
    served = Served(site)
    control.fail(function, ckr)
    with pytest.raises(ModuleFailed, match=function):
        call(served.hsm, seal(key))
    control.succeed(function)
    assert call(served.hsm, seal(key))
    served.hsm.stop()


@pytest.mark.parametrize("function", ["C_EncryptInit", "C_Encrypt"])
@pytest.mark.parametrize("ckr", [0x54, 0x70, 0x62, 0x63, 0x68, 0x203], ids=hex)
def test_a_key_that_may_not_encrypt_any_more_decrypts_without_a_canary(
    site: Site, served: Served, control: ShimControl, function: str, ckr: int
) -> None:
    sealed = call(served.hsm, seal(PLACE))
    served.hsm.stop()
    served = Served(site)
    control.fail(function, ckr)
    assert call(served.hsm, decrypt(PLACE, sealed)) == TEXT
    assert served.canaries == []
    served.hsm.stop()


def test_a_changed_ciphertext_is_still_a_bad_ciphertext(served: Served) -> None:
    key = KeyLocator(LABEL, canary=served.canary_of(PLACE))
    iv, ciphertext, tag = call(served.hsm, seal(key))
    with pytest.raises(CiphertextRejected):
        call(served.hsm, decrypt(key, Sealed(iv, ciphertext, tag[:-1] + bytes([tag[-1] ^ 1]))))


@pytest.mark.parametrize("size", [0, 40, 4300])
def test_a_length_that_the_module_does_not_take_is_not_a_bad_ciphertext(
    served: Served, control: ShimControl, size: int
) -> None:
    key = KeyLocator(LABEL, canary=served.canary_of(PLACE))
    sealed = call(served.hsm, lambda session: session.encrypt(key, bytes(size), AAD))
    # Twice the request; then the health key at this size; then its canary succeeds.
    control.fail("C_Decrypt", 0x21, times=3)
    with pytest.raises(DataTooLarge):
        call(served.hsm, decrypt(key, sealed))


@pytest.mark.usefixtures("_token_key", "control")
@pytest.mark.parametrize(
    ("changes", "words"),
    [({"extractable": True}, "CKA_EXTRACTABLE is true"), ({"sensitive": False}, "CKA_SENSITIVE is false")],
)
def test_a_key_that_may_leave_the_hsm_is_refused_unless_the_settings_allow_it(
    site: Site, changes: dict[str, bool], words: str
) -> None:
    swap(site, **changes)
    served = Served(site)
    for work in (seal(PLACE), lambda session: session.describe(PLACE)):
        with pytest.raises(KeyUntrusted, match=f"{words}.*allow_extractable = true"):
            call(served.hsm, work)
    served.hsm.stop()
    served = Served(site, allow_extractable=True)
    assert call(served.hsm, seal(PLACE))
    served.hsm.stop()


# ---- gone


def test_a_token_that_shows_nothing_is_an_hsm_fault_and_not_a_missing_key(
    served: Served, control: ShimControl
) -> None:
    control.find_nothing(True)
    with pytest.raises(HsmUnavailable, match="does not show the health key"):
        call(served.hsm, seal(PLACE))
    control.find_nothing(False)
    eventually(lambda: _works(served.hsm, PLACE))


def test_a_key_that_was_used_a_moment_ago_is_missing_only_after_a_good_probe(site: Site, served: Served) -> None:
    key = KeyLocator(LABEL, canary=served.canary_of(PLACE))
    call(served.hsm, seal(key))
    with _inspector(site) as inspector:
        inspector.destroy_key(*inspector.find_keys(LABEL))
    with pytest.raises(HsmUnavailable, match="a moment ago"):
        call(served.hsm, seal(key))

    def missing() -> bool:
        try:
            call(served.hsm, seal(key))
        except KeyNotFound:
            return True
        except HsmUnavailable:
            return False
        raise AssertionError("the key is not on the token")

    eventually(missing)


@pytest.mark.parametrize("ckr", [0x60, 0x82])
@pytest.mark.parametrize("function", ["C_EncryptInit", "C_DecryptInit"])
def test_a_handle_that_stays_invalid_is_an_hsm_fault(
    served: Served, control: ShimControl, function: str, ckr: int
) -> None:
    sealed = call(served.hsm, seal(PLACE))
    control.fail(function, ckr)
    with pytest.raises(HsmUnavailable):
        call(served.hsm, seal(PLACE) if function == "C_EncryptInit" else decrypt(PLACE, sealed))


def test_attributes_that_cannot_be_read_do_not_make_a_key_unusable(served: Served, control: ShimControl) -> None:
    control.fail("C_GetAttributeValue", 0x12)
    for work in (seal(PLACE), lambda session: session.describe(PLACE)):
        with pytest.raises(HsmUnavailable, match="does not show CKA_ENCRYPT"):
            call(served.hsm, work)
    control.succeed("C_GetAttributeValue")
    eventually(lambda: _works(served.hsm, PLACE))


def test_attributes_that_could_not_be_read_once_are_read_again(served: Served, control: ShimControl) -> None:
    control.fail("C_GetAttributeValue", 0x12, times=17)

    def describe(session: KeySession) -> KeyAttributes:
        return session.describe(PLACE)

    assert call(served.hsm, describe).key_spec == "AES_256"


def test_a_length_beyond_the_buffer_is_not_read(served: Served, control: ShimControl) -> None:
    control.long_attributes(True)
    with pytest.raises(HsmFault):
        call(served.hsm, lambda session: session.describe(PLACE))


def _works(hsm: Pkcs11Hsm, key: KeyLocator) -> bool:
    try:
        call(hsm, seal(key))
    except HsmFault:
        return False
    return True
