"""What the operations need from the rest of a worker."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from holdfast.hsm.port import Hsm
from holdfast.keys.model import Generation, Snapshot
from holdfast.policy.policies import Policies


class Budget(Protocol):
    """Counts encryptions ahead of making them; `holdfast.keys.budget.EncryptionBudget` is the real one."""

    async def take(self, generation: Generation, *, deadline: float) -> None:
        """Count one encryption, before `deadline` on the clock. Raises EncryptionLimitReached or CountUnavailable."""


@dataclass(frozen=True, slots=True)
class Services:
    """`clock` is monotonic seconds, `now` the wall clock (timezone-aware), `deadline` seconds per request.

    `credential_used` is called with each access key id that signed a request. Without `policies` none is denied.
    `require_record` raises RecordUnavailable while no record of an operation on a key could be kept. `look_again`
    has the catalog read now, until a time on `clock`; whether it was. `is_new`: whether a rotation has brought a
    generation whose HSM key was not seen here yet.
    """

    snapshot: Callable[[], Snapshot]
    look_again: Callable[[float], Awaitable[bool]]
    is_new: Callable[[Generation], bool]
    hsms: Mapping[str, Hsm]
    budget: Budget
    credential_used: Callable[[str, datetime], None]
    clock: Callable[[], float]
    now: Callable[[], datetime]
    deadline: float
    policies: Policies | None = None
    require_record: Callable[[], None] = lambda: None
