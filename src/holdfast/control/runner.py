"""The one road of a change: authorize, plan, collect approvals where rules ask, apply and record in one transaction.

Command line, API and console plan an action, show the plan to a person, and have it carried out. Whoever reads the
record afterwards finds each change that was made, and none that was not.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from holdfast.audit.records import Actor, Approval, Change, Effect
from holdfast.config.model import Configuration
from holdfast.control.actions import AnyAction
from holdfast.control.actions.keystores import BlockKeystores, UnblockKeystores
from holdfast.control.actions.operators import known_roles
from holdfast.control.authorization import require_permitted, require_permitted_kind
from holdfast.control.errors import AdminError, Conflict, Denied, Invalid, NotFound, Outdated
from holdfast.control.explanations import Explanation, Usage
from holdfast.control.plan import Plan, in_words, require_line, same
from holdfast.control.roles import Role
from holdfast.control.rules import APPROVAL, Needed, Rules
from holdfast.control.signatures import signer
from holdfast.store.errors import CatalogError
from holdfast.store.governance import RequestRow, approvals, operators, requests, rules_of
from holdfast.store.reads import Reading
from holdfast.store.records import APPLIED, new_change_id, records_of
from holdfast.store.store import Catalog
from holdfast.store.transaction import Transaction


@dataclass(frozen=True, slots=True)
class Done:
    """A change that was made. Without `effects` nothing was left to do, and there is no record.

    `version` is the catalog's since then, which nodes confirm; None where it has none. `recorded` False: the catalog
    could not keep the record of this stop.
    """

    id: str
    version: int | None
    effects: tuple[Effect, ...]
    recorded: bool = True


@dataclass(frozen=True, slots=True)
class Pending:
    """A change that waits for approval. `missing` says whose, in words."""

    plan: Plan
    missing: str


@dataclass(frozen=True, slots=True)
class Request:
    """A change that needs or needed approval, as it stands. `outcome` None: undecided."""

    plan: Plan
    outcome: str | None
    approved_by: tuple[str, ...]
    missing: str


@dataclass(frozen=True, slots=True)
class Control:
    """Changes one catalog in the name of one actor."""

    configuration: Configuration
    catalog: Catalog
    actor: Actor
    now: Callable[[], datetime]

    def plan(self, action: AnyAction, *, reason: str = "", ticket: str = "") -> Plan:
        """What the action would alter now.

        Raises Denied, CatalogError, and Invalid without the reason or ticket that a rule asks for.
        """
        require_line("reason", reason)
        require_line("ticket", ticket)
        self._require_permitted(action)
        with self.catalog.reading() as state:
            effects, version = action.effects(state), state.version()
        rules = Rules() if action.stops else self._rules()
        for rule in rules.fitting(action):
            for name, given, asked in (("reason", reason, rule.reason), ("ticket", ticket, rule.ticket)):
                if asked and not given:
                    raise Invalid(f"the rule {rule.name!r} asks for a {name}", hint=f"Say it with --{name}.")
        now = self.now()
        return Plan(
            id=new_change_id(),
            action=action,
            actor=self.actor,
            effects=effects,
            version=version,
            time=now,
            reason=reason,
            ticket=ticket,
            expires=now + rules.expires_after if rules.needed(action) else None,
        )

    def _require_permitted(self, action: AnyAction) -> None:
        try:
            with self.catalog.reading() as state:
                require_permitted(state, self.actor, action)
        except Denied:
            raise
        except (AdminError, CatalogError, ImportError):
            # Policies that cannot be read or evaluated do not prevent a stop.
            if not action.stops:
                raise

    def _rules(self) -> Rules:
        with self.catalog.reading() as state:
            return _rules(state)

    def explain(self, plan: Plan) -> Explanation:
        """What a person reads before the plan is carried out. Raises CatalogError."""
        action = plan.action
        try:
            with self.catalog.reading() as state:
                return action.explain(state, Usage(state.credentials(None), state.keys(None), self.now()))
        except CatalogError as error:
            # What a damaged catalog cannot say of a stop does not prevent it.
            if isinstance(action, BlockKeystores | UnblockKeystores):
                with self.catalog.reading() as state:
                    return action.explain(state, None)
            if not action.stops:
                raise
            return Explanation(f"{action.name()}:", tuple(in_words(plan.effects)), (f"Use is not known: {error}",))

    def carry_out(self, plan: Plan, given: Any = None) -> Done | Pending:
        """Apply the plan, or where rules ask for it, have it wait for approval.

        Raises Outdated, CatalogError, AdminError; then nothing was changed. `given`: a secret that the action needs,
        and that no plan holds.
        """
        if plan.expires is None:
            return self._apply(plan, given)
        with self.catalog.changing(plan.id, in_snapshot=False) as transaction:
            needed = _rules(transaction).needed(plan.action)
            transaction.open_request(plan.id, plan.document.decode())
            transaction.record(self._change(plan, "requested", transaction.version()))
        return Pending(plan, _missing(needed, {}))

    def do(self, action: AnyAction, *, reason: str = "", given: Any = None) -> Done | None:
        """Plan the action and carry it out without asking a person; None: it is so already.

        Raises Conflict where rules ask for approval.
        """
        plan = self.plan(action, reason=reason)
        if not plan.effects:
            return None
        if plan.expires is not None:
            raise Conflict(
                f"`{action.name()}` needs approval here, and nobody is asked in this way",
                hint="`holdfast rules show` shows what needs approval.",
            )
        return self._apply(plan, given)

    # ---- approvals

    def requests(self, beginning: str = "", *, undecided: bool = False) -> list[Request]:
        """What waits or waited for approval."""
        with self.catalog.reading() as state:
            return [self._request(state, row) for row in requests(state, beginning, undecided=undecided)]

    def _request(self, state: Reading, row: RequestRow) -> Request:
        plan = _plan(row)
        needed = _rules(state).needed(plan.action)
        valid = self._approvers(state, plan)
        outcome = row.outcome
        if outcome is None and self._expired(plan):
            outcome = "expired"
        return Request(plan, outcome, tuple(valid), _missing(needed, valid))

    def approve(self, beginning: str, signature: str) -> Done | Pending:
        """Count a signature over the plan's digest; with the last one that is needed the change is applied.

        Raises Denied, Conflict, NotFound, Outdated: each leaves the change as it is, except that one whose effects
        are not to be had any more is over.
        """
        plan = self._undecided(beginning)
        with self.catalog.reading() as state:
            enrolled = {row.name: row for row in operators(state)}
        keys = {name: row.public_key for name, row in enrolled.items() if row.public_key is not None}
        name = signer(plan.digest, signature, keys)
        if name == plan.actor.name:
            raise Denied(
                f"{name} has asked for this change, and nobody approves a change of their own",
                hint="Another operator approves it.",
            )
        with self.catalog.changing(plan.id, in_snapshot=False) as transaction:
            needed = _rules(transaction).needed(plan.action)
            roles = {role for one in needed for way in one.ways() for role in way}
            if not roles & known_roles(enrolled[name]):
                raise Denied(
                    f"{name} is {', '.join(enrolled[name].roles)}, and this change needs {_words(needed)}",
                    hint="`holdfast operator list` shows who has which role.",
                )
            _require_undecided(transaction, plan)
            transaction.add_approval(plan.id, name, public_key=keys[name], signature=signature)
            approval = Approval(name=name, time=self.now(), signature=signature, public_key=keys[name])
            change = self._change(plan, "approved", transaction.version())
            transaction.record(
                msgspec.structs.replace(
                    change,
                    actor=Actor(name=name, known_by="ssh-signature", where=self.actor.where),
                    approvals=(approval,),
                )
            )
            missing = _missing(needed, self._approvers(transaction, plan))
        return Pending(plan, missing) if missing else self.apply(beginning)

    def apply(self, beginning: str) -> Done:
        """Apply a change that has its approvals. Raises Denied without them, Outdated, CatalogError, HsmFault."""
        plan = self._undecided(beginning)
        try:
            return self._apply(plan)
        except Outdated:
            # It can never be applied any more: what was approved is not to be had.
            self._close(plan, "refused", "the catalog has changed since the plan was made")
            raise

    def reject(self, beginning: str, reason: str) -> None:
        """End a change that waits. Raises Denied, NotFound, Conflict, Invalid."""
        plan = self._undecided(beginning)
        with self.catalog.reading() as state:
            require_permitted_kind(state, self.actor, "change reject", [])
        self._close(plan, "rejected", reason)

    def withdraw(self, beginning: str, reason: str) -> None:
        """End a change that this actor has asked for. Raises Denied, NotFound, Conflict, Invalid."""
        plan = self._undecided(beginning)
        if plan.actor.name != self.actor.name:
            raise Denied(
                f"{plan.actor.name} has asked for this change, not {self.actor.name}",
                hint="`holdfast change reject` ends a change of another person.",
            )
        self._close(plan, "withdrawn", reason)

    def _undecided(self, beginning: str) -> Plan:
        """The plan of the one request whose id begins so. Raises NotFound, Conflict if it is decided or expired."""
        with self.catalog.reading() as state:
            found = requests(state, beginning)
        if not found:
            raise NotFound(
                f"no change {beginning} waits for approval", hint="`holdfast change list --open` shows all."
            )
        if len(found) > 1:
            raise Conflict(f"{len(found)} changes begin with {beginning}", hint="Give more of its id.")
        (row,) = found
        plan = _plan(row)
        if row.outcome is not None:
            raise Conflict(f"the change {row.id} is {row.outcome} already", hint="Nothing waits for approval there.")
        if self._expired(plan):
            self._close(plan, "expired", "")
            raise Conflict(
                f"the change {row.id} has expired: nobody had approved it by {plan.expires:%Y-%m-%d %H:%M} UTC",
                hint="Ask for it again.",
            )
        return plan

    def _expired(self, plan: Plan) -> bool:
        return plan.expires is not None and self.now() >= plan.expires

    def _close(self, plan: Plan, outcome: str, reason: str) -> None:
        require_line("reason", reason)
        with self.catalog.changing(plan.id, in_snapshot=False) as transaction:
            _require_undecided(transaction, plan)
            transaction.close_request(plan.id, outcome)
            change = self._change(plan, outcome, transaction.version())
            transaction.record(msgspec.structs.replace(change, actor=self.actor, reason=reason))

    def _approvers(self, state: Reading, plan: Plan) -> dict[str, frozenset[Role]]:
        """Whose approvals count now: enrolled with the same key, and not whoever asks; with their roles."""
        enrolled = {row.name: row for row in operators(state)}
        return {
            one.operator: known_roles(enrolled[one.operator])
            for one in approvals(state, plan.id)
            if one.operator in enrolled
            and enrolled[one.operator].public_key == one.public_key
            and one.operator != plan.actor.name
        }

    def _verified(self, state: Reading, plan: Plan) -> tuple[Approval, ...]:
        """The approvals that count, each verified once more. Raises Denied."""
        valid = self._approvers(state, plan)
        found = tuple(one for one in approvals(state, plan.id) if one.operator in valid)
        for one in found:
            signer(plan.digest, one.signature, {one.operator: one.public_key})
        return tuple(
            Approval(name=one.operator, time=one.time, signature=one.signature, public_key=one.public_key)
            for one in found
        )

    # ---- applying

    def _apply(self, plan: Plan, given: Any = None) -> Done:
        action = plan.action
        approved: tuple[Approval, ...] = ()
        if plan.expires is not None:
            with self.catalog.reading() as state:
                approved = self._verified(state, plan)
        try:
            with (
                action.prepared(self, given) as prepared,
                self.catalog.changing(
                    plan.id, in_snapshot=action.in_snapshot, needs_version=action.needs_version
                ) as transaction,
            ):
                effects = action.effects(transaction)
                _check(plan, effects, transaction.version())
                if not action.stops:
                    _require_first(transaction, plan)
                    self._require_approved(transaction, plan, approved)
                action.apply(transaction, prepared)
                version = transaction.version()
                change = self._change(plan, APPLIED, version)
                whole = (*effects, *action.evidence(prepared))
                change = msgspec.structs.replace(change, effects=whole, approvals=approved)
                recorded = transaction.record(change, required=action.needs_version)
        except _NothingLeft:
            return Done(plan.id, plan.version, ())
        return Done(plan.id, version, effects, recorded)

    def _require_approved(self, transaction: Transaction, plan: Plan, approved: tuple[Approval, ...]) -> None:
        """Raises Denied unless the rules as they are now are met by those who have approved and still may."""
        needed = _rules(transaction).needed(plan.action)
        if plan.expires is None:
            if needed:
                raise Outdated(
                    f"the rules have changed since the plan was made: it needs {_words(needed)} now",
                    hint="Nothing was changed. Run the command again, and it will ask for the approval.",
                )
            return
        _require_undecided(transaction, plan)
        verified = {one.name: one.public_key for one in approved}
        valid = {name: roles for name, roles in self._approvers(transaction, plan).items() if name in verified}
        missing = _missing(needed, valid)
        if missing:
            raise Denied(f"the change {plan.id} still needs the approval of {missing}", hint="It goes on waiting.")
        transaction.close_request(plan.id, APPLIED)

    def _change(self, plan: Plan, outcome: str, version: int | None) -> Change:
        return Change(
            time=self.now(),
            id=plan.id,
            action=plan.action.name(),
            subject=plan.action.subject(),
            actor=plan.actor,
            outcome=outcome,
            plan=plan.digest,
            effects=plan.effects,
            reason=plan.reason,
            ticket=plan.ticket,
            catalog_version=version,
        )


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


def _require_first(transaction: Transaction, plan: Plan) -> None:
    """Raises Outdated for a plan that was carried out before, though its effects may be to be had once more."""
    if plan.expires is None and records_of(transaction.connection, plan.id):
        raise Outdated(
            f"the change {plan.id} was made already, and a plan is carried out once",
            hint="Nothing was changed. Run the command again to see the plan as it is now.",
        )


def _rules(state: Reading) -> Rules:
    text = rules_of(state, APPROVAL)
    return Rules() if text is None else Rules.parse(text)


def _plan(row: RequestRow) -> Plan:
    try:
        return Plan.parse(row.plan.encode())
    except (ValueError, msgspec.MsgspecError, UnicodeEncodeError):
        raise Conflict(
            f"the plan of the change {row.id} is not one that this version of Holdfast has written",
            hint="Someone changed the catalog by hand, or Holdfast was upgraded meanwhile: ask for the change again.",
        ) from None


def _require_undecided(transaction: Transaction, plan: Plan) -> None:
    found = requests(transaction, plan.id)
    if not found or found[0].outcome is not None:
        raise Conflict(f"the change {plan.id} was decided meanwhile", hint="`holdfast change show` says how.")


def _words(needed: tuple[Needed, ...]) -> str:
    return ", and ".join(map(str, needed))


def _missing(needed: tuple[Needed, ...], persons: dict[str, frozenset[Role]]) -> str:
    """What is still needed, in words; empty: nothing."""
    return _words(tuple(one for one in needed if not one.met_by(persons)))
