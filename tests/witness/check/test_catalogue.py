"""The catalogue of checks is whole and well-formed."""

import importlib
import pkgutil
import re
import tomllib
from importlib.resources import files

import pytest

from holdfast.witness.check import checks
from holdfast.witness.check.checks import CATALOGUE, GROUPS
from holdfast.witness.check.endpoint import UsageError
from holdfast.witness.check.finding import Check
from holdfast.witness.check.run import select


def test_every_check_of_every_module_is_in_the_catalogue() -> None:
    modules = [
        importlib.import_module(f"{checks.__name__}.{info.name}") for info in pkgutil.iter_modules(checks.__path__)
    ]
    defined = {value.id for module in modules for value in vars(module).values() if isinstance(value, Check)}
    assert defined == {check.id for check in CATALOGUE}


def test_ids_are_unique_and_numbered_within_their_group() -> None:
    for group in GROUPS:
        ids = [check.id for check in CATALOGUE if check.group == group]
        assert ids == [f"{group}-{number:02}" for number in range(1, len(ids) + 1)]


def test_needs_name_checks_and_make_no_circle() -> None:
    by_id = {check.id: check for check in CATALOGUE}

    def depth(check_id: str, above: tuple[str, ...] = ()) -> int:
        assert check_id not in above
        return 1 + max((depth(need, (*above, check_id)) for need in by_id[check_id].needs), default=0)

    assert max(depth(check_id) for check_id in by_id) < len(by_id)


@pytest.mark.parametrize("check", CATALOGUE, ids=lambda check: check.id)
def test_a_check_has_title_source_and_method(check: Check) -> None:
    assert check.title
    assert check.violation != check.title
    assert check.remedy.endswith(".")
    assert check.what_it_does.endswith((".", ".)"))
    assert check.source.section
    assert len(check.source.plain) > 10
    assert not re.search(r"[<\[`]br|\*\*", check.source.plain)


def test_no_remedy_is_left_over_from_a_check_that_is_gone() -> None:
    text = files("holdfast.witness.check").joinpath("violations.toml").read_text()
    assert list(tomllib.loads(text)) == [check.id for check in sorted(CATALOGUE, key=_place)]


def _place(check: Check) -> tuple[int, str]:
    return list(GROUPS).index(check.group), check.id


def test_selecting_a_check_includes_what_it_needs() -> None:
    assert {check.id for check in select(["auth-03"])} >= {"AUTH-03", "AUTH-01", "HEALTH-01", "TLS-04", "REACH-01"}
    assert "META-01" not in {check.id for check in select(["AUTH-03"])}


def test_an_unknown_check_is_a_usage_error() -> None:
    with pytest.raises(UsageError) as caught:
        select(["NOPE-01"])
    assert "groups" in caught.value.hint
