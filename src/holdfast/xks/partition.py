"""AWS's partitions: the second field of each ARN, and the domain of the services, by Region.

The values are those of botocore's `partitions.json`; a test compares them.
"""

import re
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Partition:
    """`name` is part of ARNs (`arn:<name>:kms:...`); the host names of its services end in `dns_suffix`."""

    name: str
    dns_suffix: str


_AWS: Final = Partition("aws", "amazonaws.com")
_BY_PREFIX: Final = {
    "cn": Partition("aws-cn", "amazonaws.com.cn"),
    "us-gov": Partition("aws-us-gov", "amazonaws.com"),
    "eusc": Partition("aws-eusc", "amazonaws.eu"),
    "us-iso": Partition("aws-iso", "c2s.ic.gov"),
    "us-isob": Partition("aws-iso-b", "sc2s.sgov.gov"),
    "eu-isoe": Partition("aws-iso-e", "cloud.adc-e.uk"),
    "us-isof": Partition("aws-iso-f", "csp.hci.ic.gov"),
}

REGION: Final = re.compile(r"(?:[a-z]{2}(?:-(?:gov|iso[a-z]?))?|eusc-[a-z]{2})-[a-z]+-[0-9]{1,2}")
"""The form of a Region in any partition: eu-central-1, us-gov-west-1, cn-north-1, eusc-de-east-1, us-isob-east-1."""
PARTITIONS: Final = (_AWS, *_BY_PREFIX.values())
"""Every partition."""


def partition_of(region: str) -> Partition:
    """The partition of a Region such as `us-gov-west-1`; `aws` for a Region that no other partition claims."""
    return next((found for prefix, found in _BY_PREFIX.items() if region.startswith(f"{prefix}-")), _AWS)
