"""What the operator of a local KMS chooses."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from holdfast.xks.partition import Partition, partition_of


@dataclass(frozen=True, slots=True)
class Address:
    """A host (name or IPv4 address) and a TCP port."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class VpcEndpointService:
    """A VPC endpoint service: its verified private DNS name, and the address of its load balancer.

    `owner` is the account that it is in; None means this KMS's own account.
    """

    private_dns_name: str
    address: Address
    owner: str | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """`credentials` is an AWS shared credentials file; `data` None keeps all state in memory.

    `routes` says where an endpoint's host name leads, since KMS itself always uses port 443 (DNS decides for
    names that are not in it). `ca` None trusts the system's authorities. With a certificate, clients connect by
    HTTPS. Times are in seconds.
    """

    credentials: Path
    listen: Address = Address("127.0.0.1", 8490)
    region: str = "us-east-1"
    account: str = "111122223333"
    data: Path | None = None
    ca: Path | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    routes: Mapping[str, Address] = field(default_factory=dict)
    vpc_services: Mapping[str, VpcEndpointService] = field(default_factory=dict)
    requests_per_second: int = 1800
    connection_delay: float = 2.0
    health_interval: float = 60.0

    @property
    def partition(self) -> Partition:
        """The partition of the Region."""
        return partition_of(self.region)

    @property
    def vpc_principal(self) -> str:
        """The service principal that a VPC endpoint service must allow."""
        return f"cks.kms.{self.region}.{self.partition.dns_suffix}"
