"""A policy file is good as a whole, or every mistake of it is told with its line."""

import pytest
from tests.policy.samples import mistakes

from holdfast.policy.policies import Policies

GOOD = "permit(principal, action, resource);\n"


def test_a_policy_is_named_by_its_id_or_its_line() -> None:
    policies = Policies.parse(f'{GOOD}\n@id("third line")\n{GOOD}@id("")\n{GOOD}').policies
    assert [policy.name for policy in policies] == ["line 1", "third line", "line 5"]


def test_the_entities_of_scope_and_conditions_are_known() -> None:
    (policy,) = Policies.parse(
        'permit(principal, action == Action::"Encrypt", resource in Keystore::"a")'
        ' when { [ExternalKey::"a/b", ExternalKey::"a/c"].contains(resource) };'
    ).policies
    assert policy.entities == {
        ("Action", "Encrypt"),
        ("Keystore", "a"),
        ("ExternalKey", "a/b"),
        ("ExternalKey", "a/c"),
    }


@pytest.mark.parametrize("text", ["", "// permit(principal, action, resource);\n"])
def test_no_policy_at_all_is_a_mistake(text: str) -> None:
    """A file that is being written is empty for a moment, and would deny everything."""
    (mistake,) = mistakes(text)
    assert (mistake.line, mistake.text.partition(",")[0]) == (None, "holds no policy")


def test_what_lies_between_policies_and_is_no_cedar_is_a_mistake_of_the_whole_text() -> None:
    (mistake,) = mistakes("\x1cpermit(principal, action, resource);")
    assert (mistake.line, mistake.text.partition(":")[0]) == (None, "is not Cedar")


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("permit(principal, action, resource)", 2, "is not Cedar: unexpected end of input"),
        ("permit(principal, action, resource)\nwhen { principal.arn lke 1 };", 3, "is not Cedar: unexpected token"),
        ("allow(principal, action, resource);", 2, "is not Cedar: invalid policy effect: allow"),
        ("permit(principal, action, resource);;", 2, "is not Cedar"),
        ('permit(principal, action, resource) when { "open };', 2, "is not Cedar"),
        ('permit(principal, action, resource)\nwhen {\nprincipal.arm == "x" };', 4, "attribute `arm` on entity type"),
        ("permit(principal, action, resource) when { principal.arn == 1 };", 2, "not compatible"),
        ("permit(principal is User, action, resource);", 2, "unrecognized entity type `User`"),
        ('permit(principal, action == Action::"Sign", resource);', 2, 'unrecognized action `Action::"Sign"`'),
        ('permit(principal, action == Action::"GetHealthStatus", resource);', 2, "unrecognized action"),
        ("permit(principal == ?principal, action, resource);", 2, "is a template"),
        ('permit(principal, action, resource == ExternalKey::"orders");', 2, '`"orders"` is not an external key'),
        ('permit(principal, action, resource == ExternalKey::"a/b/c");', 2, '`"a/b/c"` is not an external key'),
    ],
)
def test_a_mistake_has_its_line_and_its_reason(text: str, line: int, words: str) -> None:
    first = mistakes(GOOD + text)[0]
    assert first.line == line
    assert words in first.text


def test_an_optional_attribute_must_be_asked_for_first() -> None:
    """Else the policy would fail for every request without it; the message says what to write."""
    (mistake,) = mistakes(f'{GOOD}permit(principal, action, resource) when {{ context.awsSourceVpce == "vpce-1" }};')
    assert mistake.text.endswith(
        "of Decrypt, Encrypt, GetKeyMetadata: write `context has awsSourceVpce && ...` before it"
    )


def test_the_kms_key_is_optional_for_get_key_metadata_alone() -> None:
    (mistake,) = mistakes('permit(principal, action, resource) when { context.region == "eu-west-1" };')
    assert "context of GetKeyMetadata: write `context has region && ...`" in mistake.text


def test_all_mistakes_are_told_at_once_in_the_order_of_their_lines() -> None:
    text = 'permit(principal, action, resource) when {{ principal.{} == "x" }};\n'
    found = mistakes(text.format("arm") + GOOD + text.format("acount") + text.format("isService"))
    assert [mistake.line for mistake in found] == [1, 3, 4]


def test_two_policies_must_not_have_one_id() -> None:
    (mistake,) = mistakes(f'@id("same") {GOOD}@id("same") {GOOD}')
    assert (mistake.line, mistake.text) == (2, 'has the @id("same") of the policy at line 1')


def test_a_policy_that_python_cannot_walk_is_a_mistake_and_no_crash() -> None:
    accounts = " || ".join(f'principal.account == "{number:012}"' for number in range(2_000))
    (mistake,) = mistakes(f"permit(principal, action, resource) when {{ {accounts} }};")
    assert "nested too deeply" in mistake.text


def test_a_set_takes_as_many_accounts_as_there_are() -> None:
    """What the message above advises."""
    accounts = ", ".join(f'"{number:012}"' for number in range(5_000))
    Policies.parse(f"permit(principal, action, resource) when {{ [{accounts}].contains(principal.account) }};")
