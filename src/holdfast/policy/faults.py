"""Faults of policies. `operations` maps them to errors of the wire."""

from dataclasses import dataclass


class AccessDenied(Exception):
    """The policies deny the request. The text is for the operator and names the policy."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """One mistake of a policy text. `line` counts from 1; None: the text as a whole."""

    line: int | None
    text: str


class PoliciesInvalid(Exception):
    """Every mistake that was found in a policy text."""

    def __init__(self, mistakes: tuple[Mistake, ...]) -> None:
        super().__init__(mistakes)
        self.mistakes = mistakes
