"""AES-GCM on a real SoftHSM, and what a session does with keys and answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.hsm.conftest import AAD, KEY, OTHER_KEY, TEXT, Site, Start, call, round_trip

from holdfast.hsm.faults import CiphertextRejected, KeyAmbiguous, KeyNotFound, KeyUsageRefused
from holdfast.hsm.port import KeyLocator, KeySession, Sealed, Timing

if TYPE_CHECKING:
    from holdfast.hsm.pkcs11.backend import Pkcs11Hsm


@pytest.fixture
def hsm(site: Site, start: Start) -> Pkcs11Hsm:
    return start(site.settings())


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 32, 4300, 70_000])
@pytest.mark.parametrize("aad_size", [0, 1, 8192 + 8, 65_535 + 8])
def test_any_size_comes_back(hsm: Pkcs11Hsm, size: int, aad_size: int) -> None:
    plaintext, aad = bytes(range(256)) * (size // 256 + 1), bytes(aad_size)

    def work(session: KeySession) -> bytes:
        sealed = session.encrypt(KEY, plaintext[:size], aad)
        assert (len(sealed.ciphertext), len(sealed.authentication_tag)) == (size, 16)
        return session.decrypt(KEY, sealed, aad)

    assert call(hsm, work) == plaintext[:size]


@pytest.mark.parametrize("part", ["iv", "ciphertext", "tag", "aad", "key", "short tag", "long iv"])
def test_a_change_of_any_part_is_a_rejected_ciphertext(hsm: Pkcs11Hsm, part: str) -> None:
    def work(session: KeySession) -> bytes:
        iv, ciphertext, tag = session.encrypt(KEY, TEXT, AAD)
        aad, key = AAD, KEY
        match part:
            case "iv":
                iv = bytes([iv[0] ^ 1]) + iv[1:]
            case "ciphertext":
                ciphertext = bytes([ciphertext[0] ^ 1]) + ciphertext[1:]
            case "tag":
                tag = tag[:-1] + bytes([tag[-1] ^ 0x80])
            case "aad":
                aad += b"!"
            case "key":
                key = OTHER_KEY
            case "short tag":
                tag = tag[:12]
            case _:
                iv += bytes(8)
        return session.decrypt(key, Sealed(iv, ciphertext, tag), aad)

    with pytest.raises(CiphertextRejected):
        call(hsm, work)
    assert call(hsm, round_trip) == TEXT


def test_ivs_differ(hsm: Pkcs11Hsm) -> None:
    def work(session: KeySession) -> set[bytes]:
        return {session.encrypt(KEY, b"", AAD).initialization_vector for _ in range(1000)}

    assert len(call(hsm, work)) == 1000


def test_a_plaintext_leaves_no_trace_in_the_output_buffer(hsm: Pkcs11Hsm) -> None:
    marker = b"marked plaintext 5512"

    def work(session: KeySession) -> bytes:
        session.decrypt(KEY, session.encrypt(KEY, marker, AAD), AAD)
        return bytes(session._gcm._out_view)  # type: ignore[attr-defined]  # the session behind the protocol

    assert marker not in call(hsm, work)


@pytest.mark.parametrize("operation", ["encrypt", "decrypt", "describe"])
def test_a_key_that_is_not_there_is_not_found(hsm: Pkcs11Hsm, operation: str) -> None:
    missing = KeyLocator("no such key")
    with pytest.raises(KeyNotFound, match="no such key"):
        call(hsm, lambda session: _operate(session, operation, missing))


def test_a_label_on_two_keys_is_ambiguous_until_the_id_tells(hsm: Pkcs11Hsm) -> None:
    with pytest.raises(KeyAmbiguous, match="twin"):
        call(hsm, lambda session: session.describe(KeyLocator("twin")))
    one, two = KeyLocator("twin", b"\1"), KeyLocator("twin", b"\2")
    sealed = call(hsm, lambda session: session.encrypt(one, TEXT, AAD))
    with pytest.raises(CiphertextRejected):
        call(hsm, lambda session: session.decrypt(two, sealed, AAD))


@pytest.mark.parametrize(
    ("label", "operation"),
    [("encrypt-only", "decrypt"), ("decrypt-only", "encrypt"), ("aes-128", "encrypt"), ("aes-128", "decrypt")],
)
def test_the_attributes_decide_what_a_key_may_do(hsm: Pkcs11Hsm, label: str, operation: str) -> None:
    with pytest.raises(KeyUsageRefused, match=label):
        call(hsm, lambda session: _operate(session, operation, KeyLocator(label)))


@pytest.mark.parametrize(
    ("label", "key_spec", "key_usage"),
    [
        ("key-1", "AES_256", ("ENCRYPT", "DECRYPT")),
        ("encrypt-only", "AES_256", ("ENCRYPT",)),
        ("decrypt-only", "AES_256", ("DECRYPT",)),
        ("aes-128", "AES_128", ("ENCRYPT", "DECRYPT")),
    ],
)
def test_a_description_is_read_from_the_token(
    hsm: Pkcs11Hsm, label: str, key_spec: str, key_usage: tuple[str, ...]
) -> None:
    attributes = call(hsm, lambda session: session.describe(KeyLocator(label)))
    assert attributes.key_spec == key_spec
    assert attributes.key_usage[: len(key_usage)] == key_usage
    assert attributes.attributes["CKA_EXTRACTABLE"] is False


def test_what_the_work_raises_is_raised(hsm: Pkcs11Hsm) -> None:
    def work(_: KeySession) -> None:
        raise LookupError("of the caller")

    with pytest.raises(LookupError, match="of the caller"):
        call(hsm, work)


def test_the_time_is_split_into_queue_and_hsm(hsm: Pkcs11Hsm) -> None:
    timing = Timing()
    call(hsm, round_trip, timing=timing)
    assert 0 < timing.queue < 1
    assert 0 < timing.hsm < 1


def test_successes_are_counted(hsm: Pkcs11Hsm) -> None:
    for _ in range(3):
        call(hsm, round_trip)
    gauges = hsm.gauges()
    assert (gauges.encryptions, gauges.decryptions) == (3, 3)


def _operate(session: KeySession, operation: str, key: KeyLocator) -> object:
    if operation == "encrypt":
        return session.encrypt(key, TEXT, AAD)
    if operation == "decrypt":
        return session.decrypt(key, Sealed(bytes(12), TEXT, bytes(16)), AAD)
    return session.describe(key)
