"""One version of the policies: parsed and validated once, evaluated for each request."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

from holdfast.policy.reading import Policy, read
from holdfast.policy.schema import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import ModuleType


class Question(Protocol):
    """What is to be decided; it can be hashed. `Facts` of a request is one."""

    def request(self) -> dict[str, Any]:
        """The request as Cedar takes it."""

    def entities(self) -> list[dict[str, Any]]:
        """Its entities as Cedar takes them."""

    def __hash__(self) -> int:
        """Equal questions have one answer."""


MAX_CACHED = 4_096
"""Decisions in the cache. Beyond that the least recently used one is dropped."""
_ENGINE_NAME = re.compile(r"`policy([0-9]+)`")
"""Cedar numbers the policies of a text from 0."""
_NOT_EVALUATED = "denied because the policies could not be evaluated"


class Decision(NamedTuple):
    """`denial` is None if the request is allowed, else the reason, for the operator.

    `policies` names the policies that decided: those that permit, or those that forbid. A default deny has none.
    """

    policies: tuple[str, ...]
    denial: str | None


class Policies:
    """The policies of one version, with the decisions already made. A new version is a new object."""

    def __init__(self, text: str, policies: tuple[Policy, ...], cedarpy: ModuleType) -> None:
        self.policies = policies
        self._cedarpy = cedarpy
        self._policy_set = cedarpy.PolicySet.from_str(text)
        self._cached = lru_cache(MAX_CACHED)(self._evaluate)

    @classmethod
    def parse(cls, text: str, *, schema: str = SCHEMA) -> Self:
        """Raises PoliciesInvalid with every mistake: not Cedar, not valid by the schema, or ambiguous."""
        import cedarpy  # noqa: PLC0415 (15 MB and 0.1 s at start, for installations that have policies only)

        return cls(text, read(text, cedarpy, schema), cedarpy)

    def decide(self, facts: Question) -> Decision:
        """The decision; never raises. Equal facts are evaluated once."""
        try:
            return self._cached(facts)
        except Exception as error:  # noqa: BLE001 (no fault of the engine may allow a request)
            return Decision((), f"{_NOT_EVALUATED}: {type(error).__name__}")

    def _evaluate(self, facts: Question) -> Decision:
        result = self._cedarpy.is_authorized(facts.request(), self._policy_set, facts.entities())
        errors = result.diagnostics.errors
        if errors:
            # Cedar ignores a policy that fails, even a forbid. Here every request is denied until it is repaired.
            failed = self._names(number for error in errors for number in _ENGINE_NAME.findall(error))
            said = "; ".join(_ENGINE_NAME.sub(lambda match: self._names([match[1]])[0], error) for error in errors)
            return Decision(failed, f"{_NOT_EVALUATED}: {said}")
        names = self._names(reason.removeprefix("policy") for reason in result.diagnostics.reasons)
        if result.allowed:
            return Decision(names, None)
        if not names:
            return Decision((), "denied because no policy permits it")
        return Decision(names, f"forbidden by {'policy' if len(names) == 1 else 'policies'} {', '.join(names)}")

    def _names(self, numbers: Iterable[str]) -> tuple[str, ...]:
        return tuple(self.policies[number].name for number in sorted({int(number) for number in numbers}))
