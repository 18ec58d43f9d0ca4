"""Every policy that the documentation shows is one that Holdfast takes; the schema that it shows is the real one."""

import pytest
from tests.docs.pages import ROOT, Block, blocks, pages

from holdfast.policy.facts import Facts
from holdfast.policy.policies import Policies
from holdfast.policy.schema import SCHEMA

_EXAMPLE = ROOT / "examples/policies.cedar"
_BLOCKS = [block for page in pages() for block in blocks(page)]
_POLICIES = [block for block in _BLOCKS if block.language == "cedar"]


@pytest.mark.parametrize("block", _POLICIES, ids=str)
def test_cedar_blocks_are_policies_with_ids(block: Block) -> None:
    """The page advises to give every policy an @id."""
    assert all(policy.id for policy in Policies.parse(block.text).policies)


def test_the_schema_is_the_real_one_in_the_reference_and_in_the_examples() -> None:
    (block,) = [block for block in _BLOCKS if block.language == "cedarschema"]
    assert block.text == SCHEMA
    assert (ROOT / "examples/holdfast.cedarschema").read_text() == SCHEMA


@pytest.mark.parametrize(
    ("changes", "decided"),
    [
        ({"aws_principal_arn": "arn:aws:iam::123456789012:role/payments"}, ("payments-role",)),
        ({"aws_principal_arn": "arn:aws:iam::123456789012:role/others"}, ()),
        (
            {
                "external_key_id": "archive-2026",
                "kms_key_arn": "arn:aws:kms:eu-west-1:123456789012:key/1",
                "kms_via_service": "s3.eu-west-1.amazonaws.com",
            },
            ("archive-through-s3",),
        ),
        ({"external_key_id": "archive-2026", "kms_key_arn": "arn:aws:kms:eu-west-1:123456789012:key/1"}, ()),
        ({"keystore": "backup", "aws_source_vpce": "vpce-0123456789abcdef0"}, ("backup-from-our-endpoint",)),
        ({"keystore": "backup", "aws_source_vpce": "vpce-another"}, ()),
        (
            {
                "keystore": "backup",
                "aws_source_vpce": "vpce-0123456789abcdef0",
                "aws_principal_arn": "arn:aws:iam::123456789012:user/former-contractor",
            },
            ("former-contractor",),
        ),
        ({"operation": "GetKeyMetadata", "kms_key_arn": None}, ("our-account-may-look",)),
    ],
)
def test_the_example_does_what_its_comments_say(changes: dict[str, str | None], decided: tuple[str, ...]) -> None:
    facts = Facts(
        "Decrypt", "prod", "payments-2026", "arn:aws:iam::123456789012:user/A", "Decrypt", "arn:aws:kms:r:1:key/1"
    )
    decision = Policies.parse(_EXAMPLE.read_text()).decide(facts._replace(**changes))  # type: ignore[arg-type]  # by name
    assert decision.policies == decided
    assert (decision.denial is None) == (decided not in ((), ("former-contractor",)))


def test_policies_are_found() -> None:
    """An empty list would test nothing."""
    assert len(_POLICIES) > 5
