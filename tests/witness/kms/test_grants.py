"""Grants, through boto3, by the rules of AWS's service model."""

from typing import Any

import pytest
from tests.witness.kms.clients import error_of

ROLE, OTHER = "arn:aws:iam::111122223333:role/app", "arn:aws:iam::111122223333:role/other"


@pytest.fixture
def key(kms: Any) -> str:
    """An ordinary key's ARN."""
    arn: str = kms.create_key()["KeyMetadata"]["Arn"]
    return arn


def grant(kms: Any, key: str, **changes: Any) -> dict[str, str]:
    given = {"GranteePrincipal": ROLE, "Operations": ["Encrypt", "Decrypt"], **changes}
    response: dict[str, str] = kms.create_grant(
        KeyId=key, **{name: value for name, value in given.items() if value is not None}
    )
    return response


def test_a_key_without_grants_has_an_empty_list(kms: Any, key: str) -> None:
    """Ansible asks for each key."""
    assert kms.list_grants(KeyId=key)["Grants"] == []


def test_a_grant_is_listed_as_it_was_made(kms: Any, key: str) -> None:
    constraints = {"EncryptionContextSubset": {"a": "b"}}
    made = grant(kms, key, Name="app", RetiringPrincipal=OTHER, Constraints=constraints)
    (entry,) = kms.list_grants(KeyId=key)["Grants"]
    del entry["CreationDate"]
    assert entry == {
        "KeyId": key,
        "GrantId": made["GrantId"],
        "Name": "app",
        "GranteePrincipal": ROLE,
        "RetiringPrincipal": OTHER,
        "IssuingAccount": "arn:aws:iam::111122223333:root",
        "Operations": ["Encrypt", "Decrypt"],
        "Constraints": constraints,
    }


def test_grants_are_filtered_and_paged(kms: Any, key: str) -> None:
    made = {grant(kms, key)["GrantId"] for _ in range(3)} | {grant(kms, key, GranteePrincipal=OTHER)["GrantId"]}
    pages = list(kms.get_paginator("list_grants").paginate(KeyId=key, PaginationConfig={"PageSize": 3}))
    assert [len(page["Grants"]) for page in pages] == [3, 1]
    assert {entry["GrantId"] for page in pages for entry in page["Grants"]} == made
    assert len(kms.list_grants(KeyId=key, GranteePrincipal=OTHER)["Grants"]) == 1
    one = next(iter(made))
    assert [entry["GrantId"] for entry in kms.list_grants(KeyId=key, GrantId=one)["Grants"]] == [one]


def test_a_repeated_grant_with_a_name_is_the_same_grant_with_another_token(kms: Any, key: str) -> None:
    first, again = grant(kms, key, Name="app"), grant(kms, key, Name="app")
    assert first["GrantId"] == again["GrantId"]
    assert first["GrantToken"] != again["GrantToken"]
    assert grant(kms, key, Name="app", Operations=["Encrypt"])["GrantId"] != first["GrantId"]
    assert grant(kms, key)["GrantId"] != grant(kms, key)["GrantId"]


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"GranteePrincipal": None}, "ValidationException"),
        ({"GranteeServicePrincipal": "ec2.amazonaws.com"}, "ValidationException"),
        ({"GranteePrincipal": None, "GranteeServicePrincipal": "ec2.amazonaws.com"}, "ValidationException"),
        ({"RetiringPrincipal": ROLE, "RetiringServicePrincipal": "ec2.amazonaws.com"}, "ValidationException"),
        ({"Operations": ["Sign"]}, "ValidationException"),
        ({"Operations": []}, "ValidationException"),
        ({"GranteePrincipal": "app"}, "InvalidArnException"),
        ({"RetiringPrincipal": "app"}, "InvalidArnException"),
        ({"GrantTokens": ["x"]}, "InvalidGrantTokenException"),
        ({"DryRun": True}, "DryRunOperationException"),
    ],
    ids=repr,
)
def test_a_grant_has_rules(kms: Any, key: str, changes: dict[str, Any], error: str) -> None:
    assert error_of(grant, kms=kms, key=key, **changes)[0] == error
    assert kms.list_grants(KeyId=key)["Grants"] == []


def test_a_grant_for_a_service_needs_its_source_and_someone_who_retires_it(kms: Any, key: str) -> None:
    grant(
        kms,
        key,
        GranteePrincipal=None,
        GranteeServicePrincipal="ec2.amazonaws.com",
        RetiringServicePrincipal="ec2.amazonaws.com",
        Constraints={"SourceArn": "arn:aws:ec2:us-east-1:111122223333:volume/v"},
    )
    assert kms.list_grants(KeyId=key)["Grants"][0]["GranteeServicePrincipal"] == "ec2.amazonaws.com"


def test_a_grant_token_can_be_used_while_its_grant_lasts(kms: Any, key: str) -> None:
    token = grant(kms, key)["GrantToken"]
    kms.encrypt(KeyId=key, Plaintext=b"x", GrantTokens=[token])
    kms.retire_grant(GrantToken=token)
    assert error_of(kms.encrypt, KeyId=key, Plaintext=b"x", GrantTokens=[token])[0] == "InvalidGrantTokenException"
    assert error_of(kms.retire_grant, GrantToken=token)[0] == "InvalidGrantTokenException"


def test_a_grant_is_retired_and_revoked_by_its_id(kms: Any, key: str) -> None:
    first, second = grant(kms, key)["GrantId"], grant(kms, key)["GrantId"]
    assert error_of(kms.retire_grant, KeyId=key, GrantId=first, DryRun=True)[0] == "DryRunOperationException"
    kms.retire_grant(KeyId=key, GrantId=first)
    kms.revoke_grant(KeyId=key, GrantId=second)
    assert kms.list_grants(KeyId=key)["Grants"] == []
    for operation in (kms.retire_grant, kms.revoke_grant):
        assert error_of(operation, KeyId=key, GrantId=first)[0] == "NotFoundException"


@pytest.mark.parametrize("given", [{}, {"GrantId": "x"}, {"GrantToken": "x", "GrantId": "x"}], ids=repr)
def test_retire_grant_needs_a_token_or_both_ids(kms: Any, given: dict[str, str]) -> None:
    assert error_of(kms.retire_grant, **given)[0] == "ValidationException"


def test_retirable_grants_are_those_of_all_keys_for_a_principal(kms: Any, key: str) -> None:
    other_key = kms.create_key()["KeyMetadata"]["Arn"]
    wanted = {grant(kms, each, RetiringPrincipal=OTHER)["GrantId"] for each in (key, other_key)}
    grant(kms, key)
    found = kms.list_retirable_grants(RetiringPrincipal=OTHER)["Grants"]
    assert {entry["GrantId"] for entry in found} == wanted
