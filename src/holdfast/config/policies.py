"""The policy file that `[authorization]` names; its mistakes are told as those of the configuration are."""

from pathlib import Path

from holdfast.config.errors import ConfigurationError, Problem
from holdfast.config.model import Authorization
from holdfast.config.text import read_text
from holdfast.policy.faults import PoliciesInvalid
from holdfast.policy.policies import Policies


def load_policies(file: Path) -> Authorization:
    """The file with its text, which has been parsed and validated. Raises ConfigurationError."""
    authorization = Authorization(file, read_text(file, language="Cedar"))
    parse_policies(authorization)
    return authorization


def parse_policies(authorization: Authorization) -> Policies:
    """The policies of a file that `load_policies` has read. Raises ConfigurationError."""
    try:
        return Policies.parse(authorization.text or "")
    except PoliciesInvalid as invalid:
        problems = tuple(Problem(mistake.line, mistake.text) for mistake in invalid.mistakes)
        raise ConfigurationError(str(authorization.policies), problems) from None
