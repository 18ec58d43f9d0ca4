"""Changes to who may do what: operators, and the rules."""

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from holdfast.audit.records import Effect
from holdfast.control.action import Action
from holdfast.control.authorization import AUTHORIZATION, parse_policies
from holdfast.control.errors import Conflict, Invalid
from holdfast.control.explanations import Explanation, Usage
from holdfast.control.roles import Role
from holdfast.control.rules import APPROVAL, Rules
from holdfast.store.errors import NotFound
from holdfast.store.governance import OperatorRow, operators, rules_of
from holdfast.store.reads import Reading
from holdfast.store.transaction import Transaction

OPERATOR_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@-]{0,63}")
"""As a user of the operating system is called. No character that means something in a file of allowed signers."""


class _Operator(Action, frozen=True, kw_only=True):
    in_snapshot: ClassVar[bool] = False
    operator: str

    def subject(self) -> str:
        """The operator's name."""
        return f"operator {self.operator}"

    def keystores(self) -> tuple[str, ...] | None:
        """None in particular."""
        return ()


class EnrolOperator(_Operator, frozen=True, kw_only=True, tag="operator enrol"):
    """A person has these roles, and approves with this SSH key. The name is that of the operating system's user."""

    roles: tuple[Role, ...]
    public_key: str | None = None

    def effects(self, state: Reading) -> tuple[Effect, ...]:
        """Roles and key, from what to what. Raises Invalid, Conflict."""
        if not OPERATOR_NAME.fullmatch(self.operator):
            raise Invalid(f"{self.operator!r} is not the name of a user", hint="Use letters, digits, . _ @ and -.")
        enrolled = {row.name: row for row in operators(state)}
        if self.public_key is not None:
            for row in enrolled.values():
                if row.public_key == self.public_key and row.name != self.operator:
                    raise Conflict(f"this is the key of {row.name} already", hint="Two persons do not share a key.")
        before = enrolled.get(self.operator)
        after = {"roles": sorted(role.value for role in self.roles), "public_key": self.public_key}
        if before is not None and _said(before) == after:
            return ()
        _require_no_lockout(state, {**_roles(enrolled.values()), self.operator: frozenset(self.roles)})
        return (Effect(subject=self.subject(), before=None if before is None else _said(before), after=after),)

    def explain(self, state: Reading, usage: Usage) -> Explanation:  # noqa: ARG002 (no key changes)
        """What becomes possible."""
        first = () if operators(state) else ("From now on who is not enrolled can stop, and nothing else.",)
        return Explanation(
            f"Enrol the operator {self.operator}:",
            (f"roles: {', '.join(sorted(self.roles))}", f"key: {self.public_key or 'none, so no approval'}"),
            first,
        )

    def apply(self, transaction: Transaction, prepared: Any) -> None:  # noqa: ARG002 (nothing is)
        """Write the row."""
        transaction.enrol_operator(self.operator, sorted(self.roles), self.public_key)


class RemoveOperator(_Operator, frozen=True, kw_only=True, tag="operator remove"):
    """A person asks for nothing and approves nothing any more."""

    def effects(self, state: Reading) -> tuple[Effect, ...]:
        """The person. Raises NotFound, Conflict."""
        enrolled = {row.name: row for row in operators(state)}
        if self.operator not in enrolled:
            raise NotFound(f"there is no operator {self.operator!r}: `holdfast operator list` shows those there are")
        _require_no_lockout(state, _roles(row for row in enrolled.values() if row.name != self.operator))
        return (Effect(subject=self.subject(), before=_said(enrolled[self.operator])),)

    def explain(self, state: Reading, usage: Usage) -> Explanation:  # noqa: ARG002 (no key changes)
        """What becomes possible."""
        last = len(operators(state)) == 1
        return Explanation(
            f"Remove the operator {self.operator}:",
            ("what this person has approved and is not applied yet counts no more",),
            ("Nobody is enrolled then: whoever may write the catalog may do everything.",) if last else (),
        )

    def apply(self, transaction: Transaction, prepared: Any) -> None:  # noqa: ARG002 (nothing is)
        """Remove the row."""
        transaction.remove_operator(self.operator)


class SetRules(Action, frozen=True, kw_only=True, tag="rules set"):
    """Other rules for approvals (TOML) or policies for roles (Cedar). None leaves them, "" takes them away."""

    in_snapshot: ClassVar[bool] = False
    approval: str | None = None
    authorization: str | None = None

    def subject(self) -> str:
        """The rules."""
        return "rules"

    def keystores(self) -> tuple[str, ...] | None:
        """None in particular."""
        return ()

    def effects(self, state: Reading) -> tuple[Effect, ...]:
        """Each text as it was and is. Raises Invalid, Conflict."""
        persons = _roles(operators(state))
        if self.approval:
            rules = Rules.parse(self.approval)
            _require_approvable(rules, persons)
        if self.authorization:
            parse_policies(self.authorization)
        found = []
        for name, text in ((APPROVAL, self.approval), (AUTHORIZATION, self.authorization)):
            before = rules_of(state, name)
            if text is not None and (text or None) != before:
                found.append(Effect(subject=f"rules {name}", before=before, after=text or None))
        return tuple(found)

    def explain(self, state: Reading, usage: Usage) -> Explanation:  # noqa: ARG002 (no key changes)
        """What is asked from now on."""
        lines = []
        if self.approval is not None:
            rules = Rules.parse(self.approval).rule
            lines += [f"{rule.name}: {rule.approvals or 'a reason'}" for rule in rules] or [
                "no change needs approval"
            ]
        if self.authorization is not None:
            lines.append("what each role may do: " + ("other policies" if self.authorization else "as shipped"))
        return Explanation("Set the rules of changes:", tuple(lines))

    def apply(self, transaction: Transaction, prepared: Any) -> None:  # noqa: ARG002 (nothing is)
        """Write the texts."""
        for name, text in ((APPROVAL, self.approval), (AUTHORIZATION, self.authorization)):
            if text is not None:
                transaction.set_rules(name, text or None)


def _require_no_lockout(state: Reading, persons: Mapping[str, frozenset[Role]]) -> None:
    """Raises Conflict if nobody could administer or approve any more."""
    text = rules_of(state, APPROVAL)
    if not persons and text is None:
        return  # as on a fresh installation
    if not any(Role.ADMINISTRATOR in roles for roles in persons.values()):
        raise Conflict(
            "nobody would be an administrator, so nobody could change anything but stop",
            hint="Enrol an administrator first: `holdfast operator enrol NAME --role administrator --key FILE`.",
        )
    if text is not None:
        _require_approvable(Rules.parse(text), persons)


def _require_approvable(rules: Rules, persons: Mapping[str, frozenset[Role]]) -> None:
    """Raises Conflict for a rule that the persons who are enrolled could not meet, whoever of them asks."""
    for rule in rules.rule:
        if rule.approvals is not None and not any(
            rule.approvals.met_by({name: roles for name, roles in persons.items() if name != asks})
            for asks in persons
        ):
            raise Conflict(
                f"the rule {rule.name!r} asks for {rule.approvals}, and those who are enrolled are not enough",
                hint="Nobody approves a change of their own. Enrol others first: `holdfast operator enrol`.",
            )


def _roles(enrolled: Any) -> dict[str, frozenset[Role]]:
    return {row.name: known_roles(row) for row in enrolled}


def known_roles(row: OperatorRow) -> frozenset[Role]:
    """The roles of a row; a word that is none counts for nothing."""
    return frozenset(role for role in Role if role.value in row.roles)


def _said(row: OperatorRow) -> dict[str, Any]:
    return {"roles": sorted(row.roles), "public_key": row.public_key}
