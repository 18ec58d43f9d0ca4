"""What Encrypt and Decrypt make of the generations of a key, and of the format of their ciphertexts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from tests.protocols.xks.proxy import Proxy, external_key, plaintext_of

from holdfast.keys.model import Takeover
from holdfast.keys.states import GenerationState
from holdfast.xks.aad import AadFraming, CiphertextMetadata, key_tag
from holdfast.xks.encoding import decode_base64, encode_base64

if TYPE_CHECKING:
    from tests.protocols.xks.software_hsm import SoftwareHsm

    from holdfast.keys.model import ExternalKey

S = GenerationState
TEXT = b"Hello World!"
AAD = b"project=nile"


def metadata_of(sealed: dict[str, str]) -> CiphertextMetadata:
    return CiphertextMetadata.parse(decode_base64(sealed["ciphertextMetadata"], "ciphertextMetadata"))


def with_states(key: ExternalKey, **states: GenerationState) -> ExternalKey:
    """The key with its generations in these states; the names are `g1`, `g2`."""
    generations = {
        number: replace(one, state=states.get(f"g{number}", one.state)) for number, one in key.generations.items()
    }
    (active,) = (one for one in generations.values() if one.state is S.ACTIVE)
    return replace(key, generations=generations, active=active)


# ---- which one encrypts, and which decrypt


def test_the_active_generation_encrypts_and_not_the_one_with_the_highest_number(either: Proxy) -> None:
    either.change(keys={"key-1": with_states(external_key("key-1", "key-2"), g1=S.ACTIVE, g2=S.READY)})
    sealed = either.encrypt(TEXT, AAD, cdiv=True)
    assert (metadata_of(sealed.json).generation, sealed.event.generation) == (1, 1)


@pytest.mark.parametrize("state", [state for state in S if state is not S.ACTIVE])
def test_a_generation_decrypts_as_its_state_says(either: Proxy, state: GenerationState) -> None:
    either.change(keys={"key-1": external_key("key-1")})
    sealed = either.encrypt(TEXT, AAD).json
    key = with_states(external_key("key-1", "key-2"), g1=state)
    either.change(keys={"key-1": key})
    either.in_catalog = either.keystore
    reply = either.decrypt(sealed, AAD)
    if state.decrypts:
        assert plaintext_of(reply) == TEXT
    else:
        assert reply.error == ("InvalidStateException" if state.withheld else "InternalException")
        assert state.withheld == (str(state) in str(reply.event.detail))


def test_a_withheld_generation_does_not_reach_the_hsm(proxy: Proxy, hsm: SoftwareHsm) -> None:
    sealed = proxy.encrypt(TEXT).json
    proxy.change(keys={"key-1": with_states(external_key("key-1", "key-2"), g1=S.SUSPENDED)})
    hsm.calls.clear()
    assert proxy.decrypt(sealed).error == "InvalidStateException"
    assert hsm.calls == []


def test_a_withheld_generation_opens_no_ciphertext_of_awss_sample(proxy: Proxy) -> None:
    key = with_states(external_key("key-1", "key-2", takeover=Takeover()), g1=S.SUSPENDED)
    sealed = proxy.encrypt(TEXT).json
    proxy.change(keys={"key-1": key})
    assert proxy.decrypt({**sealed, "ciphertextMetadata": None}).error == "InvalidStateException"


# ---- a generation that is not known here yet


@pytest.fixture
def behind(either: Proxy) -> tuple[Proxy, dict[str, str]]:
    """A node that does not know of generation 2 yet, and what another one encrypted with it."""
    newer = external_key("key-1", "key-2")
    older = external_key("key-1")
    either.change(keys={"key-1": newer})
    either.in_catalog = either.keystore
    sealed = either.encrypt(TEXT, AAD).json
    either.change(keys={"key-1": older})
    return either, sealed


def test_an_unknown_generation_is_looked_for_in_the_catalog_at_once(behind: tuple[Proxy, dict[str, str]]) -> None:
    proxy, sealed = behind
    opened = proxy.decrypt(sealed, AAD)
    assert (plaintext_of(opened), opened.event.generation, proxy.looks) == (TEXT, 2, 1)
    proxy.decrypt(sealed, AAD)
    assert proxy.looks == 1


def test_an_unknown_generation_is_never_an_invalid_ciphertext(behind: tuple[Proxy, dict[str, str]]) -> None:
    proxy, sealed = behind
    proxy.in_catalog = proxy.keystore  # the catalog does not know it either
    reply = proxy.decrypt(sealed, AAD)
    assert (reply.status, reply.error) == (500, "InternalException")
    proxy.in_catalog = None  # it does not answer
    reply = proxy.decrypt(sealed, AAD)
    assert (reply.status, reply.error) == (503, "DependencyTimeoutException")


def test_what_was_blocked_meanwhile_stays_so_for_a_generation_that_is_looked_for(
    behind: tuple[Proxy, dict[str, str]],
) -> None:
    proxy, sealed = behind
    assert proxy.in_catalog is not None
    proxy.in_catalog = replace(proxy.in_catalog, blocked=True)
    assert proxy.decrypt(sealed, AAD).error == "InvalidStateException"


# ---- format 2


@pytest.mark.parametrize("framing", AadFraming)
@pytest.mark.parametrize("made_in", [1, 2])
@pytest.mark.parametrize("makes_now", [1, 2])
def test_both_formats_are_read_whatever_the_key_makes(
    proxy: Proxy, hsm: SoftwareHsm, framing: AadFraming, made_in: int, makes_now: int
) -> None:
    hsm.aad_framing = framing
    proxy.change_key("key-1", metadata_format=made_in)
    sealed = proxy.encrypt(TEXT, AAD, cdiv=True).json
    assert (metadata_of(sealed).tag is None) == (made_in == 1)
    proxy.change_key("key-1", metadata_format=makes_now)
    assert plaintext_of(proxy.decrypt(sealed, AAD)) == TEXT


def test_a_ciphertext_opens_under_its_own_external_key_only_though_they_share_an_hsm_key(
    proxy: Proxy, hsm: SoftwareHsm
) -> None:
    key = external_key("key-1")
    twin = replace(key, external_key_id="twin", tag=key_tag(b"twin" * 3))
    proxy.change(keys={"key-1": key, "twin": twin})
    sealed = proxy.encrypt(TEXT, AAD).json
    hsm.calls.clear()
    reply = proxy.decrypt(sealed, AAD, key="twin")
    assert (reply.error, hsm.calls) == ("InvalidCiphertextException", ["run", "describe"])
    assert "another external key" in str(reply.event.detail)
    # The tag is bound: with the twin's in its place the HSM refuses.
    forged = encode_base64(replace(metadata_of(sealed), tag=twin.tag).to_bytes())
    reply = proxy.decrypt({**sealed, "ciphertextMetadata": forged}, AAD, key="twin")
    assert (reply.error, hsm.calls[-1]) == ("InvalidCiphertextException", "decrypt")


def test_in_format_1_a_generation_that_does_not_exist_was_never_made(proxy: Proxy) -> None:
    """Only a key of format 2 rotates, so there is nothing to wait for."""
    proxy.change_key("key-1", metadata_format=1)
    sealed = proxy.encrypt(TEXT, AAD).json
    changed = encode_base64(replace(metadata_of(sealed), generation=2).to_bytes())
    assert proxy.decrypt({**sealed, "ciphertextMetadata": changed}, AAD).error == "InvalidCiphertextException"
    assert proxy.looks == 0
