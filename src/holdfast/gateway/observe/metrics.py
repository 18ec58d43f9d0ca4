"""/metrics for Prometheus: what the workers report, added up by the supervisor.

A worker's counters travel with its reports; those of a worker that has gone stay in the sums. So no request
pays for Prometheus, and no file outlives a worker.
"""

import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from holdfast._version import __version__
from holdfast.config.model import Configuration
from holdfast.gateway.observe.messages import HsmReport, OutletsReport, Report, SealerReport, StoppedKeys
from holdfast.gateway.observe.tally import EDGES, STAGES, Row, merge
from holdfast.keys.states import GenerationState
from holdfast.xks.types import HealthStatus, KeyStatus

_SILENT = 10.0
"""Seconds after which the last report of the outlets' process says nothing any more."""


@dataclass(slots=True)
class Fleet:
    """What is known of all workers. The supervisor writes it, a scrape reads it: under `lock`."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    reports: dict[int, Report] = field(default_factory=dict)
    retired: dict[tuple[str, str, str], Row] = field(default_factory=dict)
    retired_lines_lost: int = 0
    retired_counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    retired_messages_lost: int = 0
    retired_usage_lost: int = 0
    retired_left_out: int = 0
    retired_outlet_lines_lost: int = 0
    retired_thread_failures: Counter[str] = field(default_factory=Counter)
    workers_ready: int = 0
    workers_wanted: int = 0
    replaced: int = 0
    supervisor_failures: int = 0
    messages_lost: int = 0
    policy_digest: str = ""
    reloads: dict[str, int] = field(default_factory=lambda: {"applied": 0, "refused": 0})
    certificate_expires: float | None = None
    encryption_limits: dict[str, int] = field(default_factory=dict)
    sealer: SealerReport | None = None
    outlets: OutletsReport | None = None
    orphaned: dict[str, StoppedKeys] = field(default_factory=dict)
    """Stops of workers that have gone and may not have written them to the catalog."""

    def note(self, number: int, report: Report) -> tuple[list[str], dict[str, StoppedKeys]]:
        """Take a worker's report; the alarms that no other worker has reported, and the keys to stop everywhere."""
        with self.lock:
            known = self._alarms()
            stopped = self.unrecorded()
            self.reports[number] = report
            for hsm in report.hsms:
                for key in (*hsm.stopped, *hsm.recorded):
                    self.orphaned.get(hsm.name, {}).pop(key, None)
            fresh = [alarm for alarm in self._alarms() if alarm not in known]
            return fresh, {
                hsm.name: new
                for hsm in report.hsms
                if (new := {k: why for k, why in hsm.stopped.items() if k not in stopped.get(hsm.name, {})})
            }

    def unrecorded(self) -> dict[str, StoppedKeys]:
        """The keys that workers have stopped and that the catalog may not know of yet, by HSM."""
        return _by_hsm([*self._hsm_reports("stopped"), *self.orphaned.items()])

    def stopped(self) -> dict[str, StoppedKeys]:
        """The keys that do not encrypt any more, by HSM."""
        return _by_hsm([*self._hsm_reports("stopped"), *self._hsm_reports("recorded"), *self.orphaned.items()])

    def untrusted(self) -> dict[str, StoppedKeys]:
        """The keys that are refused because they did not prove themselves, by HSM."""
        return _by_hsm(self._hsm_reports("untrusted"))

    def _hsm_reports(self, kind: str) -> list[tuple[str, StoppedKeys]]:
        return [(hsm.name, getattr(hsm, kind)) for report in self.reports.values() for hsm in report.hsms]

    def _alarms(self) -> dict[str, None]:
        """Every sentence that is true of some worker now, in order."""
        stops = [
            f"ALARM: no worker encrypts with the key {key.label!r} in the HSM {name} any more: {reason}"
            for name, keys in self.stopped().items()
            for key, reason in keys.items()
        ]
        reported = [alarm for report in self.reports.values() for hsm in report.hsms for alarm in hsm.alarms]
        return dict.fromkeys([*stops, *reported])

    def note_limits(self, configuration: Configuration) -> None:
        """Show the limits and the policies of this configuration."""
        self.policy_digest = "" if configuration.authorization is None else configuration.authorization.digest
        limits = configuration.encryption_limit
        named = {"warn": limits.warn, "alarm": limits.alarm, "stop": limits.stop}
        self.encryption_limits = {name: count for name, count in named.items() if count is not None}

    def retire(self, number: int) -> None:
        """Keep the counts of a worker that has gone, forget its gauges."""
        with self.lock:
            report = self.reports.pop(number, None)
            if report is not None:
                self._keep_stops(report)
                merge(self.retired, report.rows)
                self.retired_lines_lost += report.event_lines_lost
                self.retired_counts.update(report.counts)
                self.retired_messages_lost += report.messages_lost
                self.retired_usage_lost += report.usage_lost
                self.retired_left_out += report.refusals_left_out
                self.retired_outlet_lines_lost += report.outlet_lines_lost
                self.retired_thread_failures.update({thread.name: thread.failures for thread in report.threads})

    def _keep_stops(self, report: Report) -> None:
        others = self.stopped()
        for hsm in report.hsms:
            for key, reason in hsm.stopped.items():
                if key not in others.get(hsm.name, {}):
                    self.orphaned.setdefault(hsm.name, {})[key] = reason


def _by_hsm(parts: Iterable[tuple[str, StoppedKeys]]) -> dict[str, StoppedKeys]:
    sums: dict[str, StoppedKeys] = {}
    for name, keys in parts:
        sums.setdefault(name, {}).update(keys)
    return sums


class FleetCollector(Collector):
    """Makes Prometheus's metrics of a Fleet. `now` is seconds since 1970."""

    def __init__(self, fleet: Fleet, *, now: Callable[[], float]) -> None:
        self._fleet = fleet
        self._now = now

    def collect(self) -> Iterable[Metric]:
        """Every metric, as of the last reports."""
        fleet = self._fleet
        with fleet.lock:
            reports = list(fleet.reports.values())
            rows: dict[tuple[str, str, str], Row] = {}
            merge(rows, list(fleet.retired.values()))
            for report in reports:
                merge(rows, report.rows)
            return [
                *_requests(rows.values()),
                *_hsms([hsm for report in reports for hsm in report.hsms], fleet),
                *_keys(reports, fleet),
                *_catalog(reports),
                *self._process(reports),
            ]

    def _process(self, reports: list[Report]) -> Iterator[Metric]:
        fleet = self._fleet
        yield _gauge("holdfast_connections", "Open connections.", sum(r.connections for r in reports))
        yield _gauge(
            "holdfast_connections_authenticated",
            "Connections that have signed a request.",
            sum(r.authenticated for r in reports),
        )
        yield _gauge(
            "holdfast_connection_places",
            "Connections to the main port that all workers together have room for.",
            sum(r.places for r in reports),
        )
        yield _gauge(
            "holdfast_handshakes_pending", "TLS handshakes that are not finished.", sum(r.handshakes for r in reports)
        )
        yield from _counts(reports, fleet.retired_counts)
        yield _gauge("holdfast_requests_in_flight", "Requests being answered.", sum(r.in_flight for r in reports))
        yield _gauge(
            "holdfast_catalog_age_seconds",
            "Time since the catalog last confirmed what the most outdated worker serves.",
            max((r.catalog_age for r in reports), default=0.0),
        )
        yield _gauge("holdfast_workers_ready", "Workers that answer requests.", fleet.workers_ready)
        yield _gauge("holdfast_workers_wanted", "Workers that the configuration asks for.", fleet.workers_wanted)
        lost = fleet.retired_lines_lost + sum(r.event_lines_lost for r in reports)
        yield CounterMetricFamily(
            "holdfast_event_lines_lost", "Event log lines that could not be written.", value=lost
        )
        yield CounterMetricFamily(
            "holdfast_event_refusals_left_out",
            "Refusals before authentication that were counted and have no event line.",
            value=fleet.retired_left_out + sum(r.refusals_left_out for r in reports),
        )
        yield _gauge(
            "holdfast_emergency_stop",
            "1 while `holdfast emergency stop` holds keys back on this node.",
            any(r.locally_stopped for r in reports),
        )
        yield _gauge(
            "holdfast_event_log_failing",
            "Workers that cannot write their event log at present.",
            sum(r.event_log_fails for r in reports),
        )
        yield CounterMetricFamily(
            "holdfast_workers_replaced", "Workers that died or hung and were replaced.", value=fleet.replaced
        )
        yield CounterMetricFamily(
            "holdfast_messages_lost",
            "Messages that could not be written to standard error.",
            value=fleet.messages_lost + fleet.retired_messages_lost + sum(r.messages_lost for r in reports),
        )
        yield CounterMetricFamily(
            "holdfast_usage_lost",
            "Requests that are missing from what the catalog knows of the keys' use.",
            value=fleet.retired_usage_lost + sum(r.usage_lost for r in reports),
        )
        yield CounterMetricFamily(
            "holdfast_supervisor_failures",
            "Steps of the supervisor that failed and were tried again.",
            value=fleet.supervisor_failures,
        )
        if fleet.sealer is not None:
            yield from _audit(fleet.sealer, reports, self._now())
        if fleet.outlets is not None:
            lost = fleet.retired_outlet_lines_lost + sum(r.outlet_lines_lost for r in reports)
            yield from _outlets(fleet.outlets, lost, self._now())
        yield from _threads(reports, fleet.retired_thread_failures)
        reloads = CounterMetricFamily(
            "holdfast_configuration_reloads", "Configurations loaded while running.", labels=["result"]
        )
        for result, count in fleet.reloads.items():
            reloads.add_metric([result], count)
        yield reloads
        if fleet.certificate_expires is not None:
            yield _gauge(
                "holdfast_certificate_days_left",
                "Days until the server certificate expires; negative: since it has.",
                (fleet.certificate_expires - self._now()) / 86400,
            )
        policies = GaugeMetricFamily(
            "holdfast_policies",
            "1: policies are in force, with the start of their file's SHA-256; 0: there are none.",
            labels=["sha256"],
        )
        policies.add_metric([fleet.policy_digest], bool(fleet.policy_digest))
        yield policies
        build = GaugeMetricFamily("holdfast_build_info", "The version that runs.", labels=["version"])
        build.add_metric([__version__], 1)
        yield build


def page_of(fleet: Fleet, *, now: Callable[[], float]) -> Callable[[], bytes]:
    """Makes the text of /metrics."""
    registry = CollectorRegistry()
    registry.register(FleetCollector(fleet, now=now))
    return partial(generate_latest, registry)


_COUNTERS = {
    "handshakes_failed": ("TLS handshakes that failed, by reason.", "reason"),
    "connections_refused": ("Connections that were refused when they were accepted, by reason.", "reason"),
    "connections_ended": ("Connections that were ended to make room for others, by what they were.", "state"),
}


def _counts(reports: list[Report], retired: Mapping[tuple[str, str], int]) -> Iterator[Metric]:
    totals = Counter(retired)
    for report in reports:
        totals.update(report.counts)
    for name, (text, label) in _COUNTERS.items():
        family = CounterMetricFamily(f"holdfast_{name}", text, labels=[label])
        for (counted, value), count in totals.items():
            if counted == name:
                family.add_metric([value], count)
        yield family


def _audit(sealer: SealerReport, reports: list[Report], now: float) -> Iterator[Metric]:
    """Only where there is an audit log."""
    yield _gauge("holdfast_audit_entries", "Entries of the node's audit log, signed or not.", sealer.entries)
    yield _gauge(
        "holdfast_audit_checkpoint_timestamp_seconds",
        "When the last checkpoint was signed since the proxy started; 0: not yet.",
        sealer.signed_at or 0.0,
    )
    yield _gauge(
        "holdfast_audit_cosignature_timestamp_seconds",
        "When a witness last cosigned a checkpoint since the proxy started; 0: not yet, or there is none.",
        sealer.cosigned_at or 0.0,
    )
    yield _gauge(
        "holdfast_audit_unsigned_seconds",
        "For how long something has waited to be logged and signed; also grows while the sealer says nothing.",
        max(0.0, now - min(sealer.at, sealer.waiting_since or sealer.at)),
    )
    yield _gauge(
        "holdfast_audit_failing",
        "1: the audit log cannot be written or signed, or a worker cannot spool for it.",
        sealer.trouble is not None or any(report.audit_spool_fails for report in reports),
    )
    yield CounterMetricFamily("holdfast_audit_events", "Events in segments of the audit log.", value=sealer.events)
    yield CounterMetricFamily(
        "holdfast_audit_events_lost", "Events that the audit log records as lost.", value=sealer.lost
    )
    yield CounterMetricFamily(
        "holdfast_audit_streams_cut",
        "Workers that ended without a word, so that an unknown number of their last events is lost.",
        value=sealer.cut,
    )


def _outlets(report: OutletsReport, lines_lost: int, now: float) -> Iterator[Metric]:
    """Only where there is an outlet."""
    labels = ["outlet"]
    connected = GaugeMetricFamily(
        "holdfast_outlet_connected", "1: the outlet reaches its receiver, as far as it can know.", labels=labels
    )
    waiting = GaugeMetricFamily("holdfast_outlet_messages_waiting", "Messages in the outlet's buffer.", labels=labels)
    sent = CounterMetricFamily("holdfast_outlet_messages_sent", "Messages that were handed over.", labels=labels)
    lost = CounterMetricFamily("holdfast_outlet_messages_lost", "Messages that will not be sent.", labels=labels)
    silent = now - report.at > _SILENT
    for outlet in report.outlets:
        connected.add_metric([outlet.name], outlet.connected and not silent)
        waiting.add_metric([outlet.name], outlet.waiting)
        sent.add_metric([outlet.name], outlet.sent)
        lost.add_metric([outlet.name], outlet.lost)
    yield from (connected, waiting, sent, lost)
    yield CounterMetricFamily(
        "holdfast_outlet_lines_lost",
        "Event lines that did not get from a worker to the process of the outlets.",
        value=lines_lost,
    )
    yield _gauge(
        "holdfast_outlet_changes_failing",
        "1: changes cannot be read from the catalog for the outlets, or their process is silent.",
        silent or report.trouble is not None,
    )


def _threads(reports: list[Report], retired_failures: Mapping[str, int]) -> Iterator[Metric]:
    failures = Counter(retired_failures)
    unwell: Counter[str] = Counter()
    for report in reports:
        for thread in report.threads:
            failures[thread.name] += thread.failures
            unwell[thread.name] += not thread.well
    down = GaugeMetricFamily(
        "holdfast_threads_unwell", "Workers in which this thread has ended or keeps failing.", labels=["thread"]
    )
    restarts = CounterMetricFamily(
        "holdfast_thread_failures", "Times that a thread failed and was restarted.", labels=["thread"]
    )
    for name, count in unwell.items():
        down.add_metric([name], count)
    for name, count in failures.items():
        restarts.add_metric([name], count)
    yield down
    yield restarts


def _requests(rows: Iterable[Row]) -> Iterator[Metric]:
    labels = ["keystore", "operation"]
    requests = CounterMetricFamily(
        "holdfast_requests", "Requests by error name; empty: answered.", labels=[*labels, "error_name"]
    )
    bytes_in = CounterMetricFamily("holdfast_request_bytes", "Bytes of request bodies.", labels=labels)
    bytes_out = CounterMetricFamily("holdfast_response_bytes", "Bytes of response bodies.", labels=labels)
    latency = HistogramMetricFamily(
        "holdfast_request_seconds",
        "Time from a request's first byte to its answer, and its parts. KMS gives up at 0.25.",
        labels=[*labels, "stage"],
    )
    sums: dict[tuple[str, str, str], Row] = {}
    for row in rows:
        requests.add_metric([row.keystore, row.operation, row.error_name], row.requests)
        merge(sums, [Row(row.keystore, row.operation, "", row.buckets, row.seconds, 0, row.bytes_in, row.bytes_out)])
    for row in sums.values():
        where = [row.keystore, row.operation]
        bytes_in.add_metric(where, row.bytes_in)
        bytes_out.add_metric(where, row.bytes_out)
        for stage, counts, seconds in zip(STAGES, row.buckets, row.seconds, strict=True):
            cumulative = zip([*map(str, EDGES), "+Inf"], accumulate(counts), strict=True)
            latency.add_metric([*where, stage], [(edge, float(count)) for edge, count in cumulative], seconds)
    return iter((requests, bytes_in, bytes_out, latency))


def _hsms(reports: list[HsmReport], fleet: Fleet) -> Iterator[Metric]:
    workers = GaugeMetricFamily(
        "holdfast_hsm_workers", "Workers by what their probe last found of the HSM.", labels=["hsm", "status"]
    )
    found: defaultdict[tuple[str, str], int] = defaultdict(int)
    sums: defaultdict[tuple[str, str], float] = defaultdict(float)
    for report in reports:
        for status in HealthStatus:
            found[report.name, status] += status == report.status
        for name, number in report.gauges.items():
            sums[name, report.name] += number
    for (hsm, value), count in found.items():
        workers.add_metric([hsm, value], count)
    yield workers
    unsafe = GaugeMetricFamily(
        "holdfast_hsm_unsafe_keys", "Keys that encrypt no more, because an IV was unsafe.", labels=["hsm"]
    )
    refused = GaugeMetricFamily(
        "holdfast_hsm_untrusted_keys",
        "Keys that are refused: not the registered ones, or they may leave the HSM.",
        labels=["hsm"],
    )
    stopped, untrusted = fleet.stopped(), fleet.untrusted()
    for name in {hsm for hsm, _ in found} | stopped.keys():
        unsafe.add_metric([name], len(stopped.get(name, {})))
        refused.add_metric([name], len(untrusted.get(name, {})))
    yield unsafe
    yield refused
    gauges: dict[str, GaugeMetricFamily] = {}
    for (name, hsm), number in sums.items():
        family = gauges.get(name)
        if family is None:
            family = gauges[name] = GaugeMetricFamily(
                f"holdfast_hsm_{name}", f"{name.replace('_', ' ').capitalize()}, over all workers.", labels=["hsm"]
            )
        family.add_metric([hsm], number)
    yield from gauges.values()


def _keys(reports: list[Report], fleet: Fleet) -> Iterator[Metric]:
    encryptions = GaugeMetricFamily(
        "holdfast_key_encryptions",
        "Encryptions reserved under a key generation by every proxy; NIST SP 800-38D allows 2^32.",
        labels=["keystore", "external_key_id", "generation"],
    )
    highest: dict[tuple[str, str, str], int] = {}
    used: dict[str, float] = {}
    for report in reports:
        for key in report.encryptions or ():
            where = (key.keystore, key.external_key_id, str(key.generation))
            highest[where] = max(highest.get(where, 0), key.encryptions)
        for access_key_id, at in report.credentials_used.items():
            used[access_key_id] = max(used.get(access_key_id, 0.0), at)
    for where, count in highest.items():
        encryptions.add_metric(list(where), count)
    yield encryptions
    limits = GaugeMetricFamily(
        "holdfast_key_encryption_limit", "Configured limits of encryptions per key generation.", labels=["limit"]
    )
    for name, count in fleet.encryption_limits.items():
        limits.add_metric([name], count)
    yield limits
    last_use = GaugeMetricFamily(
        "holdfast_credential_last_use_timestamp_seconds",
        "When a credential last signed a request since the proxy started.",
        labels=["access_key_id"],
    )
    for access_key_id, at in used.items():
        last_use.add_metric([access_key_id], at)
    yield last_use
    unreadable = GaugeMetricFamily(
        "holdfast_credentials_unreadable",
        "Live credentials whose secret cannot be read on this host: what they sign is refused.",
        labels=["keystore"],
    )
    worst: dict[str, int] = {}
    for report in reports:
        for keystore, count in report.credentials_unreadable.items():
            worst[keystore] = max(worst.get(keystore, 0), count)
    for keystore, count in worst.items():
        unreadable.add_metric([keystore], count)
    yield unreadable


def _catalog(reports: list[Report]) -> Iterator[Metric]:
    """What one worker of the node has last seen; every node of an installation says the same."""
    found = max((r.catalog for r in reports if r.catalog is not None), key=lambda gauges: gauges.at, default=None)
    if found is None:
        return
    yield _gauge("holdfast_catalog_version", "The catalog's version.", found.version)
    blocked = GaugeMetricFamily("holdfast_keystore_blocked", "1: the keystore is blocked.", labels=["keystore"])
    keys = GaugeMetricFamily("holdfast_keys", "External keys by status.", labels=["keystore", "status"])
    generations = GaugeMetricFamily("holdfast_key_generations", "Generations by state.", labels=["keystore", "state"])
    oldest = GaugeMetricFamily(
        "holdfast_key_oldest_activation_timestamp_seconds",
        "When the active generation that encrypts for longest became active.",
        labels=["keystore"],
    )
    overdue = GaugeMetricFamily(
        "holdfast_keys_overdue",
        "Keys whose active generation is past the originator-usage period of its cryptoperiod.",
        labels=["keystore"],
    )
    unused = GaugeMetricFamily(
        "holdfast_keys_unused", "Enabled keys that nobody was seen to ask for in 90 days.", labels=["keystore"]
    )
    several = GaugeMetricFamily(
        "holdfast_keys_with_several_kms_keys",
        "Keys that are not pinned and that more than one KMS key has used.",
        labels=["keystore"],
    )
    for name, gauges in found.keystores.items():
        blocked.add_metric([name], gauges.blocked)
        overdue.add_metric([name], gauges.overdue)
        unused.add_metric([name], gauges.unused)
        several.add_metric([name], gauges.several_kms_keys)
        if gauges.oldest_active:
            oldest.add_metric([name], gauges.oldest_active)
        for status in KeyStatus:
            keys.add_metric([name, status.value], gauges.keys[status.value])
        for state in GenerationState:
            generations.add_metric([name, state.value], gauges.generations[state.value])
    yield from (blocked, keys, generations, oldest, overdue, unused, several)
    lease = GaugeMetricFamily(
        "holdfast_node_lease_end_timestamp_seconds",
        "When a node blocks everything by itself if the catalog hears nothing more of it.",
        labels=["node"],
    )
    version = GaugeMetricFamily(
        "holdfast_node_catalog_version", "The catalog version that all workers of a node serve.", labels=["node"]
    )
    for name, node in found.nodes.items():
        lease.add_metric([name], node.lease_ends)
        version.add_metric([name], node.version)
    yield from (lease, version)
    yield _gauge("holdfast_approvals_open", "Changes that wait for approval.", found.approvals)
    yield _gauge(
        "holdfast_catalog_unexplained",
        "Entries of the catalog that were changed in the database without a record.",
        found.unexplained,
    )
    yield _gauge("holdfast_changes_unlogged", "Records of changes that no control log has yet.", found.unlogged)
    yield _gauge(
        "holdfast_changes_unlogged_timestamp_seconds",
        "The time of the oldest of them; 0: none.",
        found.oldest_unlogged,
    )


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)
