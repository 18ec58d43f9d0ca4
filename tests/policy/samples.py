"""A request's facts, and policies about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from holdfast.policy.facts import Facts
from holdfast.policy.faults import Mistake, PoliciesInvalid
from holdfast.policy.policies import Policies

if TYPE_CHECKING:
    from holdfast.policy.policies import Decision

ALICE = "arn:aws:iam::123456789012:user/Alice"
FACTS = Facts(
    operation="Decrypt",
    keystore="payments",
    external_key_id="orders-2026",
    aws_principal_arn=ALICE,
    kms_operation="Decrypt",
    kms_key_arn="arn:aws:kms:us-east-2:210987654321:key/1234abcd-12ab-34cd-56ef-1234567890ab",
)
PERMIT = "permit(principal, action, resource);\n"
CONFIGURATION = """
[server]
listen = "127.0.0.1:1"
[authorization]
policies = "policies.cedar"
[hsm.main]
profile = "softhsm2"
library = "libsofthsm2.so"
token = { label = "x" }
health_key = "health"
"""
LOOK = FACTS._replace(operation="GetKeyMetadata", kms_operation="DescribeKey", kms_key_arn=None)


def decide(text: str, facts: Facts = FACTS) -> Decision:
    """What the policies of this text decide."""
    return Policies.parse(text).decide(facts)


def permits(condition: str, facts: Facts = FACTS) -> bool:
    """Whether a permit under this condition permits; for the action of these facts only."""
    text = f'permit(principal, action == Action::"{facts.operation}", resource) when {{ {condition} }};'
    return decide(text, facts).denial is None


def mistakes(text: str) -> tuple[Mistake, ...]:
    """What is wrong with this text."""
    with pytest.raises(PoliciesInvalid) as caught:
        Policies.parse(text)
    return caught.value.mistakes
