"""What a role may do: Cedar policies, from the catalog or those that come with Holdfast."""

from importlib.resources import files
from typing import Any, NamedTuple

from holdfast.audit.records import Actor
from holdfast.control.action import Action
from holdfast.control.errors import Denied, Invalid
from holdfast.control.roles import Role
from holdfast.policy.faults import PoliciesInvalid
from holdfast.policy.policies import Policies
from holdfast.store.governance import OperatorRow, operators, rules_of
from holdfast.store.reads import Reading

AUTHORIZATION = "authorization"
"""The name of the policies in the catalog."""
_GROUPS = {
    "stopping": (
        "keystore block",
        "key disable",
        "key generation suspend",
        "key generation compromise",
        "change reject",
    ),
    "custody": (
        "key create",
        "key register",
        "key share",
        "key unregister",
        "key enable",
        "key rebind",
        "key release",
        "key upgrade",
        "key describe",
        "key drill",
        "key rotate prepare",
        "key rotate check",
        "key rotate activate",
        "key rotate rollback",
        "key pin",
        "key unpin",
        "key generation resume",
        "key generation destroy",
        "key generation keep",
        "key generation destroyed",
        "credential issue",
        "credential reference",
        "credential retire",
        "keystore unblock",
    ),
    "administration": (
        "keystore create",
        "keystore set",
        "keystore delete",
        "catalog import",
        "node forget",
        "catalog accept",
        "catalog revert",
        "operator enrol",
        "operator remove",
        "rules set",
    ),
}
_GROUP_OF = {action: group for group, actions in _GROUPS.items() for action in actions}
_ANYWHERE = "{ principal: Operator, resource: [Keystore, Installation] }"
SCHEMA = "\n".join(
    [
        "entity Role;",
        "entity Operator in [Role] = { name: String };",
        "entity Keystore;",
        "entity Installation;",
        *(f'action "{group}";' for group in _GROUPS),
        *(f'action "{action}" in ["{group}"] appliesTo {_ANYWHERE};' for action, group in _GROUP_OF.items()),
    ]
)
"""What policies can speak of. The resource is a keystore, or the installation for what belongs to no keystore."""


class _Question(NamedTuple):
    actor: str
    roles: tuple[str, ...]
    action: str
    keystore: str | None

    def request(self) -> dict[str, Any]:
        """As Cedar takes it."""
        return {"principal": self._principal, "action": self._action, "resource": self._resource, "context": {}}

    def entities(self) -> list[dict[str, Any]]:
        """As Cedar takes them."""
        group = {"type": "Action", "id": _GROUP_OF.get(self.action, "administration")}
        return [
            {
                "uid": self._principal,
                "attrs": {"name": self.actor},
                "parents": [{"type": "Role", "id": role} for role in self.roles],
            },
            {"uid": self._action, "attrs": {}, "parents": [group]},
            {"uid": self._resource, "attrs": {}, "parents": []},
        ]

    @property
    def _principal(self) -> dict[str, str]:
        return {"type": "Operator", "id": self.actor}

    @property
    def _action(self) -> dict[str, str]:
        return {"type": "Action", "id": self.action}

    @property
    def _resource(self) -> dict[str, str]:
        kind = "Installation" if self.keystore is None else "Keystore"
        return {"type": kind, "id": self.keystore or "holdfast"}


def shipped_policies(*, bank: bool) -> str:
    """The policies that come with Holdfast."""
    name = "bank-policies.cedar" if bank else "policies.cedar"
    return (files("holdfast.control") / "sets" / name).read_text()


def parse_policies(text: str) -> Policies:
    """Raises Invalid with every mistake."""
    try:
        return Policies.parse(text, schema=SCHEMA)
    except PoliciesInvalid as invalid:
        said = "; ".join(f"line {one.line}: {one.text}" for one in invalid.mistakes)
        raise Invalid(f"the policies cannot be read: {said}", hint="`holdfast rules show` shows a set.") from None


def roles_of(actor: Actor, enrolled: list[OperatorRow]) -> tuple[str, ...]:
    """The roles of an actor.

    Where nobody is enrolled whoever may write the catalog administers it; else who is not enrolled may stop.
    """
    if not enrolled:
        return (Role.ADMINISTRATOR.value,)
    return next((one.roles for one in enrolled if one.name == actor.name), (Role.STOPPER.value,))


def permitted_kinds(state: Reading, operator: OperatorRow) -> dict[str, list[str]]:
    """By group of actions, what the policies permit this operator somewhere. Raises Invalid."""
    policies = parse_policies(rules_of(state, AUTHORIZATION) or shipped_policies(bank=False))
    places = [None, *(row.name for row in state.keystores())]
    return {
        group: [
            action
            for action in actions
            if any(
                policies.decide(_Question(operator.name, operator.roles, action, place)).denial is None
                for place in places
            )
        ]
        for group, actions in _GROUPS.items()
    }


def require_permitted(state: Reading, actor: Actor, action: Action) -> None:
    """Raises Denied unless the policies permit each kind of the action in each keystore that it concerns."""
    names = action.keystores()
    keystores = [row.name for row in state.keystores()] if names is None else list(names)
    for kind in action.kinds():
        require_permitted_kind(state, actor, kind, keystores)


def require_permitted_kind(state: Reading, actor: Actor, kind: str, keystores: list[str]) -> None:
    """Raises Denied unless the policies permit it in each keystore, or in the installation if there is none."""
    enrolled, text = operators(state), rules_of(state, AUTHORIZATION)
    if not enrolled and text is None:
        return
    policies = parse_policies(text or shipped_policies(bank=False))
    roles = roles_of(actor, enrolled)
    places: list[str | None] = [*keystores] or [None]
    for keystore in places:
        denial = policies.decide(_Question(actor.name, roles, kind, keystore)).denial
        if denial is not None:
            where = "" if keystore is None else f" in the keystore {keystore}"
            raise Denied(
                f"{actor.name} ({', '.join(roles)}) may not do `{kind}`{where}: {denial}",
                hint="`holdfast operator list` shows who has which role, `holdfast rules show` what a role may do.",
            )
