"""The configuration file's tables as values. A `Configuration` that exists has been validated."""

import socket
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from holdfast.config.hsm import HsmTable
from holdfast.config.listeners import Server, Tls
from holdfast.config.outlets import Outlet
from holdfast.config.storage import (
    Audit,
    Authorization,
    CatalogSettings,
    Drill,
    EncryptionLimits,
    Log,
    Node,
    Rotation,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """One TOML file, parsed and validated. `path` is the file; relative paths in it were resolved against it.

    It holds no secret, so it can be pickled and sent to a worker.
    """

    path: Path
    server: Server
    """The listeners and their limits. Required."""
    tls: Tls | None
    """HTTPS. Without this table the proxy uses plain HTTP, and something in front of it must terminate TLS."""
    health_tls: Tls | None
    """HTTPS for `health_listen`. Without this table it uses plain HTTP."""
    metrics_tls: Tls | None
    """HTTPS for `metrics_listen`. Without this table it uses plain HTTP. With client_ca only a scraper with a
    certificate is answered."""
    catalog: CatalogSettings
    """Where keystores, credentials and keys are stored. May be left out."""
    node: Node
    """This node's name and site, as `holdfast node list` shows them. May be left out."""
    encryption_limit: EncryptionLimits
    """Encryptions per key generation over all proxies. NIST SP 800-38D, 8.3 allows 2^32. May be left out."""
    rotation: Rotation
    """When a key is due to rotate: `holdfast key rotate due`. May be left out."""
    drill: Drill
    """How often a standby HSM or a restored backup is to be tried. May be left out."""
    authorization: Authorization | None
    """Who may use which key, decided at the proxy as well. Without this table KMS's key policies alone decide."""
    log: Log
    """The event log: one JSON object per request and line. May be left out."""
    audit: Audit | None
    """This node's audit log, which `holdfast audit verify` proves. Without this table there is none."""
    outlets: dict[str, Outlet]
    """A receiver of events and changes: syslog, or OpenTelemetry. As many as are needed, each under a name."""
    hsms: dict[str, HsmTable]
    """One HSM, or one load-shared set behind one token. Keys are registered under NAME. At least one."""

    @property
    def node_name(self) -> str:
        """`name` in [node], or host and port: two nodes may run on one host."""
        return self.node.name or f"{socket.gethostname()}:{self.server.listen.port}"

    @property
    def serving(self) -> dict[str, HsmTable]:
        """The HSMs that nodes use: all but the standby ones."""
        return {name: table for name, table in self.hsms.items() if not table.settings.standby}

    @property
    def needs_records(self) -> bool:
        """Whether an answer waits for its record."""
        return self.log.required or (self.audit is not None and self.audit.fail_closed)

    def signing_hsm(self, audit: Audit) -> HsmTable:
        """The HSM with the key of the audit log."""
        return self.serving[audit.hsm or next(iter(self.serving))]


def differences(old: Configuration, new: Configuration) -> list[str]:
    """The tables and keys in which two configurations differ, as in `server.deadline_ms`."""
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
