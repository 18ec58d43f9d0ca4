"""AWS's partitions: ARNs and principals of the Region that the local KMS is in."""

from collections.abc import Callable
from typing import Any

import pytest
from botocore.loaders import Loader
from tests.witness.kms.clients import LocalKms, connected_store, error_of, external_key
from tests.witness.kms.xks_proxy import XksProxy

from holdfast.xks.partition import PARTITIONS, partition_of

_REGIONS = {"aws-us-gov": "us-gov-west-1", "aws-cn": "cn-north-1", "aws-eusc": "eusc-de-east-1"}


_BOTOCORE = Loader().load_data("partitions")["partitions"]


def test_botocore_knows_no_other_partition() -> None:
    assert {each["id"] for each in _BOTOCORE} == {partition.name for partition in PARTITIONS}


@pytest.mark.parametrize("botocores", _BOTOCORE, ids=lambda each: each["id"])
def test_every_region_has_the_partition_that_botocore_says(botocores: dict[str, Any]) -> None:
    for region in (name for name in botocores["regions"] if not name.endswith("-global")):
        found = partition_of(region)
        assert (found.name, found.dns_suffix) == (botocores["id"], botocores["outputs"]["dnsSuffix"])


@pytest.mark.parametrize(("partition", "region"), _REGIONS.items())
def test_arns_are_those_of_the_partition(
    start: Callable[..., LocalKms], proxy: XksProxy, partition: str, region: str
) -> None:
    """What the caller sees, what the policy names, and what the proxy gets."""
    kms: Any = start(region=region).client()
    key = external_key(kms, connected_store(kms))
    assert key.startswith(f"arn:{partition}:kms:{region}:111122223333:key/")
    assert f'"arn:{partition}:iam::111122223333:root"' in kms.get_key_policy(KeyId=key)["Policy"]
    kms.encrypt(KeyId=key, Plaintext=b"x")
    metadata = proxy.requests[-1][1]
    assert metadata.kms_key_arn == key
    assert metadata.aws_principal_arn == f"arn:{partition}:iam::111122223333:user/alice"
    assert error_of(kms.describe_key, KeyId=key.replace(f"arn:{partition}:", "arn:aws:"))[0] == "InvalidArnException"


@pytest.mark.parametrize(("partition", "region"), _REGIONS.items())
def test_the_principal_of_a_vpc_endpoint_service_is_the_partitions(
    start: Callable[..., LocalKms], partition: str, region: str
) -> None:
    kms = start(region=region).client()
    with pytest.raises(kms.exceptions.XksProxyVpcEndpointServiceNotFoundException) as refused:
        connected_store(
            kms,
            XksProxyConnectivity="VPC_ENDPOINT_SERVICE",
            XksProxyVpcEndpointServiceName=f"com.amazonaws.vpce.{region}.vpce-svc-0123456789abcdef0",
        )
    suffix = next(each.dns_suffix for each in PARTITIONS if each.name == partition)
    assert f"cks.kms.{region}.{suffix}." in str(refused.value)
