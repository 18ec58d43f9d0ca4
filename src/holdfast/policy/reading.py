"""Reads a policy text and reports every mistake in it at once."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from holdfast.policy.faults import Mistake, PoliciesInvalid
from holdfast.policy.statements import Statement, split

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

_EMPTY = "holds no policy, so everything would be denied; if you mean it: forbid(principal, action, resource);"
_NOT_A_KEY = '`"{}"` is not an external key: write ExternalKey::"KEYSTORE/EXTERNAL-KEY-ID"'
_UNSURE = re.compile("optional attribute `([A-Za-z]+)` in context")


class Policy(NamedTuple):
    """One policy: its `@id`, if it has one, the line on which it begins, and what it names, as (type, id)."""

    id: str | None
    line: int
    entities: frozenset[tuple[str, str]]

    @property
    def name(self) -> str:
        """The name for people: the `@id`, or else the line."""
        return self.id or f"line {self.line}"


def read(text: str, cedarpy: ModuleType, schema: str) -> tuple[Policy, ...]:
    """The policies in their order, which is that of Cedar's own numbers. Raises PoliciesInvalid."""
    statements = split(text)
    if not statements:
        raise PoliciesInvalid((Mistake(None, _EMPTY),))
    reader = _Reader(cedarpy)
    policies = tuple(reader.policy(statement) for statement in statements)
    # Text that is not Cedar cannot be validated.
    reader.raise_mistakes()
    reader.validate(text, statements, schema)
    reader.check_names(statements, policies)
    reader.raise_mistakes()
    return policies


class _Reader:
    """One reading of one text. Mistakes are collected."""

    def __init__(self, cedarpy: ModuleType) -> None:
        self._cedarpy = cedarpy
        self._mistakes: dict[Mistake, None] = {}

    def policy(self, statement: Statement) -> Policy:
        """The policy. If it is not one, only its line."""
        broken = Policy(None, statement.line, frozenset())
        try:
            parsed = msgspec.json.decode(self._cedarpy.policies_to_json_str(statement.text))
            policy = parsed["staticPolicies"].get("policy0")
            entities = frozenset(_entities(policy))
        except ValueError as error:
            self._mistake(statement, f"is not Cedar: {error}")
            return broken
        except RecursionError:
            self._mistake(statement, 'is nested too deeply; instead of many "||" ask [...].contains(...)')
            return broken
        if policy is None:
            self._mistake(statement, "is a template, which permits and forbids nothing: name an entity in its ?slot")
            return broken
        return Policy(policy.get("annotations", {}).get("id") or None, statement.line, entities)

    def validate(self, text: str, statements: list[Statement], schema: str) -> None:
        """Validate the text against the schema. Cedar reports a mistake once for each action that it concerns."""
        actions: dict[tuple[int, str], list[str]] = {}
        for error in self._cedarpy.validate_policies(text, schema).errors:
            if not error.policy_id:
                # Cedar and `split` disagree about some Unicode white space; such text belongs to no policy.
                self._mistakes[Mistake(None, f"is not Cedar: {error.error}")] = None
                return
            said = error.error.removeprefix(f"for policy `{error.policy_id}`, ")
            general, _, action = said.partition(" for Action::")
            number = int(error.policy_id.removeprefix("policy"))
            actions.setdefault((number, general), []).append(action.strip('"'))
        for (number, said), concerned in actions.items():
            where = f" of {', '.join(sorted(concerned))}" if any(concerned) else ""
            unsure = _UNSURE.search(said)
            hint = f": write `context has {unsure[1]} && ...` before it" if unsure else ""
            self._mistake(statements[number], said + where + hint)

    def check_names(self, statements: list[Statement], policies: tuple[Policy, ...]) -> None:
        """Check names: each `@id` belongs to one policy, and each external key is written with its keystore."""
        seen: dict[str, int] = {}
        for statement, policy in zip(statements, policies, strict=True):
            if policy.id in seen:
                self._mistake(statement, f'has the @id("{policy.id}") of the policy at line {seen[policy.id]}')
            elif policy.id is not None:
                seen[policy.id] = policy.line
            for kind, name in sorted(policy.entities):
                if kind == "ExternalKey" and name.count("/") != 1:
                    self._mistake(statement, _NOT_A_KEY.format(name))

    def raise_mistakes(self) -> None:
        """Raises PoliciesInvalid if there are any, in the order of their lines."""
        if self._mistakes:
            raise PoliciesInvalid(tuple(sorted(self._mistakes, key=lambda mistake: mistake.line or 0)))

    def _mistake(self, statement: Statement, text: str) -> None:
        self._mistakes[Mistake(statement.line_of(text), text)] = None


def _entities(node: Any) -> Iterator[tuple[str, str]]:
    """Every entity that a policy in Cedar's JSON form names."""
    match node:
        case {"type": str(kind), "id": str(name)}:
            yield kind, name
        case dict():
            for child in node.values():
                yield from _entities(child)
        case list():
            for child in node:
                yield from _entities(child)
