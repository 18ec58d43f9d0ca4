"""The four operations, on a software HSM and on SoftHSM."""

from __future__ import annotations

import asyncio
import secrets
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from time import monotonic
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from tests.protocols.xks.proxy import METADATA, Proxy, external_key, plaintext_of

from holdfast.hsm.port import Sealed, Timing
from holdfast.keys.model import Takeover
from holdfast.protocols.xks import encrypt
from holdfast.protocols.xks.request import locator_of
from holdfast.xks.aad import AadFraming, CiphertextMetadata, ciphertext_data_integrity_value
from holdfast.xks.encoding import decode_base64, encode_base64
from holdfast.xks.messages import EncryptResponse
from holdfast.xks.types import HealthStatus, KeyStatus, Operation

if TYPE_CHECKING:
    from tests.protocols.xks.software_hsm import SoftwareHsm

TEXT = b"Hello World!"
AAD = b"project=nile,department=marketing"
WIRE_PARTS = ("ciphertext", "initializationVector", "authenticationTag", "ciphertextMetadata")


# ---- Encrypt and Decrypt -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 15, 16, 4300])
@pytest.mark.parametrize("aad", [None, b"", AAD, bytes(8192)], ids=["none", "empty", "33", "8192"])
def test_what_was_encrypted_is_decrypted(either: Proxy, size: int, aad: bytes | None) -> None:
    plaintext = secrets.token_bytes(size)
    sealed = either.encrypt(plaintext, aad, cdiv=True)
    assert sealed.status == 200, sealed.body
    assert plaintext_of(either.decrypt(sealed.json, aad)) == plaintext


def test_the_parts_have_the_specs_sizes(either: Proxy) -> None:
    parts = {name: decode_base64(either.encrypt(TEXT).json[name], name) for name in WIRE_PARTS}
    assert {name: len(part) for name, part in parts.items()} == {
        "ciphertext": len(TEXT),
        "initializationVector": 12,
        "authenticationTag": 16,
        "ciphertextMetadata": 20,
    }


def test_two_encryptions_have_two_initialization_vectors(either: Proxy) -> None:
    assert either.encrypt(TEXT).json["initializationVector"] != either.encrypt(TEXT).json["initializationVector"]


def test_without_a_cdiv_algorithm_there_is_no_cdiv(either: Proxy) -> None:
    assert set(either.encrypt(TEXT).json) == set(WIRE_PARTS)


@pytest.mark.parametrize("aad", [None, b"", AAD])
def test_the_cdiv_is_over_what_is_returned(either: Proxy, aad: bytes | None) -> None:
    """Spec, Appendix C; KMS computes it again."""
    answer = {name: decode_base64(text, name) for name, text in either.encrypt(TEXT, aad, cdiv=True).json.items()}
    assert answer["ciphertextDataIntegrityValue"] == ciphertext_data_integrity_value(
        aad,
        answer["ciphertextMetadata"],
        initialization_vector=answer["initializationVector"],
        ciphertext=answer["ciphertext"],
        tag=answer["authenticationTag"],
    )


@pytest.mark.parametrize("part", WIRE_PARTS)
def test_a_changed_part_is_an_invalid_ciphertext(either: Proxy, part: str) -> None:
    sealed = either.encrypt(TEXT, AAD).json
    raw = decode_base64(sealed[part], part)
    for place in (0, len(raw) - 1):
        changed = raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]
        assert either.decrypt({**sealed, part: encode_base64(changed)}, AAD).error == "InvalidCiphertextException"


@pytest.mark.parametrize("aad", [None, b"", AAD[:-1], AAD + b" "])
def test_another_aad_is_an_invalid_ciphertext(either: Proxy, aad: bytes | None) -> None:
    assert either.decrypt(either.encrypt(TEXT, AAD).json, aad).error == "InvalidCiphertextException"


def test_another_key_is_an_invalid_ciphertext(either: Proxy) -> None:
    assert either.decrypt(either.encrypt(TEXT).json, key="key-2").error == "InvalidCiphertextException"


def test_metadata_does_not_pass_for_aad(either: Proxy) -> None:
    """Spec, "Encrypt", the note on lengths."""
    sealed = either.encrypt(TEXT).json
    metadata = decode_base64(sealed["ciphertextMetadata"], "ciphertextMetadata")
    assert either.decrypt({**sealed, "ciphertextMetadata": None}, metadata).error == "InvalidCiphertextException"


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        b"",
        b"\0\0\0\0\1",
        b"\3\0\0\0\1",
        b"\xff\0\0\0\1",
        b"\1\0\0\1",
        b"\1\0\0\0\1\0",
        b"\1\0\0\0\2",
        b"\1" + b"\xff" * 4,
    ],
    ids=[
        "absent",
        "empty",
        "framing 0",
        "framing 3",
        "framing 255",
        "short",
        "long",
        "generation 2",
        "generation max",
    ],
)
def test_metadata_that_this_proxy_did_not_make_is_an_invalid_ciphertext(
    either: Proxy, metadata: bytes | None
) -> None:
    changed = None if metadata is None else encode_base64(metadata)
    sealed = {**either.encrypt(TEXT).json, "ciphertextMetadata": changed}
    assert either.decrypt(sealed).error == "InvalidCiphertextException"


@pytest.mark.parametrize("encrypts_with", AadFraming)
def test_a_ciphertext_remembers_its_framing(proxy: Proxy, hsm: SoftwareHsm, encrypts_with: AadFraming) -> None:
    hsm.aad_framing = encrypts_with
    sealed = proxy.encrypt(TEXT, AAD).json
    assert CiphertextMetadata.parse(decode_base64(sealed["ciphertextMetadata"], "m")).framing is encrypts_with
    for now in AadFraming:
        hsm.aad_framing = now
        assert plaintext_of(proxy.decrypt(sealed, AAD)) == TEXT


def test_a_rotated_key_encrypts_with_the_new_generation_and_decrypts_with_both(either: Proxy) -> None:
    old = either.encrypt(TEXT, AAD).json
    either.change(keys={"key-1": external_key("key-1", "key-2")})
    new = either.encrypt(TEXT, AAD)
    assert CiphertextMetadata.parse(decode_base64(new.json["ciphertextMetadata"], "m")).generation == 2
    assert new.event.generation == 2
    for sealed in (old, new.json):
        assert plaintext_of(either.decrypt(sealed, AAD)) == TEXT
    assert either.decrypt({**old, "ciphertextMetadata": new.json["ciphertextMetadata"]}, AAD).error


def test_each_encryption_is_counted_and_no_decryption(proxy: Proxy) -> None:
    sealed = proxy.encrypt(TEXT).json
    proxy.decrypt(sealed)
    proxy.encrypt(TEXT, cdiv=True)
    assert proxy.taken == [1, 1]


# ---- what a key may do ---------------------------------------------------------------------------------


def test_a_key_that_does_not_decrypt_gives_no_cdiv_and_encrypts_nothing(proxy: Proxy, hsm: SoftwareHsm) -> None:
    assert proxy.encrypt(TEXT, cdiv=True, key="encrypt-only").error == "InvalidKeyUsageException"
    assert "encrypt" not in hsm.calls


@pytest.mark.parametrize(
    ("key", "encrypt", "with_cdiv"),
    [
        ("encrypt-only", "", "InvalidKeyUsageException"),
        ("decrypt-only", "InvalidKeyUsageException", "InvalidKeyUsageException"),
        ("impotent", "InvalidKeyUsageException", "InvalidKeyUsageException"),
    ],
)
def test_encrypt_with_a_restricted_key(either: Proxy, key: str, encrypt: str, with_cdiv: str) -> None:
    assert either.encrypt(TEXT, key=key).error == encrypt
    assert either.encrypt(TEXT, key=key, cdiv=True).error == with_cdiv


@pytest.mark.parametrize(
    ("key", "error"),
    [
        ("encrypt-only", "InvalidKeyUsageException"),
        ("decrypt-only", "InvalidCiphertextException"),
        ("impotent", "InvalidKeyUsageException"),
    ],
)
def test_decrypt_with_a_restricted_key(either: Proxy, key: str, error: str) -> None:
    assert either.decrypt(either.encrypt(TEXT).json, key=key).error == error


def test_a_128_bit_key_is_told_and_not_used(real: Proxy) -> None:
    assert real.call(Operation.GET_KEY_METADATA, key="aes-128").json["keySpec"] == "AES_128"
    assert real.encrypt(TEXT, key="aes-128").error == "InvalidKeyUsageException"


@pytest.mark.parametrize(
    ("key", "usage"),
    [
        ("key-1", ["ENCRYPT", "DECRYPT"]),
        ("encrypt-only", ["ENCRYPT"]),
        ("decrypt-only", ["DECRYPT"]),
        ("impotent", []),
    ],
)
def test_key_metadata_is_the_keys_own(either: Proxy, key: str, usage: list[str]) -> None:
    assert either.call(Operation.GET_KEY_METADATA, key=key).json == {
        "keySpec": "AES_256",
        "keyUsage": usage,
        "keyStatus": "ENABLED",
    }


def test_key_usage_has_at_most_ten_values_with_those_of_kms_first(proxy: Proxy, hsm: SoftwareHsm) -> None:
    more = tuple(f"USAGE_{number}" for number in range(12))
    hsm.keys["key-1"] = type(hsm.keys["key-1"])(bytes(32), ("ENCRYPT", "DECRYPT", *more))
    usage = proxy.call(Operation.GET_KEY_METADATA).json["keyUsage"]
    assert len(usage) == 10
    assert usage[:2] == ["ENCRYPT", "DECRYPT"]


# ---- the CDIV's trial Decrypt ------------------------------------------------------------------------------


def test_corruption_in_the_session_is_caught(proxy: Proxy, hsm: SoftwareHsm) -> None:
    hsm.corrupt = True
    reply = proxy.encrypt(TEXT, AAD, cdiv=True)
    assert (reply.error, hsm.calls[-2:]) == ("InternalException", ["encrypt", "decrypt"])
    assert set(reply.json) == {"errorName", "errorMessage"}


def test_a_trial_decrypt_that_gives_another_plaintext_is_caught(proxy: Proxy, hsm: SoftwareHsm) -> None:
    hsm.lie = True
    assert proxy.encrypt(TEXT, AAD, cdiv=True).error == "InternalException"


def test_corruption_after_the_cdiv_shows_because_it_was_computed_first(
    proxy: Proxy, hsm: SoftwareHsm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Spec, Appendix C: encrypt, CDIV, trial decrypt, in this order."""

    def noted(*arguments: Any, **named: Any) -> bytes:
        hsm.calls.append("cdiv")
        return ciphertext_data_integrity_value(*arguments, **named)

    monkeypatch.setattr(encrypt, "ciphertext_data_integrity_value", noted)
    proxy.encrypt(TEXT, AAD, cdiv=True)
    assert hsm.calls == ["run", "describe", "encrypt", "cdiv", "decrypt"]


@pytest.mark.parametrize("part", ["ciphertext", "initialization_vector", "authentication_tag", "ciphertext_metadata"])
@pytest.mark.parametrize("place", [0, -1])
def test_what_is_returned_is_what_the_trial_decrypts(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch, part: str, place: int
) -> None:
    """Spec, Appendix C: what is corrupted after the CDIV, any part of it, is not returned."""

    def corrupted(*parts: Any) -> EncryptResponse:
        response = EncryptResponse(*parts)
        octets = bytearray(getattr(response, part))
        octets[place] ^= 0x80
        return msgspec.structs.replace(response, **{part: bytes(octets)})

    monkeypatch.setattr(encrypt, "EncryptResponse", corrupted)
    assert proxy.encrypt(TEXT, AAD, cdiv=True).error == "InternalException"


# ---- ciphertexts of AWS's sample ----------------------------------------------------------------------------


def by_awss_sample(proxy: Proxy, aad: bytes | None, metadata: bytes | None) -> dict[str, Any]:
    """What AWS's sample proxy returns, its AAD written out as in docs/hsm-notes.md, 1.1."""
    digest = b"" if aad is None else sha256(aad).digest()
    covered = len(aad or b"").to_bytes(2, "big") + digest + bytes([len(metadata or b"")]) + (metadata or b"")
    key = locator_of(proxy.keystore.keys["key-1"].generations[1])
    run = proxy.hsm.run(
        lambda session: session.encrypt(key, TEXT, covered), deadline=monotonic() + 5, timing=Timing()
    )
    sealed: Sealed = asyncio.run(_awaited(run))
    parts = {
        "initializationVector": encode_base64(sealed.initialization_vector),
        "ciphertext": encode_base64(sealed.ciphertext),
        "authenticationTag": encode_base64(sealed.authentication_tag),
    }
    return parts if metadata is None else {**parts, "ciphertextMetadata": encode_base64(metadata)}


async def _awaited(run: Any) -> Sealed:
    sealed: Sealed = await run
    return sealed


@pytest.mark.parametrize("aad", [None, b"", AAD, bytes(8192)], ids=["none", "empty", "33", "8192"])
@pytest.mark.parametrize("metadata", [None, b"", b"v=1", b"\1\0\0\0", b"x" * 20])
def test_a_taken_over_key_decrypts_what_awss_sample_made(
    either: Proxy, aad: bytes | None, metadata: bytes | None
) -> None:
    sealed = by_awss_sample(either, aad, metadata)
    assert either.decrypt(sealed, aad).error == "InvalidCiphertextException"
    # The new generation encrypts; the sample's key is generation 1. That proxy's constant of today does not matter.
    either.change(keys={"key-1": external_key("key-1", "key-2", takeover=Takeover(b"today"))})
    opened = either.decrypt(sealed, aad)
    assert plaintext_of(opened) == TEXT
    assert opened.event.generation == 1
    assert either.decrypt(sealed, b"another").error == "InvalidCiphertextException"


def test_a_taken_over_key_tells_an_empty_aad_from_none(either: Proxy) -> None:
    """The sample hashes an empty AAD too."""
    either.change_key("key-1", takeover=Takeover())
    assert either.decrypt(by_awss_sample(either, b"", None)).error == "InvalidCiphertextException"
    assert either.decrypt(by_awss_sample(either, None, None), b"").error == "InvalidCiphertextException"


def test_a_taken_over_key_encrypts_in_our_format(either: Proxy) -> None:
    either.change_key("key-1", takeover=Takeover(b"v=1"))
    sealed = either.encrypt(TEXT, AAD, cdiv=True).json
    metadata = CiphertextMetadata.parse(decode_base64(sealed["ciphertextMetadata"], "m"))
    assert (metadata.generation, metadata.tag) == (1, either.keystore.keys["key-1"].tag)
    assert plaintext_of(either.decrypt(sealed, AAD)) == TEXT


@pytest.mark.parametrize(
    "metadata",
    [None, b"v=2", b"\1\0\0\0\1", b"\2\0\0\0\1", b"v=1\5\1\0\0\0\1"],
    ids=["none", "other", "spec", "digest", "ends-as-spec"],
)
def test_metadata_of_awss_sample_cannot_be_exchanged(either: Proxy, metadata: bytes | None) -> None:
    """It is authenticated, so that accepting any of it admits nothing that this proxy's predecessor did not make."""
    either.change_key("key-1", takeover=Takeover())
    sealed = by_awss_sample(either, AAD, b"v=1")
    del sealed["ciphertextMetadata"]
    if metadata is not None:
        sealed["ciphertextMetadata"] = encode_base64(metadata)
    assert either.decrypt(sealed, AAD).error == "InvalidCiphertextException"


@pytest.mark.parametrize("metadata", [b"\1\0\0\0\1", b"v=1\5\1\0\0\0\1"])
def test_metadata_that_looks_like_ours_is_never_taken_for_the_samples(either: Proxy, metadata: bytes) -> None:
    either.change_key("key-1", takeover=Takeover())
    assert either.decrypt(by_awss_sample(either, AAD, metadata), AAD).error == "InvalidCiphertextException"


@pytest.mark.parametrize("metadata", [None, b"", b"v=1"])
def test_a_ciphertext_of_ours_does_not_open_as_one_of_the_sample(either: Proxy, metadata: bytes | None) -> None:
    either.change_key("key-1", takeover=Takeover())
    sealed = either.encrypt(TEXT, AAD).json
    del sealed["ciphertextMetadata"]
    if metadata is not None:
        sealed["ciphertextMetadata"] = encode_base64(metadata)
    assert either.decrypt(sealed, AAD).error == "InvalidCiphertextException"


# ---- GetHealthStatus ------------------------------------------------------------------------------------


def test_health_names_the_fleet_and_each_hsm(proxy: Proxy, hsm: SoftwareHsm) -> None:
    hsm.checked_at = proxy.clock()
    health = proxy.call(Operation.GET_HEALTH_STATUS).json
    assert (health["xksProxyFleetSize"], health["xksProxyVendor"], health["ekmVendor"]) == (3, "Holdfast", "Nobody")
    assert health["xksProxyModel"].startswith("Holdfast ")
    assert health["ekmFleetDetails"] == [{"id": "software-1", "model": "Software 1.0", "healthStatus": "ACTIVE"}]


def test_health_of_softhsm_is_active(real: Proxy) -> None:
    details = real.call(Operation.GET_HEALTH_STATUS).json["ekmFleetDetails"]
    assert [detail["healthStatus"] for detail in details] == ["ACTIVE"]


@pytest.mark.parametrize("status", HealthStatus)
def test_a_fresh_finding_is_told(proxy: Proxy, hsm: SoftwareHsm, status: HealthStatus) -> None:
    hsm.status, hsm.checked_at = status, proxy.clock()
    details = proxy.call(Operation.GET_HEALTH_STATUS).json["ekmFleetDetails"]
    assert details[0]["healthStatus"] == status


@pytest.mark.parametrize("age", [None, 60.1])
def test_a_finding_older_than_a_minute_is_unavailable(proxy: Proxy, hsm: SoftwareHsm, age: float | None) -> None:
    """Spec, "GetHealthStatus": the cached result is not older than one minute."""
    proxy.clock = lambda: 1000.0
    hsm.checked_at = None if age is None else 1000.0 - age
    details = proxy.call(Operation.GET_HEALTH_STATUS).json["ekmFleetDetails"]
    assert details[0]["healthStatus"] == "UNAVAILABLE"


def test_a_finding_of_a_minute_ago_still_counts(proxy: Proxy, hsm: SoftwareHsm) -> None:
    proxy.clock, hsm.checked_at = (lambda: 1000.0), 940.0
    assert proxy.call(Operation.GET_HEALTH_STATUS).json["ekmFleetDetails"][0]["healthStatus"] == "ACTIVE"


def test_health_has_at_most_ten_entries(proxy: Proxy, hsm: SoftwareHsm) -> None:
    proxy.hsms = {f"hsm-{number}": hsm for number in range(11)}
    assert len(proxy.call(Operation.GET_HEALTH_STATUS).json["ekmFleetDetails"]) == 10


def test_health_asks_no_key(proxy: Proxy, hsm: SoftwareHsm) -> None:
    """Spec: a KMS key is not used for the health check."""
    proxy.call(Operation.GET_HEALTH_STATUS)
    assert hsm.calls == []


# ---- disabled and blocked ---------------------------------------------------------------------------------


def test_a_disabled_key_is_told_and_not_used(either: Proxy) -> None:
    sealed = either.encrypt(TEXT).json
    either.change_key("key-1", status=KeyStatus.DISABLED)
    assert either.encrypt(TEXT).error == either.decrypt(sealed).error == "InvalidStateException"
    assert either.call(Operation.GET_KEY_METADATA).json["keyStatus"] == "DISABLED"
    assert either.call(Operation.GET_HEALTH_STATUS).status == 200


def test_a_blocked_key_store_is_told_and_not_used(either: Proxy) -> None:
    sealed = either.encrypt(TEXT).json
    either.change(blocked=True)
    assert either.encrypt(TEXT).error == either.decrypt(sealed).error == "InvalidStateException"
    assert either.call(Operation.GET_HEALTH_STATUS).error == "InvalidStateException"
    assert either.call(Operation.GET_KEY_METADATA).json["keyStatus"] == "DISABLED"


HOUR = timedelta(hours=1)


def test_a_block_ends_at_its_time_and_not_before(either: Proxy) -> None:
    now = datetime.now(UTC)
    either.change(blocked=True, blocked_until=now + HOUR)
    assert either.encrypt(TEXT).error == "InvalidStateException"
    either.change(blocked_until=now - HOUR)
    assert either.encrypt(TEXT).status == 200
    assert either.call(Operation.GET_KEY_METADATA).json["keyStatus"] == "ENABLED"
    assert either.call(Operation.GET_HEALTH_STATUS).status == 200


def test_a_key_that_was_enabled_for_a_time_is_disabled_afterwards(either: Proxy) -> None:
    now = datetime.now(UTC)
    either.change_key("key-1", enabled_until=now + HOUR)
    sealed = either.encrypt(TEXT).json
    either.change_key("key-1", enabled_until=now - HOUR)
    assert either.encrypt(TEXT).error == either.decrypt(sealed).error == "InvalidStateException"
    assert either.call(Operation.GET_KEY_METADATA).json["keyStatus"] == "DISABLED"


def test_the_request_metadata_is_noted_for_the_log(proxy: Proxy) -> None:
    for operation in Operation:
        metadata = proxy.call(operation, {"plaintext": "", "encryptionAlgorithm": "AES_GCM"}).event.metadata
        if operation is not Operation.DECRYPT:
            assert metadata is not None
            assert metadata.kms_request_id == METADATA["kmsRequestId"]
