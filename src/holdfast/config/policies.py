"""The policy file that `[authorization]` names; its mistakes are reported like those of the configuration."""

from pathlib import Path

from holdfast.config.errors import ConfigurationError, Problem
from holdfast.config.storage import Authorization
from holdfast.config.text import read_text
from holdfast.policy.faults import PoliciesInvalid
from holdfast.policy.policies import Policies


def read_policies(file: Path) -> Authorization:
    """The file with its text, as it stands. Raises ConfigurationError."""
    return Authorization(file, read_text(file, language="Cedar"))


def parse_policies(authorization: Authorization) -> Policies:
    """The policies of a file that `read_policies` has read. Raises ConfigurationError."""
    try:
        return Policies.parse(authorization.text or "")
    except PoliciesInvalid as invalid:
        problems = tuple(Problem(mistake.line, mistake.text) for mistake in invalid.mistakes)
        raise ConfigurationError(str(authorization.policies), problems) from None
