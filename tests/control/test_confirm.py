"""Where a change is in force, as nodes say it."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, cast

from holdfast.control.confirm import InForce, wait_in_force
from holdfast.store.nodes import NodeRow

if TYPE_CHECKING:
    from holdfast.store.store import Catalog

SINCE = datetime(2026, 11, 25, 12, 0, 0, tzinfo=UTC)


def node(
    name: str, version: int | None, *, seen: float = 0.0, lease: float = 5.0, holds: str | None = None
) -> NodeRow:
    """A node, last seen so many seconds before the change."""
    return NodeRow(name, None, "1", 1, version, SINCE - timedelta(seconds=seen), lease, {}, holds)


class Fleet:
    """Nodes as each look finds them; the last look is repeated. Time passes by sleeping alone."""

    def __init__(self, *looks: list[NodeRow]) -> None:
        self.looks = list(looks)
        self.time = 0.0

    def nodes(self) -> list[NodeRow]:
        """As `Catalog.nodes`."""
        return self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.time += seconds

    def wait(self, version: int, within: float = 1.0) -> InForce:
        """Wait for this version."""
        return wait_in_force(
            cast("Catalog", self),
            version,
            now=lambda: SINCE,
            monotonic=lambda: self.time,
            sleep=self.sleep,
            within=within,
        )


def test_a_change_is_in_force_once_every_node_serves_it() -> None:
    seen = Fleet([node("a", 7), node("b", 6)], [node("a", 7), node("b", 7)]).wait(7)
    assert list(seen.lines()) == ["In force on 2 of 2 nodes after 0.05 s."]


def test_a_silent_node_is_named_with_the_moment_at_which_it_stops_by_itself() -> None:
    seen = Fleet([node("a", 7), node("b", 6, seen=2)]).wait(7)
    assert [one.name for one in seen.silent] == ["b"]
    first, second = seen.lines()
    assert first == "NOT IN FORCE EVERYWHERE: confirmed on 1 of 2 nodes within 1 s."
    assert "b is silent (last seen 11:59:58 UTC)" in second
    assert "at 12:00:05 UTC at the latest" in second


def test_a_node_whose_lease_has_ended_long_ago_is_not_waited_for() -> None:
    seen = Fleet([node("a", 7), node("b", 1, seen=3600)]).wait(7)
    assert list(seen.lines()) == ["In force on 1 of 1 node after 0.00 s."]


def test_a_node_that_has_not_reported_with_all_its_workers_is_silent() -> None:
    assert Fleet([node("a", None)]).wait(7).silent


def test_without_a_node_that_is_said_and_nothing_is_waited_for() -> None:
    seen = Fleet([]).wait(7)
    assert (seen.silent, seen.seconds) == ([], 0.0)
    assert next(seen.lines()).startswith("No node is running")


def test_a_node_that_holds_back_more_is_named() -> None:
    assert list(Fleet([node("a", 7, holds="stopped here")]).wait(7).lines())[1:] == [
        "  - a holds back more than the catalog says: stopped here."
    ]
