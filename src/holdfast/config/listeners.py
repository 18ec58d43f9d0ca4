"""`[server]` and the tables of TLS."""

import re
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from annotated_types import Interval

from holdfast.config.kinds import Kind, Refused, literal, parse_text, shown


@dataclass(frozen=True, slots=True)
class Address:
    """Where a listener binds."""

    host: str
    port: int
    _TEXT: ClassVar[re.Pattern[str]] = re.compile(
        r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9.-]+)):(?P<port>[0-9]{1,5})"
    )

    @classmethod
    def parse(cls, value: Any, folder: Path) -> Self:
        """From `HOST:PORT`, an IPv6 host in brackets; the host is not looked up. Raises Refused."""
        match = cls._TEXT.fullmatch(parse_text(value, folder))
        if match is None:
            raise Refused(f"must be HOST:PORT as in 0.0.0.0:443 or [::]:443, not {shown(value)}")
        port = int(match["port"])
        if not 1 <= port <= 65_535:  # noqa: PLR2004 (TCP's ports)
            raise Refused(f"has the port {port}, and a port is from 1 to 65535")
        return cls(match["six"] or match["host"], port)


def _networks(value: Any, folder: Path) -> tuple[IPv4Network | IPv6Network, ...]:
    del folder
    if not isinstance(value, list | tuple):
        raise Refused(f'must be a list of networks, as in ["10.0.0.0/8"], not {shown(value)}')
    networks = []
    for text in value:
        try:
            network = ip_network(text if isinstance(text, str) else "")  # a number would be an address
        except ValueError:
            raise Refused(
                f'holds {literal(text)}, which is not a network, as in "10.0.0.0/8" or "2001:db8::/32"'
            ) from None
        mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
        # The proxy sees clients of IPv4 by their own addresses: ::ffff:10.0.0.0/104 would admit nobody.
        networks.append(network if mapped is None else IPv4Network((mapped, network.prefixlen - 96)))
    return tuple(networks)


Listener = Annotated[Address, Kind("HOST:PORT", Address.parse)]
Networks = Annotated[tuple[IPv4Network | IPv6Network, ...], Kind("list of networks", _networks)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """`[server]`."""

    listen: Listener
    """Where KMS's calls arrive: HTTPS with [tls], else HTTP."""
    workers: Annotated[int, Interval(ge=1, le=64)] = 2
    """Processes that share the port. With two, one restarts while the other serves."""
    deadline_ms: Annotated[int, Interval(ge=50, le=240)] = 200
    """Time for one request from its arrival. KMS gives up after 250 ms, the network included."""
    max_body_bytes: Annotated[int, Interval(ge=32_768, le=1_048_576)] = 65_536
    """A longer request body is refused. The specification's sizes fit into 32768."""
    max_header_bytes: Annotated[int, Interval(ge=4_096, le=65_536)] = 16_384
    """Longer request headers are refused."""
    max_connections: Annotated[int, Interval(ge=1, le=100_000)] = 12_000
    """Open connections per worker, or as many as the limit of open files allows. One more ends an old one, at first
    of those that have not signed a request."""
    require_policies: bool = False
    """Whether a configuration without [authorization] is refused, so that policies cannot vanish unnoticed."""
    max_unauthenticated_per_source: Annotated[int, Interval(ge=1, le=100_000)] | None = None
    """Connections per worker from one address (IPv6: one /64) that have not signed a request. Left out: a quarter of
    all."""
    allow_networks: Networks = ()
    """Networks that may connect to `listen`, by the addresses that the proxy sees. Left out: any."""
    read_timeout_s: Annotated[float, Interval(ge=0.5, le=60)] = 5
    """A request that has begun must be complete by then."""
    idle_timeout_s: Annotated[float, Interval(ge=1, le=3_600)] = 360
    """A connection without a request is closed after this; longer than a Network Load Balancer's 350."""
    drain_timeout_s: Annotated[float, Interval(ge=0.5, le=300)] = 10
    """On SIGTERM, time for running requests to end."""
    health_listen: Listener | None = None
    """GET /ping and /ready, with the reasons, for load balancers. Plain HTTP without [health_tls]."""
    metrics_listen: Listener | None = None
    """GET /metrics. Plain HTTP without [metrics_tls]."""


@dataclass(frozen=True, slots=True)
class Tls:
    """`[tls]`, `[health_tls]` or `[metrics_tls]`."""

    certificate: Path
    """PEM: the server's certificate, then the intermediates."""
    private_key: Path
    """PEM: the certificate's private key, not encrypted."""
    client_ca: Path | None = None
    """PEM: mutual TLS, the CAs of callers. Needs client_subject."""
    client_subject: str | None = None
    """Mutual TLS: the common name a caller's certificate must have. Needs client_ca."""
