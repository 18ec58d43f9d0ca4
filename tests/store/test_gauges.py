"""What metrics say of the catalog, on both databases."""

from datetime import timedelta

import msgspec
from sqlalchemy import update
from tests.administered import Catalog
from tests.store.conftest import now

from holdfast.store import schema
from holdfast.store.gauges import look
from holdfast.store.nodes import Node, WorkerState
from holdfast.xks.types import ExternalKeyId, KeyStatus, UriPathPrefix


def filled(catalog: Catalog) -> None:
    """A keystore with two keys, of which one is disabled."""
    catalog.create_keystore("prod", UriPathPrefix.parse("/prod"))
    for name in ("one", "two"):
        catalog.register_key("prod", ExternalKeyId.parse(name), hsm="main", label=name)
    catalog.set_key_status("prod", ExternalKeyId.parse("two"), KeyStatus.DISABLED)


def test_keys_and_generations_are_counted_by_status_and_state(catalog: Catalog) -> None:
    filled(catalog)
    gauges = look(catalog, now=now()).keystores["prod"]
    assert (gauges.blocked, gauges.keys) == (False, {"ENABLED": 1, "DISABLED": 1})
    assert gauges.generations == {"active": 2}
    assert gauges.oldest_active > 0


def test_a_keystore_that_was_blocked_for_a_time_is_open_afterwards(catalog: Catalog) -> None:
    filled(catalog)
    catalog.set_blocked("prod", blocked=True, until=now() + timedelta(hours=1))
    assert look(catalog, now=now()).keystores["prod"].blocked
    assert not look(catalog, now=now() + timedelta(hours=2)).keystores["prod"].blocked


def test_a_key_is_overdue_once_its_originator_usage_period_is_over(catalog: Catalog) -> None:
    filled(catalog)
    with catalog._writing() as connection:
        key = schema.external_keys
        connection.execute(update(key).where(key.c.external_key_id == "one").values(originator_days=30))
    assert look(catalog, now=now() + timedelta(days=29)).keystores["prod"].overdue == 0
    later = now() + timedelta(days=31)
    assert look(catalog, now=later).keystores["prod"].overdue == 1
    # The other key has no period of its own.
    assert [look(catalog, now=later, age_days=days).keystores["prod"].overdue for days in (30, 32)] == [2, 1]


def test_a_request_for_approval_counts_until_it_expires(catalog: Catalog) -> None:
    plan = msgspec.json.encode({"expires": now() + timedelta(hours=24)}).decode()
    with catalog.change() as transaction:
        transaction.open_request("1", plan)
        transaction.open_request("2", "no plan")
    assert look(catalog, now=now()).approvals == 1
    assert look(catalog, now=now() + timedelta(hours=25)).approvals == 0


def test_a_node_is_there_as_long_as_it_may_serve(catalog: Catalog) -> None:
    node = Node("madrid-1", site=None, workers=1, lease=300.0)
    catalog.heartbeat(node.name, node.workers)
    catalog.report_worker(node, 0, WorkerState(7, {}, None), run="1", first=True)
    found = look(catalog, now=now()).nodes["madrid-1"]
    (row,) = catalog.nodes()
    assert (found.version, found.lease_ends) == (7, row.seen.timestamp() + 300.0)
    assert look(catalog, now=now() + timedelta(minutes=10)).nodes == {}


def test_records_wait_for_the_control_log(catalog: Catalog) -> None:
    filled(catalog)
    gauges = look(catalog, now=now())
    assert gauges.unlogged > 0
    assert gauges.oldest_unlogged == catalog.changes()[0].time.timestamp()
    catalog.mark_logged([row.number for row in catalog.changes()])
    assert (look(catalog, now=now()).unlogged, look(catalog, now=now()).oldest_unlogged) == (0, 0.0)
