"""A node that is gone: whoever knows it says so, and nobody waits for it any more."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from tests.administered import Catalog
from tests.control.conftest import Clock

from holdfast.control.actions.nodes import ForgetNode
from holdfast.control.errors import Conflict, NotFound
from holdfast.control.runner import Control
from holdfast.store.nodes import Node, WorkerState

As = Callable[[str], Control]


@pytest.fixture(autouse=True)
def silent(catalog: Catalog) -> None:
    """A node that reports once."""
    catalog.heartbeat("north")
    catalog.report_worker(Node("north", None, 1, lease=300), 0, WorkerState(1, {}, None), run="1", first=True)


def test_a_node_that_is_forgotten_is_gone_and_who_said_so_is_recorded(
    catalog: Catalog, as_: As, clock: Clock
) -> None:
    clock.now += timedelta(seconds=61)
    before = catalog.version()
    as_("alice").do(ForgetNode(node="north"), reason="its machine burnt")
    assert (catalog.nodes(), catalog.version()) == ([], before)
    change = catalog.changes(latest=1)[0].change
    assert change is not None
    assert (change.actor.name, change.reason, change.subject) == ("alice", "its machine burnt", "node north")


def test_a_node_that_was_heard_of_a_moment_ago_is_not_forgotten(catalog: Catalog, as_: As, clock: Clock) -> None:
    clock.now += timedelta(seconds=59)
    with pytest.raises(Conflict, match="was heard of 59 s ago: it runs"):
        as_("alice").do(ForgetNode(node="north"))
    assert [node.name for node in catalog.nodes()] == ["north"]


def test_a_node_that_is_not_there_cannot_be_forgotten(as_: As) -> None:
    with pytest.raises(NotFound, match="there is no node 'south'"):
        as_("alice").do(ForgetNode(node="south"))
