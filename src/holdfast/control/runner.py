"""The one road of a change: plan, authorize, apply and record in one transaction.

Command line, API and console plan an action, show the plan to a person, and have it carried out. Whoever reads the
record afterwards finds each change that was made, and none that was not.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from holdfast.audit.records import Actor, Approval, Change, Effect
from holdfast.config.model import Configuration
from holdfast.control.actions import AnyAction
from holdfast.control.actions.keystores import BlockKeystores, UnblockKeystores
from holdfast.control.errors import Invalid, Outdated
from holdfast.control.explanations import Explanation, Usage
from holdfast.control.plan import Plan, in_words, same
from holdfast.store.errors import CatalogError
from holdfast.store.records import APPLIED, new_change_id
from holdfast.store.store import Catalog

_MOST_CHARACTERS = 500
"""Of a reason or a ticket."""


@dataclass(frozen=True, slots=True)
class Done:
    """A change that was made. Without `effects` nothing was left to do, and there is no record.

    `version` is the catalog's since then; None where it has none. `recorded` False: the catalog could not keep the
    record of this stop.
    """

    id: str
    version: int | None
    effects: tuple[Effect, ...]
    recorded: bool = True


@dataclass(frozen=True, slots=True)
class Control:
    """Changes one catalog in the name of one actor."""

    configuration: Configuration
    catalog: Catalog
    actor: Actor
    now: Callable[[], datetime]

    def plan(self, action: AnyAction, *, reason: str = "", ticket: str = "") -> Plan:
        """What the action would alter now. Raises CatalogError, AdminError."""
        for name, text in (("reason", reason), ("ticket", ticket)):
            if len(text) > _MOST_CHARACTERS or not text.isprintable():
                raise Invalid(f"a {name} has at most {_MOST_CHARACTERS} printable characters, in one line")
        with self.catalog.reading() as state:
            effects, version = action.effects(state), state.version()
        return Plan(
            id=new_change_id(),
            action=action,
            actor=self.actor,
            effects=effects,
            version=version,
            time=self.now(),
            reason=reason,
            ticket=ticket,
        )

    def explain(self, plan: Plan) -> Explanation:
        """What a person reads before the plan is carried out. Raises CatalogError."""
        action = plan.action
        try:
            with self.catalog.reading() as state:
                return action.explain(state, Usage(state.credentials(None), state.keys(None), self.now()))
        except CatalogError:
            # In a damaged catalog keystores can be blocked all the same.
            if not isinstance(action, BlockKeystores | UnblockKeystores):
                raise
            with self.catalog.reading() as state:
                return action.explain(state, None)

    def carry_out(self, plan: Plan) -> Done:
        """Apply the plan. Raises Outdated, CatalogError, AdminError; then nothing was changed."""
        return self._apply(plan, ())

    def do(self, action: AnyAction, *, reason: str = "") -> Done | None:
        """Plan the action and carry it out without asking a person; None: it is so already."""
        plan = self.plan(action, reason=reason)
        return self.carry_out(plan) if plan.effects else None

    def _apply(self, plan: Plan, approvals: tuple[Approval, ...]) -> Done:
        action = plan.action
        try:
            with (
                action.prepared(self) as prepared,
                self.catalog.changing(
                    in_snapshot=action.in_snapshot, needs_version=action.needs_version
                ) as transaction,
            ):
                effects = action.effects(transaction)
                _check(plan, effects, transaction.version())
                action.apply(transaction, prepared)
                version = transaction.version()
                recorded = transaction.record(
                    Change(
                        time=self.now(),
                        id=plan.id,
                        action=action.name(),
                        subject=action.subject(),
                        actor=plan.actor,
                        outcome=APPLIED,
                        plan=plan.digest,
                        effects=effects,
                        reason=plan.reason,
                        ticket=plan.ticket,
                        approvals=approvals,
                        catalog_version=version,
                    ),
                    required=action.needs_version,
                )
        except _NothingLeft:
            return Done(plan.id, plan.version, ())
        return Done(plan.id, version, effects, recorded)


class _NothingLeft(Exception):
    """Somebody else has stopped it meanwhile; this ends the transaction without a new version."""


def _check(plan: Plan, effects: tuple[Effect, ...], version: int | None) -> None:
    """Raises Outdated if the effects are not those of the plan. A stop is applied to what there is."""
    if plan.action.stops:
        if not effects:
            raise _NothingLeft
        return
    if same(effects, plan.effects):
        return
    # The transaction has counted the version up already.
    now = "none" if version is None else version - plan.action.in_snapshot
    raise Outdated(
        f"the catalog has changed since the plan was made: version {plan.version} -> {now}."
        f" Planned was: {'; '.join(in_words(plan.effects)) or 'nothing'}."
        f" It would be now: {'; '.join(in_words(effects)) or 'nothing'}",
        hint="Nothing was changed. Run the command again to see the plan as it is now.",
    )
