"""The conformance table is complete in itself, and names tests that exist."""

import ast
from pathlib import Path

import pytest
from tests.conformance.requirements import Requirement, requirements
from tests.conformance.test_wire import RULES

ROOT = Path(__file__).parents[2]
REQUIREMENTS = requirements()


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=lambda each: str(each.number))
def test_a_requirement_is_shown_or_has_a_reason(requirement: Requirement) -> None:
    assert requirement.checks or requirement.tests or requirement.missing
    assert set(requirement.checks) <= set(RULES)


def test_no_requirement_stands_twice() -> None:
    quotes = [(each.section, each.quote) for each in REQUIREMENTS]
    assert len(quotes) == len(set(quotes))


def test_every_named_test_exists() -> None:
    named = {tuple(test.split("::")) for each in REQUIREMENTS for test in each.tests}
    defined = {
        (file, node.name)
        for file in {file for file, _ in named}
        for node in ast.parse((ROOT / file).read_text()).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert named - defined == set()


def test_every_rule_that_the_spec_obliges_to_stands_in_the_table() -> None:
    from holdfast.witness.check.checks import CATALOGUE  # noqa: PLC0415 (this test alone looks at the levels)
    from holdfast.witness.check.finding import Level  # noqa: PLC0415

    named = {check for each in REQUIREMENTS for check in each.checks}
    binding = {check.id for check in CATALOGUE if check.level in (Level.MUST, Level.SHOULD)}
    assert binding - named - set(OTHERS) == set()


OTHERS = {
    "CONF-04": "the operator's name",
    "CERT-02": "the operator's certificate",
    "LAT-03": "the operator's network",
    "TLS-05": "shown by tests/server/test_tls.py",
    "HEALTH-04": "follows from the meaning of UNAVAILABLE",
    "HTTP-03": "the table of error codes",
    "ENC-07": "NIST SP 800-38D, through AES-GCM",
    "ENC-16": "the table of error codes",
    "ENC-18": "the meaning of Encrypt",
    "DEC-04": "the table of error codes",
    "DEC-05": "the table of error codes",
    "DEC-06": "the table of error codes",
    "REQ-04": "Appendix B, without a keyword",
    "REQ-06": "awsPrincipalArn, without a keyword",
    "USE-02": "the table of error codes",
    "USE-04": "the table of error codes",
    "USE-06": "the table of error codes",
}
"""Binding rules of the catalogue whose sentence in the spec has no keyword, or is not for the proxy."""
