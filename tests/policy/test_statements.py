"""Each policy has the line on which a person finds it."""

import pytest

from holdfast.policy.statements import split

TEXT = """\
// A file; with a semicolon in its comment.
@id("first")
permit(principal, action, resource); forbid(principal, action, resource);

/// another
permit(principal, action, resource)
when { principal.arn like "a;b//\\"c" }  // ; "
;
"""


def test_policies_begin_where_their_text_begins() -> None:
    assert [statement.line for statement in split(TEXT)] == [2, 3, 6]


def test_a_policy_ends_with_its_own_semicolon() -> None:
    first, second, third = split(TEXT)
    assert first.text == '@id("first")\npermit(principal, action, resource);'
    assert second.text == "forbid(principal, action, resource);"
    assert third.text.endswith('// ; "\n;')


def test_a_comment_ends_with_a_carriage_return_as_it_does_in_cedar() -> None:
    assert [statement.text for statement in split("// a\rpermit(principal, action, resource);")] == [
        "permit(principal, action, resource);"
    ]


@pytest.mark.parametrize("rest", ["permit(", 'permit "unclosed ; // x', "/", ";"])
def test_a_rest_is_a_policy_too_so_that_nothing_is_passed_over(rest: str) -> None:
    assert [statement.text for statement in split(TEXT + rest)][3:] == [rest]


@pytest.mark.parametrize("text", ["", "\n\n", "// nothing", " \t// a\r\n//b;"])
def test_comments_alone_are_no_policy(text: str) -> None:
    assert split(text) == []


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("unexpected token `like`", 7),
        ("invalid variable: `nowhere`", 6),
        ("`principal` stands here twice", 6),
        ("no backticks", 6),
    ],
)
def test_a_message_has_the_line_of_its_words_where_they_stand_once(message: str, line: int) -> None:
    assert split(TEXT)[2].line_of(message) == line
