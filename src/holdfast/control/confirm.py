"""Where a change is in force: what the nodes say, until all have said it or time is up."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from holdfast.store.nodes import NodeRow
from holdfast.store.store import Catalog

PATIENCE = 10.0
"""Seconds for nodes that answer at all: they look six times a second, and read 100,000 changed keys in some more."""
_LOOK = 0.05


@dataclass(frozen=True, slots=True)
class InForce:
    """What the nodes have confirmed of a change that was committed at `since` at the latest. `seconds`: after it."""

    nodes: tuple[NodeRow, ...]
    version: int
    since: datetime
    seconds: float

    @property
    def silent(self) -> list[NodeRow]:
        """The nodes that may still serve what was before."""
        return [node for node in self.nodes if not node.serves(self.version)]

    def lines(self) -> Iterator[str]:
        """What a person reads: the sentence, and a line for each node that needs one."""
        if not self.nodes:
            yield "No node is running: the change is in the catalog, and each node starts with it."
            return
        count = len(self.nodes)
        confirmed = f"on {count - len(self.silent)} of {count} node{'' if count == 1 else 's'}"
        if self.silent:
            yield f"NOT IN FORCE EVERYWHERE: confirmed {confirmed} within {self.seconds:.0f} s."
        else:
            yield f"In force {confirmed} after {self.seconds:.2f} s."
        for node in self.silent:
            ends = self.since + timedelta(seconds=node.lease)
            yield (
                f"  - {node.name} is silent (last seen {node.seen:%H:%M:%S} UTC). If it runs and does not hear of the"
                f" change, it blocks everything by itself at {ends:%H:%M:%S} UTC at the latest."
            )
        for node in self.nodes:
            if node.holds_back is not None:
                yield f"  - {node.name} holds back more than the catalog says: {node.holds_back}."


def wait_in_force(  # noqa: PLR0913 (clocks and patience are arguments)
    catalog: Catalog,
    version: int,
    *,
    now: Callable[[], datetime],
    monotonic: Callable[[], float],
    sleep: Callable[[float], None],
    within: float = PATIENCE,
) -> InForce:
    """Wait until every live node serves the version that was just committed. Raises CatalogError."""
    since, began = now(), monotonic()
    while True:
        nodes = tuple(node for node in catalog.nodes() if node.lives(since))
        seen = InForce(nodes, version, since, monotonic() - began)
        if not seen.silent or seen.seconds >= within:
            return seen
        sleep(_LOOK)
