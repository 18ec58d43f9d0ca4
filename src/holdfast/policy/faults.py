"""What can be wrong with policies, and what they can refuse. `operations` translates for the wire."""

from dataclasses import dataclass


class AccessDenied(Exception):
    """The policies do not let this caller do this. The text is for the operator and names the policy."""


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
