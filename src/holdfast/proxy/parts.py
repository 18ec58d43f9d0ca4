"""What a worker is made of, apart from its event loop: HSMs, catalog, budget, event log."""

import contextlib
import socket
import ssl
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from holdfast.catalog.counting import EncryptionBudget
from holdfast.catalog.feed import CatalogFeed
from holdfast.catalog.store import Catalog
from holdfast.config.model import Configuration
from holdfast.config.policies import parse_policies
from holdfast.config.secrets import resolve
from holdfast.ekm.pkcs11 import ckr
from holdfast.ekm.pkcs11.backend import Pkcs11Hsm
from holdfast.operations.services import Services
from holdfast.proxy.event_log import EventLog
from holdfast.proxy.log_sink import LogSink
from holdfast.proxy.overload import Admission
from holdfast.proxy.tally import Tally
from holdfast.proxy.tls import TlsUnusable, build_context


@dataclass(slots=True)
class Parts:
    """Built before the event loop runs, closed after it has ended. `tls` is what new connections get."""

    configuration: Configuration
    hsms: Mapping[str, Pkcs11Hsm]
    feed: CatalogFeed
    budget: EncryptionBudget
    services: Services
    event_log: EventLog
    admission: Admission
    tls: ssl.SSLContext | None
    tally: Tally = field(default_factory=Tally)
    credentials_used: dict[str, float] = field(default_factory=dict)

    @classmethod
    def build(cls, configuration: Configuration, *, turn_file: int, worker: int) -> "Parts":
        """Start everything that can be unfit to serve.

        Raises EkmFault, CatalogError, ConfigurationError, TlsUnusable, OSError; what was started is then stopped.
        """
        with contextlib.ExitStack() as undo:
            tls = None if configuration.tls is None else build_context(configuration.tls, now=_utc_now)
            authorization = configuration.authorization
            policies = None if authorization is None else parse_policies(authorization)
            sink = LogSink(configuration.log.events, turn_file=turn_file)
            catalog = Catalog.open(configuration.catalog.url, configuration.catalog.secrets, now=_utc_now)
            hsms = {name: Pkcs11Hsm(resolve(table)) for name, table in configuration.hsms.items()}
            for hsm in hsms.values():
                hsm.start()
                undo.callback(hsm.stop)
            budget = EncryptionBudget(
                catalog, configuration.encryption_limits, monotonic=time.monotonic, on_warning=warn
            )
            feed = CatalogFeed(
                catalog,
                budget,
                proxy_id=_proxy_id(configuration),
                stale_limit=configuration.catalog.stale_limit,
                monotonic=time.monotonic,
                on_warning=warn,
            )
            feed.start()
            undo.pop_all()
        event_log = EventLog(sink, ckr_name=ckr.name, worker=worker)
        event_log.start()
        credentials_used: dict[str, float] = {}

        def credential_used(access_key_id: str, at: datetime) -> None:
            feed.used(access_key_id, at)
            credentials_used[access_key_id] = at.timestamp()

        services = Services(
            snapshot=lambda: feed.snapshot,
            hsms=hsms,
            budget=budget,
            credential_used=credential_used,
            clock=time.monotonic,
            now=_utc_now,
            deadline=configuration.server.deadline,
            policies=policies,
        )
        admission = Admission(configuration.server.deadline, clock=time.monotonic)
        return cls(
            configuration,
            hsms,
            feed,
            budget,
            services,
            event_log,
            admission,
            tls,
            credentials_used=credentials_used,
        )

    def refresh_tls(self) -> None:
        """New connections get the certificate as it is on disk now; an unusable one changes nothing, loudly."""
        if self.configuration.tls is None:
            return
        try:
            self.tls = build_context(self.configuration.tls, now=_utc_now)
        except TlsUnusable as error:
            warn(f"the new TLS files are not used: {error}")

    def reload_keys(self) -> None:
        """Let the HSMs see keys that were made after the start."""
        for hsm in self.hsms.values():
            hsm.reload_keys()

    def close(self) -> None:
        """Stop in the order in which requests use the parts."""
        for hsm in self.hsms.values():
            hsm.stop()
        self.feed.stop()
        self.event_log.close()


def warn(text: str) -> None:
    """Tell the operator: standard error is the service's journal; standard output may carry the event lines."""
    print(f"holdfast: warning: {text}", file=sys.stderr, flush=True)  # noqa: T201 (the service's voice)


def _proxy_id(configuration: Configuration) -> str:
    """One proxy of the fleet: all workers of this host and address count as one."""
    listen = configuration.server.listen
    return f"{socket.gethostname()}:{listen.port}"


def _utc_now() -> datetime:
    return datetime.now(UTC)
