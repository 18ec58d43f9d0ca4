"""What becomes of a generation that does not encrypt any more: out of use for a while, or for good."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any, ClassVar, Final

from holdfast.audit.records import Effect
from holdfast.control.action import Installation
from holdfast.control.actions.rotation import OfKey
from holdfast.control.drills import require_gone
from holdfast.control.errors import Conflict, NotFound
from holdfast.control.explanations import Explanation, Usage, moment
from holdfast.control.usage import demand_for
from holdfast.keys.states import NotAllowed, Standing, Step, after
from holdfast.store import rotation
from holdfast.store.drills import AttestedRow, attest, drilled
from holdfast.store.reads import KeyRow, Reading
from holdfast.store.transaction import Transaction

QUIET: Final = 30
"""Days in which nobody has asked for a generation that is to be destroyed (decision 0028)."""
SHORTEST: Final = 7
LONGEST: Final = 3650
"""Days of a waiting period before a destruction."""


class _OfGeneration(OfKey, frozen=True, kw_only=True):
    step: ClassVar[Step]
    inverse: ClassVar[str | None] = None
    """The command that undoes it, after `key generation`."""
    means: ClassVar[tuple[str, ...]]
    takes_away: ClassVar[bool] = False
    """Ciphertexts that opened do not open afterwards, so the plan says who asked for them."""
    generation: int

    def row(self, state: Reading) -> KeyRow:
        """The generation's. Raises NotFound."""
        for row in self.generations(state):
            if row.generation == self.generation:
                return row
        raise NotFound(
            f"the key {self.key} has no generation {self.generation}",
            hint=f"`holdfast key show {self.keystore} {self.key}` shows its generations.",
        )

    def effects(self, state: Reading) -> tuple[Effect, ...]:
        """The state that it comes into. Raises NotFound, Conflict."""
        row = self.row(state)
        standings = {
            one.generation: Standing(one.state, compromised=one.compromised_at is not None)
            for one in self.generations(state)
        }
        try:
            new = after(self.step, self.generation, standings)[self.generation]
        except NotAllowed as reason:
            raise Conflict(
                str(reason), hint=f"`holdfast key show {self.keystore} {self.key}` shows the states."
            ) from None
        more = {"compromised": True} if self.step is Step.COMPROMISE else {}
        return (self.effect(row, new.state, **more),)

    def explain(self, state: Reading, usage: Usage) -> Explanation:
        """What it means for ciphertexts of this generation."""
        row = self.row(state)
        what = f"{self.step.capitalize()} generation {row.generation} of the key {self.key}"
        return Explanation(
            f"{what} of the keystore {self.keystore!r} ({usage.last_use(self.keystore)}):",
            (
                f"HSM key {row.label!r} in [hsm.{row.hsm}], {row.state} since {row.state_since:%Y-%m-%d %H:%M} UTC",
                *(demand_for(state, row).lines() if self.takes_away else ()),
            ),
            self.means,
        )

    def apply(self, transaction: Transaction, prepared: Any) -> None:  # noqa: ARG002 (most need nothing)
        """Take the step."""
        rotation.take_step(transaction, self.row(transaction).generation_id, self.step)

    def undo(self, effects: Sequence[Effect]) -> str | None:  # noqa: ARG002 (its number says it)
        """The inverse, where there is one."""
        if self.inverse is None:
            return None
        return f"key generation {self.inverse} {self.keystore} {self.key} {self.generation}"


class SuspendGeneration(_OfGeneration, frozen=True, kw_only=True, tag="key generation suspend"):
    """Its ciphertexts are refused until it is resumed: whoever still needs them is heard of."""

    stops: ClassVar[bool] = True
    step: ClassVar[Step] = Step.SUSPEND
    inverse: ClassVar[str | None] = "resume"
    takes_away: ClassVar[bool] = True
    means: ClassVar[tuple[str, ...]] = (
        "Within a second what it has encrypted is refused with InvalidStateException; the event log names who asked.",
        "Other generations are not affected, and nothing is deleted.",
    )


class ResumeGeneration(_OfGeneration, frozen=True, kw_only=True, tag="key generation resume"):
    """It decrypts again."""

    step: ClassVar[Step] = Step.RESUME
    inverse: ClassVar[str | None] = "suspend"
    means: ClassVar[tuple[str, ...]] = ("Within a second what it has encrypted opens again.",)


class CompromiseGeneration(_OfGeneration, frozen=True, kw_only=True, tag="key generation compromise"):
    """Somebody else may have the HSM key: it never encrypts again."""

    stops: ClassVar[bool] = True
    step: ClassVar[Step] = Step.COMPROMISE
    means: ClassVar[tuple[str, ...]] = (
        "It never encrypts again, and this cannot be undone.",
        "What it has encrypted opens, so that `aws kms re-encrypt` can bring it under the active generation.",
    )


class PlanDestruction(_OfGeneration, frozen=True, kw_only=True, tag="key generation destroy"):
    """After `days` it may be destroyed; until then it can be kept. `despite_use`: also if it is still asked for."""

    step: ClassVar[Step] = Step.PLAN_DESTRUCTION
    inverse: ClassVar[str | None] = "keep"
    takes_away: ClassVar[bool] = True
    means: ClassVar[tuple[str, ...]] = (
        "What it has encrypted stays refused, and can be made readable again until the waiting period is over.",
        "Then delete the key in the HSM and its backups, and confirm it: `holdfast key generation destroyed`.",
    )
    days: int
    despite_use: bool = False

    def effects(self, state: Reading) -> tuple[Effect, ...]:
        """The state, and how long it waits.

        Raises Conflict for another waiting period than 7 to 3650 days, and for a generation that is asked for.
        """
        if not SHORTEST <= self.days <= LONGEST:
            raise Conflict(f"a waiting period has {SHORTEST} to {LONGEST} days", hint="Choose --days in between.")
        (effect,) = super().effects(state)
        asked = demand_for(state, self.row(state)).last_asked
        if not self.despite_use and asked is not None and state.now - asked < timedelta(days=QUIET):
            raise Conflict(
                f"what generation {self.generation} has encrypted was asked for {moment(asked, state.now)},"
                f" within the last {QUIET} days",
                hint=f"`holdfast key usage {self.keystore} {self.key}` shows who asked. --despite-use goes on all the"
                " same: their data can then never be read again.",
            )
        return (Effect(subject=effect.subject, before=effect.before, after={**effect.after, "days": self.days}),)

    def apply(self, transaction: Transaction, prepared: Any) -> None:  # noqa: ARG002 (nothing is)
        """Begin to wait."""
        rotation.plan_destruction(transaction, self.row(transaction).generation_id, days=self.days)


class KeepGeneration(_OfGeneration, frozen=True, kw_only=True, tag="key generation keep"):
    """It is not destroyed after all."""

    step: ClassVar[Step] = Step.KEEP
    means: ClassVar[tuple[str, ...]] = ("It is suspended again, and can be resumed.",)


class ConfirmDestruction(_OfGeneration, frozen=True, kw_only=True, tag="key generation destroyed"):
    """No HSM has the key any more, which is looked at. `gone`: tokens that a person says do not exist any more."""

    step: ClassVar[Step] = Step.DESTROY
    takes_away: ClassVar[bool] = True
    means: ClassVar[tuple[str, ...]] = (
        "What it has encrypted can never be read again. Its row stays, as evidence.",
        "Every HSM of the configuration is looked at, the standby ones too; backups are not.",
        "While a backup has the key (on nShield its file, while the Security World exists), it can come back.",
    )
    gone: tuple[str, ...] = ()

    def effects(self, state: Reading) -> tuple[Effect, ...]:
        """The state, and what is only stated."""
        (effect,) = super().effects(state)
        if not self.gone:
            return (effect,)
        after = {**effect.after, "stated_gone": sorted(self.gone)}
        return (Effect(subject=effect.subject, before=effect.before, after=after),)

    def prepared(
        self,
        installation: Installation,
        given: Any,  # noqa: ARG002 (no secret)
    ) -> AbstractContextManager[tuple[AttestedRow, ...]]:
        """What was looked at, and does not have the key. Raises HsmRefused, HsmFault."""
        with installation.catalog.reading() as state:
            row = self.row(state)
            known = [one for one in drilled(state) if one.generation_id == row.generation_id]
        return nullcontext(require_gone(installation.configuration, row, known, self.gone, now=installation.now))

    def apply(self, transaction: Transaction, prepared: Any) -> None:
        """Take the step, and keep what was looked at."""
        super().apply(transaction, prepared)
        attest(transaction, prepared)

    def evidence(self, prepared: Any) -> tuple[Effect, ...]:
        """Each token that was looked at."""
        looked = [
            {
                "hsm": look.hsm,
                "token_serial": look.token_serial,
                "label": look.label,
                "cka_id": None if look.cka_id is None else look.cka_id.hex(),
                "time": None if look.looked_at is None else f"{look.looked_at:%Y-%m-%dT%H:%M:%SZ}",
            }
            for look in prepared
        ]
        subject = f"absence of {self.subject()} generation {self.generation}"
        return (Effect(subject=subject, after={"looked_at": looked}),)
