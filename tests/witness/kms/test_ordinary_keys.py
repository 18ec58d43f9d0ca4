"""Ordinary SYMMETRIC_DEFAULT keys, aliases, tags and policies, through boto3."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.witness.kms.clients import error_of

from holdfast.witness.kms.records import Alias, Key, Tag
from holdfast.witness.kms.state import State

OPEN = {
    "Effect": "Allow",
    "Principal": {"AWS": "arn:aws:iam::111122223333:root"},
    "Action": "kms:*",
    "Resource": "*",
}
"""A statement that lets the account do all."""


@pytest.fixture
def key(kms: Any) -> str:
    """An ordinary key's ARN."""
    arn: str = kms.create_key(Description="first")["KeyMetadata"]["Arn"]
    return arn


def test_a_round_trip_needs_no_proxy(kms: Any, key: str) -> None:
    blob = kms.encrypt(KeyId=key, Plaintext=b"x", EncryptionContext={"a": "b"})["CiphertextBlob"]
    assert kms.decrypt(CiphertextBlob=blob, EncryptionContext={"a": "b"})["Plaintext"] == b"x"
    assert error_of(kms.decrypt, CiphertextBlob=blob) == ("InvalidCiphertextException", "")


def test_decrypt_with_another_key_is_refused(kms: Any, key: str) -> None:
    other = kms.create_key()["KeyMetadata"]["KeyId"]
    blob = kms.encrypt(KeyId=key, Plaintext=b"x")["CiphertextBlob"]
    assert error_of(kms.decrypt, CiphertextBlob=blob, KeyId=other)[0] == "IncorrectKeyException"


@pytest.mark.parametrize("blob", [b"x", bytes(18), b"\x01\x00" + bytes(16), b"\x01\x01" + bytes(16) + b"\xff"])
def test_a_foreign_blob_is_refused(kms: Any, blob: bytes) -> None:
    assert error_of(kms.decrypt, CiphertextBlob=blob)[0] == "InvalidCiphertextException"


@pytest.mark.parametrize(("given", "length"), [({"KeySpec": "AES_128"}, 16), ({"NumberOfBytes": 1000}, 1000)])
def test_a_data_key_has_the_length_asked_for(kms: Any, key: str, given: dict[str, Any], length: int) -> None:
    response = kms.generate_data_key(KeyId=key, **given)
    assert len(response["Plaintext"]) == length
    assert kms.decrypt(CiphertextBlob=response["CiphertextBlob"])["Plaintext"] == response["Plaintext"]


def test_random_bytes_need_a_number(kms: Any) -> None:
    assert error_of(kms.generate_random) == ("ValidationException", "NumberOfBytes is required.")


def test_generate_random(kms: Any) -> None:
    first, second = (kms.generate_random(NumberOfBytes=40)["Plaintext"] for _ in range(2))
    assert len(first) == 40
    assert first != second


def test_a_dry_run_does_nothing_and_says_so(kms: Any, key: str) -> None:
    assert error_of(kms.encrypt, KeyId=key, Plaintext=b"x", DryRun=True)[0] == "DryRunOperationException"


def test_disable_and_enable(kms: Any, key: str) -> None:
    kms.disable_key(KeyId=key)
    assert error_of(kms.encrypt, KeyId=key, Plaintext=b"x") == ("DisabledException", f"{key} is disabled.")
    kms.enable_key(KeyId=key)
    kms.encrypt(KeyId=key, Plaintext=b"x")


def test_deletion_is_scheduled_and_cancelled(kms: Any, key: str) -> None:
    response = kms.schedule_key_deletion(KeyId=key, PendingWindowInDays=7)
    metadata = kms.describe_key(KeyId=key)["KeyMetadata"]
    assert metadata["DeletionDate"] == response["DeletionDate"]
    assert metadata["KeyState"] == "PendingDeletion"
    assert error_of(kms.enable_key, KeyId=key)[0] == "KMSInvalidStateException"
    kms.cancel_key_deletion(KeyId=key)
    assert kms.describe_key(KeyId=key)["KeyMetadata"]["KeyState"] == "Disabled"


@pytest.mark.parametrize("days", [6, 31])
def test_a_waiting_period_has_7_to_30_days(kms: Any, key: str, days: int) -> None:
    assert error_of(kms.schedule_key_deletion, KeyId=key, PendingWindowInDays=days)[0] == "ValidationException"


def test_a_key_disappears_with_its_aliases_and_tags_when_its_time_has_come(tmp_path: Path) -> None:
    state = State(tmp_path)
    state.put(Key("k", 0.0, "", "{}", bytes(32), deletion_date=100.0))
    state.put(Alias("alias/a", "k", 0.0, 0.0))
    state.put(Tag("k", "a", "b"))
    state.expire(99.0)
    assert state.find(Key, id="k") is not None
    state.expire(100.0)
    assert (state.select(Key), state.select(Alias), state.select(Tag)) == ([], [], [])
    state.close()


@pytest.mark.parametrize("before", [None, 0o644], ids=["new", "of an earlier version"])
def test_nobody_else_can_read_the_state(tmp_path: Path, before: int | None) -> None:
    """It holds key material and XKS secrets. The directory was made with 0755."""
    tmp_path.chmod(0o755)
    if before is not None:
        (tmp_path / "kms.sqlite").touch(before)
    state = State(tmp_path)
    state.put(Key("k", 0.0, "", "{}", bytes(32)))
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    state.close()


def test_an_alias_stands_for_its_key_and_moves(kms: Any, key: str) -> None:
    other = kms.create_key()["KeyMetadata"]["Arn"]
    kms.create_alias(AliasName="alias/app", TargetKeyId=key)
    assert kms.encrypt(KeyId="alias/app", Plaintext=b"x")["KeyId"] == key
    kms.update_alias(AliasName="alias/app", TargetKeyId=other)
    arn = kms.list_aliases(KeyId=other)["Aliases"][0]["AliasArn"]
    assert kms.describe_key(KeyId=arn)["KeyMetadata"]["Arn"] == other
    assert kms.list_aliases(KeyId=key)["Aliases"] == []
    kms.delete_alias(AliasName="alias/app")
    assert error_of(kms.encrypt, KeyId="alias/app", Plaintext=b"x")[0] == "NotFoundException"


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("app", "ValidationException"),
        ("alias/aws/s3", "NotAuthorizedException"),
        ("alias/", "InvalidAliasNameException"),
        ("alias/taken", "AlreadyExistsException"),
    ],
)
def test_alias_names_have_rules(kms: Any, key: str, name: str, error: str) -> None:
    kms.create_alias(AliasName="alias/taken", TargetKeyId=key)
    assert error_of(kms.create_alias, AliasName=name, TargetKeyId=key)[0] == error


def test_an_alias_does_not_stand_for_a_key_in_management(kms: Any, key: str) -> None:
    kms.create_alias(AliasName="alias/app", TargetKeyId=key)
    assert error_of(kms.disable_key, KeyId="alias/app")[0] == "NotFoundException"


@pytest.mark.parametrize(
    ("named", "error"),
    [
        ("1234abcd-12ab-34cd-56ef-1234567890ab", "NotFoundException"),
        ("nothing", "NotFoundException"),
        ("arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab", "NotFoundException"),
        ("arn:aws:kms:us-east-1:999922223333:key/1234abcd-12ab-34cd-56ef-1234567890ab", "NotFoundException"),
        ("arn:aws:s3:::bucket", "InvalidArnException"),
        ("alias/none", "NotFoundException"),
    ],
)
def test_a_key_that_is_not_there(kms: Any, named: str, error: str) -> None:
    assert error_of(kms.describe_key, KeyId=named)[0] == error


def test_tags_are_set_listed_and_removed(kms: Any, key: str) -> None:
    kms.tag_resource(KeyId=key, Tags=[{"TagKey": "a", "TagValue": "1"}, {"TagKey": "b", "TagValue": ""}])
    kms.tag_resource(KeyId=key, Tags=[{"TagKey": "a", "TagValue": "2"}])
    kms.untag_resource(KeyId=key, TagKeys=["b"])
    assert kms.list_resource_tags(KeyId=key)["Tags"] == [{"TagKey": "a", "TagValue": "2"}]


@pytest.mark.parametrize(
    ("tags", "error"),
    [
        ([("a", "1"), ("a", "2")], "TagException"),
        ([("aws:a", "1")], "TagException"),
        ([(f"t{i}", "") for i in range(51)], "TagException"),
    ],
    ids=["twice", "reserved", "too many"],
)
def test_tags_have_rules(kms: Any, key: str, tags: list[tuple[str, str]], error: str) -> None:
    given = [{"TagKey": name, "TagValue": value} for name, value in tags]
    assert error_of(kms.tag_resource, KeyId=key, Tags=given)[0] == error


def test_policies_are_stored(kms: Any, key: str) -> None:
    assert "kms:*" in kms.get_key_policy(KeyId=key, PolicyName="default")["Policy"]
    policy = json.dumps({"Version": "2012-10-17", "Statement": [OPEN]})
    kms.put_key_policy(KeyId=key, Policy=policy)
    assert kms.get_key_policy(KeyId=key)["Policy"] == policy
    assert kms.list_key_policies(KeyId=key)["PolicyNames"] == ["default"]


@pytest.mark.parametrize(
    "policy",
    [
        {"foo": 1},
        {"Statement": [{**OPEN, "Principal": {}}]},
        {"Statement": [{name: value for name, value in OPEN.items() if name != "Principal"}]},
        {"Statement": [{name: value for name, value in OPEN.items() if name != "Action"}]},
        {"Statement": [{**OPEN, "Effect": "Maybe"}]},
        {"Statement": [{**OPEN, "Extra": "x"}]},
        {"Statement": ["x"]},
        {"Statement": [OPEN], "Version": "2026-01-01"},
        {"Statement": [{**OPEN, "Action": "kms:Encrypt"}]},
        {"Statement": [{**OPEN, "Principal": {"AWS": "arn:aws:iam::111122223333:user/bob"}}]},
        {"Statement": [{**OPEN, "Effect": "Deny"}]},
        {"Statement": []},
        [OPEN],
        "{",
    ],
    ids=repr,
)
def test_a_malformed_policy_or_one_that_locks_its_author_out_is_refused(kms: Any, key: str, policy: Any) -> None:
    text = policy if isinstance(policy, str) else json.dumps(policy)
    assert error_of(kms.put_key_policy, KeyId=key, Policy=text)[0] == "MalformedPolicyDocumentException"
    assert error_of(kms.create_key, Policy=text)[0] == "MalformedPolicyDocumentException"


@pytest.mark.parametrize(
    "changes",
    [
        {"Principal": {"AWS": ["arn:aws:iam::111122223333:user/alice"]}},
        {"Principal": {"AWS": "111122223333"}},
        {"Principal": {"AWS": "*"}, "Action": ["kms:Encrypt", "kms:Put*"]},
        {"Action": "*", "Sid": "x", "Condition": {"StringEquals": {"a": "b"}}},
    ],
    ids=repr,
)
def test_a_policy_that_its_author_can_change_is_stored(kms: Any, key: str, changes: dict[str, Any]) -> None:
    kms.put_key_policy(KeyId=key, Policy=json.dumps({"Statement": {**OPEN, **changes}}))


def test_the_lockout_check_can_be_left_out(kms: Any, key: str) -> None:
    policy = json.dumps({"Statement": [{**OPEN, "Action": "kms:Encrypt"}]})
    kms.put_key_policy(KeyId=key, Policy=policy, BypassPolicyLockoutSafetyCheck=True)


def test_a_description_changes(kms: Any, key: str) -> None:
    kms.update_key_description(KeyId=key, Description="second")
    assert kms.describe_key(KeyId=key)["KeyMetadata"]["Description"] == "second"


def test_keys_are_listed_page_by_page(kms: Any) -> None:
    created = {kms.create_key()["KeyMetadata"]["KeyId"] for _ in range(5)}
    pages = list(kms.get_paginator("list_keys").paginate(PaginationConfig={"PageSize": 2}))
    assert [len(page["Keys"]) for page in pages] == [2, 2, 1]
    assert {entry["KeyId"] for page in pages for entry in page["Keys"]} == created


@pytest.mark.parametrize(
    "parameters",
    [{"KeySpec": "RSA_2048", "KeyUsage": "SIGN_VERIFY"}, {"MultiRegion": True}, {"Origin": "EXTERNAL"}],
    ids=["asymmetric", "multi-Region", "imported"],
)
def test_other_kinds_of_keys_are_left_out_by_name(kms: Any, parameters: dict[str, Any]) -> None:
    assert error_of(kms.create_key, **parameters)[0] == "UnsupportedOperationException"
