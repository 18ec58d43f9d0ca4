"""Cedar's decisions, with the names of those that made them; and nobody gets in by a failure."""

import pytest
from tests.policy.samples import FACTS, LOOK, decide

from holdfast.policy import policies as module
from holdfast.policy.facts import Facts
from holdfast.policy.policies import Policies

PERMIT = '@id("all") permit(principal, action, resource);\n'
FORBID = '@id("none") forbid(principal, action, resource);\n'
FAILS = '@id("fails") forbid(principal, action, resource) when { 9223372036854775807 + 1 == 0 };\n'


def test_a_permit_permits_and_is_named() -> None:
    assert decide(PERMIT) == (("all",), None)


def test_what_no_policy_permits_is_denied_and_the_denial_says_so() -> None:
    assert decide('permit(principal, action, resource in Keystore::"other");') == (
        (),
        "denied because no policy permits it",
    )


def test_a_forbid_wins_and_is_named() -> None:
    assert decide(PERMIT + FORBID) == (("none",), "forbidden by policy none")


def test_policies_that_decide_together_are_named_in_their_order() -> None:
    """Twelve, so that policy10 does not sort before policy2."""
    text = "".join(f'@id("{number}") forbid(principal, action, resource);\n' for number in range(12))
    names = tuple(str(number) for number in range(12))
    assert decide(PERMIT + text) == (names, f"forbidden by policies {', '.join(names)}")


def test_a_policy_without_an_id_is_named_by_its_line() -> None:
    assert decide(f"{PERMIT}\nforbid(principal, action, resource);").denial == "forbidden by policy line 3"


def test_a_policy_that_fails_denies_what_others_permit() -> None:
    """Cedar would pass over it, and a forbid that fails would let everybody in."""
    names, denial = decide(PERMIT + FAILS)
    assert names == ("fails",)
    assert denial is not None
    assert denial.startswith(
        "denied because the policies could not be evaluated: error while evaluating policy fails"
    )


def test_facts_that_the_engine_cannot_take_are_denied() -> None:
    """A lone surrogate cannot come through the parser; if it ever does, it opens nothing."""
    assert decide(PERMIT, FACTS._replace(aws_principal_arn="\ud800")) == (
        (),
        "denied because the policies could not be evaluated: UnicodeEncodeError",
    )


def test_a_failure_is_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that passes, such as a lack of memory, must not deny for ever."""
    policies = Policies.parse(PERMIT)
    with monkeypatch.context() as patch:
        patch.setattr(policies._cedarpy, "is_authorized", lambda *_: 1 / 0)
        assert policies.decide(FACTS).denial is not None
    assert policies.decide(FACTS).denial is None


def test_an_operation_of_kms_that_nobody_knows_yet_is_decided_like_any_other() -> None:
    """Spec: it is not invalid; whether it may is the policies' to say."""
    fresh = FACTS._replace(kms_operation="DecryptFromTheFuture")
    assert decide(PERMIT, fresh).denial is None
    known = 'permit(principal, action, resource) when { ["Decrypt", "ReEncrypt"].contains(context.kmsOperation) };'
    assert decide(known).denial is None
    assert decide(known, fresh).denial == "denied because no policy permits it"


@pytest.mark.parametrize(
    "facts", [FACTS, FACTS._replace(operation="Encrypt"), LOOK], ids=lambda facts: facts.operation
)
def test_an_action_is_the_operation_of_the_proxy(facts: Facts) -> None:
    text = f'permit(principal, action == Action::"{facts.operation}", resource);'
    allowed = {
        operation
        for operation in ("Encrypt", "Decrypt", "GetKeyMetadata")
        if decide(text, facts._replace(operation=operation)).denial is None
    }
    assert allowed == {facts.operation}


# ---- the cache


class Counting:
    """cedarpy, with its calls counted."""

    def __init__(self, policies: Policies) -> None:
        self.calls = 0
        self._real = policies._cedarpy
        policies._cedarpy = self  # type: ignore[assignment]  # a module of one function

    def is_authorized(self, *arguments: object) -> object:
        """The real decision."""
        self.calls += 1
        return self._real.is_authorized(*arguments)


def test_equal_facts_are_evaluated_once() -> None:
    policies = Policies.parse(PERMIT)
    engine = Counting(policies)
    assert policies.decide(FACTS) == policies.decide(Facts(*FACTS))
    assert engine.calls == 1


@pytest.mark.parametrize("field", Facts._fields)
def test_every_fact_makes_a_request_of_its_own(field: str) -> None:
    """A fact that the cache did not look at would hand one caller's decision to another."""
    policies = Policies.parse(PERMIT)
    engine = Counting(policies)
    policies.decide(FACTS)
    policies.decide(FACTS._replace(**{field: "another"}))
    assert engine.calls == 2


def test_the_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CACHED", 2)
    policies = Policies.parse(PERMIT)
    engine = Counting(policies)
    for principal in ("a", "b", "c", "a"):
        policies.decide(FACTS._replace(aws_principal_arn=principal))
    assert engine.calls == 4


def test_another_version_decides_anew() -> None:
    assert decide(PERMIT).denial is None
    assert decide(FORBID).denial is not None
