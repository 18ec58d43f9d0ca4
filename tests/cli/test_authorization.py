"""`holdfast authorization test` says what the proxy would decide, and which policy decides."""

from pathlib import Path

import pytest
from tests.cli.conftest import Run
from tools.docs.shapes import SHAPES

from holdfast.cli.exit_codes import ExitCode

ROLE = "arn:aws:iam::123456789012:role/payments"
REQUEST = ("--keystore", "prod", "--key", "prod-1", "--kms-key-arn", "arn:aws:kms:eu-west-1:123456789012:key/1")
POLICIES = f"""\
@id("payments-role")
permit(principal == AwsPrincipal::"{ROLE}", action, resource in Keystore::"prod");

@id("only-endpoint")
forbid(principal, action, resource) when {{ context has awsSourceVpce && context.awsSourceVpce != "vpce-1" }};
"""


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    file = tmp_path / "policies.cedar"
    file.write_text(POLICIES)
    return file


def test_an_allowed_request_names_the_policy_that_permits(run: Run, policies: Path) -> None:
    done = run("authorization", "test", "--policies", policies, "--principal", ROLE, *REQUEST).ok()
    assert done.out == "allow: permitted by payments-role\n"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--principal", ROLE, "--aws-source-vpce", "vpce-2"), "deny: forbidden by policy only-endpoint\n"),
        (("--principal", "ec2.amazonaws.com"), "deny: denied because no policy permits it\n"),
    ],
)
def test_a_denied_request_names_the_policy_and_has_an_exit_code(
    run: Run, policies: Path, options: tuple[str, ...], said: str
) -> None:
    done = run("authorization", "test", "--policies", policies, *options, *REQUEST)
    assert (done.code, done.out) == (ExitCode.DENIED, said)


@pytest.mark.parametrize(
    ("principal", "document"),
    [
        (ROLE, {"decision": "allow", "policies": ["payments-role"], "detail": None}),
        ("AWS Internal", {"decision": "deny", "policies": [], "detail": "denied because no policy permits it"}),
    ],
)
def test_json_is_the_documented_document(
    run: Run, policies: Path, principal: str, document: dict[str, object]
) -> None:
    done = run("authorization", "test", "--policies", policies, "--principal", principal, *REQUEST, "--json")
    assert done.json == document
    assert ("object", tuple(done.json)) == SHAPES["authorization test"]


def test_a_look_at_a_key_needs_no_kms_key(run: Run, policies: Path) -> None:
    options = ("--keystore", "prod", "--key", "prod-1", "--principal", ROLE, "--operation", "GetKeyMetadata")
    assert run("authorization", "test", "--policies", policies, *options).code == ExitCode.OK


def test_a_use_of_a_key_needs_the_kms_key(run: Run, policies: Path) -> None:
    """KMS always sends it; without it a policy about the account would seem to deny."""
    options = ("--keystore", "prod", "--key", "prod-1", "--principal", ROLE)
    done = run("authorization", "test", "--policies", policies, *options)
    assert done.code == ExitCode.CONFIGURATION
    assert "--kms-key-arn" in done.err


@pytest.mark.parametrize(
    "attribute", ["kms-operation", "kms-key-arn", "kms-via-service", "aws-source-vpc", "aws-source-vpce"]
)
def test_every_option_reaches_the_policies(run: Run, tmp_path: Path, attribute: str) -> None:
    first, *rest = attribute.split("-")
    name = first + "".join(word.capitalize() for word in rest)
    file = tmp_path / "policies.cedar"
    file.write_text(
        f'permit(principal, action, resource) when {{ context has {name} && context.{name} == "marked" }};'
    )
    asked = ("authorization", "test", "--policies", file, "--principal", ROLE, *REQUEST)
    assert run(*asked).code == ExitCode.DENIED
    assert run(*asked, f"--{attribute}", "marked").code == ExitCode.OK


def test_the_policy_file_of_the_configuration_is_the_default(run: Run, catalog_only: Path) -> None:
    catalog_only.write_text(catalog_only.read_text() + '[authorization]\npolicies = "policies.cedar"\n')
    catalog_only.with_name("policies.cedar").write_text(POLICIES)
    run("authorization", "test", "--config", catalog_only, "--principal", ROLE, *REQUEST).ok()


def test_a_configuration_without_policies_says_so(run: Run, catalog_only: Path) -> None:
    done = run("authorization", "test", "--config", catalog_only, "--principal", ROLE, *REQUEST)
    assert done.code == ExitCode.CONFIGURATION
    assert "no [authorization]" in done.err


def test_a_wrong_policy_file_names_file_and_line(run: Run, policies: Path) -> None:
    policies.write_text(POLICIES + "\nforbid(")
    done = run("authorization", "test", "--policies", policies, "--principal", ROLE, *REQUEST)
    assert done.code == ExitCode.CONFIGURATION
    assert f"{policies}:7: is not Cedar" in done.err


def test_breaking_glass_does_not_need_good_policies(run: Run, catalog_only: Path) -> None:
    run("keystore", "create", "prod", "--config", catalog_only).ok()
    catalog_only.write_text(catalog_only.read_text() + '[authorization]\npolicies = "no-such-file"\n')
    run("keystore", "block", "prod", "--yes", "--config", catalog_only).ok()
