"""The result of a drill, kept as a change: who has looked, when, and what was there."""

from hashlib import sha256
from typing import Any, ClassVar, Final

import msgspec

from holdfast.audit.records import Effect
from holdfast.control.action import Action
from holdfast.control.drills import Drilled
from holdfast.control.explanations import Explanation, Usage
from holdfast.store.drills import OPENED, Found, record_drill
from holdfast.store.reads import Reading
from holdfast.store.transaction import Transaction

_MOST_NAMES: Final = 50
"""Generations that did not open, by name in the record; the digest covers all."""


class RecordDrill(Action, frozen=True, kw_only=True, tag="key drill"):
    """A drill of the token `token_serial` in `hsm`."""

    in_snapshot: ClassVar[bool] = False
    hsm: str
    token_serial: str
    results: tuple[Drilled, ...]

    def subject(self) -> str:
        """The HSM."""
        return f"hsm {self.hsm}"

    def keystores(self) -> tuple[str, ...] | None:
        """Those of the generations."""
        return tuple(sorted({one.keystore for one in self.results}))

    def effects(self, state: Reading) -> tuple[Effect, ...]:  # noqa: ARG002 (nothing was there before)
        """How many opened, and which not."""
        failed = [f"{one.name}: {one.outcome}" for one in self.results if one.outcome != OPENED]
        found = {
            "token_serial": self.token_serial,
            "opened": len(self.results) - len(failed),
            "failed": len(failed),
            "not_opened": failed[:_MOST_NAMES],
            "results_sha256": sha256(msgspec.json.encode(self.results)).hexdigest(),
        }
        return (Effect(subject=f"drill of {self.subject()}", after=found),)

    def explain(self, state: Reading, usage: Usage) -> Explanation:  # noqa: ARG002 (no key is touched)
        """What was found."""
        (effect,) = self.effects(state)
        return Explanation(
            f"Keep the result of a drill of [hsm.{self.hsm}]:",
            (f"opened: {effect.after['opened']}, not opened: {effect.after['failed']}",),
        )

    def apply(self, transaction: Transaction, prepared: Any) -> None:  # noqa: ARG002 (nothing is)
        """Keep it, of the generations that there still are."""
        rows = {
            (row.keystore, row.external_key_id, row.generation): row.generation_id for row in transaction.keys(None)
        }
        names = ((one, rows.get((one.keystore, one.key, one.generation))) for one in self.results)
        found = [Found(number, one.outcome, one.detail) for one, number in names if number is not None]
        record_drill(transaction, self.hsm, self.token_serial, found)
