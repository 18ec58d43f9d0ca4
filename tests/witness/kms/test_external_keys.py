"""Keys in an external key store, through boto3."""

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.waiting import PATIENCE
from tests.witness.kms.clients import LocalKms, connected_store, error_of, external_key, settle
from tests.witness.kms.xks_proxy import ExternalKey, Reply, XksProxy

from holdfast.witness.kms_errors import KMS_ERRORS, Failure
from holdfast.xks.messages import DecryptResponse
from holdfast.xks.types import KeyStatus, Operation


def test_what_was_encrypted_comes_back(kms: Any) -> None:
    key = external_key(kms, connected_store(kms))
    encrypted = kms.encrypt(KeyId=key, Plaintext=b"attack at dawn", EncryptionContext={"a": "b"})
    decrypted = kms.decrypt(CiphertextBlob=encrypted["CiphertextBlob"], EncryptionContext={"a": "b"})
    assert (decrypted["Plaintext"], decrypted["KeyId"]) == (b"attack at dawn", key)


def test_the_largest_plaintext_and_encryption_context_come_back(kms: Any, proxy: XksProxy) -> None:
    """4,096 bytes become 4,124 at the proxy (it must take 4,300), and its AAD is exactly 8,192 bytes."""
    key = external_key(kms, connected_store(kms))
    context = {"k": "v" * (8192 - 18 - 2 - 2 - 1)}
    blob = kms.encrypt(KeyId=key, Plaintext=b"x" * 4096, EncryptionContext=context)["CiphertextBlob"]
    assert kms.decrypt(CiphertextBlob=blob, EncryptionContext=context)["Plaintext"] == b"x" * 4096
    assert (len(proxy.plaintexts[0]), len(proxy.aads[0])) == (4124, 8192)


def test_a_longer_encryption_context_is_refused(kms: Any) -> None:
    key = external_key(kms, connected_store(kms))
    context = {"k": "v" * (8192 - 18 - 2 - 2)}
    name, _ = error_of(kms.encrypt, KeyId=key, Plaintext=b"x", EncryptionContext=context)
    assert name == "ValidationException"


def test_the_proxy_gets_only_what_kms_has_encrypted(kms: Any, proxy: XksProxy) -> None:
    """Double encryption: the proxy's plaintext is 12 bytes of IV and 16 of tag longer, and unreadable."""
    kms.encrypt(KeyId=external_key(kms, connected_store(kms)), Plaintext=b"attack at dawn")
    assert len(proxy.plaintexts[0]) == len(b"attack at dawn") + 28
    assert b"attack" not in proxy.plaintexts[0]


def test_the_encryption_context_is_in_the_aad_in_any_order(kms: Any, proxy: XksProxy) -> None:
    key = external_key(kms, connected_store(kms))
    kms.encrypt(KeyId=key, Plaintext=b"x", EncryptionContext={"bucket": "b1", "object": "o1"})
    kms.encrypt(KeyId=key, Plaintext=b"x", EncryptionContext={"object": "o1", "bucket": "b1"})
    assert b"bucket" in proxy.aads[0]
    assert proxy.aads[0] == proxy.aads[1]


def test_another_encryption_context_is_refused_in_the_specs_words(kms: Any) -> None:
    key = external_key(kms, connected_store(kms))
    blob = kms.encrypt(KeyId=key, Plaintext=b"x", EncryptionContext={"a": "b"})["CiphertextBlob"]
    name, message = error_of(kms.decrypt, CiphertextBlob=blob, EncryptionContext={"a": "c"})
    assert name == "KMSInvalidStateException"
    assert message.startswith("The external key store proxy rejected the request because the specified ciphertext")


def test_a_proxy_that_returns_another_plaintext_is_found_out_by_kms(kms: Any, proxy: XksProxy) -> None:
    """KMS's own layer notices what the proxy's layer did not: the spec's row "invalid ciphertext"."""
    key = external_key(kms, connected_store(kms))
    blob = kms.encrypt(KeyId=key, Plaintext=b"x" * 40)["CiphertextBlob"]
    proxy.alter = lambda _operation, _reply: Reply(200, DecryptResponse(bytes(40 + 28)).to_json())
    name, message = error_of(kms.decrypt, CiphertextBlob=blob)
    assert name == "KMSInvalidStateException"
    assert message == KMS_ERRORS[Failure.INVALID_CIPHERTEXT_RETURNED].message


def test_every_flipped_byte_of_a_blob_is_noticed(kms: Any) -> None:
    key = external_key(kms, connected_store(kms))
    blob = kms.encrypt(KeyId=key, Plaintext=b"x")["CiphertextBlob"]

    def flipped(i: int) -> str:
        changed = blob[:i] + bytes([blob[i] ^ 1]) + blob[i + 1 :]
        return error_of(kms.decrypt, CiphertextBlob=changed)[0]

    with ThreadPoolExecutor(4) as pool:
        names = set(pool.map(flipped, range(len(blob))))
    assert names <= {"KMSInvalidStateException", "InvalidCiphertextException"}


def test_request_metadata_names_caller_key_operation_and_request(kms: Any, proxy: XksProxy) -> None:
    key = external_key(kms, connected_store(kms))
    response = kms.generate_data_key(KeyId=key, KeySpec="AES_256")
    operation, metadata = proxy.requests[-1]
    assert (operation, metadata.kms_operation) == (Operation.ENCRYPT, "GenerateDataKey")
    assert metadata.aws_principal_arn == "arn:aws:iam::111122223333:user/alice"
    assert metadata.kms_key_arn == key
    assert metadata.kms_request_id == response["ResponseMetadata"]["RequestId"]
    assert (metadata.kms_via_service, metadata.aws_source_vpc) == (None, None)


def test_a_services_profile_fills_via_service_and_vpc(local_kms: LocalKms, kms: Any, proxy: XksProxy) -> None:
    key = external_key(kms, connected_store(kms))
    local_kms.client("ebs").encrypt(KeyId=key, Plaintext=b"x")
    metadata = proxy.requests[-1][1]
    assert metadata.aws_principal_arn == "ec2.amazonaws.com"
    assert metadata.kms_via_service == "ec2.us-east-1.amazonaws.com"
    assert (metadata.aws_source_vpc, metadata.aws_source_vpce) == ("vpc-1", "vpce-1")


def test_create_key_asks_for_the_metadata_without_a_key_arn(kms: Any, proxy: XksProxy) -> None:
    external_key(kms, connected_store(kms))
    operation, metadata = proxy.requests[-1]
    assert (operation, metadata.kms_operation) == (Operation.GET_KEY_METADATA, "CreateKey")
    assert metadata.kms_key_arn is None


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (ExternalKey(spec="AES_128"), "must be AES_256. The key spec of specified external key is AES_128."),
        (ExternalKey(usage=["ENCRYPT"]), "ENCRYPT and DECRYPT. The key use of specified external key is ENCRYPT."),
        (ExternalKey(status=KeyStatus.DISABLED), "ENABLED. The status of specified external key is DISABLED."),
    ],
)
def test_create_key_refuses_an_unfit_external_key(kms: Any, proxy: XksProxy, key: ExternalKey, words: str) -> None:
    proxy.keys["unfit"] = key
    store_id = connected_store(kms)
    name, message = error_of(kms.create_key, Origin="EXTERNAL_KEY_STORE", CustomKeyStoreId=store_id, XksKeyId="unfit")
    assert name == "XksKeyInvalidConfigurationException"
    assert message.endswith(words)


def test_more_than_ten_key_usages_are_a_malformed_response(kms: Any, proxy: XksProxy) -> None:
    proxy.keys["odd"] = ExternalKey(usage=["ENCRYPT", "DECRYPT", *(f"X{i}" for i in range(9))])
    store_id = connected_store(kms)
    name, _ = error_of(kms.create_key, Origin="EXTERNAL_KEY_STORE", CustomKeyStoreId=store_id, XksKeyId="odd")
    assert name == "CustomKeyStoreInvalidStateException"


def test_one_external_key_serves_one_kms_key(kms: Any) -> None:
    store_id = connected_store(kms)
    external_key(kms, store_id)
    name, _ = error_of(kms.create_key, Origin="EXTERNAL_KEY_STORE", CustomKeyStoreId=store_id, XksKeyId="key-0")
    assert name == "XksKeyAlreadyInUseException"


def test_two_creations_at_once_do_not_share_an_external_key(local_kms: LocalKms, kms: Any) -> None:
    store_id = connected_store(kms)
    barrier = threading.Barrier(4)
    clients = [local_kms.client() for _ in range(4)]

    def create(client: Any) -> str:
        barrier.wait(PATIENCE)
        try:
            external_key(client, store_id)
        except client.exceptions.XksKeyAlreadyInUseException:
            return "in use"
        return "created"

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(create, clients)) == ["created", "in use", "in use", "in use"]


def test_two_kms_keys_on_one_hsm_key_do_not_read_each_other(kms: Any, proxy: XksProxy) -> None:
    """Spec, "Authorization": a ciphertext is bound to KMS's own key material."""
    proxy.keys["copy"] = ExternalKey(material=proxy.keys["key-0"].material)
    store_id = connected_store(kms)
    first, second = external_key(kms, store_id), external_key(kms, store_id, "copy")
    blob = bytearray(kms.encrypt(KeyId=first, Plaintext=b"x")["CiphertextBlob"])
    blob[2:18] = bytes.fromhex(second.rpartition("/")[2].replace("-", ""))
    assert error_of(kms.decrypt, CiphertextBlob=bytes(blob))[0] == "KMSInvalidStateException"


def test_describe_key_shows_the_external_key(kms: Any) -> None:
    store_id = connected_store(kms)
    metadata = kms.describe_key(KeyId=external_key(kms, store_id))["KeyMetadata"]
    assert metadata["XksKeyConfiguration"] == {"Id": "key-0"}
    assert (metadata["Origin"], metadata["CustomKeyStoreId"]) == ("EXTERNAL_KEY_STORE", store_id)
    assert (metadata["KeyState"], metadata["Enabled"]) == ("Enabled", True)


def test_a_key_of_a_disconnected_store_is_unavailable(kms: Any) -> None:
    store_id = connected_store(kms)
    key = external_key(kms, store_id)
    kms.disconnect_custom_key_store(CustomKeyStoreId=store_id)
    assert settle(kms, store_id)["ConnectionState"] == "DISCONNECTED"
    assert kms.describe_key(KeyId=key)["KeyMetadata"]["KeyState"] == "Unavailable"
    name, message = error_of(kms.encrypt, KeyId=key, Plaintext=b"x")
    assert name == "KMSInvalidStateException"
    assert message == KMS_ERRORS[Failure.NOT_CONNECTED].message
    name, message = error_of(external_key, kms=kms, store_id=store_id, xks_key_id="key-1")
    assert name == "CustomKeyStoreInvalidStateException"
    assert message == KMS_ERRORS[Failure.NOT_CONNECTED].message


def test_a_disabled_kms_key_never_reaches_the_proxy(kms: Any, proxy: XksProxy) -> None:
    key = external_key(kms, connected_store(kms))
    kms.disable_key(KeyId=key)
    asked = len(proxy.requests)
    assert error_of(kms.encrypt, KeyId=key, Plaintext=b"x")[0] == "DisabledException"
    assert len(proxy.requests) == asked


def test_re_encrypt_moves_between_an_ordinary_and_an_external_key(kms: Any, proxy: XksProxy) -> None:
    ordinary, external = kms.create_key()["KeyMetadata"]["Arn"], external_key(kms, connected_store(kms))
    blob = kms.encrypt(KeyId=ordinary, Plaintext=b"moving")["CiphertextBlob"]
    moved = kms.re_encrypt(CiphertextBlob=blob, DestinationKeyId=external, DestinationEncryptionContext={"a": "b"})
    assert (moved["SourceKeyId"], moved["KeyId"]) == (ordinary, external)
    assert proxy.requests[-1][1].kms_operation == "ReEncrypt"
    back = kms.re_encrypt(
        CiphertextBlob=moved["CiphertextBlob"], SourceEncryptionContext={"a": "b"}, DestinationKeyId=ordinary
    )
    assert kms.decrypt(CiphertextBlob=back["CiphertextBlob"])["Plaintext"] == b"moving"


def test_a_data_key_without_plaintext_is_the_same_later(kms: Any) -> None:
    key = external_key(kms, connected_store(kms))
    response = kms.generate_data_key_without_plaintext(KeyId=key, NumberOfBytes=24)
    assert "Plaintext" not in response
    assert len(kms.decrypt(CiphertextBlob=response["CiphertextBlob"])["Plaintext"]) == 24


def test_connections_to_the_proxy_are_kept_alive(kms: Any, proxy: XksProxy) -> None:
    key = external_key(kms, connected_store(kms))
    opened = proxy.connections
    for _ in range(5):
        kms.encrypt(KeyId=key, Plaintext=b"x")
    assert proxy.connections == opened


def test_the_event_of_a_request_tells_the_proxy_call_but_no_secret(local_kms: LocalKms, kms: Any) -> None:
    key = external_key(kms, connected_store(kms))
    kms.encrypt(KeyId=key, Plaintext=b"attack at dawn")
    event = local_kms.lines[-1]
    assert re.search(r'"operation": "Encrypt".*"xks": \[\{"operation": "Encrypt", "milliseconds": [0-9.]+', event)
    assert not any("attack" in line or "c2VjcmV0" in line for line in local_kms.lines)


def test_a_key_pending_deletion_cannot_be_used_and_keeps_its_store(kms: Any) -> None:
    store_id = connected_store(kms)
    key = external_key(kms, store_id)
    kms.schedule_key_deletion(KeyId=key, PendingWindowInDays=7)
    assert error_of(kms.encrypt, KeyId=key, Plaintext=b"x") == (
        "KMSInvalidStateException",
        f"{key} is pending deletion.",
    )
    assert error_of(kms.delete_custom_key_store, CustomKeyStoreId=store_id)[0] == "CustomKeyStoreHasCMKsException"
