"""Counting requests, and what Prometheus is shown of the counts."""

from __future__ import annotations

from dataclasses import replace

from prometheus_client import CollectorRegistry, generate_latest

from holdfast.gateway.observe.messages import HsmReport, KeyCount, Report, StoppedKeys
from holdfast.gateway.observe.metrics import Fleet, FleetCollector
from holdfast.gateway.observe.tally import EDGES, STAGES, Tally
from holdfast.hsm.port import KeyLocator
from holdfast.protocols.xks.event import Event
from holdfast.xks.errors import ErrorName
from holdfast.xks.types import Operation


def report(tally: Tally, *, stopped: StoppedKeys | None = None) -> Report:
    return Report(
        rows=tally.rows(),
        connections=2,
        in_flight=1,
        event_lines_lost=3,
        catalog_age=0.5,
        hsms=[HsmReport("main", "ACTIVE", {"sessions": 4.0}, stopped or {})],
        encryptions=[KeyCount("store", "key", 1, 4096)],
        credentials_used={"A" * 20: 100.0},
    )


def tally_of(*events: Event) -> Tally:
    tally = Tally()
    for event in events:
        tally.add(event)
    return tally


def shown(fleet: Fleet) -> str:
    registry = CollectorRegistry()
    registry.register(FleetCollector(fleet, now=lambda: 1000.0))
    return generate_latest(registry).decode()


def encrypted(total: float, error: ErrorName | None = None) -> Event:
    return Event(Operation.ENCRYPT, "store", error=error, total=total, bytes_in=10, bytes_out=20)


def test_the_edges_include_the_deadline_and_the_moment_when_kms_gives_up() -> None:
    assert {0.2, 0.25} <= set(EDGES)


def test_requests_are_counted_by_error_name_and_their_times_by_edge() -> None:
    fleet = Fleet()
    fleet.reports[1] = report(tally_of(encrypted(0.2), encrypted(0.21, ErrorName.THROTTLING), encrypted(9.0)))
    text = shown(fleet)
    labels = 'keystore="store",operation="Encrypt"'
    assert f'holdfast_requests_total{{error_name="",{labels}}} 2.0' in text
    assert f'holdfast_requests_total{{error_name="ThrottlingException",{labels}}} 1.0' in text
    assert f'holdfast_request_seconds_bucket{{{labels},le="0.15",stage="total"}} 0.0' in text.replace(
        '{keystore="store",le="0.15",operation="Encrypt"', f'{{{labels},le="0.15"'
    )
    for edge, count in (("0.2", 1), ("0.25", 2), ("1.0", 2), ("+Inf", 3)):
        assert f'{{keystore="store",le="{edge}",operation="Encrypt",stage="total"}} {count}.0' in text
    assert f"holdfast_request_bytes_total{{{labels}}} 30.0" in text


def test_workers_are_added_up() -> None:
    fleet = Fleet()
    fleet.reports[1] = report(tally_of(encrypted(0.1)))
    fleet.reports[2] = report(tally_of(encrypted(0.1)))
    text = shown(fleet)
    assert 'holdfast_requests_total{error_name="",keystore="store",operation="Encrypt"} 2.0' in text
    assert 'holdfast_hsm_sessions{hsm="main"} 8.0' in text
    assert 'holdfast_hsm_workers{hsm="main",status="ACTIVE"} 2.0' in text
    assert "holdfast_connections 4.0" in text


def test_a_worker_that_has_gone_leaves_its_counts_and_takes_its_gauges() -> None:
    fleet = Fleet()
    fleet.reports[1] = report(tally_of(encrypted(0.1)))
    fleet.retire(1)
    fleet.reports[2] = report(tally_of(encrypted(0.1)))
    text = shown(fleet)
    assert 'holdfast_requests_total{error_name="",keystore="store",operation="Encrypt"} 2.0' in text
    assert "holdfast_event_lines_lost_total 6.0" in text
    assert 'holdfast_hsm_sessions{hsm="main"} 4.0' in text


def test_a_report_does_not_change_with_the_requests_that_follow_it() -> None:
    """It is sent by another thread."""
    tally = tally_of(encrypted(0.1))
    rows = tally.rows()
    tally.add(encrypted(0.1))
    assert [row.requests for row in rows] == [1]
    assert [sum(buckets) for buckets in rows[0].buckets] == [1] * len(STAGES)


STOPPED = {KeyLocator("key-1"): "the IV is all zero"}


def test_a_key_that_several_workers_have_stopped_is_one_key_and_one_alarm() -> None:
    fleet = Fleet()
    for number in (1, 2):
        alarms, stopped = fleet.note(number, report(Tally(), stopped=STOPPED))
        assert (len(alarms), stopped) == ((1, {"main": STOPPED}) if number == 1 else (0, {}))
    assert 'holdfast_hsm_unsafe_keys{hsm="main"} 1.0' in shown(fleet)


def test_a_stop_outlives_its_worker_until_another_one_has_it() -> None:
    fleet = Fleet()
    fleet.note(1, report(Tally(), stopped=STOPPED))
    fleet.retire(1)
    assert fleet.unrecorded() == {"main": STOPPED}
    assert 'holdfast_hsm_unsafe_keys{hsm="main"} 1.0' in shown(fleet)
    fleet.note(2, report(Tally(), stopped=STOPPED))
    fleet.note(2, report(Tally()))
    assert not any(fleet.unrecorded().values())
    assert not any(fleet.stopped().values())


def test_a_stop_that_the_catalog_holds_is_counted_and_not_handed_on() -> None:
    fleet = Fleet()
    recorded = report(Tally())
    recorded.hsms[0] = replace(recorded.hsms[0], recorded=STOPPED)
    alarms, stopped = fleet.note(1, recorded)
    assert (len(alarms), stopped, fleet.unrecorded()) == (1, {}, {"main": {}})
    assert 'holdfast_hsm_unsafe_keys{hsm="main"} 1.0' in shown(fleet)
    fleet.retire(1)
    assert fleet.stopped() == {}


def test_a_scrape_changes_nothing() -> None:
    fleet = Fleet()
    fleet.reports[1] = report(tally_of(encrypted(0.1)))
    fleet.retire(1)
    fleet.reports[2] = report(tally_of(encrypted(0.1)))
    assert shown(fleet) == shown(fleet)


def test_days_of_the_certificate_are_counted_down() -> None:
    fleet = Fleet(certificate_expires=1000.0 + 2 * 86400)
    assert "holdfast_certificate_days_left 2.0" in shown(fleet)
