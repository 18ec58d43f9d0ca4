"""What a worker is made of, apart from its event loop: HSMs, catalog, budget, event log."""

import contextlib
import secrets
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from threading import Timer

from holdfast.config.errors import ConfigurationError, Problem
from holdfast.config.hsm import resolve
from holdfast.config.listeners import Tls
from holdfast.config.model import Configuration
from holdfast.config.policies import parse_policies
from holdfast.gateway.http.tls import TlsUnusable, build_context
from holdfast.gateway.observe.audit_spool import AuditSpool
from holdfast.gateway.observe.event_log import EventLog
from holdfast.gateway.observe.log_sink import LogSink
from holdfast.gateway.observe.messages import StoppedKeys
from holdfast.gateway.observe.notify import say
from holdfast.gateway.observe.outlet_feed import OutletFeed
from holdfast.gateway.observe.tally import Tally
from holdfast.gateway.worker.admission import Admission
from holdfast.gateway.worker.catalog_gauges import GaugeReader
from holdfast.gateway.worker.key_records import KeyRecords
from holdfast.gateway.worker.local_stop import LocalStop
from holdfast.gateway.worker.usage_writer import UsageWriter
from holdfast.hsm.faults import HsmFault, HsmUnavailable, ModuleFailed
from holdfast.hsm.pkcs11 import ckr
from holdfast.hsm.pkcs11.backend import Pkcs11Hsm
from holdfast.keys.budget import EncryptionBudget
from holdfast.protocols.xks.get_health_status import current_status
from holdfast.protocols.xks.services import Services
from holdfast.store.feed import CatalogFeed
from holdfast.store.local_stop import StopFile
from holdfast.store.memory import MemoryFile
from holdfast.store.node_log import SPOOL
from holdfast.store.nodes import Node, NodeReporter
from holdfast.store.spool import SpoolWriter
from holdfast.store.store import Catalog
from holdfast.threads import LivingThread

_PATIENCE = 1.0
"""Seconds for an HSM to start before the operator hears that it is waited for."""


@dataclass(slots=True)
class Parts:
    """Built before the event loop runs, closed after it has ended. `tls`, `health_tls`: what new connections get."""

    configuration: Configuration
    hsms: Mapping[str, Pkcs11Hsm]
    feed: CatalogFeed
    budget: EncryptionBudget
    services: Services
    event_log: EventLog
    admission: Admission
    tls: ssl.SSLContext | None
    health_tls: ssl.SSLContext | None
    key_records: KeyRecords
    local_stop: LocalStop
    usage: UsageWriter
    gauges: GaugeReader | None
    tally: Tally = field(default_factory=Tally)
    credentials_used: dict[str, float] = field(default_factory=dict)

    @classmethod
    def build(  # noqa: PLR0913 (what one process is given)
        cls,
        configuration: Configuration,
        *,
        turn_file: int,
        outlets: socket.socket | None,
        worker: int,
        place: int,
        proven: bool,
    ) -> "Parts":
        """Start everything that can be unfit to serve. `proven`: this configuration has been served.

        Raises HsmFault, CatalogError, ConfigurationError, TlsUnusable, OSError; what was started is then stopped.
        """
        with contextlib.ExitStack() as undo:
            tls, health_tls = _context(configuration.tls), _context(configuration.health_tls)
            authorization = configuration.authorization
            policies = None if authorization is None else parse_policies(authorization)
            sink = _open_sink(configuration, turn_file)
            catalog = Catalog.open(
                configuration.catalog.url,
                configuration.catalog.secrets_directory,
                reference_prefix=configuration.catalog.reference_prefix,
                now=_utc_now,
            )
            key_records = KeyRecords(
                catalog,
                lambda: feed.snapshot,
                stop=configuration.encryption_limit.stop,
                proxy_id=configuration.node_name,
                worker=place,
                on_notice=partial(say, "notice"),
                on_warning=partial(say, "warning"),
            )
            hsms = {
                name: Pkcs11Hsm(
                    resolve(table),
                    canaries=key_records.keeper(name),
                    key_stopped=partial(key_records.key_stopped, name),
                )
                for name, table in configuration.serving.items()
            }
            for hsm in hsms.values():
                undo.callback(hsm.stop)
            _start(hsms, proven=proven)
            local_stop = LocalStop(
                StopFile(configuration.catalog.stop_file),
                catalog,
                node=configuration.node_name,
                place=place,
                snapshot=lambda: feed.snapshot,
                on_alarm=partial(say, "error"),
                on_notice=partial(say, "notice"),
            )
            budget = EncryptionBudget(
                catalog, configuration.encryption_limit, monotonic=time.monotonic, on_warning=partial(say, "warning")
            )
            feed = CatalogFeed(
                catalog,
                budget,
                node=NodeReporter(
                    catalog,
                    _node(configuration),
                    place=place,
                    run=secrets.token_hex(8),
                    hsms=lambda: {
                        name: current_status(hsm.health(), time.monotonic()).value for name, hsm in hsms.items()
                    },
                    holds_back=local_stop.words,
                ),
                stale_limit=configuration.catalog.stale_limit_s,
                state=MemoryFile(configuration.catalog.state_file),
                monotonic=time.monotonic,
                on_warning=partial(say, "warning"),
                on_notice=partial(say, "notice"),
            )
            feed.start()
            local_stop.start()
            key_records.start(hsms)
            usage = UsageWriter(catalog, monotonic=time.monotonic, on_warning=partial(say, "warning"))
            usage.start()
            gauges = None
            if place == 0:
                gauges = GaugeReader(
                    catalog,
                    age_days=configuration.rotation.age_days,
                    serving=lambda: feed.snapshot,
                    monotonic=time.monotonic,
                    on_alarm=partial(say, "error"),
                    on_failure=partial(say, "warning"),
                )
                gauges.start()
            spool = _open_spool(configuration, worker)
            undo.pop_all()
        event_log = EventLog(
            sink,
            ckr_name=ckr.name,
            worker=worker,
            on_warning=partial(say, "warning"),
            required=configuration.log.required,
            spool=spool,
            outlets=None if outlets is None else OutletFeed(outlets, worker=worker),
            fail_closed=configuration.audit is not None and configuration.audit.fail_closed,
            policy_digest=None if authorization is None else authorization.digest,
        )
        event_log.start()
        credentials_used: dict[str, float] = {}

        def credential_used(access_key_id: str, at: datetime) -> None:
            feed.used(access_key_id, at)
            credentials_used[access_key_id] = at.timestamp()

        services = Services(
            snapshot=lambda: local_stop.applied(feed.snapshot),
            look_again=feed.look_again,
            is_new=key_records.is_new,
            hsms=hsms,
            budget=budget,
            credential_used=credential_used,
            clock=time.monotonic,
            now=_utc_now,
            deadline=configuration.server.deadline_ms / 1000,
            policies=policies,
            require_record=event_log.require if configuration.needs_records else lambda: None,
        )
        admission = Admission(configuration.server.deadline_ms / 1000, clock=time.monotonic)
        return cls(
            configuration,
            hsms,
            feed,
            budget,
            services,
            event_log,
            admission,
            tls,
            health_tls,
            key_records,
            local_stop,
            usage,
            gauges,
            credentials_used=credentials_used,
        )

    @property
    def threads(self) -> tuple[LivingThread, ...]:
        """Those without which the worker cannot serve for long."""
        return *self.feed.threads, self.event_log.thread, self.key_records.thread, *self.local_stop.threads

    def refresh_tls(self) -> None:
        """New connections get the certificate as it is on disk now; an unusable one is reported and ignored."""
        try:
            self.tls = _context(self.configuration.tls)
            self.health_tls = _context(self.configuration.health_tls)
        except TlsUnusable as error:
            say("warning", f"the new TLS files are not used: {error}")

    def stop_keys(self, stopped: Mapping[str, StoppedKeys]) -> None:
        """Encrypt no more with keys that other workers have stopped."""
        for name, keys in stopped.items():
            for key, reason in keys.items():
                if name in self.hsms:
                    self.hsms[name].stop_key(key, reason)
                    # The worker that saw it may be gone before it could write.
                    self.key_records.key_stopped(name, key, reason)

    def reload_keys(self) -> None:
        """Let the HSMs see keys that were made after the start."""
        for hsm in self.hsms.values():
            hsm.reload_keys()

    def close(self) -> None:
        """Stop in the order in which requests use the parts."""
        for hsm in self.hsms.values():
            hsm.stop()
        self.key_records.stop()
        self.local_stop.stop()
        self.usage.stop()
        if self.gauges is not None:
            self.gauges.stop()
        self.feed.stop()
        self.event_log.close()


def _open_sink(configuration: Configuration, turn_file: int) -> LogSink:
    """Raises ConfigurationError."""
    try:
        return LogSink(configuration.log.events, turn_file=turn_file)
    except OSError as error:
        text = (
            f"`events` in [log]: {configuration.log.events} cannot be opened to append to it: {error.strerror}; "
            "its directory must exist, and the service's user must be able to write there"
        )
        raise ConfigurationError(str(configuration.path), (Problem(None, text),)) from None


def _open_spool(configuration: Configuration, worker: int) -> AuditSpool | None:
    """Raises ConfigurationError."""
    audit = configuration.audit
    if audit is None:
        return None
    stream = f"{_utc_now():%Y%m%dT%H%M%SZ}-{worker}-{secrets.token_hex(4)}"
    try:
        writer = SpoolWriter(audit.directory / SPOOL, stream, age=audit.interval_s, monotonic=time.monotonic)
    except OSError as error:
        text = (
            f"`directory` in [audit]: {audit.directory / SPOOL} cannot be written: {error.strerror}; "
            "the service's user must be able to make files there"
        )
        raise ConfigurationError(str(configuration.path), (Problem(None, text),)) from None
    return AuditSpool(writer, on_warning=partial(say, "warning"))


def _context(settings: Tls | None) -> ssl.SSLContext | None:
    """Raises TlsUnusable."""
    return None if settings is None else build_context(settings, now=_utc_now)


def _start(hsms: Mapping[str, Pkcs11Hsm], *, proven: bool) -> None:
    """Start the HSMs. Raises HsmFault if no HSM starts, or if the failure cannot clear by itself.

    When a worker is replaced, a lost HSM must not stop the keys of the others. In a new configuration a token that is
    not found is a mistake.
    """
    passing = (HsmUnavailable, ModuleFailed) if proven else (HsmUnavailable,)
    lost: dict[str, HsmFault] = {}
    for name, hsm in hsms.items():
        waiting = Timer(
            _PATIENCE, say, ("notice", f"waiting for the HSM {name}: its library, token or login takes long")
        )
        waiting.daemon = True
        waiting.start()
        try:
            hsm.start()
        except passing as fault:
            lost[name] = fault
            if len(lost) == len(hsms):
                raise
        finally:
            waiting.cancel()
    for name, reason in lost.items():
        say("warning", f"the HSM {name} is lost, and its keys fail until it is back: {reason.message}")
        hsms[name].start_when_back(reason)


def _node(configuration: Configuration) -> Node:
    return Node(
        configuration.node_name,
        site=configuration.node.site,
        workers=configuration.server.workers,
        lease=configuration.catalog.stale_limit_s,
    )


def _utc_now() -> datetime:
    return datetime.now(UTC)
