"""`holdfast authorization`: what the policies decide, without a proxy, an HSM or KMS."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from holdfast.admin.errors import Invalid
from holdfast.cli import output
from holdfast.cli.exit_codes import ExitCode
from holdfast.cli.options import ConfigOption, JsonOption, read_configuration
from holdfast.config.policies import load_policies, parse_policies
from holdfast.policy.facts import Facts
from holdfast.policy.policies import Decision

app = typer.Typer(help="Cedar policies: who may use which key.", no_args_is_help=True)


class Asked(StrEnum):
    """The operations that policies decide on: all but GetHealthStatus."""

    ENCRYPT = "Encrypt"
    DECRYPT = "Decrypt"
    GET_KEY_METADATA = "GetKeyMetadata"


@app.callback()
def authorization() -> None:
    """Cedar policies: who may use which key."""


def _option(text: str) -> Any:
    return typer.Option(help=text, show_default=False)


@app.command("test")
def decide_once(
    *,
    keystore: Annotated[str, _option("The keystore's name.")],
    key: Annotated[str, _option("The external key id.")],
    principal: Annotated[str, _option("awsPrincipalArn: an ARN, ec2.amazonaws.com, or 'AWS Internal'.")],
    operation: Annotated[Asked, typer.Option(help="What KMS asks the proxy for.")] = Asked.DECRYPT,
    kms_operation: Annotated[str | None, _option("What KMS was asked for, such as GenerateDataKey.")] = None,
    kms_key_arn: Annotated[str | None, _option("The KMS key. Needed for Encrypt and Decrypt.")] = None,
    kms_via_service: Annotated[str | None, _option("As in s3.eu-west-1.amazonaws.com.")] = None,
    aws_source_vpc: Annotated[str | None, _option("The caller's VPC.")] = None,
    aws_source_vpce: Annotated[str | None, _option("The caller's VPC endpoint.")] = None,
    policies: Annotated[Path | None, _option("The policy file. Default: that of the configuration.")] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what the policies decide on a request, and which policy decides.

    Nothing is asked but the file: neither whether the key exists, nor KMS's key policy.
    The exit code is 0 for allow, 13 for deny.
    """
    if operation is not Asked.GET_KEY_METADATA and kms_key_arn is None:
        raise Invalid(f"KMS names the KMS key in every {operation}", hint="Add --kms-key-arn ARN.")
    asked = kms_operation or ("DescribeKey" if operation is Asked.GET_KEY_METADATA else operation.value)
    facts = Facts(
        operation.value,
        keystore,
        key,
        principal,
        asked,
        kms_key_arn,
        kms_via_service,
        aws_source_vpc,
        aws_source_vpce,
    )
    decision = parse_policies(load_policies(policies or _configured(config))).decide(facts)
    _tell(decision, as_json=as_json)
    raise typer.Exit(ExitCode.OK if decision.denial is None else ExitCode.DENIED)


def _tell(decision: Decision, *, as_json: bool) -> None:
    verdict = "allow" if decision.denial is None else "deny"
    if as_json:
        output.json({"decision": verdict, "policies": decision.policies, "detail": decision.denial})
    else:
        why = decision.denial or f"permitted by {', '.join(decision.policies)}"
        output.data(f"{verdict}: {why}")


def _configured(config: Path | None) -> Path:
    authorization = read_configuration(config).authorization
    if authorization is None:
        raise Invalid(
            "the configuration has no [authorization]: the proxy does whatever KMS's key policies allow",
            hint="Name a file with --policies FILE, or in the configuration.",
        )
    return authorization.policies
