"""The policy file is read with the configuration, and its mistakes are told as the configuration's are."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.policy.samples import CONFIGURATION, PERMIT

from holdfast.config.errors import ConfigurationError
from holdfast.config.load import load, parse
from holdfast.config.policies import parse_policies

if TYPE_CHECKING:
    from holdfast.config.model import Configuration


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The configuration; the policy file lies beside it, as its relative path says."""
    path = tmp_path / "holdfast.toml"
    path.write_text(CONFIGURATION)
    path.with_name("policies.cedar").write_text(PERMIT)
    return path


def test_the_text_of_the_policies_is_part_of_the_configuration(file: Path) -> None:
    """So a changed policy file is a changed configuration, and every worker gets the same."""
    first = load(file)
    assert load(file) == first
    file.with_name("policies.cedar").write_text(PERMIT + PERMIT)
    assert load(file) != first


def test_the_policies_reach_a_worker_with_the_configuration(file: Path) -> None:
    sent: Configuration = pickle.loads(pickle.dumps(load(file)))  # noqa: S301 (our own)
    assert sent.authorization is not None
    assert len(parse_policies(sent.authorization).policies) == 1


def test_every_mistake_is_told_with_the_file_and_its_line(file: Path) -> None:
    policies = file.with_name("policies.cedar")
    policies.write_text(
        PERMIT + 'permit(principal, action, resource)\nwhen { principal.arm == "x" };\npermit(user, action);'
    )
    with pytest.raises(ConfigurationError) as caught:
        load(file)
    assert str(caught.value).startswith(f"{policies}:4: is not Cedar: ")
    policies.write_text(PERMIT + 'permit(principal, action, resource)\nwhen { principal.arm == "x" };')
    with pytest.raises(ConfigurationError) as caught:
        load(file)
    assert str(caught.value) == f"{policies}:3: attribute `arm` on entity type `AwsPrincipal` not found"


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "policies.cedar: holds no policy"),
        (PERMIT.encode() + b"// \xff", "policies.cedar:2: is not UTF-8, as Cedar must be"),
        (b" " * 1_048_577, "policies.cedar: cannot be read: It has more than 1048576 bytes"),
    ],
)
def test_a_file_that_is_no_policy_file_is_refused(file: Path, raw: bytes, words: str) -> None:
    file.with_name("policies.cedar").write_bytes(raw)
    with pytest.raises(ConfigurationError, match=words):
        load(file)


def test_a_missing_file_is_named(file: Path) -> None:
    file.with_name("policies.cedar").unlink()
    with pytest.raises(ConfigurationError, match=r"policies\.cedar: cannot be read: No such file or directory"):
        load(file)


def test_the_table_without_its_key_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"`policies` in \[authorization\] is missing"):
        parse(CONFIGURATION.replace('policies = "policies.cedar"\n', ""), Path("/etc/holdfast/holdfast.toml"))
