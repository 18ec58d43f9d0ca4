"""The configuration file's tables as values. A `Configuration` that exists has been validated."""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import timedelta
from hashlib import sha256
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

from holdfast.hsm.settings import HsmSettings
from holdfast.keys.budget import EncryptionLimits
from holdfast.secrets.reference import SecretReference


@dataclass(frozen=True, slots=True)
class Address:
    """Where a listener binds."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Tls:
    """`[tls]`, `[health_tls]` or `[metrics_tls]`. `client_ca` and `client_subject` (a common name): mutual TLS."""

    certificate: Path
    private_key: Path
    client_ca: Path | None = None
    client_subject: str | None = None


@dataclass(frozen=True, slots=True)
class Server:
    """`[server]`. `deadline` in seconds; `max_body` and `max_headers` in bytes; timeouts in seconds.

    `health_listen` serves /ping and /ready over plain HTTP, `metrics_listen` /metrics; None: not at all.
    `max_unauthenticated_per_source` None: a part of `max_connections`. No `allow_networks`: any address is served.
    """

    listen: Address
    workers: int
    deadline: float
    max_body: int
    max_headers: int
    max_connections: int
    read_timeout: float
    idle_timeout: float
    drain_timeout: float
    health_listen: Address | None
    metrics_listen: Address | None
    require_policies: bool = False
    max_unauthenticated_per_source: int | None = None
    allow_networks: tuple[IPv4Network | IPv6Network, ...] = ()


@dataclass(frozen=True, slots=True)
class CatalogSettings:
    """`[catalog]`. `secrets` is the directory of the credentials' secret files; `stale_limit` in seconds.

    `state` is this machine's file of what it has seen of the catalog.
    """

    url: str
    secrets: Path
    reference_prefix: str
    state: Path
    stale_limit: float


@dataclass(frozen=True, slots=True)
class Authorization:
    """`[authorization]`. `text` is what the file `policies` held when `load` found it good; None after `parse`.

    It is part of the configuration so that a changed file is a changed configuration, the same for every worker.
    """

    policies: Path
    text: str | None = field(default=None, repr=False)

    @property
    def digest(self) -> str:
        """The first 16 hexadecimal digits of the SHA-256 of `text`."""
        return sha256((self.text or "").encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Log:
    """`[log]`. `events` is a file, or None for standard output. `required`: no record, no answer."""

    events: Path | None
    required: bool = False


@dataclass(frozen=True, slots=True)
class Audit:
    """`[audit]`: this node's audit log, and the key that signs it. `interval` in seconds.

    `name` is the log's own name. `hsm` names the HSM and `key` the CKA_LABEL in it, unless `key_file` has the key.
    `fail_closed`: no record, no answer. `control_directory` and `control_name` are those of the control log, where
    this host keeps it; it has the same key. `keep` is for how long segments are kept, None: for ever.
    """

    directory: Path
    name: str
    hsm: str
    key: str
    key_file: Path | None
    fail_closed: bool
    interval: float
    control_directory: Path | None
    control_name: str | None
    keep: timedelta | None


@dataclass(frozen=True, slots=True)
class HsmTable:
    """One `[hsm.NAME]` table. `settings.pin` is None: `secrets.resolve` reads it, in the process that logs in."""

    settings: HsmSettings
    pin: SecretReference | None = None


@dataclass(frozen=True, slots=True)
class Configuration:
    """One TOML file, parsed and validated. `path` is the file; relative paths in it were resolved against it.

    It holds no secret, so it can be pickled and sent to a worker.
    """

    path: Path
    server: Server
    tls: Tls | None
    catalog: CatalogSettings
    encryption_limits: EncryptionLimits
    authorization: Authorization | None
    log: Log
    hsms: dict[str, HsmTable]
    health_tls: Tls | None = None
    metrics_tls: Tls | None = None
    audit: Audit | None = None

    @property
    def needs_records(self) -> bool:
        """Whether an answer waits for its record."""
        return self.log.required or (self.audit is not None and self.audit.fail_closed)


def differences(old: Configuration, new: Configuration) -> list[str]:
    """The tables and keys in which two configurations differ, as in `server.deadline`."""
    return sorted(_differences(old, new, ""))


def _differences(old: Any, new: Any, where: str) -> Iterator[str]:
    if old == new:
        return
    if is_dataclass(old) and type(old) is type(new):
        for each in fields(old):
            yield from _differences(getattr(old, each.name), getattr(new, each.name), f"{where}.{each.name}")
    elif isinstance(old, dict) and isinstance(new, dict):
        for name in old.keys() | new.keys():
            yield from _differences(old.get(name), new.get(name), f"{where}.{name}")
    else:
        yield where.removeprefix(".")
