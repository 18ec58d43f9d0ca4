"""Changes to what is known of nodes."""

from datetime import timedelta
from typing import Any, ClassVar, Final

from holdfast.audit.records import Effect
from holdfast.control.action import Action
from holdfast.control.errors import Conflict, NotFound
from holdfast.control.explanations import Explanation, Usage
from holdfast.store.nodes import NodeRow, nodes_of
from holdfast.store.reads import Reading
from holdfast.store.transaction import Transaction

SILENCE: Final = timedelta(seconds=60)
"""How long a node must not have been heard of. It reports six times in this time."""


class ForgetNode(Action, frozen=True, kw_only=True, tag="node forget"):
    """Nobody waits any more for a node that ended without a word: it does not serve, which the operator knows."""

    in_snapshot: ClassVar[bool] = False
    node: str

    def subject(self) -> str:
        """The node's name."""
        return f"node {self.node}"

    def keystores(self) -> tuple[str, ...] | None:
        """Every one: it may serve any."""
        return None

    def effects(self, state: Reading) -> tuple[Effect, ...]:
        """The node, as it was last heard of. Raises NotFound."""
        row = self._row(state)
        seen = f"{row.seen:%Y-%m-%dT%H:%M:%SZ}"
        return (Effect(subject=self.subject(), before={"last_seen": seen, "catalog_version": row.version}),)

    def _row(self, state: Reading) -> NodeRow:
        for row in nodes_of(state.connection):
            if row.name == self.node:
                return row
        raise NotFound(f"there is no node {self.node!r}", hint="`holdfast node list` shows all.")

    def explain(self, state: Reading, usage: Usage) -> Explanation:  # noqa: ARG002 (no key changes)
        """What is taken for granted then."""
        row = self._row(state)
        ends = row.seen + timedelta(seconds=row.lease)
        risk = (
            "Be sure that its service has ended. If it runs on, cut off from the catalog, it serves what it last read"
            f" until {ends:%H:%M:%S} UTC at least, and cannot decrypt what a new generation encrypts."
        )
        return Explanation(
            f"Forget the node {self.node}, last seen at {row.seen:%Y-%m-%d %H:%M:%S} UTC:",
            ("changes and rotations do not wait for it any more",),
            (risk,),
        )

    def apply(self, transaction: Transaction, prepared: Any) -> None:  # noqa: ARG002 (nothing is)
        """Delete its rows. Raises Conflict while it is heard of."""
        silent = transaction.now - self._row(transaction).seen
        if silent < SILENCE:
            raise Conflict(
                f"the node {self.node} was heard of {silent.total_seconds():.0f} s ago: it runs",
                hint="Stop it there. A node that ends in order is not waited for.",
            )
        transaction.forget_node(self.node)
