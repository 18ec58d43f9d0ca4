"""Which changes need a reason, a ticket or the approval of others, and of whom: a TOML file, kept in the catalog.

    expires_after_h = 24

    [[rule]]
    name = "starting again"
    actions = ["keystore unblock", "key enable"]   # as commands are called; * stands for any words
    keystores = ["prod-*"]                         # left out: any
    reason = true
    approvals = { any = [{ role = "administrator" }, { role = "approver", count = 2 }] }

Every rule that fits is to be met. Within one rule each approval is by another person. A stop needs nobody: rules do
not apply to it, also where they name it.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from fnmatch import fnmatchcase
from importlib.resources import files
from itertools import product
from typing import Annotated

import msgspec

from holdfast.control.action import Action
from holdfast.control.errors import Invalid
from holdfast.control.roles import Role

APPROVAL = "approval"
"""The name of these rules in the catalog."""
_MOST_WAYS = 64
"""Alternative groups of approvers in one rule."""

Count = Annotated[int, msgspec.Meta(ge=1, le=8)]
Hours = Annotated[float, msgspec.Meta(gt=0, le=24 * 90)]


class Needed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose approval: `count` persons of a role, or any, or all of several such demands."""

    role: Role | None = None
    count: Count = 1
    any: "tuple[Needed, ...]" = ()
    all: "tuple[Needed, ...]" = ()

    def __post_init__(self) -> None:
        """Raises ValueError for a demand that says nothing, or two things at once."""
        if sum((self.role is not None, bool(self.any), bool(self.all))) != 1:
            raise ValueError('say one of role = "...", any = [...], all = [...]')
        if len(self.ways()) > _MOST_WAYS:
            raise ValueError(f"more than {_MOST_WAYS} ways to meet it")

    def ways(self) -> list[tuple[Role, ...]]:
        """The groups of which each is enough: a role for each person."""
        if self.role is not None:
            return [(self.role,) * self.count]
        if self.any:
            return [way for one in self.any for way in one.ways()]
        return [
            tuple(role for part in parts for role in part) for parts in product(*(one.ways() for one in self.all))
        ]

    def met_by(self, persons: Mapping[str, frozenset[Role]]) -> bool:
        """Whether these persons are enough, each in one of their roles."""
        return any(_filled(way, persons) for way in self.ways())

    def __str__(self) -> str:
        if self.role is not None:
            return f"{self.count} {self.role}{'s' if self.count > 1 else ''}"
        if self.any:
            return " or ".join(_bracketed(one) for one in self.any)
        return " and ".join(_bracketed(one) for one in self.all)


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One rule. `actions` and `keystores` are patterns with *."""

    name: str
    actions: tuple[str, ...]
    keystores: tuple[str, ...] = ("*",)
    reason: bool = False
    ticket: bool = False
    approvals: Needed | None = None

    def __post_init__(self) -> None:
        """Raises ValueError for a rule that says nothing."""
        if not (self.actions and self.keystores and (self.reason or self.ticket or self.approvals)):
            raise ValueError(f"the rule {self.name!r} asks for nothing, or of nothing")

    def fits(self, action: Action) -> bool:
        """Whether the action, in one of the keystores that it concerns, is one of these."""
        if action.stops or not any(fnmatchcase(kind, pattern) for kind in action.kinds() for pattern in self.actions):
            return False
        names = action.keystores()
        if not names:
            # Every keystore, or none in particular: any rule for its kind counts.
            return names is None or "*" in self.keystores
        return any(fnmatchcase(name, pattern) for name in names for pattern in self.keystores)


class Rules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All rules. `expires_after_h`: hours after which a change that is not approved is none any more."""

    expires_after_h: Hours = 24.0
    rule: tuple[Rule, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Rules":
        """Raises Invalid."""
        try:
            return msgspec.toml.decode(text, type=cls)
        except (msgspec.MsgspecError, ValueError, UnicodeDecodeError) as error:
            raise Invalid(
                f"the rules cannot be read: {error}",
                hint="`holdfast rules show --bank` shows a complete set.",
            ) from None

    @property
    def expires_after(self) -> timedelta:
        """How long a request for approval stands."""
        return timedelta(hours=self.expires_after_h)

    def fitting(self, action: Action) -> Iterator[Rule]:
        """The rules that an action is to meet."""
        return (rule for rule in self.rule if rule.fits(action))

    def needed(self, action: Action) -> tuple[Needed, ...]:
        """The approvals that an action needs: each of these."""
        return tuple(rule.approvals for rule in self.fitting(action) if rule.approvals is not None)


def bank_rules() -> str:
    """The rule set for a bank that comes with Holdfast, as TOML."""
    return (files("holdfast.control") / "sets" / "bank-rules.toml").read_text()


def _bracketed(needed: Needed) -> str:
    return str(needed) if needed.role is not None else f"({needed})"


def _filled(way: Sequence[Role], persons: Mapping[str, frozenset[Role]]) -> bool:
    """Whether each place of `way` can have a person of its own (augmenting paths)."""
    taken: dict[str, int] = {}

    def place(index: int, seen: set[str]) -> bool:
        for name, roles in persons.items():
            if way[index] in roles and name not in seen:
                seen.add(name)
                if name not in taken or place(taken[name], seen):
                    taken[name] = index
                    return True
        return False

    return all(place(index, set()) for index in range(len(way)))
