"""The spec over the wire, on each module: the catalogue of `holdfast check` against running servers.

A gap that is known is listed with its reason in backends.py; one that is not there any more is reported too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.conformance.backends import BACKENDS, Backend

from holdfast.witness.check.checks import CATALOGUE
from holdfast.witness.check.finding import Verdict

if TYPE_CHECKING:
    from tests.conformance.conftest import Check

pytestmark = pytest.mark.server

# Latency depends on the machine that runs the tests, and on what else runs there: `make bench` measures it.
NOT_JUDGED_HERE = {"LAT-01", "LAT-02", "LAT-03"}
RULES = [check.id for check in CATALOGUE if check.id not in NOT_JUDGED_HERE]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.name)
def test_rule(checked: Check, backend: Backend, rule: str) -> None:
    result = checked(backend)[rule]
    if rule in backend.known_gaps:
        assert result.verdict is not Verdict.PASS, f"stale gap, take it off the list: {backend.known_gaps[rule]}"
    else:
        assert result.verdict is Verdict.PASS, f"{result.check.title}: {result.verdict}: {result.evidence}"


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.name)
def test_a_known_gap_is_a_rule(backend: Backend) -> None:
    assert set(backend.known_gaps) <= set(RULES)
