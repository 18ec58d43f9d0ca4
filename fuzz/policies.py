"""Every policy text is as many policies as Cedar reads in it, and decides; or PoliciesInvalid with its mistakes."""

import cedarpy
import msgspec

from holdfast.policy.facts import Facts
from holdfast.policy.faults import PoliciesInvalid
from holdfast.policy.policies import Policies

FACTS = Facts(
    "Decrypt",
    "prod",
    "payments-2026",
    "arn:aws:iam::123456789012:role/payments",
    "Decrypt",
    "arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab",
)


def invariant(data: bytes) -> None:
    """As the first line says."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return  # `load` refuses such a file before it is parsed
    try:
        policies = Policies.parse(text)
    except PoliciesInvalid as invalid:
        assert invalid.mistakes
        assert all(mistake.text for mistake in invalid.mistakes)
        return
    read = msgspec.json.decode(cedarpy.policies_to_json_str(text))["staticPolicies"]
    assert len(policies.policies) == len(read)
    decision = policies.decide(FACTS)
    assert set(decision.policies) <= {policy.name for policy in policies.policies}


if __name__ == "__main__":
    from harness import main

    main(invariant)
