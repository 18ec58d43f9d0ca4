"""Doctor on the policy file: whether the proxy would take it, and whether what it names exists."""

from collections.abc import Iterator

from holdfast.config.errors import ConfigurationError
from holdfast.config.policies import parse_policies, read_policies
from holdfast.config.storage import Authorization
from holdfast.finding import Finding, error, ok, warning
from holdfast.keys.model import Snapshot


def examine_policies(authorization: Authorization | None) -> Iterator[Finding]:
    """Findings on `[authorization]`; none without it."""
    if authorization is None:
        return
    subject = str(authorization.policies)
    try:
        count = len(parse_policies(read_policies(authorization.policies)).policies)
    except ConfigurationError as wrong:
        for problem in wrong.problems:
            yield error(
                "policies-invalid",
                subject,
                problem.text if problem.line is None else f"line {problem.line}: {problem.text}",
                why="The proxy does not start with this file; one that runs keeps the policies that it has.",
                remedy="Correct it; `holdfast docs authorization` says what a policy can name.",
            )
        return
    yield ok("policies", subject, f"the policies parse and are valid ({count}); what none of them permits is denied")


def examine_policy_names(authorization: Authorization | None, snapshot: Snapshot) -> Iterator[Finding]:
    """Findings on keystores and keys that a policy names and the catalog does not have."""
    if authorization is None:
        return
    try:
        policies = parse_policies(read_policies(authorization.policies)).policies
    except ConfigurationError:
        return  # Reported by the findings on the file.
    keystores = snapshot.keystores.values()
    known = {("Keystore", keystore.name) for keystore in keystores}
    known |= {("ExternalKey", f"{keystore.name}/{key}") for keystore in keystores for key in keystore.keys}
    for policy in policies:
        for kind, name in sorted(policy.entities - known):
            if kind in ("Keystore", "ExternalKey"):
                yield warning(
                    "policies-name-unknown",
                    str(authorization.policies),
                    f'policy {policy.name} names {kind}::"{name}", which is not in the catalog',
                    why="A policy that names it wrongly never applies: a permit denies, a forbid lets pass.",
                    remedy="Compare with `holdfast keystore list` and `holdfast key list`.",
                )
