"""Whether every node has found a generation that is to encrypt next. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NodeReadiness:
    """What one node says of a generation: how many of its workers have opened the canary, and why others have not.

    `workers` None: the node is of an older version, which knows nothing of states.
    """

    node: str
    workers: int | None
    confirmed: int
    faults: tuple[str, ...] = ()

    @property
    def is_ready(self) -> bool:
        """Whether all its workers decrypt with it."""
        return self.workers is not None and self.confirmed >= self.workers and not self.faults

    def words(self) -> str:
        """Why it is not ready, for people."""
        if self.workers is None:
            return f"{self.node} runs an older Holdfast, which does not know of states: upgrade it"
        if self.faults:
            return f"{self.node}: {self.faults[0]}"
        return f"{self.node}: {self.confirmed} of {self.workers} workers have opened its canary"


@dataclass(frozen=True, slots=True)
class Readiness:
    """What the live nodes say. None of them lives: nobody has to be waited for."""

    nodes: Sequence[NodeReadiness]

    @property
    def missing(self) -> list[NodeReadiness]:
        """The nodes that are waited for."""
        return [node for node in self.nodes if not node.is_ready]

    @property
    def is_complete(self) -> bool:
        """Whether the generation may become active."""
        return not self.missing

    def words(self) -> str:
        """`ready on 2 of 3 nodes`."""
        count = len(self.nodes)
        return f"ready on {count - len(self.missing)} of {count} node{'' if count == 1 else 's'}"
