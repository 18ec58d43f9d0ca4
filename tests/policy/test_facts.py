"""A request in the words of the schema: every attribute has the value that KMS sent, or is absent."""

import cedarpy
import pytest
from tests.policy.samples import ALICE, FACTS, LOOK, permits

from holdfast.policy.facts import Facts
from holdfast.policy.schema import SCHEMA

EVERYTHING = FACTS._replace(
    kms_via_service="s3.us-east-2.amazonaws.com", aws_source_vpc="vpc-1", aws_source_vpce="vpce-1"
)


@pytest.mark.parametrize("facts", [FACTS, LOOK, EVERYTHING, FACTS._replace(operation="Encrypt")])
def test_requests_and_entities_are_those_of_the_schema(facts: Facts) -> None:
    """At run time the schema is not asked again: what the code makes must agree with it here."""
    policies = cedarpy.PolicySet.from_str("permit(principal, action, resource);")
    result = cedarpy.is_authorized(facts.request(), policies, facts.entities(), schema=SCHEMA)
    assert (result.allowed, result.diagnostics.errors) == (True, [])


@pytest.mark.parametrize(
    "condition",
    [
        f'principal == AwsPrincipal::"{ALICE}"',
        f'principal.arn == "{ALICE}"',
        'principal.arn like "arn:aws:iam::123456789012:user/*"',
        'principal.account == "123456789012"',
        "!principal.isAwsService",
        'resource == ExternalKey::"payments/orders-2026"',
        'resource in Keystore::"payments"',
        'resource.keystore == "payments" && resource.externalKeyId == "orders-2026"',
        'context.kmsOperation == "Decrypt"',
        f'context.kmsKeyArn == "{FACTS.kms_key_arn}"',
        'context.kmsKeyAccount == "210987654321"',
        'context.region == "us-east-2"',
        'context has kmsViaService && context.kmsViaService == "s3.us-east-2.amazonaws.com"',
        'context has awsSourceVpc && context.awsSourceVpc == "vpc-1"',
        'context has awsSourceVpce && context.awsSourceVpce == "vpce-1"',
    ],
)
def test_a_policy_can_speak_of(condition: str) -> None:
    assert permits(condition, EVERYTHING)
    assert not permits(f"!({condition})", EVERYTHING)


@pytest.mark.parametrize("attribute", ["kmsViaService", "awsSourceVpc", "awsSourceVpce"])
def test_what_kms_did_not_send_is_absent(attribute: str) -> None:
    assert permits(f"!(context has {attribute})")


@pytest.mark.parametrize("attribute", ["kmsKeyArn", "kmsKeyAccount", "region"])
def test_a_look_at_a_key_names_no_kms_key(attribute: str) -> None:
    """Spec, "GetKeyMetadata": there is no kmsKeyArn."""
    assert permits(f"!(context has {attribute})", LOOK)


@pytest.mark.parametrize(
    "principal", ["ec2.amazonaws.com", "s3.amazonaws.com.cn", "ec2.amazonaws.eu", "AWS Internal"]
)
def test_an_aws_service_is_known_as_one_and_has_no_account(principal: str) -> None:
    """Spec, "GetKeyMetadata", `awsPrincipalArn`."""
    facts = FACTS._replace(aws_principal_arn=principal)
    assert permits(f'principal.isAwsService && principal.account == "" && principal.arn == "{principal}"', facts)


@pytest.mark.parametrize(
    "principal",
    [
        "arn:aws:iam::123456789012:role/ec2.amazonaws.com",
        "arn:aws:sts::123456789012:assumed-role/x/s3.amazonaws.com",
        "amazonaws.com",
        "ec2.amazonaws.com.example.org",
        "aws internal",
        "",
    ],
)
def test_what_only_looks_like_a_service_is_none(principal: str) -> None:
    """A role can have any name."""
    assert permits("!principal.isAwsService", FACTS._replace(aws_principal_arn=principal))


@pytest.mark.parametrize(
    ("arn", "region", "account"),
    [
        ("arn:aws:kms:eu-west-1:111122223333:key/mrk:with:colons", "eu-west-1", "111122223333"),
        ("arn:aws-us-gov:kms:us-gov-west-1:111122223333:key/1", "us-gov-west-1", "111122223333"),
        ("arn:aws:kms:eu-west-1", "", ""),
        ("key/1", "", ""),
        ("not:aws:kms:eu-west-1:111122223333:key/1", "", ""),
        ("", "", ""),
    ],
)
def test_region_and_account_are_those_of_an_arn_and_empty_without_one(arn: str, region: str, account: str) -> None:
    """The spec promises no form of the ARN, and wants no validation of it."""
    facts = FACTS._replace(kms_key_arn=arn)
    assert permits(f'context.region == "{region}" && context.kmsKeyAccount == "{account}"', facts)


@pytest.mark.parametrize("principal", ['a"b', "a\nb", "a\\b", "a\x00b", '"::x', "ÅÄÖ", "a" * 2048])
def test_a_principal_is_compared_as_it_is_whatever_its_characters(principal: str) -> None:
    facts = FACTS._replace(aws_principal_arn=principal)
    assert permits('principal.arn != ""', facts)
    assert not permits(f'principal == AwsPrincipal::"{ALICE}"', facts)
