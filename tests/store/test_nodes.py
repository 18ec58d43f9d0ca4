"""What nodes say of themselves, on both databases."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update
from tests.administered import Catalog
from tests.store.conftest import now

from holdfast._version import __version__
from holdfast.store import schema
from holdfast.store.nodes import Node, NodeReporter, NodeRow, WorkerState
from holdfast.store.use import live_nodes

NODE = Node("madrid-1", site="madrid", workers=2, lease=5.0)


def report(catalog: Catalog, place: int, version: int, **changed: Any) -> None:
    """A first report of a worker, whose run is named after its place."""
    state = WorkerState(version, changed.pop("hsms", {"main": "ACTIVE"}), changed.pop("holds_back", None))
    given = {"run": f"run-{place}", "first": True, **changed}
    catalog.heartbeat(NODE.name, NODE.workers)
    catalog.report_worker(NODE, place, state, **given)


def only(catalog: Catalog) -> NodeRow:
    """The one node."""
    (node,) = catalog.nodes()
    return node


def test_a_node_serves_the_lowest_version_of_its_workers(catalog: Catalog) -> None:
    report(catalog, 0, 7)
    assert only(catalog).version is None  # the other worker has said nothing
    report(catalog, 1, 5)
    node = only(catalog)
    assert (node.name, node.site, node.holdfast, node.lease, node.version) == (
        "madrid-1",
        "madrid",
        __version__,
        5.0,
        5,
    )
    assert [node.serves(version) for version in (4, 5, 6)] == [True, True, False]


def test_a_node_without_a_name_of_its_own_is_called_by_host_and_port(catalog: Catalog) -> None:
    node = Node("vm.example.com:8443", site=None, workers=1, lease=5.0)
    catalog.heartbeat(node.name, node.workers)
    catalog.report_worker(node, 0, WorkerState(1, {}, None), run="run-0", first=True)
    assert only(catalog).name == "vm.example.com:8443"


def test_a_node_shows_the_worst_state_of_each_hsm(catalog: Catalog) -> None:
    report(catalog, 0, 1, hsms={"main": "ACTIVE", "standby": "UNAVAILABLE"})
    report(catalog, 1, 1, hsms={"main": "DEGRADED", "standby": "ACTIVE"})
    assert only(catalog).hsms == {"main": "DEGRADED", "standby": "UNAVAILABLE"}


def test_a_worker_that_drains_does_not_speak_for_its_successor(catalog: Catalog) -> None:
    report(catalog, 0, 5)
    report(catalog, 1, 5)
    report(catalog, 0, 6, run="successor")
    report(catalog, 0, 5, first=False)  # the old one
    catalog.forget_worker(NODE, run="run-0")
    report(catalog, 1, 6, first=False)
    assert only(catalog).version == 6


def test_a_node_that_ended_in_order_is_not_waited_for(catalog: Catalog) -> None:
    for place in (0, 1):
        report(catalog, place, 5)
        catalog.forget_worker(NODE, run=f"run-{place}")
    assert catalog.nodes() == []
    with catalog.reading() as state:
        leases = [row.lease_s for row in live_nodes(state.connection, now())]
    assert leases == [None], "of its last minute nothing but the minute is left"


def test_a_node_with_fewer_workers_than_before_is_judged_by_those_that_it_has(catalog: Catalog) -> None:
    report(catalog, 0, 5)
    report(catalog, 1, 4)
    one = Node(NODE.name, site=None, workers=1, lease=5.0)
    catalog.heartbeat(one.name, 1)
    catalog.report_worker(one, 0, WorkerState(6, {}, None), run="run-0", first=False)
    assert only(catalog).version == 6


def test_a_node_may_serve_until_its_lease_has_ended(catalog: Catalog) -> None:
    report(catalog, 0, 5)
    seen = only(catalog).seen
    assert only(catalog).lives(seen + timedelta(seconds=59))
    assert not only(catalog).lives(seen + timedelta(seconds=61))


@pytest.mark.parametrize("text", ["", "[]", "{", '{"main": 1}'])
def test_states_that_somebody_wrote_by_hand_are_left_out(catalog: Catalog, text: str) -> None:
    report(catalog, 0, 5)
    with catalog._writing() as connection:
        connection.execute(update(schema.worker_reports).values(hsms=text))
    assert only(catalog).hsms == {}


def test_a_worker_reports_what_is_new_once(catalog: Catalog) -> None:
    held: list[str] = []
    reporter = NodeReporter(
        catalog, NODE, place=0, run="run", hsms=dict, holds_back=lambda: held[0] if held else None
    )
    assert reporter.news(1, None)
    reporter.report(1, None)
    assert not reporter.news(1, None)
    assert reporter.news(2, None)
    held.append("stopped here")
    assert reporter.news(1, None)
    catalog.heartbeat(NODE.name, 1)
    reporter.report(1, "its version went back")
    assert only(catalog).holds_back == "stopped here; it does not believe the catalog: its version went back"


def test_the_clock_of_the_test_is_the_catalogs(catalog: Catalog) -> None:
    report(catalog, 0, 5)
    assert only(catalog).seen <= now()
