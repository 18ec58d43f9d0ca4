"""What `holdfast.store.gauges` finds: without the database's code, for a process that only hears of it.

Times are seconds since 1970.
"""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class NodeGauges:
    """A node that runs, or may still serve. `lease_ends`: when it blocks all if nothing more is heard of it."""

    lease_ends: float
    version: int


@dataclass(slots=True)
class KeystoreGauges:
    """Of one keystore. `oldest_active`: when the generation that encrypts for longest became active; 0: none did.

    `overdue`: keys whose active generation is past its originator-usage period. `unused`: enabled keys that nobody
    has asked for in 90 days. `several_kms_keys`: keys that are not pinned and that more than one KMS key has used.
    """

    blocked: bool = False
    keys: Counter[str] = field(default_factory=Counter)
    generations: Counter[str] = field(default_factory=Counter)
    oldest_active: float = 0.0
    overdue: int = 0
    unused: int = 0
    several_kms_keys: int = 0


@dataclass(frozen=True, slots=True)
class CatalogGauges:
    """The catalog as of one look, at `at`. `approvals`: changes that wait for approval.

    `unlogged`: records that no control log has yet, and the time of the oldest. `unexplained`: entries that no record
    explains.
    """

    at: float
    version: int
    keystores: dict[str, KeystoreGauges]
    nodes: dict[str, NodeGauges]
    approvals: int
    unlogged: int
    oldest_unlogged: float
    unexplained: int = 0
