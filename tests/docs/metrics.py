"""What /metrics offers, taken from the collector itself."""

from dataclasses import dataclass, fields, replace

from holdfast.gateway.observe.messages import (
    HsmReport,
    KeyCount,
    OutletReport,
    OutletsReport,
    Report,
    SealerReport,
    ThreadReport,
)
from holdfast.gateway.observe.metrics import Fleet, FleetCollector
from holdfast.gateway.observe.tally import Tally
from holdfast.hsm.port import HsmGauges
from holdfast.protocols.xks.event import Event
from holdfast.store.gauge_values import CatalogGauges, KeystoreGauges, NodeGauges

_SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}


@dataclass(frozen=True, slots=True)
class Family:
    """A metric as documented: its type and its labels, without a histogram's `le`."""

    type: str
    labels: frozenset[str]


def families() -> dict[str, Family]:
    """Every metric by its name in PromQL; of a histogram without _bucket, _sum and _count."""
    found = {}
    for metric in FleetCollector(_fleet(), now=lambda: 0.0).collect():
        labels = frozenset(label for sample in metric.samples for label in sample.labels) - {"le"}
        name = f"{metric.name}_total" if metric.type == "counter" else metric.name
        found[name] = Family(metric.type, labels)
    return found


def series() -> set[str]:
    """Every name that a query may use."""
    return {
        name.removesuffix("_total") + suffix if family.type == "counter" else name + suffix
        for name, family in families().items()
        for suffix in _SUFFIXES[family.type]
    }


def _fleet() -> Fleet:
    """One of everything, so that each metric has a sample with its labels."""
    tally = Tally()
    tally.add(Event())
    report = Report(
        rows=tally.rows(),
        connections=1,
        authenticated=1,
        handshakes=1,
        places=1,
        counts={(name, "source"): 1 for name in ("handshakes_failed", "connections_refused", "connections_ended")},
        in_flight=1,
        event_lines_lost=1,
        catalog_age=0.1,
        hsms=[HsmReport("main", "ACTIVE", {field.name: 1.0 for field in fields(HsmGauges)})],
        encryptions=[KeyCount("demo", "demo-key", 1, 1)],
        credentials_used={"A" * 20: 1.0},
        credentials_unreadable={"demo": 0},
        threads=[ThreadReport("event-log", 0, well=True)],
    )
    gauges = CatalogGauges(
        at=1.0,
        version=1,
        keystores={"demo": KeystoreGauges(oldest_active=1.0)},
        nodes={"madrid-1": NodeGauges(lease_ends=1.0, version=1)},
        approvals=1,
        unlogged=1,
        oldest_unlogged=1.0,
        unexplained=1,
    )
    fleet = Fleet()
    fleet.reports[0] = replace(report, catalog=gauges)
    fleet.certificate_expires = 1.0
    fleet.sealer = SealerReport(at=1.0)
    outlet = OutletReport("siem", connected=True, sent=1, lost=1, waiting=1, trouble=None)
    fleet.outlets = OutletsReport(at=1.0, outlets=(outlet,))
    fleet.policy_digest = "0" * 16
    fleet.encryption_limits.update(warn=1)
    return fleet
